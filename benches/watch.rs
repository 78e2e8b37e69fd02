//! What watching costs, and how soon a mail is noticed: so many inboxes of a registry on SQLite are watched by a whole worker, whose
//! resident memory is measured without and with them; then mail comes into one after the other, and the time until the handler has it
//! is taken. One run of one client; `cargo xtask bench watch` runs the clients in turn and prints the ratios.

#![expect(clippy::print_stdout, reason = "a benchmark says what it has measured")]

#[path = "watch/peers.rs"]
mod peers;
#[path = "watch/registry.rs"]
mod registry;
#[path = "watch/server.rs"]
mod server;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::sleep;
use std::time::Duration;

use async_trait::async_trait;
use clap::{Parser, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use postroom_engine::{Answer, Delivery, MessageHandler, Options, Pacing, Postroom, Work};
use postroom_storage::keyring::aead::Key;
use postroom_storage::{Watches, Way};
use postroom_transport::imap::ImapTransport;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::Instant;

use peers::Peer;
use server::{Server, age};

/// Longer than any healthy run needs until all idle, and until a mail is noticed.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
const LATEST: Duration = Duration::from_secs(120);

/// No two mails in a row go to neighbours, and none to the same box before all had one.
const STRIDE: usize = 7919;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Client {
    /// A worker with its registry, ledger and handler.
    Postroom,
    /// async-imap in IDLE, which fetches what comes and keeps nothing.
    AsyncImap,
    /// A task that owns a socket and waits for it to be readable: what tokio and rustls cost by themselves.
    Task,
}

#[derive(Debug, Clone, Parser)]
pub(crate) struct Arguments {
    /// Who watches.
    #[arg(long, value_enum, default_value = "postroom")]
    client: Client,
    /// How many boxes.
    #[arg(long, default_value_t = 2000)]
    pub(crate) boxes: usize,
    /// Inside TLS.
    #[arg(long)]
    pub(crate) tls: bool,
    /// How many mails come, one after the other.
    #[arg(long, default_value_t = 500)]
    wakeups: usize,
    /// Serves the boxes until its standard input ends.
    #[arg(long, hide = true)]
    serve: bool,
    /// Registers the boxes in this SQLite file.
    #[arg(long, hide = true)]
    fill: Option<String>,
    /// The key of the registry's passwords.
    #[arg(long, hide = true, default_value = "")]
    pub(crate) key: String,
    /// The port of the boxes' server.
    #[arg(long, hide = true, default_value_t = 0)]
    pub(crate) port: u16,
    /// Whom the boxes trust.
    #[arg(long, hide = true, default_value = "")]
    pub(crate) authority: String,
    /// What cargo gives to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    /// Whether every client idles and notices what comes is asked, once, with few boxes; nothing is told.
    #[arg(long)]
    test: bool,
}

/// What a run has found.
#[derive(Debug)]
struct Figures {
    /// The resident memory with an empty runtime (and with an open registry), in KiB.
    before: u64,
    /// The same with every box idle.
    idle: u64,
    /// The same after the last mail, in KiB.
    after: u64,
    /// How long it took until every box was idle.
    settled: Duration,
    /// From the moment at which each mail came into its box to the moment at which it was noticed, the shortest first.
    ages: Vec<Duration>,
}

fn main() {
    let arguments = Arguments::parse();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("as many files as may be");
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    if arguments.serve {
        return server::serve(&runtime, arguments.boxes);
    }
    if let Some(file) = &arguments.fill {
        return runtime.block_on(registry::register(&arguments, file));
    }
    if arguments.test {
        for client in Client::value_variants() {
            for tls in [false, true] {
                let few = Arguments { client: *client, tls, boxes: 30, wakeups: 10, ..arguments.clone() };
                measure(&runtime, &few);
            }
        }
        return println!("watch: every client idles and notices what comes");
    }
    let figures = measure(&runtime, &arguments);
    let at = |percent: usize| {
        let place = (figures.ages.len() * percent).div_ceil(100);
        figures.ages.get(place.saturating_sub(1)).map_or(f64::NAN, |age| age.as_secs_f64() * 1e3)
    };
    let [p50, p95, p99, most] = [at(50), at(95), at(99), at(100)];
    let settled = figures.settled.as_secs_f64();
    println!("{} {} {} {settled} {p50} {p95} {p99} {most}", figures.before, figures.idle, figures.after);
}

fn measure(runtime: &Runtime, arguments: &Arguments) -> Figures {
    let mut server = Server::start(arguments.boxes);
    let (told, ages) = channel();
    match arguments.client {
        Client::Postroom => worker(runtime, arguments, &mut server, told, &ages),
        Client::AsyncImap | Client::Task => peer(runtime, arguments, &mut server, told, &ages),
    }
}

/// Hands the age of each mail on.
struct Stamped(Sender<Duration>);

#[async_trait]
impl MessageHandler for Stamped {
    async fn handle(&self, delivery: Delivery) -> Answer {
        let _ = self.0.send(age(&delivery.raw));
        Answer::Done
    }
}

fn worker(
    runtime: &Runtime,
    arguments: &Arguments,
    server: &mut Server,
    told: Sender<Duration>,
    ages: &Receiver<Duration>,
) -> Figures {
    let folder = tempfile::tempdir().expect("a folder");
    let file: PathBuf = folder.path().join("watch.db");
    let key = Key::generate("1").expect("a key").to_text();
    registry::fill(arguments, server, &file, &key);
    let pacing = Pacing { per_second: 2000, per_host: 2000, opening: 16, sessions: None };
    // A renewal tells the store which boxes idle; of few boxes that is waited for.
    let lease = if arguments.test { Duration::from_secs(2) } else { Options::default().lease };
    let postroom = runtime.block_on(registry::open(&file.display().to_string(), &key));
    let postroom = postroom
        .with_incoming(Arc::new(ImapTransport::new()))
        .with_handler(Arc::new(Stamped(told)))
        .with_options(Options { pacing, lease, ..Options::default() })
        .build();
    let (stop, stopped) = oneshot::channel::<()>();
    let (before, begun) = (resident(), Instant::now());
    let working = postroom.clone();
    let running = runtime.spawn(async move {
        let stopped = async { drop(stopped.await) };
        working.run_with(Work::all().only_receiving(), stopped).await
    });
    wait_until(|| server.signed_in() == arguments.boxes);
    let mut idle = 0;
    wait_until(|| {
        // The question costs memory, too: it is no part of the measure.
        idle = resident();
        runtime.block_on(idle_boxes(&postroom)) == arguments.boxes
    });
    let settled = begun.elapsed();
    let ages = wake(arguments, server, ages);
    let after = resident();
    drop(stop);
    runtime.block_on(running).expect("no panic").expect("the worker works");
    Figures { before, idle, after, settled, ages }
}

/// How many boxes are known to idle.
async fn idle_boxes(postroom: &Postroom) -> usize {
    let watches: &dyn Watches = postroom.store();
    let known = watches.watches(postroom.now(), None).await.expect("an answer of the store");
    known.iter().filter(|one| one.watcher.is_some() && one.way == Some(Way::Idle)).count()
}

fn peer(
    runtime: &Runtime,
    arguments: &Arguments,
    server: &mut Server,
    told: Sender<Duration>,
    ages: &Receiver<Duration>,
) -> Figures {
    let peer = Peer::new(server, arguments.tls, told);
    let (before, begun) = (resident(), Instant::now());
    let tasks: Vec<_> = (0..arguments.boxes)
        .map(|number| match arguments.client {
            Client::Task => runtime.spawn(peers::task(Arc::clone(&peer))),
            _ => runtime.spawn(peers::async_imap(Arc::clone(&peer), number)),
        })
        .collect();
    wait_until(|| peer.idle() == arguments.boxes);
    let (idle, settled) = (resident(), begun.elapsed());
    let ages = if arguments.client == Client::Task { Vec::new() } else { wake(arguments, server, ages) };
    let after = resident();
    // Before their server goes, which they would take for a fault.
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    tasks.into_iter().for_each(|task| drop(runtime.block_on(task)));
    Figures { before, idle, after, settled, ages }
}

/// Has mail come into boxes, one after the other; gives how old each was when it was noticed, the shortest first.
fn wake(arguments: &Arguments, server: &mut Server, ages: &Receiver<Duration>) -> Vec<Duration> {
    let mut noticed: Vec<Duration> = (0..arguments.wakeups)
        .map(|number| {
            server.deliver(number * STRIDE % arguments.boxes);
            let age = ages.recv_timeout(LATEST).expect("the mail is noticed");
            // The next one comes into a quiet process.
            sleep(Duration::from_millis(if arguments.test { 0 } else { 20 }));
            age
        })
        .collect();
    noticed.sort();
    noticed
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not every box idles");
        sleep(Duration::from_millis(500).min(begun.elapsed() + Duration::from_millis(20)));
    }
}

/// The resident memory of this process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("the resident memory");
    line.split_ascii_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}
