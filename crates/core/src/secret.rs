//! What an editor of a mailbox says about its secret. A secret itself is a `secrecy::SecretString`, which can't be
//! printed and is wiped when dropped; it is sealed in the storage crate and opened in one place of the engine.

pub use secrecy::{ExposeSecret, SecretString};

/// What a saved form does to the stored secret. It has no serde form: a secret is write-only from outside.
#[derive(Debug, Clone, Default)]
#[expect(clippy::exhaustive_enums, reason = "a form either keeps, clears or sets")]
pub enum SecretChange {
    /// The stored secret stays. Refused when the server, port, user or security of the box changes with it.
    #[default]
    Keep,
    /// The stored secret is removed.
    Clear,
    /// A new secret takes its place.
    Set(SecretString),
}
