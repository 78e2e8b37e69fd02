//! An address to which a contract sends nothing more: since its mail bounced, since it complained, or by an operator's word.
//! What a bounce says is read in `bounce`; where the list is kept is the stores' matter.

use serde::Serialize;

use crate::address::Address;
use crate::id::{ContractId, QueueId};
use crate::rules;
use crate::text::words;
use crate::time::Timestamp;

words! {
    /// Why an address is on the list.
    Cause, rules::SUPPRESSION;
    /// A server said that the address itself is bad ([`crate::bounce::BAD`]).
    Bounce = "bounce",
    /// Whoever reads it complained.
    Complaint = "complaint",
    /// An operator said so.
    Operator = "operator",
    /// An operator said that it gets mail, whatever bounces: neither bounce nor complaint changes this.
    Allowed = "allowed",
}

impl Cause {
    /// Whether an entry of `self` takes the place of one of `old`: what an operator said, only an operator changes.
    #[must_use]
    pub const fn replaces(self, old: Self) -> bool {
        matches!(self, Self::Operator | Self::Allowed) || !matches!(old, Self::Operator | Self::Allowed)
    }
}

/// An entry of a contract's list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "made by the engine and by stores, shown by screens")]
pub struct Suppression {
    /// The contract.
    pub contract: ContractId,
    /// The address, in lower case ([`suppressed_form`]).
    pub address: Address,
    /// Why.
    pub cause: Cause,
    /// The server's words, or the operator's.
    pub detail: String,
    /// The sent mail that bounced.
    pub mail: Option<QueueId>,
    /// When it was put on the list.
    pub added_at: Timestamp,
    /// From then on it is off the list; none for never.
    pub expires_at: Option<Timestamp>,
}

impl Suppression {
    /// Whether it counts at `now`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|at| at > now)
    }

    /// Whether it, which a report brings, takes the place of what is on the list at `now`.
    #[must_use]
    pub fn replaces(&self, old: Option<&Self>, now: Timestamp) -> bool {
        old.is_none_or(|old| self.cause.replaces(old.cause) || !old.is_live(now))
    }

    /// Whether it stops mail at `now`.
    #[must_use]
    pub fn stops(&self, now: Timestamp) -> bool {
        self.is_live(now) && self.cause != Cause::Allowed
    }
}

/// The form in which an address stands on the list: nearly every server disregards the case of the local part.
#[must_use]
pub fn suppressed_form(address: &Address) -> Address {
    // What has no lower case within the limit stays as it is.
    Address::parse(&address.as_str().to_lowercase()).unwrap_or_else(|_| address.clone())
}
