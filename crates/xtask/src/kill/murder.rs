//! A round of killing: several workers after each other die by SIGKILL at moments that the seed chooses, and a last one does what is
//! left.

use std::time::Duration;

use crate::outcome::Outcome;

use super::desk::{DOUBTS, Desk};
use super::dice::Dice;
use super::installation::{LEASE, SCAN};
use super::stage::Stage;

/// What a loaded machine may need besides lease and scan: for the start of the next worker, and for its look.
const SLACK: Duration = Duration::from_secs(2);

pub(super) fn round(stage: &Stage, seed: u64) -> Outcome<String> {
    let desk = Desk::open(stage)?;
    match kill_and_compare(&desk, stage, seed) {
        Ok(told) => Ok(told),
        Err(error) => Err(desk.keep(&error)),
    }
}

fn kill_and_compare(desk: &Desk<'_>, stage: &Stage, seed: u64) -> Outcome<String> {
    let mut dice = Dice::new(seed);
    for _ in 0..stage.kills {
        // At least half of the mails are left for the last worker.
        let more = dice.below(u64::from(stage.mails / (2 * stage.kills)));
        // What one mail takes, so that every step is hit; a worker that need not send anything dies while it starts.
        let moment = Duration::from_micros(dice.below(if more == 0 { 150_000 } else { 5_000 }));
        let count = desk.server.accepted_count() + usize::try_from(more).unwrap_or_default();
        let mut worker = desk.worker(&[])?;
        desk.wait_for_arrivals(count, &mut worker)?;
        std::thread::sleep(moment);
        worker.murder()?;
    }
    let longest = last_worker(desk)?;
    let books = desk.books()?;
    let most = usize::try_from(stage.kills * DOUBTS).unwrap_or(usize::MAX);
    let in_hand = desk.in_hand()?;
    let mut faults = books.faults(most);
    faults.extend(in_hand.iter().map(|id| format!("{id} is claimed by nobody who lives")));
    refuse(&faults)?;
    let doubts = books.of("in-doubt").len();
    desk.settle_doubts(&books)?;
    let books = desk.books()?;
    let mut faults = books.faults(0);
    faults.extend(
        books.submitted.iter().filter(|id| books.copies(id) != 1).map(|id| format!("{id} is missing")),
    );
    refuse(&faults)?;
    Ok(format!(
        "{} mails arrived once each, {} workers were killed, {doubts} mails were in doubt, a dead worker's claim stood for {longest:.1?} at most",
        stage.mails, stage.kills
    ))
}

fn refuse(faults: &[String]) -> Outcome<()> {
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n  ")) }
}

/// The last worker does what is left. Gives how long a claim of the last dead one stood at most, by the store's clock.
fn last_worker(desk: &Desk<'_>) -> Outcome<Duration> {
    let left = desk.in_hand()?;
    desk.worker(&["--until-idle"])?.ends_well()?;
    let mut longest = Duration::ZERO;
    for id in left {
        let stood = desk
            .stood(&id)?
            .ok_or_else(|| format!("{id} was in a dead worker's hand, and its lease never ran out"))?;
        if stood > LEASE + SCAN + SLACK {
            return Err(format!("{id} was claimed for {stood:?} by a worker that was dead"));
        }
        longest = longest.max(stood);
    }
    Ok(longest)
}
