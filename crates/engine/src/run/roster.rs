//! The roster: which inboxes this process reads. It takes leases by its share, says that it is alive, ends what it should not read
//! any more, and gives back what it has too much of. Each inbox is a task of its own: one that hangs or panics holds up no other.

use std::collections::HashMap;
use std::sync::Arc;

use postroom_core::failure::Failure;
use postroom_core::id::{MailboxId, WorkerId};
use postroom_core::time::Timestamp;
use postroom_storage::{Held, Portion, Release, Watches};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use crate::charge::{Alive, Charge};
use crate::error::Result;
use crate::postroom::random;
use crate::watch::{Until, Watched, watch};
use crate::worker::Worker;

/// How many inboxes are taken in one transaction.
const TOGETHER: u32 = 500;

/// An idle process looks for inboxes that came free, or that another process registered, after so many looks for mail.
const LOOKS: u32 = 5;

struct Roster {
    worker: Arc<Worker>,
    until: Until,
    name: WorkerId,
    alive: Arc<Alive>,
    charges: HashMap<MailboxId, Arc<Charge>>,
    tasks: JoinSet<Watched>,
    running: HashMap<Id, Arc<Charge>>,
    /// What is to be given back.
    back: Vec<Release>,
}

/// Reads this process's inboxes until the worker stops; with [`Until::Read`] until each that is due was read once, by whomever.
///
/// # Errors
/// With [`Until::Read`] those of the store; otherwise none.
pub(super) async fn keep(worker: Arc<Worker>, until: Until) -> Result<()> {
    let name = WorkerId::new(worker.postroom.now(), random()?);
    let alive = Alive::new(worker.lease);
    let (charges, tasks, running) = (HashMap::new(), JoinSet::new(), HashMap::new());
    let mut roster = Roster { worker, until, name, alive, charges, tasks, running, back: Vec::new() };
    let done = roster.run().await;
    roster.end().await;
    done
}

impl Roster {
    fn watches(&self) -> &dyn Watches {
        self.worker.postroom.store()
    }

    async fn run(&mut self) -> Result<()> {
        let look = self.worker.postroom.ports.options.look;
        let (begun, began_at) = (Instant::now(), self.worker.postroom.now());
        let (mut renews, mut takes) = (Instant::now() + self.worker.lease / 3, Instant::now());
        while !self.worker.is_stopping() {
            let now = Instant::now();
            if let Some(rest) = self.worker.store_rests().filter(|_| self.until == Until::Ended) {
                (renews, takes) = (renews.max(now + rest), takes.max(now + rest));
            }
            if renews <= now {
                let renewed = self.renew().await;
                renews = now + if renewed.is_ok() { self.worker.lease / 3 } else { self.worker.lease / 10 };
                self.judge(renewed)?;
            }
            if takes <= now {
                let may_end = self.until == Until::Read && self.tasks.is_empty();
                // Asked before, not after: what came free in between would be taken by nobody.
                let waits = may_end
                    && begun.elapsed() < self.worker.lease
                    && self.others_may_be_dead(began_at).await?;
                let taken = self.take().await;
                let some = taken.as_ref().is_ok_and(|taken| *taken > 0);
                takes = now + if some || self.until == Until::Read { look } else { look * LOOKS };
                self.judge(taken)?;
                if may_end && !some && !waits {
                    return Ok(());
                }
            }
            let next = renews.min(takes);
            let worker = Arc::clone(&self.worker);
            tokio::select! {
                Some(done) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => {
                    self.note(done).await;
                    if self.until == Until::Read && self.tasks.is_empty() {
                        takes = Instant::now();
                    }
                }
                // Settings have changed here: what they are is asked at once.
                () = worker.postroom.ports.changed.notified() => (renews, takes) = (Instant::now(), Instant::now()),
                () = worker.rest(next.saturating_duration_since(Instant::now())) => {}
            }
        }
        Ok(())
    }

    /// Reports an error of the store; gives it where the host waits for an end.
    fn judge<T>(&self, result: Result<T>) -> Result<()> {
        match result {
            Ok(_) => Ok(()),
            Err(error) if self.until == Until::Read => Err(error),
            Err(error) => {
                self.worker.store_failed(&error);
                Ok(())
            }
        }
    }

    async fn take(&mut self) -> Result<usize> {
        let now = self.worker.postroom.now();
        let asked = Instant::now();
        let until = self.worker.until(now);
        // Who reads all once and leaves does not wait for those who may be dead: until that is known they count, and take nothing.
        let portion = match self.until {
            Until::Read => Portion::All,
            Until::Ended => Portion::Share,
        };
        let taken = self.watches().take(now, self.name, TOGETHER, portion, until).await?;
        // What it said of itself counts as a renewal only where nothing that it had ran out before.
        if self.charges.is_empty() {
            self.alive.renewed(asked);
        }
        for lease in &taken {
            let charge = Charge::new(*lease, Arc::clone(&self.alive));
            if let Some(former) = self.charges.insert(lease.mailbox, Arc::clone(&charge)) {
                former.end();
            }
            let watched = watch(Arc::clone(&self.worker), Arc::clone(&charge), self.until);
            let task = self.tasks.spawn(watched);
            self.running.insert(task.id(), charge);
        }
        Ok(taken.len())
    }

