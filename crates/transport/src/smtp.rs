//! SMTP submission and relay (RFC 5321) behind the outgoing port. The session is our own, over the guarded stream.

mod ahead;
mod classify;
mod content;
mod envelope;
mod pool;
mod reply;
mod session;
mod timeouts;
mod transaction;
mod transport;

pub use timeouts::Timeouts;
pub use transport::SmtpTransport;
