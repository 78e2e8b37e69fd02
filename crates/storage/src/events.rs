//! The port to events: every change of a queue's or ledger's mail and of a mailbox's health, numbered as it is committed.
//! The timeline of a mail is its events; what a live observer of a worker is told is the engine's.

use async_trait::async_trait;
use postroom_core::id::{Actor, ContractId, EventNumber, LedgerId, MailboxId, QueueId};
use postroom_core::time::Timestamp;
use serde::Serialize;

use crate::error::Result;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "noun", content = "id", rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, reason = "the three nouns that events are about")]
pub enum EventSubject {
    /// A mail going out.
    Queue(QueueId),
    /// A mail that came in.
    Ledger(LedgerId),
    /// A mailbox: its health.
    Mailbox(MailboxId),
}

/// A change that is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "made by stores, read by hosts")]
pub struct EventRecord {
    /// Its place in the store's sequence.
    pub number: EventNumber,
    /// When.
    pub at: Timestamp,
    /// What it is about.
    #[serde(flatten)]
    pub subject: EventSubject,
    /// The mail's contract as it is now; none where it has none.
    pub contract: Option<ContractId>,
    /// The mail's outbox or inbox as it is now, or the mailbox itself.
    pub mailbox: Option<MailboxId>,
    /// The recipient's place in a mail of the queue; none when it concerns all.
    pub recipient: Option<u32>,
    /// What happened, a word: that of a timeline entry, or `failing`, `suspended`, `works` of a mailbox.
    pub what: String,
    /// The state afterwards, a word of the queue's or the ledger's; none when nothing changed.
    pub state: Option<String>,
    /// Stage, cause, remedy, the server's words.
    pub detail: String,
    /// Who did it, when a person did.
    pub actor: Option<Actor>,
}

/// The durable sequence of what happened.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Events: Send + Sync {
    /// Events behind `after`, by number, at most `limit`. A reader keeps the number of the last event that it is done with, in
    /// a place of its own, and asks for those behind it: it gets each at least once, also from another process, and also
    /// after either of them died.
    ///
    /// 1. An event is there if and only if its change is: both are one transaction. The timeline of a mail is its events.
    /// 2. Numbers grow, also over a reopening, and none is given a second time, also after its event was pruned. They may
    ///    have gaps.
    /// 3. Once an event was read, none with a smaller number appears: where a store's transactions commit in another order
    ///    than they draw their numbers, it gives an event only when all those before it are committed or gone.
    /// 4. Events leave with their mail, when retention removes it; a reader that is further behind than that has lost them.
    ///
    /// What a baseline leaves out of the ledger has no events.
    async fn events(&self, after: EventNumber, limit: u32) -> Result<Vec<EventRecord>>;
}
