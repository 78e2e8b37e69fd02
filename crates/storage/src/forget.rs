//! The port to forgetting a contract: what is kept of its finished mail is removed for good, a few rows at a time. Links and settings
//! are the registry's and stay; what retention removes by days is the desks'.

use async_trait::async_trait;
use postroom_core::id::{ContractId, QueueId};
use serde::Serialize;

use crate::error::Result;
use crate::registry::Change;

/// What one call of [`Forgetting::forget`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "counts of one transaction, and where the next begins")]
pub struct Forgotten {
    /// Sent mails of which nothing is left, or the key alone.
    pub sent: u64,
    /// Received mails of which the key alone is left.
    pub received: u64,
    /// Entries of the suppression list.
    pub suppressions: u64,
    /// The last sent mail that was looked at: the next call begins behind it. None when there was none.
    #[serde(skip)]
    pub last: Option<QueueId>,
}

impl Forgotten {
    /// Whether the call found nothing more: the contract is forgotten, but for what waits.
    #[must_use]
    pub fn is_end(&self) -> bool {
        *self == Self::default()
    }

    /// Whether anything was removed.
    #[must_use]
    pub fn is_change(&self) -> bool {
        !Self { last: None, ..*self }.is_end()
    }
}

/// A contract's mail that is not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "made by stores, shown by screens")]
pub struct Waiting {
    /// Sent mails with an unfinished recipient.
    pub queued: u64,
    /// Received mails that the handler has not finished.
    pub received: u64,
}

/// What removes a contract's content.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Forgetting: Send + Sync {
    /// Removes what is kept of a contract's finished mail, in one transaction: looks at most at `limit` sent mails behind `after`, by
    /// id, and takes at most as many received mails and entries of the suppression list. Repeatable, also after a kill: each call
    /// leaves a true state, and one from the beginning passes over what was removed before.
    ///
    /// 1. A sent mail that was finished [`crate::KEYS_KEPT`] ago goes with all that belongs to it. A younger one stays as long as its
    ///    retention says, with its idempotency key, so that a repeated submission sends nothing again: id, outbox, sender, states and times are left
    ///    of it; content, subject, record, Message-ID, return path, timeline and what it answers are gone, and each recipient is
    ///    [`FORGOTTEN_RECIPIENT`].
    /// 2. A received mail keeps what [`crate::LedgerDesk::prune`] keeps of an old one: its server may still show it, and it is known then.
    /// 3. Every entry of the suppression list goes, also an operator's. What counts against a correspondent's budget is a hash that ends within a
    ///    day, and stays: no loop of automatic mail begins anew.
    /// 4. An unfinished mail is never touched, nor is mail of another contract, or of none, or a content that another row refers to.
    /// 5. The audit tells what was removed, in the same transaction; where nothing was, nothing is written. What the audit told before stays.
    async fn forget<'a>(
        &self,
        change: &Change,
        contract: &ContractId,
        after: Option<&'a QueueId>,
        limit: u32,
    ) -> Result<Forgotten>;

    /// How much mail of a contract is not finished, and so can't be forgotten yet. A mail in triage or quarantine belongs to none.
    async fn waiting(&self, contract: &ContractId) -> Result<Waiting>;
}

/// What stands in place of the recipients of a forgotten mail (RFC 2606 section 2: nobody is there).
pub const FORGOTTEN_RECIPIENT: &str = "forgotten@postroom.invalid";
