//! How a mailbox signs in: the words for it in the registry, and the open secret for the length of one call.

use crate::secret::SecretString;

/// The open credentials of one mailbox, made for one call and dropped with it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Credentials {
    /// SASL PLAIN or LOGIN, or the protocol's own user and password commands.
    Password {
        /// The login.
        user: String,
        /// The password.
        password: SecretString,
    },
}

impl Credentials {
    /// A user and password.
    #[must_use]
    pub fn password(user: impl Into<String>, password: SecretString) -> Self {
        Self::Password { user: user.into(), password }
    }

    /// The login name.
    #[must_use]
    pub fn user(&self) -> &str {
        match self {
            Self::Password { user, .. } => user,
        }
    }
}
