//! The port to a keyring, the binding of a ciphertext to its row and field, and the keyring that has no keys.

use std::fmt;

use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

/// Where a ciphertext belongs. A ciphertext that is moved to another row or field fails to open.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Binding {
    /// The row: `mailbox/7`, `token`.
    pub owner: String,
    /// The field: `password`, `1`.
    pub field: String,
}

impl Binding {
    /// The field of a row.
    #[must_use]
    pub fn new(owner: impl Into<String>, field: impl Into<String>) -> Self {
        Self { owner: owner.into(), field: field.into() }
    }
}

/// A ciphertext as a row holds it: version, id of the key, nonce, text.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

impl Sealed {
    /// What a row holds.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes for a row.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// Seals and opens secrets.
#[cfg_attr(feature = "mock", mockall::automock)]
pub trait Keyring: Send + Sync {
    /// Seals `plain` under the active key, bound to `binding`.
    ///
    /// # Errors
    /// [`ErrorKind::Sealing`] without an active key, or when the system gives no randomness.
    fn seal(&self, binding: &Binding, plain: &[u8]) -> Result<Sealed>;

    /// Opens what was sealed under any of the keys for the same binding. The result is wiped when dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Sealing`] for an unknown key, another binding, or changed bytes. Never an empty secret instead.
    fn open(&self, binding: &Binding, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>>;
}

/// A keyring without keys: it refuses to seal and to open.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct NoKeys;

impl NoKeys {
    /// No keys.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Keyring for NoKeys {
    fn seal(&self, _: &Binding, _: &[u8]) -> Result<Sealed> {
        Err(Error::new(ErrorKind::Sealing, "seal a secret without a key"))
    }

    fn open(&self, _: &Binding, _: &Sealed) -> Result<Zeroizing<Vec<u8>>> {
        Err(Error::new(ErrorKind::Sealing, "open a secret without a key"))
    }
}
