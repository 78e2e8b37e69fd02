//! How many mails a second go to one server, and what each costs this process: our transport, lettre's pool and mail-send, in one
//! program and in turn. `cargo xtask bench send` starts the server. Only the ratios of one run count; nothing is stored here.

#![expect(clippy::print_stdout, reason = "a benchmark says what it has measured")]

#[path = "send/clients.rs"]
mod clients;
#[path = "send/delay.rs"]
mod delay;

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use clients::Client;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use postroom_testkit::{MailServer, Protocol};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

/// The length of a mail's text, in bytes.
const SIZE: usize = 4096;

/// With how many connections at once.
const CONNECTIONS: [u32; 2] = [1, 10];

#[derive(Debug, Parser)]
struct Arguments {
    /// A server that takes every mail, without TLS and sign-in.
    #[arg(long)]
    address: Option<SocketAddr>,
    /// How often everything is measured; the medians are printed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// A round trip of so many milliseconds lies before the server.
    #[arg(long)]
    delay_ms: Option<u64>,
    /// What cargo gives to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    /// Whether every client works is asked, once, with a server in this process; nothing is timed.
    #[arg(long)]
    test: bool,
}

/// One client at one number of connections: messages a second and microseconds of this process for each message.
struct Measured {
    client: Client,
    connections: u32,
    /// So many that one measurement takes about a second.
    mails: u32,
    rates: Vec<f64>,
    costs: Vec<f64>,
}

fn main() {
    let arguments = Arguments::parse();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    if arguments.test {
        let server = runtime.block_on(MailServer::start()).expect("a server in this process");
        let address = server.address(Protocol::Smtp);
        for (client, connections) in
            Client::ALL.into_iter().flat_map(|one| CONNECTIONS.map(|many| (one, many)))
        {
            let before = server.accepted().len();
            measure(&runtime, client, connections, 2 * connections, address);
            let taken = server.accepted().len() - before;
            assert_eq!(u32::try_from(taken).ok(), Some(2 * connections), "mails that the server has taken");
        }
        return println!("send: every client works");
    }
    let Some(mut address) = arguments.address else {
        println!("send: there is no server; `cargo xtask bench send` starts one");
        return;
    };
    if let Some(delay) = arguments.delay_ms {
        address = delay::start(address, Duration::from_millis(delay) / 2);
    }
    let mut all: Vec<Measured> = CONNECTIONS
        .into_iter()
        .flat_map(|connections| Client::ALL.map(|client| begin(&runtime, client, connections, address)))
        .collect();
    for _ in 0..arguments.rounds {
        for one in &mut all {
            let (rate, cost) = measure(&runtime, one.client, one.connections, one.mails, address);
            one.rates.push(rate);
            one.costs.push(cost);
        }
    }
    report(&mut all, arguments.delay_ms.is_none());
}

/// A short run, which also warms everything up, to know how many mails make about a second.
fn begin(runtime: &Runtime, client: Client, connections: u32, address: SocketAddr) -> Measured {
    let (rate, _) = measure(runtime, client, connections, 10 * connections, address);
    let (rate, _) = match rate {
        // Ten mails say little when they are fast.
        100.0.. => measure(runtime, client, connections, 200 * connections, address),
        rate => (rate, 0.0),
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
    let mails = (rate.min(50_000.0) as u32).max(10 * connections);
    Measured { client, connections, mails, rates: Vec::new(), costs: Vec::new() }
}

fn measure(
    runtime: &Runtime,
    client: Client,
    connections: u32,
    mails: u32,
    address: SocketAddr,
) -> (f64, f64) {
    let used = processor_time();
    let start = Instant::now();
    runtime.block_on(client.send(address, connections, mails, SIZE));
    let (wall, used) = (start.elapsed(), processor_time() - used);
    (f64::from(mails) / wall.as_secs_f64(), used.as_secs_f64() * 1e6 / f64::from(mails))
}

/// What this process has used of all processors.
fn processor_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the system tells");
    let used = usage.user_time() + usage.system_time();
    Duration::from_micros(u64::try_from(used.num_microseconds()).expect("not negative"))
}

fn median(of: &mut [f64]) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The delay is made by this process too, so that with one the processor time says nothing.
fn report(all: &mut [Measured], with_costs: bool) {
    println!(
        "{:<12} {:>11} {:>12} {:>9} {:>12} {:>9}",
        "client", "connections", "messages/s", "ratio", "CPU us each", "ratio"
    );
    let mut ours = (f64::NAN, f64::NAN);
    for one in all {
        let (rate, cost) = (median(&mut one.rates), median(&mut one.costs));
        if one.client == Client::Postroom {
            ours = (rate, cost);
        }
        print!("{:<12} {:>11} {rate:>12.0} ", one.client.name(), one.connections);
        print!("{:>9}", format!("{:.2}", ours.0 / rate));
        if with_costs {
            print!(" {cost:>12.1} {:>9}", format!("{:.2}", ours.1 / cost));
        }
        println!();
    }
    println!("ratio: postroom's figure divided by that client's");
}
