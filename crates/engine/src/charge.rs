//! A charge: the lease of one inbox as its reader has it, and what the reader and the roster of all readers tell each other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postroom_core::id::{MailboxId, Revision};
use postroom_core::time::Timestamp;
use postroom_storage::{Reading, WatchLease, Way};
use tokio::sync::Notify;
use tokio::time::Instant;

/// One name under which this process reads inboxes, for as long as it is surely alive.
#[derive(Debug)]
pub(crate) struct Alive {
    /// When it was last said, before that was stored.
    since: Mutex<Instant>,
    lease: Duration,
    /// What was read since the last renewal, once for each lease, by its inbox and fence.
    readings: Mutex<BTreeMap<(MailboxId, u64), Reading>>,
}

impl Alive {
    pub(crate) fn new(lease: Duration) -> Arc<Self> {
        Arc::new(Self { since: Mutex::new(Instant::now()), lease, readings: Mutex::default() })
    }

    /// The store knows, as of `asked`.
    pub(crate) fn renewed(&self, asked: Instant) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = asked;
    }

    /// Whether its leases are surely held, by the monotonic clock and with a margin of a tenth. A process that was paused finds
    /// out here.
    fn is_sure(&self) -> bool {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.elapsed() < self.lease - self.lease / 10
    }

    /// What was read since the last call.
    pub(crate) fn take_readings(&self) -> Vec<Reading> {
        let readings = std::mem::take(&mut *self.readings.lock().unwrap_or_else(PoisonError::into_inner));
        readings.into_values().collect()
    }

    /// Gives readings back that could not be stored. What was read since is newer.
    pub(crate) fn put_back(&self, readings: Vec<Reading>) {
        let mut later = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        for reading in readings {
            later.entry((reading.lease.mailbox, reading.lease.fence)).or_insert(reading);
        }
    }
}

/// The lease of one inbox.
#[derive(Debug)]
pub(crate) struct Charge {
    pub(crate) lease: WatchLease,
    alive: Arc<Alive>,
    /// By which settings it is read; 0 before it is known.
    revision: AtomicI64,
    ending: AtomicBool,
    end: Notify,
}

impl Charge {
    pub(crate) fn new(lease: WatchLease, alive: Arc<Alive>) -> Arc<Self> {
        let (revision, ending) = (AtomicI64::new(0), AtomicBool::new(false));
        Arc::new(Self { lease, alive, revision, ending, end: Notify::new() })
    }

    /// Whether the inbox is surely its reader's. Asked after each listing and before anything that follows from it is written or
    /// told to the server: what is written then was true while the lease lasted, also when the process is paused in between.
    pub(crate) fn holds(&self) -> bool {
        self.alive.is_sure()
    }

    /// Has the reader end, politely.
    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
        self.end.notify_one();
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// Waits until the reader is to end.
    pub(crate) async fn ended(&self) {
        while !self.is_ending() {
            self.end.notified().await;
        }
    }

    pub(crate) fn reads_by(&self, revision: Revision) {
        self.revision.store(revision.number(), Ordering::SeqCst);
    }

    /// Whether it is read by other settings than these.
    pub(crate) fn is_outdated(&self, revision: Revision) -> bool {
        let read_by = self.revision.load(Ordering::SeqCst);
        read_by != 0 && read_by != revision.number()
    }

    /// Takes note that ledger and server agree, for the next renewal.
    pub(crate) fn read(&self, read_at: Timestamp, way: Way) {
        let reading = Reading { lease: self.lease, read_at, way };
        let mut readings = self.alive.readings.lock().unwrap_or_else(PoisonError::into_inner);
        // One that was read often since the last renewal is one row.
        readings.insert((self.lease.mailbox, self.lease.fence), reading);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_was_paused_past_its_lease_holds_nothing_until_the_store_knows() {
        let alive = Alive::new(Duration::from_secs(30));
        let charge = Charge::new(WatchLease { mailbox: MailboxId::new(1), fence: 1 }, Arc::clone(&alive));
        tokio::time::advance(Duration::from_secs(26)).await;
        assert!(charge.holds());
        // Before the lease ends by the store's clock: a margin is kept.
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!charge.holds());
        alive.renewed(Instant::now());
        assert!(charge.holds());
    }

    #[tokio::test]
    async fn who_is_told_to_end_before_he_listens_hears_it() {
        let charge =
            Charge::new(WatchLease { mailbox: MailboxId::new(1), fence: 1 }, Alive::new(Duration::ZERO));
        charge.end();
        charge.ended().await;
        charge.ended().await;
    }
}
