//! What the protocol adapters share: dialling, TLS, the guarded stream, sign-in by SASL. No protocol is spoken here.
#![cfg_attr(
    not(all(feature = "smtp", feature = "imap", feature = "pop3")),
    allow(dead_code, reason = "each protocol uses its part of it; with all three, all of it is used")
)]

pub(crate) mod dial;
pub(crate) mod sasl;
pub(crate) mod stream;
pub(crate) mod tls;
