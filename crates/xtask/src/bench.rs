//! Benchmarks that need a server: it is started here, on loopback, and the benchmark itself is a bench target of the workspace.

mod boxes;
mod burden;
mod fetch;
mod relay;
mod watch;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use crate::cargo::benchmark;
use crate::outcome::Outcome;
use crate::peers::{Database, free_addresses};
use crate::process::{self, Background};
use relay::Relay;
use tokio::time::Instant;

const SINK: &str = "/usr/sbin/smtp-sink";

/// What `cargo xtask bench` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What is measured.
    what: Benchmark,
    /// How often; the medians are printed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Let a round trip of so many milliseconds lie before the server.
    #[arg(long)]
    delay_ms: Option<u64>,
    /// Run on a loopback of its own with packets of at most so many bytes. As root only. Without it they have up to 64 KiB, and
    /// a client without TCP_NODELAY waits for each mail's last packet.
    #[arg(long)]
    mtu: Option<u16>,
    /// How many mails go the whole way in each round of `deliver`, `depth` and `poison` (5,000 unless given), or lie in the box of `fetch` (20,000).
    #[arg(long)]
    mails: Option<u32>,
    /// How many mails wait in the deep queue of `depth`.
    #[arg(long, default_value_t = 1_000_000)]
    depth: u32,
    /// How many outboxes there are in the broad queue of `depth`.
    #[arg(long, default_value_t = 10_000)]
    outboxes: u32,
    /// The stores of `depth` and `poison`.
    #[arg(long, value_delimiter = ',', default_value = "sqlite,postgres,mariadb")]
    stores: Vec<String>,
    /// How many boxes are watched by `watch`. 2,000 and 10,000 unless given, as the goals have them.
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=20_000))]
    boxes: Option<u32>,
    /// Watch with TLS only.
    #[arg(long)]
    tls: bool,
    /// Watch without TLS only.
    #[arg(long, conflicts_with = "tls")]
    plain: bool,
    /// How many mails come into watched boxes, one after the other.
    #[arg(long, default_value_t = 500)]
    wakeups: u32,
    /// What `deliver` and `isolation` are asked beyond that, as their programs take it (`-- --help` shows it).
    #[arg(last = true)]
    rest: Vec<String>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Benchmark {
    /// Sending by SMTP to smtp-sink, nothing being stored: the transport, lettre's pool, mail-send.
    Send,
    /// The whole way, durably: from the first submission to the last settlement, on each store, beside Postfix as a local relay.
    Deliver,
    /// Whether the way of a mail takes as long in a deep queue as in a shallow one, and with many outboxes as with few.
    Depth,
    /// How fast mail goes of which one in a hundred is poison.
    Poison,
    /// How long mail of one outbox takes while another one hangs or holds a backlog.
    Isolation,
    /// Fetching a box of Dovecot's durably, beside mbsync to a synced maildir and async-imap, which keeps nothing; and POP3.
    Fetch,
    /// Watching many boxes: the memory of each, and how soon a mail is noticed; beside async-imap and a task that owns a socket.
    Watch,
}

pub(crate) fn run(options: &Options) -> Outcome<ExitCode> {
    let needs_sink = !matches!(options.what, Benchmark::Isolation | Benchmark::Fetch | Benchmark::Watch);
    if needs_sink && !Path::new(SINK).exists() {
        println!("skipped: {SINK} is not there; it comes with the Debian package postfix");
        return Ok(ExitCode::SUCCESS);
    }
    match options.what {
        Benchmark::Send => send(options),
        Benchmark::Deliver => deliver(options),
        Benchmark::Depth | Benchmark::Poison => burden(options),
        Benchmark::Isolation => isolation(options),
        Benchmark::Fetch => fetch::fetch(options.rounds, options.mails.unwrap_or(20_000)),
        Benchmark::Watch => watch::watch(watch::Course {
            rounds: options.rounds,
            boxes: options.boxes,
            tls: (options.tls || options.plain).then_some(options.tls),
            wakeups: options.wakeups,
        }),
    }
}

/// What a deep queue, many outboxes, and poison cost.
fn burden(options: &Options) -> Outcome<ExitCode> {
    let [address] = free_addresses()?;
    let _sink = sink(address)?;
    let course = burden::Course {
        rounds: options.rounds,
        mails: options.mails.unwrap_or(5000),
        stores: &options.stores,
        sink: address,
        rest: &options.rest,
    };
    match options.what {
        Benchmark::Poison => burden::poison(course),
        _ => burden::depth(course, options.depth, options.outboxes),
    }
}

