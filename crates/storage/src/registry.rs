//! The ports to the registry's rows: mailboxes with their sealed secrets, links, switches, health, audit.

use std::time::Duration;

use async_trait::async_trait;
use postroom_core::contract::Contract;
use postroom_core::id::{Actor, ContractId, EventNumber, MailboxId, Revision, StepKey, WorkerId};
use postroom_core::mailbox::{Kind, Mailbox, Status};
use postroom_core::step::Step;
use postroom_core::time::Timestamp;
use serde::Serialize;

use crate::error::Result;
use crate::keyring::{Binding, Sealed};

/// When and by whom something is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The store's time.
    pub now: Timestamp,
    /// The actor, for the audit.
    pub actor: Actor,
}

impl Change {
    /// A change by `actor` at `now`.
    #[must_use]
    pub fn new(now: Timestamp, actor: Actor) -> Self {
        Self { now, actor }
    }
}

/// What a save does to the sealed secret of a mailbox.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_enums, reason = "a secret stays, goes or is replaced")]
pub enum SecretWrite {
    /// It stays.
    Keep,
    /// It goes.
    Clear,
    /// It is replaced.
    Set(Sealed),
}

/// Which order a listing has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_enums, reason = "the listing sorts by these two")]
pub enum Sort {
    /// By number.
    #[default]
    Id,
    /// By server, then by number.
    Server,
}

/// Which way a listing runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_enums, reason = "there are two ways")]
pub enum Direction {
    /// Upwards.
    #[default]
    Ascending,
    /// Downwards.
    Descending,
}

/// The last row of a page: the next page starts behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cursor {
    /// Its server; without meaning when sorted by number.
    pub server: String,
    /// Its number.
    pub id: MailboxId,
}

impl Cursor {
    /// Behind this row.
    #[must_use]
    pub fn new(server: impl Into<String>, id: MailboxId) -> Self {
        Self { server: server.into(), id }
    }
}

/// Which mailboxes are searched for.
#[derive(Debug, Clone, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a filter that callers fill by literal with `..Default::default()`"
)]
pub struct MailboxQuery {
    /// Part of the server's name, in any case (ASCII).
    pub server: Option<String>,
    /// Part of the description, in any case (ASCII).
    pub description: Option<String>,
    /// The kind.
    pub kind: Option<Kind>,
    /// The status.
    pub status: Option<Status>,
    /// Linked to this contract.
    pub contract: Option<ContractId>,
    /// The order.
    pub sort: Sort,
    /// The way.
    pub direction: Direction,
    /// The page starts behind this row.
    pub after: Option<Cursor>,
    /// The page has at most so many rows; none for all.
    pub limit: Option<u32>,
}

/// What uses a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "made by stores, shown by screens")]
pub struct Uses {
    /// Contracts that are linked to it.
    pub contracts: Vec<ContractId>,
    /// Steps that name it.
    pub steps: Vec<StepKey>,
    /// Outboxes whose companion it is.
    pub companion_of: Vec<MailboxId>,
    /// Whether it is the standard outbox.
    pub standard: bool,
    /// Mails in the queue that are not finished.
    pub queued: u64,
    /// Received mails that are not handled.
    pub unhandled: u64,
}

impl Uses {
    /// Whether nothing uses it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The registered mailboxes.
///
/// Every change writes its audit entry in the same transaction; no entry holds a secret.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Mailboxes: Send + Sync {
    /// The next number. It is given to nobody else, also when it is never used.
    async fn reserve(&self) -> Result<MailboxId>;

    /// Inserts a mailbox under a reserved number, with its revision and its sealed secret. Who changed it and when are
    /// the change's.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Conflict`] when the number is taken; [`crate::ErrorKind::NotFound`] when its companion is
    /// gone.
    async fn add(&self, change: &Change, mailbox: &Mailbox, secret: Option<Sealed>) -> Result<()>;

    /// Saves settings and status of a mailbox; `mailbox.revision` is the one that was read. Gives the new revision.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Conflict`] when another revision or another kind is stored; [`crate::ErrorKind::NotFound`]
    /// when it or its companion is gone.
    async fn save(&self, change: &Change, mailbox: &Mailbox, secret: SecretWrite) -> Result<Revision>;

