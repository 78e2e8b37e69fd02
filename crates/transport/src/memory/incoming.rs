//! Boxes that keep mail, in memory: each mailbox of a registry has its own, with folders, UIDs and epochs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::id::MailboxId;
use postroom_core::ledger::RemoteKey;
use postroom_core::time::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::error::{Error, ErrorKind, Result, Stage};
use crate::incoming::{
    Access, CloseReport, Effect, Folder, Hint, IncomingSession, IncomingTransport, Listed, MailSink,
    Selected, is_of_one_mail,
};
use crate::memory::failing::Failing;
use crate::probe::ProbeReport;
use crate::route::{Protocol, Route};

const INBOX: &str = "INBOX";

/// How much a sink is given at once.
const PIECE: usize = 256 * 1024;

/// A mail in a folder in memory.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Kept {
    /// Its UID; over POP3 its unique id is the same number.
    pub uid: u32,
    /// Whether it is marked as read.
    pub seen: bool,
    /// When it arrived, if it was said.
    pub arrived: Option<Timestamp>,
    /// Its bytes.
    pub content: Bytes,
    /// What a fetch of it ends with.
    withheld: Option<Error>,
}

#[derive(Debug)]
struct Shelf {
    epoch: u32,
    last_uid: u32,
    mails: Vec<Kept>,
    /// What it says of UIDNEXT; none for the truth.
    misstated: Option<Option<u32>>,
}

impl Shelf {
    fn add(&mut self, seen: bool, arrived: Option<Timestamp>, content: Bytes) -> u32 {
        self.last_uid += 1;
        self.mails.push(Kept { uid: self.last_uid, seen, arrived, content, withheld: None });
        self.last_uid
    }
}

#[derive(Debug, Default)]
struct State {
    boxes: BTreeMap<MailboxId, BTreeMap<String, Shelf>>,
    last_epoch: u32,
    failing: Failing,
}

impl State {
    fn shelves(&mut self, mailbox: MailboxId) -> &mut BTreeMap<String, Shelf> {
        self.shelf(mailbox, INBOX);
        self.boxes.entry(mailbox).or_default()
    }

    /// The folder, made when it is missing.
    fn shelf(&mut self, mailbox: MailboxId, folder: &str) -> &mut Shelf {
        let folders = self.boxes.entry(mailbox).or_default();
        folders.entry(folder.to_owned()).or_insert_with(|| {
            self.last_epoch += 1;
            Shelf { epoch: self.last_epoch, last_uid: 0, mails: Vec::new(), misstated: None }
        })
    }
}

/// An [`IncomingTransport`] whose boxes a test fills. Every mailbox has an INBOX from the start; a route of protocol POP3
/// reads that one, as POP3 does. Clones share their boxes.
#[derive(Debug, Clone, Default)]
pub struct MemoryIncoming {
    state: Arc<Mutex<State>>,
    changes: watch::Sender<u64>,
}

impl MemoryIncoming {
    /// Empty boxes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a folder; nothing happens when it is there.
    pub fn create_folder(&self, mailbox: MailboxId, folder: &str) {
        self.change(|state| _ = state.shelf(mailbox, folder));
    }

    /// Puts a mail into a folder, which is made when it is missing, and returns its UID.
    pub fn deliver(&self, mailbox: MailboxId, folder: &str, content: impl Into<Bytes>) -> u32 {
        self.put(mailbox, folder, content.into(), None)
    }

    /// As [`deliver`](Self::deliver), with the time of its arrival.
    pub fn deliver_dated(
        &self,
        mailbox: MailboxId,
        folder: &str,
        content: impl Into<Bytes>,
        arrived: Timestamp,
    ) -> u32 {
        self.put(mailbox, folder, content.into(), Some(arrived))
    }

