//! The server breaks off, falls silent or drips at every step of a session, before and after each reply, and the whole house, with
//! SQLite and SMTP over loopback, keeps promises P1 and P4: before the mark the mail is taken again and arrives once; marked and
//! not answered it is in doubt and is not sent again by itself; answered it is done. Time is the test's own. What a worker's death
//! leaves is in `journeys/kill.rs` and `cargo xtask kill`.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "faults/clocks.rs"]
mod clocks;
#[path = "faults/crowd.rs"]
mod crowd;
#[path = "faults/databases.rs"]
mod databases;
#[path = "faults/death.rs"]
mod death;
#[cfg(target_os = "linux")]
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/endless.rs"]
mod endless;
#[path = "faults/herd.rs"]
mod herd;
#[cfg(target_os = "linux")]
#[path = "faults/host.rs"]
mod host;
#[path = "faults/house.rs"]
mod house;
#[path = "faults/isolation.rs"]
mod isolation;
#[path = "faults/medium.rs"]
mod medium;
#[path = "faults/moments.rs"]
mod moments;
#[path = "faults/oauth.rs"]
mod oauth;
#[cfg(target_os = "linux")]
#[path = "faults/power.rs"]
mod power;
#[cfg(target_os = "linux")]
#[path = "faults/preload.rs"]
mod preload;
#[path = "faults/proxy.rs"]
mod proxy;
#[path = "faults/receiving.rs"]
mod receiving;
#[path = "faults/renumbered.rs"]
mod renumbered;
#[path = "faults/replies.rs"]
mod replies;
#[path = "faults/restored.rs"]
mod restored;
#[path = "faults/rows.rs"]
mod rows;
#[path = "faults/stopping.rs"]
mod stopping;
#[path = "faults/store.rs"]
mod store;
#[path = "faults/unseen.rs"]
mod unseen;
#[path = "faults/wired.rs"]
mod wired;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postroom::core::address::Address;
use postroom::core::contract::Contract;
use postroom::core::id::{Actor, ContractId};
use postroom::core::mailbox::{MailboxDraft, OutboxDraft, SettingsDraft, Status};
use postroom::core::message::Submission;
use postroom::core::queue::State;
use postroom::core::secret::{SecretChange, SecretString};
use postroom::core::time::Timestamp;
use postroom::engine::{Submitted, Work};
use postroom::storage::keyring::aead::{AeadKeyring, Key};
use postroom::storage::sql::sqlite::{SqliteOptions, SqliteStore};
use postroom::storage::{ManualClock, QueueDesk, QueueRecord};
use postroom::transport::smtp::{SmtpTransport, Timeouts};
use postroom::{Options, Postroom};
use postroom_testkit::{Fault, MailServer, Step};
use tokio::task::JoinSet;

/// How long the transport waits for each reply: a server that answers must never be taken for a silent one.
const PATIENCE: Duration = Duration::from_secs(3);

struct House {
    postroom: Postroom,
    clock: Arc<ManualClock>,
    server: MailServer,
}

impl House {
    async fn open(folder: &Path, connections: u32) -> Self {
        let server = MailServer::builder().account("desk@acme.example", "secret").start().await.unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)));
        let url = format!("sqlite://{}", folder.join("queue.db").display());
        let store =
            SqliteStore::open_with(&url, SqliteOptions::new().with_clock(clock.clone())).await.unwrap();
        let transport = SmtpTransport::new().with_timeouts(Timeouts::default().at_most(PATIENCE));
        let postroom = Postroom::builder(Arc::new(store))
            .with_keyring(Arc::new(AeadKeyring::new(Key::generate("1").unwrap())))
            .with_outgoing(Arc::new(transport))
            .with_options(Options { look: Duration::from_millis(50), ..Options::default() })
            .build();
        let form = OutboxDraft {
            tls: "starttls".to_owned(),
            auth: "password".to_owned(),
            user: Some("desk@acme.example".to_owned()),
            senders: vec!["desk@acme.example".to_owned()],
            max_connections: Some(connections),
            ..OutboxDraft::default()
        };
        let draft = MailboxDraft {
            description: "Desk".to_owned(),
            server: "localhost".to_owned(),
            port: Some(server.smtp_port().into()),
            authority: Some(server.ca_pem().to_owned()),
            max_message: None,
            danger_plaintext: false,
            settings: SettingsDraft::Outbox(form),
        };
        let (actor, password) = (Actor::parse("test").unwrap(), SecretString::from("secret"));
        let outbox =
            postroom.register(&actor, &draft, SecretChange::Set(password), Status::Active).await.unwrap();
        let contract = Contract::new(ContractId::parse("ACME").unwrap()).with_outbox(outbox.id, None);
        postroom.save_contract(&actor, &contract).await.unwrap();
        Self { postroom, clock, server }
    }

    async fn submit(&self) -> Submitted {
        let to = Address::parse("ana@customer.example").unwrap();
        let contract = ContractId::parse("ACME").unwrap();
        self.postroom.submit(&Submission::text(contract, "subject", "text").with_to(to)).await.unwrap()
    }

    /// Works until nothing is due at the present time.
    async fn work(&self) {
        let run = self.postroom.run_with(Work::all().until_idle(), std::future::pending());
        tokio::time::timeout(Duration::from_secs(60), run).await.expect("the worker becomes idle").unwrap();
    }

    /// Longer than a mailbox rests after a first failure and a mail waits after two.
    fn wait(&self) {
        self.clock.advance(Duration::from_secs(10 * 60));
    }

    async fn show(&self, mail: &Submitted) -> QueueRecord {
        let desk: &dyn QueueDesk = self.postroom.store();
        desk.show(mail.id).await.unwrap().unwrap()
    }
}