    async fn renew(&mut self) -> Result<()> {
        let now = self.worker.postroom.now();
        let asked = Instant::now();
        let until = self.worker.until(now);
        let readings = self.alive.take_readings();
        let renewal = match self.watches().renew(now, self.name, until, &readings).await {
            Ok(renewal) => renewal,
            Err(error) => {
                self.alive.put_back(readings);
                return Err(error.into());
            }
        };
        let Some(renewal) = renewal else {
            // The process was paused, or the store away, for longer than the lease: others may have everything by now.
            tracing::warn!(target: "postroom", "the leases of all inboxes ran out: they are taken anew");
            self.charges.drain().for_each(|(_, charge)| charge.end());
            self.back.clear();
            self.name = WorkerId::new(now, random()?);
            self.alive = Alive::new(self.worker.lease);
            return Ok(());
        };
        self.alive.renewed(asked);
        let held: HashMap<MailboxId, Held> =
            renewal.held.into_iter().map(|held| (held.lease.mailbox, held)).collect();
        for (id, charge) in &self.charges {
            match held.get(id) {
                Some(held) if held.lease == charge.lease && !charge.is_outdated(held.revision) => {}
                _ => charge.end(),
            }
        }
        // A lease whose answer was lost has no reader here.
        let unknown = held.values().filter(|held| !self.charges.contains_key(&held.lease.mailbox));
        self.back.extend(unknown.map(|held| Release { lease: held.lease, due_at: None }));
        self.give_back().await?;
        if self.until == Until::Read {
            return Ok(());
        }
        let most = usize::try_from(renewal.share).unwrap_or(usize::MAX);
        let beyond = self.charges.len().saturating_sub(most);
        // No faster than the others can connect to them, so that none is without a reader for long.
        let at_once =
            u64::from(self.worker.postroom.ports.options.pacing.per_second) * self.worker.lease.as_secs() / 3;
        let at_once = usize::try_from(at_once).unwrap_or(usize::MAX).max(1);
        self.charges.values().take(beyond.min(at_once)).for_each(|charge| charge.end());
        Ok(())
    }

    /// Takes note of a reader that ended: its inbox is given back, unless the run ends when all were read and this one was.
    async fn note(&mut self, done: std::result::Result<(Id, Watched), JoinError>) {
        let (id, watched, panicked) = match &done {
            Ok((id, watched)) => (*id, *watched, false),
            Err(error) => (error.id(), Watched::Done, true),
        };
        let Some(charge) = self.running.remove(&id) else { return };
        let mailbox = charge.lease.mailbox;
        if panicked {
            let error = "reading it ended by a panic, which is a fault of postroom; report it with the log"
                .to_owned();
            self.worker.fails(mailbox, Failure::RetryAfter(None), error).await;
        }
        // A newer lease of the same inbox may have its own reader by now.
        if self.charges.get(&mailbox).is_none_or(|current| current.lease != charge.lease) {
            return;
        }
        if self.until == Until::Read && watched == Watched::Done {
            return;
        }
        self.charges.remove(&mailbox);
        self.back.push(Release { lease: charge.lease, due_at: None });
        if let Err(error) = self.give_back().await {
            self.worker.store_failed(&error);
        }
    }

    /// Gives back what has no reader here; what could not be given back is tried again with the next renewal.
    async fn give_back(&mut self) -> Result<()> {
        if !self.back.is_empty() {
            self.watches().release(self.name, &self.back).await?;
            self.back.clear();
        }
        Ok(())
    }

    /// Whether somebody else has inboxes that was not heard of since this run began: it may be a process that was killed just
    /// before, whose inboxes come free within its lease.
    async fn others_may_be_dead(&self, began_at: Timestamp) -> Result<bool> {
        let known = self.watches().watches(self.worker.postroom.now(), None).await?;
        let silent =
            |until: Option<Timestamp>| until.is_some_and(|until| until <= began_at + self.worker.lease);
        Ok(known.iter().any(|one| one.watcher.is_some_and(|other| other != self.name) && silent(one.until)))
    }

    /// Lets every reader say goodbye, and gives all back.
    async fn end(mut self) {
        self.running.values().for_each(|charge| charge.end());
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(self.worker.postroom.ports.options.grace / 2, ended).await;
        self.tasks.shutdown().await;
        let readings = self.alive.take_readings();
        let now = self.worker.postroom.now();
        let until = self.worker.until(now);
        let left = async {
            if !readings.is_empty() {
                self.watches().renew(now, self.name, until, &readings).await?;
            }
            self.watches().leave(self.name).await
        };
        if let Err(error) = left.await {
            tracing::warn!(target: "postroom", "the inboxes come free when their leases run out: {error}");
        }
    }
}
