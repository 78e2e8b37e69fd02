//! What the tasks of one running worker share: the names that it claims under, its lease, whether it is stopping, and how it reports trouble with
//! a mailbox or the store.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postroom_core::failure::Failure;
use postroom_core::governor::rest;
use postroom_core::id::{MailboxId, WorkerId};
use postroom_core::time::Timestamp;
use postroom_storage::{Health, HealthBook, LedgerWork, QueueWork, Sign};
use postroom_transport::{Error as TransportError, ErrorKind as TransportKind};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::copies::{Copies, CopyOrder};
use crate::error::{Error, Result, said};
use crate::event::Event;
use crate::lanes::Lanes;
use crate::pace::Pace;
use crate::postroom::{Postroom, random};
use crate::unlock::grant::Locked;
use crate::withheld::Withheld;

/// How long a task waits when the store fails, at first and at most.
pub(crate) const STORE_REST: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// For how long a success that was recorded is no news. Another process may have recorded a failure since.
const FRESH: Duration = Duration::from_secs(5);

/// After refused sign-ins, one after the other. Providers lock an account after some within a quarter of an hour or so, and some
/// refuse everybody while they have an outage; after these a person is asked.
const PARKED: [Duration; 3] =
    [Duration::from_secs(15 * 60), Duration::from_secs(60 * 60), Duration::from_secs(4 * 60 * 60)];

/// Of what claims are held under a name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Noun {
    Queue,
    Ledger,
}

/// A name to claim under, for as long as it is kept.
pub(crate) struct Holder {
    pub(crate) id: WorkerId,
    worker: Arc<Worker>,
}

impl Holder {
    pub(crate) fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Ok(mut held) = self.worker.held.lock() {
            held.remove(&self.id);
        }
    }
}

pub(crate) struct Worker {
    pub(crate) postroom: Postroom,
    pub(crate) lease: Duration,
    /// Under which names claims are held, and of which noun.
    held: Mutex<BTreeMap<WorkerId, Noun>>,
    renewed: Mutex<Instant>,
    /// Until when nothing new is begun because the store failed, and how long that rest is.
    trouble: Mutex<Option<(Instant, Duration)>>,
    stopping: AtomicBool,
    stop: Notify,
    /// Whether mail came into doubt since it was asked.
    doubted: AtomicBool,
    /// The connections of each outbox.
    pub(crate) lanes: Arc<Lanes>,
    /// Failures are recorded one by one, so that those of one outage count once.
    failing: tokio::sync::Mutex<()>,
    /// When each mailbox was recorded to work.
    working: Mutex<BTreeMap<MailboxId, Instant>>,
    /// Sent copies that are to be made.
    pub(crate) copies: Copies,
    /// How fast connections to inboxes are opened.
    pub(crate) pace: Pace,
    /// How many inboxes are read at once.
    pub(crate) readers: Semaphore,
    /// Mails that their servers do not give.
    pub(crate) withheld: Withheld,
}

impl Worker {
    pub(crate) fn new(postroom: Postroom) -> Self {
        let lease = postroom.ports.options.lease.max(Duration::from_secs(2));
        let renewed = Mutex::new(Instant::now());
        let pace = Pace::new(postroom.ports.options.pacing.clone());
        let readers = Semaphore::new(postroom.ports.options.connections.clamp(1, Semaphore::MAX_PERMITS));
        Self {
            postroom,
            lease,
            held: Mutex::default(),
            renewed,
            trouble: Mutex::default(),
            stopping: AtomicBool::new(false),
            stop: Notify::new(),
            doubted: AtomicBool::new(false),
            lanes: Arc::default(),
            failing: tokio::sync::Mutex::default(),
            working: Mutex::default(),
            copies: Copies::default(),
            pace,
            readers,
            withheld: Withheld::default(),
        }
    }

