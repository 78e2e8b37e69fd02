//! `cargo xtask test`: everything that can be tested on this machine, and one line with the sum at the end. How lines are counted
//! and how servers are run is said elsewhere.

use std::path::Path;
use std::process::{Command, ExitCode};

use crate::cargo::{built, cargo, examples, workspace};
use crate::kill::Plant;
use crate::outcome::Outcome;
use crate::peers::{IncomingKind, IncomingProtocol, Peers};
use crate::tally::{CargoLines, ScriptLines, Tally};
use crate::{kill, packages, process};

/// What `cargo xtask test` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Install nothing: name the missing packages and stop.
    #[arg(long)]
    no_install: bool,
    /// Leave the real servers out.
    #[arg(long)]
    fast: bool,
    /// Run only the tests whose names contain this text, and no script.
    #[arg(long)]
    filter: Option<String>,
}

/// The journeys on real servers, by the command line alone; called with the path of the built `postroom`.
const SCRIPT: &str = "tests/real_servers.sh";

/// An example ends by itself, without arguments; a hanging one must not hold up the run.
const EXAMPLE_SECONDS: &str = "120";

pub(crate) fn run(options: &Options) -> Outcome<ExitCode> {
    let peers = if options.fast {
        println!("the real servers are left out (--fast)");
        None
    } else {
        if options.no_install { packages::present() } else { packages::install() }?;
        Some(Peers::start()?)
    };
    let environment = peers.as_ref().map(Peers::environment).unwrap_or_default();
    let mut tally = part("unit, property, documentation and conformance tests, journeys in process", || {
        under_cargo(options.filter.as_deref(), &environment)
    })?;
    if options.filter.is_none() {
        tally.add(part("every example runs to its end", run_examples)?);
    }
    if options.filter.is_none() {
        let title = "workers are killed and stopped while they send";
        tally.add(part(title, || kill_workers(kill::Store::Sqlite))?);
        if peers.is_some() {
            let title = "the same with the queue in PostgreSQL";
            tally.add(part(title, || kill_workers(kill::Store::Postgres))?);
            let title = "the same with the queue in MariaDB";
            tally.add(part(title, || kill_workers(kill::Store::Mysql))?);
            for server in [IncomingKind::Dovecot, IncomingKind::Courier, IncomingKind::Cyrus] {
                let title = format!("workers are killed while they receive from {server:?}");
                tally.add(part(&title, || kill_receivers(server))?);
            }
            let title = "a loss and a double that were planted there are seen";
            tally.add(part(title, || {
                killed_each(&[Plant::Loss, Plant::Double].map(kill::Options::short_broken))
            })?);
        }
    }
    if peers.is_some() && options.filter.is_none() && workspace().join(SCRIPT).exists() {
        tally.add(part("journeys on real servers", || on_real_servers(&environment))?);
    }
    drop(peers);

    println!();
    for note in &tally.notes {
        println!("{note}");
    }
    if tally.ignored > 0 {
        println!("{} ignored", tally.ignored);
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

type Environment = [(String, String)];

/// Run a part of the whole under its title, and say what it gave and how long it took.
fn part(title: &str, work: impl FnOnce() -> Outcome<Tally>) -> Outcome<Tally> {
    #[expect(clippy::disallowed_methods, reason = "how long a person waited is measured by no store's clock")]
    let start = std::time::Instant::now();
    println!("\n== {title}");
    let tally = work()?;
    println!("== {title}: {} good, {} bad, {} s", tally.passed, tally.failed, start.elapsed().as_secs());
    Ok(tally)
}

fn under_cargo(filter: Option<&str>, environment: &Environment) -> Outcome<Tally> {
    let mut lines = CargoLines::default();
    let mut command = cargo();
    command
        .args(["test", "--workspace", "--all-features", "--no-fail-fast"])
        .envs(environment.iter().cloned());
    if process::may_mount() {
        // The test on a full file system may not leave itself out.
        command.env("POSTROOM_TMPFS", "1");
    }
    command.args(filter.into_iter().flat_map(|filter| ["--", filter]));
    let status = process::follow(&mut command, |line| lines.line(line))?;
    Ok(lines.finish(status))
}

/// Run every example; each counts as one test.
fn run_examples() -> Outcome<Tally> {
    let mut tally = Tally::default();
    for example in examples()? {
        match built("example", &example).and_then(|binary| ends_well(&binary)) {
            Ok(()) => tally.passed += 1,
            Err(error) => {
                process::still_wanted()?;
                tally.fail(format!("example {example}: {error}"));
            }
        }
    }
    Ok(tally)
}

fn ends_well(example: &Path) -> Outcome<()> {
    // In a folder of its own, as an example may leave a database behind.
    let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    let mut command = Command::new("timeout");
    let status = process::run(command.arg(EXAMPLE_SECONDS).arg(example).current_dir(folder.path()))?;
    match status.code() {
        Some(0) => Ok(()),
        // What `timeout` says when it had to stop the program.
        Some(124) => Err(format!("it did not end within {EXAMPLE_SECONDS} s")),
        _ => Err(process::told(status)),
    }
}

/// The short form of `cargo xtask kill`.
fn kill_workers(store: kill::Store) -> Outcome<Tally> {
    killed(&kill::Options::short(store))
}

/// The same by each protocol.
fn kill_receivers(server: IncomingKind) -> Outcome<Tally> {
    let short = |protocol| kill::Options::short_receiving(server, protocol);
    killed_each(&[short(IncomingProtocol::Imap), short(IncomingProtocol::Pop3)])
}

fn killed_each(all: &[kill::Options]) -> Outcome<Tally> {
    let mut tally = Tally::default();
    for options in all {
        tally.add(killed(options)?);
    }
    Ok(tally)
}

/// `cargo xtask kill` with these options; each of its rounds counts as one test.
fn killed(options: &kill::Options) -> Outcome<Tally> {
    kill::rounds(options).or_else(|error| {
        process::still_wanted()?;
        let mut tally = Tally::default();
        tally.fail(error);
        Ok(tally)
    })
}

fn on_real_servers(environment: &Environment) -> Outcome<Tally> {
    let binary = match built("bin", "postroom") {
        Ok(binary) => binary,
        Err(error) => {
            process::still_wanted()?;
            let mut tally = Tally::default();
            tally.fail(error);
            return Ok(tally);
        }
    };
    let mut lines = ScriptLines::default();
    let mut command = Command::new("bash");
    command.current_dir(workspace()).arg(SCRIPT).arg(binary).envs(environment.iter().cloned());
    let status = process::follow(&mut command, |line| lines.line(line))?;
    Ok(lines.finish(SCRIPT, status))
}
