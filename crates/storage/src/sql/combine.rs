//! Calls that come at the same time are performed together: whoever has the turn performs all that wait, in one transaction, and
//! the others find their answers. What is being performed belongs to no caller, so one that is dropped leaves it to the next; the
//! last to be dropped takes it along, and the transaction is rolled back. Which transaction that is, a store says.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::id::{MailboxId, WorkerId};
use postroom_core::queue::Prepared;
use postroom_core::time::Timestamp;
use tokio::sync::oneshot::{Receiver, Sender, channel};

use crate::error::{Error, ErrorKind, Result};
use crate::queue::{ClaimMark, Claimed, Enqueued, Settled, Settlement};

/// Who claims how many mails of which outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClaimOrder {
    pub(super) outbox: MailboxId,
    pub(super) limit: u32,
    pub(super) worker: WorkerId,
    pub(super) until: Timestamp,
}

/// What is done in one transaction, in the order of the fields: what a server said comes before all else.
#[derive(Debug)]
pub(super) struct Work<'a> {
    pub(super) now: Timestamp,
    pub(super) settlements: Vec<&'a Settlement>,
    pub(super) marks: Vec<&'a ClaimMark>,
    pub(super) mails: Vec<(&'a Prepared, &'a Bytes)>,
    pub(super) claims: Vec<ClaimOrder>,
}

/// What became of it, one answer for each.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) settled: Vec<Settled>,
    pub(super) marked: Vec<bool>,
    pub(super) enqueued: Vec<Result<Enqueued>>,
    pub(super) claimed: Vec<Vec<Claimed>>,
}

/// A store's transaction.
#[async_trait]
pub(super) trait Transact: Send + Sync + 'static {
    /// Does all of it in one transaction that is on the medium when this returns, or nothing of it. Dropped, it is rolled back.
    async fn transact(&self, work: &Work<'_>) -> Result<Done>;
}

/// A call that waits for its answer.
struct Asked<I, O> {
    now: Timestamp,
    input: I,
    answer: Sender<Result<O>>,
}

/// The calls that wait.
#[derive(Default)]
struct Calls {
    settles: Vec<Asked<Vec<Settlement>, Vec<Settled>>>,
    marks: Vec<Asked<Vec<ClaimMark>, Vec<bool>>>,
    mails: Vec<Asked<(Prepared, Bytes), Enqueued>>,
    claims: Vec<Asked<ClaimOrder, Vec<Claimed>>>,
}

/// How many times, at most, whoever has the turn lets others run before it takes what waits.
const GATHERED: usize = 4;

type Performing = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Performs the calls of a store's clones together.
pub(super) struct Combiner<T> {
    store: Arc<T>,
    waiting: Mutex<Calls>,
    /// The right to perform, and what is being performed.
    turn: tokio::sync::Mutex<Option<Performing>>,
    callers: AtomicUsize,
    /// How many calls the last transaction answered, or left waiting.
    expected: AtomicUsize,
}

impl<T: Transact> Combiner<T> {
    pub(super) fn new(store: Arc<T>) -> Self {
        let (callers, expected) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { store, waiting: Mutex::default(), turn: tokio::sync::Mutex::new(None), callers, expected }
    }

    pub(super) async fn settle(&self, now: Timestamp, settlements: &[Settlement]) -> Result<Vec<Settled>> {
        self.ask(now, settlements.to_vec(), |calls, asked| calls.settles.push(asked)).await
    }

    pub(super) async fn mark(&self, now: Timestamp, marks: &[ClaimMark]) -> Result<Vec<bool>> {
        self.ask(now, marks.to_vec(), |calls, asked| calls.marks.push(asked)).await
    }

    pub(super) async fn enqueue(&self, now: Timestamp, mail: &Prepared, content: Bytes) -> Result<Enqueued> {
        self.ask(now, (mail.clone(), content), |calls, asked| calls.mails.push(asked)).await
    }

    pub(super) async fn claim(&self, now: Timestamp, order: ClaimOrder) -> Result<Vec<Claimed>> {
        self.ask(now, order, |calls, asked| calls.claims.push(asked)).await
    }

