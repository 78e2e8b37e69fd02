//! Journeys through the whole house: the facade with SQLite, SMTP, IMAP and POP3 against the in-process mail server, every
//! byte over loopback. What needs a foreign server is in `real_servers.sh`.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "journeys/desk.rs"]
mod desk;
#[path = "journeys/faults.rs"]
mod faults;
#[path = "journeys/kill.rs"]
mod kill;
#[path = "journeys/mail.rs"]
mod mail;
#[path = "journeys/operating.rs"]
mod operating;
