//! The ports to the ledger's rows: intake for fetchers, work for handlers, desk for people.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::id::{
    Actor, BodyId, ClaimId, ContractId, LedgerId, MailboxId, RecordId, Revision, WorkerId,
};
use postroom_core::ledger::{Event, HISTORIC, Place, RemoteKey, State};
use postroom_core::time::Timestamp;
use serde::Serialize;

use crate::bodies::BodyRef;
use crate::error::Result;

/// The raw bytes of a received mail.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_enums, reason = "small mail travels whole, large mail was staged")]
pub enum RawMail {
    /// At most [`crate::PIECE`] bytes, inserted with the row.
    Whole(Bytes),
    /// Staged in pieces before.
    Staged(BodyRef),
}

/// As which mails of the same folder, of which the same bytes are known, a mail is recognised whose own key is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a store must know each")]
pub enum Recognition {
    /// As none: it was not fetched whole, and the first bytes of two large mails may be equal.
    None,
    /// As one that has a key of another epoch: its server renumbered the folder.
    OtherEpoch,
    /// As one whose key is none of these, which are all that its box, which has no epochs (POP3), shows now: its server renumbered it. A
    /// mail that its server was told to delete is none of them: what comes with its bytes is another one.
    NotShown(Arc<HashSet<RemoteKey>>),
    /// As one of another epoch, or as one whose key of the same epoch is among these: its box was asked for them, as [`Stored::Undecided`]
    /// wants it, and does not show them any more.
    Gone(Arc<HashSet<RemoteKey>>),
}

/// What a server was told to do with a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a store must know each")]
pub enum Told {
    /// To keep it where it lies.
    Keep,
    /// To delete it, or to move it.
    TakeAway,
}

/// A mail to be stored.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "made by the engine, read by stores")]
pub struct Received {
    /// Its id.
    pub id: LedgerId,
    /// Where it lies.
    pub place: Place,
    /// Its key there.
    pub key: RemoteKey,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
    /// Its size in bytes.
    pub size: u64,
    /// When it arrived at its server, where that is known.
    pub arrived: Option<Timestamp>,
    /// The first state: stored, triage, quarantined, or ignored.
    pub state: State,
    /// The contract; none in triage.
    pub contract: Option<ContractId>,
    /// Why this contract or none, as stable words.
    pub reasons: Vec<String>,
    /// What it is about, by its thread.
    pub record: Option<RecordId>,
    /// Its Message-ID, with angle brackets, if it has one.
    pub message_id: Option<String>,
    /// From, for listings.
    pub sender: String,
    /// Subject, for listings.
    pub subject: String,
    /// When the server is told what to do with it; none for never.
    pub settle_at: Option<Timestamp>,
    /// As which known mails it may be recognised.
    pub recognition: Recognition,
    /// The bytes.
    pub raw: RawMail,
}

impl Received {
    /// Whether a mail of the same folder and the same bytes is this one, by its epoch, its key, and whether its server was told.
    #[must_use]
    pub fn is_known_as(&self, epoch: u64, key: &RemoteKey, is_settled: bool) -> bool {
        match &self.recognition {
            Recognition::None => false,
            Recognition::OtherEpoch | Recognition::Gone(_) => epoch != self.place.epoch,
            Recognition::NotShown(shown) => epoch == self.place.epoch && !is_settled && !shown.contains(key),
        }
    }
}

/// What became of a mail that was to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the ways that a mail can be known")]
pub enum Stored {
    /// It is new in the ledger.
    New(LedgerId),
    /// Its key is in the ledger.
    Known(LedgerId),
    /// A mail with the same bytes was in the ledger under another key ([`Recognition`]), and has this one from now on: the server
    /// renumbered it. Each row accounts for one mail.
    Recognised(LedgerId),
    /// It is not stored: mails of the same epoch, bytes and arrival are in the ledger under these keys, and their server was not told to
    /// take them away. If it does not show one of them any more, this is that one. At most [`TWINS`] are named, of the [`EQUALS`] mails
    /// of these bytes that came last. Only [`Recognition::OtherEpoch`] leaves that open.
    Undecided(Vec<RemoteKey>),
}

/// How many keys a [`Stored::Undecided`] names at most.
pub const TWINS: usize = 16;

