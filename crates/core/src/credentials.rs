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
    /// SASL OAUTHBEARER (RFC 7628) or XOAUTH2.
    Bearer {
        /// The login.
        user: String,
        /// The access token (RFC 6750).
        token: SecretString,
    },
}

impl Credentials {
    /// A user and password.
    #[must_use]
    pub fn password(user: impl Into<String>, password: SecretString) -> Self {
        Self::Password { user: user.into(), password }
    }

    /// A user and access token.
    #[must_use]
    pub fn bearer(user: impl Into<String>, token: SecretString) -> Self {
        Self::Bearer { user: user.into(), token }
    }

    /// What must be shown to nobody: the password or the token.
    #[must_use]
    pub fn secret(&self) -> &SecretString {
        match self {
            Self::Password { password: secret, .. } | Self::Bearer { token: secret, .. } => secret,
        }
    }

    /// The login name.
    #[must_use]
    pub fn user(&self) -> &str {
        match self {
            Self::Password { user, .. } | Self::Bearer { user, .. } => user,
        }
    }
}