/// Its servers are its own: they hang.
fn isolation(options: &Options) -> Outcome<ExitCode> {
    let mut command = Command::new(benchmark("isolation")?);
    finished(command.arg(format!("--rounds={}", options.rounds)).args(&options.rest))
}

fn send(options: &Options) -> Outcome<ExitCode> {
    let program = benchmark("send")?;
    if let Some(mtu) = options.mtu {
        return on_own_loopback(mtu, options);
    }
    let [address] = free_addresses()?;
    let _sink = sink(address)?;
    let mut command = Command::new(program);
    command.arg(format!("--address={address}")).args(words(options));
    finished(&mut command)
}

/// Takes every mail.
fn sink(address: SocketAddr) -> Outcome<Background> {
    let user = process::unprivileged()?;
    let mut sink = Command::new(SINK);
    // It insists on a user when it is started by root.
    sink.args(["-u", &user.name]).arg(address.to_string()).arg("1024");
    sink.stdout(Stdio::null()).stderr(Stdio::null());
    Background::start("smtp-sink", &mut sink, &[address], Path::new("/dev/null"))
}

/// Mails a second of each store and of Postfix, in turn, and how many times Postfix each store is.
fn deliver(options: &Options) -> Outcome<ExitCode> {
    let program = benchmark("deliver")?;
    let [sink_address, relay_address] = free_addresses()?;
    let _sink = sink(sink_address)?;
    let relay = Relay::start(relay_address, sink_address)?;
    let (postgres, mariadb) = (Database::postgres()?, Database::mariadb()?);
    let mails = options.mails.unwrap_or(5000);
    let mut rates = ["sqlite", "postgres", "mariadb", "memory", "postfix"].map(|name| (name, Vec::new()));
    for round in 0..options.rounds {
        for (name, rates) in &mut rates {
            let begun = Instant::now();
            let seconds = if *name == "postfix" {
                relay.deliver(mails)?;
                begun.elapsed().as_secs_f64()
            } else {
                let store = match *name {
                    "postgres" => postgres.fresh(&format!("round_{round}"))?,
                    "mariadb" => mariadb.fresh(&format!("round_{round}"))?,
                    name => name.to_owned(),
                };
                let mut command = Command::new(&program);
                command.arg(format!("--address={sink_address}")).arg(format!("--store={store}"));
                command.arg(format!("--mails={mails}")).args(&options.rest);
                let printed = process::output(&mut command)?;
                printed.trim().parse().map_err(|_| format!("{name} gave no time: {printed}"))?
            };
            rates.push(f64::from(mails) / seconds);
        }
    }
    report(rates.into());
    Ok(ExitCode::SUCCESS)
}

fn report(rates: Vec<(&str, Vec<f64>)>) {
    let mut medians = Vec::new();
    for (name, mut rates) in rates {
        rates.sort_by(f64::total_cmp);
        let (least, most) = (rates.first().copied(), rates.last().copied());
        medians.push((name, rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN), least, most));
    }
    let postfix = medians.last().map_or(f64::NAN, |(_, median, ..)| *median);
    println!("{:<10} {:>10} {:>10} {:>10} {:>9}", "", "mails/s", "least", "most", "ratio");
    for (name, median, least, most) in medians {
        let (least, most) = (least.unwrap_or(f64::NAN), most.unwrap_or(f64::NAN));
        println!("{name:<10} {median:>10.0} {least:>10.0} {most:>10.0} {:>9.2}", median / postfix);
    }
    println!("ratio: the median divided by that of Postfix");
}

/// This task once more, in a network namespace whose loopback has this MTU.
fn on_own_loopback(mtu: u16, options: &Options) -> Outcome<ExitCode> {
    let task = std::env::current_exe().map_err(|error| format!("where this program lies: {error}"))?;
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", "ip link set lo mtu \"$0\" up && exec \"$@\""]).arg(mtu.to_string());
    command.arg(task).args(["bench", "send"]).args(words(options));
    finished(&mut command)
}

/// The options that the benchmark takes, too.
fn words(options: &Options) -> Vec<String> {
    let mut words = vec![format!("--rounds={}", options.rounds)];
    words.extend(options.delay_ms.map(|delay| format!("--delay-ms={delay}")));
    words
}

fn finished(command: &mut Command) -> Outcome<ExitCode> {
    let status = process::run(command)?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
