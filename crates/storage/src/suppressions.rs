//! The port to what came back: reports on sent mail, and each contract's list of addresses that get no more. That a submission
//! keeps to the list is the engine's part.

use async_trait::async_trait;
use postroom_core::address::Address;
use postroom_core::id::{ContractId, QueueId};
use postroom_core::suppression::Suppression;
use postroom_core::time::Timestamp;

use crate::error::Result;
use crate::registry::Change;

/// What a report says of one recipient of a sent mail.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by the engine, read by stores")]
pub struct RecipientReport {
    /// Its place in the mail.
    pub recipient: u32,
    /// What became of the mail there.
    pub outcome: Outcome,
    /// The words of the report, bounded.
    pub detail: String,
    /// The entry on the suppression list that follows from it.
    pub suppression: Option<Suppression>,
}

/// What became of a mail that a server had taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "it came back or it did not")]
pub enum Outcome {
    /// It came back.
    Bounced,
    /// Anything else: it is told, and changes no state.
    Told,
}

/// Which entries are listed.
#[derive(Debug, Clone, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a filter that callers fill by literal with `..Default::default()`"
)]
pub struct SuppressionQuery {
    /// Those of this contract.
    pub contract: Option<ContractId>,
    /// Those behind this one.
    pub after: Option<(ContractId, Address)>,
    /// At most so many; none for all.
    pub limit: Option<u32>,
}

/// What came back, and what follows.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Suppressions: Send + Sync {
    /// Applies what a report says of a sent mail, in one transaction: what was accepted, or in doubt, and came back is `bounced`, with
    /// its timeline entry; in any other state, and for any other outcome, the timeline alone tells of it (`report`). Entries of the
    /// list that follow take the place of older ones of bounces and complaints, and never that of an operator's. Gives whether a state
    /// changed. Repeatable: what is bounced stays bounced.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] when there is no such mail.
    async fn report(&self, now: Timestamp, id: QueueId, reports: &[RecipientReport]) -> Result<bool>;

    /// Of these addresses those that get no mail of the contract at `now`, whatever the case they are written in.
    async fn suppressed(
        &self,
        now: Timestamp,
        contract: &ContractId,
        addresses: &[Address],
    ) -> Result<Vec<Suppression>>;

    /// A page of entries that count at `now`, also of allowed addresses, by contract and address in the order of their bytes.
    async fn suppressions(&self, now: Timestamp, query: &SuppressionQuery) -> Result<Vec<Suppression>>;

    /// Puts an entry on the list by an operator's order, in place of any other of that address. It is audited.
    async fn suppress(&self, change: &Change, entry: &Suppression) -> Result<()>;

    /// Takes an address off the list by an operator's order, which is audited. Gives whether it was on it.
    async fn unsuppress(&self, change: &Change, contract: &ContractId, address: &Address) -> Result<bool>;
}
