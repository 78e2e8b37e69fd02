//! Maintain: what keeps the queue honest between dispatches. Claims of dead workers end, mail whose time ran out expires,
//! held mail whose outbox is usable goes on, contents that no row refers to are swept away.

use std::time::Duration;

use postroom_storage::{Bodies, QueueWork, Sweep};

use crate::error::Result;
use crate::postroom::Postroom;
use crate::worker::Worker;

/// How often claims and expiries are looked at, at least.
const ROUND: Duration = Duration::from_secs(5);
/// How old a staged content is before it counts as abandoned.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

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
}

/// Maintains until the worker stops.
pub(crate) async fn maintain(worker: &Worker) {
    let mut rounds = 0_u32;
    while !worker.is_stopping() {
        match worker.postroom.expire().await {
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
            if let Err(error) = tidied {
                worker.store_failed(&error);
            }
        }
        rounds = rounds.wrapping_add(1);
        worker.rest(ROUND.min(worker.lease / 2)).await;
    }
}
