//! The port to who reads which inbox: leases that several processes share without a leader, and what is known of each inbox's
//! reading. Reading itself is the engine's; what was read is the ledger's.

use async_trait::async_trait;
use postroom_core::id::{MailboxId, Revision, WorkerId};
use postroom_core::time::Timestamp;
use serde::Serialize;

use crate::error::Result;

/// The right to read an inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by stores, read by the engine")]
pub struct WatchLease {
    /// The inbox.
    pub mailbox: MailboxId,
    /// The fence of every write about it. It grows with each lease of the inbox.
    pub fence: u64,
}

/// An inbox that a watcher still has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by stores, read by the engine")]
pub struct Held {
    /// The lease.
    pub lease: WatchLease,
    /// The revision of its settings that is stored.
    pub revision: Revision,
}

/// What a renewal tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "made by stores, read by the engine")]
pub struct Renewal {
    /// The inboxes that the watcher has and goes on with, by number. One that it had and that is not among them is not to be
    /// read any more: it was disabled, suspended or removed.
    pub held: Vec<Held>,
    /// How many inboxes are this watcher's share. What it has beyond that it gives back, so that others can take it.
    pub share: u32,
}

/// How news of an inbox is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, reason = "a server tells, or it is asked")]
pub enum Way {
    /// The server tells (IDLE).
    Idle,
    /// The server is asked from time to time.
    Poll,
}

impl Way {
    /// The word in rows and JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Poll => "poll",
        }
    }

    /// The way that a word of a row names.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Idle, Self::Poll].into_iter().find(|way| way.word() == word)
    }
}

/// That an inbox was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by the engine, read by stores")]
pub struct Reading {
    /// Under which lease.
    pub lease: WatchLease,
    /// When ledger and server were found to agree.
    pub read_at: Timestamp,
    /// How further news is waited for.
    pub way: Way,
}

/// That an inbox is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by the engine, read by stores")]
pub struct Release {
    /// The lease.
    pub lease: WatchLease,
    /// Nobody takes it before; none for at once.
    pub due_at: Option<Timestamp>,
}

/// What is known of an inbox's reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "made by stores, shown by screens")]
pub struct Watch {
    /// The inbox.
    pub mailbox: MailboxId,
    /// Who has its lease; none for nobody that is alive.
    pub watcher: Option<WorkerId>,
    /// Until when that lease lasts, unless it is renewed.
    pub until: Option<Timestamp>,
    /// How news is waited for; none as long as that is not known.
    pub way: Option<Way>,
    /// When ledger and server were last found to agree; none for never.
    pub read_at: Option<Timestamp>,
    /// Nobody takes it before; none for at once.
    pub due_at: Option<Timestamp>,
}

/// How much of what nobody has a watcher takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a store must know each")]
pub enum Portion {
    /// No more than its share: the others take theirs.
    Share,
    /// All, for one who reads each inbox once and then leaves. The others of whom it is not known yet that they are dead would take nothing.
    All,
}

/// Who reads which inbox.
///
/// A watcher is one running worker. It is alive until the time that it gave last; all of its leases end with it. A watcher's
/// share is the number of inboxes that may be read, divided by the watchers that are alive and rounded up: whoever stays is given no
/// more, and gives back what it has beyond. So whoever comes gets its share, and what a dead watcher had goes to the others.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Watches: Send + Sync {
    /// Says that the watcher is alive until `until`, and gives it leases of at most `limit` inboxes, and of no more than its `portion`:
    /// active ones that nobody alive has, which are neither suspended nor resting nor given back until later; those first
    /// that were not read for longest. A watcher that was dead has nothing of what it had before, also when nobody else took
    /// it.
    async fn take(
        &self,
        now: Timestamp,
        watcher: WorkerId,
        limit: u32,
        portion: Portion,
        until: Timestamp,
    ) -> Result<Vec<WatchLease>>;

    /// Says that the watcher is alive until `until`, and records what it read; a reading of a lease that is not its any more changes
    /// nothing. Gives none where it was not alive any more: it has nothing then, and goes on under another name.
    async fn renew(
        &self,
        now: Timestamp,
        watcher: WorkerId,
        until: Timestamp,
        readings: &[Reading],
    ) -> Result<Option<Renewal>>;

    /// Gives leases back. One that is not the watcher's any more stays as it is.
    async fn release(&self, watcher: WorkerId, leases: &[Release]) -> Result<()>;

    /// Ends a watcher with all its leases: what it had can be taken at once, or when it is due.
    async fn leave(&self, watcher: WorkerId) -> Result<()>;

    /// What is known of one inbox, or of all that were ever taken, by number.
    async fn watches(&self, now: Timestamp, mailbox: Option<MailboxId>) -> Result<Vec<Watch>>;
}

/// The share of each of so many watchers in so many inboxes.
#[must_use]
pub fn share(inboxes: u64, watchers: u64) -> u32 {
    u32::try_from(inboxes.div_ceil(watchers.max(1))).unwrap_or(u32::MAX)
}
