//! OAuth2 (RFC 6749): an access token for a mailbox is asked for at its provider's token endpoint. Here are the port to HTTP and the bare
//! exchange; who asks when, and what is kept, is the engine's part.

pub mod http;
pub mod token;
