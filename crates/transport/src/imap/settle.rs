//! What the server is told to do with mails: read, deleted, moved. Each step can be repeated, also in a later session; a
//! mail that is gone counts as done.
//!
//! Only what is ours is ever expunged. Where UIDPLUS is missing, EXPUNGE takes every mail that is marked as deleted, also
//! those that another client marked: it is sent only when a search finds none but ours; otherwise our mails stay marked,
//! which is all that the protocol lets us do.

use std::collections::{BTreeMap, BTreeSet};

use postroom_core::ledger::RemoteKey;

use super::conversation::{Completion, Conversation};
use super::folder::{decode, encode, quoted};
use super::list;
use super::response::{Condition, Response};
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::incoming::Effect;

/// How many mails one command names: its line stays below the 8,000 bytes that servers take (RFC 7162 section 4).
const CHUNK: usize = 500;

/// The most mails that a search finds: with more, something else was searched for.
const FOUND_LIMIT: usize = 500_000;

/// Carries the effects out: marks first, then moves, then deletions.
///
/// # Errors
/// [`ErrorKind::FolderMissing`] when a target is missing: it is not created.
pub(super) async fn all(talk: &mut Conversation, effects: &[(RemoteKey, Effect)]) -> Result<()> {
    let (mut seen, mut deleted) = (BTreeSet::new(), BTreeSet::new());
    let mut moved: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for (key, effect) in effects {
        let Ok(uid) = list::uid(key, Stage::Settle) else { continue };
        match effect {
            Effect::Seen => seen.insert(uid),
            Effect::Delete => deleted.insert(uid),
            Effect::Move(folder) => moved.entry(folder).or_default().insert(uid),
        };
    }
    for uids in chunks(&seen) {
        on_those_there(talk, &uids, |set| format!("UID STORE {set} +FLAGS.SILENT (\\Seen)")).await?;
    }
    for (folder, uids) in moved {
        for uids in chunks(&uids) {
            move_to(talk, &uids, folder).await?;
        }
    }
    for uids in chunks(&deleted) {
        delete(talk, &uids).await?;
    }
    Ok(())
}

async fn move_to(talk: &mut Conversation, uids: &BTreeSet<u32>, folder: &str) -> Result<()> {
    let target = quoted(&encode(folder));
    let with_move = talk.offers("MOVE");
    let verb = if with_move { "MOVE" } else { "COPY" };
    let copied = on_those_there(talk, uids, |set| format!("UID {verb} {set} {target}")).await;
    if let Err(error) = copied {
        let unexplained = error.kind() == ErrorKind::Refused;
        return Err(match unexplained && !exists(talk, folder).await? {
            true => Error::new(ErrorKind::FolderMissing, Stage::Settle)
                .with_reply(error.reply().unwrap_or_default()),
            false => error,
        });
    }
    // A crash between the two leaves a copy in the target, and the next try another one: RFC 6851 is there to end that.
    if with_move { Ok(()) } else { delete(talk, uids).await }
}

async fn delete(talk: &mut Conversation, uids: &BTreeSet<u32>) -> Result<()> {
    on_those_there(talk, uids, |set| format!("UID STORE {set} +FLAGS.SILENT (\\Deleted)")).await?;
    if talk.offers("UIDPLUS") {
        return talk.obeyed(&format!("UID EXPUNGE {}", set(uids))).await.map(drop);
    }
    let marked = search(talk, "DELETED").await?;
    if !marked.is_empty() && marked.is_subset(uids) {
        talk.obeyed("EXPUNGE").await?;
    }
    Ok(())
}

/// Sends a command about mails. Some servers refuse it when none of them is there, which is no failure.
async fn on_those_there(
    talk: &mut Conversation,
    uids: &BTreeSet<u32>,
    command: impl Fn(&str) -> String,
) -> Result<()> {
    let set = set(uids);
    let completion = quiet(talk, &command(&set)).await?;
    match completion.accepted(Stage::Settle) {
        Err(error) if completion.condition == Condition::No && error.kind() == ErrorKind::Refused => {
            if search(talk, &format!("UID {set}")).await?.is_empty() {
                Ok(())
            } else {
                Err(error)
            }
        }
        done => done,
    }
}

async fn quiet(talk: &mut Conversation, command: &str) -> Result<Completion> {
    talk.command(command, &mut |_| Ok(())).await
}

async fn exists(talk: &mut Conversation, folder: &str) -> Result<bool> {
    let mut found = false;
    let command = format!("LIST \"\" {}", quoted(&encode(folder)));
    let completion = talk
        .command(&command, &mut |response| {
            // Wildcards in the name may find others.
            if let Response::List(_, name) = response {
                found |= decode(&name).is_some_and(|name| name == folder);
            }
            Ok(())
        })
        .await?;
    completion.accepted(Stage::Settle).map(|()| found)
}

/// The UIDs that fit the criteria.
///
/// # Errors
/// Also when the server refuses, or its answer can't be read or is missing.
pub(super) async fn search(talk: &mut Conversation, criteria: &str) -> Result<BTreeSet<u32>> {
    let mut found: Option<BTreeSet<u32>> = None;
    let completion = talk
        .command(&format!("UID SEARCH {criteria}"), &mut |response| {
            match response {
                Response::Search(uids) => {
                    let found = found.get_or_insert_default();
                    found.extend(uids);
                    if found.len() > FOUND_LIMIT {
                        return Err("a search finds too many mails");
                    }
                }
                Response::Unreadable => return Err("an unreadable response to a search"),
                _ => {}
            }
            Ok(())
        })
        .await?;
    completion.accepted(talk.stage())?;
    found.ok_or_else(|| talk.broken_rule("a search without an answer"))
}

fn chunks(uids: &BTreeSet<u32>) -> Vec<BTreeSet<u32>> {
    uids.iter()
        .copied()
        .collect::<Vec<_>>()
        .chunks(CHUNK)
        .map(|chunk| chunk.iter().copied().collect())
        .collect()
}

/// A sequence set (RFC 3501 section 9), runs as ranges.
pub(super) fn set(uids: &BTreeSet<u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &uid in uids {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(uid) => *last = uid,
            _ => runs.push((uid, uid)),
        }
    }
    let run = |(first, last): &(u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}:{last}"),
    };
    runs.iter().map(run).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_uids_are_ranges_and_no_command_is_too_long() {
        assert_eq!(set(&[9, 1, 2, 3, 7, u32::MAX, u32::MAX - 1].into()), "1:3,7,9,4294967294:4294967295");
        let scattered: BTreeSet<u32> = (0..2000).map(|at| u32::MAX - 2 * at).collect();
        let chunks = chunks(&scattered);
        assert_eq!(chunks.iter().map(BTreeSet::len).sum::<usize>(), scattered.len());
        assert!(chunks.iter().all(|chunk| set(chunk).len() < 7_000));
    }
}