/// Among how many mails of the same bytes they are looked for.
pub const EQUALS: usize = 500;

/// What the ledger knows of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the caller must decide on each")]
pub enum Contact {
    /// The mailbox's folder was never seen: its baseline applies.
    First,
    /// The folder was seen in another epoch, and never whole in this one: its mails are looked at and known ones are recognised.
    Renumbered {
        /// Mails up to this UID are all accounted for in this epoch; 0 for none.
        frontier: u32,
        /// All mail that had arrived by then was accounted for in another epoch; 1970 when none ever was.
        since: Timestamp,
    },
    /// The place was seen, and no pass over it has been whole since: what the baseline leaves out by its date is left out.
    FirstPass {
        /// Mails up to this UID are all accounted for; 0 for none.
        frontier: u32,
        /// What is dated before and has no arrival date is left out: a time of the first contact, whenever the pass goes on.
        since: Timestamp,
    },
    /// The place was seen; mails up to this UID are all accounted for (0 where keys are not UIDs).
    Known {
        /// The frontier.
        frontier: u32,
    },
}

/// How far a pass over a place has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "stores record each in its own way")]
pub enum Reached {
    /// Every mail up to this UID is accounted for.
    UpTo(u32),
    /// Every mail that had arrived when the pass began, at this time, is.
    Whole(Timestamp),
}

/// What a baseline leaves out of a place at its first contact.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by the engine, read by stores")]
pub struct LeftOut {
    /// The mailbox's revision by which the baseline was read.
    pub revision: Revision,
    /// Everything that arrived before is left out: when the folder was looked at, or as far back as the baseline goes.
    pub until: Timestamp,
    /// Whether the place has mail of which its server does not tell when it arrived: until a pass was whole, such mail is left out by
    /// its date ([`Contact::FirstPass`]).
    pub has_undated: bool,
    /// Every mail up to this UID; 0 for none.
    pub up_to: u32,
    /// These mails besides, one row each.
    pub keys: Vec<RemoteKey>,
}

/// A mail whose server has to be told something.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by stores, read by the engine")]
pub struct Unsettled {
    /// The mail.
    pub id: LedgerId,
    /// Its key.
    pub key: RemoteKey,
}

/// Where received mail goes. The ledger is the cursor.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait LedgerIntake: Send + Sync {
    /// The place itself, or the latest that was seen of the same folder and UIDVALIDITY: see [`Place::set_back`].
    async fn latest(&self, place: &Place) -> Result<Place>;

    /// What is known of a place.
    async fn contact(&self, place: &Place) -> Result<Contact>;

    /// Records that the place was seen, and how far a pass over it has come. Neither the frontier nor the time at which the place
    /// was whole ever goes back within an epoch. A place that was renumbered is known once a whole pass over it is recorded.
    async fn advance(&self, place: &Place, reached: Reached) -> Result<()>;

    /// Of these keys, those that the ledger does not have, in their order.
    async fn unknown(&self, place: &Place, keys: &[RemoteKey]) -> Result<Vec<RemoteKey>>;

    /// Accounts for mails that the baseline leaves out, without their bytes: each of the keys becomes an ignored row with the reason
    /// `baseline`, which can't be replayed. Known keys are left as they are. In the same transaction the place is seen: whatever
    /// happens next, no later contact is the first one, at which mail that came meanwhile would be left out, too. Of a place that was
    /// seen before, no first pass begins anew.
    ///
    /// Gives false, and changes nothing, when the mailbox has another revision by now: its baseline may be another one, and whoever
    /// was stopped on the way here since he read it begins anew.
    async fn skip(&self, now: Timestamp, place: &Place, left_out: &LeftOut) -> Result<bool>;

    /// Stores mails with their bytes, all of them in one transaction that is on the medium when this returns, or none. No two
    /// of them have the same key, and those of one place have the same recognition, or none. Gives what became of each; they count as stored in their order. A known key changes nothing; see
    /// [`Stored`]; what is undecided waits for nobody else. A recognised mail is told to its server again, if it was to be told at all. However many
    /// mails have the same bytes, no statement looks at all of them.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] when a staged content is not there in its whole size. Whoever stores many and fails may store
    /// each by itself: one that can't be stored keeps the others from it no longer then.
    async fn store(&self, now: Timestamp, mails: &[Received]) -> Result<Vec<Stored>>;

    /// At most `limit` mails of a place whose server is to be told by `now`, in the order in which they were stored.
    async fn unsettled(&self, now: Timestamp, place: &Place, limit: u32) -> Result<Vec<Unsettled>>;

    /// Records that the server was told, and what.
    async fn settled(&self, now: Timestamp, ids: &[LedgerId], told: Told) -> Result<()>;
}

