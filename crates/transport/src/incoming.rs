//! The port to servers that keep mail: a session selects a folder, lists keys and sizes in windows, fetches mails
//! and tells the server what to do with them. What is new is not decided here: the engine subtracts its ledger.
// mockall repeats the parentheses of `&'a (dyn .. + 'a)` where the lint holds them for superfluous.
#![cfg_attr(feature = "mock", expect(unused_parens, reason = "in generated code"))]

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::ledger::RemoteKey;
use postroom_core::time::Timestamp;

use crate::error::{Error, Result};
use crate::probe::ProbeReport;
use crate::route::Route;

/// With which rights a folder is selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "EXAMINE and SELECT")]
pub enum Access {
    /// Nothing can be changed (EXAMINE).
    ReadOnly,
    /// Mails can be settled (SELECT).
    ReadWrite,
}

/// A folder as the server lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Folder {
    /// Its whole name, as people see it.
    pub name: String,
    /// Whether it can be selected.
    pub selectable: bool,
    /// Whether the server says that it holds what was sent (RFC 6154 section 2).
    pub sent: bool,
}

impl Folder {
    /// A folder.
    #[must_use]
    pub fn new(name: impl Into<String>, selectable: bool) -> Self {
        Self { name: name.into(), selectable, sent: false }
    }

    /// As the one that holds what was sent.
    #[must_use]
    pub fn with_sent(mut self) -> Self {
        self.sent = true;
        self
    }
}

/// What the server says of a selected folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Selected {
    /// UIDVALIDITY: keys of another epoch name other mails. None for POP3.
    pub epoch: Option<u32>,
    /// How many mails there are.
    pub exists: u32,
    /// UIDNEXT: no mail has this UID or a higher one yet. None where the server does not say, and for POP3.
    pub uid_next: Option<u32>,
}

impl Selected {
    /// What was selected.
    #[must_use]
    pub fn new(epoch: Option<u32>, exists: u32) -> Self {
        Self { epoch, exists, uid_next: None }
    }

    /// With what the server says of UIDNEXT.
    #[must_use]
    pub fn with_uid_next(mut self, uid_next: Option<u32>) -> Self {
        self.uid_next = uid_next;
        self
    }

    /// Whether there may be a mail above this UID, which is the highest that the caller has met in the epoch. When there
    /// is none, a round over a folder of a million mails ends here, without a list.
    ///
    /// Only one answer of the server counts as "no": a UIDNEXT that is exactly the next one. A lower one is wrong, because the
    /// mail is known; after a higher one a list finds out, which costs two commands when there is nothing. A caller that polls
    /// lists all the same now and then (say, once an hour), for servers whose UIDNEXT stands still.
    #[must_use]
    pub fn may_hold_above(&self, known: u32) -> bool {
        self.exists > 0 && self.uid_next.is_none_or(|next| Some(next) != known.checked_add(1))
    }
}

/// A mail that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// Its key in the folder and epoch.
    pub key: RemoteKey,
    /// Its size in bytes, as the server says.
    pub size: u64,
    /// When it arrived at the server, where the protocol tells.
    pub arrived: Option<Timestamp>,
}

impl Listed {
    /// A mail that is there.
    #[must_use]
    pub fn new(key: RemoteKey, size: u64, arrived: Option<Timestamp>) -> Self {
        Self { key, size, arrived }
    }
}

/// What the server is told to do with a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// Mark it as read.
    Seen,
    /// Delete it.
    Delete,
    /// Move it to this folder.
    Move(String),
}

/// What woke a waiting session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the caller must decide on each")]
pub enum Hint {
    /// Something changed: list again.
    Changed,
    /// The deadline passed without a change.
    Quiet,
    /// The server does not tell by itself. Come back later: where the session can ask ([`IncomingSession::wait`] with no time
    /// to wait), in the same session; otherwise, and over POP3 always, in a new one.
    Poll,
}

/// How a session ended.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "the caller must decide on each")]
pub enum CloseReport {
    /// What was settled is kept. A session that settled nothing ends like this too: there is nothing to take back.
    Kept,
    /// What was settled in this session was not kept (POP3 deletes without a good QUIT): settle it again in a later one.
    Lost(Error),
}