    /// The mailbox with this number.
    async fn mailbox(&self, id: MailboxId) -> Result<Option<Mailbox>>;

    /// A page of the mailboxes that are searched for, in the order asked for.
    async fn search(&self, query: &MailboxQuery) -> Result<Vec<Mailbox>>;

    /// The sealed secret of a mailbox.
    async fn secret(&self, id: MailboxId) -> Result<Option<Sealed>>;

    /// What uses a mailbox.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`].
    async fn uses(&self, id: MailboxId) -> Result<Uses>;

    /// Removes a mailbox with its secret and health. With a replacement, links, steps, Standard and companions move to
    /// it in the same transaction, each with a new revision and an audit entry (queued and unhandled mail blocks the
    /// removal all the same). Its switch goes with it; its number is not given again.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InUse`] when it is used and there is no replacement, or mail still waits;
    /// [`crate::ErrorKind::NotFound`], also for the replacement; [`crate::ErrorKind::Conflict`] when the replacement is of
    /// another kind or the mailbox itself.
    async fn remove(&self, change: &Change, id: MailboxId, replacement: Option<MailboxId>) -> Result<()>;
}

/// Contracts and steps with their links.
///
/// Every change writes its audit entry in the same transaction.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Links: Send + Sync {
    /// The contract, if it has a row.
    async fn contract(&self, id: &ContractId) -> Result<Option<Contract>>;

    /// Inserts (revision 0) or saves a contract. Gives the new revision.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Conflict`] when another revision is stored; [`crate::ErrorKind::NotFound`] when a mailbox that
    /// it names is gone.
    async fn save_contract(&self, change: &Change, contract: &Contract) -> Result<Revision>;

    /// Contracts behind `after`, in the byte order of their ids.
    async fn contracts<'a>(&self, after: Option<&'a ContractId>, limit: u32) -> Result<Vec<Contract>>;

    /// The contracts that an inbox is linked to, in the byte order of their ids.
    async fn contracts_of(&self, inbox: MailboxId) -> Result<Vec<Contract>>;

    /// The step, if it has a row.
    async fn step(&self, key: &StepKey) -> Result<Option<Step>>;

    /// Inserts (revision 0) or saves a step. Gives the new revision.
    ///
    /// # Errors
    /// As for a contract.
    async fn save_step(&self, change: &Change, step: &Step) -> Result<Revision>;

    /// Steps behind `after`, in the byte order of flow and step.
    async fn steps<'a>(&self, after: Option<&'a StepKey>, limit: u32) -> Result<Vec<Step>>;
}

/// What sending can be paused for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, reason = "the three switches of the specification")]
pub enum Scope {
    /// Everything.
    System,
    /// One contract.
    Contract(ContractId),
    /// One outbox.
    Outbox(MailboxId),
}

/// Whether sending goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a switch has two positions")]
pub enum Switch {
    /// Mail is sent.
    Running,
    /// What is submitted waits.
    Paused,
}

/// The standard outbox and the sending switches.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Switches: Send + Sync {
    /// The standard outbox.
    async fn standard(&self) -> Result<Option<MailboxId>>;

    /// Makes an outbox the standard one, or sets none.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] when it is no registered outbox.
    async fn set_standard(&self, change: &Change, outbox: Option<MailboxId>) -> Result<()>;

    /// Every scope that is paused.
    async fn paused(&self) -> Result<Vec<Scope>>;

    /// Sets the switch of a scope. Where it stands so already nothing is written.
    async fn set_switch(&self, change: &Change, scope: &Scope, to: Switch) -> Result<()>;
}

/// How a mailbox does. It stands beside the mailbox, never inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "made by stores, shown by screens")]
pub struct Health {
    /// The mailbox.
    pub mailbox: MailboxId,
    /// When its server last did what was asked.
    pub last_success: Option<Timestamp>,
    /// How many times in a row it failed.
    pub failures: u32,
    /// The last failure, with cause and remedy, bounded and without secrets.
    pub last_error: Option<String>,
    /// When it failed last.
    pub failed_at: Option<Timestamp>,
    /// Not tried before.
    pub next_attempt: Option<Timestamp>,
    /// Not tried before a person acts.
    pub suspended: bool,
}

