//! What the ledger knows of a received mail: where it lay, in which state it is, and the only ways from one state to
//! another. Rows are in the storage crate, verbs in the engine.

use std::fmt;

use crate::id::MailboxId;
use crate::rules;
use crate::text::{text_form, words};
use crate::violation::{Invalid, shown};

/// The key of a mail within its folder and epoch, as its server names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RemoteKey {
    /// IMAP: the UID (RFC 3501 section 2.3.1.1).
    Uid(u32),
    /// POP3: the unique id of UIDL: 1 to 70 printable characters by RFC 1939 section 7, longer at some servers.
    Uidl(String),
    /// POP3 where UIDL is missing or doubled: SHA-256 of the content in hex, and which of the same content it is, from 1.
    Content(String, u32),
}

impl RemoteKey {
    /// Reads the text form: `uid:7`, `uidl:abc`, `content:HEX:1`.
    ///
    /// # Errors
    /// [`rules::REMOTE_KEY`] when the text is none.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new(&rules::REMOTE_KEY).with("value", shown(text));
        match text.split_once(':').ok_or_else(invalid)? {
            ("uid", uid) => uid.parse().map(Self::Uid).map_err(|_| invalid()),
            ("uidl", uidl) if (1..=1000).contains(&uidl.len()) && !uidl.chars().any(char::is_control) => {
                Ok(Self::Uidl(uidl.to_owned()))
            }
            ("content", rest) => {
                let (hash, copy) = rest.split_once(':').ok_or_else(invalid)?;
                let copy: u32 = copy.parse().map_err(|_| invalid())?;
                let is_hash =
                    !hash.is_empty() && hash.len() <= 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
                if copy == 0 || !is_hash { Err(invalid()) } else { Ok(Self::Content(hash.to_owned(), copy)) }
            }
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for RemoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => write!(f, "uid:{uid}"),
            Self::Uidl(uidl) => write!(f, "uidl:{uidl}"),
            Self::Content(hash, copy) => write!(f, "content:{hash}:{copy}"),
        }
    }
}

text_form!(RemoteKey);

/// A folder of an inbox in one epoch: within it a key names one mail for ever.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "the key of the ledger, as the manual states it")]
pub struct Place {
    /// The inbox.
    pub mailbox: MailboxId,
    /// The folder; empty for POP3.
    pub folder: String,
    /// UIDVALIDITY, and 2^32 more for each time that its server gave the same UIDs again under it; 0 for POP3.
    pub epoch: u64,
}

impl Place {
    /// The same folder, whose server gives UIDs again that it gave before under the same UIDVALIDITY: they name other mails from now on.
    #[must_use]
    pub fn set_back(&self) -> Self {
        Self { epoch: self.epoch + (1 << 32), ..self.clone() }
    }

    /// UIDVALIDITY, as its server says it; 0 for POP3.
    #[must_use]
    pub const fn validity(&self) -> u64 {
        self.epoch & 0xffff_ffff
    }
}

words! {
    /// The state of a received mail.
    State, rules::LEDGER_STATE;
    /// Durably stored; the handler has not said done.
    Stored = "stored",
    /// No contract could be found: a person decides.
    Triage = "triage",
    /// It answers another contract's mail: a person decides.
    Quarantined = "quarantined",
    /// The handler said done.
    Handled = "handled",
    /// A rule says that it is not wanted.
    Ignored = "ignored",
    /// The handler failed too often, or refused it; its bytes are kept and it can be replayed.
    Dead = "dead",
}

words! {
    /// What happens to a received mail.
    Event, rules::LEDGER_EVENT;
    /// The handler said done, or did its work and said so in its own transaction.
    Handle = "handle",
    /// The handler asks to be called again later.
    Defer = "defer",
    /// The handler refused it, or failed too often.
    Die = "die",
    /// A rule says that it is not wanted.
    Ignore = "ignore",
    /// A person named its contract.
    Route = "route",
    /// A person has it handled again.
    Replay = "replay",
}

/// The reason of a mail that was in its folder before the folder got other numbers, and is not in the ledger: what the baseline left out
/// then, mostly. It is handed over like any other, for nothing tells it from one that was missed.
pub const HISTORIC: &str = "historic";

impl State {
    /// Whether nothing waits for it any more: no handler and no person.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Handled | Self::Ignored | Self::Dead)
    }

    /// The state after `event`, or none where the drawing has no such way. The drawing is in the manual, page
    /// `ledger.md`.
    #[must_use]
    pub const fn on(self, event: Event) -> Option<Self> {
        Some(match (self, event) {
            (Self::Stored, Event::Handle) => Self::Handled,
            (Self::Stored, Event::Defer) => Self::Stored,
            (Self::Stored, Event::Die) => Self::Dead,
            (Self::Triage | Self::Quarantined, Event::Route) => Self::Stored,
            (Self::Stored | Self::Triage | Self::Quarantined, Event::Ignore) => Self::Ignored,
            (Self::Dead | Self::Handled | Self::Ignored, Event::Replay) => Self::Stored,
            _ => return None,
        })
    }
}
