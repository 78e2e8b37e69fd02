//! Inboxes that are watched: news by IDLE and by polling, settings that change, servers that hang, drop or refuse, processes that
//! share, die or are paused.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::id::{MailboxId, WorkerId};
use postroom_core::ledger::{Place, RemoteKey};
use postroom_core::mailbox::{InboxDraft, Status};
use postroom_core::secret::SecretChange;
use postroom_engine::{Options, Postroom, Work};
use postroom_storage::{Contact, HealthBook, LedgerIntake, Portion, Reached, Watch, Watches, Way};
use postroom_transport::memory::MemoryIncoming;
use postroom_transport::{
    Access, CloseReport, Effect, Error, ErrorKind, Folder, Hint, IncomingSession, IncomingTransport, Listed,
    MailSink, ProbeReport, Result, Route, Selected, Stage,
};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::fixture::*;

/// A step of a session, at which a server may misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Open,
    List,
    Wait,
}

/// What becomes of a step.
pub(crate) enum Act {
    /// The server does it.
    Do,
    /// It says nothing, for ever.
    Hang,
    /// It tells nothing of what changed before the deadline.
    Silence,
    Fail(Error),
}

type Script = Box<dyn Fn(Step, MailboxId) -> Act + Send + Sync>;

/// Servers in memory that misbehave by a script.
pub(crate) struct Odd {
    inner: MemoryIncoming,
    script: Arc<Script>,
    /// How often each inbox was connected to.
    opened: Mutex<BTreeMap<MailboxId, usize>>,
    /// Which servers were connected to, in order.
    pub(crate) servers: Mutex<Vec<String>>,
}

impl Odd {
    pub(crate) fn new(
        inner: &MemoryIncoming,
        script: impl Fn(Step, MailboxId) -> Act + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (inner, script) = (inner.clone(), Arc::new(Box::new(script) as Script));
        Arc::new(Self { inner, script, opened: Mutex::default(), servers: Mutex::default() })
    }

    pub(crate) fn opened(&self, inbox: MailboxId) -> usize {
        self.opened.lock().unwrap().get(&inbox).copied().unwrap_or_default()
    }
}

#[async_trait]
impl IncomingTransport for Odd {
    async fn open(&self, route: &Route) -> Result<Box<dyn IncomingSession>> {
        *self.opened.lock().unwrap().entry(route.mailbox).or_default() += 1;
        self.servers.lock().unwrap().push(route.endpoint.host.to_string());
        match (self.script)(Step::Open, route.mailbox) {
            Act::Fail(error) => return Err(error),
            Act::Hang => std::future::pending().await,
            Act::Do | Act::Silence => {}
        }
        let inner = self.inner.open(route).await?;
        Ok(Box::new(OddSession { inner, inbox: route.mailbox, script: Arc::clone(&self.script) }))
    }

    async fn probe<'a>(&self, route: &Route, folder: Option<&'a str>) -> ProbeReport {
        self.inner.probe(route, folder).await
    }
}

struct OddSession {
    inner: Box<dyn IncomingSession>,
    inbox: MailboxId,
    script: Arc<Script>,
}

#[async_trait]
impl IncomingSession for OddSession {
    async fn folders(&mut self) -> Result<Vec<Folder>> {
        self.inner.folders().await
    }

