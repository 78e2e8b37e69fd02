//! The bytes of one mail, in pieces, without marking it as read. The server's size is asked with the first piece, before
//! anything is handed on; what ends a mail is a piece that the server ended, never a size or a lost connection. A server that
//! gives the whole mail in place of a piece is taken at its word: it is handed on as it comes.

use bytes::Bytes;

use super::conversation::{Conversation, Heard, RESPONSES_LIMIT};
use super::response::{Ahead, Response, parse};
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::incoming::MailSink;

/// The length of a piece in bytes.
pub(super) const PIECE: usize = 256 * 1024;

/// How much more than its limit is read of a mail that comes whole, so that the session can go on.
const DRAINED: u64 = 16 * 1024 * 1024;

/// What Courier hands out in place of a mail that another client has just removed, as if it were that mail.
const UNAVAILABLE: &[u8] = b"From: System Administrator <root@localhost>\r\nSubject: message unavailable\r\n\r\nThis message is no longer available on the server.\r\n";

/// Whether these bytes may stand for a mail that is gone.
pub(super) fn stands_in(bytes: &[u8]) -> bool {
    bytes == UNAVAILABLE
}

/// What was given of a body.
#[derive(Debug)]
enum Given {
    /// A piece, which begins here.
    Piece(u64, Bytes),
    /// The mail to its end, so many bytes from its start on. What was not received before has been handed on.
    Whole(u64),
}

/// What one command brought.
#[derive(Debug, Default)]
struct Told {
    size: Option<u64>,
    given: Option<Given>,
}

/// A mail that is on its way.
struct Coming<'a> {
    talk: &'a mut Conversation,
    uid: u32,
    limit: u64,
    sink: &'a mut dyn MailSink,
    /// How many of its bytes came.
    received: u64,
    /// The first piece: by it a mail is known that is given from its start once more.
    first: Bytes,
}

