//! Suppress: what a contract sends no more to. Operators put addresses on the list and take them off; a submission is kept to it.
//! What bounces put on it is in `bounce`.

use postroom_core::address::Address;
use postroom_core::id::{Actor, ContractId};
use postroom_core::message::{OnSuppressed, Submission};
use postroom_core::suppression::{Cause, Suppression, suppressed_form};
use postroom_core::time::Timestamp;
use postroom_storage::{SuppressionQuery, Suppressions};

use crate::error::{Error, ErrorKind, Result};
use crate::postroom::Postroom;

/// Characters of an operator's words.
const DETAIL: usize = 300;
impl Postroom {
    /// Puts an address on a contract's suppression list, by an operator's order, until `expires_at` or for ever; or, as
    /// [`Cause::Allowed`], has it get mail whatever bounces. Audited.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn suppress(
        &self,
        actor: &Actor,
        contract: &ContractId,
        address: &Address,
        cause: Cause,
        detail: &str,
        expires_at: Option<Timestamp>,
    ) -> Result<()> {
        let change = self.change(actor);
        let entry = Suppression {
            contract: contract.clone(),
            address: suppressed_form(address),
            cause,
            detail: detail.chars().filter(|c| !c.is_control()).take(DETAIL).collect(),
            mail: None,
            added_at: change.now,
            expires_at,
        };
        self.store().suppress(&change, &entry).await?;
        self.ports.empty_lists.forget(contract);
        Ok(())
    }

    /// Takes an address off a contract's suppression list. Audited.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it is not on it.
    pub async fn unsuppress(&self, actor: &Actor, contract: &ContractId, address: &Address) -> Result<()> {
        if self.store().unsuppress(&self.change(actor), contract, address).await? {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotFound, "take an address off the suppression list"))
    }

    /// Refuses a mail to addresses on its contract's list, unless the mail says that it goes all the same.
    pub(crate) async fn keep_to_list(&self, submission: &Submission) -> Result<()> {
        let (contract, now) = (&submission.contract, self.now());
        if submission.on_suppressed == OnSuppressed::Send || self.ports.empty_lists.is_empty(contract, now) {
            return Ok(());
        }
        let list: &dyn Suppressions = self.store();
        let any = SuppressionQuery {
            contract: Some(contract.clone()),
            limit: Some(1),
            ..SuppressionQuery::default()
        };
        if list.suppressions(now, &any).await?.is_empty() {
            self.ports.empty_lists.keep(contract, now);
            return Ok(());
        }
        let all = submission.to.iter().chain(&submission.cc).chain(&submission.bcc);
        let addresses: Vec<Address> = all.map(|named| named.address().clone()).collect();
        match list.suppressed(now, contract, &addresses).await? {
            none if none.is_empty() => Ok(()),
            found => Err(Error::new(ErrorKind::Suppressed(found), "submit a mail")),
        }
    }
}
