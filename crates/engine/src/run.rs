//! Run: the one future that owns every task of a worker, and ends when they have ended.

mod roster;
mod turn;
mod work;

pub use work::Work;

use std::sync::Arc;

use crate::error::Result;
use crate::postroom::Postroom;
use crate::worker::Worker;
use turn::Turn;

impl Postroom {
    /// Works until `shutdown` ends: sends what is queued, fetches what arrives, hands it to the handler.
    ///
    /// When `shutdown` ends, mails in hand are finished within the grace period; what is not finished by then is in doubt
    /// or queued, as its mark says.
    ///
    /// # Errors
    /// None. Failures of servers and of the store are recorded, observed and tried again.
    ///
    /// # Cancel safety
    /// When the future is dropped every task ends at once, as if the process was killed: nothing is lost, and a mail
    /// whose final dot was sent shows as in doubt after its lease.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) -> Result<()> {
        self.run_with(Work::all(), shutdown).await
    }

    /// As [`Postroom::run`], for a part of the work, or until nothing is left to do.
    ///
    /// # Errors
    /// As [`Postroom::run`]; with [`Work::until_idle`] also when the store can't be read.
    pub async fn run_with(&self, work: Work, shutdown: impl Future<Output = ()>) -> Result<()> {
        let worker = Arc::new(Worker::new(self.clone()));
        let mut turn = Turn::new(worker, work);
        turn.start_upkeep();
        tokio::pin!(shutdown);
        let ended = loop {
            let idle = match turn.begin_what_is_due().await {
                Ok(idle) => idle,
                Err(error) if work.until_idle => break Err(error),
                Err(error) => {
                    turn.worker.store_failed(&error);
                    false
                }
            };
            if idle && work.until_idle {
                break Ok(());
            }
            // Who was rung for meanwhile looks again after a short breath: a burst of submissions is one look, not one each.
            let rung = std::pin::pin!(self.ports.bell.notified()).enable();
            let nap = if rung { turn.breath() } else { turn.nap().await };
            tokio::select! {
                () = &mut shutdown => break Ok(()),
                Some(done) = turn.tasks.join_next_with_id(), if !turn.tasks.is_empty() => turn.note(done),
                () = self.ports.bell.notified(), if !rung => {}
                () = tokio::time::sleep(nap) => {}
            }
        };
        turn.end(self.ports.options.grace).await;
        ended
    }
}
