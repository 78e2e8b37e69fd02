//! The ports to the queue's rows: intake for submissions, work for dispatchers, desk for people.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::address::{Address, NamedAddress};
use postroom_core::id::{
    Actor, BodyId, ClaimId, ContractId, LedgerId, MailboxId, QueueId, RecordId, StepKey, WorkerId,
};
use postroom_core::message::OnDoubt;
use postroom_core::queue::{Basis, Event, Prepared, Recipient, State};
use postroom_core::resolve::{Reason, Resolution};
use postroom_core::time::Timestamp;
use serde::Serialize;

use crate::error::Result;

/// What became of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "it is new or it was there")]
pub enum Enqueued {
    /// It is in the queue, durably.
    New(QueueId),
    /// The idempotency key and content are those of this mail: nothing was inserted.
    Existing(QueueId),
}

impl Enqueued {
    /// The mail's id.
    #[must_use]
    pub fn id(&self) -> QueueId {
        match self {
            Self::New(id) | Self::Existing(id) => *id,
        }
    }
}

/// A mail of ours that an answer refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what threading needs of a sent mail")]
pub struct SentMail {
    /// Its id.
    pub id: QueueId,
    /// Its contract.
    pub contract: ContractId,
    /// What it was about.
    pub record: Option<RecordId>,
    /// Its Message-ID, with angle brackets.
    pub message_id: String,
}

/// Through how many mails of a contract [`QueueIntake::sent_to`] looks for a recipient at most.
pub const LOOKED_AT: u32 = 10_000;

/// Where submissions go.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait QueueIntake: Send + Sync {
    /// Inserts a mail with its content, in one transaction that is on the medium when this returns.
    ///
    /// 1. A mail whose id is in the queue is that mail: an insert whose commit has an unknown outcome can be repeated.
    /// 2. A repeated idempotency key of the contract gives the existing mail when all fields are the same. Neither of
    ///    the two is refused for what has changed since.
    /// 3. The revisions of the decision's basis are those that are stored, and the outbox is active (or the mail held);
    ///    a decision by Standard was made by the outbox that is Standard now.
    /// 4. The contract's limits are kept: `queued` counts mails with an unfinished recipient, `per-day` those that were
    ///    submitted on the same day in UTC.
    /// 5. The first timeline entry says `queued` or `held`, with outbox, sender and reasons.
    ///
    /// # Errors
    /// [`crate::ErrorKind::IdempotencyConflict`], [`crate::ErrorKind::StaleDecision`],
    /// [`crate::ErrorKind::LimitReached`]. After an error nothing is visible.
    async fn enqueue(&self, now: Timestamp, mail: &Prepared, content: Bytes) -> Result<Enqueued>;

    /// Whether a claim that comes while a mail is on its way here finds it, in the same transaction or the next: whoever waits for mail
    /// is then told when [`Self::enqueue`] is begun. Where such a claim would look in vain, as is said unless a store knows better, it is
    /// told when it ends.
    fn claims_wait_for_submissions(&self) -> bool {
        false
    }

    /// The sent mails with these Message-IDs, in their order; unknown ones are left out.
    async fn sent_by_message_id(&self, message_ids: &[String]) -> Result<Vec<SentMail>>;

    /// The mails of a contract that were submitted after `since` and that a server took for this recipient, or may have taken, whatever the case of
    /// the address: two at most, since of two nobody knows which one is meant. None where the contract submitted more than
    /// [`LOOKED_AT`] mails since then.
    async fn sent_to(
        &self,
        contract: &ContractId,
        recipient: &Address,
        since: Timestamp,
    ) -> Result<Vec<SentMail>>;
}

/// A mail that a worker has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by stores, read by the engine")]
pub struct Claimed {
    /// The mail.
    pub id: QueueId,
    /// The claim: the fence of every write that settles it.
    pub claim: ClaimId,
    /// The contract.
    pub contract: ContractId,
    /// The outbox.
    pub outbox: MailboxId,
    /// The frozen sender.
    pub sender: NamedAddress,
    /// The return path; none for the null path.
    pub return_path: Option<Address>,
    /// The recipients that are claimed, with their place in the mail.
    pub recipients: Vec<(u32, Address)>,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The content.
    pub body: BodyId,
    /// Its size in bytes.
    pub size: u64,
    /// The content itself, where the store gives it along: one way to the store fewer for the many mails that are one piece.
    pub content: Option<Bytes>,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// Not sent after.
    pub expires_at: Timestamp,
    /// What to do in doubt.
    pub on_doubt: OnDoubt,
}

