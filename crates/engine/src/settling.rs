//! Settling: what servers said of the mails of one connection is committed beside the talk with the server, in the order in which
//! it was said, as many at once as there are. Only what is committed is told to anybody.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use postroom_core::mailbox::Mailbox;
use postroom_core::queue::Event;
use postroom_core::time::Timestamp;
use postroom_storage::{Attempt, Claimed, QueueDesk, QueueWork, RecipientResult, Settled, Settlement};
use postroom_transport::Error as TransportError;
use tokio::sync::Notify;

use crate::copies::CopyOrder;
use crate::error::said;
use crate::event::Event as Happened;
use crate::worker::Worker;

/// What became of a claimed mail.
pub(crate) struct Verdict {
    pub(crate) claimed: Claimed,
    pub(crate) results: Vec<RecipientResult>,
    pub(crate) due_at: Timestamp,
    pub(crate) attempt: Attempt,
    /// The server answered: the outbox works.
    pub(crate) works: bool,
    /// It says that the whole outbox should rest.
    pub(crate) limit: Option<TransportError>,
}

/// The verdicts of one connection that are not committed yet.
#[derive(Default)]
pub(crate) struct Settling {
    verdicts: Mutex<Vec<Verdict>>,
    /// How many are not committed, those in the middle of it too.
    open: Mutex<usize>,
    closed: AtomicBool,
    added: Notify,
    settled: Notify,
}

impl Settling {
    /// Has a verdict committed.
    pub(crate) fn add(&self, verdict: Verdict) {
        if let (Ok(mut verdicts), Ok(mut open)) = (self.verdicts.lock(), self.open.lock()) {
            verdicts.push(verdict);
            *open += 1;
        }
        self.added.notify_one();
    }

    /// There will be no more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.added.notify_one();
    }

    /// Waits until fewer than so many are not committed.
    pub(crate) async fn fewer_than(&self, most: usize) {
        loop {
            let settled = self.settled.notified();
            if self.open.lock().is_ok_and(|open| *open < most) {
                return;
            }
            settled.await;
        }
    }

    /// Commits verdicts as they come, and says so, until there will be no more. The store may be away for a while: this waits for
    /// it. `begun` is when the connection began.
    pub(crate) async fn settle(&self, worker: &Worker, outbox: &Mailbox, begun: Timestamp) {
        loop {
            let closed = self.closed.load(Ordering::SeqCst);
            let verdicts = self.verdicts.lock().map(|mut verdicts| std::mem::take(&mut *verdicts));
            let verdicts = verdicts.unwrap_or_default();
            if verdicts.is_empty() {
                if closed {
                    return;
                }
                self.added.notified().await;
                continue;
            }
            let count = verdicts.len();
            commit(worker, outbox, begun, verdicts).await;
            if let Ok(mut open) = self.open.lock() {
                *open = open.saturating_sub(count);
            }
            self.settled.notify_waiters();
        }
    }
}

async fn commit(worker: &Worker, outbox: &Mailbox, begun: Timestamp, verdicts: Vec<Verdict>) {
    let settlement = |verdict: &Verdict| Settlement {
        id: verdict.claimed.id,
        claim: verdict.claimed.claim,
        results: verdict.results.clone(),
        due_at: verdict.due_at,
        attempt: verdict.attempt,
    };
    let settlements: Vec<Settlement> = verdicts.iter().map(settlement).collect();
    let queue: &dyn QueueWork = worker.postroom.store();
    let (asked, mut times) = (worker.postroom.now(), 0);
    let settle = || {
        times += 1;
        queue.settle(worker.postroom.now(), &settlements)
    };
    let settled = match worker.insist(settle).await {
        Ok(settled) => settled,
        Err(error) => {
            worker.store_failed(&error);
            Vec::new()
        }
    };
    let works = verdicts.iter().any(|verdict| verdict.works);
    let mut limit = None;
    for (verdict, settled) in
        verdicts.into_iter().zip(settled.into_iter().map(Some).chain(std::iter::repeat(None)))
    {
        match settled {
            Some(Settled::Applied | Settled::Late) => tell(worker, outbox, &verdict),
            // A commit whose answer was lost: what is asked again finds its claim settled, by itself.
            Some(Settled::Ignored) if times > 1 && stands(worker, &verdict, asked).await => {
                tell(worker, outbox, &verdict);
            }
            Some(Settled::Ignored) => {
                let id = verdict.claimed.id;
                tracing::info!(target: "postroom", "mail {id}: the answer came too late to count");
            }
            None => {}
        }
        limit = verdict.limit.or(limit);
    }
    if works {
        worker.works(outbox.id).await;
    }
    if let Some(error) = limit {
        worker.fails_since(outbox.id, Some(begun), error.failure(), said(&error)).await;
    }
}

/// Whether every result stands in the mail's timeline, as a change, since it was first `asked` for.
async fn stands(worker: &Worker, verdict: &Verdict, asked: Timestamp) -> bool {
    let desk: &dyn QueueDesk = worker.postroom.store();
    let Ok(Some(record)) = worker.insist(|| desk.show(verdict.claimed.id)).await else { return false };
    verdict.results.iter().all(|result| {
        record.timeline.iter().any(|entry| {
            entry.at >= asked
                && entry.recipient == Some(result.recipient)
                && entry.detail == result.detail
                && entry.state.is_some()
        })
    })
}

/// Says what is committed.
fn tell(worker: &Worker, outbox: &Mailbox, verdict: &Verdict) {
    let results: Vec<Event> = verdict.results.iter().map(|result| result.event).collect();
    if results.contains(&Event::Accept)
        && let Some(order) = CopyOrder::of(outbox, verdict.claimed.body)
    {
        worker.order(order);
    }
    if results.contains(&Event::Doubt) {
        worker.doubts();
    }
    let (id, outbox) = (verdict.claimed.id, verdict.claimed.outbox);
    worker.postroom.observe(&Happened::Sent { id, outbox, results });
}