/// A mail that a handler is to get.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by stores, read by the engine")]
pub struct ClaimedMail {
    /// The claim: the fence of what settles it.
    pub claim: ClaimId,
    /// What a listing shows.
    pub item: LedgerItem,
    /// Which call this is, from 1.
    pub attempt: u32,
    /// The bytes.
    pub body: BodyId,
}

/// The token of one handler's call, by which a host completes a mail in a transaction of its own: `complete_in` of each SQL store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the key of a row and its fence")]
pub struct Committing {
    /// The mail.
    pub id: LedgerId,
    /// The claim of this call.
    pub claim: ClaimId,
}

/// What became of a handler's call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by the engine, read by stores")]
pub struct HandlerResult {
    /// The mail.
    pub id: LedgerId,
    /// The claim that it settles.
    pub claim: ClaimId,
    /// Handle, defer or die.
    pub event: Event,
    /// When it is due again, after a defer.
    pub due_at: Timestamp,
    /// The handler's words.
    pub detail: String,
}

/// What workers do with the ledger. All writes are fenced by claims.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait LedgerWork: Send + Sync {
    /// Claims at most `limit` due stored mails, of different mailboxes: of each mailbox that has no live claim the first
    /// due one in the order in which they were stored. A claim whose lease ran out is taken over; its call counts, so
    /// `attempt` can be beyond what the caller grants: such a mail is finished as dead without another call.
    async fn claim(
        &self,
        now: Timestamp,
        limit: u32,
        worker: WorkerId,
        until: Timestamp,
    ) -> Result<Vec<ClaimedMail>>;

    /// Applies a result. Gives whether the claim was the row's and the result was applied. The fence is the claim, not
    /// its lease.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotPossible`] for an event that is no handler's.
    async fn finish(&self, now: Timestamp, result: &HandlerResult) -> Result<bool>;

    /// Whether the mail is handled, and was so under this claim: what a handler says to have committed by itself is believed then
    /// only. A replay takes it back.
    async fn completed(&self, claim: &Committing) -> Result<bool>;

    /// Extends all live claims of a worker. Gives how many.
    async fn renew(&self, now: Timestamp, worker: WorkerId, until: Timestamp) -> Result<u64>;

    /// The earliest time after `now` at which a mail may become due or a lease runs out; none when nothing waits.
    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>>;

    /// How many claims of any worker are open.
    async fn open_claims(&self) -> Result<u64>;
}

/// A received mail as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "made by stores, shown by screens")]
pub struct LedgerItem {
    /// The mail.
    pub id: LedgerId,
    /// Its state.
    pub state: State,
    /// The inbox.
    pub mailbox: MailboxId,
    /// The folder; empty for POP3.
    pub folder: String,
    /// That of its [`Place`].
    pub epoch: u64,
    /// Its key.
    pub key: RemoteKey,
    /// The contract.
    pub contract: Option<ContractId>,
    /// Why.
    pub reasons: Vec<String>,
    /// What it is about.
    pub record: Option<RecordId>,
    /// From.
    pub sender: String,
    /// Subject.
    pub subject: String,
    /// Its Message-ID.
    pub message_id: Option<String>,
    /// Its size in bytes.
    pub size: u64,
    /// When it arrived at its server, where that is known.
    pub arrived: Option<Timestamp>,
    /// When it was stored.
    pub stored_at: Timestamp,
}

impl LedgerItem {
    /// Whether it was in its folder already when that was last looked at under other numbers, and was not known: [`HISTORIC`] is
    /// among its reasons.
    #[must_use]
    pub fn is_historic(&self) -> bool {
        self.reasons.iter().any(|reason| reason == HISTORIC)
    }
}

