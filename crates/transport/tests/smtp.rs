//! SMTP as it is on the wire: dialogues, one test each; dead, slow and cut connections; secrets that show nowhere.
#![cfg(feature = "smtp")]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "smtp/lane.rs"]
mod lane;

#[path = "smtp/before_mail.rs"]
mod before_mail;
#[path = "smtp/connections.rs"]
mod connections;
#[path = "smtp/envelopes.rs"]
mod envelopes;
#[path = "smtp/final_dot.rs"]
mod final_dot;
#[path = "smtp/next_envelope.rs"]
mod next_envelope;
#[path = "smtp/pooling.rs"]
mod pooling;
#[path = "smtp/secrets.rs"]
mod secrets;
