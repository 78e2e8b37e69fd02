//! How long mail of one outbox takes while another outbox hangs or holds a backlog, beside how long it takes while the other one has
//! nothing: the 95th percentile of the time from submission until its server has taken it, and until that is stored. `cargo xtask bench
//! isolation` runs it and prints the ratios; that such mail is delivered at all is a test in `tests/faults/isolation.rs`.

#![expect(clippy::print_stdout, reason = "a benchmark says what it has measured")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use futures_util::future::join_all;
use postroom_core::address::Address;
use postroom_core::contract::Contract;
use postroom_core::id::{Actor, ContractId, QueueId};
use postroom_core::mailbox::{MailboxDraft, OutboxDraft, SettingsDraft, Status};
use postroom_core::message::Submission;
use postroom_core::secret::SecretChange;
use postroom_engine::{Event, Observer, Postroom, Submitted, Work};
use postroom_storage::SqliteStore;
use postroom_storage::keyring::aead::{AeadKeyring, Key};
use postroom_testkit::{Fault, MailServer, Step};
use postroom_transport::smtp::SmtpTransport;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

#[derive(Debug, Parser)]
struct Arguments {
    /// How many mails the other outbox holds where it holds a backlog.
    #[arg(long, default_value_t = 100_000)]
    backlog: usize,
    /// What the other outbox does, beside having nothing to do; all of it, if nothing is said.
    #[arg(long)]
    beside: Vec<Other>,
    /// How many mails are timed.
    #[arg(long, default_value_t = 300)]
    mails: usize,
    /// How many milliseconds lie between two of them.
    #[arg(long, default_value_t = 10)]
    pause_ms: u64,
    /// How often everything is measured; the medians are printed.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// What cargo gives to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    /// Whether every timed mail arrives is asked, once, with few mails; nothing is told of the times.
    #[arg(long)]
    test: bool,
}

/// What the other outbox does meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Other {
    /// It has nothing to send.
    Idle,
    /// Its server accepts TCP and says nothing.
    Silent,
    /// Its server says nothing after the dot.
    HangsAtDot,
    /// It has a backlog, and a server that takes 2 ms for each byte of its answers to the dot.
    SlowBacklog,
    /// It has a backlog, and a server as good as the other.
    Backlog,
}

impl Other {
    /// Without the idle one.
    const ALL: [Self; 4] = [Self::Silent, Self::HangsAtDot, Self::SlowBacklog, Self::Backlog];
}

/// When each mail's result was stored.
#[derive(Debug, Default)]
struct Ends {
    ends: Mutex<HashMap<QueueId, Instant>>,
    rung: Notify,
}

impl Observer for Ends {
    fn observe(&self, event: &Event) {
        if let Event::Sent { id, .. } = event {
            self.ends.lock().expect("no panic under the lock").insert(*id, Instant::now());
            self.rung.notify_one();
        }
    }
}