/// Where the bytes of fetched mails go, one mail behind the other. Whatever it answers with an error ends the fetch and breaks
/// the session.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait MailSink: Send {
    /// The mail with this key follows. The one before has ended.
    async fn begin(&mut self, key: &RemoteKey) -> std::io::Result<()>;

    /// Takes the next piece of it, of at most 256 KiB.
    async fn write(&mut self, piece: Bytes) -> std::io::Result<()>;

    /// It has ended: whole, or with the reason why it is not. Only what ended with `Ok` is a mail.
    async fn end(&mut self, result: Result<()>) -> std::io::Result<()>;
}

/// Whether this is what became of one mail, and no error of the call.
pub(crate) fn is_of_one_mail(error: &Error) -> bool {
    use crate::error::ErrorKind;
    matches!(error.kind(), ErrorKind::Gone | ErrorKind::TooLarge | ErrorKind::Refused)
}

/// Whether a session can go on after this error.
#[cfg(any(feature = "imap", feature = "pop3"))]
pub(crate) fn leaves_whole(error: &Error) -> bool {
    use crate::error::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::Gone | ErrorKind::FolderMissing | ErrorKind::Refused | ErrorKind::Unsupported
    )
}

/// A signed-in conversation with one server.
///
/// 1. `select` tells the epoch and how many mails there are. A folder that is not there is an error, and the session goes
///    on. What is selected read-only is never changed: `settle` is refused.
/// 2. `list` gives windows in the order of the keys; put together they give every mail that was there all the time, once.
/// 3. A key names the same mail in every session of one epoch, and no other mail ever.
/// 4. `fetch` hands on exactly the bytes that lie there, in pieces of at most 256 KiB, and marks nothing as read.
/// 5. A mail that is not there any more is [`crate::ErrorKind::Gone`], and the session goes on.
/// 6. A mail beyond the limit is [`crate::ErrorKind::TooLarge`], and the session goes on; only one that comes all the same, and is so
///    much larger that its end is not waited for, may end it. Its beginning may be handed on, never more than the limit and never
///    the whole.
/// 7. Nothing changes at the server but by `settle` and `append`.
/// 8. What was settled holds when `close` says [`CloseReport::Kept`]; nothing else has changed. It can be repeated, in the
///    same and in a later session. The target of a move is not created.
/// 9. `append` puts exactly these bytes into a folder, marked as read; the folder is not created. `append`, `find` and
///    `wait` say so when the server can't; the session goes on.
/// 10. A refused sign-in is [`crate::ErrorKind::SignInRefused`], and no session.
/// 11. A probe goes through the same stages, changes nothing, and names the existing folders when one is missing.
/// 12. After any error but [`crate::ErrorKind::Gone`], [`crate::ErrorKind::FolderMissing`], [`crate::ErrorKind::Refused`]
///     and [`crate::ErrorKind::Unsupported`] a session is broken and refuses every further call. It is also broken when
///     the future of a call is dropped. A broken session is closed like any other.
/// 13. `fetch` begins and ends every mail that it was asked for once, in whatever order the server gives them. What
///     becomes of one mail is no error of the call: the others follow, and the session goes on.
/// 14. Whether anything is new is told without a list: after `select` by [`Selected::may_hold_above`], in a session by `wait`
///     with no time to wait.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait IncomingSession: Send {
    /// Every folder. POP3 has none: the list is empty.
    ///
    /// # Errors
    /// Of the connection or the protocol. An end of the stream is an error, never "no folders".
    async fn folders(&mut self) -> Result<Vec<Folder>>;

    /// Selects a folder; POP3 takes none.
    ///
    /// # Errors
    /// [`crate::ErrorKind::FolderMissing`] when the server says NO.
    async fn select<'a>(&mut self, folder: Option<&'a str>, access: Access) -> Result<Selected>;

    /// At most `limit` mails behind `after`, in the order of their keys (IMAP: ascending UID; POP3: the server's order).
    /// Fewer than `limit` means that there are no more.
    ///
    /// # Errors
    /// Of the connection or the protocol; a refusal is an error, never an empty list.
    async fn list<'a>(&mut self, after: Option<&'a RemoteKey>, limit: usize) -> Result<Vec<Listed>>;

    /// Hands the raw bytes of these mails to `sink`, one behind the other, without marking them as read: where the protocol
    /// allows it, many are asked for at once. `mails` are as [`list`](Self::list) gave them; their sizes decide how many.
    /// However slowly `sink` takes them, no more than one piece waits in memory for it.
    ///
    /// A mail ends with [`crate::ErrorKind::Gone`], [`crate::ErrorKind::TooLarge`] or [`crate::ErrorKind::Refused`] when it is
    /// not there any more, larger than `limit` bytes, or not given by the server.
    ///
    /// # Errors
    /// Of the connection or the protocol, and when `sink` fails ([`crate::ErrorKind::Stopped`]). What has ended by then is
    /// whole; a mail that was begun and has not ended is not.
    ///
    /// # Cancel safety
    /// As every call: when its future is dropped, what has ended is whole, and the session is broken.
    async fn fetch<'a>(
        &mut self,
        mails: &[Listed],
        limit: u64,
        sink: &'a mut (dyn MailSink + 'a),
    ) -> Result<()>;

    /// Tells the server what to do with mails. Repeatable, also in a later session: a mail that is gone counts as settled.
    /// A mail that is to be deleted may stay, marked as deleted, where the server can't take away single mails.
    ///
    /// # Errors
    /// When one could not be settled; others may have been. [`crate::ErrorKind::FolderMissing`] when the target of a move
    /// is missing; it is not created. [`crate::ErrorKind::Unsupported`] for an effect that the protocol lacks.
    async fn settle(&mut self, effects: &[(RemoteKey, Effect)]) -> Result<()>;

    /// The mails in the selected folder with this Message-ID (with its angle brackets). POP3 can't tell: the list is
    /// an error of kind [`crate::ErrorKind::Unsupported`].
    ///
    /// # Errors
    /// Of the connection or the protocol.
    async fn find(&mut self, message_id: &str) -> Result<Vec<RemoteKey>>;

    /// Puts a mail into a folder, marked as read; no folder need be selected. Not repeatable: after a broken connection it
    /// may be there or not.
    ///
    /// # Errors
    /// [`crate::ErrorKind::FolderMissing`] when there is no such folder; [`crate::ErrorKind::Unsupported`] where the
    /// protocol has none.
    async fn append(&mut self, folder: &str, content: Bytes) -> Result<()>;

    /// Waits until a mail comes to the selected folder or leaves it, at most so long, and never longer than 28 minutes,
    /// because servers end sessions that idle for 30 (RFC 2177). What came since the last `list` wakes it at once, so nothing
    /// falls between the two. The hint is no promise: a caller lists when it is woken, and also when nothing wakes it for
    /// some minutes, because a connection that a router has forgotten is silent as well. To notice that within five
    /// minutes, `at_most` is four: whatever is said next ends with an error after the time of one command.
    ///
    /// With [`Duration::ZERO`](std::time::Duration::ZERO) it asks the server once, also where it can't push: whether the folder
    /// changed since the last `list`, in one round trip and without listing. POP3 answers [`Hint::Poll`].
    ///
    /// A server that offers to push and then refuses is asked no more in this session: [`Hint::Poll`].
    ///
    /// # Errors
    /// Of the connection or the protocol; its end is an error and no change. The server has the time of one command
    /// ([`crate::ErrorKind::TimedOut`]) to begin, and to end, what `at_most` lies between.
    ///
    /// # Cancel safety
    /// As every call: a session is broken when the future is dropped. What the server had said is told to the next session.
    async fn wait(&mut self, at_most: std::time::Duration) -> Result<Hint>;

    /// Ends the conversation politely.
    async fn close(self: Box<Self>) -> CloseReport;
}

