//! What a burden costs the mail that is sent beside it: a deep queue, many outboxes, poison. Each store is measured without and with it in
//! turn, and the ratio of the medians is printed: 1 is what a burden should cost.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::cargo::benchmark;
use crate::outcome::Outcome;
use crate::peers::Database;
use crate::process;

/// How many mails wait in a shallow queue, and how many outboxes there are in a narrow one.
const SHALLOW: u32 = 1000;
const NARROW: u32 = 10;

/// How it is measured: how often, with how many mails, over which stores, to which server, and what the program is asked beyond that.
#[derive(Clone, Copy)]
pub(super) struct Course<'a> {
    pub(super) rounds: usize,
    pub(super) mails: u32,
    pub(super) stores: &'a [String],
    pub(super) sink: SocketAddr,
    pub(super) rest: &'a [String],
}

/// What is asked of the program, and how many mails of all are counted.
struct Load {
    name: String,
    words: Vec<String>,
    counted: u32,
}

/// A queue of so many mails beside a shallow one, and so many outboxes beside few.
pub(super) fn depth(course: Course<'_>, depth: u32, outboxes: u32) -> Outcome<ExitCode> {
    let counted = course.mails;
    let load = |name: String, words: Vec<String>| Load { name, words, counted };
    let deep = |mails: u32| load(format!("{mails} waiting"), vec![format!("--backlog={mails}")]);
    // The one that sends is one of them.
    let broad = |outboxes: u32| {
        load(format!("{outboxes} outboxes"), vec![format!("--idle-outboxes={}", outboxes - 1)])
    };
    compare(course, &[[deep(SHALLOW), deep(depth)], [broad(NARROW), broad(outboxes.max(1))]])
}

/// Mail of which one in a hundred is poison beside mail of which none is. What is counted is the rest.
pub(super) fn poison(course: Course<'_>) -> Outcome<ExitCode> {
    let mails = course.mails;
    let good = Load { name: "no poison".to_owned(), words: Vec::new(), counted: mails };
    let counted = mails - mails.div_ceil(100);
    let bad = Load { name: "1 % poison".to_owned(), words: vec!["--poison=1".to_owned()], counted };
    compare(course, &[[good, bad]])
}

/// The program that sends, where it sends to, and where the rows are.
struct Bench<'a> {
    course: Course<'a>,
    program: PathBuf,
    postgres: Option<Database>,
    mariadb: Option<Database>,
}

impl Bench<'_> {
    /// Mails a second that go the whole way.
    fn rate(&self, store: &str, load: &Load, fresh: &str) -> Outcome<f64> {
        let database = match store {
            "postgres" => self.postgres.as_ref(),
            "mariadb" => self.mariadb.as_ref(),
            _ => None,
        };
        let place = database.map_or_else(|| Ok(store.to_owned()), |database| database.fresh(fresh))?;
        let mut command = Command::new(&self.program);
        command.arg(format!("--address={}", self.course.sink)).arg(format!("--store={place}"));
        command.arg(format!("--mails={}", self.course.mails)).args(&load.words).args(self.course.rest);
        let printed = process::output(&mut command)?;
        let seconds: f64 = printed.trim().parse().map_err(|_| format!("{store} gave no time: {printed}"))?;
        Ok(f64::from(load.counted) / seconds)
    }
}

fn compare(course: Course<'_>, pairs: &[[Load; 2]]) -> Outcome<ExitCode> {
    let program = benchmark("deliver")?;
    let wants = |store: &str| course.stores.iter().any(|name| name == store);
    let postgres = if wants("postgres") { Some(Database::postgres()?) } else { None };
    let mariadb = if wants("mariadb") { Some(Database::mariadb()?) } else { None };
    let bench = Bench { course, program, postgres, mariadb };
    println!("{:<10} {:<18} {:>10} {:<18} {:>10} {:>9}", "", "", "mails/s", "", "mails/s", "ratio");
    for store in course.stores {
        for (pair, loads) in pairs.iter().enumerate() {
            let mut rates = [Vec::new(), Vec::new()];
            for round in 0..course.rounds {
                for (side, (load, rates)) in loads.iter().zip(&mut rates).enumerate() {
                    rates.push(bench.rate(store, load, &format!("burden_{pair}_{round}_{side}"))?);
                }
            }
            let [without, with] = rates.map(median);
            let [light, heavy] = loads;
            println!(
                "{store:<10} {:<18} {without:>10.0} {:<18} {with:>10.0} {:>9.2}",
                light.name,
                heavy.name,
                with / without
            );
        }
    }
    println!("ratio: mails a second with the burden divided by those without");
    Ok(ExitCode::SUCCESS)
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN)
}