    /// The mails of a folder, by UID; none when there is no such folder.
    #[must_use]
    pub fn mails(&self, mailbox: MailboxId, folder: &str) -> Vec<Kept> {
        self.state().shelves(mailbox).get(folder).map(|shelf| shelf.mails.clone()).unwrap_or_default()
    }

    /// Takes a mail away, as another program would.
    pub fn expunge(&self, mailbox: MailboxId, folder: &str, uid: u32) {
        self.change(|state| state.shelf(mailbox, folder).mails.retain(|mail| mail.uid != uid));
    }

    /// Gives the folder a new epoch (UIDVALIDITY) and its mails new UIDs from 1; over POP3 they have other UIDLs.
    pub fn reset_epoch(&self, mailbox: MailboxId, folder: &str) {
        self.change(|state| {
            state.last_epoch += 1;
            let epoch = state.last_epoch;
            let shelf = state.shelf(mailbox, folder);
            (shelf.epoch, shelf.last_uid) = (epoch, 0);
            for mail in &mut shelf.mails {
                shelf.last_uid += 1;
                mail.uid = shelf.last_uid;
            }
        });
    }

    /// Gives the folder the mails that it had, and has it give the UIDs behind them again under the same epoch, as a server does that was
    /// restored from a backup.
    pub fn restore(&self, mailbox: MailboxId, folder: &str, mails: Vec<Kept>) {
        self.change(|state| {
            let shelf = state.shelf(mailbox, folder);
            shelf.last_uid = mails.iter().map(|mail| mail.uid).max().unwrap_or(0);
            shelf.mails = mails;
        });
    }

    /// Has the folder say this of UIDNEXT, or nothing, whatever it has.
    pub fn misstate_uid_next(&self, mailbox: MailboxId, folder: &str, uid_next: Option<u32>) {
        self.change(|state| state.shelf(mailbox, folder).misstated = Some(uid_next));
    }

    /// Fails once with `error`, in the call that its stage belongs to.
    pub fn fail_once(&self, error: Error) {
        self.state().failing.once(error);
    }

    /// Fails with `error` until [`recover`](Self::recover).
    pub fn fail(&self, error: Error) {
        self.state().failing.lasting(Some(error));
    }

    /// Ends each fetch of one mail with `error`, until [`recover`](Self::recover); one of many, which breaks the session, gives none of them.
    pub fn withhold(&self, mailbox: MailboxId, folder: &str, uid: u32, error: Error) {
        let mut state = self.state();
        let mails = &mut state.shelf(mailbox, folder).mails;
        if let Some(mail) = mails.iter_mut().find(|mail| mail.uid == uid) {
            mail.withheld = Some(error);
        }
    }

    /// Takes all failures back.
    pub fn recover(&self) {
        let mut state = self.state();
        state.failing.lasting(None);
        let shelves = state.boxes.values_mut().flat_map(BTreeMap::values_mut);
        shelves.flat_map(|shelf| &mut shelf.mails).for_each(|mail| mail.withheld = None);
    }

    fn put(&self, mailbox: MailboxId, folder: &str, content: Bytes, arrived: Option<Timestamp>) -> u32 {
        self.change(|state| state.shelf(mailbox, folder).add(false, arrived, content))
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.state());
        self.changes.send_modify(|changes| *changes += 1);
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self, route: &Route) -> Result<Session> {
        match self.state().failing.at(Stage::Prepare, Stage::SignIn) {
            Some(error) => Err(error),
            None => Ok(Session {
                of: self.clone(),
                mailbox: route.mailbox,
                is_pop3: route.protocol == Protocol::Pop3,
                selected: None,
                deleted: Vec::new(),
                changes: self.changes.subscribe(),
                is_broken: false,
            }),
        }
    }
}

#[async_trait]
impl IncomingTransport for MemoryIncoming {
    async fn open(&self, route: &Route) -> Result<Box<dyn IncomingSession>> {
        Ok(Box::new(self.session(route)?))
    }

