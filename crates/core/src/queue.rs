//! The sending queue's rules: the states of a recipient, the only ways from one to another, and the frozen mail that
//! is put into the queue. Rows are in the storage crate, verbs in the engine.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::id::{ContractId, IdempotencyKey, LedgerId, QueueId, RecordId, Revision, StepKey};
use crate::message::{Automation, Fingerprint, OnDoubt, OnSuppressed, Priority};
use crate::resolve::Resolution;
use crate::rules;
use crate::text::words;
use crate::time::Timestamp;

words! {
    /// The state of one recipient of a mail.
    State, rules::STATE;
    /// It waits for its time, or for a free connection.
    Queued = "queued",
    /// It waits for a person, or for its outbox to be usable again.
    Held = "held",
    /// A worker has it; its mark is not set.
    Claimed = "claimed",
    /// Marked before the final dot: from here on the server may have it.
    Crossing = "crossing",
    /// The server took it.
    Accepted = "accepted",
    /// The server took it and it came back later.
    Bounced = "bounced",
    /// A server refused it for good.
    Refused = "refused",
    /// Its time ran out before a server took it.
    Expired = "expired",
    /// A person took it back before it was sent.
    Cancelled = "cancelled",
    /// It can't be sent: its attempts are used up, or it can't be built.
    Dead = "dead",
    /// The connection was lost after the dot and before the reply, or the database was restored: nobody knows.
    InDoubt = "in-doubt",
}

words! {
    /// What happens to a recipient.
    Event, rules::QUEUE_EVENT;
    /// A worker takes it.
    Claim = "claim",
    /// The claim ends without a result: the lease ran out, or the worker stopped before the mark.
    Release = "release",
    /// The mark is committed, before the final dot.
    Mark = "mark",
    /// The server said 2xx, or a person or the Sent folder says so.
    Accept = "accept",
    /// The server said 5xx, or a person says so.
    Refuse = "refuse",
    /// It failed for now and is tried again.
    Defer = "defer",
    /// The connection was lost after the dot, or the worker died after the mark; or a person says so of what waits, after the
    /// database was restored from a backup.
    Doubt = "doubt",
    /// It must wait for a person or an outbox.
    Hold = "hold",
    /// What held it is gone.
    Unhold = "unhold",
    /// Its time ran out.
    Expire = "expire",
    /// A person takes it back.
    Cancel = "cancel",
    /// It can't be sent.
    Die = "die",
    /// It came back.
    Bounce = "bounce",
    /// A person, or the mail's own choice in doubt, has it sent again.
    Retry = "retry",
}

impl State {
    /// The state after `event`, or none where the drawing has no such way. The drawing is in the manual, page
    /// `queue.md`.
    #[must_use]
    pub const fn on(self, event: Event) -> Option<Self> {
        Some(match (self, event) {
            (Self::Queued, Event::Claim) => Self::Claimed,
            (Self::Queued, Event::Hold) | (Self::Claimed, Event::Hold) => Self::Held,
            (Self::Queued | Self::Held, Event::Expire) => Self::Expired,
            (Self::Queued | Self::Held, Event::Cancel) => Self::Cancelled,
            (Self::Queued | Self::Claimed, Event::Die) => Self::Dead,
            (Self::Held, Event::Unhold) => Self::Queued,
            (Self::Claimed, Event::Release | Event::Defer) | (Self::Crossing, Event::Defer) => Self::Queued,
            (Self::Claimed, Event::Mark) => Self::Crossing,
            (Self::Crossing | Self::InDoubt, Event::Accept) => Self::Accepted,
            (Self::Claimed | Self::Crossing | Self::InDoubt, Event::Refuse) => Self::Refused,
            (Self::Queued | Self::Held | Self::Crossing, Event::Doubt) => Self::InDoubt,
            (Self::Accepted, Event::Bounce) => Self::Bounced,
            (Self::InDoubt | Self::Refused | Self::Expired | Self::Dead | Self::Bounced, Event::Retry) => {
                Self::Queued
            }
            _ => return None,
        })
    }

