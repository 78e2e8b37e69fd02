//! The POP3 adapter (RFC 1939), of which only the transport is shown.

mod conversation;
mod maildrop;
mod reply;
mod retrieve;
mod session;
mod sign_in;
mod transport;

pub use transport::Pop3Transport;