    /// A name to claim under. What is claimed under it is renewed for as long as the name is kept, and no longer: a claim that
    /// nobody here works on, because its answer was lost or its task panicked, runs out like that of a dead worker.
    pub(crate) fn hold(self: &Arc<Self>, noun: Noun) -> Result<Holder> {
        let id = WorkerId::new(self.postroom.now(), random()?);
        if let Ok(mut held) = self.held.lock() {
            held.insert(id, noun);
        }
        Ok(Holder { id, worker: Arc::clone(self) })
    }

    /// Until when what is claimed now is held, by the store's clock.
    pub(crate) fn until(&self, now: Timestamp) -> Timestamp {
        now + self.lease
    }

    /// Whether a claim taken at `claimed` is surely still held, by this process's monotonic clock and with a margin of a
    /// tenth of the lease. A worker that was paused finds out here, before it marks anything.
    pub(crate) fn holds(&self, claimed: Instant) -> bool {
        let since = self.renewed.lock().map_or(claimed, |renewed| claimed.max(*renewed));
        since.elapsed() < self.lease - self.lease / 10
    }

    /// Says that mail came into doubt: it is looked for at once.
    pub(crate) fn doubts(&self) {
        self.doubted.store(true, Ordering::SeqCst);
        self.postroom.ports.bell.notify_one();
    }

    /// Whether mail came into doubt since the last call.
    pub(crate) fn has_doubted(&self) -> bool {
        self.doubted.swap(false, Ordering::SeqCst)
    }

    /// Has a sent copy made.
    pub(crate) fn order(&self, order: CopyOrder) {
        self.copies.order(order);
        self.postroom.ports.bell.notify_one();
    }

    /// Tells every task to come to an end.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.stop.notify_waiters();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Waits, but no longer than until the worker stops.
    pub(crate) async fn rest(&self, span: Duration) {
        let stopped = self.stop.notified();
        if !self.is_stopping() {
            let _ = tokio::time::timeout(span, stopped).await;
        }
    }

    /// Renews the claims of this worker, each third of the lease, until it stops.
    pub(crate) async fn renew(&self) {
        while !self.is_stopping() {
            self.rest(self.lease / 3).await;
            if self.renew_once().await.is_err() {
                // The claims may run out now; the next renewal is tried soon.
                self.rest(self.lease / 10).await;
            }
        }
    }

    /// Renews the claims of this worker once.
    pub(crate) async fn renew_once(&self) -> Result<()> {
        let asked = Instant::now();
        let store = self.postroom.store();
        let (queue, ledger): (&dyn QueueWork, &dyn LedgerWork) = (store, store);
        // A name that is taken from here on has claimed nothing before `asked`.
        let held = self.held.lock().map(|held| held.clone()).unwrap_or_default();
        for (id, noun) in held {
            let now = self.postroom.now();
            let renewed = match noun {
                Noun::Queue => queue.renew(now, id, self.until(now)).await,
                Noun::Ledger => ledger.renew(now, id, self.until(now)).await,
            };
            if let Err(error) = renewed {
                self.store_failed(&error);
                return Err(error.into());
            }
        }
        if let Ok(mut renewed) = self.renewed.lock() {
            *renewed = asked;
        }
        Ok(())
    }

    /// Calls the store until it answers something else than "not now". What a server has said is not forgotten because
    /// the store is away.
    pub(crate) async fn insist<T, F>(&self, mut call: impl FnMut() -> F) -> postroom_storage::Result<T>
    where
        F: Future<Output = postroom_storage::Result<T>>,
    {
        let (mut wait, most) = STORE_REST;
        loop {
            match call().await {
                Err(error) if matches!(error.failure(), Failure::RetryAfter(_)) => {
                    self.store_failed(&error);
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(most);
                }
                other => return other,
            }
        }
    }

    pub(crate) fn store_failed(&self, error: &dyn std::error::Error) {
        tracing::warn!(target: "postroom", "the store failed: {error}");
        self.postroom.ports.observer.observe(&Event::StoreFailed { error: error.to_string() });
        let (first, most) = STORE_REST;
        if let Ok(mut trouble) = self.trouble.lock() {
            let now = Instant::now();
            *trouble = match *trouble {
                // Others have failed at the same time.
                Some((until, rest)) if now < until => Some((until, rest)),
                Some((_, rest)) => Some((now + (rest * 2).min(most), (rest * 2).min(most))),
                None => Some((now + first, first)),
            };
        }
    }

