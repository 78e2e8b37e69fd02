//! How many mails a second go the whole way: submitted, on the medium, handed to a server, settled on the medium. One run of one
//! store; `cargo xtask bench deliver` starts the server, runs this and Postfix in turn, and prints the ratios.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark says what it has measured")]

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Parser;
use postroom_core::address::Address;
use postroom_core::contract::Contract;
use postroom_core::id::{Actor, ContractId, MailboxId};
use postroom_core::mailbox::{MailboxDraft, OutboxDraft, SettingsDraft, Status};
use postroom_core::message::Submission;
use postroom_core::queue::Event as QueueEvent;
use postroom_core::secret::SecretChange;
use postroom_core::time::Timestamp;
use postroom_engine::{Event, Observer, Postroom, Work};
use postroom_storage::keyring::aead::{AeadKeyring, Key};
use postroom_storage::memory::MemoryStore;
use postroom_storage::{MySqlStore, PgStore, SqliteStore, Store};
use postroom_testkit::{MailServer, Protocol};
use postroom_transport::smtp::SmtpTransport;
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The key of the store, which no secret is kept in: two processes seal and open by it.
const KEY: &str = "1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

#[derive(Debug, Parser)]
#[command(args_override_self = true)]
struct Arguments {
    /// A server that takes every mail, without TLS and sign-in.
    #[arg(long)]
    address: Option<SocketAddr>,
    /// Where the rows are: `sqlite` (a file in the folder for temporary files), `sqlite:FILE`, `memory`, or `postgres://..` or `mysql://..`,
    /// an empty database.
    #[arg(long, default_value = "sqlite")]
    store: String,
    /// The outboxes are registered and the backlog submitted, nothing more. A process of its own does so: what it leaves of the heap in
    /// pieces is no part of what is measured.
    #[arg(long, hide = true)]
    prepare: bool,
    /// How many mails are submitted and sent.
    #[arg(long, default_value_t = 5000)]
    mails: usize,
    /// How many bytes of text each has.
    #[arg(long, default_value_t = 4096)]
    size: usize,
    /// How many submit at the same time.
    #[arg(long, default_value_t = 10)]
    submitters: usize,
    /// How many connections an outbox has.
    #[arg(long, default_value_t = 10)]
    connections: u32,
    /// How many outboxes share the mails.
    #[arg(long, default_value_t = 1)]
    outboxes: usize,
    /// How many other outboxes there are, each with a mail that is not due yet.
    #[arg(long, default_value_t = 0)]
    idle_outboxes: usize,
    /// How many mails of 200 bytes wait in the queue of each outbox, not due yet.
    #[arg(long, default_value_t = 0)]
    backlog: usize,
    /// How many of a hundred mails are poison, which the transport refuses by itself: an address that only SMTPUTF8 can carry.
    #[arg(long, default_value_t = 0)]
    poison: usize,
    /// What cargo gives to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    /// Whether every mail arrives is asked, once, with a server in this process; nothing is timed.
    #[arg(long)]
    test: bool,
}

/// Counts the mails that were accepted, or are poison and were refused, and are settled.
#[derive(Debug, Default)]
struct Counter {
    settled: AtomicUsize,
    /// How many may be refused.
    poison: AtomicUsize,
    rung: Notify,
}

impl Observer for Counter {
    fn observe(&self, event: &Event) {
        match event {
            Event::Sent { results, .. } if results[..] == [QueueEvent::Accept] => {
                self.settled.fetch_add(1, Ordering::SeqCst);
                self.rung.notify_one();
            }
            Event::Sent { results, .. }
                if results[..] == [QueueEvent::Refuse] && self.poison.load(Ordering::SeqCst) > 0 =>
            {
                self.poison.fetch_sub(1, Ordering::SeqCst);
                self.settled.fetch_add(1, Ordering::SeqCst);
                self.rung.notify_one();
            }
            Event::Sent { .. } | Event::Failed { .. } | Event::StoreFailed { .. } => {
                // A panic would end the worker's task alone, and the run would wait for ever.
                eprintln!("not what is measured: {event}");
                std::process::exit(1);
            }
            _ => {}
        }
    }
}

