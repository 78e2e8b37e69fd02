//! Forgetting a contract, in memory.

use std::ops::Bound;

use async_trait::async_trait;
use postroom_core::address::Address;
use postroom_core::id::{ContractId, LedgerId, QueueId};
use postroom_core::ledger::State;

use super::MemoryStore;
use super::rows::{Rows, count, page};
use crate::audit::{contract_subject, forgotten_changes};
use crate::error::{Error, ErrorKind, Result};
use crate::forget::{FORGOTTEN_RECIPIENT, Forgetting, Forgotten, Waiting};
use crate::queue::KEYS_KEPT;
use crate::registry::Change;

impl Rows {
    /// Leaves the key alone of a sent mail.
    fn strip_sent(&mut self, id: QueueId, nobody: &Address) {
        self.remove_content(id);
        let Some(one) = self.queue.get_mut(&id) else { return };
        one.timeline.clear();
        one.told = 0;
        let mail = &mut one.mail;
        let message_id = std::mem::take(&mut mail.message_id);
        (mail.subject, mail.record) = (String::new(), None);
        (mail.in_reply_to, mail.return_path) = (None, None);
        mail.recipients.iter_mut().for_each(|recipient| recipient.address = nobody.clone());
        if let Some(ids) = self.message_ids.get_mut(&message_id) {
            ids.retain(|other| *other != id);
        }
        self.remove_events(id);
    }
}

#[async_trait]
impl Forgetting for MemoryStore {
    async fn forget<'a>(
        &self,
        change: &Change,
        contract: &ContractId,
        after: Option<&'a QueueId>,
        limit: u32,
    ) -> Result<Forgotten> {
        let unreadable = |error| Error::new(ErrorKind::Unreadable, "forget a contract").with_source(error);
        let nobody = Address::parse(FORGOTTEN_RECIPIENT).map_err(unreadable)?;
        let limit = page(Some(limit));
        let mut rows = self.rows();
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let sent = rows.queue.range::<QueueId, _>((behind, Bound::Unbounded)).map(|(_, one)| one);
        let sent = sent.filter(|one| one.mail.contract == *contract);
        let sent: Vec<_> = sent
            .filter_map(|one| Some((one.mail.id, one.finished_at?, one.mail.message_id.is_empty())))
            .take(limit)
            .collect();
        let mut forgotten = Forgotten { last: sent.last().map(|(id, ..)| *id), ..Forgotten::default() };
        for (id, finished_at, is_bare) in sent {
            let is_over = finished_at + KEYS_KEPT <= change.now;
            if is_over {
                rows.remove_mail(id);
            } else if !is_bare {
                rows.strip_sent(id, &nobody);
            }
            forgotten.sent += u64::from(is_over || !is_bare);
        }
        let received = rows.ledger.values().filter(|one| one.row.contract.as_ref() == Some(contract));
        let received: Vec<LedgerId> = received
            .filter(|one| !one.is_bare && one.row.finished_at.is_some())
            .map(|one| one.item.id)
            .take(limit)
            .collect();
        received.iter().for_each(|id| rows.strip_received(*id));
        let listed: Vec<_> =
            rows.suppressions.keys().filter(|(of, _)| of == contract).take(limit).cloned().collect();
        listed.iter().for_each(|key| drop(rows.suppressions.remove(key)));
        (forgotten.received, forgotten.suppressions) = (count(received.iter()), count(listed.iter()));
        if forgotten.is_change() {
            rows.write_audit(change, contract_subject(contract), "forget", forgotten_changes(&forgotten));
        }
        Ok(forgotten)
    }

    async fn waiting(&self, contract: &ContractId) -> Result<Waiting> {
        let rows = self.rows();
        let queued =
            rows.hot.iter().filter(|id| rows.queue.get(id).is_some_and(|one| one.mail.contract == *contract));
        let is_its = |row: &crate::transition::ledger::LedgerRow| row.contract.as_ref() == Some(contract);
        let received = rows.ledger.values().filter(|one| one.row.state == State::Stored && is_its(&one.row));
        Ok(Waiting { queued: count(queued), received: count(received) })
    }
}
