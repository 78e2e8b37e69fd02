//! What only an outbox has.

use std::fmt;

use super::oauth::OAuth;
use crate::address::{Address, NamedAddress};
use crate::endpoint::{Host, Tls};
use crate::id::MailboxId;
use crate::rules;
use crate::text::text_form;
use crate::violation::{Invalid, shown};

/// How an outbox signs in. The secret itself is kept sealed, apart from the settings.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Authentication {
    /// Not at all.
    None,
    /// With a user and a password.
    Password {
        /// The login.
        user: String,
    },
    /// With a user and an access token.
    OAuth {
        /// The login.
        user: String,
        /// How access tokens are asked for.
        oauth: OAuth,
    },
}

impl Authentication {
    /// The login, if there is one.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Password { user } | Self::OAuth { user, .. } => Some(user),
        }
    }

    /// How access tokens are asked for, if it signs in by them.
    #[must_use]
    pub fn oauth(&self) -> Option<&OAuth> {
        match self {
            Self::None | Self::Password { .. } => None,
            Self::OAuth { oauth, .. } => Some(oauth),
        }
    }

    /// `none`, `password` or `oauth2`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Password { .. } => "password",
            Self::OAuth { .. } => "oauth2",
        }
    }
}

/// Whether a copy of an accepted mail is put into the companion's folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SentCopy {
    /// No copy: the server keeps one by itself, or none is wanted.
    No,
    /// Appended to this folder of the companion inbox after acceptance.
    Append(String),
}

impl SentCopy {
    /// Reads `no` or `append:FOLDER`.
    ///
    /// # Errors
    /// [`rules::SENT_COPY`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new(&rules::SENT_COPY).with("value", shown(text));
        match text.trim().split_once(':') {
            None if text.trim() == "no" => Ok(Self::No),
            Some(("append", name)) => super::inbox::folder(name).map(Self::Append).map_err(|_| invalid()),
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for SentCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::Append(folder) => write!(f, "append:{folder}"),
        }
    }
}

text_form!(SentCopy);

/// The limits that a known provider sets, as it publishes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Preset {
    /// The name in the form.
    pub name: &'static str,
    /// Connections at once.
    pub max_connections: u32,
    /// Messages per minute.
    pub per_minute: Option<u32>,
    /// Recipients per day.
    pub recipients_per_day: Option<u32>,
}

const fn preset(
    name: &'static str,
    max_connections: u32,
    per_minute: Option<u32>,
    per_day: Option<u32>,
) -> Preset {
    Preset { name, max_connections, per_minute, recipients_per_day: per_day }
}

/// Limits of known providers: they fill what the form leaves empty.
pub const PRESETS: &[Preset] = &[
    // Exchange Online limits: 3 concurrent connections, 30 messages a minute, 10,000 recipients a day.
    preset("microsoft365", 3, Some(30), Some(10_000)),
    // Gmail sending limits: 2,000 recipients a day for Workspace accounts over SMTP.
    preset("google-workspace", 10, None, Some(2_000)),
    // Gmail sending limits: 500 a day for consumer accounts, 100 recipients a message over SMTP.
    preset("gmail", 5, None, Some(500)),
];

/// What only an outbox has; made from an [`super::OutboxDraft`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbox {
    pub(super) tls: Tls,
    pub(super) authentication: Authentication,
    pub(super) senders: Vec<NamedAddress>,
    pub(super) default_sender: usize,
    pub(super) max_connections: u32,
    pub(super) per_minute: Option<u32>,
    pub(super) recipients_per_day: Option<u32>,
    pub(super) return_path: Option<Address>,
    pub(super) companion: Option<MailboxId>,
    pub(super) sent_copy: SentCopy,
    pub(super) ehlo_name: Option<Host>,
}

impl Outbox {
    /// The security of its connection.
    #[must_use]
    pub fn tls(&self) -> Tls {
        self.tls
    }

    /// How it signs in.
    #[must_use]
    pub fn authentication(&self) -> &Authentication {
        &self.authentication
    }

    /// The addresses that it may send from, at least one.
    #[must_use]
    pub fn senders(&self) -> &[NamedAddress] {
        &self.senders
    }

    /// The sender when nothing else names one.
    #[must_use]
    pub fn default_sender(&self) -> &NamedAddress {
        &self.senders[self.default_sender]
    }

    /// The sender with this address.
    #[must_use]
    pub fn sender(&self, address: &Address) -> Option<&NamedAddress> {
        self.senders.iter().find(|sender| sender.address().same_mailbox(address))
    }

    /// Connections at once.
    #[must_use]
    pub fn max_connections(&self) -> u32 {
        self.max_connections
    }

    /// The most messages per minute.
    #[must_use]
    pub fn per_minute(&self) -> Option<u32> {
        self.per_minute
    }

    /// The most recipients per day.
    #[must_use]
    pub fn recipients_per_day(&self) -> Option<u32> {
        self.recipients_per_day
    }

    /// Where bounces go, when not to the sender.
    #[must_use]
    pub fn return_path(&self) -> Option<&Address> {
        self.return_path.as_ref()
    }

    /// The inbox where its bounces arrive and whose Sent folder can prove a delivery.
    #[must_use]
    pub fn companion(&self) -> Option<MailboxId> {
        self.companion
    }

    /// Whether accepted mail is copied.
    #[must_use]
    pub fn sent_copy(&self) -> &SentCopy {
        &self.sent_copy
    }

    /// The name that it greets servers with.
    #[must_use]
    pub fn ehlo_name(&self) -> Option<&Host> {
        self.ehlo_name.as_ref()
    }
}