    async fn probe<'a>(&self, route: &Route, folder: Option<&'a str>) -> ProbeReport {
        let mut report = ProbeReport::default();
        let mut session = match self.session(route) {
            Ok(session) => session,
            Err(error) => {
                report.fail(error);
                return report;
            }
        };
        for stage in [Stage::Dns, Stage::Tcp, Stage::Tls, Stage::Greeting] {
            report.pass(stage, "in memory");
        }
        if let Some(credentials) = &route.credentials {
            report.pass(Stage::SignIn, credentials.user());
        }
        match session.select(folder, Access::ReadOnly).await {
            Ok(selected) => report.pass(Stage::Folder, format!("{} mails", selected.exists)),
            Err(error) => {
                let names: Vec<String> = self.state().shelves(route.mailbox).keys().cloned().collect();
                report.fail(error.with_reply(&format!("there are: {}", names.join(", "))));
            }
        }
        report
    }
}

#[derive(Debug)]
struct Session {
    of: MemoryIncoming,
    mailbox: MailboxId,
    is_pop3: bool,
    selected: Option<(String, Access)>,
    /// POP3: what goes when the session is closed.
    deleted: Vec<u32>,
    changes: watch::Receiver<u64>,
    is_broken: bool,
}

impl Session {
    /// Does what is asked, unless the session is broken or a failure was ordered for the stage.
    fn at<R>(
        &mut self,
        stage: Stage,
        ask: impl FnOnce(&mut BTreeMap<String, Shelf>, &mut Self) -> Result<R>,
    ) -> Result<R> {
        if self.is_broken {
            return Err(Error::new(ErrorKind::Disconnected, stage));
        }
        let of = self.of.clone();
        let mut state = of.state();
        let result = match state.failing.at(stage, stage) {
            Some(error) => Err(error),
            None => ask(state.shelves(self.mailbox), self),
        };
        self.is_broken = result.as_ref().is_err_and(|error| {
            !matches!(
                error.kind(),
                ErrorKind::Gone | ErrorKind::FolderMissing | ErrorKind::Refused | ErrorKind::Unsupported
            )
        });
        result
    }

    fn on_shelf<R>(
        &mut self,
        stage: Stage,
        ask: impl FnOnce(&mut Shelf, &mut Self) -> Result<R>,
    ) -> Result<R> {
        self.at(stage, |shelves, session| {
            let name = session.selected.as_ref().map(|(name, _)| name.as_str());
            match name.and_then(|name| shelves.get_mut(name)) {
                Some(shelf) => ask(shelf, session),
                None => Err(Error::new(ErrorKind::FolderMissing, stage)),
            }
        })
    }

    fn content(&mut self, key: &RemoteKey, limit: u64) -> Result<Bytes> {
        self.on_shelf(Stage::Fetch, |shelf, session| {
            let mail = shelf.mails.iter().find(|mail| session.key(shelf.epoch, mail.uid) == *key);
            let mail = mail.ok_or(Error::new(ErrorKind::Gone, Stage::Fetch))?;
            mail.withheld.clone().map_or(Ok(()), Err)?;
            let content = &mail.content;
            let is_too_large = u64::try_from(content.len()).is_ok_and(|length| length > limit);
            if is_too_large {
                Err(Error::new(ErrorKind::TooLarge, Stage::Fetch))
            } else {
                Ok(content.clone())
            }
        })
    }

    /// POP3 has no epochs: a UIDL names one mail for ever, so it differs from epoch to epoch.
    fn key(&self, epoch: u32, uid: u32) -> RemoteKey {
        if self.is_pop3 { RemoteKey::Uidl(format!("{epoch}.{uid}")) } else { RemoteKey::Uid(uid) }
    }
}

async fn hand_on(key: &RemoteKey, content: Result<Bytes>, sink: &mut dyn MailSink) -> std::io::Result<()> {
    sink.begin(key).await?;
    let ended = match content {
        Ok(mut rest) => {
            while !rest.is_empty() {
                sink.write(rest.split_to(PIECE.min(rest.len()))).await?;
            }
            Ok(())
        }
        Err(error) => Err(error),
    };
    sink.end(ended).await
}

