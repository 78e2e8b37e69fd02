//! The bytes of mails: RETR, one by one or several ahead where the server takes that (RFC 2449 section 6.8), and TOP for
//! the header of one that is too large. The place of a mail in the maildrop is known already.

use bytes::Bytes;
use postroom_core::ledger::RemoteKey;

use super::conversation::Conversation;
use super::reply::Unstuff;
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::incoming::{MailSink, is_of_one_mail};

/// The greatest length of a piece in bytes.
const PIECE: usize = 256 * 1024;

/// The most mails, and bytes by their sizes, that are asked for before the first of them has come. They wait in the server;
/// the commands are far shorter than what a socket takes, so that neither side waits for the other.
const AHEAD: usize = 32;
const BYTES_AHEAD: u64 = 1024 * 1024;

/// How much more than its limit is read of a mail that is larger than the server said, so that the session can go on.
const DRAINED: u64 = 16 * 1024 * 1024;

/// The most bytes of a header that stand for a mail which is too large.
const HEADER: u64 = 256 * 1024;

/// How a mail ended.
enum Ended {
    Whole,
    /// It had more bytes than were handed on.
    Cut,
}

/// Reads one mail whole, for its key.
///
/// # Errors
/// A refusal by its meaning; [`ErrorKind::TooLarge`]; whatever breaks the conversation.
pub(super) async fn mail(
    talk: &mut Conversation,
    number: u32,
    limit: u64,
    sink: &mut dyn MailSink,
) -> Result<()> {
    talk.granted(&format!("RETR {number}")).await?;
    match body(talk, limit, limit, 0, sink).await? {
        Ended::Whole => Ok(()),
        Ended::Cut => Err(too_large()),
    }
}

/// Fetches mails, each of which has a number and a size, or is gone.
///
/// # Errors
/// As [`crate::IncomingSession::fetch`].
pub(super) async fn mails(
    talk: &mut Conversation,
    mails: &[(&RemoteKey, Option<(u32, u64)>)],
    limit: u64,
    sink: &mut dyn MailSink,
) -> Result<()> {
    let mut rest = mails;
    while let Some(((key, entry), later)) = rest.split_first() {
        let ended = match *entry {
            Some((_, size)) if size <= limit => {
                let together = if talk.offers.pipelining { together(rest, limit) } else { 1 };
                let (now, later) = rest.split_at(together);
                rest = later;
                ahead(talk, now, limit, sink).await?;
                continue;
            }
            Some((number, _)) => {
                sink.begin(key).await.map_err(stopped)?;
                header(talk, number, limit, sink).await?;
                Err(too_large())
            }
            None => {
                sink.begin(key).await.map_err(stopped)?;
                Err(Error::new(ErrorKind::Gone, Stage::Fetch))
            }
        };
        sink.end(ended).await.map_err(stopped)?;
        rest = later;
    }
    Ok(())
}

/// How many of the first of these mails are asked for before the first has come.
fn together(mails: &[(&RemoteKey, Option<(u32, u64)>)], limit: u64) -> usize {
    let mut bytes: u64 = 0;
    let small = mails.iter().take(AHEAD).take_while(|(_, entry)| {
        entry.is_some_and(|(_, size)| {
            bytes = bytes.saturating_add(size);
            size <= limit && bytes <= BYTES_AHEAD
        })
    });
    small.count().max(1)
}

/// Asks for all of them, then takes them.
async fn ahead(
    talk: &mut Conversation,
    mails: &[(&RemoteKey, Option<(u32, u64)>)],
    limit: u64,
    sink: &mut dyn MailSink,
) -> Result<()> {
    let commands: Vec<String> =
        mails.iter().flat_map(|(_, entry)| entry).map(|(number, _)| format!("RETR {number}")).collect();
    talk.send(&commands.join("\r\n")).await?;
    for (at, (key, _)) in mails.iter().enumerate() {
        talk.enter(Stage::Fetch, talk.timeouts.piece);
        let reply = talk.reply().await?;
        sink.begin(key).await.map_err(stopped)?;
        let ended = if reply.is_ok {
            let outstanding = mails.len() - at - 1;
            let most = limit.saturating_add(DRAINED);
            match body(talk, limit, most, outstanding, sink).await? {
                Ended::Whole => Ok(()),
                Ended::Cut => Err(too_large()),
            }
        } else {
            match reply.error(Stage::Fetch) {
                error if is_of_one_mail(&error) => Err(error),
                error => return Err(error),
            }
        };
        sink.end(ended).await.map_err(stopped)?;
    }
    Ok(())
}

/// Hands on the header of a mail that is too large, where the server gives it (RFC 1939 section 7, TOP).
async fn header(talk: &mut Conversation, number: u32, limit: u64, sink: &mut dyn MailSink) -> Result<()> {
    if !talk.offers.top {
        return Ok(());
    }
    let reply = talk.ask(&format!("TOP {number} 0")).await?;
    if reply.is_ok {
        let limit = limit.min(HEADER);
        body(talk, limit, limit.saturating_add(DRAINED), 0, sink).await?;
    }
    Ok(())
}

/// Reads up to the dot: at most `limit` bytes are handed on and at most `most` are read. Behind the dot there is nothing
/// unless answers are `outstanding`.
async fn body(
    talk: &mut Conversation,
    limit: u64,
    most: u64,
    outstanding: usize,
    sink: &mut dyn MailSink,
) -> Result<Ended> {
    let (mut state, mut received) = (Unstuff::LineStart, 0_u64);
    while state != Unstuff::Ended {
        talk.enter(talk.stage(), talk.timeouts.piece);
        let mut piece = Vec::new();
        while piece.len() < PIECE && state != Unstuff::Ended {
            let room = PIECE - piece.len();
            let take = |bytes: &[u8]| state.read(&bytes[..room.min(bytes.len())], &mut piece);
            talk.stream.read_by(take).await?;
        }
        if state == Unstuff::Ended && outstanding == 0 && talk.stream.has_more() {
            return Err(talk.broken_rule("more than the mail that was asked for"));
        }
        let room = usize::try_from(limit.saturating_sub(received)).unwrap_or(usize::MAX);
        received += piece.len() as u64;
        piece.truncate(room);
        if !piece.is_empty() {
            sink.write(Bytes::from(piece)).await.map_err(stopped)?;
        }
        if received > most {
            return Err(too_large());
        }
    }
    Ok(if received > limit { Ended::Cut } else { Ended::Whole })
}

fn too_large() -> Error {
    Error::new(ErrorKind::TooLarge, Stage::Fetch)
}

/// The caller knows what is wrong with its sink; here it only ends the conversation.
fn stopped(cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Stopped, Stage::Fetch).with_source(cause)
}