    async fn select<'a>(&mut self, folder: Option<&'a str>, access: Access) -> Result<Selected> {
        self.inner.select(folder, access).await
    }

    async fn list<'a>(&mut self, after: Option<&'a RemoteKey>, limit: usize) -> Result<Vec<Listed>> {
        match (self.script)(Step::List, self.inbox) {
            Act::Fail(error) => Err(error),
            Act::Hang => std::future::pending().await,
            Act::Do | Act::Silence => self.inner.list(after, limit).await,
        }
    }

    async fn fetch<'a>(
        &mut self,
        mails: &[Listed],
        limit: u64,
        sink: &'a mut (dyn MailSink + 'a),
    ) -> Result<()> {
        self.inner.fetch(mails, limit, sink).await
    }

    async fn settle(&mut self, effects: &[(RemoteKey, Effect)]) -> Result<()> {
        self.inner.settle(effects).await
    }

    async fn find(&mut self, message_id: &str) -> Result<Vec<RemoteKey>> {
        self.inner.find(message_id).await
    }

    async fn append(&mut self, folder: &str, content: Bytes) -> Result<()> {
        self.inner.append(folder, content).await
    }

    async fn wait(&mut self, at_most: Duration) -> Result<Hint> {
        match (self.script)(Step::Wait, self.inbox) {
            Act::Fail(error) => Err(error),
            Act::Hang => std::future::pending().await,
            Act::Silence => {
                tokio::time::sleep(at_most).await;
                Ok(Hint::Quiet)
            }
            Act::Do => self.inner.wait(at_most).await,
        }
    }

    async fn close(self: Box<Self>) -> CloseReport {
        self.inner.close().await
    }
}

/// A worker that runs until it is dropped or stopped.
pub(crate) struct Running {
    stop: oneshot::Sender<()>,
    task: JoinSet<()>,
}

impl Running {
    pub(crate) fn begin(postroom: &Postroom) -> Self {
        Self::begin_with(postroom, Work::all().only_receiving())
    }

    pub(crate) fn begin_with(postroom: &Postroom, work: Work) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let postroom = postroom.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let stopped = async { _ = stopped.await };
            postroom.run_with(work, stopped).await.unwrap();
        });
        Self { stop, task }
    }

    pub(crate) async fn stop(mut self) {
        let _ = self.stop.send(());
        self.task.join_next().await.unwrap().unwrap();
    }
}

/// Waits until something holds: a bound for liveness, not for speed.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let waited = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(330), waited).await.unwrap_or_else(|_| panic!("never: {what}"));
}

pub(crate) async fn reads(house: &House, subjects: &[&str]) {
    until(&format!("{subjects:?}"), async || house.host.subjects() == subjects).await;
}

async fn watched(house: &House) -> Option<Watch> {
    let watches: &dyn Watches = house.postroom.store();
    watches.watches(house.postroom.now(), Some(house.inbox.id)).await.unwrap().into_iter().next()
}

async fn reader(house: &House) -> Option<WorkerId> {
    watched(house).await.and_then(|watch| watch.watcher)
}

/// News comes by IDLE only: nobody polls for a day.
pub(crate) fn only_told() -> Options {
    let day = Duration::from_secs(24 * 3600);
    Options { poll: day, reconcile: day, ..Options::default() }
}

pub(crate) fn over(house: &House, odd: &Arc<Odd>, options: Options) -> Postroom {
    Postroom::builder(house.store.clone())
        .with_keyring(house.keyring.clone())
        .with_incoming(odd.clone())
        .with_handler(house.host.clone())
        .with_options(options)
        .build()
}

