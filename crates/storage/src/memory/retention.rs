//! Retention in memory: what of finished mail is removed.

use std::time::Duration;

use postroom_core::contract::Retention;
use postroom_core::id::QueueId;
use postroom_core::queue::State;
use postroom_core::time::Timestamp;

use super::rows::{QueuedMail, Rows, Told, count, page};
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

    pub(super) fn prune(&mut self, now: Timestamp, limit: u32) -> Pruned {
        let limit = page(Some(limit));
        let has_failed =
            |one: &QueuedMail| matches!(one.row.state(), State::Refused | State::Expired | State::Dead);
        let mails = self.over(now, limit, |one, kept| {
            Some(days(if has_failed(one) { kept.dead } else { kept.timelines }).max(KEYS_KEPT))
        });
        for id in &mails {
            let Some(one) = self.queue.remove(id) else { continue };
            self.bodies.remove(&one.body);
            self.keys.retain(|_, mail| mail != id);
            if let Some(ids) = self.message_ids.get_mut(&one.mail.message_id) {
                ids.retain(|other| other != id);
            }
            self.events.retain(|_, told| !matches!(told, Told::Queue(mail, _) if mail == id));
        }
        let contents = self.over(now, limit, |one, kept| {
            let has_content = self.bodies.contains_key(&one.body);
            (has_content && !has_failed(one)).then(|| days(kept.bodies))
        });
        for id in &contents {
            let body = self.queue.get(id).map(|one| one.body);
            body.and_then(|body| self.bodies.remove(&body));
        }
        let old = |told: &Told| matches!(told, Told::Mailbox { at, .. } if *at + days(Retention::default().timelines) <= now);
        let events: Vec<_> =
            self.events.iter().filter(|(_, told)| old(told)).map(|(number, _)| *number).collect();
        let events = &events[..events.len().min(limit)];
        events.iter().for_each(|number| drop(self.events.remove(number)));
        Pruned { bodies: count(contents.iter()), mails: count(mails.iter()), events: count(events.iter()) }
    }
}
