//! Maintain: what keeps the queue honest between dispatches. Claims of dead workers end, mail whose time ran out expires,
//! held mail whose outbox is usable goes on, contents that no row refers to are swept away, parked connections are closed in time, and
//! retention prunes what is finished; and recovery, after a database was restored.

use std::time::Duration;

use postroom_core::id::Actor;
use postroom_core::time::Timestamp;
use postroom_storage::{Bodies, LedgerDesk, LedgerPruned, Pruned, QueueDesk, QueueWork, Recovered, Sweep};
use tokio::time::Instant;

use crate::error::Result;
use crate::postroom::Postroom;
use crate::worker::Worker;

/// How often claims and expiries are looked at, at least.
const ROUND: Duration = Duration::from_secs(5);
/// How old a staged content is before it counts as abandoned.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);
/// How many mails one transaction of a pruning removes: nobody who writes waits for a long one.
const PRUNED: u32 = 100;

impl Postroom {
    /// Ends claims whose lease ran out and mails whose time ran out. A running worker does this by itself.
    ///
    /// # Errors
    /// Of the store.
    pub async fn expire(&self) -> Result<Sweep> {
        let work: &dyn QueueWork = self.store();
        Ok(work.expire(self.now()).await?)
    }

    /// Removes staged contents that nothing refers to and that are more than a day old. Gives how many.
    ///
    /// # Errors
    /// Of the store.
    pub async fn sweep_bodies(&self) -> Result<u64> {
        let bodies: &dyn Bodies = self.store();
        Ok(bodies.sweep(self.now() - ABANDONED).await?)
    }

    /// Removes of finished mail what its contract's retention no longer keeps, in short transactions. Gives what it removed. A
    /// running worker does this by itself, each hour.
    ///
    /// # Errors
    /// Of the store; what was removed before stays removed.
    pub async fn prune_sent(&self) -> Result<Pruned> {
        self.prune_sent_until(|| false).await
    }

    async fn prune_sent_until(&self, is_enough: impl Fn() -> bool) -> Result<Pruned> {
        let desk: &dyn QueueDesk = self.store();
        let mut total = Pruned::default();
        loop {
            let pruned = desk.prune(self.now(), PRUNED).await?;
            if pruned == Pruned::default() {
                return Ok(total);
            }
            total.bodies += pruned.bodies;
            total.mails += pruned.mails;
            total.events += pruned.events;
            if is_enough() {
                return Ok(total);
            }
        }
    }

    /// Removes of received mail that is finished what its contract's retention no longer keeps, in short transactions; the key stays, so
    /// that it is known when its server shows it. Gives what it removed. A running worker does this by itself, each hour.
    ///
    /// # Errors
    /// Of the store; what was removed before stays removed.
    pub async fn prune_received(&self) -> Result<LedgerPruned> {
        self.prune_received_until(|| false).await
    }

    async fn prune_received_until(&self, is_enough: impl Fn() -> bool) -> Result<LedgerPruned> {
        let desk: &dyn LedgerDesk = self.store();
        let mut total = LedgerPruned::default();
        loop {
            let pruned = desk.prune(self.now(), PRUNED).await?;
            total.bodies += pruned.bodies;
            total.mails += pruned.mails;
            if pruned == LedgerPruned::default() || is_enough() {
                return Ok(total);
            }
        }
    }

    /// Puts what was unfinished at `since`, the time of a backup, in doubt, after the database was restored from it: it may have
    /// been sent since then, so nothing of it is sent again by itself, and a person or the Sent folder settles it. Also mail that
    /// says resend: a restore is no lost reply. Mail that was submitted afterwards goes on.
    ///
    /// Stop the workers first: what a live worker has in hand is left alone and counted as busy; call it again then. What was
    /// finished between backup and failure is unfinished again in the backup, and so in doubt. The boxes are not looked at:
    /// received mail is fetched again by its keys.
    ///
    /// # Errors
    /// Of the store; what was put in doubt before stays so, and the call can be repeated.
    pub async fn recover(&self, actor: &Actor, since: Timestamp) -> Result<Recovered> {
        let desk: &dyn QueueDesk = self.store();
        let recovered = desk.recover(self.now(), actor, since).await?;
        self.ports.bell.notify_one();
        Ok(recovered)
    }
}

/// Maintains until the worker stops.
pub(crate) async fn maintain(worker: &Worker) {
    let mut rounds = 0_u32;
    while !worker.is_stopping() {
        match worker.postroom.expire().await {
            Ok(sweep) if sweep.doubted > 0 => worker.doubts(),
            Ok(sweep) if sweep != Sweep::default() => worker.postroom.ports.bell.notify_one(),
            Ok(_) => {}
            Err(error) => worker.store_failed(&error),
        }
        // Once at the start and then each hour.
        if rounds.is_multiple_of(720) {
            let tidied = match worker.postroom.release_all().await {
                Ok(_) => worker.postroom.sweep_bodies().await,
                Err(error) => Err(error),
            };
            let tidied = match tidied {
                Ok(_) => worker.postroom.prune_sent_until(|| worker.is_stopping()).await.map(drop),
                Err(error) => Err(error),
            };
            if let Err(error) = tidied {
                worker.store_failed(&error);
            }
        }
        rounds = rounds.wrapping_add(1);
        worker.rest(ROUND.min(worker.lease / 2)).await;
    }
}

/// Has connections that are parked for too long closed, until the worker stops.
pub(crate) async fn close_idle(worker: &Worker) {
    let Some(outgoing) = &worker.postroom.ports.outgoing else { return };
    while !worker.is_stopping() {
        outgoing.close_idle().await;
        worker.rest(ROUND).await;
    }
}

/// How often what retention no longer keeps of received mail is removed.
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Removes what retention no longer keeps of received mail, until the worker stops.
pub(crate) async fn maintain_ledger(worker: &Worker) {
    let mut pruned: Option<Instant> = None;
    while !worker.is_stopping() {
        if pruned.is_none_or(|at| at.elapsed() >= HOUR) {
            if let Err(error) = worker.postroom.prune_received_until(|| worker.is_stopping()).await {
                worker.store_failed(&error);
            }
            pruned = Some(Instant::now());
        }
        worker.rest(ROUND).await;
    }
}
