//! The mail server and the scripted peer, seen by clients that are written for these tests and share no code with them.

#![expect(clippy::unwrap_used, reason = "a test that can not go on has failed")]

#[path = "server/client.rs"]
mod client;
#[path = "server/faults.rs"]
mod faults;
#[path = "server/imap.rs"]
mod imap;
#[path = "server/pop3.rs"]
mod pop3;
#[path = "server/scripted.rs"]
mod scripted;
#[path = "server/smtp.rs"]
mod smtp;
#[path = "server/tls.rs"]
mod tls;
#[path = "server/waiting.rs"]
mod waiting;