fn main() {
    let mut arguments = Arguments::parse();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    if arguments.beside.is_empty() {
        arguments.beside = Other::ALL.into();
    }
    arguments.beside.retain(|other| *other != Other::Idle);
    arguments.beside.insert(0, Other::Idle);
    if arguments.test {
        (arguments.mails, arguments.backlog) = (20, 50);
        for other in arguments.beside.clone() {
            runtime.block_on(measure(&arguments, other));
        }
        return println!("isolation: every mail beside another outbox arrives");
    }
    // What is slow once only, as the first opening of a file, is no part of it.
    runtime.block_on(measure(&arguments, Other::Idle));
    let mut figures: Vec<(Other, [Vec<f64>; 4])> =
        arguments.beside.iter().map(|other| (*other, Default::default())).collect();
    for _ in 0..arguments.rounds {
        for (other, figures) in &mut figures {
            let measured = runtime.block_on(measure(&arguments, *other));
            for (figures, measured) in figures.iter_mut().zip(measured) {
                figures.push(measured.as_secs_f64() * 1e3);
            }
        }
    }
    println!("{:<14} {:^23}   {:^23}", "", "delivered", "stored");
    println!(
        "{:<14} {:>7} {:>7} {:>7}   {:>7} {:>7} {:>7}",
        "", "p50", "p95", "ratio", "p50", "p95", "ratio"
    );
    let mut idle = None;
    for (other, figures) in figures {
        let [half, most, half_stored, most_stored] = figures.map(median);
        let (idle, idle_stored) = *idle.get_or_insert((most, most_stored));
        println!(
            "{:<14} {half:>7.1} {most:>7.1} {:>7.2}   {half_stored:>7.1} {most_stored:>7.1} {:>7.2}",
            format!("{other:?}"),
            most / idle,
            most_stored / idle_stored
        );
    }
    println!("in ms from submission until its server has taken a mail, and until that is stored");
    println!(
        "ratio: of the p95 to that beside an idle one; below 2 for what is delivered is what is promised"
    );
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The 50th and the 95th percentile of the times until the timed mails are delivered, and the same until that is stored.
async fn measure(arguments: &Arguments, other: Other) -> [Duration; 4] {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("isolation.db").display().to_string();
    let store = SqliteStore::open(&file).await.expect("a store");
    let ends = Arc::new(Ends::default());
    let postroom = Postroom::builder(Arc::new(store))
        .with_keyring(Arc::new(AeadKeyring::new(Key::generate("1").expect("a key"))))
        .with_outgoing(Arc::new(SmtpTransport::new()))
        .with_observer(Arc::clone(&ends) as Arc<dyn Observer>)
        .build();
    let (bad, good) =
        (MailServer::start().await.expect("a server"), MailServer::start().await.expect("a server"));
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (port, backlog) = match other {
        Other::Idle => (bad.smtp_port(), 0),
        Other::Silent => (silent.local_addr().expect("an address").port(), 50),
        Other::HangsAtDot => {
            bad.fault(Fault::stall(Step::Dot));
            (bad.smtp_port(), 50)
        }
        Other::SlowBacklog => {
            bad.fault(Fault::drip(Step::Dot, Duration::from_millis(2)));
            (bad.smtp_port(), arguments.backlog)
        }
        Other::Backlog => (bad.smtp_port(), arguments.backlog),
    };
    link(&postroom, "A", port).await;
    link(&postroom, "B", good.smtp_port()).await;
    for from in (0..backlog).step_by(500) {
        join_all((from..backlog.min(from + 500)).map(|_| submit(&postroom, "A"))).await;
    }
    let worker = postroom.clone();
    let _worker = JoinSet::from_iter([async move {
        worker.run_with(Work::all().only_sending(), std::future::pending()).await.expect("a worker");
    }]);
    // Until the other one has all the connections that it may have.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut begun = Vec::with_capacity(arguments.mails);
    for _ in 0..arguments.mails {
        let start = Instant::now();
        begun.push((submit(&postroom, "B").await, start));
        tokio::time::sleep(Duration::from_millis(arguments.pause_ms)).await;
    }
    let mut stored = Vec::with_capacity(arguments.mails);
    for (submitted, start) in &begun {
        let end = loop {
            let end = ends.ends.lock().expect("no panic under the lock").get(&submitted.id).copied();
            match end {
                Some(end) => break end,
                None => ends.rung.notified().await,
            }
        };
        stored.push(end.duration_since(*start));
    }
    let accepted = good.accepted().into_iter();
    let accepted: HashMap<_, _> =
        accepted.map(|mail| (mail.message_id.unwrap_or_default(), mail.at)).collect();
    let delivered = begun.iter().map(|(submitted, start)| {
        accepted
            .get(&submitted.message_id)
            .expect("a mail that the good server has taken")
            .duration_since(*start)
    });
    let [half, most] = percentiles(delivered.collect());
    let [half_stored, most_stored] = percentiles(stored);
    [half, most, half_stored, most_stored]
}

/// The 50th and the 95th.
fn percentiles(mut times: Vec<Duration>) -> [Duration; 2] {
    times.sort_unstable();
    [50, 95].map(|percent| times[times.len() * percent / 100])
}

async fn link(postroom: &Postroom, id: &str, port: u16) {
    let actor = Actor::parse("bench").expect("an actor");
    let form = OutboxDraft {
        tls: "none".to_owned(),
        auth: "none".to_owned(),
        senders: vec!["desk@acme.example".to_owned()],
        ..OutboxDraft::default()
    };
    let mut draft = MailboxDraft::new(id, "127.0.0.1", SettingsDraft::Outbox(form));
    draft.port = Some(port.into());
    let outbox =
        postroom.register(&actor, &draft, SecretChange::Keep, Status::Active).await.expect("an outbox");
    let contract = Contract::new(ContractId::parse(id).expect("an id")).with_outbox(outbox.id, None);
    postroom.save_contract(&actor, &contract).await.expect("a contract");
}

async fn submit(postroom: &Postroom, id: &str) -> Submitted {
    let to = Address::parse("ana@customer.example").expect("an address");
    let mail =
        Submission::text(ContractId::parse(id).expect("an id"), "subject", "x".repeat(1024)).with_to(to);
    postroom.submit(&mail).await.expect("a queued mail")
}
