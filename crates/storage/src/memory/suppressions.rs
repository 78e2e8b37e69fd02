//! What came back, in memory.

use std::ops::Bound;

use async_trait::async_trait;
use postroom_core::address::Address;
use postroom_core::id::{ContractId, QueueId};
use postroom_core::suppression::{Suppression, suppressed_form};
use postroom_core::time::Timestamp;

use super::MemoryStore;
use super::rows::page;
use crate::audit::{suppression_changes, suppression_subject};
use crate::error::{Error, ErrorKind, Result};
use crate::registry::Change;
use crate::suppressions::{RecipientReport, SuppressionQuery, Suppressions};

#[async_trait]
impl Suppressions for MemoryStore {
    async fn report(&self, now: Timestamp, id: QueueId, reports: &[RecipientReport]) -> Result<bool> {
        let mut rows = self.rows();
        let changed = rows.change(id, |one| {
            let mut changed = false;
            for report in reports {
                changed |= one.row.report(now, report, &mut one.timeline);
            }
            changed
        });
        let changed = changed.ok_or_else(|| Error::new(ErrorKind::NotFound, "record a report"))?;
        for new in reports.iter().filter_map(|report| report.suppression.clone()) {
            let key = (new.contract.clone(), new.address.clone());
            let old = rows.suppressions.get(&key);
            if new.replaces(old, now) {
                rows.suppressions.insert(key, new);
            }
        }
        Ok(changed)
    }

    async fn suppressed(
        &self,
        now: Timestamp,
        contract: &ContractId,
        addresses: &[Address],
    ) -> Result<Vec<Suppression>> {
        let rows = self.rows();
        let mut addresses: Vec<Address> = addresses.iter().map(suppressed_form).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let found =
            addresses.into_iter().filter_map(|address| rows.suppressions.get(&(contract.clone(), address)));
        Ok(found.filter(|entry| entry.stops(now)).cloned().collect())
    }

    async fn suppressions(&self, now: Timestamp, query: &SuppressionQuery) -> Result<Vec<Suppression>> {
        let rows = self.rows();
        let after = query.after.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let behind = rows.suppressions.range((after, Bound::Unbounded)).map(|(_, entry)| entry);
        let wanted = behind
            .filter(|entry| entry.is_live(now))
            .filter(|entry| query.contract.as_ref().is_none_or(|contract| *contract == entry.contract));
        Ok(wanted.take(page(query.limit)).cloned().collect())
    }

    async fn suppress(&self, change: &Change, entry: &Suppression) -> Result<()> {
        let mut rows = self.rows();
        let key = (entry.contract.clone(), entry.address.clone());
        let old = rows.suppressions.insert(key, entry.clone());
        let changes = suppression_changes(old.as_ref(), Some(entry));
        rows.write_audit(change, suppression_subject(&entry.contract, &entry.address), "set", changes);
        Ok(())
    }

    async fn unsuppress(&self, change: &Change, contract: &ContractId, address: &Address) -> Result<bool> {
        let mut rows = self.rows();
        let address = suppressed_form(address);
        let Some(old) = rows.suppressions.remove(&(contract.clone(), address.clone())) else {
            return Ok(false);
        };
        let changes = suppression_changes(Some(&old), None);
        rows.write_audit(change, suppression_subject(contract, &address), "remove", changes);
        Ok(true)
    }
}
