//! What only an inbox has.

use std::fmt;

use super::oauth::OAuth;
use crate::provider::Provider;
use crate::rules;
use crate::text::text_form;
use crate::violation::{Invalid, shown};

/// The greatest number of days that a form takes.
const DAYS_LIMIT: u32 = 3650;

/// A folder name of 1 to 1000 bytes without control characters, as the mail program shows it.
pub(super) fn folder(text: &str) -> Result<String, Invalid> {
    if text.is_empty() || text.len() > 1000 || text.chars().any(char::is_control) {
        return Err(Invalid::new(&rules::FOLDER).with("value", shown(text)));
    }
    // INBOX is the one name whose case does not count (RFC 3501 section 5.1).
    Ok(if text.eq_ignore_ascii_case("INBOX") { "INBOX".to_owned() } else { text.to_owned() })
}

fn days(text: &str) -> Option<u32> {
    text.parse().ok().filter(|days| (1..=DAYS_LIMIT).contains(days))
}

/// What is done to a mail on the server once it is durably stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AfterStore {
    /// It stays as it is.
    Leave,
    /// It is marked as read.
    Seen,
    /// It is deleted.
    Delete,
    /// It is deleted once it is so many days old in the ledger.
    DeleteAfterDays(u32),
    /// It is moved to a folder.
    Move(String),
}

impl AfterStore {
    /// Reads `leave`, `seen`, `delete`, `delete:DAYS`, `move:FOLDER`.
    ///
    /// # Errors
    /// [`rules::AFTER`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new(&rules::AFTER).with("value", shown(text));
        match text.trim().split_once(':') {
            None => match text.trim() {
                "leave" => Ok(Self::Leave),
                "seen" => Ok(Self::Seen),
                "delete" => Ok(Self::Delete),
                _ => Err(invalid()),
            },
            Some(("delete", number)) => days(number).map(Self::DeleteAfterDays).ok_or_else(invalid),
            Some(("move", name)) => folder(name).map(Self::Move).map_err(|_| invalid()),
            Some(_) => Err(invalid()),
        }
    }
}

impl fmt::Display for AfterStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leave => f.write_str("leave"),
            Self::Seen => f.write_str("seen"),
            Self::Delete => f.write_str("delete"),
            Self::DeleteAfterDays(days) => write!(f, "delete:{days}"),
            Self::Move(folder) => write!(f, "move:{folder}"),
        }
    }
}

/// Which of the mails that are there at first contact count as new. What it leaves out is recorded as ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Baseline {
    /// Only what arrives afterwards.
    New,
    /// What arrived in the last so many days, and afterwards.
    Days(u32),
    /// Everything.
    All,
}

impl Baseline {
    /// Reads `new`, `all`, `days:N`.
    ///
    /// # Errors
    /// [`rules::BASELINE`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new(&rules::BASELINE).with("value", shown(text));
        match text.trim() {
            "new" => Ok(Self::New),
            "all" => Ok(Self::All),
            other => other.strip_prefix("days:").and_then(days).map(Self::Days).ok_or_else(invalid),
        }
    }
}

impl fmt::Display for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("new"),
            Self::Days(days) => write!(f, "days:{days}"),
            Self::All => f.write_str("all"),
        }
    }
}

text_form!(AfterStore, Baseline);

/// What only an inbox has; made from an [`super::InboxDraft`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbox {
    pub(super) provider: Provider,
    pub(super) user: String,
    pub(super) oauth: Option<OAuth>,
    pub(super) folder: Option<String>,
    pub(super) after: AfterStore,
    pub(super) baseline: Baseline,
    pub(super) per_round: u32,
    pub(super) refused_extensions: Vec<String>,
    pub(super) max_attachment: u64,
}

impl Inbox {
    /// The protocol.
    #[must_use]
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// The login.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// How access tokens are asked for; none where it signs in by a password.
    #[must_use]
    pub fn oauth(&self) -> Option<&OAuth> {
        self.oauth.as_ref()
    }

    /// The folder that is read; none for POP3.
    #[must_use]
    pub fn folder(&self) -> Option<&str> {
        self.folder.as_deref()
    }

    /// What happens to a mail on the server once it is safe.
    #[must_use]
    pub fn after(&self) -> &AfterStore {
        &self.after
    }

    /// Which mail of the first contact counts.
    #[must_use]
    pub fn baseline(&self) -> Baseline {
        self.baseline
    }

    /// The most mails that one round takes.
    #[must_use]
    pub fn per_round(&self) -> u32 {
        self.per_round
    }

    /// File extensions that are not accepted as attachments, in lower case.
    #[must_use]
    pub fn refused_extensions(&self) -> &[String] {
        &self.refused_extensions
    }

    /// The greatest attachment that is handed to the host, in bytes.
    #[must_use]
    pub fn max_attachment(&self) -> u64 {
        self.max_attachment
    }
}