/// What became of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by the engine, read by stores")]
pub struct RecipientResult {
    /// Its place in the mail.
    pub recipient: u32,
    /// What happened.
    pub event: Event,
    /// Stage, cause, remedy, the server's words: for the timeline, bounded.
    pub detail: String,
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by the engine, read by stores")]
pub struct Settlement {
    /// The mail.
    pub id: QueueId,
    /// The claim that it settles.
    pub claim: ClaimId,
    /// One for each claimed recipient.
    pub results: Vec<RecipientResult>,
    /// When what is queued again is due.
    pub due_at: Timestamp,
    /// Whether the attempt counts. A dead server, a limit or a stop costs none.
    pub attempt: Attempt,
}

impl Settlement {
    /// When the mail took its share of its outbox's budget and for how many recipients, if that is given back: the attempt does not
    /// count, and nobody accepted, refused or doubted it.
    #[must_use]
    pub fn unsent(&self, settled: Settled) -> Option<(Timestamp, u64)> {
        let unsent =
            |result: &RecipientResult| matches!(result.event, Event::Release | Event::Defer | Event::Hold);
        let recipients = u64::try_from(self.results.len()).unwrap_or(u64::MAX);
        (settled == Settled::Applied && self.attempt == Attempt::Free && self.results.iter().all(unsent))
            .then(|| (self.claim.made_at(), recipients))
    }
}

/// Whether an attempt is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "it is spent or it is not")]
pub enum Attempt {
    /// It counts.
    Spent,
    /// It does not count.
    Free,
}

/// What a settlement did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the three ways of promise P4")]
pub enum Settled {
    /// It was applied under the live claim.
    Applied,
    /// The claim had ended in doubt and nobody had settled it: the late answer did.
    Late,
    /// The claim is not the row's any more: nothing changed, the answer stands in the timeline.
    Ignored,
}

/// What [`QueueWork::expire`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "counts of one sweep")]
pub struct Sweep {
    /// Mails whose claim ran out before its mark: queued again.
    pub released: u64,
    /// Mails whose claim ran out after its mark: in doubt, or queued again where the mail says resend.
    pub doubted: u64,
    /// Recipients whose time ran out.
    pub expired: u64,
}

/// What dispatchers do with the queue. All writes are fenced by claims.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait QueueWork: Send + Sync {
    /// The outboxes that have a due mail, at most `limit`, the one that waits longest first: since a mail of it is due, or since it
    /// was served. Left out are outboxes
    /// that are not active, paused, suspended, not to be tried yet, or out of budget, and mails of paused contracts.
    async fn due_outboxes(&self, now: Timestamp, limit: u32) -> Result<Vec<MailboxId>>;

    /// Claims at most `limit` due mails of an outbox, all their queued recipients together, until `until`. By priority; within a
    /// priority contracts take turns, one mail each, the one that waits longest first (since its mail is due, or since it was
    /// served); within a contract by due time, then by id. Its cost grows neither with the depth of a backlog nor with the number
    /// of contracts that have nothing due. A row is claimed by one worker at most. What [`Self::due_outboxes`] leaves out is not
    /// claimed either.
    ///
    /// Each mail is taken out of its outbox's budget in the same transaction ([`postroom_core::budget`]): of the limits per minute
    /// and per day, whoever claims. What does not fit is not claimed, nor is anything behind it, and the outbox is not due until it
    /// fits. A settlement that says that the mail was not sent gives it back ([`Settlement::unsent`]); what a worker had that died
    /// is lost. A mail that has more recipients than a whole day allows takes nothing; it is the caller's to hold it.
    ///
    /// An outbox that failed is claimed by the worker that tries it ([`crate::HealthBook::probe`]), also while it rests.
    ///
    /// Attempts that ended with a dead worker count, so `attempt` can be beyond what the caller grants: such a mail is
    /// settled as dead before it is touched.
    async fn claim(
        &self,
        now: Timestamp,
        outbox: MailboxId,
        limit: u32,
        worker: WorkerId,
        until: Timestamp,
    ) -> Result<Vec<Claimed>>;

    /// Sets the mark "about to cross" of all recipients of claims, in one commit that is on the medium when this returns.
    /// Gives for each claim whether it is live at `now` and now marked; a dead claim is not marked. Repeatable.
    async fn mark(&self, now: Timestamp, claims: &[ClaimMark]) -> Result<Vec<bool>>;

