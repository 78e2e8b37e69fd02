//! The store is away for a minute, is full, or loses the answer to a commit. Time is virtual and the store in memory, so that calls can
//! be counted; a medium that is really full is in `medium`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use postroom::core::address::Address;
use postroom::core::id::{ClaimId, IdempotencyKey, MailboxId};
use postroom::core::queue::State;
use postroom::core::time::Timestamp;
use postroom::engine::{Event, Observer, Work};
use postroom::storage::Clock;
use postroom::storage::memory::MemoryStore;
use postroom::transport::memory::MemoryOutgoing;
use postroom::transport::{Crossing, Job, Lane, OutgoingTransport, ProbeReport, Receipt, Result, Route};
use postroom::{Options, Postroom};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::house::{linked, mail, morning, opened, show, submit};
use crate::wired::{Wire, Wired};

/// The virtual time of a test.
struct VirtualClock(Instant);

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        morning() + self.0.elapsed()
    }
}

/// Counts what an operator is told of the store, and of mails that were sent.
#[derive(Default)]
struct Alarm(Mutex<Vec<String>>, AtomicUsize);

impl Observer for Alarm {
    fn observe(&self, event: &Event) {
        match event {
            Event::StoreFailed { error } => self.0.lock().unwrap().push(error.clone()),
            Event::Sent { .. } => drop(self.1.fetch_add(1, Ordering::SeqCst)),
            _ => {}
        }
    }
}

/// A server in memory, which calls back when a mail's mark was answered.
struct Server {
    inner: MemoryOutgoing,
    marked: Box<dyn Fn() + Send + Sync>,
}

struct Told<'a>(&'a dyn Lane, &'a (dyn Fn() + Send + Sync));

#[async_trait]
impl Lane for Told<'_> {
    async fn next(&self) -> Option<Job> {
        self.0.next().await
    }

    async fn about_to_cross(&self, attempt: ClaimId) -> Crossing {
        let crossing = self.0.about_to_cross(attempt).await;
        (self.1)();
        crossing
    }

    async fn finished(&self, attempt: ClaimId, receipt: Receipt) {
        self.0.finished(attempt, receipt).await;
    }
}

#[async_trait]
impl OutgoingTransport for Server {
    async fn carry<'a>(&self, route: &Route, lane: &'a (dyn Lane + 'a)) -> Result<()> {
        self.inner.carry(route, &Told(lane, &*self.marked)).await
    }

    async fn probe(&self, route: &Route, senders: &[Address]) -> ProbeReport {
        self.inner.probe(route, senders).await
    }

    async fn close_parked(&self, mailbox: MailboxId) {
        self.inner.close_parked(mailbox).await;
    }