    /// Whether nothing more happens by itself.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::Accepted | Self::Bounced | Self::Refused | Self::Expired | Self::Cancelled | Self::Dead
        )
    }

    /// The state that a message shows: the least finished of its recipients.
    #[must_use]
    pub fn of_message(recipients: impl IntoIterator<Item = Self>) -> Option<Self> {
        recipients.into_iter().min_by_key(|state| match state {
            Self::Queued => 0,
            Self::Held => 1,
            Self::Claimed => 2,
            Self::Crossing => 3,
            Self::InDoubt => 4,
            Self::Dead => 5,
            Self::Expired => 6,
            Self::Refused => 7,
            Self::Bounced => 8,
            Self::Cancelled => 9,
            Self::Accepted => 10,
        })
    }
}

/// A recipient with its way to the mail's eyes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Recipient {
    /// The address in the envelope.
    pub address: Address,
    /// Where it stands in the header.
    pub role: Role,
}

impl Recipient {
    /// An address in a role.
    #[must_use]
    pub fn new(address: Address, role: Role) -> Self {
        Self { address, role }
    }
}

words! {
    /// Where a recipient stands in the header.
    Role, rules::ROLE;
    /// In To.
    To = "to",
    /// In Cc.
    Cc = "cc",
    /// Nowhere.
    Bcc = "bcc",
}

/// The revisions that the decision was made by: an insert that finds others is refused as stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Basis {
    /// Of the outbox.
    pub outbox: Revision,
    /// Of the contract; none if it has no row.
    pub contract: Option<Revision>,
    /// Of the step; none if it has no row, or the mail names none.
    pub step: Option<Revision>,
}

impl Basis {
    /// The revisions that were read.
    #[must_use]
    pub fn new(outbox: Revision, contract: Option<Revision>, step: Option<Revision>) -> Self {
        Self { outbox, contract, step }
    }
}

/// A mail that is resolved, composed and frozen: what is put into the queue. Its content travels beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "made by the engine, read by stores; a field more concerns all of them"
)]
pub struct Prepared {
    /// Its id.
    pub id: QueueId,
    /// The contract.
    pub contract: ContractId,
    /// The step.
    pub step: Option<StepKey>,
    /// Outbox, sender and reasons, as decided at submission.
    pub resolution: Resolution,
    /// What the decision was made by.
    pub basis: Basis,
    /// The Message-ID, with its angle brackets.
    pub message_id: String,
    /// The subject, for listings.
    pub subject: String,
    /// The return path; none for the null path.
    pub return_path: Option<Address>,
    /// The recipients, each once.
    pub recipients: Vec<Recipient>,
    /// Whether the mail was submitted as raw bytes.
    pub raw: bool,
    /// What it is about.
    pub record: Option<RecordId>,
    /// The received mail that it answers.
    pub in_reply_to: Option<LedgerId>,
    /// Which mail goes first within an outbox.
    pub priority: Priority,
    /// Not sent before.
    pub not_before: Option<Timestamp>,
    /// Not sent after.
    pub expires_at: Timestamp,
    /// What to do in doubt.
    pub on_doubt: OnDoubt,
    /// What happens where a recipient is on the contract's suppression list. Asked when the mail goes into the queue within a host's
    /// transaction; the engine asks before its own insert.
    pub on_suppressed: OnSuppressed,
    /// Why a program writes it, if one does: it counts against each recipient's budget of automatic mail.
    pub automatic: Option<Automation>,
    /// The host's key, with the fingerprint that shows whether a repeated key brings the same mail.
    pub idempotency: Option<(IdempotencyKey, Fingerprint)>,
}

impl fmt::Display for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} to {} by outbox {}",
            self.id,
            self.contract,
            self.recipients.len(),
            self.resolution.outbox
        )
    }
}
