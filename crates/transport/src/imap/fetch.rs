//! Mails by few commands: small ones are asked for together and handed on as they come, without marking them as read.
//! Large ones, and whatever did not come as it should, are asked for alone afterwards, by `pieces`, which knows how; so no mail
//! of a group suffers for another.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use postroom_core::ledger::RemoteKey;

use super::conversation::{Completion, Conversation, Heard, RESPONSES_LIMIT};
use super::pieces::{self, PIECE, stopped};
use super::response::{Fetched, Response, parse};
use super::{list, settle};
use crate::error::{ErrorKind, Result, Stage};
use crate::incoming::{Listed, MailSink, is_of_one_mail};

/// The most mails that one command asks for.
const MAILS: usize = 100;

/// The most bytes that one command asks for, by the sizes that the server has told. They wait in the server, not here.
const BYTES: u64 = 1024 * 1024;

/// How many commands the server has at once (RFC 3501 section 5.5): while what one brings is taken here, it works at the next.
const AHEAD: usize = 3;

/// Small mails that one command asks for.
struct Group<'a> {
    tag: String,
    /// What has not come whole.
    waiting: BTreeMap<u32, &'a RemoteKey>,
}

/// Hands these mails to `sink`.
///
/// # Errors
/// As [`crate::IncomingSession::fetch`].
pub(super) async fn mails(
    talk: &mut Conversation,
    mails: &[Listed],
    limit: u64,
    sink: &mut dyn MailSink,
) -> Result<()> {
    let mut rest = mails;
    let mut groups = VecDeque::new();
    let (mut alone, mut refused) = (Vec::new(), Ok(()));
    loop {
        while refused.is_ok() && groups.len() < AHEAD && !rest.is_empty() {
            let (group, later) = rest.split_at(together(rest, limit));
            rest = later;
            let waiting = by_uid(group, sink).await?;
            if waiting.len() > 1 {
                groups.push_back(ask(talk, waiting).await?);
            } else {
                alone.extend(waiting);
            }
        }
        if groups.is_empty() {
            break;
        }
        let (group, completion) = hear(talk, &mut groups, limit, sink).await?;
        alone.extend(group.waiting);
        // The answers to the others are heard all the same: the session may go on.
        refused = refused.and(ended(&completion));
    }
    refused?;
    for (uid, key) in alone {
        sink.begin(key).await.map_err(stopped)?;
        match pieces::mail(talk, uid, limit, sink).await {
            Err(error) if !is_of_one_mail(&error) => return Err(error),
            // It is too large, and its end was not waited for.
            Err(error) if talk.stream.is_broken() => {
                sink.end(Err(error.clone())).await.map_err(stopped)?;
                return Err(error);
            }
            ended => sink.end(ended).await.map_err(stopped)?,
        }
    }
    Ok(())
}

/// How many of the first of these mails one command asks for: one, or small ones.
fn together(mails: &[Listed], limit: u64) -> usize {
    let mut bytes: u64 = 0;
    let small = mails.iter().take(MAILS).take_while(|listed| {
        bytes = bytes.saturating_add(listed.size);
        // A size of 0 is one that could not be read.
        (1..PIECE as u64).contains(&listed.size) && listed.size <= limit && bytes <= BYTES
    });
    small.count().max(1)
}

/// The keys of these mails by their UIDs. What has none ends here.
async fn by_uid<'a>(mails: &'a [Listed], sink: &mut dyn MailSink) -> Result<BTreeMap<u32, &'a RemoteKey>> {
    let mut keys = BTreeMap::new();
    for listed in mails {
        match list::uid(&listed.key, Stage::Fetch) {
            Ok(uid) => _ = keys.insert(uid, &listed.key),
            Err(error) => {
                sink.begin(&listed.key).await.map_err(stopped)?;
                sink.end(Err(error)).await.map_err(stopped)?;
            }
        }
    }
    Ok(keys)
}

/// Asks for all of them at once.
async fn ask<'a>(talk: &mut Conversation, waiting: BTreeMap<u32, &'a RemoteKey>) -> Result<Group<'a>> {
    let set = settle::set(&waiting.keys().copied().collect());
    talk.enter(Stage::Fetch, talk.timeouts.piece);
    let tag = talk.send(&format!("UID FETCH {set} (RFC822.SIZE BODY.PEEK[]<0.{PIECE}>)")).await?;
    Ok(Group { tag, waiting })
}

