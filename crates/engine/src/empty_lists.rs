//! The contracts whose suppression list was empty when it was looked at: what spares most mail a look. The look is in `suppress`.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use postroom_core::id::ContractId;
use postroom_core::time::Timestamp;

/// For how long it counts that a contract's list was empty: what another process puts on it is kept to after so long.
const EMPTY: Duration = Duration::from_secs(5);
/// Contracts of which that is known at once.
const KNOWN: usize = 10_000;

/// The contracts whose list was empty, with the time of the look: most are, and their mail should not pay for the others'.
#[derive(Default)]
pub(crate) struct EmptyLists(Mutex<BTreeMap<ContractId, Timestamp>>);

impl EmptyLists {
    pub(crate) fn is_empty(&self, contract: &ContractId, now: Timestamp) -> bool {
        let known = self.0.lock().ok().and_then(|known| known.get(contract).copied());
        known.is_some_and(|at| at <= now && now.since(at) < EMPTY)
    }

    pub(crate) fn keep(&self, contract: &ContractId, now: Timestamp) {
        if let Ok(mut known) = self.0.lock() {
            if known.len() >= KNOWN {
                known.clear();
            }
            known.insert(contract.clone(), now);
        }
    }

    /// The list is looked at again.
    pub(crate) fn forget(&self, contract: &ContractId) {
        if let Ok(mut known) = self.0.lock() {
            known.remove(contract);
        }
    }
}
