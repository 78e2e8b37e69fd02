//! The lanes of this process: how many connections each outbox has, how many it may have by what was learned of its server, and
//! which lane gives way to another outbox. What is learned is forgotten with the process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use postroom_core::governor::{Consequence, Governor, Limited};
use postroom_core::id::{MailboxId, Revision};
use postroom_core::time::Timestamp;
use tokio::time::Instant;

/// What a lane and whoever opens lanes tell each other.
#[derive(Debug)]
pub(crate) struct Signs {
    /// By which settings of its outbox it was begun.
    revision: Revision,
    /// The lane has no mail in hand: no further one is opened beside it.
    hungry: AtomicBool,
    /// The lane is to end when its mail is finished.
    ends: OnceLock<Instant>,
    begun: Instant,
}

impl Signs {
    pub(crate) fn new(revision: Revision) -> Arc<Self> {
        let begun = Instant::now();
        Arc::new(Self { revision, hungry: AtomicBool::new(true), ends: OnceLock::new(), begun })
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    pub(crate) fn is_hungry(&self) -> bool {
        self.hungry.load(Ordering::SeqCst)
    }

    /// It has no mail in hand.
    pub(crate) fn hungers(&self) {
        self.hungry.store(true, Ordering::SeqCst);
    }

    /// It has one.
    pub(crate) fn eats(&self) {
        self.hungry.store(false, Ordering::SeqCst);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ends.get().is_some()
    }

    /// Whether it was told to end within this span; one that was told long ago has a server that hangs.
    pub(crate) fn was_told(&self, within: Duration) -> bool {
        self.ends.get().is_some_and(|at| at.elapsed() < within)
    }

    /// It ends when its mail is finished.
    pub(crate) fn end(&self) {
        let _ = self.ends.set(Instant::now());
    }
}

#[derive(Debug, Default)]
struct Outbox {
    /// The lanes that are open and not ending by the governor's word.
    open: u32,
    governor: Governor,
}

/// What is known of every outbox.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    outboxes: Mutex<HashMap<MailboxId, Outbox>>,
}

impl Lanes {
    fn lock(&self) -> MutexGuard<'_, HashMap<MailboxId, Outbox>> {
        self.outboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many connections an outbox may have that registers so many.
    pub(crate) fn most(&self, outbox: MailboxId, registered: u32) -> u32 {
        self.lock().get(&outbox).map_or(registered, |outbox| outbox.governor.connections(registered))
    }

    /// Counts a lane until what is given is dropped.
    pub(crate) fn enter(self: &Arc<Self>, outbox: MailboxId) -> Place {
        let mut outboxes = self.lock();
        let entry = outboxes.entry(outbox).or_default();
        entry.open = entry.open.saturating_add(1);
        Place { lanes: Arc::clone(self), outbox, left: AtomicBool::new(false) }
    }

    /// The server limits: what follows.
    pub(crate) fn limited(&self, outbox: MailboxId, now: Timestamp, limited: Limited) -> Consequence {
        let mut outboxes = self.lock();
        let entry = outboxes.entry(outbox).or_default();
        entry.governor.limited(now, limited, entry.open.max(1))
    }

    /// The server took a mail.
    pub(crate) fn succeeded(&self, outbox: MailboxId, now: Timestamp, registered: u32) {
        if let Some(entry) = self.lock().get_mut(&outbox) {
            entry.governor.succeeded(now, registered);
        }
    }
}

/// A lane's place among those of its outbox.
#[derive(Debug)]
pub(crate) struct Place {
    lanes: Arc<Lanes>,
    outbox: MailboxId,
    left: AtomicBool,
}

impl Place {
    /// Whether the lane is one too many by now. It then counts no more, and has to end: of two that ask, only as many leave as are
    /// too many.
    pub(crate) fn is_too_many(&self, registered: u32) -> bool {
        if self.left.load(Ordering::SeqCst) {
            return true;
        }
        let mut outboxes = self.lanes.lock();
        let Some(entry) = outboxes.get_mut(&self.outbox) else { return false };
        let too_many = entry.open > entry.governor.connections(registered);
        if too_many {
            self.left.store(true, Ordering::SeqCst);
            entry.open = entry.open.saturating_sub(1);
        }
        too_many
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.left.load(Ordering::SeqCst)
            && let Some(entry) = self.lanes.lock().get_mut(&self.outbox)
        {
            entry.open = entry.open.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_cut_as_many_lanes_leave_as_are_too_many() {
        let (lanes, outbox) = (Arc::new(Lanes::default()), MailboxId::new(1));
        let now = Timestamp::from_millis(1_800_000_000_000);
        let mut places: Vec<Place> = (0..8).map(|_| lanes.enter(outbox)).collect();
        assert!(!places.iter().any(|place| place.is_too_many(8)));
        assert_eq!(lanes.limited(outbox, now, Limited::Connections), Consequence::GoOn);
        // The one that was refused ends by itself.
        places.pop();
        assert_eq!(places.iter().filter(|place| place.is_too_many(8)).count(), 3);
        assert_eq!(
            places.iter().filter(|place| place.is_too_many(8)).count(),
            3,
            "and no more when asked again"
        );
        drop(places);
        assert_eq!((lanes.most(outbox, 8), lanes.most(MailboxId::new(2), 8)), (4, 8));
    }
}
