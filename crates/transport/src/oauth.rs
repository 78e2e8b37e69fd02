//! OAuth2 (RFC 6749): an access token for a mailbox is asked for at its provider's token endpoint. Here are the port to HTTP, by the
//! feature `oauth` an adapter on reqwest, and the bare exchange; who asks when, and what is kept, is the engine's part.

#[cfg(feature = "oauth")]
mod client;
pub mod http;
pub mod token;

#[cfg(feature = "oauth")]
pub use client::ReqwestClient;