    /// Reports an error that is everybody's; gives back any other: one mailbox or mail is at fault, and all else goes on.
    pub(crate) fn not_everybodys(&self, error: impl Into<Error>) -> Option<Error> {
        let error = error.into();
        if error.is_everybodys() {
            self.store_failed(&error);
            return None;
        }
        Some(error)
    }

    /// The store took a claim: what is due is begun at once again.
    pub(crate) fn store_works(&self) {
        if let Ok(mut trouble) = self.trouble.lock() {
            *trouble = None;
        }
    }

    /// For how long nothing new should be begun because the store failed. A full medium still tells what is due: without the rest a
    /// server would be dialled, and nothing claimed for it, again and again.
    pub(crate) fn store_rests(&self) -> Option<Duration> {
        let trouble = self.trouble.lock().ok()?;
        trouble
            .map(|(until, _)| until.saturating_duration_since(Instant::now()))
            .filter(|rest| !rest.is_zero())
    }

    /// Records that a mailbox works. What this process has just recorded is not recorded for each mail anew.
    pub(crate) async fn works(&self, mailbox: MailboxId) {
        let is_known = |at: &Instant| at.elapsed() < FRESH;
        let known = self.working.lock().is_ok_and(|working| working.get(&mailbox).is_some_and(is_known));
        if !known
            && self.record(mailbox, &Sign::Success).await.is_ok()
            && let Ok(mut working) = self.working.lock()
        {
            working.insert(mailbox, Instant::now());
        }
    }

    /// Records that a mailbox failed, and how long it rests or that a person must act.
    pub(crate) async fn fails(&self, mailbox: MailboxId, failure: Failure, error: String) {
        self.fails_since(mailbox, None, failure, error).await;
    }

    /// The same for one of several tries that run at once, which began at `begun`: an outage that ends them all counts once, so
    /// what began before the last failure was recorded adds nothing to it, unless the server asks for a longer rest.
    pub(crate) async fn fails_since(
        &self,
        mailbox: MailboxId,
        begun: Option<Timestamp>,
        failure: Failure,
        error: String,
    ) {
        let _one_by_one = self.failing.lock().await;
        let book: &dyn HealthBook = self.postroom.store();
        let sign = match failure {
            Failure::Suspend => Sign::Suspended { error: error.clone() },
            Failure::RetryAfter(_) | Failure::GiveUp | Failure::Doubt => {
                let health = book.health(mailbox).await.unwrap_or_else(|_| Health::unknown(mailbox));
                let asked = match failure {
                    Failure::RetryAfter(asked) => asked,
                    _ => None,
                };
                let now = self.postroom.now();
                let known = begun.is_some_and(|begun| health.failed_at.is_some_and(|at| at >= begun));
                let rests = health.next_attempt.map(|next| next.since(now)).unwrap_or_default();
                if known && (health.suspended || asked.unwrap_or_default() <= rests) {
                    return;
                }
                let seed = random().map(u64::from_be_bytes).unwrap_or_default();
                Sign::Failure { error: error.clone(), wait: rest(health.failures, asked, seed) }
            }
        };
        // Whether it is recorded or not, the next success is news.
        let _ = self.record(mailbox, &sign).await;
        self.tell(mailbox, matches!(sign, Sign::Suspended { .. }), error);
    }

    /// Records that an inbox's server refused its sign-in: the inbox is parked, each time for longer, until a person is asked.
    pub(crate) async fn is_refused(&self, inbox: MailboxId, error: String) {
        let book: &dyn HealthBook = self.postroom.store();
        // Which time it is, the last rest says: no other failure has it rest for so long unless its server asks for that.
        let rested = book.health(inbox).await.map_or(Duration::ZERO, |health| health.last_rest());
        let parked = PARKED.into_iter().find(|parked| *parked > rested);
        let failure = parked.map_or(Failure::Suspend, |parked| Failure::RetryAfter(Some(parked)));
        self.fails(inbox, failure, error).await;
    }