fn uid(key: &RemoteKey) -> Option<u32> {
    match key {
        RemoteKey::Uid(uid) => Some(*uid),
        RemoteKey::Uidl(text) => text.split_once('.')?.1.parse().ok(),
        _ => None,
    }
}

#[async_trait]
impl IncomingSession for Session {
    async fn folders(&mut self) -> Result<Vec<Folder>> {
        let is_pop3 = self.is_pop3;
        self.at(Stage::Folder, |shelves, _| {
            let names = shelves.keys().filter(|_| !is_pop3);
            Ok(names.map(|name| Folder::new(name, true)).collect())
        })
    }

    async fn select<'a>(&mut self, folder: Option<&'a str>, access: Access) -> Result<Selected> {
        let folder = if self.is_pop3 { INBOX } else { folder.unwrap_or(INBOX) };
        self.changes.mark_unchanged();
        self.at(Stage::Folder, |shelves, session| {
            let shelf = shelves.get(folder).ok_or(Error::new(ErrorKind::FolderMissing, Stage::Folder))?;
            session.selected = Some((folder.to_owned(), access));
            let exists = u32::try_from(shelf.mails.len()).unwrap_or(u32::MAX);
            let is_imap = !session.is_pop3;
            let uid_next = shelf.misstated.unwrap_or(shelf.last_uid.checked_add(1)).filter(|_| is_imap);
            Ok(Selected::new(is_imap.then_some(shelf.epoch), exists).with_uid_next(uid_next))
        })
    }

    async fn list<'a>(&mut self, after: Option<&'a RemoteKey>, limit: usize) -> Result<Vec<Listed>> {
        let after = after.and_then(uid).unwrap_or(0);
        self.changes.mark_unchanged();
        self.on_shelf(Stage::List, |shelf, session| {
            let behind = shelf.mails.iter().filter(|mail| mail.uid > after).take(limit);
            let size = |mail: &Kept| u64::try_from(mail.content.len()).unwrap_or(u64::MAX);
            Ok(behind
                .map(|mail| Listed::new(session.key(shelf.epoch, mail.uid), size(mail), mail.arrived))
                .collect())
        })
    }

    async fn fetch<'a>(
        &mut self,
        mails: &[Listed],
        limit: u64,
        sink: &'a mut (dyn MailSink + 'a),
    ) -> Result<()> {
        self.on_shelf(Stage::Fetch, |shelf, session| {
            let ends = |mail: &Kept| mail.withheld.clone().filter(|error| !is_of_one_mail(error));
            let is_asked = |uid| {
                mails.iter().any(|listed| listed.key == session.key(shelf.epoch, uid)) && mails.len() > 1
            };
            let mut ended = shelf.mails.iter().filter_map(|mail| Some((mail.uid, ends(mail)?)));
            ended.find(|(uid, _)| is_asked(*uid)).map_or(Ok(()), |(_, error)| Err(error))
        })?;
        for listed in mails {
            let content = match self.content(&listed.key, limit) {
                Err(error) if !is_of_one_mail(&error) => return Err(error),
                content => content,
            };
            let stopped = |cause| Error::new(ErrorKind::Stopped, Stage::Fetch).with_source(cause);
            // A sink that fails, or a future that is dropped here, leaves it so.
            self.is_broken = true;
            hand_on(&listed.key, content, sink).await.map_err(stopped)?;
            self.is_broken = false;
        }
        Ok(())
    }

    async fn settle(&mut self, effects: &[(RemoteKey, Effect)]) -> Result<()> {
        self.at(Stage::Settle, |shelves, session| {
            let refused = |kind| Error::new(kind, Stage::Settle);
            let (name, access) = session.selected.clone().ok_or(refused(ErrorKind::FolderMissing))?;
            if access == Access::ReadOnly {
                return Err(refused(ErrorKind::Refused));
            }
            for (key, effect) in effects {
                let shelf = shelves.get_mut(&name).ok_or(refused(ErrorKind::FolderMissing))?;
                let Some(at) = shelf.mails.iter().position(|mail| session.key(shelf.epoch, mail.uid) == *key)
                else {
                    continue;
                };
                match effect {
                    Effect::Seen => shelf.mails[at].seen = true,
                    Effect::Delete if session.is_pop3 => session.deleted.push(shelf.mails[at].uid),
                    Effect::Delete => _ = shelf.mails.remove(at),
                    Effect::Move(_) if session.is_pop3 => return Err(refused(ErrorKind::Unsupported)),
                    Effect::Move(to) => {
                        if !shelves.contains_key(to) {
                            return Err(refused(ErrorKind::FolderMissing));
                        }
                        let mail = shelves.get_mut(&name).map(|shelf| shelf.mails.remove(at));
                        if let (Some(mail), Some(target)) = (mail, shelves.get_mut(to)) {
                            target.last_uid += 1;
                            target.mails.push(Kept { uid: target.last_uid, ..mail });
                        }
                    }
                }
            }
            Ok(())
        })
    }

    async fn find(&mut self, message_id: &str) -> Result<Vec<RemoteKey>> {
        self.on_shelf(Stage::List, |shelf, session| {
            if session.is_pop3 {
                return Err(Error::new(ErrorKind::Unsupported, Stage::List));
            }
            let found = shelf.mails.iter().filter(|mail| has_message_id(&mail.content, message_id));
            Ok(found.map(|mail| session.key(shelf.epoch, mail.uid)).collect())
        })
    }

    async fn append(&mut self, folder: &str, content: Bytes) -> Result<()> {
        self.at(Stage::Settle, |shelves, session| {
            if session.is_pop3 {
                return Err(Error::new(ErrorKind::Unsupported, Stage::Settle));
            }
            let missing = || Error::new(ErrorKind::FolderMissing, Stage::Settle);
            shelves.get_mut(folder).ok_or_else(missing)?.add(true, None, content);
            Ok(())
        })
    }

    async fn wait(&mut self, at_most: Duration) -> Result<Hint> {
        if self.is_pop3 {
            return Ok(Hint::Poll);
        }
        self.on_shelf(Stage::Wait, |_, _| Ok(()))?;
        // As over the wire: dropped while it waits, it is broken.
        self.is_broken = true;
        let changed = timeout(at_most, self.changes.changed()).await.is_ok();
        self.is_broken = false;
        Ok(if changed { Hint::Changed } else { Hint::Quiet })
    }

    async fn close(mut self: Box<Self>) -> CloseReport {
        if self.deleted.is_empty() {
            return CloseReport::Kept;
        }
        let closed = self.at(Stage::Close, |shelves, session| {
            let inbox = shelves.get_mut(INBOX).ok_or(Error::new(ErrorKind::FolderMissing, Stage::Close))?;
            inbox.mails.retain(|mail| !session.deleted.contains(&mail.uid));
            Ok(())
        });
        closed.map_or_else(CloseReport::Lost, |()| CloseReport::Kept)
    }
}

/// Whether the header has a Message-ID field with this value.
fn has_message_id(content: &[u8], message_id: &str) -> bool {
    let header =
        content.split_inclusive(|&byte| byte == b'\n').take_while(|line| !line.trim_ascii().is_empty());
    let text = String::from_utf8_lossy(&header.collect::<Vec<_>>().concat())
        .replace("\n ", " ")
        .replace("\n\t", " ");
    text.lines().any(|line| {
        line.split_once(':').is_some_and(|(name, value)| {
            name.trim().eq_ignore_ascii_case("message-id") && value.trim() == message_id
        })
    })
}