/// The port to servers that keep mail.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait IncomingTransport: Send + Sync {
    /// Connects and signs in.
    ///
    /// # Errors
    /// Of every stage up to the sign-in.
    async fn open(&self, route: &Route) -> Result<Box<dyn IncomingSession>>;

    /// Goes through all stages up to the selection of `folder`, read-only. When the folder is missing, the report lists
    /// those that exist. Nothing is changed in the box.
    async fn probe<'a>(&self, route: &Route, folder: Option<&'a str>) -> ProbeReport;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_next_uid_says_that_nothing_is_new() {
        let selected = |exists, uid_next| Selected::new(Some(1), exists).with_uid_next(uid_next);
        assert!(!selected(3, Some(8)).may_hold_above(7));
        for (uid_next, why) in
            [(None, "not told"), (Some(9), "a gap, or news"), (Some(8 - 1), "wrong"), (Some(1), "wrong")]
        {
            assert!(selected(3, uid_next).may_hold_above(7), "{why}");
        }
        assert!(!selected(0, None).may_hold_above(7));
        // The last UID that there is has no next one.
        assert!(selected(3, Some(u32::MAX)).may_hold_above(u32::MAX));
        assert!(!selected(3, Some(u32::MAX)).may_hold_above(u32::MAX - 1));
    }
}
