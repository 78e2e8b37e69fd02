//! How many mails a second are fetched durably: read from a server, parsed, sorted, and on the medium with their row. One run of one
//! client over one box; `cargo xtask bench fetch` fills a Dovecot, runs the clients in turn, and prints the ratios. The peers that
//! are no programs of their own stand in `fetch/peers`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark says what it has measured")]

#[path = "fetch/peers.rs"]
mod peers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Parser;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use postroom_core::contract::Contract;
use postroom_core::id::{Actor, ContractId};
use postroom_core::mailbox::{InboxDraft, MailboxDraft, SettingsDraft, Status};
use postroom_core::secret::{SecretChange, SecretString};
use postroom_engine::{Event, Observer, Options, Postroom, Work};
use postroom_storage::keyring::aead::{AeadKeyring, Key};
use postroom_storage::memory::MemoryStore;
use postroom_storage::{MySqlStore, PgStore, SqliteStore, Store};
use postroom_testkit::{MailServer, Protocol};
use postroom_transport::imap::ImapTransport;
use postroom_transport::pop3::Pop3Transport;
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::time::Instant;

#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// A server whose box is read, which takes a sign-in without TLS.
    #[arg(long)]
    address: Option<SocketAddr>,
    /// How the server is spoken to: `imap` or `pop3`.
    #[arg(long, default_value = "imap")]
    provider: String,
    /// `postroom`, or `async-imap`, which keeps nothing.
    #[arg(long, default_value = "postroom")]
    client: String,
    /// Where the rows are: `sqlite` (a file in the folder for temporary files), `memory`, or `postgres://..` or `mysql://..`, an empty database.
    #[arg(long, default_value = "sqlite")]
    store: String,
    /// The sign-in.
    #[arg(long, default_value = "ana")]
    user: String,
    /// The password.
    #[arg(long, default_value = "secret")]
    password: String,
    /// How many mails the box has.
    #[arg(long, default_value_t = 20_000)]
    mails: usize,
    /// What cargo gives to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    /// Whether every mail is fetched is asked, once, with a server in this process; nothing is timed.
    #[arg(long)]
    test: bool,
}

/// Counts the mails that are in the ledger.
#[derive(Debug, Default)]
struct Counter {
    stored: AtomicUsize,
    rung: Notify,
}

impl Observer for Counter {
    fn observe(&self, event: &Event) {
        match event {
            Event::Stored { .. } => {
                self.stored.fetch_add(1, Ordering::SeqCst);
                self.rung.notify_one();
            }
            Event::Failed { .. } | Event::StoreFailed { .. } => {
                // A panic would end the worker's task alone, and the run would wait for ever.
                eprintln!("not what is measured: {event}");
                std::process::exit(1);
            }
            _ => {}
        }
    }
}

fn main() {
    let arguments = Arguments::parse();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    if arguments.test {
        runtime.block_on(every_mail_is_fetched(&arguments));
        return println!("fetch: every mail is fetched");
    }
    let Some(address) = arguments.address else {
        println!("fetch: there is no server; `cargo xtask bench fetch` starts one");
        return;
    };
    let before = resident();
    let took = runtime.block_on(fetch(&arguments, address));
    let grown = peak().saturating_sub(before);
    println!("{} {} {grown}", took.as_secs_f64(), processor_time().as_secs_f64());
}

async fn every_mail_is_fetched(arguments: &Arguments) {
    let server = MailServer::builder().account("ana", "secret").danger_plaintext_auth().start();
    let server = server.await.expect("a server in this process");
    for number in 0..40 {
        let text = format!("From: bob@client.example\r\nSubject: {number}\r\n\r\nHello.\r\n");
        server.deliver("ana", text);
    }
    for (client, provider, store) in [
        ("postroom", "imap", "sqlite"),
        ("postroom", "pop3", "sqlite"),
        ("postroom", "imap", "memory"),
        ("async-imap", "imap", ""),
    ] {
        let [client, provider, store] = [client, provider, store].map(str::to_owned);
        let one = Arguments { client, provider, store, mails: 40, ..arguments.clone() };
        let protocol = if one.provider == "imap" { Protocol::Imap } else { Protocol::Pop3 };
        fetch(&one, server.address(protocol)).await;
    }
}

/// The time from the beginning to the last mail's commit.
async fn fetch(arguments: &Arguments, address: SocketAddr) -> Duration {
    if arguments.client == "async-imap" {
        let begun = Instant::now();
        let mails = peers::async_imap(address, &arguments.user, &arguments.password).await;
        assert_eq!(mails, arguments.mails, "mails that async-imap has read");
        return begun.elapsed();
    }
    let folder = tempfile::tempdir().expect("a folder");
    let store: Arc<dyn Store> = match arguments.store.as_str() {
        "memory" => Arc::new(MemoryStore::new()),
        "sqlite" => {
            let file = folder.path().join("fetch.db").display().to_string();
            Arc::new(SqliteStore::open(&file).await.expect("a store"))
        }
        url if url.starts_with("mysql:") => Arc::new(MySqlStore::open(url).await.expect("a store")),
        url => Arc::new(PgStore::open(url).await.expect("a store")),
    };
    let counter = Arc::new(Counter::default());
    let builder = Postroom::builder(store)
        .with_keyring(Arc::new(AeadKeyring::new(Key::generate("1").expect("a key"))))
        .with_observer(Arc::clone(&counter) as Arc<dyn Observer>);
    let postroom = if arguments.provider == "pop3" {
        builder.with_incoming(Arc::new(Pop3Transport::new()))
    } else {
        builder.with_incoming(Arc::new(ImapTransport::new()))
    };
    let postroom = postroom.with_options(Options::default()).build();
    register(&postroom, arguments, address).await;

    let begun = Instant::now();
    let fetched = async {
        while counter.stored.load(Ordering::SeqCst) < arguments.mails {
            counter.rung.notified().await;
        }
    };
    postroom.run_with(Work::all().only_receiving(), fetched).await.expect("the worker works");
    begun.elapsed()
}

/// The box, linked to one contract.
async fn register(postroom: &Postroom, arguments: &Arguments, address: SocketAddr) {
    let actor = Actor::parse("bench").expect("an actor");
    let form = SettingsDraft::Inbox(InboxDraft {
        provider: arguments.provider.clone(),
        user: arguments.user.clone(),
        baseline: Some("all".to_owned()),
        per_round: Some(10_000),
        ..InboxDraft::default()
    });
    let form = MailboxDraft {
        port: Some(address.port().into()),
        danger_plaintext: true,
        max_message: Some(64 * 1024 * 1024),
        ..MailboxDraft::new("in", address.ip().to_string(), form)
    };
    let secret = SecretChange::Set(SecretString::from(arguments.password.clone()));
    let inbox = postroom.register(&actor, &form, secret, Status::Active).await.expect("an inbox");
    let contract = Contract::new(ContractId::parse("C").expect("an id")).with_inbox(inbox.id);
    postroom.save_contract(&actor, &contract).await.expect("a contract");
}

/// What this process has used of all processors.
fn processor_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the system tells");
    let used = usage.user_time() + usage.system_time();
    Duration::from_micros(u64::try_from(used.num_microseconds()).expect("not negative"))
}

/// The most memory that this process has had, in KiB. `getrusage` would tell of the one that started it as well.
fn peak() -> u64 {
    status("VmHWM:")
}

/// The memory that this process has, in KiB.
fn resident() -> u64 {
    status("VmRSS:")
}

/// A figure that the system keeps of this process, in KiB; 0 where it does not tell.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}