    async fn ask<I, O>(
        &self,
        now: Timestamp,
        input: I,
        push: impl FnOnce(&mut Calls, Asked<I, O>),
    ) -> Result<O> {
        let (answer, mut asked): (_, Receiver<Result<O>>) = channel();
        self.callers.fetch_add(1, Ordering::SeqCst);
        let _caller = Caller(self);
        push(&mut self.waiting(), Asked { now, input, answer });
        let said = tokio::select! {
            biased;
            said = &mut asked => said,
            mut turn = self.turn.lock() => {
                drive(&mut turn).await;
                // Whoever had the turn before may have taken this call along.
                if let Ok(said) = asked.try_recv() {
                    return said;
                }
                self.gather().await;
                let (store, calls) = (Arc::clone(&self.store), std::mem::take(&mut *self.waiting()));
                let together = calls.len();
                *turn = Some(Box::pin(async move { perform(&*store, calls).await }));
                drive(&mut turn).await;
                self.expected.store(together + self.waiting().len(), Ordering::SeqCst);
                drop(turn);
                asked.await
            }
        };
        // Each call of a performance is answered, unless that panicked.
        said.unwrap_or_else(|_| Err(Error::new(ErrorKind::Unavailable, "work on the queue")))
    }

    /// Lets those run who are about to call. Whoever was answered by the last transaction is awake by now and will soon call again;
    /// without this, callers fall into two halves that take turns, each in a transaction of its own. Nobody is waited for who did not call
    /// the last time: a lone caller begins at once.
    async fn gather(&self) {
        let expected = self.expected.load(Ordering::SeqCst);
        for _ in 0..GATHERED {
            if self.waiting().len() >= expected {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Calls> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sees a performance through, by whomever it was begun. One that panics has no answers for its calls; those that come later are none
/// of its matter.
async fn drive(turn: &mut Option<Performing>) {
    if let Some(performing) = turn.as_mut() {
        let polled = poll_fn(|context| {
            let poll = || performing.as_mut().poll(context);
            catch_unwind(AssertUnwindSafe(poll)).unwrap_or(Poll::Ready(()))
        });
        polled.await;
        *turn = None;
    }
}

/// Somebody who waits for an answer.
struct Caller<'a, T>(&'a Combiner<T>);

impl<T> Drop for Caller<'_, T> {
    fn drop(&mut self) {
        let is_last = self.0.callers.fetch_sub(1, Ordering::SeqCst) == 1;
        // Nobody drives it any more: an open transaction would keep other processes from writing. Whoever comes in this moment has
        // the turn, or finds none open.
        if is_last && let Ok(mut turn) = self.0.turn.try_lock() {
            *turn = None;
        }
    }
}

/// Performs calls in one transaction. If that fails, each is tried alone: what fails for one must not fail for the others.
async fn perform<T: Transact>(store: &T, mut calls: Calls) {
    calls.forget_dropped();
    let Err(error) = calls.perform(store).await else { return };
    let concerns_all = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Schema);
    for mut call in calls.apart() {
        if concerns_all {
            call.fail(&error);
        } else if let Err(error) = call.perform(store).await {
            call.fail(&error);
        }
    }
}

impl Calls {
    fn len(&self) -> usize {
        self.settles.len() + self.marks.len() + self.mails.len() + self.claims.len()
    }

    /// Leaves out what nobody waits for.
    fn forget_dropped(&mut self) {
        self.settles.retain(|asked| !asked.answer.is_closed());
        self.marks.retain(|asked| !asked.answer.is_closed());
        self.mails.retain(|asked| !asked.answer.is_closed());
        self.claims.retain(|asked| !asked.answer.is_closed());
    }

    /// Performs and answers all, or says why nothing was done.
    async fn perform<T: Transact>(&mut self, store: &T) -> Result<()> {
        let Some(work) = self.work() else { return Ok(()) };
        let done = store.transact(&work).await?;
        self.answer(done);
        Ok(())
    }

