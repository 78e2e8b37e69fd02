//! The IMAP adapter (RFC 3501), of which only the transport is shown. CONDSTORE, QRESYNC and COMPRESS are never enabled.

mod append;
mod conversation;
mod fetch;
mod folder;
mod list;
mod pieces;
mod refusal;
mod response;
mod session;
mod settle;
mod sign_in;
mod token;
mod transport;
mod wait;

pub use transport::ImapTransport;
