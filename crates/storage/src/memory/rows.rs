//! The rows of the store in memory, and the look-ups that more than one of its ports needs.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use postroom_core::address::Address;
use postroom_core::budget::{Budget, Wait};
use postroom_core::contract::Contract;
use postroom_core::id::{
    BodyId, ClaimId, ContractId, EventNumber, IdempotencyKey, LedgerId, MailboxId, QueueId, StepKey, WorkerId,
};
use postroom_core::ledger::{Place, RemoteKey, State};
use postroom_core::mailbox::Mailbox;
use postroom_core::message::Priority;
use postroom_core::queue::Prepared;
use postroom_core::step::Step;
use postroom_core::suppression::Suppression;
use postroom_core::time::Timestamp;

use crate::bodies::PIECE;
use crate::keyring::Sealed;
use crate::ledger::{LedgerEntry, LedgerItem};
use crate::queue::TimelineEntry;
use crate::registry::{AuditEntry, Health, Scope};
use crate::transition::ledger::LedgerRow;
use crate::transition::place::PlaceRow;
use crate::transition::queue::QueueRow;
use crate::watches::Way;

/// Everything that is stored.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) last_mailbox: i64,
    pub(super) mailboxes: BTreeMap<MailboxId, Mailbox>,
    pub(super) secrets: BTreeMap<MailboxId, Sealed>,
    pub(super) health: BTreeMap<MailboxId, Health>,
    pub(super) contracts: BTreeMap<ContractId, Contract>,
    pub(super) steps: BTreeMap<StepKey, Step>,
    pub(super) standard: Option<MailboxId>,
    pub(super) paused: BTreeSet<Scope>,
    pub(super) audit: Vec<AuditEntry>,
    pub(super) vault: BTreeMap<(String, String), Sealed>,
    pub(super) bodies: BTreeMap<BodyId, Body>,
    pub(super) queue: BTreeMap<QueueId, QueuedMail>,
    /// The mails that are not finished.
    pub(super) hot: BTreeSet<QueueId>,
    /// When a line was served last, and in which turn.
    pub(super) served: BTreeMap<Line, (Timestamp, u64)>,
    pub(super) turns: u64,
    /// What outboxes took of their limits, and until when they wait.
    pub(super) budgets: BTreeMap<MailboxId, (Budget, Option<Wait>)>,
    /// When correspondents got automatic mail, by account.
    pub(super) answers: BTreeMap<String, Vec<Timestamp>>,
    pub(super) suppressions: BTreeMap<(ContractId, Address), Suppression>,
    /// The worker that tries a mailbox which failed.
    pub(super) probers: BTreeMap<MailboxId, WorkerId>,
    pub(super) watching: WatchRows,
    pub(super) keys: BTreeMap<(ContractId, IdempotencyKey), QueueId>,
    pub(super) message_ids: BTreeMap<String, Vec<QueueId>>,
    pub(super) ledger: BTreeMap<LedgerId, StoredMail>,
    /// Received mails in the order in which they were stored.
    pub(super) stored: Vec<LedgerId>,
    pub(super) remote: BTreeMap<RemoteMail, LedgerId>,
    /// What is known of each folder's epochs.
    pub(super) places: BTreeMap<(MailboxId, String, u64), PlaceRow>,
    /// The events, by number: what each is, is read where it happened.
    pub(super) events: BTreeMap<EventNumber, Told>,
    pub(super) last_event: i64,
    claims: u64,
}

/// A content and whether a row refers to it.
pub(super) struct Body {
    pub(super) begun_at: Timestamp,
    pub(super) pieces: BTreeMap<u32, Bytes>,
    pub(super) referred: Referred,
}

/// Whether a row refers to a content.
#[derive(PartialEq, Eq)]
pub(super) enum Referred {
    Yes,
    No,
}

