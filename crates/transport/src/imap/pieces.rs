//! The bytes of one mail, in pieces, without marking it as read. The server's size is asked with the first piece, before
//! anything is handed on; what ends a mail is a piece that the server ended, never a size or a lost connection.

use bytes::Bytes;

use super::conversation::Conversation;
use super::response::Response;
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::incoming::MailSink;

/// The length of a piece in bytes.
pub(super) const PIECE: usize = 256 * 1024;

/// What Courier hands out in place of a mail that another client has just removed, as if it were that mail.
const UNAVAILABLE: &[u8] = b"From: System Administrator <root@localhost>\r\nSubject: message unavailable\r\n\r\nThis message is no longer available on the server.\r\n";

/// Whether these bytes may stand for a mail that is gone.
pub(super) fn stands_in(bytes: &[u8]) -> bool {
    bytes == UNAVAILABLE
}

/// What one command brought.
#[derive(Debug, Default)]
struct Told {
    size: Option<u64>,
    piece: Option<Bytes>,
}

/// Hands the mail with this UID to `sink`.
///
/// # Errors
/// As [`crate::IncomingSession::fetch`].
pub(super) async fn mail(
    talk: &mut Conversation,
    uid: u32,
    limit: u64,
    sink: &mut dyn MailSink,
) -> Result<()> {
    let error = |kind| Error::new(kind, Stage::Fetch);
    let gone = || error(ErrorKind::Gone);
    let mut size = None;
    let mut received: u64 = 0;
    loop {
        talk.enter(Stage::Fetch, talk.timeouts.piece);
        let told = piece(talk, uid, received).await?;
        if received == 0 {
            size = told.size;
        }
        let piece = match told.piece {
            Some(piece) => piece,
            // Nothing behind the end, instead of an empty string.
            None if received > 0 && size.is_some_and(|size| received >= size) => Bytes::new(),
            None => return Err(gone()),
        };
        if piece.is_empty() && received == 0 && size.is_some_and(|size| size > 0) {
            return Err(gone());
        }
        if received == 0 && stands_in(&piece) && !is_there(talk, uid).await? {
            return Err(gone());
        }
        let ended = piece.len() < PIECE;
        let was_empty = piece.is_empty();
        received += piece.len() as u64;
        if received > limit || size.is_some_and(|size| size > limit) {
            // Its header is worth having: it says whose mail it is.
            let room = usize::try_from(limit.saturating_sub(received - piece.len() as u64));
            write(sink, piece.slice(..piece.len().min(room.unwrap_or(usize::MAX)))).await?;
            return Err(error(ErrorKind::TooLarge));
        }
        write(sink, piece).await?;
        // Some servers tell a wrong size: a short piece before that size is asked for its rest, and a whole piece always.
        if was_empty || (ended && size.is_none_or(|size| received >= size)) {
            return Ok(());
        }
    }
}

/// Whether the server has this mail, after it was given the occasion to look (RFC 3501 section 6.1.2).
async fn is_there(talk: &mut Conversation, uid: u32) -> Result<bool> {
    talk.command("NOOP", &mut |_| Ok(())).await?.accepted(Stage::Fetch)?;
    let mut found = false;
    let mut look = |response: Response<'_>| {
        found |= matches!(response, Response::Fetch(fetched) if fetched.uid == Some(uid));
        Ok(())
    };
    let completion = talk.command(&format!("UID FETCH {uid} (UID)"), &mut look).await?;
    completion.accepted(Stage::Fetch)?;
    Ok(found)
}

async fn write(sink: &mut dyn MailSink, piece: Bytes) -> Result<()> {
    match piece.is_empty() {
        true => Ok(()),
        // The caller knows what is wrong with its sink; here it only ends the conversation.
        false => sink.write(piece).await.map_err(stopped),
    }
}

pub(super) fn stopped(cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Stopped, Stage::Fetch).with_source(cause)
}

/// Asks for the piece from `origin` on.
async fn piece(talk: &mut Conversation, uid: u32, origin: u64) -> Result<Told> {
    let size = if origin == 0 { "RFC822.SIZE " } else { "" };
    let command = format!("UID FETCH {uid} ({size}BODY.PEEK[]<{origin}.{PIECE}>)");
    let mut told = Told::default();
    let completion = talk
        .command(&command, &mut |response| {
            let fetched = match response {
                Response::Fetch(fetched) => fetched,
                Response::Unreadable => return Err("an unreadable response where a mail is fetched"),
                _ => return Ok(()),
            };
            let Some(body) = fetched.body else {
                // The flags of some mail; or our own, whose body can't be read.
                return match fetched.uid {
                    Some(other) if other == uid && fetched.skipped > 0 => Err("an unreadable body"),
                    _ => Ok(()),
                };
            };
            // RFC 3501 section 6.4.8: every answer to a UID command has the UID.
            let Some(answered) = fetched.uid else { return Err("a body without its UID") };
            if answered != uid || told.piece.is_some() {
                return Ok(());
            }
            told.size = fetched.size.filter(|size| *size > 0);
            let Some(content) = body.content else { return Ok(()) };
            if content.len() > PIECE || body.origin.unwrap_or(0) != origin {
                return Err("another piece than was asked for");
            }
            told.piece = Some(Bytes::copy_from_slice(&content));
            Ok(())
        })
        .await?;
    match completion.accepted(Stage::Fetch) {
        Ok(()) => Ok(told),
        // RFC 5530: somebody else has just removed it.
        Err(error) if completion.code("EXPUNGEISSUED").is_some() => {
            Err(Error::new(ErrorKind::Gone, error.stage()))
        }
        Err(error) => Err(error),
    }
}