impl Health {
    /// A mailbox that was never tried.
    #[must_use]
    pub fn unknown(mailbox: MailboxId) -> Self {
        Self {
            mailbox,
            last_success: None,
            failures: 0,
            last_error: None,
            failed_at: None,
            next_attempt: None,
            suspended: false,
        }
    }

    /// Whether nobody is to try it now.
    #[must_use]
    pub fn rests(&self, now: Timestamp) -> bool {
        self.suspended || self.next_attempt.is_some_and(|next| next > now)
    }

    /// For how long it was to be left alone after its last failure.
    #[must_use]
    pub fn last_rest(&self) -> Duration {
        match (self.failed_at, self.next_attempt) {
            (Some(failed), Some(next)) => next.since(failed),
            _ => Duration::ZERO,
        }
    }
}

/// What became of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the three ways that a try can end")]
pub enum Sign {
    /// The server did what was asked: failures are forgotten, a suspension is lifted.
    Success,
    /// It failed and is tried again after the given time.
    Failure {
        /// Cause and remedy.
        error: String,
        /// How long to wait.
        wait: Duration,
    },
    /// It failed in a way that only a person can mend.
    Suspended {
        /// Cause and remedy.
        error: String,
    },
}

/// The health of mailboxes.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait HealthBook: Send + Sync {
    /// The health of one mailbox, [`Health::unknown`] if it was never tried.
    async fn health(&self, mailbox: MailboxId) -> Result<Health>;

    /// The health of all mailboxes that were ever tried, by number.
    async fn all_health(&self) -> Result<Vec<Health>>;

    /// Records how a try ended. Success after success need not be written more than once a minute. A mailbox that is gone
    /// has no health to record: nothing happens. A turn to the worse or the better is an event, see [`crate::Events`].
    async fn record(&self, now: Timestamp, mailbox: MailboxId, sign: &Sign) -> Result<()>;

    /// Gives a worker the right to try a mailbox, at `now`: always where nothing has failed. Where the last try failed and its rest
    /// is over, one worker alone has it, and for all others the rest lasts until `until`, or until it is recorded how the try
    /// ended. A suspended mailbox is tried by nobody.
    async fn probe(
        &self,
        now: Timestamp,
        mailbox: MailboxId,
        worker: WorkerId,
        until: Timestamp,
    ) -> Result<bool>;

    /// Forgets failures and suspension: a person mended it, or its settings changed.
    async fn clear(&self, now: Timestamp, mailbox: MailboxId) -> Result<()>;
}

/// One change of the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "made by stores, shown by screens")]
pub struct AuditEntry {
    /// Its place in the sequence.
    pub number: EventNumber,
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub actor: Actor,
    /// What was changed: `mailbox/7`, `contract/ACME`, `step/F/S`, `standard`, `pause/..`.
    pub subject: String,
    /// `add`, `save`, `remove`, `set`, `forget`.
    pub action: String,
    /// The changed fields with their old and new values; a secret appears as changed, never with a value. Of what is
    /// forgotten, how much was removed.
    pub changes: serde_json::Value,
}

/// The record of changes.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Audit: Send + Sync {
    /// Entries behind `after`, in order; only those of `subject` when one is given.
    async fn entries<'a>(
        &self,
        subject: Option<&'a str>,
        after: EventNumber,
        limit: u32,
    ) -> Result<Vec<AuditEntry>>;
}

/// Sealed values of postroom's own, such as the keys that sign thread tokens, and what OAuth2 providers gave.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Vault: Send + Sync {
    /// Puts a sealed value where there is none yet, and gives the one that is stored: the first writer wins.
    async fn put_if_absent(&self, binding: &Binding, sealed: Sealed) -> Result<Sealed>;

    /// Puts another value in the place of one, or none, if that one is still there: of several writers that read the same value one has
    /// its way. Says whether it was there.
    async fn replace(&self, binding: &Binding, from: &Sealed, to: Option<Sealed>) -> Result<bool>;

    /// Every sealed value of an owner, with its binding.
    async fn values(&self, owner: &str) -> Result<Vec<(Binding, Sealed)>>;
}