/// Hands the mail with this UID to `sink`.
///
/// # Errors
/// As [`crate::IncomingSession::fetch`]. The stream is broken after [`ErrorKind::TooLarge`] where the end is not waited for.
pub(super) async fn mail(
    talk: &mut Conversation,
    uid: u32,
    limit: u64,
    sink: &mut dyn MailSink,
) -> Result<()> {
    let error = |kind| Error::new(kind, Stage::Fetch);
    let gone = || error(ErrorKind::Gone);
    let mut size = None;
    let mut mail = Coming { talk, uid, limit, sink, received: 0, first: Bytes::new() };
    loop {
        let told = mail.ask().await?;
        let received = mail.received;
        if received == 0 {
            size = told.size;
        }
        let piece = match told.given {
            Some(Given::Whole(length)) if length > limit => return Err(error(ErrorKind::TooLarge)),
            // A server that tells a larger size is asked for the rest, and has none.
            Some(Given::Whole(length)) if length == received || size.is_none_or(|size| length >= size) => {
                return Ok(());
            }
            Some(Given::Whole(length)) => {
                mail.received = length;
                continue;
            }
            Some(Given::Piece(_, piece)) if mail.is_again(&piece, size) => return Ok(()),
            Some(Given::Piece(origin, piece)) if origin == received => piece,
            Some(Given::Piece(..)) => return Err(mail.talk.broken_rule("another piece than was asked for")),
            // Nothing behind the end, instead of an empty string.
            None if received > 0 && size.is_some_and(|size| received >= size) => Bytes::new(),
            None => return Err(gone()),
        };
        if piece.is_empty() && received == 0 && size.is_some_and(|size| size > 0) {
            return Err(gone());
        }
        if received == 0 && stands_in(&piece) && !is_there(mail.talk, uid).await? {
            return Err(gone());
        }
        if received == 0 {
            mail.first = piece.clone();
        }
        let ended = piece.len() < PIECE;
        let was_empty = piece.is_empty();
        let received = received + piece.len() as u64;
        if received > limit || size.is_some_and(|size| size > limit) {
            // Its header is worth having: it says whose mail it is.
            let room = usize::try_from(limit.saturating_sub(mail.received));
            write(mail.sink, piece.slice(..piece.len().min(room.unwrap_or(usize::MAX)))).await?;
            return Err(error(ErrorKind::TooLarge));
        }
        write(mail.sink, piece).await?;
        mail.received = received;
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

impl Coming<'_> {
    /// Asks for the piece behind what was received.
    async fn ask(&mut self) -> Result<Told> {
        let (uid, origin) = (self.uid, self.received);
        let size = if origin == 0 { "RFC822.SIZE " } else { "" };
        self.talk.enter(Stage::Fetch, self.talk.timeouts.piece);
        let tag = self.talk.send(&format!("UID FETCH {uid} ({size}BODY.PEEK[]<{origin}.{PIECE}>)")).await?;
        let mut told = Told::default();
        for _ in 0..RESPONSES_LIMIT {
            let (mut bytes, whole) = self.talk.response_or_body(PIECE as u64).await?;
            if let Some(whole) = whole {
                if told.given.is_some() {
                    return Err(self.talk.broken_rule("a second body"));
                }
                self.pour(whole).await?;
                // What `sink` took of the time is not the server's.
                self.talk.enter(Stage::Fetch, self.talk.timeouts.piece);
                self.talk.behind_body(&mut bytes).await?;
            }
            match self.talk.heard(&tag, parse(&bytes))? {
                Heard::End(completion) => {
                    return match completion.accepted(Stage::Fetch) {
                        Ok(()) => Ok(told),
                        // RFC 5530: somebody else has just removed it.
                        Err(error) if completion.code("EXPUNGEISSUED").is_some() => {
                            Err(Error::new(ErrorKind::Gone, error.stage()))
                        }
                        Err(error) => Err(error),
                    };
                }
                Heard::GoOn => return Err(self.talk.broken_rule("it was told to go on with nothing")),
                Heard::Untagged(response) => {
                    told.hear(&response, uid, whole).map_err(|rule| self.talk.broken_rule(rule))?;
                }
            }
        }
        Err(self.talk.broken_rule("too many responses to one command"))
    }

    /// Hands on a body that comes whole in place of a piece: what lies behind the bytes that were received, up to the limit.
    async fn pour(&mut self, body: Ahead) -> Result<()> {
        let origin = body.origin.unwrap_or(0);
        // A whole mail that says that it is the rest of one would be mail twice.
        if origin != 0 || body.length < self.received {
            return Err(self.talk.broken_rule("another piece than was asked for"));
        }
        let mut at = 0;
        while at < body.length {
            let piece = take(self.talk, body.length, at, self.limit).await?;
            let end = at + piece.len() as u64;
            if self.received == 0 && at == 0 {
                self.first = piece.clone();
            } else if at == 0 && !piece.starts_with(&self.first) {
                return Err(self.talk.broken_rule("another mail than before"));
            }
            // Within the piece, so they fit.
            let within = |place: u64| usize::try_from(place.clamp(at, end) - at).unwrap_or(piece.len());
            let (from, to) = (within(self.received), within(self.limit));
            if from < to {
                write(self.sink, piece.slice(from..to)).await?;
            }
            at = end;
        }
        Ok(())
    }

    /// Whether a server that was asked for what lies behind the first piece gave that piece again: it had given the whole mail. As
    /// long as a piece can be, the mail ends there only if its size says so.
    fn is_again(&self, piece: &Bytes, size: Option<u64>) -> bool {
        let length = piece.len() as u64;
        length > 0
            && length == self.received
            && *piece == self.first
            && (piece.len() < PIECE || size == Some(length))
    }
}

impl Told {
    /// Hears one response; `whole` is the body that was taken out of it.
    fn hear(
        &mut self,
        response: &Response<'_>,
        uid: u32,
        whole: Option<Ahead>,
    ) -> std::result::Result<(), &'static str> {
        let fetched = match response {
            Response::Fetch(fetched) => fetched,
            Response::Unreadable => return Err("an unreadable response where a mail is fetched"),
            _ if whole.is_some() => return Err("a body without its mail"),
            _ => return Ok(()),
        };
        let Some(body) = &fetched.body else {
            // The flags of some mail; or our own, whose body can't be read.
            let is_ours = fetched.uid == Some(uid) && fetched.skipped > 0;
            return if is_ours || whole.is_some() { Err("an unreadable body") } else { Ok(()) };
        };
        // RFC 3501 section 6.4.8: every answer to a UID command has the UID.
        let Some(answered) = fetched.uid else { return Err("a body without its UID") };
        if let Some(whole) = whole {
            // Handed on already: it must have been this one, and the only one.
            if answered != uid || body.content.as_deref() != Some(b"") {
                return Err("another body than was asked for");
            }
            self.given = Some(Given::Whole(whole.length));
        } else {
            if answered != uid || self.given.is_some() {
                return Ok(());
            }
            let Some(content) = &body.content else { return Ok(()) };
            if content.len() > PIECE {
                return Err("another piece than was asked for");
            }
            self.given = Some(Given::Piece(body.origin.unwrap_or(0), Bytes::copy_from_slice(content)));
        }
        self.size = fetched.size.filter(|size| *size > 0);
        Ok(())
    }
}

/// Passes over a body that is larger than was asked for.
pub(super) async fn skip(talk: &mut Conversation, body: Ahead, limit: u64) -> Result<()> {
    let mut at = 0;
    while at < body.length {
        at += take(talk, body.length, at, limit).await?.len() as u64;
    }
    Ok(())
}

/// Reads the piece at this place of a body; each has its time. Beyond `limit` the end is waited for where it is near.
async fn take(talk: &mut Conversation, length: u64, at: u64, limit: u64) -> Result<Bytes> {
    if at >= limit && length > limit.saturating_add(DRAINED) {
        return Err(talk.stream.fail(ErrorKind::TooLarge));
    }
    talk.enter(Stage::Fetch, talk.timeouts.piece);
    let most = usize::try_from(length - at).unwrap_or(PIECE).min(PIECE);
    talk.stream.read_exact(most).await
}
