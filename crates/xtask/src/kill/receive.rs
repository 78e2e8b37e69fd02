//! `cargo xtask kill --receive`: a receiving process is killed with SIGKILL at random moments while it fetches from a real server, another
//! client uses the box, and in the middle all mails get other UIDs and UIDLs; afterwards the box's mails, the ledger and what the
//! handler wrote are compared. What must hold then is in `account`.

use std::path::PathBuf;
use std::time::Duration;

use crate::outcome::Outcome;
use crate::peers::{Database, Incoming, IncomingProtocol};

use super::dice::Dice;

mod account;
mod client;
mod office;

use office::Office;

/// Where rounds of receiving are played.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) server: Incoming,
    pub(super) protocol: IncomingProtocol,
    /// The built `postroom`.
    pub(super) binary: PathBuf,
    /// The server that has the ledger, if it is not in a file.
    pub(super) database: Option<Database>,
    pub(super) mails: u32,
    pub(super) kills: u32,
}

/// What becomes of a mail at its server once it is safe.
#[derive(Clone, Copy, Debug)]
enum Take {
    Leave,
    Mark,
    Delete,
    Move,
}

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
    for kill in 0..scene.kills {
        if kill == scene.kills / 2 {
            office.renumber()?;
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
    let patience = Duration::from_secs(60 + u64::from(scene.mails / SLOWEST));
    office.worker(&["--until-idle"])?.ends_well_within(patience)?;
    let account = office.account()?;
    let faults = account.faults();
    if !faults.is_empty() {
        let shown: Vec<&str> = faults.iter().take(20).map(String::as_str).collect();
        return Err(format!("{} faults\n  {}", faults.len(), shown.join("\n  ")));
    }
    Ok(format!(
        "{} mails were handled once each, {} more were taken away by the other client unseen, {} workers were killed",
        account.written.len(),
        account.put.len() - account.written.len(),
        scene.kills
    ))
}
