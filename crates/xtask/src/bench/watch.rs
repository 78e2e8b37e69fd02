//! Watching: what an idle inbox costs, and how soon a mail is noticed, beside others that watch the same boxes of the same server.
//! What each client does is the bench target `watch`.

use std::path::Path;
use std::process::{Command, ExitCode};

use crate::cargo::benchmark;
use crate::outcome::Outcome;
use crate::process;

/// The clients, and what each is called.
const CLIENTS: [(&str, &str); 3] = [
    ("postroom", "postroom, SQLite"),
    ("async-imap", "async-imap, keeps nothing"),
    ("task", "a task that owns a socket"),
];

/// So many boxes need what is needed once, however many there are; whatever more boxes need is theirs.
const FEW: u32 = 50;

/// What an idle box may cost without and with TLS, in KiB; what a process with so many boxes may have, in MB; and when a mail is noticed
/// at the latest (p99), in milliseconds.
const GOAL: (f64, f64) = (6.0, 14.0);
const LARGE: (u32, f64) = (10_000, 200.0);
const NOTICED: f64 = 100.0;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course {
    pub(super) rounds: usize,
    /// How many boxes; as the goals have them unless given.
    pub(super) boxes: Option<u32>,
    /// With TLS, without, or each; none for each.
    pub(super) tls: Option<bool>,
    /// How many mails come into boxes of each run.
    pub(super) wakeups: u32,
}

/// What one run has printed.
#[derive(Debug, Clone, Copy)]
struct Run {
    before: f64,
    idle: f64,
    after: f64,
    settled: f64,
    p50: f64,
    p95: f64,
    p99: f64,
    most: f64,
}

pub(super) fn watch(course: Course) -> Outcome<ExitCode> {
    let program = benchmark("watch")?;
    let sizes = course.boxes.map_or_else(|| vec![2000, LARGE.0], |boxes| vec![boxes]);
    let ways = course.tls.map_or_else(|| vec![false, true], |tls| vec![tls]);
    for boxes in sizes {
        for tls in &ways {
            // That many are asked for with TLS only, unless somebody asks.
            if boxes == LARGE.0 && !tls && ways.len() > 1 && course.boxes.is_none() {
                continue;
            }
            side_by_side(&program, course, boxes, *tls)?;
        }
    }
    println!(
        "once: what the first {FEW} boxes need; KiB/box: what each of the others needs; s: until all idle"
    );
    println!(
        "ratio: the median divided by that of a task that owns a socket (memory), or of async-imap (p99)"
    );
    Ok(ExitCode::SUCCESS)
}

/// A run with few boxes, and the one with all.
type Pair = (Run, Run);

/// Each client in turn, so many times; the medians are printed.
fn side_by_side(program: &Path, course: Course, boxes: u32, tls: bool) -> Outcome<()> {
    let mut pairs = CLIENTS.map(|(name, _)| (name, Vec::new()));
    let few = FEW.min(boxes / 2);
    for _ in 0..course.rounds.max(1) {
        for (name, pairs) in &mut pairs {
            let first = run(program, name, few, tls, 0)?;
            pairs.push((first, run(program, name, boxes, tls, course.wakeups)?));
        }
    }
    let median = |name: &str, of: &dyn Fn(&Pair) -> f64| {
        let own = pairs.iter().find(|(other, _)| *other == name).map(|(_, pairs)| pairs.as_slice());
        let mut figures: Vec<f64> = own.unwrap_or_default().iter().map(of).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let cost = |(first, all): &Pair| (all.idle - first.idle) / f64::from(boxes - few);
    let megabytes = |of: fn(&Pair) -> f64| move |pair: &Pair| of(pair) * 1.024 / 1000.0;
    let idle = megabytes(|(_, all)| all.idle);
    let after = megabytes(|(_, all)| all.after);

    println!("\n{boxes} boxes, {}, {} mails", if tls { "TLS" } else { "plain" }, course.wakeups);
    println!(
        "{:<26} {:>9} {:>8} {:>8} {:>8} {:>8} {:>6} {:>7} {:>7} {:>7} {:>7} {:>6} {:>6}",
        "",
        "before MB",
        "once MB",
        "idle MB",
        "after MB",
        "KiB/box",
        "ratio",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "most ms",
        "ratio",
        "s"
    );
    for (name, called) in CLIENTS {
        println!(
            "{called:<26} {:>9.1} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>6.2} {:>7} {:>7} {:>7} {:>7} {:>6} {:>6.1}",
            median(name, &megabytes(|(_, all)| all.before)),
            median(name, &megabytes(|(first, _)| first.idle - first.before)),
            median(name, &idle),
            median(name, &after),
            median(name, &cost),
            median(name, &cost) / median("task", &cost),
            shown(median(name, &|(_, all)| all.p50)),
            shown(median(name, &|(_, all)| all.p95)),
            shown(median(name, &|(_, all)| all.p99)),
            shown(median(name, &|(_, all)| all.most)),
            shown(median(name, &|(_, all)| all.p99) / median("async-imap", &|(_, all)| all.p99)),
            median(name, &|(_, all)| all.settled),
        );
    }
    let judge = |what: &str, figure: f64, goal: f64| {
        println!(
            "{what}: {figure:.1} (goal: at most {goal:.0}){}",
            if figure <= goal { "" } else { ", missed" }
        );
    };
    judge("KiB for each box", median("postroom", &cost), if tls { GOAL.1 } else { GOAL.0 });
    if boxes == LARGE.0 {
        judge("MB in all, after the mails", median("postroom", &after), LARGE.1);
    }
    judge("p99 in ms", median("postroom", &|(_, all)| all.p99), NOTICED);
    Ok(())
}

/// A client that takes no mail notices none.
fn shown(figure: f64) -> String {
    if figure.is_nan() { "-".to_owned() } else { format!("{figure:.1}") }
}

fn run(program: &Path, client: &str, boxes: u32, tls: bool, wakeups: u32) -> Outcome<Run> {
    let mut command = Command::new(program);
    command.arg(format!("--client={client}")).arg(format!("--boxes={boxes}"));
    command.arg(format!("--wakeups={wakeups}")).args(tls.then_some("--tls"));
    let printed = process::output(&mut command)?;
    let figures: Vec<f64> = printed.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match figures[..] {
        [before, idle, after, settled, p50, p95, p99, most] => {
            Ok(Run { before, idle, after, settled, p50, p95, p99, most })
        }
        _ => Err(format!("the benchmark gave no figures: {printed}")),
    }
}
