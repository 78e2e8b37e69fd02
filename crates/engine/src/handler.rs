//! The ports that a host implements: the handler of received mail, the directories of its people, the observer. Each but
//! the handler has a default.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::address::{Address, NamedAddress};
use postroom_core::id::{ContractId, LedgerId, MailboxId, RecordId};
use postroom_core::ledger::HISTORIC;
use postroom_core::mail::Mail;
use postroom_storage::Committing;

use crate::event::Event;

/// A received mail as the handler gets it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Delivery {
    /// The mail's id: the same at every call, so that a host can do its work once.
    pub id: LedgerId,
    /// Which call this is, from 1.
    pub attempt: u32,
    /// The inbox.
    pub mailbox: MailboxId,
    /// The contract; none only where a person replays a mail that was ignored, or died, before it had one.
    pub contract: Option<ContractId>,
    /// Why this contract, as stable words.
    pub reasons: Vec<String>,
    /// The record of the mail of ours that it answers.
    pub record: Option<RecordId>,
    /// What was read from it; without the attachments that the inbox does not accept.
    pub mail: Mail,
    /// The names of the attachments that the inbox does not accept, by their extension or size. The raw bytes have them.
    pub refused_attachments: Vec<String>,
    /// The raw bytes. `mail` and its attachments are slices of them: whoever keeps one beyond the call keeps the whole mail in memory.
    pub raw: Bytes,
    /// The claim of this call.
    pub(crate) claim: Committing,
}

impl Delivery {
    /// Whether it was in its folder already when the folder was looked at under other numbers (UIDVALIDITY), and is not known: old
    /// mail that the inbox's baseline left out, as a rule. A host that answers people or opens tickets does neither for it: it files
    /// it, or asks a person. Its server was told nothing: it lies where it lay. [`HISTORIC`] is among its reasons.
    #[must_use]
    pub fn is_historic(&self) -> bool {
        self.reasons.iter().any(|reason| reason == HISTORIC)
    }

    /// The token of this call, for `complete_in` of a SQL store: a host that does its work in a transaction of its own has the mail
    /// completed in the same one, and answers [`Answer::Committed`].
    #[must_use]
    pub fn claim(&self) -> Committing {
        self.claim
    }
}

/// What a handler says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// The work is done, durably.
    Done,
    /// The work is done and the mail completed, in one transaction of the host, by `complete_in` of a SQL store with
    /// [`Delivery::claim`]. postroom looks whether it is so: where nothing was committed under this claim, it counts as
    /// [`Answer::Retry`] and the timeline says so.
    Committed,
    /// Call again. After a number of calls (10 unless set otherwise) the mail becomes a dead letter.
    Retry {
        /// How long to wait; none for ever longer, by postroom's own schedule.
        after: Option<Duration>,
        /// Why, for the timeline and the dead letter: one line, of which 400 characters are kept.
        reason: String,
    },
    /// It can't be handled: it becomes a dead letter with this reason.
    Refuse(String),
}

/// The one port that a receiving host must write.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait MessageHandler: Send + Sync {
    /// Handles a mail. It is called at least once for each mail, side by side over mailboxes, one after the other within
    /// one. A panic counts as a retry with its message as the reason. However long it takes, its claim is renewed meanwhile.
    ///
    /// # Cancel safety
    /// The future is dropped when the engine is stopped for good: the mail is handed over again later.
    async fn handle(&self, delivery: Delivery) -> Answer;
}

/// A directory could not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectoryError {
    /// Why, for the log.
    pub reason: String,
}

impl DirectoryError {
    /// It could not answer.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

impl std::fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for DirectoryError {}

/// Resolves the names that steps write to.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait RecipientDirectory: Send + Sync {
    /// The addresses behind `name` (`requester`, `approvers`) for a mail about `record`; empty when there are none.
    ///
    /// # Errors
    /// When it can't say now.
    async fn addresses<'a>(
        &self,
        contract: &ContractId,
        name: &str,
        record: Option<&'a RecordId>,
    ) -> Result<Vec<NamedAddress>, DirectoryError>;
}

/// Knows no names: a step that writes to one is refused.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct NoRecipients;

#[async_trait]
impl RecipientDirectory for NoRecipients {
    async fn addresses<'a>(
        &self,
        _: &ContractId,
        _: &str,
        _: Option<&'a RecordId>,
    ) -> Result<Vec<NamedAddress>, DirectoryError> {
        Ok(Vec::new())
    }
}

/// What a host says of an unknown requester.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a host accepts, refuses, or leaves it to a person")]
pub enum Verdict {
    /// It is the contract's mail.
    Accept,
    /// It is ignored, by rule.
    Refuse,
    /// A person decides: triage.
    Triage,
}

/// Decides on unknown requesters of contracts that ask.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait RequesterDirectory: Send + Sync {
    /// Whether `sender` may write to `contract`.
    ///
    /// # Errors
    /// When it can't say now: the mail goes to triage.
    async fn verdict(&self, contract: &ContractId, sender: &Address) -> Result<Verdict, DirectoryError>;
}

/// Leaves every unknown requester to a person.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct AskAPerson;

#[async_trait]
impl RequesterDirectory for AskAPerson {
    async fn verdict(&self, _: &ContractId, _: &Address) -> Result<Verdict, DirectoryError> {
        Ok(Verdict::Triage)
    }
}

/// Is told what happens, as it happens. A hint only: what counts is in the rows. It must return at once.
#[cfg_attr(feature = "mock", mockall::automock)]
pub trait Observer: Send + Sync {
    /// Something happened in this process.
    fn observe(&self, event: &Event);
}

/// Looks away.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct NoObserver;

impl Observer for NoObserver {
    fn observe(&self, _: &Event) {}
}
