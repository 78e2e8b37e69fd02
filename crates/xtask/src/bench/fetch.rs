//! Fetching, held beside others that read the same boxes in turn: mbsync as it comes, which syncs each mail, and clients that keep
//! nothing. What postroom does is the bench target `fetch`.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tokio::time::Instant;

use super::boxes::{Boxes, LARGE, LARGE_SIZE, MANY, SMALL};
use crate::cargo::benchmark;
use crate::outcome::Outcome;
use crate::peers::Database;
use crate::process;

const MBSYNC: &str = "/usr/bin/mbsync";

/// Who is measured, what it is beside, and how many times as fast postroom is to be.
const CLIENTS: [(&str, &str, Option<f64>); 6] = [
    ("postroom, SQLite", "mbsync", Some(5.0)),
    ("postroom, PostgreSQL", "mbsync", None),
    ("mbsync", "mbsync", None),
    ("async-imap, keeps nothing", "mbsync", None),
    ("postroom, POP3, SQLite", "poplib, keeps nothing", Some(1.0)),
    ("poplib, keeps nothing", "poplib, keeps nothing", None),
];

/// Reads every mail of a box by POP3 and throws it away.
const POPLIB: &str = "import poplib, sys
host, port, user, password = sys.argv[1:]
box = poplib.POP3(host, int(port))
box.user(user)
box.pass_(password)
for number in range(1, box.stat()[0] + 1):
    box.retr(number)
box.quit()
";

/// What one run took.
#[derive(Debug, Clone, Copy)]
struct Taken {
    seconds: f64,
    processor: f64,
}

pub(super) fn fetch(rounds: usize, mails: u32) -> Outcome<ExitCode> {
    for (program, package) in [(MBSYNC, "isync"), ("/usr/sbin/dovecot", "dovecot-imapd")] {
        if !Path::new(program).exists() {
            println!("skipped: {program} is not there; it comes with the Debian package {package}");
            return Ok(ExitCode::SUCCESS);
        }
    }
    let program = benchmark("fetch")?;
    let boxes = Boxes::start(mails)?;
    let postgres = Database::postgres()?;
    let mut taken = CLIENTS.map(|(name, ..)| (name, Vec::new()));
    let mut grown = Vec::new();
    for round in 0..rounds {
        for (name, taken) in &mut taken {
            let ours = |address, more: &[&str]| ours(&program, &boxes, address, MANY, mails, more);
            let one = match *name {
                "postroom, SQLite" => ours(boxes.imap(), &[])?.0,
                "postroom, PostgreSQL" => {
                    let store = format!("--store={}", postgres.fresh(&format!("round_{round}"))?);
                    ours(boxes.imap(), &[&store])?.0
                }
                "postroom, POP3, SQLite" => ours(boxes.pop3(), &["--provider=pop3"])?.0,
                "async-imap, keeps nothing" => ours(boxes.imap(), &["--client=async-imap"])?.0,
                "mbsync" => mbsync(&boxes, mails)?,
                _ => poplib(&boxes)?,
            };
            taken.push(one);
        }
        // What a process needs for any mail is not the price of a large one: code that runs for the first time, the caches of a store.
        let [large, small] = [LARGE, SMALL].map(|user| ours(&program, &boxes, boxes.imap(), user, 1, &[]));
        let (large, small) = (large?.1, small?.1);
        println!(
            "the process grew by {large:.0} KiB over the large mail, by {small:.0} KiB over a small one"
        );
        grown.push(large - small);
    }
    report(&taken, mails);
    grown.sort_by(f64::total_cmp);
    let large = LARGE_SIZE as f64 / 1024.0;
    let ratio = grown.get(grown.len() / 2).copied().unwrap_or(f64::NAN) / large;
    let large = large / 1024.0;
    println!(
        "a mail of {large:.0} MiB costs {ratio:.2} x its size of memory beyond what a small one does (goal: at most 2)"
    );
    Ok(ExitCode::SUCCESS)
}