    /// Applies results, in one commit that is on the medium when this returns. The fence is the claim, not its lease: a
    /// claim that ran out and that nobody has ended is still the row's. See [`Settled`], and
    /// [`crate::transition::queue::QueueRow::settle`] for results that are missing or don't fit.
    async fn settle(&self, now: Timestamp, settlements: &[Settlement]) -> Result<Vec<Settled>>;

    /// Extends all live claims of a worker, in one statement. Gives how many.
    async fn renew(&self, now: Timestamp, worker: WorkerId, until: Timestamp) -> Result<u64>;

    /// Ends claims whose lease ran out, and mails whose time ran out. A claim that ends here costs its mail an attempt.
    async fn expire(&self, now: Timestamp) -> Result<Sweep>;

    /// The earliest time after `now` at which a mail may become due, a lease or a mail runs out, or an outbox may be tried
    /// again or has budget again; none when nothing waits.
    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>>;

    /// How many claims of any worker are open (unsettled, also when their lease ran out).
    async fn open_claims(&self) -> Result<u64>;
}

/// A claim that is about to cross. The mark covers all its recipients, also one that the server refused before the dot:
/// its result follows with the settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by the engine, read by stores")]
pub struct ClaimMark {
    /// The mail.
    pub id: QueueId,
    /// Its claim.
    pub claim: ClaimId,
}

/// A mail as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "made by stores, shown by screens")]
pub struct QueueItem {
    /// The mail.
    pub id: QueueId,
    /// The least finished state of its recipients.
    pub state: State,
    /// The contract.
    pub contract: ContractId,
    /// The step.
    pub step: Option<StepKey>,
    /// The outbox.
    pub outbox: MailboxId,
    /// The sender.
    pub sender: NamedAddress,
    /// Why this outbox and sender.
    pub reasons: Vec<Reason>,
    /// The subject.
    pub subject: String,
    /// The Message-ID.
    pub message_id: String,
    /// What it is about.
    pub record: Option<RecordId>,
    /// The received mail that it answers.
    pub in_reply_to: Option<LedgerId>,
    /// Attempts that were spent.
    pub attempts: u32,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When it is due next, while it waits.
    pub due_at: Option<Timestamp>,
    /// Not sent after.
    pub expires_at: Timestamp,
}

/// A recipient with its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "made by stores, shown by screens")]
pub struct RecipientState {
    /// The recipient.
    #[serde(flatten)]
    pub recipient: Recipient,
    /// Its state.
    pub state: State,
}

/// One entry of a mail's timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "made by stores, shown by screens")]
pub struct TimelineEntry {
    /// When.
    pub at: Timestamp,
    /// Its place in the mail; none when it concerns all.
    pub recipient: Option<u32>,
    /// What happened, a word: an [`Event`], or `queued`, `held`, `late`, `ignored`.
    pub what: String,
    /// The state afterwards; none when nothing changed.
    pub state: Option<State>,
    /// Stage, cause, remedy, the server's words.
    pub detail: String,
    /// Who did it, when a person did.
    pub actor: Option<Actor>,
}

/// A mail with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "made by stores, shown by screens")]
pub struct QueueRecord {
    /// What a listing shows.
    #[serde(flatten)]
    pub item: QueueItem,
    /// The recipients, by place.
    pub recipients: Vec<RecipientState>,
    /// The timeline, in order.
    pub timeline: Vec<TimelineEntry>,
    /// Whether it was submitted as raw bytes.
    pub raw: bool,
    /// The content; none once retention removed it.
    #[serde(skip)]
    pub body: Option<BodyId>,
}

/// Which mails are listed.
#[derive(Debug, Clone, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a filter that callers fill by literal with `..Default::default()`"
)]
pub struct QueueQuery {
    /// Those in this state.
    pub state: Option<State>,
    /// Those of this contract.
    pub contract: Option<ContractId>,
    /// Those behind this one (ids ascend with time).
    pub after: Option<QueueId>,
    /// At most so many; none for all.
    pub limit: Option<u32>,
}

/// Another outbox for a mail: what was decided, and what it was decided by.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by the engine, read by stores")]
pub struct Rerouting {
    /// The mail.
    pub id: QueueId,
    /// The outbox that was to send it.
    pub from: MailboxId,
    /// The content that was rewritten.
    pub rewritten: BodyId,
    /// The new outbox and sender, with the reasons.
    pub resolution: Resolution,
    /// What the decision was made by.
    pub basis: Basis,
    /// The new return path of a mail that has one; one with the null path keeps that.
    pub return_path: Address,
}

