//! The sequence of events in memory: numbers beside the timelines, drawn under the lock that makes the change.

use std::ops::Bound;

use async_trait::async_trait;
use postroom_core::id::{EventNumber, LedgerId, QueueId};
use postroom_core::time::Timestamp;

use super::rows::{Rows, Told, page};
use super::store::MemoryStore;
use crate::error::Result;
use crate::events::{EventRecord, EventSubject, Events};
use crate::registry::Health;
use crate::transition::registry::health_event;

impl Rows {
    fn publish(&mut self, told: Told) {
        self.last_event += 1;
        self.events.insert(EventNumber::new(self.last_event), told);
    }

    /// Numbers what is new in a mail's timeline.
    pub(super) fn publish_mail(&mut self, id: QueueId) {
        let Some(one) = self.queue.get_mut(&id) else { return };
        let new = one.told..one.timeline.len();
        one.told = new.end;
        new.for_each(|place| self.publish(Told::Queue(id, place)));
    }

    /// Numbers what is new in a received mail's timeline.
    pub(super) fn publish_received(&mut self, id: LedgerId) {
        let Some(one) = self.ledger.get_mut(&id) else { return };
        let new = one.told..one.timeline.len();
        one.told = new.end;
        new.for_each(|place| self.publish(Told::Ledger(id, place)));
    }

    /// Tells of a mailbox's health, if it took a turn.
    pub(super) fn publish_health(&mut self, at: Timestamp, before: &Health, after: &Health) {
        if let Some((what, detail)) = health_event(before, after) {
            self.publish(Told::Mailbox { at, mailbox: after.mailbox, what, detail });
        }
    }

    fn event(&self, number: EventNumber, told: &Told) -> Option<EventRecord> {
        match told {
            Told::Queue(id, place) => {
                let one = self.queue.get(id)?;
                let entry = one.timeline.get(*place)?;
                Some(EventRecord {
                    number,
                    at: entry.at,
                    subject: EventSubject::Queue(*id),
                    contract: Some(one.mail.contract.clone()),
                    mailbox: Some(one.mail.resolution.outbox),
                    recipient: entry.recipient,
                    what: entry.what.clone(),
                    state: entry.state.map(|state| state.to_string()),
                    detail: entry.detail.clone(),
                    actor: entry.actor.clone(),
                })
            }
            Told::Ledger(id, place) => {
                let one = self.ledger.get(id)?;
                let entry = one.timeline.get(*place)?;
                Some(EventRecord {
                    number,
                    at: entry.at,
                    subject: EventSubject::Ledger(*id),
                    contract: one.row.contract.clone(),
                    mailbox: Some(one.item.mailbox),
                    recipient: None,
                    what: entry.what.clone(),
                    state: entry.state.map(|state| state.to_string()),
                    detail: entry.detail.clone(),
                    actor: entry.actor.clone(),
                })
            }
            Told::Mailbox { at, mailbox, what, detail } => Some(EventRecord {
                number,
                at: *at,
                subject: EventSubject::Mailbox(*mailbox),
                contract: None,
                mailbox: Some(*mailbox),
                recipient: None,
                what: (*what).to_owned(),
                state: None,
                detail: detail.clone(),
                actor: None,
            }),
        }
    }
}

#[async_trait]
impl Events for MemoryStore {
    async fn events(&self, after: EventNumber, limit: u32) -> Result<Vec<EventRecord>> {
        let rows = self.rows();
        let behind = rows.events.range((Bound::Excluded(after), Bound::Unbounded));
        let events = behind.filter_map(|(number, told)| rows.event(*number, told));
        Ok(events.take(page(Some(limit))).collect())
    }
}
