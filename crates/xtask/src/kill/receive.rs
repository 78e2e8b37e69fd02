//! `cargo xtask kill --receive`: a receiving process is killed with SIGKILL at random moments while it fetches from a real server, another
//! client uses the box, and in the middle all mails get other UIDs and UIDLs, and processes are killed while they look at these; afterwards
//! the box's mails, the ledger and what the handler wrote are compared. What must hold then is in `account`.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::outcome::Outcome;
use crate::peers::IncomingProtocol;

use super::dice::Dice;
use super::installation::Worker;

mod account;
mod client;
mod office;
mod pass;
mod relay;
mod scene;

use office::Office;
pub(crate) use relay::Relay;
use scene::Take;
pub(crate) use scene::{Company, Numbers, Plant, Scene};

/// How many mails a worker must manage in a second, on however slow a machine.
const SLOWEST: u32 = 5;

pub(super) fn round(scene: &Scene, seed: u64) -> Outcome<String> {
    let takes: &[Take] = match scene.protocol {
        IncomingProtocol::Imap | IncomingProtocol::Imaps => {
            &[Take::Leave, Take::Mark, Take::Delete, Take::Move]
        }
        IncomingProtocol::Pop3 | IncomingProtocol::Pop3s => &[Take::Leave, Take::Delete],
    };
    let mut dice = Dice::new(seed);
    let chosen =
        usize::try_from(dice.below(u64::try_from(takes.len()).unwrap_or_default())).unwrap_or_default();
    let take = takes.get(chosen).copied().unwrap_or(Take::Leave);
    let mut office = Office::open(scene, take, seed)?;
    match kill_and_compare(&mut office, scene, &mut dice) {
        Ok(told) => Ok(format!("{take:?}: {told}")),
        Err(error) => Err(office.keep(&format!("{take:?}: {error}"))),
    }
}

fn kill_and_compare(office: &mut Office<'_>, scene: &Scene, dice: &mut Dice) -> Outcome<String> {
    // Half of the mails are there at the first contact, the others come while workers live and die.
    let share = scene.mails / (2 * scene.kills);
    office.put(scene.mails - share * scene.kills, dice)?;
    if scene.plant == Some(Plant::Loss) {
        office.lose_one()?;
    }
    let mut second = match scene.company {
        Company::Second => Some(office.worker(&[])?),
        Company::None => None,
    };
    let mut inside = 0;
    for kill in 0..scene.kills {
        if kill == scene.kills / 2 && scene.numbers == Numbers::Change {
            // Nobody may be signed in then.
            let paused = second.take().map(stop).transpose()?;
            inside = pass::kill_inside(office, dice)?;
            second = paused.map(|()| office.worker(&[])).transpose()?;
        }
        office.put(share, dice)?;
        // What the other client takes away need not be handled, so some are left out of account.
        let left = office.due().saturating_sub(office.written() + 10);
        let some = dice.below(u64::try_from(left).unwrap_or_default().min(2 * u64::from(share) + 1));
        let count = office.written() + usize::try_from(some).unwrap_or_default();
        let moment = Duration::from_micros(dice.below(if some == 0 { 400_000 } else { 20_000 }));
        let mut worker = office.worker(&[])?;
        office.disturb(dice)?;
        office.wait_for(count, &mut worker)?;
        std::thread::sleep(moment);
        worker.murder()?;
    }
    second.map(stop).transpose()?;
    if scene.plant == Some(Plant::Double) {
        office.double_one()?;
    }
    let patience = Duration::from_secs(60 + u64::from(scene.mails / SLOWEST));
    office.worker(&["--until-idle"])?.ends_well_within(patience)?;
    let account = office.account()?;
    let faults = account.faults();
    if let Some(plant) = scene.plant {
        let words = match plant {
            Plant::Loss => "was never stored",
            Plant::Double => "was stored 2 times and handed over under 2 keys",
        };
        return match faults.as_slice() {
            [fault] if fault.ends_with(words) => Ok(format!("the comparison saw what was planted: {fault}")),
            faults => Err(format!("of a planted {plant:?} the comparison saw: {}", faults.join("\n  "))),
        };
    }
    if !faults.is_empty() {
        let shown: Vec<&str> = faults.iter().take(20).map(String::as_str).collect();
        return Err(format!("{} faults\n  {}", faults.len(), shown.join("\n  ")));
    }
    Ok(format!(
        "{} mails were handled once each, {} more were taken away by the other client unseen, {} workers were killed at random, and {inside} inside the pass over the renumbered box",
        account.written.len(),
        account.put.len() - account.written.len(),
        scene.kills
    ))
}

/// Ask a worker to end, and wait until it has.
fn stop(worker: Worker) -> Outcome<()> {
    worker.signal(Signal::SIGTERM)?;
    worker.ends_well()
}