/// One run of the bench target; what it took, and by how many KiB it grew.
fn ours(
    program: &Path,
    boxes: &Boxes,
    address: std::net::SocketAddr,
    user: &str,
    mails: u32,
    more: &[&str],
) -> Outcome<(Taken, f64)> {
    let mut command = Command::new(program);
    command.arg(format!("--address={address}")).arg(format!("--user={user}"));
    command.arg(format!("--password={}", boxes.password())).arg(format!("--mails={mails}")).args(more);
    let printed = process::output(&mut command)?;
    let figures: Vec<f64> = printed.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match figures[..] {
        [seconds, processor, grown] => Ok((Taken { seconds, processor }, grown)),
        _ => Err(format!("the benchmark gave no figures: {printed}")),
    }
}

/// Pulls the box into a maildir that is not there yet, as mbsync does unless it is told otherwise: each mail is synced.
fn mbsync(boxes: &Boxes, mails: u32) -> Outcome<Taken> {
    let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    let (home, address) = (folder.path().display(), boxes.imap());
    let settings = format!(
        "IMAPStore far
Host {}
Port {}
User {MANY}
Pass {}
SSLType None
AuthMechs LOGIN

MaildirStore near
Path {home}/near/
Inbox {home}/near/INBOX

Channel box
Far :far:
Near :near:
Sync Pull New
Create Near
SyncState *
",
        address.ip(),
        address.port(),
        boxes.password()
    );
    let file = folder.path().join("mbsyncrc");
    let prepared = fs::write(&file, settings).and_then(|()| fs::create_dir(folder.path().join("near")));
    prepared.map_err(|error| format!("{home}: {error}"))?;
    let taken = timed(Command::new(MBSYNC).arg("-q").arg("-c").arg(&file).arg("box"))?;
    let kept: usize = ["cur", "new"]
        .iter()
        .map(|part| fs::read_dir(folder.path().join("near/INBOX").join(part)).map_or(0, Iterator::count))
        .sum();
    if u32::try_from(kept) != Ok(mails) {
        return Err(format!("mbsync kept {kept} of {mails} mails"));
    }
    Ok(taken)
}

fn poplib(boxes: &Boxes) -> Outcome<Taken> {
    let address = boxes.pop3();
    let mut command = Command::new("python3");
    command.args(["-c", POPLIB]).arg(address.ip().to_string()).arg(address.port().to_string());
    timed(command.args([MANY, boxes.password()]))
}

/// Runs a program to its end.
fn timed(command: &mut Command) -> Outcome<Taken> {
    let (begun, before) = (Instant::now(), of_children()?);
    process::output(command)?;
    Ok(Taken { seconds: begun.elapsed().as_secs_f64(), processor: of_children()? - before })
}

/// What programs that were started here and have ended used of all processors, in seconds.
fn of_children() -> Outcome<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|error| format!("used time: {error}"))?;
    let used = usage.user_time() + usage.system_time();
    Ok(used.num_microseconds() as f64 / 1e6)
}

fn report(taken: &[(&str, Vec<Taken>)], mails: u32) {
    let median = |name: &str, of: fn(&Taken) -> f64| {
        let runs = taken.iter().find(|(other, _)| *other == name).map(|(_, runs)| runs.as_slice());
        let mut figures: Vec<f64> = runs.unwrap_or_default().iter().map(of).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
    };
    println!("{:<26} {:>9} {:>12} {:>9} {:>6}", "", "mails/s", "CPU us each", "ratio", "goal");
    for (name, peer, goal) in CLIENTS {
        let rate = f64::from(mails) / median(name, |taken| taken.seconds);
        let beside = f64::from(mails) / median(peer, |taken| taken.seconds);
        let cost = median(name, |taken| taken.processor) * 1e6 / f64::from(mails);
        let goal = goal.map(|goal| format!("{goal:.0}")).unwrap_or_default();
        println!("{name:<26} {rate:>9.0} {cost:>12.1} {:>9.2} {goal:>6}", rate / beside);
    }
    println!("ratio: the median divided by that of mbsync, or for POP3 by that of poplib");
}