    /// What they ask for together.
    fn work(&self) -> Option<Work<'_>> {
        let times = self.settles.iter().map(|asked| asked.now);
        let times = times.chain(self.marks.iter().map(|asked| asked.now));
        let times = times.chain(self.mails.iter().map(|asked| asked.now));
        // The latest: a lease that ran out by it is not live for any of them.
        let now = times.chain(self.claims.iter().map(|asked| asked.now)).max()?;
        Some(Work {
            now,
            settlements: self.settles.iter().flat_map(|asked| &asked.input).collect(),
            marks: self.marks.iter().flat_map(|asked| &asked.input).collect(),
            mails: self.mails.iter().map(|asked| (&asked.input.0, &asked.input.1)).collect(),
            claims: self.claims.iter().map(|asked| asked.input).collect(),
        })
    }

    fn answer(&mut self, done: Done) {
        let (mut settled, mut marked) = (done.settled.into_iter(), done.marked.into_iter());
        // A caller that was dropped meanwhile needs no answer.
        for asked in self.settles.drain(..) {
            let _ = asked.answer.send(Ok(settled.by_ref().take(asked.input.len()).collect()));
        }
        for asked in self.marks.drain(..) {
            let _ = asked.answer.send(Ok(marked.by_ref().take(asked.input.len()).collect()));
        }
        for (asked, enqueued) in self.mails.drain(..).zip(done.enqueued) {
            let _ = asked.answer.send(enqueued);
        }
        for (asked, claimed) in self.claims.drain(..).zip(done.claimed) {
            let _ = asked.answer.send(Ok(claimed));
        }
    }

    /// Each call by itself, in the order in which they are performed.
    fn apart(self) -> impl Iterator<Item = Self> {
        let settles = self.settles.into_iter().map(|asked| Self { settles: vec![asked], ..Self::default() });
        let marks = self.marks.into_iter().map(|asked| Self { marks: vec![asked], ..Self::default() });
        let mails = self.mails.into_iter().map(|asked| Self { mails: vec![asked], ..Self::default() });
        let claims = self.claims.into_iter().map(|asked| Self { claims: vec![asked], ..Self::default() });
        settles.chain(marks).chain(mails).chain(claims)
    }

