//! The way to one mailbox for the length of one call: where, how protected, as whom. Made by the engine when it opens
//! the mailbox's secret; never stored, never printed.

use postroom_core::credentials::Credentials;
use postroom_core::endpoint::{Authority, Endpoint, Host, Tls};
use postroom_core::id::{MailboxId, Revision};

/// The protocol to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// RFC 5321.
    Smtp,
    /// RFC 3501.
    Imap,
    /// RFC 1939.
    Pop3,
}

/// The way to one mailbox.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Route {
    /// The mailbox; a probe of unsaved settings has number 0.
    pub mailbox: MailboxId,
    /// Its revision: a parked connection of another revision is not used.
    pub revision: Revision,
    /// The protocol.
    pub protocol: Protocol,
    /// The server.
    pub endpoint: Endpoint,
    /// The security.
    pub tls: Tls,
    /// Trusted besides the platform's authorities.
    pub authority: Option<Authority>,
    /// Whether credentials may travel without TLS.
    pub danger_plaintext: bool,
    /// As whom to sign in; none for not at all.
    pub credentials: Option<Credentials>,
    /// The name to greet with.
    pub ehlo_name: Option<Host>,
}

impl Route {
    /// A route without sign-in.
    #[must_use]
    pub fn new(
        mailbox: MailboxId,
        revision: Revision,
        protocol: Protocol,
        endpoint: Endpoint,
        tls: Tls,
    ) -> Self {
        Self {
            mailbox,
            revision,
            protocol,
            endpoint,
            tls,
            authority: None,
            danger_plaintext: false,
            credentials: None,
            ehlo_name: None,
        }
    }

    /// Trusts these certificates too.
    #[must_use]
    pub fn with_authority(mut self, authority: Option<Authority>) -> Self {
        self.authority = authority;
        self
    }

    /// Signs in.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Lets credentials travel without TLS.
    #[must_use]
    pub fn with_danger_plaintext(mut self) -> Self {
        self.danger_plaintext = true;
        self
    }

    /// Greets with this name.
    #[must_use]
    pub fn with_ehlo_name(mut self, name: Option<Host>) -> Self {
        self.ehlo_name = name;
        self
    }
}
