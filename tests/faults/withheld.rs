//! A server lists a mail and does not give it: it refuses it, or hangs up whenever it is asked for it, over IMAP and POP3, and a worker ends in
//! between.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use postroom::core::contract::Contract;
use postroom::core::id::MailboxId;
use postroom::engine::Work;
use postroom::storage::{HealthBook, ManualClock};
use postroom::transport::by_protocol::ByProtocol;
use postroom::{Answer, Delivery, MessageHandler, Options, Postroom};
use postroom_testkit::{MailServer, Withheld};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::house::{PATIENCE, actor, contract, inbox_by, keys, sqlite};

const BOX: &str = "desk@acme.example";

/// Counts what it is given.
#[derive(Default)]
struct Counter(Mutex<BTreeMap<String, u32>>);

impl Counter {
    /// Whether these were handed over, each once, and nothing else.
    fn has(&self, subjects: &[&str]) -> bool {
        let given = self.0.lock().unwrap();
        given.len() == subjects.len() && subjects.iter().all(|subject| given.get(*subject) == Some(&1))
    }
}

#[async_trait]
impl MessageHandler for Counter {
    async fn handle(&self, delivery: Delivery) -> Answer {
        *self.0.lock().unwrap().entry(delivery.mail.subject.clone()).or_default() += 1;
        Answer::Done
    }
}

/// A worker that runs, and the clock that it goes by.
struct Shift {
    of: String,
    postroom: Postroom,
    clock: Arc<ManualClock>,
    stop: oneshot::Sender<()>,
    task: JoinSet<()>,
}

impl Shift {
    async fn open(folder: &Path, hours: u64, counter: &Arc<Counter>) -> (Postroom, Arc<ManualClock>) {
        let (store, clock) = sqlite(folder, Duration::from_secs(3600 * hours)).await;
        let often = Duration::from_millis(50);
        let options = Options { look: often, poll: often, reconcile: often * 10, ..Options::default() };
        let postroom = Postroom::builder(store)
            .with_keyring(keys())
            .with_incoming(Arc::new(ByProtocol::new()))
            .with_handler(counter.clone())
            // No jump of the clock ends it.
            .with_options(Options { lease: Duration::from_secs(24 * 3600), ..options })
            .build();
        (postroom, clock)
    }

    fn begin(of: &str, (postroom, clock): (Postroom, Arc<ManualClock>)) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (worker, mut task) = (postroom.clone(), JoinSet::new());
        task.spawn(async move {
            let stopped = async { _ = stopped.await };
            worker.run_with(Work::all().only_receiving(), stopped).await.unwrap();
        });
        Self { of: of.to_owned(), postroom, clock, stop, task }
    }

    /// Time passes, five minutes at once, until it is so.
    async fn until(&self, what: &str, so: impl AsyncFn() -> bool) {
        let what = format!("{}: {what}", self.of);
        let waits = async {
            while !so().await {
                tokio::time::sleep(Duration::from_millis(300)).await;
                self.clock.advance(Duration::from_secs(300));
            }
        };
        tokio::time::timeout(PATIENCE, waits).await.unwrap_or_else(|_| panic!("{what}"));
    }

    async fn hands_over(&self, counter: &Counter, subjects: &[&str]) {
        self.until(&format!("{subjects:?}"), async || counter.has(subjects)).await;
    }

    /// What the inbox's health names.
    async fn named(&self, inbox: MailboxId) -> String {
        let health = HealthBook::health(self.postroom.store(), inbox).await.unwrap();
        health.last_error.unwrap_or_default()
    }

    async fn end(mut self) {
        let _ = self.stop.send(());
        self.task.join_next().await.unwrap().unwrap();
    }
}

/// What does not hold for a mail that is withheld so, by this protocol.
async fn withholds(provider: &'static str, how: Withheld) {
    let of = format!("{provider}, {how:?}");
    let folder = tempfile::tempdir().unwrap();
    let server = MailServer::builder().account(BOX, "secret").start().await.unwrap();
    let arrives = |subject: &str| {
        server.deliver(BOX, format!("From: ana@customer.example\r\nSubject: {subject}\r\n\r\nHello.\r\n"))
    };
    let counter = Arc::new(Counter::default());
    let opened = Shift::open(folder.path(), 0, &counter).await;
    let inbox = inbox_by(provider, &opened.0, &server, BOX, "leave").await;
    let linked = Contract::new(contract("ACME")).with_inbox(inbox.id);
    opened.0.save_contract(&actor(), &linked).await.unwrap();
    arrives("one");
    server.withhold(BOX, "INBOX", arrives("withheld"), how);
    arrives("two");
    let shift = Shift::begin(&of, opened);
    shift.hands_over(&counter, &["one", "two"]).await;
    // Over which a server hangs up, a session has to survive a minute before its inbox works.
    let is_named =
        async |shift: &Shift| how == Withheld::HungUp || shift.named(inbox.id).await.contains("is not given");
    shift.until("named", async || is_named(&shift).await).await;
    shift.end().await;
    arrives("three");
    let shift = Shift::begin(&of, Shift::open(folder.path(), 1000, &counter).await);
    shift.hands_over(&counter, &["one", "two", "three"]).await;
    shift.until("named again", async || is_named(&shift).await).await;
    server.give(BOX, "INBOX");
    shift.hands_over(&counter, &["one", "two", "three", "withheld"]).await;
    let is_well = async || how == Withheld::HungUp || shift.named(inbox.id).await.is_empty();
    shift.until("well", is_well).await;
    arrives("four");
    shift.hands_over(&counter, &["one", "two", "three", "withheld", "four"]).await;
    shift.end().await;
}

/// Would miss a mail that ends each reading of its inbox, one that is given up, and one that nobody is told of. Seen to fail so.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_a_server_does_not_give_holds_up_no_other_over_a_restart_and_is_named_until_it_is_given()
{
    let (refused, hung_up) = (Withheld::Refused, Withheld::HungUp);
    tokio::join!(
        withholds("imaps", refused),
        withholds("imaps", hung_up),
        withholds("pop3s", refused),
        withholds("pop3s", hung_up)
    );
}
