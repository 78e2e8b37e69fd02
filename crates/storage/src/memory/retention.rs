//! Retention in memory: what of finished mail is removed.

use std::time::Duration;

use postroom_core::contract::Retention;
use postroom_core::id::{LedgerId, QueueId};
use postroom_core::ledger::State as Received;
use postroom_core::queue::State;
use postroom_core::time::Timestamp;

use super::rows::{QueuedMail, Rows, StoredMail, Told, count, page};
use crate::ledger::LedgerPruned;
use crate::queue::{KEYS_KEPT, Pruned};

fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 24 * 60 * 60)
}

impl Rows {
    /// The finished mails that `kept` no longer keeps, at most so many.
    fn over(
        &self,
        now: Timestamp,
        limit: usize,
        kept: impl Fn(&QueuedMail, Retention) -> Option<Duration>,
    ) -> Vec<QueueId> {
        let is_over = |one: &&QueuedMail| {
            let contract = self.contracts.get(&one.mail.contract);
            let retention = contract.map(|contract| contract.retention).unwrap_or_default();
            one.finished_at.zip(kept(one, retention)).is_some_and(|(at, kept)| at + kept <= now)
        };
        self.queue.values().filter(is_over).take(limit).map(|one| one.mail.id).collect()
    }

    /// Removes a sent mail with all that belongs to it.
    pub(super) fn remove_mail(&mut self, id: QueueId) {
        let Some(one) = self.queue.remove(&id) else { return };
        self.bodies.remove(&one.body);
        self.keys.retain(|_, mail| *mail != id);
        if let Some(ids) = self.message_ids.get_mut(&one.mail.message_id) {
            ids.retain(|other| *other != id);
        }
        self.remove_events(id);
    }

    pub(super) fn remove_content(&mut self, id: QueueId) {
        let body = self.queue.get(&id).map(|one| one.body);
        body.and_then(|body| self.bodies.remove(&body));
    }

    pub(super) fn remove_events(&mut self, id: QueueId) {
        self.events.retain(|_, told| !matches!(told, Told::Queue(mail, _) if *mail == id));
    }

    /// Leaves the key alone of a received mail.
    pub(super) fn strip_received(&mut self, id: LedgerId) {
        let Some(one) = self.ledger.get_mut(&id) else { return };
        one.is_bare = true;
        one.timeline.clear();
        one.told = 0;
        let item = &mut one.item;
        (item.sender, item.subject) = (String::new(), String::new());
        (item.message_id, item.record) = (None, None);
        one.row.body.take().and_then(|body| self.bodies.remove(&body));
        self.events.retain(|_, told| !matches!(told, Told::Ledger(mail, _) if *mail == id));
    }

    pub(super) fn prune(&mut self, now: Timestamp, limit: u32) -> Pruned {
        let limit = page(Some(limit));
        let has_failed =
            |one: &QueuedMail| matches!(one.row.state(), State::Refused | State::Expired | State::Dead);
        let mails = self.over(now, limit, |one, kept| {
            Some(days(if has_failed(one) { kept.dead } else { kept.timelines }).max(KEYS_KEPT))
        });
        mails.iter().for_each(|id| self.remove_mail(*id));
        let contents = self.over(now, limit, |one, kept| {
            let has_content = self.bodies.contains_key(&one.body);
            (has_content && !has_failed(one)).then(|| days(kept.bodies))
        });
        contents.iter().for_each(|id| self.remove_content(*id));
        let old = |told: &Told| matches!(told, Told::Mailbox { at, .. } if *at + days(Retention::default().timelines) <= now);
        let events: Vec<_> =
            self.events.iter().filter(|(_, told)| old(told)).map(|(number, _)| *number).collect();
        let events = &events[..events.len().min(limit)];
        events.iter().for_each(|number| drop(self.events.remove(number)));
        Pruned { bodies: count(contents.iter()), mails: count(mails.iter()), events: count(events.iter()) }
    }

    /// The finished received mails that `kept` no longer keeps, at most so many.
    fn received_over(
        &self,
        now: Timestamp,
        limit: usize,
        kept: impl Fn(&StoredMail, Retention) -> Option<u32>,
    ) -> Vec<LedgerId> {
        let is_over = |one: &&StoredMail| {
            let contract = one.row.contract.as_ref().and_then(|contract| self.contracts.get(contract));
            let retention = contract.map(|contract| contract.retention).unwrap_or_default();
            let ends = one.row.finished_at.zip(kept(one, retention)).map(|(at, kept)| at + days(kept));
            ends.is_some_and(|at| at <= now)
        };
        self.ledger.values().filter(is_over).take(limit).map(|one| one.item.id).collect()
    }

    pub(super) fn prune_received(&mut self, now: Timestamp, limit: u32) -> LedgerPruned {
        let limit = page(Some(limit));
        let is_dead = |one: &StoredMail| one.row.state == Received::Dead;
        let mails = self.received_over(now, limit, |one, kept| {
            (!one.is_bare).then_some(if is_dead(one) { kept.dead } else { kept.timelines })
        });
        mails.iter().for_each(|id| self.strip_received(*id));
        let contents = self.received_over(now, limit, |one, kept| {
            (one.row.body.is_some() && !is_dead(one)).then_some(kept.raw)
        });
        for id in &contents {
            let body = self.ledger.get_mut(id).and_then(|one| one.row.body.take());
            body.and_then(|body| self.bodies.remove(&body));
        }
        LedgerPruned { bodies: count(contents.iter()), mails: count(mails.iter()) }
    }
}