    /// Records what was asked of an inbox's server beside its reading and failed. A refused sign-in is the account's, whoever tried it.
    pub(crate) async fn fails_doing(&self, inbox: MailboxId, doing: &str, error: &TransportError) {
        let said = format!("{doing}: {}", said(error));
        match error.kind() {
            TransportKind::SignInRefused => self.is_refused(inbox, said).await,
            _ => self.fails_beside(inbox, said).await,
        }
    }

    /// Records what was asked of an inbox beside its reading and failed: a copy, a search. The inbox may be well: its health names it
    /// where nothing else has failed, and neither rests for it nor counts it towards a rest.
    pub(crate) async fn fails_beside(&self, inbox: MailboxId, error: String) {
        let _one_by_one = self.failing.lock().await;
        let book: &dyn HealthBook = self.postroom.store();
        let is_well = |health: Health| health.failures == 0 && !health.suspended;
        if book.health(inbox).await.is_ok_and(is_well) {
            let sign = Sign::Failure { error: error.clone(), wait: Duration::ZERO };
            let _ = self.record(inbox, &sign).await;
        }
        self.tell(inbox, false, error);
    }

    /// The same where the inbox could not be unlocked.
    pub(crate) async fn is_locked(&self, inbox: MailboxId, doing: &str, locked: Locked) {
        match locked {
            Locked::Inside(error) => self.stumbles(inbox, doing, error).await,
            Locked::Provider(error) => self.fails_doing(inbox, doing, &error).await,
        }
    }

    /// What was done for an inbox beside its reading could not be, for the sake of a row or a secret: its failure, unless it is everybody's.
    pub(crate) async fn stumbles(&self, inbox: MailboxId, doing: &str, error: impl Into<Error>) {
        if let Some(error) = self.not_everybodys(error) {
            self.fails_beside(inbox, format!("{doing}: {error}")).await;
        }
    }

    /// Records that an inbox works but for this, which its health names.
    pub(crate) async fn works_but(&self, inbox: MailboxId, error: &str) {
        let book: &dyn HealthBook = self.postroom.store();
        let is_named = |health: Health| health.last_error.as_deref() == Some(error);
        if !book.health(inbox).await.is_ok_and(is_named) {
            self.works(inbox).await;
            self.fails_beside(inbox, error.to_owned()).await;
        }
    }

    fn tell(&self, mailbox: MailboxId, suspended: bool, error: String) {
        tracing::warn!(target: "postroom", "mailbox {mailbox}: {error}");
        self.postroom.ports.observer.observe(&Event::Failed { mailbox, suspended, error });
    }

    async fn record(&self, mailbox: MailboxId, sign: &Sign) -> postroom_storage::Result<()> {
        if *sign != Sign::Success
            && let Ok(mut working) = self.working.lock()
        {
            working.remove(&mailbox);
        }
        let book: &dyn HealthBook = self.postroom.store();
        let recorded = book.record(self.postroom.now(), mailbox, sign).await;
        recorded.inspect_err(|error| self.store_failed(error))
    }
}

#[cfg(test)]
mod tests {
    use postroom_storage::memory::MemoryStore;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_was_paused_past_its_lease_holds_nothing_until_it_renews_or_claims_anew() {
        let worker = Worker::new(Postroom::builder(Arc::new(MemoryStore::new())).build());
        let claimed = Instant::now();
        assert!(worker.holds(claimed));
        tokio::time::advance(worker.lease * 8 / 10).await;
        assert!(worker.holds(claimed));
        tokio::time::advance(worker.lease * 2 / 10).await;
        // Before the lease ends by the store's clock: a margin is kept.
        assert!(!worker.holds(claimed));
        assert!(worker.holds(Instant::now()));
        worker.renew_once().await.expect("renewed");
        assert!(worker.holds(claimed));
    }
}
