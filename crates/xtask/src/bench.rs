//! Benchmarks that need a server: it is started here, on loopback, and the benchmark itself is a bench target of the workspace.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use crate::cargo::benchmark;
use crate::outcome::Outcome;
use crate::peers::free_addresses;
use crate::process::{self, Background};

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
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Benchmark {
    /// Sending by SMTP to smtp-sink, nothing being stored: the transport, lettre's pool, mail-send.
    Send,
}

pub(crate) fn run(options: &Options) -> Outcome<ExitCode> {
    match options.what {
        Benchmark::Send => send(options),
    }
}

fn send(options: &Options) -> Outcome<ExitCode> {
    if !Path::new(SINK).exists() {
        println!("skipped: {SINK} is not there; it comes with the Debian package postfix");
        return Ok(ExitCode::SUCCESS);
    }
    let program = benchmark("send")?;
    if let Some(mtu) = options.mtu {
        return on_own_loopback(mtu, options);
    }
    let user = process::unprivileged()?;
    let [address] = free_addresses()?;
    let mut sink = Command::new(SINK);
    // It insists on a user when it is started by root.
    sink.args(["-u", &user.name]).arg(address.to_string()).arg("1024");
    sink.stdout(Stdio::null()).stderr(Stdio::null());
    let _sink = Background::start("smtp-sink", &mut sink, &[address], Path::new("/dev/null"))?;
    let mut command = Command::new(program);
    command.arg(format!("--address={address}")).args(words(options));
    finished(&mut command)
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