impl Counter {
    async fn reached(&self, mails: usize) {
        while self.settled.load(Ordering::SeqCst) < mails {
            self.rung.notified().await;
        }
    }
}

fn main() {
    let mut arguments = Arguments::parse();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    if arguments.store == "sqlite" {
        arguments.store = format!("sqlite:{}", folder.path().join("deliver.db").display());
    }
    if arguments.test {
        let server = runtime.block_on(MailServer::start()).expect("a server in this process");
        (arguments.mails, arguments.outboxes) = (60, 3);
        (arguments.idle_outboxes, arguments.backlog, arguments.poison) = (2, 5, 10);
        for store in [arguments.store.clone(), "memory".to_owned()] {
            arguments.store = store;
            let (before, address) = (server.accepted().len(), server.address(Protocol::Smtp));
            runtime.block_on(async { deliver(&arguments, prepared(&arguments, address).await).await });
            let good = arguments.mails - arguments.poison;
            assert_eq!(server.accepted().len() - before, good, "mails that the server has taken");
        }
        return println!("deliver: every mail arrives");
    }
    let Some(address) = arguments.address else {
        println!("deliver: there is no server; `cargo xtask bench deliver` starts one");
        return;
    };
    if arguments.prepare {
        runtime.block_on(prepared(&arguments, address));
        return;
    }
    let took = if arguments.store == "memory" {
        runtime.block_on(async { deliver(&arguments, prepared(&arguments, address).await).await })
    } else {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command
            .args(std::env::args_os().skip(1))
            .arg("--prepare")
            .arg(format!("--store={}", arguments.store));
        assert!(command.status().expect("this program, once more").success(), "the store is not prepared");
        runtime.block_on(async { deliver(&arguments, opened(&arguments).await).await })
    };
    println!("{}", took.as_secs_f64());
}

/// The library over the store, and what counts its mails.
async fn opened(arguments: &Arguments) -> (Postroom, Arc<Counter>) {
    let store: Arc<dyn Store> = match arguments.store.split_once(':') {
        None => Arc::new(MemoryStore::new()),
        Some(("sqlite", file)) => Arc::new(SqliteStore::open(file).await.expect("a store")),
        Some(("mysql", _)) => Arc::new(MySqlStore::open(&arguments.store).await.expect("a store")),
        Some(_) => Arc::new(PgStore::open(&arguments.store).await.expect("a store")),
    };
    let counter = Arc::new(Counter::default());
    let postroom = Postroom::builder(store)
        .with_keyring(Arc::new(AeadKeyring::new(Key::parse(KEY).expect("a key"))))
        .with_outgoing(Arc::new(SmtpTransport::new()))
        .with_observer(Arc::clone(&counter) as Arc<dyn Observer>)
        .build();
    (postroom, counter)
}

/// The contracts; the busy ones first.
fn contracts(arguments: &Arguments) -> Vec<ContractId> {
    let contract = |number| ContractId::parse(&format!("C{number}")).expect("an id");
    (0..arguments.outboxes + arguments.idle_outboxes).map(contract).collect()
}

/// Registers the outboxes and submits what waits.
async fn prepared(arguments: &Arguments, address: SocketAddr) -> (Postroom, Arc<Counter>) {
    let (postroom, counter) = opened(arguments).await;
    let contracts = contracts(arguments);
    register(&postroom, arguments, address, &contracts).await;
    // The key that signs Message-IDs is made by the first submission, and the backlog has to be there before the clock starts.
    let later = postroom.now() + Duration::from_secs(7 * 24 * 60 * 60);
    let (busy, idle) = contracts.split_at(arguments.outboxes);
    let (busy, idle): (Arc<[ContractId]>, Arc<[ContractId]>) = (busy.into(), idle.into());
    // Many at once, so that a deep backlog is there soon.
    let waits = Load { size: 200, not_before: Some(later), submitters: 64, poison: 0 };
    waits.submit(&postroom, &idle, idle.len()).await;
    waits.submit(&postroom, &busy, arguments.backlog * busy.len()).await;
    (postroom, counter)
}