/// Hands on what comes, until one of the commands has ended; gives that one with what did not come whole. A server may answer them in
/// another order.
async fn hear<'a>(
    talk: &mut Conversation,
    groups: &mut VecDeque<Group<'a>>,
    limit: u64,
    sink: &mut dyn MailSink,
) -> Result<(Group<'a>, Completion)> {
    for _ in 0..RESPONSES_LIMIT {
        let (mut bytes, larger) = talk.response_or_body(PIECE as u64).await?;
        if let Some(larger) = larger {
            pieces::skip(talk, larger, limit).await?;
            talk.behind_body(&mut bytes).await?;
        }
        let bytes = bytes.freeze();
        let response = parse(&bytes);
        let answers =
            |group: &Group<'_>| matches!(&response, Response::Tagged(tag, _) if *tag == group.tag.as_bytes());
        let answered = groups.iter().position(answers).unwrap_or(0);
        let Some(group) = groups.get(answered) else { break };
        let response = match talk.heard(&group.tag, response)? {
            Heard::End(completion) => {
                let Some(group) = groups.remove(answered) else { break };
                return Ok((group, completion));
            }
            Heard::GoOn => return Err(talk.broken_rule("it was told to go on with nothing")),
            Heard::Untagged(response) => response,
        };
        let fetched = match response {
            Response::Fetch(fetched) => fetched,
            Response::Unreadable => {
                return Err(talk.broken_rule("an unreadable response where mails are fetched"));
            }
            _ => continue,
        };
        let Some((uid, mail)) = whole(&fetched, &bytes, limit) else { continue };
        let Some(key) = groups.iter_mut().find_map(|group| group.waiting.remove(&uid)) else { continue };
        sink.begin(key).await.map_err(stopped)?;
        if !mail.is_empty() {
            sink.write(mail).await.map_err(stopped)?;
        }
        sink.end(Ok(())).await.map_err(stopped)?;
        // Each mail has its time, and what `sink` took of it is not the server's; other words bring no more.
        talk.enter(Stage::Fetch, talk.timeouts.piece);
    }
    Err(talk.broken_rule("too many responses to one command"))
}

/// A mail that is surely whole: the server told its size, gave no fewer bytes, and could have given more, and they don't stand for one
/// that is gone.
fn whole(fetched: &Fetched<'_>, response: &Bytes, limit: u64) -> Option<(u32, Bytes)> {
    let (uid, size, body) = (fetched.uid?, fetched.size?, fetched.body.as_ref()?);
    let content = body.content.as_ref()?;
    let length = content.len() as u64;
    let is_whole = length >= size && content.len() < PIECE && length <= limit;
    if !is_whole || size == 0 || pieces::stands_in(content) || body.origin.unwrap_or(0) != 0 {
        return None;
    }
    let mail = match content {
        std::borrow::Cow::Borrowed(inside) => response.slice_ref(inside),
        std::borrow::Cow::Owned(unquoted) => Bytes::copy_from_slice(unquoted),
    };
    Some((uid, mail))
}

/// A refusal may be about one of the mails only: each that is still waiting is asked for alone.
fn ended(completion: &Completion) -> Result<()> {
    match completion.accepted(Stage::Fetch) {
        Err(error) if error.kind() != ErrorKind::Refused && completion.code("EXPUNGEISSUED").is_none() => {
            Err(error)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_mails_go_alone_and_small_ones_together_up_to_a_bound() {
        let check = |sizes: &[u64], limit: u64, want: usize| {
            let key = |at: usize| RemoteKey::Uid(u32::try_from(at).unwrap_or(1) + 1);
            let mails: Vec<Listed> =
                sizes.iter().enumerate().map(|(at, size)| Listed::new(key(at), *size, None)).collect();
            assert_eq!(together(&mails, limit), want, "{sizes:?}");
        };
        check(&[300_000, 1], u64::MAX, 1);
        check(&[0, 1], u64::MAX, 1);
        check(&[1, 2, 0, 1], u64::MAX, 2);
        check(&[1, 2, 300_000], u64::MAX, 2);
        check(&[1, 2, 30], 20, 2);
        check(&[30, 1], 20, 1);
        check(&[262_143; 9], u64::MAX, 4);
        check(&[1; 500], u64::MAX, MAILS);
    }
}
