//! `cargo xtask kill`: a sending process is killed with SIGKILL at random moments, or stopped past its lease and continued, while
//! it sends to a server that only ever adds to its record; afterwards queue and record are compared. What a round does is in the
//! files of its name, what must hold then in `books`. Receiving is killed likewise, with `--receive`.
//!
//! That the rounds can fail was seen with broken builds, handed over by `--binary`, 300 mails and 4 kills each. With the mark
//! committed after the server's reply instead of before the dot, each of three rounds found five to nine mails that had arrived
//! twice. With neither the check of the lease nor the token's answer before the dot, each of two zombies that woke sent again one
//! or two mails that others had sent. A round whose kills all fell between two mails would miss it: hence several kills a round.

use std::path::PathBuf;
use std::process::ExitCode;

use tokio::runtime::Builder;

use crate::cargo::built;
use crate::outcome::Outcome;
use crate::peers::{Database, Incoming, IncomingKind, IncomingProtocol};
use crate::process;
use crate::tally::Tally;

mod books;
mod desk;
mod dice;
mod installation;
mod murder;
mod receive;
mod stage;
mod zombie;

pub(crate) use receive::Plant;
use receive::{Company, Numbers, Scene};
use stage::Stage;

/// What `cargo xtask kill` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// How many times a queue is filled, and its workers are killed until it is empty.
    #[arg(long, default_value_t = 20)]
    rounds: u64,
    /// How many times a worker is stopped past its lease, and goes on when another one has done the work.
    #[arg(long, default_value_t = 2)]
    zombies: u64,
    /// How many mails each queue has.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    mails: u32,
    /// How many workers are killed in a round.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    kills: u32,
    /// Kill workers that receive from a real server, instead of such that send. There are no zombies then.
    #[arg(long)]
    receive: bool,
    /// Which server has the box that is received from.
    #[arg(long, value_enum, default_value_t, requires = "receive")]
    server: IncomingKind,
    /// How that server is spoken to.
    #[arg(long, value_enum, default_value_t, requires = "receive")]
    protocol: IncomingProtocol,
    /// Let the mails of the box keep their numbers.
    #[arg(long, requires = "receive")]
    same_numbers: bool,
    /// Let a second worker, which is not killed, share the box with those that are.
    #[arg(long, requires = "receive")]
    beside: bool,
    /// Break a round on purpose: it passes if its comparison sees that.
    #[arg(long, value_enum, requires = "receive")]
    plant: Option<Plant>,
    /// Where the queue is.
    #[arg(long, value_enum, default_value_t)]
    store: Store,
    /// The seed of the first round; the next one's is greater by one. With the seed that a failed round told and one round,
    /// the same moments are chosen again.
    #[arg(long)]
    seed: Option<u64>,
    /// A `postroom` that was built before; without it, this workspace's is built.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// What keeps the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Store {
    /// A file.
    #[default]
    Sqlite,
    /// PostgreSQL: a server of its own, which lives on when workers are killed.
    Postgres,
    /// MariaDB, likewise.
    Mysql,
}

impl Options {
    /// What fits into every run of the tests.
    pub(crate) fn short(store: Store) -> Self {
        Self {
            rounds: 20,
            zombies: 1,
            mails: 300,
            kills: 4,
            receive: false,
            server: IncomingKind::default(),
            protocol: IncomingProtocol::default(),
            same_numbers: false,
            beside: false,
            plant: None,
            store,
            seed: None,
            binary: None,
        }
    }

    /// The same for receiving.
    pub(crate) fn short_receiving(server: IncomingKind, protocol: IncomingProtocol) -> Self {
        let short = Self::short(Store::Sqlite);
        Self { rounds: 1, mails: 100, kills: 5, receive: true, server, protocol, ..short }
    }

    /// The same, broken on purpose. Numbers stay: behind new ones a copy of a mail that was taken away is that mail again.
    pub(crate) fn short_broken(plant: Plant) -> Self {
        let short = Self::short_receiving(IncomingKind::Dovecot, IncomingProtocol::Imap);
        Self { kills: 2, plant: Some(plant), same_numbers: true, ..short }
    }
}

pub(crate) fn run(options: &Options) -> Outcome<ExitCode> {
    let tally = rounds(options)?;
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every round; each counts as one test.
pub(crate) fn rounds(options: &Options) -> Outcome<Tally> {
    let binary = match &options.binary {
        Some(binary) => {
            std::path::absolute(binary).map_err(|error| format!("{}: {error}", binary.display()))?
        }
        None => built("bin", "postroom")?,
    };
    let database = match options.store {
        Store::Sqlite => None,
        Store::Postgres => Some(Database::postgres()?),
        Store::Mysql => Some(Database::mariadb()?),
    };
    let seed = match options.seed {
        Some(seed) => seed,
        None => getrandom::u64().map_err(|error| format!("no seed: {error}"))?,
    };
    if options.receive {
        let (server, protocol) = (Incoming::start(options.server)?, options.protocol);
        let numbers = if options.same_numbers { Numbers::Stay } else { Numbers::Change };
        let company = if options.beside { Company::Second } else { Company::None };
        let (mails, kills, plant) = (options.mails, options.kills, options.plant);
        let scene = Scene { server, protocol, numbers, company, plant, binary, database, mails, kills };
        let mut tally = Tally::default();
        let kind = format!("receive from {:?} by {protocol:?}", options.server);
        play(&mut tally, &kind, seeds(seed, options.rounds), |seed| receive::round(&scene, seed))?;
        return Ok(tally);
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime for the server: {error}"))?;
    let stage = Stage { runtime, binary, database, mails: options.mails, kills: options.kills };
    let mut tally = Tally::default();
    play(&mut tally, "kill", seeds(seed, options.rounds), |seed| murder::round(&stage, seed))?;
    play(&mut tally, "zombie", seeds(seed, options.zombies), |seed| zombie::round(&stage, seed))?;
    Ok(tally)
}

fn seeds(first: u64, rounds: u64) -> impl Iterator<Item = u64> {
    (0..rounds).map(move |round| first.wrapping_add(round))
}

/// Play a round under each seed: it says what it did, or what did not hold.
fn play(
    tally: &mut Tally,
    kind: &str,
    seeds: impl Iterator<Item = u64>,
    round: impl Fn(u64) -> Outcome<String>,
) -> Outcome<()> {
    for seed in seeds {
        match round(seed) {
            Ok(told) => {
                println!("ok - {kind}, seed {seed}: {told}");
                tally.passed += 1;
            }
            Err(error) => {
                process::still_wanted()?;
                let note = format!("not ok - {kind}, seed {seed}: {error}");
                println!("{note}");
                tally.fail(note);
            }
        }
    }
    Ok(())
}