/// Submits all mails while a worker sends, and gives the time from the first submission to the last settlement.
async fn deliver(arguments: &Arguments, (postroom, counter): (Postroom, Arc<Counter>)) -> Duration {
    let busy: Arc<[ContractId]> = contracts(arguments)[..arguments.outboxes].into();
    let poison = (0..arguments.mails).filter(|number| number % 100 < arguments.poison).count();
    counter.poison.store(poison, Ordering::SeqCst);
    let begun = Instant::now();
    let sent = async {
        let Arguments { size, submitters, poison, .. } = *arguments;
        let load = Load { size, not_before: None, submitters, poison };
        load.submit(&postroom, &busy, arguments.mails).await;
        counter.reached(arguments.mails).await;
    };
    postroom.run_with(Work::all().only_sending(), sent).await.expect("the worker works");
    begun.elapsed()
}

/// Registers the contracts, each with an outbox of its own to the server.
async fn register(postroom: &Postroom, arguments: &Arguments, address: SocketAddr, contracts: &[ContractId]) {
    let actor = Actor::parse("bench").expect("an actor");
    for (number, contract) in contracts.iter().enumerate() {
        let form = SettingsDraft::Outbox(OutboxDraft {
            tls: "none".to_owned(),
            auth: "none".to_owned(),
            senders: vec![format!("desk@client{number}.example")],
            max_connections: Some(arguments.connections),
            ..OutboxDraft::default()
        });
        let form = MailboxDraft {
            port: Some(address.port().into()),
            ..MailboxDraft::new("out", address.ip().to_string(), form)
        };
        let outbox = postroom.register(&actor, &form, SecretChange::Keep, Status::Active).await;
        let id: MailboxId = outbox.expect("an outbox").id;
        let contract = Contract::new(contract.clone()).with_outbox(id, None);
        postroom.save_contract(&actor, &contract).await.expect("a contract");
    }
}

/// What is submitted, and by how many at the same time.
#[derive(Clone, Copy)]
struct Load {
    size: usize,
    not_before: Option<Timestamp>,
    submitters: usize,
    /// Of a hundred.
    poison: usize,
}

impl Load {
    /// Submits so many mails, to each contract in turn.
    async fn submit(self, postroom: &Postroom, contracts: &Arc<[ContractId]>, mails: usize) {
        const LINE: &str = "Your request was received and will be answered in the order of arrival, soon.\n";
        let text: Arc<str> = LINE.chars().cycle().take(self.size).collect::<String>().into();
        let next = Arc::new(AtomicUsize::new(0));
        let mut submitters = JoinSet::new();
        for _ in 0..self.submitters {
            let (postroom, contracts, next) = (postroom.clone(), Arc::clone(contracts), Arc::clone(&next));
            let text = Arc::clone(&text);
            submitters.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= mails {
                        return;
                    }
                    let submission = self.mail(&contracts[number % contracts.len()], number, &text);
                    postroom.submit(&submission).await.expect("queued");
                }
            });
        }
        while let Some(ended) = submitters.join_next().await {
            ended.expect("every mail is queued");
        }
    }

    fn mail(self, contract: &ContractId, number: usize, text: &str) -> Submission {
        let mut submission = Submission::text(contract.clone(), "Your request", text.to_owned());
        submission.not_before = self.not_before;
        let to =
            if number % 100 < self.poison { "d\u{f6}rte@customer.example" } else { "ana@customer.example" };
        submission.with_to(Address::parse(to).expect("an address"))
    }
}