    async fn close_idle(&self) {
        self.inner.close_idle().await;
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

struct House {
    postroom: Postroom,
    store: Arc<Wired>,
    server: MemoryOutgoing,
    alarm: Arc<Alarm>,
}

impl House {
    /// With a store that obeys the rule, and what happens when a mark was answered.
    async fn new(
        rule: impl Fn(&str) -> Wire + Send + Sync + 'static,
        marked: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let clock = Arc::new(VirtualClock(Instant::now()));
        let store = Arc::new(Wired::ruled(Arc::new(MemoryStore::with_clock(clock)), rule));
        let (server, alarm) = (MemoryOutgoing::new(), Arc::new(Alarm::default()));
        let outgoing = Server { inner: server.clone(), marked: Box::new(marked) };
        let postroom = opened(store.clone(), Arc::new(outgoing), alarm.clone(), Options::default());
        linked(&postroom, "ACME", 25, 5).await;
        Self { postroom, store, server, alarm }
    }

    /// A worker in the background, for as long as this is kept.
    fn worker(&self) -> JoinSet<()> {
        let postroom = self.postroom.clone();
        JoinSet::from_iter([async move {
            postroom.run_with(Work::all(), std::future::pending()).await.unwrap();
        }])
    }
}

/// A switch that a test and a rule share.
fn switch() -> (Arc<AtomicBool>, Arc<AtomicBool>) {
    let switch = Arc::new(AtomicBool::new(false));
    (Arc::clone(&switch), switch)
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

// Seen to fail when a result is given up after one try. The bound would miss a loop that asks a few times a second.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_gone_for_a_minute_costs_no_result_and_is_not_asked_in_a_loop() {
    let (gone, is_gone) = switch();
    let goes = Arc::clone(&gone);
    let once = AtomicBool::new(false);
    let rule = move |_: &str| if is_gone.load(Ordering::SeqCst) { Wire::Cut } else { Wire::Whole };
    // It goes in the very moment in which the dot leaves.
    let marked = move || {
        if !once.swap(true, Ordering::SeqCst) {
            goes.store(true, Ordering::SeqCst);
        }
    };
    let house = House::new(rule, marked).await;
    let first = submit(&house.postroom, "ACME").await;
    let second = submit(&house.postroom, "ACME").await;
    let _worker = house.worker();
    seconds(5).await;
    assert_eq!(house.server.carried().len(), 1, "the dot of the first has left");
    let before = house.store.all_calls();
    seconds(60).await;
    let asked = house.store.all_calls() - before;
    assert!((10..600).contains(&asked), "asked {asked} times in a minute");
    assert!(!house.alarm.0.lock().unwrap().is_empty(), "nobody was told");
    assert_eq!(house.server.carried().len(), 1, "nothing is sent that can't be marked");
    gone.store(false, Ordering::SeqCst);
    seconds(60).await;
    for mail in [&first, &second] {
        let record = show(&house.postroom, mail).await;
        assert_eq!(record.item.state, State::Accepted, "{:#?}", record.timeline);
    }
    assert_eq!(house.server.carried().len(), 2, "each once");
}

/// Whether a call writes.
fn writes(call: &str) -> bool {
    const READS: [&str; 6] = ["due_outboxes", "next_due", "open_claims", "health", "mailbox", "search"];
    !READS.contains(&call.split("::").last().unwrap_or_default())
}

// Reads still work when the medium is full: a worker that finds due mail and can't claim it must not dial its server again and again.
#[tokio::test(start_paused = true)]
async fn a_full_medium_is_reported_pauses_the_worker_and_work_goes_on_when_there_is_space() {
    let (full, is_full) = switch();
    let rule = move |call: &str| match is_full.load(Ordering::SeqCst) && writes(call) {
        true => Wire::Full,
        false => Wire::Whole,
    };
    let house = House::new(rule, || ()).await;
    let waits = submit(&house.postroom, "ACME").await;
    full.store(true, Ordering::SeqCst);
    let refused = house.postroom.submit(&mail("ACME", &["ana@customer.example"])).await.unwrap_err();
    assert!(refused.to_string().contains("full"), "{refused}");
    let _worker = house.worker();
    seconds(60).await;
    let (calls, dials) = (house.store.all_calls(), house.server.connections());
    assert!((20..1000).contains(&calls) && dials < 200, "{calls} calls and {dials} connections in a minute");
    assert!(!house.alarm.0.lock().unwrap().is_empty(), "nobody was told");
    full.store(false, Ordering::SeqCst);
    seconds(10).await;
    assert_eq!(show(&house.postroom, &waits).await.item.state, State::Accepted);
    assert_eq!(house.server.carried().len(), 1, "and nothing of the refused one");
}

/// A house in which the answer to the first of these calls is lost.
async fn losing(call: &'static str) -> House {
    let lost = AtomicBool::new(false);
    let rule = move |asked: &str| match asked == call && !lost.swap(true, Ordering::SeqCst) {
        true => Wire::AnswerLost,
        false => Wire::Whole,
    };
    House::new(rule, || ()).await
}

// Seen to fail for claims when the worker renews a claim that it never heard of: the mail waited as long as the worker lived. Seen to
// fail for marks when the mail was left in doubt though the mark can be asked for again, and for settlements when nobody was told that
// the mail was sent.
#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_is_lost_is_asked_for_again_and_counts_once() {
    for call in ["QueueWork::claim", "QueueWork::mark", "QueueWork::settle"] {
        let house = losing(call).await;
        let mail = submit(&house.postroom, "ACME").await;
        let _worker = house.worker();
        // More than a lease and a look at what ran out.
        seconds(60).await;
        assert!(house.store.calls(call) > 1, "{call}: the answer was not lost");
        let record = show(&house.postroom, &mail).await;
        assert_eq!(record.item.state, State::Accepted, "{call}: {:#?}", record.timeline);
        assert_eq!(house.server.carried().len(), 1, "{call}");
        assert_eq!(house.alarm.1.load(Ordering::SeqCst), 1, "{call}: how often somebody was told");
    }
}

#[tokio::test(start_paused = true)]
async fn a_submission_whose_answer_is_lost_is_the_same_mail_when_it_is_repeated() {
    let house = losing("QueueIntake::enqueue").await;
    let key = IdempotencyKey::parse("order 7").unwrap();
    let order = mail("ACME", &["ana@customer.example"]).with_idempotency_key(key);
    house.postroom.submit(&order).await.expect_err("the answer was lost");
    assert!(house.postroom.submit(&order).await.unwrap().existing);
    let _worker = house.worker();
    seconds(10).await;
    assert_eq!(house.server.carried().len(), 1);
}

// Seen to fail when the claims of a task that is gone are renewed with all others: the mail was crossing as long as the worker lived.
#[tokio::test(start_paused = true)]
async fn a_connection_whose_task_panics_leaves_its_mail_to_the_end_of_the_lease() {
    let once = AtomicBool::new(false);
    let panics = move || assert!(once.swap(true, Ordering::SeqCst), "the test has asked for a panic");
    let house = House::new(|_| Wire::Whole, panics).await;
    let first = submit(&house.postroom, "ACME").await;
    let second = submit(&house.postroom, "ACME").await;
    let _worker = house.worker();
    seconds(60).await;
    let mut states = Vec::new();
    for mail in [&first, &second] {
        states.push(show(&house.postroom, mail).await.item.state);
    }
    assert_eq!(states, [State::InDoubt, State::Accepted], "the one was marked, the other is sent");
    assert_eq!(house.server.carried().len(), 1);
}

// Seen to fail when a connection goes on while forty of its mails are marked and not settled: it sent forty.
#[tokio::test(start_paused = true)]
async fn a_connection_whose_results_can_not_be_stored_sends_no_more_than_it_may_leave_in_doubt() {
    let (stuck, is_stuck) = switch();
    let rule = move |call: &str| match call == "QueueWork::settle" && is_stuck.load(Ordering::SeqCst) {
        true => Wire::Cut,
        false => Wire::Whole,
    };
    let house = House::new(rule, || ()).await;
    for _ in 0..100 {
        submit(&house.postroom, "ACME").await;
    }
    stuck.store(true, Ordering::SeqCst);
    let _worker = house.worker();
    seconds(60).await;
    let (sent, connections) = (house.server.carried().len(), house.server.connections());
    assert!(
        sent >= 1 && sent <= 4 * connections && connections <= 5,
        "{sent} mails by {connections} connections"
    );
    stuck.store(false, Ordering::SeqCst);
    seconds(60).await;
    assert_eq!(house.server.carried().len(), 100, "each once");
}
