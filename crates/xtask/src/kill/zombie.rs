//! A round with a zombie: a worker is stopped (SIGSTOP) while it sends, another one takes over when the lease has run out and does
//! what is left, and then the first goes on (SIGCONT). It may settle the doubts of its own attempts and let go what it had marked;
//! it sends nothing else.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::outcome::Outcome;

use super::desk::{DOUBTS, Desk};
use super::dice::Dice;
use super::installation::{LEASE, SCAN, Worker};
use super::stage::Stage;

/// How often a stopped worker is let go on because it holds nothing, or the file's lock.
const TRIES: u32 = 200;

pub(super) fn round(stage: &Stage, seed: u64) -> Outcome<String> {
    let desk = Desk::open(stage)?;
    match stop_and_compare(&desk, stage, seed) {
        Ok(told) => Ok(told),
        Err(error) => Err(desk.keep(&error)),
    }
}

fn stop_and_compare(desk: &Desk<'_>, stage: &Stage, seed: u64) -> Outcome<String> {
    let mut dice = Dice::new(seed);
    let mut zombie = desk.worker(&[])?;
    let first = 1 + dice.below(u64::from(stage.mails / 4));
    desk.wait_for_arrivals(usize::try_from(first).unwrap_or_default(), &mut zombie)?;
    let held = stop_with_mail_in_hand(desk, &mut zombie, &mut dice)?;
    // It waits itself until the leases of the other have run out.
    desk.worker(&["--until-idle"])?.ends_well()?;
    let before = desk.books()?;
    let most = usize::try_from(DOUBTS).unwrap_or(usize::MAX);
    let mut faults = before.faults(most);

    zombie.signal(Signal::SIGCONT)?;
    std::thread::sleep(LEASE + SCAN);
    zombie.still_runs()?;
    zombie.signal(Signal::SIGTERM)?;
    zombie.ends_well()?;
    let after = desk.books()?;
    faults.extend(after.faults(most));
    let doubted = before.of("in-doubt");
    for (id, state) in &after.states {
        if !doubted.contains(id.as_str()) && before.states.get(id) != Some(state) {
            faults.push(format!("{id} was settled by another worker and became {state}"));
        }
    }
    let sent = |id: &&String| after.copies(id) > before.copies(id) && !doubted.contains(id.as_str());
    faults.extend(after.submitted.iter().filter(sent).map(|id| format!("{id} was sent by the zombie")));
    if !faults.is_empty() {
        return Err(faults.join("\n  "));
    }
    Ok(format!(
        "{} mails, a worker was stopped with {held} in hand; {} were in doubt before it went on, {} after it",
        stage.mails,
        doubted.len(),
        after.of("in-doubt").len()
    ))
}

/// Stops a worker that has claimed mail and is not in the middle of a transaction: that would stop everybody who writes to the
/// file, and the other worker could take nothing over. Gives how many mails it has in hand.
fn stop_with_mail_in_hand(desk: &Desk<'_>, worker: &mut Worker, dice: &mut Dice) -> Outcome<usize> {
    for _ in 0..TRIES {
        std::thread::sleep(Duration::from_micros(dice.below(5_000)));
        worker.still_runs()?;
        worker.stop()?;
        if !holds_a_write_lock(worker.id())? {
            let held = desk.in_hand()?.len();
            if held > 0 {
                return Ok(held);
            }
        }
        worker.signal(Signal::SIGCONT)?;
    }
    Err(format!("of {TRIES} stops none hit the worker with mail in hand and outside a transaction"))
}

/// Whether the system lists a lock for writing of this process (proc_locks(5)).
fn holds_a_write_lock(process: u32) -> Outcome<bool> {
    let listed = std::fs::read_to_string("/proc/locks").map_err(|error| format!("/proc/locks: {error}"))?;
    let process = process.to_string();
    Ok(listed.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.contains(&"WRITE") && words.contains(&process.as_str())
    }))
}