/// A mail of the queue.
pub(super) struct QueuedMail {
    pub(super) mail: Prepared,
    pub(super) row: QueueRow,
    /// Its content, which may be gone.
    pub(super) body: BodyId,
    pub(super) size: u64,
    pub(super) finished_at: Option<Timestamp>,
    pub(super) timeline: Vec<TimelineEntry>,
    /// How much of the timeline is in the sequence of events.
    pub(super) told: usize,
}

/// Where an event stands.
pub(super) enum Told {
    /// At a place of a mail's timeline.
    Queue(QueueId, usize),
    /// At a place of a received mail's timeline.
    Ledger(LedgerId, usize),
    /// In itself: it is about a mailbox.
    Mailbox { at: Timestamp, mailbox: MailboxId, what: &'static str, detail: String },
}

/// The mail of one contract and priority at one outbox.
pub(super) type Line = (MailboxId, ContractId, Priority);

/// Where a received mail lies.
pub(super) type RemoteMail = (MailboxId, String, u64, RemoteKey);

/// A mail of the ledger. State, contract and reasons of `item` are the row's.
pub(super) struct StoredMail {
    pub(super) item: LedgerItem,
    pub(super) row: LedgerRow,
    pub(super) sha256: Option<[u8; 32]>,
    pub(super) settle_at: Option<Timestamp>,
    pub(super) settled: Option<crate::ledger::Told>,
    /// Whether all but its key was removed.
    pub(super) is_bare: bool,
    pub(super) timeline: Vec<LedgerEntry>,
    /// How much of the timeline is in the sequence of events.
    pub(super) told: usize,
}

/// Who watches, and what.
#[derive(Default)]
pub(super) struct WatchRows {
    /// Until when each watcher is alive.
    pub(super) watchers: BTreeMap<WorkerId, Timestamp>,
    pub(super) watches: BTreeMap<MailboxId, WatchRow>,
}

/// What is known of an inbox's reading.
#[derive(Default)]
pub(super) struct WatchRow {
    pub(super) watcher: Option<WorkerId>,
    pub(super) fence: u64,
    pub(super) due_at: Option<Timestamp>,
    pub(super) way: Option<Way>,
    pub(super) read_at: Option<Timestamp>,
}

impl Rows {
    /// A claim that no other row ever had. Its first bytes keep it apart from small numbers that a test makes ids of.
    pub(super) fn next_claim(&mut self, now: Timestamp) -> ClaimId {
        self.claims += 1;
        let mut random = [0xff; 10];
        random[2..].copy_from_slice(&self.claims.to_be_bytes());
        ClaimId::new(now, random)
    }

    /// Stores a whole content that a row refers to.
    pub(super) fn add_body(&mut self, now: Timestamp, id: BodyId, content: &Bytes) {
        let pieces =
            (0..).zip(content.chunks(PIECE)).map(|(n, piece)| (n, content.slice_ref(piece))).collect();
        self.bodies.insert(id, Body { begun_at: now, pieces, referred: Referred::Yes });
    }

    /// How many mails of an outbox are not finished.
    pub(super) fn queued_by(&self, outbox: MailboxId) -> u64 {
        let is_its =
            |id: &&QueueId| self.queue.get(id).is_some_and(|one| one.mail.resolution.outbox == outbox);
        count(self.hot.iter().filter(is_its))
    }

    /// How many received mails of an inbox wait for a handler or a person.
    pub(super) fn unhandled_of(&self, inbox: MailboxId) -> u64 {
        let waits = |state| matches!(state, State::Stored | State::Triage | State::Quarantined);
        count(self.ledger.values().filter(|one| one.item.mailbox == inbox && waits(one.row.state)))
    }
}

/// The key of a mail at a place.
pub(super) fn remote(place: &Place, key: &RemoteKey) -> RemoteMail {
    (place.mailbox, place.folder.clone(), place.epoch, key.clone())
}

/// How many items there are.
pub(super) fn count(items: impl Iterator) -> u64 {
    u64::try_from(items.count()).unwrap_or(u64::MAX)
}

/// A page's length; none for all.
pub(super) fn page(limit: Option<u32>) -> usize {
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}
