//! How long mail of one outbox takes while another outbox hangs or holds a backlog, beside how long it takes while the other one has
//! nothing: the 95th percentile of the time from submission to the stored result. `cargo xtask bench isolation` runs it and prints
//! the ratios; that such mail is delivered at all is a test in `tests/faults/isolation.rs`.

#![expect(clippy::print_stdout, reason = "a benchmark says what it has measured")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use futures_util::future::join_all;
use postroom_core::address::Address;
use postroom_core::contract::Contract;
use postroom_core::id::{Actor, ContractId, QueueId};
use postroom_core::mailbox::{MailboxDraft, OutboxDraft, SettingsDraft, Status};
use postroom_core::message::Submission;
use postroom_core::secret::SecretChange;
use postroom_engine::{Event, Observer, Postroom, Work};
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
    #[arg(long, default_value_t = 5000)]
    backlog: usize,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    const ALL: [Self; 5] = [Self::Idle, Self::Silent, Self::HangsAtDot, Self::SlowBacklog, Self::Backlog];
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
    if arguments.test {
        (arguments.mails, arguments.backlog) = (20, 50);
        for other in Other::ALL {
            runtime.block_on(measure(&arguments, other));
        }
        return println!("isolation: every mail beside another outbox arrives");
    }
    // What is slow once only, as the first opening of a file, is no part of it.
    runtime.block_on(measure(&arguments, Other::Idle));
    let mut figures: Vec<(Other, Vec<f64>, Vec<f64>)> =
        Other::ALL.map(|other| (other, Vec::new(), Vec::new())).into();
    for _ in 0..arguments.rounds {
        for (other, halves, figures) in &mut figures {
            let (half, figure) = runtime.block_on(measure(&arguments, *other));
            halves.push(half.as_secs_f64() * 1e3);
            figures.push(figure.as_secs_f64() * 1e3);
        }
    }
    println!("{:<14} {:>10} {:>10} {:>8}", "the other one", "p50 in ms", "p95 in ms", "ratio");
    let mut idle = f64::NAN;
    for (other, mut halves, mut figures) in figures {
        let (half, figure) = (median(&mut halves), median(&mut figures));
        if other == Other::Idle {
            idle = figure;
        }
        println!("{:<14} {half:>10.1} {figure:>10.1} {:>8.2}", format!("{other:?}"), figure / idle);
    }
    println!("ratio: of the p95 to that beside an idle one; below 2 is what is promised");
}

fn median(of: &mut [f64]) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The 50th and the 95th percentile of the times of the timed mails.
async fn measure(arguments: &Arguments, other: Other) -> (Duration, Duration) {
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
    let mut times = Vec::with_capacity(arguments.mails);
    for (id, start) in begun {
        let end = loop {
            let end = ends.ends.lock().expect("no panic under the lock").get(&id).copied();
            match end {
                Some(end) => break end,
                None => ends.rung.notified().await,
            }
        };
        times.push(end.duration_since(start));
    }
    assert_eq!(good.accepted_count(), arguments.mails, "mails that the good server has taken");
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 95 / 100])
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

async fn submit(postroom: &Postroom, id: &str) -> QueueId {
    let to = Address::parse("ana@customer.example").expect("an address");
    let mail =
        Submission::text(ContractId::parse(id).expect("an id"), "subject", "x".repeat(1024)).with_to(to);
    postroom.submit(&mail).await.expect("a queued mail").id
}