    fn fail(self, error: &Error) {
        let why = |stage| Error::new(error.kind().clone(), stage).with_source(error.clone());
        self.settles.into_iter().for_each(|asked| drop(asked.answer.send(Err(why("settle mails")))));
        self.marks.into_iter().for_each(|asked| drop(asked.answer.send(Err(why("mark mails")))));
        self.mails.into_iter().for_each(|asked| drop(asked.answer.send(Err(why("submit a mail")))));
        self.claims.into_iter().for_each(|asked| drop(asked.answer.send(Err(why("claim mails")))));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use postroom_core::id::QueueId;
    use tokio::sync::Notify;
    use uuid::Uuid;

    use super::*;

    /// Marks what it is asked to mark, and does at each transaction what the test says.
    #[derive(Default)]
    struct Store {
        transactions: AtomicUsize,
        /// Whether the first one waits until it is let go.
        gate: Option<Notify>,
        /// The mail that makes a transaction fail, and the one that makes it panic.
        fails: Option<QueueId>,
        panics: Option<QueueId>,
        /// Whether others run while a transaction is open.
        is_slow: bool,
    }

    #[async_trait]
    impl Transact for Store {
        async fn transact(&self, work: &Work<'_>) -> Result<Done> {
            if self.transactions.fetch_add(1, Ordering::SeqCst) == 0
                && let Some(gate) = &self.gate
            {
                gate.notified().await;
            }
            if self.is_slow {
                tokio::task::yield_now().await;
            }
            let has = |id: Option<QueueId>| work.marks.iter().any(|mark| Some(mark.id) == id);
            assert!(!has(self.panics), "a test asks for it");
            if has(self.fails) {
                return Err(Error::new(ErrorKind::Full, "transact"));
            }
            let marked = work.marks.iter().map(|mark| mark.id != id(0)).collect();
            Ok(Done { marked, ..Done::default() })
        }
    }

    fn id(number: u128) -> QueueId {
        QueueId::from_uuid(Uuid::from_u128(number))
    }

    async fn mark(combiner: &Combiner<Store>, number: u128) -> Result<Vec<bool>> {
        let mark = ClaimMark { id: id(number), claim: postroom_core::id::ClaimId::from_uuid(Uuid::nil()) };
        combiner.mark(Timestamp::from_millis(0), &[mark]).await
    }

    /// Would miss a group that is begun while those who were answered by the last one are about to call again: they would call in two
    /// halves that take turns, and need twice as many transactions.
    #[tokio::test]
    async fn who_calls_again_at_once_is_in_the_next_transaction() {
        let combiner = Combiner::new(Arc::new(Store { is_slow: true, ..Store::default() }));
        let caller = async |number| {
            for _ in 0..20 {
                // Whoever gets an answer has something to do before the next call.
                tokio::task::yield_now().await;
                assert_eq!(mark(&combiner, number).await.unwrap(), [true]);
            }
        };
        tokio::join!(caller(1), caller(2), caller(3), caller(4));
        let transactions = combiner.store.transactions.load(Ordering::SeqCst);
        assert!(transactions <= 22, "{transactions} for 20 rounds of four");
    }

    /// Would miss an answer that goes to another call.
    #[tokio::test]
    async fn calls_that_wait_are_performed_together_and_each_has_its_own_answer() {
        let combiner = Combiner::new(Arc::new(Store { gate: Some(Notify::new()), ..Store::default() }));
        let (a, b, c, d, ()) = tokio::join!(
            mark(&combiner, 1),
            mark(&combiner, 0),
            mark(&combiner, 2),
            mark(&combiner, 0),
            async { combiner.store.gate.as_ref().unwrap().notify_one() }
        );
        let marked = [a, b, c, d].map(|marked| marked.unwrap());
        assert_eq!(marked, [[true], [false], [true], [false]]);
        assert_eq!(combiner.store.transactions.load(Ordering::SeqCst), 2, "the first, and the rest");
    }

    #[tokio::test]
    async fn a_call_that_fails_fails_alone() {
        let store = Store { gate: Some(Notify::new()), fails: Some(id(7)), ..Store::default() };
        let combiner = Combiner::new(Arc::new(store));
        let (a, b, c, ()) = tokio::join!(mark(&combiner, 1), mark(&combiner, 7), mark(&combiner, 2), async {
            combiner.store.gate.as_ref().unwrap().notify_one()
        });
        assert_eq!((a.unwrap(), c.unwrap()), (vec![true], vec![true]));
        assert_eq!(b.unwrap_err().kind(), &ErrorKind::Full);
    }

    /// Would miss a store that is dead for the rest of the process: the next to have the turn would drive what has panicked.
    #[tokio::test]
    async fn a_panic_costs_the_calls_of_its_transaction_and_no_later_one() {
        let combiner = Combiner::new(Arc::new(Store { panics: Some(id(7)), ..Store::default() }));
        assert_eq!(mark(&combiner, 7).await.unwrap_err().kind(), &ErrorKind::Unavailable);
        assert_eq!(mark(&combiner, 1).await.unwrap(), [true]);
    }

    /// Would miss a call that waits for ever for one that was given up.
    #[tokio::test]
    async fn what_a_dropped_caller_has_begun_is_seen_through_by_the_next() {
        let combiner = Combiner::new(Arc::new(Store { gate: Some(Notify::new()), ..Store::default() }));
        let mut first = Box::pin(mark(&combiner, 1));
        let begun = tokio::time::timeout(Duration::from_millis(10), first.as_mut()).await;
        assert!(begun.is_err(), "it waits at the gate");
        let second = mark(&combiner, 2);
        let rest = async {
            drop(first);
            combiner.store.gate.as_ref().unwrap().notify_one();
        };
        let (second, ()) = tokio::join!(second, rest);
        assert_eq!(second.unwrap(), [true]);
        assert_eq!(combiner.store.transactions.load(Ordering::SeqCst), 2);
    }
}