#[tokio::test]
async fn what_the_server_tells_is_read_at_once_and_the_process_leaves_the_inbox_to_others_when_it_stops() {
    let house = House::with_options(only_told()).await;
    let running = Running::begin(&house.postroom);
    until("watched", async || reader(&house).await.is_some()).await;
    for subject in ["one", "two", "three"] {
        house.arrives("ana@customer.example", subject, "");
        until(subject, async || house.host.subjects().last().is_some_and(|last| last == subject)).await;
    }
    assert!(house.incoming.mails(house.inbox.id, "INBOX").iter().all(|mail| mail.seen));
    running.stop().await;
    let watch = watched(&house).await.unwrap();
    assert_eq!((watch.watcher, watch.way), (None, Some(Way::Idle)), "{watch:?}");
    assert!(watch.read_at.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_tell_is_asked_again_and_again() {
    let form = InboxDraft {
        provider: "pop3s".to_owned(),
        baseline: Some("all".to_owned()),
        after: Some("delete".to_owned()),
        ..InboxDraft::default()
    };
    let house = House::with_inbox(Options::default(), form).await;
    let running = Running::begin(&house.postroom);
    for subject in ["one", "two"] {
        house.arrives("ana@customer.example", subject, "");
        until(subject, async || house.host.subjects().last().is_some_and(|last| last == subject)).await;
    }
    until("deleted", async || house.incoming.mails(house.inbox.id, "INBOX").is_empty()).await;
    running.stop().await;
    assert_eq!(watched(&house).await.unwrap().way, Some(Way::Poll));
}

/// Would miss a watch that believes its IDLE: the mail would be read after a day.
#[tokio::test(start_paused = true)]
async fn behind_an_idle_that_died_silently_mail_is_found_within_five_minutes() {
    let house = House::new().await;
    let odd = Odd::new(&house.incoming, |step, _| if step == Step::Wait { Act::Silence } else { Act::Do });
    let postroom = over(&house, &odd, Options::default());
    let _running = Running::begin(&postroom);
    until("watched", async || reader(&house).await.is_some()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let arrived = tokio::time::Instant::now();
    house.arrives("ana@customer.example", "hidden", "");
    reads(&house, &["hidden"]).await;
    assert!(arrived.elapsed() <= Duration::from_secs(300), "{:?}", arrived.elapsed());
    assert_eq!(odd.opened(house.inbox.id), 1, "in the same session");
}

#[tokio::test]
async fn settings_that_change_end_the_session_that_was_opened_by_the_old_ones() {
    let house = House::with_options(only_told()).await;
    let odd = Odd::new(&house.incoming, |_, _| Act::Do);
    let postroom = over(&house, &odd, only_told());
    let _running = Running::begin(&postroom);
    until("watched", async || odd.opened(house.inbox.id) == 1).await;
    postroom.set_status(&actor(), house.inbox.id, Status::Disabled).await.unwrap();
    until("left", async || reader(&house).await.is_none()).await;
    house.arrives("ana@customer.example", "one", "");
    postroom.set_status(&actor(), house.inbox.id, Status::Active).await.unwrap();
    reads(&house, &["one"]).await;
    assert_eq!(odd.opened(house.inbox.id), 2);
}

/// Would miss a reader that lost its lease because the process stood still: it ends in the same way.
#[tokio::test]
async fn a_run_that_ends_by_itself_reads_an_inbox_anew_whose_reader_was_ended_by_a_change() {
    let house = House::with_options(only_told()).await;
    house.arrives("ana@customer.example", "one", "");
    let opened = AtomicBool::new(false);
    let odd = Odd::new(&house.incoming, move |step, _| match step {
        Step::Open if !opened.swap(true, Ordering::SeqCst) => Act::Hang,
        _ => Act::Do,
    });
    let postroom = over(&house, &odd, only_told());
    let running = postroom.run_with(Work::all().only_receiving().until_idle(), std::future::pending());
    let change = async {
        until("connecting", async || odd.opened(house.inbox.id) == 1).await;
        postroom.set_status(&actor(), house.inbox.id, Status::Disabled).await.unwrap();
        postroom.set_status(&actor(), house.inbox.id, Status::Active).await.unwrap();
    };
    let (ran, ()) = tokio::join!(running, change);
    ran.unwrap();
    assert_eq!(house.host.subjects(), ["one"]);
}

/// Would miss settings that change while a mail is being read. A watch that goes on by those that it began with marks both as read.
#[tokio::test]
async fn what_comes_after_another_process_changed_the_settings_is_read_by_the_new_ones() {
    let house = House::with_options(only_told()).await;
    let odd = Odd::new(&house.incoming, |_, _| Act::Do);
    // Which settings are in force, a renewal tells after eight hours; what has changed within the process, nobody tells this one.
    let lease = only_told().poll;
    let _running = Running::begin(&over(&house, &odd, Options { lease, ..only_told() }));
    until("watched", async || reader(&house).await.is_some()).await;
    house.arrives("ana@customer.example", "one", "");
    let (id, revision) = (house.inbox.id, house.inbox.revision);
    let seen = || house.incoming.mails(id, "INBOX").iter().map(|mail| mail.seen).collect::<Vec<_>>();
    until("read to its end", async || seen() == [true]).await;
    let (provider, baseline) = ("imaps".to_owned(), Some("all".to_owned()));
    let form = InboxDraft { provider, baseline, after: Some("leave".to_owned()), ..InboxDraft::default() };
    let leave = inbox("imap.acme.example", form);
    house.postroom.edit(&actor(), id, revision, &leave, SecretChange::Keep).await.unwrap();
    house.arrives("ana@customer.example", "two", "");
    reads(&house, &["one", "two"]).await;
    assert_eq!((seen(), odd.opened(id)), (vec![true, false], 2));
}

#[tokio::test]
async fn an_inbox_that_hangs_or_panics_holds_up_no_other() {
    let house = House::with_options(only_told()).await;
    let mut ids = Vec::new();
    for server in ["hangs.example", "panics.example"] {
        let form = InboxDraft { provider: "imaps".to_owned(), ..InboxDraft::default() };
        let more = inbox(server, form);
        ids.push(house.postroom.register(&actor(), &more, password(), Status::Active).await.unwrap().id);
    }
    let (hangs, panics) = (ids[0], ids[1]);
    let odd = Odd::new(&house.incoming, move |step, inbox| {
        assert!(!(step == Step::Open && inbox == panics), "the script says panic");
        if inbox == hangs { Act::Hang } else { Act::Do }
    });
    let postroom = over(&house, &odd, Options { connections: 1, ..only_told() });
    let _running = Running::begin(&postroom);
    house.arrives("ana@customer.example", "one", "");
    reads(&house, &["one"]).await;
    let book: &dyn HealthBook = house.postroom.store();
    until("recorded", async || book.health(panics).await.unwrap().failures == 1).await;
    house.arrives("ana@customer.example", "two", "");
    reads(&house, &["one", "two"]).await;
}

/// Would miss what locks accounts: a retry each few seconds or minutes.
#[tokio::test]
async fn after_a_refused_sign_in_an_inbox_is_parked_for_ever_longer_until_a_person_is_asked() {
    let house = House::new().await;
    let refused = || Error::new(ErrorKind::SignInRefused, Stage::SignIn);
    house.incoming.fail(refused());
    let book: &dyn HealthBook = house.postroom.store();
    for minutes in [15, 60, 240] {
        house.work().await;
        let health = book.health(house.inbox.id).await.unwrap();
        let parked = health.next_attempt.unwrap().since(house.postroom.now());
        assert!(!health.suspended && parked >= Duration::from_secs(minutes * 60), "{health:?}");
        assert!(health.last_error.unwrap().contains("check user and password"));
        house.clock.advance(parked);
    }
    house.work().await;
    assert!(book.health(house.inbox.id).await.unwrap().suspended);
    // New settings are tried at once.
    house.incoming.recover();
    house.arrives("ana@customer.example", "one", "");
    house.postroom.set_status(&actor(), house.inbox.id, Status::Active).await.unwrap();
    house.work().await;
    assert_eq!(house.host.subjects(), ["one"]);
}

/// Would miss a backoff that a mere connection resets: the server would be dialled 700 times in the hour.
#[tokio::test(start_paused = true)]
async fn a_server_that_lets_everybody_in_and_drops_them_is_not_dialled_again_and_again() {
    let house = House::new().await;
    let dropped = || Error::new(ErrorKind::Disconnected, Stage::Wait);
    let odd = Odd::new(
        &house.incoming,
        move |step, _| {
            if step == Step::Wait { Act::Fail(dropped()) } else { Act::Do }
        },
    );
    let postroom = over(&house, &odd, Options::default());
    let running = Running::begin(&postroom);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    running.stop().await;
    let opened = odd.opened(house.inbox.id);
    assert!((50..=70).contains(&opened), "once a minute: {opened}");
}

#[tokio::test(start_paused = true)]
async fn failures_are_forgotten_once_a_session_has_survived() {
    let house = House::new().await;
    let book: &dyn HealthBook = house.postroom.store();
    house.incoming.fail_once(Error::new(ErrorKind::Disconnected, Stage::List));
    let running = Running::begin(&house.postroom);
    until("failed", async || book.health(house.inbox.id).await.unwrap().failures == 1).await;
    house.clock.advance(Duration::from_secs(20));
    // Read again, but not yet believed.
    until("read", async || reader(&house).await.is_some()).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(book.health(house.inbox.id).await.unwrap().failures, 1);
    until("forgotten", async || book.health(house.inbox.id).await.unwrap().failures == 0).await;
    running.stop().await;
}

#[tokio::test]
async fn processes_share_the_inboxes_and_a_dead_ones_go_to_the_others() {
    let house = House::with_options(only_told()).await;
    let form = InboxDraft { provider: "imaps".to_owned(), ..InboxDraft::default() };
    let more = inbox("more.example", form);
    house.postroom.register(&actor(), &more, password(), Status::Active).await.unwrap();
    // Two processes: handles of their own over one store.
    let odd = Odd::new(&house.incoming, |_, _| Act::Do);
    let options = || Options { lease: Duration::from_secs(2), ..only_told() };
    let (first, second) = (over(&house, &odd, options()), over(&house, &odd, options()));
    let readers = async || {
        let watches: &dyn Watches = house.postroom.store();
        let all = watches.watches(house.postroom.now(), None).await.unwrap();
        all.iter().filter_map(|watch| watch.watcher).collect::<Vec<_>>()
    };
    let one = Running::begin(&first);
    until("the first has both", async || readers().await.len() == 2).await;
    let two = Running::begin(&second);
    let shared = async || matches!(readers().await.as_slice(), [one, two] if one != two);
    until("each has one", shared).await;
    // Killed: it says nothing any more.
    drop(one);
    house.clock.advance(Duration::from_secs(3));
    let alone = async || matches!(readers().await.as_slice(), [one, two] if one == two);
    until("the second has both", alone).await;
    drop(two);
}

/// A process is stopped while it lists, for longer than its lease; meanwhile another one has begun with the inbox, and mail has come.
/// Would miss a reader that writes what it saw too late: the mail would count as old, and be lost.
#[tokio::test]
async fn a_reader_that_was_paused_past_its_lease_changes_nothing() {
    let form = InboxDraft {
        provider: "imaps".to_owned(),
        baseline: Some("new".to_owned()),
        after: Some("seen".to_owned()),
        ..InboxDraft::default()
    };
    let house = House::with_inbox(Options::default(), form).await;
    let place = Arc::new(Mutex::new(None));
    let (store, clock, incoming) = (house.store.clone(), house.clock.clone(), house.incoming.clone());
    let taken = Arc::clone(&place);
    let odd = Odd::new(&house.incoming, move |step, inbox| {
        let mut taken = taken.lock().unwrap();
        if step == Step::List && taken.is_none() {
            // The whole process stands still, as by SIGSTOP.
            std::thread::sleep(Duration::from_millis(2_100));
            clock.advance(Duration::from_secs(3));
            let now = postroom_storage::Clock::now(&*store);
            let other = WorkerId::new(now, [7; 10]);
            let there = Place { mailbox: inbox, folder: "INBOX".to_owned(), epoch: 1 };
            let begins = async {
                let lease =
                    store.take(now, other, 1, Portion::All, now + Duration::from_secs(3600)).await.unwrap();
                assert_eq!(lease.len(), 1, "the lease ran out");
                store.advance(&there, Reached::Whole(now)).await.unwrap();
            };
            // The store in memory never waits.
            let waker = std::task::Waker::noop();
            let polled = std::pin::pin!(begins).poll(&mut std::task::Context::from_waker(waker));
            assert!(polled.is_ready());
            incoming.deliver(inbox, "INBOX", "Subject: news\r\n\r\nx\r\n");
            *taken = Some(there.clone());
        }
        Act::Do
    });
    let postroom = over(&house, &odd, Options { lease: Duration::from_secs(2), ..only_told() });
    let running = Running::begin(&postroom);
    until("paused", async || place.lock().unwrap().is_some()).await;
    running.stop().await;
    let place = place.lock().unwrap().clone().unwrap();
    let intake: &dyn LedgerIntake = house.postroom.store();
    assert_eq!(intake.contact(&place).await.unwrap(), Contact::Known { frontier: 0 });
    assert!(!house.incoming.mails(house.inbox.id, "INBOX")[0].seen);
}
