//! Who reads which inbox, in memory.

use async_trait::async_trait;
use postroom_core::id::{MailboxId, WorkerId};
use postroom_core::mailbox::{Kind, Status};
use postroom_core::time::Timestamp;

use super::rows::{Rows, WatchRow, WatchRows, count, page};
use super::store::MemoryStore;
use crate::error::Result;
use crate::watches::{Held, Portion, Reading, Release, Renewal, Watch, WatchLease, Watches, share};

impl WatchRows {
    fn of(&mut self, watcher: WorkerId, lease: WatchLease) -> Option<&mut WatchRow> {
        let row = self.watches.get_mut(&lease.mailbox)?;
        (row.watcher == Some(watcher) && row.fence == lease.fence).then_some(row)
    }

    fn end(&mut self, watcher: WorkerId) {
        self.watchers.remove(&watcher);
        let held = self.watches.values_mut().filter(|row| row.watcher == Some(watcher));
        held.for_each(|row| row.watcher = None);
    }

    fn held_by(&self, watcher: WorkerId) -> impl Iterator<Item = (&MailboxId, &WatchRow)> {
        self.watches.iter().filter(move |(_, row)| row.watcher == Some(watcher))
    }
}

impl Rows {
    /// The inboxes that may be read.
    fn readable(&self) -> impl Iterator<Item = MailboxId> {
        let of = self.mailboxes.values().filter(|mailbox| {
            let suspended = self.health.get(&mailbox.id).is_some_and(|health| health.suspended);
            mailbox.settings.kind() == Kind::Inbox && mailbox.status == Status::Active && !suspended
        });
        of.map(|mailbox| mailbox.id)
    }

    fn share(&self) -> u32 {
        share(count(self.readable()), count(self.watching.watchers.keys()))
    }

    fn bury(&mut self, now: Timestamp) {
        let dead = self.watching.watchers.iter().filter(|(_, until)| **until <= now);
        let dead: Vec<WorkerId> = dead.map(|(watcher, _)| *watcher).collect();
        dead.into_iter().for_each(|watcher| self.watching.end(watcher));
    }
}

#[async_trait]
impl Watches for MemoryStore {
    async fn take(
        &self,
        now: Timestamp,
        watcher: WorkerId,
        limit: u32,
        portion: Portion,
        until: Timestamp,
    ) -> Result<Vec<WatchLease>> {
        let mut rows = self.rows();
        rows.bury(now);
        rows.watching.watchers.insert(watcher, until);
        let room = match portion {
            Portion::Share => page(Some(rows.share())).saturating_sub(rows.watching.held_by(watcher).count()),
            Portion::All => usize::MAX,
        };
        let is_due = |id: &MailboxId| {
            let rests =
                rows.health.get(id).and_then(|health| health.next_attempt).is_some_and(|next| next > now);
            let row = rows.watching.watches.get(id);
            !rests && row.is_none_or(|row| row.watcher.is_none() && row.due_at.is_none_or(|due| due <= now))
        };
        let mut due: Vec<MailboxId> = rows.readable().filter(is_due).collect();
        due.sort_by_key(|id| rows.watching.watches.get(id).and_then(|row| row.read_at));
        due.truncate(room.min(page(Some(limit))));
        let take = |mailbox: MailboxId| {
            let row = rows.watching.watches.entry(mailbox).or_default();
            (row.watcher, row.due_at) = (Some(watcher), None);
            row.fence += 1;
            WatchLease { mailbox, fence: row.fence }
        };
        Ok(due.into_iter().map(take).collect())
    }

    async fn renew(
        &self,
        now: Timestamp,
        watcher: WorkerId,
        until: Timestamp,
        readings: &[Reading],
    ) -> Result<Option<Renewal>> {
        let mut rows = self.rows();
        match rows.watching.watchers.get_mut(&watcher) {
            Some(alive) if *alive > now => *alive = until,
            _ => return Ok(None),
        }
        rows.bury(now);
        for reading in readings {
            if let Some(row) = rows.watching.of(watcher, reading.lease) {
                (row.read_at, row.way) = (Some(reading.read_at), Some(reading.way));
            }
        }
        let held = rows.readable().filter_map(|mailbox| {
            let row = rows.watching.watches.get(&mailbox).filter(|row| row.watcher == Some(watcher))?;
            let revision = rows.mailboxes.get(&mailbox)?.revision;
            Some(Held { lease: WatchLease { mailbox, fence: row.fence }, revision })
        });
        Ok(Some(Renewal { held: held.collect(), share: rows.share() }))
    }

    async fn release(&self, watcher: WorkerId, leases: &[Release]) -> Result<()> {
        let mut rows = self.rows();
        for release in leases {
            if let Some(row) = rows.watching.of(watcher, release.lease) {
                (row.watcher, row.due_at) = (None, release.due_at);
            }
        }
        Ok(())
    }

    async fn leave(&self, watcher: WorkerId) -> Result<()> {
        self.rows().watching.end(watcher);
        Ok(())
    }

    async fn watches(&self, now: Timestamp, mailbox: Option<MailboxId>) -> Result<Vec<Watch>> {
        let rows = self.rows();
        let asked = rows.watching.watches.iter().filter(|(id, _)| mailbox.is_none_or(|of| of == **id));
        let watch = asked.map(|(id, row)| {
            let until = row.watcher.and_then(|watcher| rows.watching.watchers.get(&watcher)).copied();
            let until = until.filter(|until| *until > now);
            let watcher = row.watcher.filter(|_| until.is_some());
            Watch { mailbox: *id, watcher, until, way: row.way, read_at: row.read_at, due_at: row.due_at }
        });
        Ok(watch.collect())
    }
}
