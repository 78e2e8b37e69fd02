//! The mails of a folder in windows. It walks by sequence numbers, which have no gaps: neither a folder of a million nor a
//! gap of four thousand million UIDs costs memory, and `n:*`, which means the last mail even when there is none from n on
//! (RFC 3501 section 9, `seq-range`), is never sent.

use std::collections::BTreeMap;

use postroom_core::ledger::RemoteKey;

use super::conversation::Conversation;
use super::response::{Fetched, Response};
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::incoming::Listed;

/// How often a window is looked for while other clients change the folder.
const ATTEMPTS: u32 = 3;

/// The widest range that is read rather than searched further.
const NEAR: u32 = 16;

/// The most mails that one command asks for: its answer must come within the time of one command.
const MOST: usize = 1000;

/// At most `limit` mails with UIDs above `after`, ascending.
///
/// # Errors
/// Also when the server answers for fewer mails than it says there are, and persists in it: a mailbox is never taken for
/// empty because a server is confused.
pub(super) async fn window(talk: &mut Conversation, after: u32, limit: usize) -> Result<Vec<Listed>> {
    let mut reason = None;
    for _ in 0..ATTEMPTS {
        // The server tells what came and went; from here on it keeps sequence numbers still (RFC 3501 section 7.4.1).
        talk.obeyed("NOOP").await?;
        talk.view.changed = false;
        match walk(talk, after, limit).await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            // RFC 2180 section 4.1: a server may refuse when some of the mails are gone.
            Err(error) if is_refusal(&error) && !talk.stream.is_broken() => reason = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(reason
        .unwrap_or_else(|| talk.broken_rule("the server does not answer for mails that it says are there")))
}

fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Refused | ErrorKind::Deferred)
}

/// None when the numbers moved meanwhile.
async fn walk(talk: &mut Conversation, after: u32, limit: usize) -> Result<Option<Vec<Listed>>> {
    let expunges = talk.view.expunges;
    let mut found: BTreeMap<u32, (u32, Listed)> = BTreeMap::new();
    let Some(mut next) = position(talk, after).await? else { return Ok(None) };
    while found.len() < limit && next <= talk.view.exists {
        let width = u32::try_from((limit - found.len()).min(MOST)).unwrap_or(u32::MAX);
        let last = next.saturating_add(width - 1).min(talk.view.exists);
        let told = fetch(talk, next, last, "(UID RFC822.SIZE INTERNALDATE)").await?;
        if told.is_empty() || talk.view.expunges != expunges {
            return Ok(None);
        }
        found.extend(told.into_iter().filter(|(uid, _)| *uid > after));
        next = last + 1;
    }
    talk.view.anchor = found.last_key_value().map(|(uid, (number, _))| (*number, *uid)).or(talk.view.anchor);
    Ok(Some(found.into_values().map(|(_, listed)| listed).collect()))
}

/// A sequence number that no mail with a UID above `after` is before. None when a mail did not answer.
async fn position(talk: &mut Conversation, after: u32) -> Result<Option<u32>> {
    if after == 0 {
        return Ok(Some(1));
    }
    if let Some((number, uid)) = talk.view.anchor
        && uid == after
    {
        return Ok(Some(number + 1));
    }
    // Up to `low` all UIDs are at most `after`; from `high` on they are above. New mails are at the end, so the search
    // begins there, in growing steps, and goes on by halves.
    let (mut low, mut high, mut step) = (0, talk.view.exists + 1, 1);
    while high - low > if step == 1 { 1 } else { NEAR } {
        let probe = if low == 0 { high.saturating_sub(step).max(1) } else { low + (high - low) / 2 };
        step = step.saturating_mul(8);
        match fetch(talk, probe, probe, "(UID)").await?.first_key_value() {
            None => return Ok(None),
            Some((uid, _)) if *uid <= after => low = probe,
            Some(_) => high = probe,
        }
    }
    Ok(Some(low + 1))
}

/// What is told of the mails with these sequence numbers, by UID.
async fn fetch(
    talk: &mut Conversation,
    first: u32,
    last: u32,
    items: &str,
) -> Result<BTreeMap<u32, (u32, Listed)>> {
    let wants_size = items.contains("RFC822.SIZE");
    let range = if first == last { first.to_string() } else { format!("{first}:{last}") };
    let mut told = BTreeMap::new();
    let completion = talk
        .command(&format!("FETCH {range} {items}"), &mut |response| {
            match response {
                Response::Unreadable => return Err("an unreadable response where mails are listed"),
                Response::Fetch(fetched) if (first..=last).contains(&fetched.number) => {
                    take(&mut told, &fetched, wants_size)?;
                    if told.len() > 1 + (last - first) as usize {
                        return Err("more mails than were asked for");
                    }
                }
                // What was not asked for: the flags of another mail.
                _ => {}
            }
            Ok(())
        })
        .await?;
    completion.accepted(Stage::List)?;
    Ok(told)
}

fn take(
    told: &mut BTreeMap<u32, (u32, Listed)>,
    fetched: &Fetched<'_>,
    wants_size: bool,
) -> std::result::Result<(), &'static str> {
    match (fetched.uid, fetched.size) {
        (Some(uid), size) if size.is_some() || !wants_size => {
            let listed = Listed::new(RemoteKey::Uid(uid), size.unwrap_or(0), fetched.arrived);
            told.entry(uid).or_insert((fetched.number, listed));
            Ok(())
        }
        // Without its UID a mail that is there can't be told from one that is not: better no list than a short one.
        (None, Some(_)) => Err("a mail without its UID"),
        (None, None) if fetched.skipped > 0 => Err("a mail without its UID"),
        // Its flags alone: somebody read it.
        _ => Ok(()),
    }
}

/// The UID that a key is.
pub(super) fn uid(key: &RemoteKey, stage: Stage) -> Result<u32> {
    match key {
        RemoteKey::Uid(uid) if *uid > 0 => Ok(*uid),
        _ => Err(Error::new(ErrorKind::Gone, stage).with_reply("the key is no UID")),
    }
}
