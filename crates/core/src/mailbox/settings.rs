//! What is registered of a mailbox, valid by construction: the part that both kinds share, and the kind's own.

use super::inbox::Inbox;
use super::oauth::OAuth;
use super::outbox::Outbox;
use crate::endpoint::{Authority, Endpoint, Tls};
use crate::rules;
use crate::text::words;

words! {
    /// The two kinds of mailbox.
    Kind, rules::KIND;
    /// Mail arrives in it.
    Inbox = "inbox",
    /// Mail leaves by it.
    Outbox = "outbox",
}

/// What is registered of a mailbox, valid by construction: made from a [`super::MailboxDraft`] only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxSettings {
    pub(super) description: String,
    pub(super) endpoint: Endpoint,
    pub(super) authority: Option<Authority>,
    pub(super) max_message: u64,
    pub(super) danger_plaintext: bool,
    pub(super) settings: Settings,
}

/// What only one kind of mailbox has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are two kinds of mailbox")]
pub enum Settings {
    /// Of an inbox.
    Inbox(Inbox),
    /// Of an outbox.
    Outbox(Outbox),
}

impl MailboxSettings {
    /// What the box is for.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Where its server is.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Certificates that it trusts besides the platform's.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// The greatest message that it sends or takes, in bytes.
    #[must_use]
    pub fn max_message(&self) -> u64 {
        self.max_message
    }

    /// Whether the owner opted into sending a password without TLS.
    #[must_use]
    pub fn danger_plaintext(&self) -> bool {
        self.danger_plaintext
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.settings {
            Settings::Inbox(_) => Kind::Inbox,
            Settings::Outbox(_) => Kind::Outbox,
        }
    }

    /// What only its kind has.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The inbox, if it is one.
    #[must_use]
    pub fn inbox(&self) -> Option<&Inbox> {
        match &self.settings {
            Settings::Inbox(inbox) => Some(inbox),
            Settings::Outbox(_) => None,
        }
    }

    /// The outbox, if it is one.
    #[must_use]
    pub fn outbox(&self) -> Option<&Outbox> {
        match &self.settings {
            Settings::Outbox(outbox) => Some(outbox),
            Settings::Inbox(_) => None,
        }
    }

    /// The security of its connection.
    #[must_use]
    pub fn tls(&self) -> Tls {
        match &self.settings {
            Settings::Inbox(_) if self.danger_plaintext => Tls::None,
            Settings::Inbox(inbox) => inbox.provider().tls(),
            Settings::Outbox(outbox) => outbox.tls(),
        }
    }

    /// The login, if it signs in.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match &self.settings {
            Settings::Inbox(inbox) => Some(inbox.user()),
            Settings::Outbox(outbox) => outbox.authentication().user(),
        }
    }

    /// How access tokens for it are asked for, if it signs in by them.
    #[must_use]
    pub fn oauth(&self) -> Option<&OAuth> {
        match &self.settings {
            Settings::Inbox(inbox) => inbox.oauth(),
            Settings::Outbox(outbox) => outbox.authentication().oauth(),
        }
    }

    /// Whether a stored secret may stay when `self` is replaced by `next`: not when it would be sent elsewhere, as
    /// somebody else, or with less protection.
    #[must_use]
    pub fn keeps_secret(&self, next: &Self) -> bool {
        self.bound() == next.bound()
    }

    /// What a stored secret is bound to, a word each: where it is sent, as whom, and with which protection.
    #[must_use]
    pub fn bound(&self) -> [String; 10] {
        let oauth = self.oauth();
        let word = |text: Option<&str>| text.unwrap_or_default().to_owned();
        [
            self.kind().word().to_owned(),
            self.endpoint.to_string(),
            self.tls().to_string(),
            self.authority.as_ref().map(ToString::to_string).unwrap_or_default(),
            self.danger_plaintext.to_string(),
            word(self.user()),
            word(oauth.map(OAuth::token_endpoint)),
            word(oauth.map(OAuth::client)),
            word(oauth.and_then(OAuth::scope)),
            word(oauth.map(|oauth| oauth.grant().word())),
        ]
    }

    /// What a person should know of settings that are allowed and yet not good.
    #[must_use]
    pub fn warnings(&self) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        match (self.tls(), self.user()) {
            (Tls::None, Some(_)) if self.oauth().is_some() => {
                warnings.push("the access token and all mail travel in plain text");
            }
            (Tls::None, Some(_)) => warnings.push("the password and all mail travel in plain text"),
            (Tls::None, None) => warnings.push("all mail travels in plain text and without sign-in"),
            _ => {}
        }
        if self.oauth().is_some_and(OAuth::is_plain) {
            warnings.push("the token endpoint is asked in plain text: the refresh token and the client secret travel unprotected");
        }
        warnings
    }
}