/// How long an idempotency key is kept at least.
pub const KEYS_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What [`QueueDesk::prune`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "counts of one pruning")]
pub struct Pruned {
    /// Contents of mails whose row stays.
    pub bodies: u64,
    /// Mails, with all that belongs to them.
    pub mails: u64,
    /// Events of mailboxes.
    pub events: u64,
}

/// What [`QueueDesk::recover`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "counts of one recovery")]
pub struct Recovered {
    /// Mails that are in doubt now.
    pub doubted: u64,
    /// Mails that a live worker has.
    pub busy: u64,
}

/// A mail in doubt.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by stores, read by the engine")]
pub struct Doubt {
    /// The mail.
    pub id: QueueId,
    /// Its outbox.
    pub outbox: MailboxId,
    /// Its Message-ID, with angle brackets.
    pub message_id: String,
    /// The recipients in doubt, each with the attempt that left the doubt.
    pub recipients: Vec<(u32, ClaimId)>,
}

/// What people do with the queue.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait QueueDesk: Send + Sync {
    /// A page of mails, oldest first.
    async fn list(&self, query: &QueueQuery) -> Result<Vec<QueueItem>>;

    /// A mail with its recipients and timeline.
    async fn show(&self, id: QueueId) -> Result<Option<QueueRecord>>;

    /// Applies a person's decision to every recipient whose state has that way: retry, cancel, hold, unhold, accept or
    /// refuse what is in doubt. A claimed mail is left alone. Due at once when it is queued again; a retry counts
    /// attempts anew, and gives a mail whose time ran out as much time again. A mail whose content retention removed is
    /// not sent again.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotPossible`] when no recipient has that way, a worker has the mail, its content is gone, or the
    /// event is no person's; [`crate::ErrorKind::NotFound`].
    async fn decide(&self, now: Timestamp, actor: &Actor, id: QueueId, event: Event) -> Result<()>;

    /// Gives a mail another outbox, sender and return path, with its rewritten `content` in place of the old one, which goes.
    /// No state changes; the timeline tells who did it, and both outboxes.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotPossible`] while a recipient is claimed, crossing, in doubt, accepted or bounced, or for a raw
    /// mail; [`crate::ErrorKind::Conflict`] when outbox or content are not those that were read;
    /// [`crate::ErrorKind::StaleDecision`] when the links are not; [`crate::ErrorKind::NotFound`].
    async fn reroute(
        &self,
        now: Timestamp,
        actor: &Actor,
        rerouting: &Rerouting,
        content: Bytes,
    ) -> Result<()>;

    /// Removes what the contracts' retention no longer keeps, in one transaction: at most `limit` contents, as many mails, and as
    /// many events of mailboxes. Nothing removed means that nothing was left.
    ///
    /// 1. The days count from when the last recipient's state became final. An unfinished mail is never touched.
    /// 2. What was accepted, bounced or cancelled loses its content after `bodies` days and its row, with recipients and
    ///    events, after `timelines` days.
    /// 3. What was refused, expired or is dead stays whole, so that it can be sent again, for `dead` days.
    /// 4. A row stays at least [`KEYS_KEPT`], and with it its idempotency key.
    /// 5. A content that another row refers to stays. Events of mailboxes stay for the default of `timelines`.
    async fn prune(&self, now: Timestamp, limit: u32) -> Result<Pruned>;

    /// Puts every unfinished recipient of the mails that were submitted until `since` in doubt, by a person's order, after the
    /// database was restored from a backup of that time: what was queued or held then may have been sent since. Also a mail
    /// that says resend waits for a person. A mail whose lease is live is left alone and counted. Repeatable.
    async fn recover(&self, now: Timestamp, actor: &Actor, since: Timestamp) -> Result<Recovered>;

    /// Mails in doubt behind `after`, by id, at most `limit`.
    async fn doubts<'a>(&self, after: Option<&'a QueueId>, limit: u32) -> Result<Vec<Doubt>>;

    /// Accepts what the attempt `claim` left in doubt, since the mail was found at the server. Gives whether anything changed:
    /// see [`crate::transition::queue::QueueRow::prove`] for when nothing does.
    async fn prove(&self, now: Timestamp, id: QueueId, claim: ClaimId, detail: &str) -> Result<bool>;
}
