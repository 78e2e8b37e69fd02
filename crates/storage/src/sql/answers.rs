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
        if is_rung {
            loop {
                let some = some().await?;
                taken += some;
                if some < most {
                    break;
                }
            }
        }
        *given = (this, taken > 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Would miss a caller that is content with an answer that was begun before it asked, and one that answers again what another has
    /// answered for it.
    #[tokio::test]
    async fn who_asks_while_others_wait_shares_the_next_answer() {
        let (answers, given) = (Answers::default(), AtomicU64::new(0));
        let some = async || {
            tokio::task::yield_now().await;
            Ok(u64::from(given.fetch_add(1, Ordering::SeqCst) == 0))
        };
        let ask = || answers.give(async || Ok(true), some, 5);
        let (a, b, c) = tokio::join!(ask(), ask(), ask());
        a.and(b).and(c).unwrap();
        assert_eq!(given.load(Ordering::SeqCst), 2, "the first, and one for those who asked meanwhile");
    }

    /// Would miss bells that are left when there are more than one transaction takes, and a look at them that is not taken.
    #[tokio::test]
    async fn all_bells_are_answered_and_none_where_none_is_rung() {
        let (answers, left) = (Answers::default(), AtomicU64::new(12));
        let some = async || {
            Ok(left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some(left.saturating_sub(5)))
                .unwrap()
                .min(5))
        };
        answers.give(async || Ok(false), some, 5).await.unwrap();
        assert_eq!(left.load(Ordering::SeqCst), 12);
        answers.give(async || Ok(true), some, 5).await.unwrap();
        assert_eq!(left.load(Ordering::SeqCst), 0);
    }
}
