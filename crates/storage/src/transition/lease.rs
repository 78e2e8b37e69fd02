//! The claim of a row with its worker and the time that it lasts.

use postroom_core::id::{ClaimId, WorkerId};
use postroom_core::time::Timestamp;

/// A worker's claim of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "three columns of a row")]
pub struct Lease {
    /// The claim: the fence of every write that settles it.
    pub claim: ClaimId,
    /// Who has it.
    pub worker: WorkerId,
    /// Until when, unless it is renewed.
    pub until: Timestamp,
}

impl Lease {
    /// Whether it still lasts at `now`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.until > now
    }
}
