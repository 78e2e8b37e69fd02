//! Forget: removes a contract's content for good. What its retention removes by days is in `maintain`.

use postroom_core::id::{Actor, ContractId};
use postroom_storage::{Forgetting, Waiting};

use crate::error::Result;
use crate::postroom::Postroom;

/// How many mails of each direction one transaction takes: nobody who writes waits for a long one.
const FEW: u32 = 100;

/// What became of a contract's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ForgottenContract {
    /// Sent mails of which nothing is left, or the key alone.
    pub sent: u64,
    /// Received mails of which the key alone is left.
    pub received: u64,
    /// Entries of the suppression list that are gone.
    pub suppressions: u64,
    /// What is not finished, and was left as it is: forget again once it is.
    pub waiting: Waiting,
}

impl Postroom {
    /// Removes for good what is kept of a contract's finished mail, in short transactions, each of which the audit tells: contents, timelines, events,
    /// subjects, senders, recipients, records, and the suppression list. Keys without content stay, so that nothing is sent or handed over a second time;
    /// see [`Forgetting::forget`] for what is left. Links and settings stay: the contract may go on.
    ///
    /// Mail that is not finished is left alone and counted: what was promised to be sent is sent, and what came in is handled. Cancel, settle or ignore
    /// it first, and pause the contract or unlink its boxes, where nothing more is to come.
    ///
    /// Cancel safe, and repeatable after a kill: what was removed before stays removed, and the rest goes next time.
    ///
    /// # Errors
    /// Of the store; what was removed before stays removed.
    pub async fn forget(&self, actor: &Actor, contract: &ContractId) -> Result<ForgottenContract> {
        let store: &dyn Forgetting = self.store();
        let mut total = ForgottenContract::default();
        let mut after = None;
        loop {
            let forgotten = store.forget(&self.change(actor), contract, after.as_ref(), FEW).await?;
            if forgotten.is_end() {
                break;
            }
            after = forgotten.last.or(after);
            total.sent += forgotten.sent;
            total.received += forgotten.received;
            total.suppressions += forgotten.suppressions;
        }
        total.waiting = store.waiting(contract).await?;
        Ok(total)
    }
}
