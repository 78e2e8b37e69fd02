//! Sealing of secrets at rest: the port with the binding of a ciphertext to its row and field, and, by the feature
//! `aead`, the cipher.

#[cfg(feature = "aead")]
pub mod aead;
mod envelope;

pub use envelope::*;
