//! What one call answers for others that wait: the bells of lines and lanes, which whoever looks for work answers first. What a bell is,
//! and how some of them are answered, a store says in its `lanes`.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use crate::error::Result;

/// How often the bells were answered in this process. What asks while others wait for an answer waits for the next one with them.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// How many were begun.
    begun: AtomicU64,
    /// The last that was given, and whether there were bells; held while one is.
    given: Mutex<(u64, bool)>,
}

impl Answers {
    /// Has every bell answered that was rung before this is called. `is_rung` looks whether there are any; `some` answers some, and says
    /// how many, at most `most`.
    pub(super) async fn give<L, S>(
        &self,
        is_rung: impl FnOnce() -> L + Send,
        some: impl Fn() -> S + Send + Sync,
        most: u64,
    ) -> Result<()>
    where
        L: Future<Output = Result<bool>> + Send,
        S: Future<Output = Result<u64>> + Send,
    {
        let before = self.begun.load(Ordering::SeqCst);
        let mut given = self.given.lock().await;
        // One that was begun after this was called has seen all that was committed before.
        if given.0 > before {
            return Ok(());
        }
        let this = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        // Whoever is busy is not asked first.
        let is_rung = given.1 || is_rung().await?;
        let mut taken = 0;
        while is_rung {
            let some = some().await?;
            taken += some;
            if some < most {
                break;
            }
        }
        *given = (this, taken > 0);
        Ok(())
    }
}