/// One entry of a received mail's timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "made by stores, shown by screens")]
pub struct LedgerEntry {
    /// When.
    pub at: Timestamp,
    /// What happened, a word: an [`Event`], or `stored`, `settled`, `recognised`.
    pub what: String,
    /// The state afterwards; none when it did not change.
    pub state: Option<State>,
    /// More of it.
    pub detail: String,
    /// Who did it, when a person did.
    pub actor: Option<Actor>,
}

impl LedgerEntry {
    /// An entry of what no person did.
    pub(crate) fn new(at: Timestamp, what: &str, state: Option<State>, detail: String) -> Self {
        Self { at, what: what.to_owned(), state, detail, actor: None }
    }
}

/// A received mail with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "made by stores, shown by screens")]
pub struct LedgerRecord {
    /// What a listing shows.
    #[serde(flatten)]
    pub item: LedgerItem,
    /// Calls of the handler.
    pub attempts: u32,
    /// The timeline, in order.
    pub timeline: Vec<LedgerEntry>,
    /// The bytes; none once retention removed them.
    #[serde(skip)]
    pub body: Option<BodyId>,
}

/// Which received mails are listed.
#[derive(Debug, Clone, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a filter that callers fill by literal with `..Default::default()`"
)]
pub struct LedgerQuery {
    /// Those in this state.
    pub state: Option<State>,
    /// Those of this mailbox.
    pub mailbox: Option<MailboxId>,
    /// Those behind this one (ids ascend with time).
    pub after: Option<LedgerId>,
    /// At most so many; none for all.
    pub limit: Option<u32>,
}

/// What [`LedgerDesk::prune`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "counts of one pruning")]
pub struct LedgerPruned {
    /// Mails whose bytes were removed, and nothing else of them.
    pub bodies: u64,
    /// Mails of which only the key was left.
    pub mails: u64,
}

/// What people do with the ledger.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait LedgerDesk: Send + Sync {
    /// A page of mails, oldest first.
    async fn list(&self, query: &LedgerQuery) -> Result<Vec<LedgerItem>>;

    /// A mail with its timeline.
    async fn show(&self, id: LedgerId) -> Result<Option<LedgerRecord>>;

    /// Has a mail handled again: attempts are counted anew.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotPossible`] in a state that has no such way, [`crate::ErrorKind::ContentGone`] without its bytes,
    /// [`crate::ErrorKind::NotFound`].
    async fn replay(&self, now: Timestamp, actor: &Actor, id: LedgerId) -> Result<()>;

    /// Names the contract of a mail in triage or quarantine: it is handled next.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotPossible`] in a state that has no such way, [`crate::ErrorKind::NotFound`].
    async fn route(&self, now: Timestamp, actor: &Actor, id: LedgerId, contract: &ContractId) -> Result<()>;

    /// Drops a mail that waits, for a person or for the handler: nobody handles it. It keeps its bytes as every ignored mail does,
    /// and can be replayed. The answer of a handler that has it just now comes too late.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotPossible`] in a state that has no such way, [`crate::ErrorKind::NotFound`].
    async fn ignore(&self, now: Timestamp, actor: &Actor, id: LedgerId) -> Result<()>;

    /// Removes what the contracts' retention no longer keeps, in one transaction: at most `limit` times the bytes of a mail, and all but
    /// the key of as many mails. Nothing removed means that nothing was left. Mail without a contract is kept for the default days.
    ///
    /// 1. The days count from when the state became final. What is stored, in triage or in quarantine is never touched: somebody has
    ///    to see it.
    /// 2. What was handled or ignored loses its bytes after `raw` days; after `timelines` days its bytes, timeline, sender, subject,
    ///    Message-ID and record.
    /// 3. What is dead stays whole, so that it can be replayed, for `dead` days, and loses all of that then.
    /// 4. The key, the hash, the size, the state and the contract stay: the server may still show the mail, and it is known then, also
    ///    under a new UIDVALIDITY.
    /// 5. A content that another row refers to stays.
    async fn prune(&self, now: Timestamp, limit: u32) -> Result<LedgerPruned>;
}

/// How long a worker holds what it claimed, unless it renews: the default lease.
pub const LEASE: Duration = Duration::from_secs(30);