/// What becomes of a mail whose session fails once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It is taken again, and arrives once.
    Again,
    /// It is in doubt and stays so; it arrived so often.
    Doubt(usize),
    /// It is taken again and arrives once if the end of the connection was seen before the dot left, else in doubt, having arrived
    /// nowhere.
    AgainOrDoubt,
    /// It is done, and is not touched again.
    Done,
}

async fn check(name: String, fault: Fault, mut end: End) {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path(), 1).await;
    let mail = house.submit().await;
    house.server.fault(fault.times(1));
    house.work().await;
    let first = house.show(&mail).await.item.state;
    if end == End::AgainOrDoubt {
        end = if first == State::InDoubt { End::Doubt(0) } else { End::Again };
    }
    let expected = match end {
        // A connection that ended while it waited for its first mail is replaced at once.
        End::Again | End::AgainOrDoubt => [State::Queued, State::Accepted].as_slice(),
        End::Doubt(_) => &[State::InDoubt],
        End::Done => &[State::Accepted],
    };
    assert!(expected.contains(&first), "{name}: {first} after the fault");
    for _ in 0..2 {
        house.wait();
        house.work().await;
    }
    let record = house.show(&mail).await;
    let arrived = house.server.find_accepted_by_message_id(&mail.message_id).len();
    let expected = match end {
        End::Again | End::AgainOrDoubt | End::Done => (State::Accepted, 1),
        End::Doubt(arrived) => (State::InDoubt, arrived),
    };
    assert_eq!((record.item.state, arrived), expected, "{name}: {:#?}", record.timeline);
    let has_doubted = record.timeline.iter().any(|entry| entry.state == Some(State::InDoubt));
    assert_eq!(has_doubted, matches!(end, End::Doubt(_)), "{name}: {:#?}", record.timeline);
    assert!(house.server.sessions().len() > usize::from(end == End::Again), "{name}: the fault was met");
}

// Seen to fail when a doubt is sent again, and when a lost reply counts as a lost connection. Would miss a mark that is committed too
// late, which only a worker's death shows, and a fault that needs a connection that has carried a mail before.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_breaks_at_whatever_step_the_mail_is_sent_again_in_doubt_or_done() {
    type Make = fn(Step) -> Fault;
    let kinds: [(&str, Make); 4] = [
        ("closed in place of", Fault::close),
        ("closed after", Fault::close_after),
        ("silent in place of", Fault::stall),
        ("silent after", Fault::stall_after),
    ];
    let mut cases = JoinSet::new();
    for step in Step::ALL {
        for (kind, make) in kinds {
            let end = match (step, kind) {
                (Step::Dot, "closed after" | "silent after") => End::Done,
                (Step::Data, "closed after") => End::AgainOrDoubt,
                // 354 was read, the mark was set, the dot left: from here on nobody knows.
                (Step::Dot, _) | (Step::Data, "silent after") => End::Doubt(0),
                _ => End::Again,
            };
            cases.spawn(check(format!("{kind} {step:?}"), make(step), end));
        }
        let slow = if step == Step::Dot { End::Doubt(1) } else { End::Again };
        cases.spawn(check(format!("dripped at {step:?}"), Fault::drip(step, PATIENCE / 4), slow));
    }
    let odd: [(&str, Fault, End); 9] = [
        ("said twice", Fault::twice(Step::Greeting), End::Again),
        ("said twice", Fault::twice(Step::Mail), End::Again),
        ("said twice", Fault::twice(Step::Rcpt), End::Again),
        // The mark is set by then, and it can be said that no dot has left.
        ("said twice", Fault::twice(Step::Data), End::Again),
        ("said twice", Fault::twice(Step::Dot), End::Done),
        // 354 in the place of RCPT's reply.
        ("in the wrong order", Fault::late(Step::Rcpt), End::Again),
        ("never said", Fault::late(Step::Dot), End::Doubt(1)),
        ("answered by nonsense", Fault::instead(Step::Data, 250, "fine"), End::Again),
        ("answered by nonsense", Fault::instead(Step::Dot, 354, "go on"), End::Doubt(1)),
    ];
    for (kind, fault, end) in odd {
        cases.spawn(check(format!("{kind}: {fault:?}"), fault, end));
    }
    for step in Step::ALL {
        let split = Fault::split(step, Duration::from_millis(20));
        cases.spawn(check(format!("split at {step:?}"), split, End::Done));
        if !matches!(step, Step::Data | Step::Dot) {
            let wrong = Fault::instead(step, 354, "go on");
            cases.spawn(check(format!("354 at {step:?}"), wrong, End::Again));
        }
    }
    cases.spawn(check("taken, and not said".to_owned(), Fault::lost_reply(), End::Doubt(1)));
    while let Some(case) = cases.join_next().await {
        case.unwrap();
    }
}

// Seen to fail when a mail is claimed before its connection is there, and a limit costs it an attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_connections_delays_mail_and_costs_it_no_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path(), 4).await;
    house.server.fault(Fault::connections(1));
    let mut mails = Vec::new();
    for _ in 0..20 {
        mails.push(house.submit().await);
    }
    for _ in 0..40 {
        house.work().await;
        if house.server.accepted_count() >= mails.len() {
            break;
        }
        house.wait();
    }
    assert!(house.server.sessions().len() > 1, "the limit was met");
    assert_eq!(house.server.accepted_count(), mails.len());
    for mail in &mails {
        let item = house.show(mail).await.item;
        assert_eq!((item.state, item.attempts), (State::Accepted, 1), "{item:?}");
        assert_eq!(house.server.find_accepted_by_message_id(&mail.message_id).len(), 1);
    }
}
