//! The suite over [`IncomingTransport`]. Numbers in the cases are the clauses of [`IncomingSession`].

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::ledger::RemoteKey;

use crate::error::{ErrorKind, Stage};
use crate::incoming::{
    Access, CloseReport, Effect, Hint, IncomingSession, IncomingTransport, Listed, MailSink,
};
use crate::route::Route;

/// What the server behind an adapter can do. Its protocol is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Abilities {
    /// Folders can be listed and selected, mails moved between them.
    pub folders: bool,
    /// Mails can be marked as read.
    pub flags: bool,
    /// Mails are found by their Message-ID.
    pub search: bool,
}

impl Abilities {
    /// Nothing but an inbox.
    #[must_use]
    pub fn inbox_only() -> Self {
        Self::default()
    }

    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self { folders: true, flags: true, search: true }
    }
}

/// A mail as the server keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnServer {
    /// Its bytes.
    pub content: Bytes,
    /// Whether it is marked as read.
    pub seen: bool,
}

impl OnServer {
    /// A mail as the server keeps it.
    #[must_use]
    pub fn new(content: impl Into<Bytes>, seen: bool) -> Self {
        Self { content: content.into(), seen }
    }
}

/// An adapter with a server of its own that can be looked into. Without a folder the inbox is meant.
pub trait IncomingPeer: Send + Sync {
    /// The adapter.
    fn transport(&self) -> &dyn IncomingTransport;

    /// The way to the server.
    fn route(&self) -> Route;

    /// Makes the server refuse the sign-in from now on, or gives a way that it refuses.
    fn refused_route(&self) -> Route;

    /// What the server can do.
    fn abilities(&self) -> Abilities;

    /// Makes a folder; not called where there are none.
    fn create_folder(&self, folder: &str);

    /// Puts a mail into a folder.
    fn deliver(&self, folder: Option<&str>, content: &[u8]);

    /// Takes away the mail with this content, as another client would.
    fn take_away(&self, content: &[u8]);

    /// The mails of a folder, in order.
    fn kept(&self, folder: Option<&str>) -> Vec<OnServer>;
}

/// Runs every case, each over a new peer.
///
/// # Panics
/// When a clause is broken.
pub async fn incoming<P: IncomingPeer>(make: impl AsyncFn() -> P) {
    windows_give_every_mail_once_and_in_order(&make().await).await;
    an_empty_inbox_is_an_empty_list(&make().await).await;
    keys_are_the_same_in_a_later_session(&make().await).await;
    a_mail_arrives_as_it_lies_there_and_is_not_marked_as_read(&make().await).await;
    a_mail_that_is_gone_is_told_and_the_session_goes_on(&make().await).await;
    mails_come_whole_and_each_has_its_own_end(&make().await).await;
    a_mail_beyond_the_limit_costs_no_other(&make().await).await;
    a_failing_sink_breaks_the_session(&make().await).await;
    a_dropped_call_breaks_the_session(&make().await).await;
    what_is_deleted_goes_and_nothing_else_does(&make().await).await;
    an_effect_can_be_repeated_in_a_later_session(&make().await).await;
    a_refused_sign_in_is_told_as_such(&make().await).await;
    a_probe_changes_nothing(&make().await).await;
    waiting_ends_in_time(&make().await).await;
    the_next_uid_tells_whether_there_may_be_more(&make().await).await;
    let abilities = make().await.abilities();
    if abilities.folders {
        folders_are_listed_and_selected_by_their_names(&make().await).await;
        a_missing_folder_is_told_and_the_session_goes_on(&make().await).await;
        a_mail_is_moved(&make().await).await;
        a_missing_target_is_not_created(&make().await).await;
        a_mail_is_appended_to_a_folder_that_is_there(&make().await).await;
        a_probe_names_the_folders_that_exist(&make().await).await;
        what_is_selected_read_only_is_not_changed(&make().await).await;
    } else {
        there_are_no_folders(&make().await).await;
    }
    if abilities.flags {
        a_mail_is_marked_as_read(&make().await).await;
    }
    if abilities.search {
        a_mail_is_found_by_its_message_id(&make().await).await;
    } else {
        what_cannot_be_searched_says_so_and_goes_on(&make().await).await;
    }
}

/// Notes each mail with its end.
#[derive(Debug, Default)]
struct Many {
    ended: Vec<(RemoteKey, Vec<u8>, crate::Result<()>)>,
    begun: Option<(RemoteKey, Vec<u8>)>,
    /// After so many mails it takes no more.
    room: Option<usize>,
}

impl Many {
    fn of(&self, key: &RemoteKey) -> (&[u8], Option<ErrorKind>) {
        let mut found = self.ended.iter().filter(|(ended, ..)| ended == key);
        let (_, bytes, end) = found.next().expect("clause 13: a mail was not ended");
        assert!(found.next().is_none(), "clause 13: a mail was ended twice");
        (bytes, end.as_ref().err().map(crate::Error::kind))
    }
}

#[async_trait]
impl MailSink for Many {
    async fn begin(&mut self, key: &RemoteKey) -> std::io::Result<()> {
        assert!(self.begun.is_none(), "clause 13: two mails at once");
        self.begun = Some((key.clone(), Vec::new()));
        Ok(())
    }

    async fn write(&mut self, piece: Bytes) -> std::io::Result<()> {
        assert!(piece.len() <= 256 * 1024, "clause 13: a piece of {} bytes", piece.len());
        self.begun.as_mut().expect("clause 13: bytes of no mail").1.extend_from_slice(&piece);
        if self.room == Some(self.ended.len()) { Err(std::io::Error::other("full")) } else { Ok(()) }
    }

    async fn end(&mut self, result: crate::Result<()>) -> std::io::Result<()> {
        let (key, bytes) = self.begun.take().expect("clause 13: the end of no mail");
        self.ended.push((key, bytes, result));
        Ok(())
    }
}

/// Never takes anything.
#[derive(Debug)]
struct Never;

#[async_trait]
impl MailSink for Never {
    async fn begin(&mut self, _key: &RemoteKey) -> std::io::Result<()> {
        Ok(())
    }

    async fn write(&mut self, _piece: Bytes) -> std::io::Result<()> {
        std::future::pending().await
    }

    async fn end(&mut self, _result: crate::Result<()>) -> std::io::Result<()> {
        Ok(())
    }
}

const NO_LIMIT: u64 = u64::MAX;

fn mail(number: usize) -> Vec<u8> {
    format!("Message-ID: <{number}@acme.example>\r\nSubject: {number}\r\n\r\n.dot\r\n..\r\n{number}\r\n")
        .into_bytes()
}

fn fill(peer: &dyn IncomingPeer, mails: usize) -> Vec<Vec<u8>> {
    let mails: Vec<_> = (1..=mails).map(mail).collect();
    mails.iter().for_each(|mail| peer.deliver(None, mail));
    mails
}

async fn open(peer: &dyn IncomingPeer) -> Box<dyn IncomingSession> {
    match peer.transport().open(&peer.route()).await {
        Ok(session) => session,
        Err(error) => panic!("a session: {error}"),
    }
}

async fn inbox(peer: &dyn IncomingPeer) -> Box<dyn IncomingSession> {
    let mut session = open(peer).await;
    session.select(None, Access::ReadWrite).await.expect("the inbox");
    session
}

async fn everything(session: &mut dyn IncomingSession) -> Vec<Listed> {
    session.list(None, 1000).await.expect("a list")
}

async fn fetched(session: &mut dyn IncomingSession, key: &RemoteKey) -> Vec<u8> {
    let mut sink = Many::default();
    session.fetch(&[Listed::new(key.clone(), 0, None)], NO_LIMIT, &mut sink).await.expect("a mail");
    let (bytes, end) = sink.of(key);
    assert_eq!(end, None, "a mail");
    bytes.to_vec()
}

async fn kept(session: Box<dyn IncomingSession>) {
    match session.close().await {
        CloseReport::Kept => {}
        CloseReport::Lost(error) => panic!("clause 8: lost: {error}"),
    }
}

fn contents(peer: &dyn IncomingPeer, folder: Option<&str>) -> Vec<Bytes> {
    peer.kept(folder).into_iter().map(|mail| mail.content).collect()
}

async fn windows_give_every_mail_once_and_in_order(peer: &dyn IncomingPeer) {
    let mails = fill(peer, 7);
    let mut session = inbox(peer).await;
    for limit in [1, 2, 3, 7, 8, 1000] {
        let mut found: Vec<Listed> = Vec::new();
        loop {
            let after = found.last().map(|listed| listed.key.clone());
            let window = session.list(after.as_ref(), limit).await.expect("a window");
            assert!(window.len() <= limit, "clause 2: {} mails in a window of {limit}", window.len());
            let is_last = window.len() < limit;
            found.extend(window);
            if is_last {
                break;
            }
        }
        let sizes: Vec<u64> = found.iter().map(|listed| listed.size).collect();
        assert_eq!(
            sizes,
            mails.iter().map(|mail| mail.len() as u64).collect::<Vec<_>>(),
            "clause 2: windows of {limit}"
        );
        for (listed, mail) in found.iter().zip(&mails) {
            assert_eq!(&fetched(session.as_mut(), &listed.key).await, mail, "clause 2: windows of {limit}");
        }
    }
    kept(session).await;
}

async fn an_empty_inbox_is_an_empty_list(peer: &dyn IncomingPeer) {
    let mut session = open(peer).await;
    let selected = session.select(None, Access::ReadOnly).await.expect("the inbox");
    assert_eq!(selected.exists, 0, "clause 1");
    assert!(everything(session.as_mut()).await.is_empty(), "clause 2");
    kept(session).await;
}

async fn keys_are_the_same_in_a_later_session(peer: &dyn IncomingPeer) {
    let mut mails = fill(peer, 3);
    let mut session = open(peer).await;
    let before = session.select(None, Access::ReadOnly).await.expect("the inbox");
    assert_eq!(before.exists, 3, "clause 1");
    let keys = everything(session.as_mut()).await;
    kept(session).await;
    peer.take_away(&mails.remove(0));
    peer.deliver(None, &mail(4));
    mails.push(mail(4));
    let mut session = open(peer).await;
    let after = session.select(None, Access::ReadOnly).await.expect("the inbox");
    assert_eq!(before.epoch, after.epoch, "clause 3");
    let found = everything(session.as_mut()).await;
    assert_eq!(found[..2], keys[1..], "clause 3");
    assert!(!keys.iter().any(|listed| listed.key == found[2].key), "clause 3: a key was given twice");
    assert_eq!(session.list(Some(&keys[2].key), 9).await.expect("a list"), found[2..], "clause 2");
    kept(session).await;
}

async fn a_mail_arrives_as_it_lies_there_and_is_not_marked_as_read(peer: &dyn IncomingPeer) {
    let line = format!("{}\r\n", "x".repeat(70));
    let large = format!("Subject: large\r\n\r\n{}", line.repeat(9000)).into_bytes();
    let exact = |pieces: usize| [vec![b'y'; pieces * 256 * 1024 - 2], b"\r\n".to_vec()].concat();
    let odd = b"Subject: \xff\0\r\n\r\n.\r\n..\r\na\nb\n.\nc\rd\r\n \r\n".to_vec();
    let mails = [large, exact(1), exact(2), odd];
    for mail in &mails {
        peer.deliver(None, mail);
    }
    let mut session = inbox(peer).await;
    let listed = everything(session.as_mut()).await;
    for (listed, mail) in listed.iter().zip(&mails) {
        assert!(
            fetched(session.as_mut(), &listed.key).await == *mail,
            "clause 4: other bytes than the {}",
            mail.len()
        );
    }
    kept(session).await;
    assert_eq!(peer.kept(None).len(), mails.len(), "clause 7");
    assert!(peer.kept(None).iter().all(|mail| !mail.seen), "clause 4: marked as read");
}

async fn a_mail_that_is_gone_is_told_and_the_session_goes_on(peer: &dyn IncomingPeer) {
    let mails = fill(peer, 2);
    let mut session = inbox(peer).await;
    let listed = everything(session.as_mut()).await;
    kept(session).await;
    peer.take_away(&mails[0]);
    let mut session = inbox(peer).await;
    let mut sink = Many::default();
    session.fetch(&listed[..1], NO_LIMIT, &mut sink).await.expect("clause 5");
    let (key, bytes, end) = sink.ended.remove(0);
    let error = end.expect_err("clause 5");
    assert_eq!((error.kind(), error.stage()), (ErrorKind::Gone, Stage::Fetch), "clause 5");
    assert!(key == listed[0].key && bytes.is_empty(), "clause 5");
    assert_eq!(fetched(session.as_mut(), &listed[1].key).await, mails[1], "clause 5");
    kept(session).await;
}

async fn mails_come_whole_and_each_has_its_own_end(peer: &dyn IncomingPeer) {
    let mut mails = fill(peer, 120);
    let lines = |lines: usize| [b"Subject: large\r\n\r\n".to_vec(), b"line\r\n".repeat(lines)].concat();
    for large in [lines(100_000), b"\r\n".to_vec(), lines(43_687), mail(121)] {
        peer.deliver(None, &large);
        mails.push(large);
    }
    let mut session = inbox(peer).await;
    let mut listed = everything(session.as_mut()).await;
    kept(session).await;
    peer.take_away(&mails[60]);
    let mut session = inbox(peer).await;
    // Its size is known wrongly, and one key is of no mail at all.
    listed[3].size += 7;
    listed[4].size = 0;
    listed.push(Listed::new(RemoteKey::Content("0".repeat(64), 1), 9, None));
    let mut sink = Many::default();
    session.fetch(&listed, NO_LIMIT, &mut sink).await.expect("clause 13");
    assert_eq!(sink.ended.len(), listed.len(), "clause 13");
    for (listed, mail) in listed.iter().zip(&mails) {
        match sink.of(&listed.key) {
            (bytes, None) => assert!(bytes == mail, "clause 4: other bytes than the {}", mail.len()),
            (bytes, Some(kind)) => {
                assert_eq!((kind, bytes.len()), (ErrorKind::Gone, 0), "clause 5");
                assert_eq!(*mail, mails[60], "clause 13: {} is gone", listed.key);
            }
        }
    }
    assert_eq!(sink.of(&listed[124].key), (&b""[..], Some(ErrorKind::Gone)), "clause 5");
    assert_eq!(fetched(session.as_mut(), &listed[0].key).await, mails[0], "clause 13");
    session.fetch(&[], NO_LIMIT, &mut Many::default()).await.expect("clause 13: nothing to do");
    let mut sink = Many { room: Some(2), ..Many::default() };
    let error = session.fetch(&listed[..9], NO_LIMIT, &mut sink).await.expect_err("clause 12");
    assert_eq!((error.kind(), sink.ended.len()), (ErrorKind::Stopped, 2), "clause 12");
    is_broken(session.as_mut()).await;
    assert!(peer.kept(None).iter().all(|mail| !mail.seen), "clause 4: marked as read");
}

async fn a_mail_beyond_the_limit_costs_no_other(peer: &dyn IncomingPeer) {
    fill(peer, 2);
    let large = [mail(3), b"line\r\n".repeat(9)].concat();
    peer.deliver(None, &large);
    let mails = fill(peer, 2);
    let mut session = inbox(peer).await;
    let mut listed = everything(session.as_mut()).await;
    // The others just fit.
    let limit = mails[0].len() as u64;
    // As the server says, and smaller.
    for size in [large.len() as u64, limit] {
        listed[2].size = size;
        let mut sink = Many::default();
        session.fetch(&listed, limit, &mut sink).await.expect("clause 13");
        for (at, listed) in listed.iter().enumerate() {
            let (bytes, end) = sink.of(&listed.key);
            assert_eq!(end, (at == 2).then_some(ErrorKind::TooLarge), "clause 6");
            assert!(bytes.len() as u64 <= limit, "clause 6");
            let (whole, want) = if at == 2 { (false, &large) } else { (true, &mails[at % 3]) };
            assert!(want.starts_with(bytes) && whole == (bytes == want), "clause 6");
        }
    }
    kept(session).await;
}

async fn is_broken(session: &mut dyn IncomingSession) {
    assert!(session.select(None, Access::ReadOnly).await.is_err(), "clause 12");
    assert!(session.list(None, 1).await.is_err(), "clause 12");
    assert!(session.settle(&[]).await.is_err(), "clause 12");
}

async fn a_failing_sink_breaks_the_session(peer: &dyn IncomingPeer) {
    fill(peer, 1);
    let mut session = inbox(peer).await;
    let listed = everything(session.as_mut()).await;
    let mut sink = Many { room: Some(0), ..Many::default() };
    let error = session.fetch(&listed, NO_LIMIT, &mut sink).await.expect_err("clause 12");
    assert_eq!((error.kind(), error.stage()), (ErrorKind::Stopped, Stage::Fetch), "clause 12");
    is_broken(session.as_mut()).await;
    assert!(matches!(session.close().await, CloseReport::Kept), "clause 8: nothing was settled");
}

async fn a_dropped_call_breaks_the_session(peer: &dyn IncomingPeer) {
    fill(peer, 1);
    let mut session = inbox(peer).await;
    let listed = everything(session.as_mut()).await;
    let dropped =
        tokio::time::timeout(Duration::from_millis(50), session.fetch(&listed, NO_LIMIT, &mut Never)).await;
    assert!(dropped.is_err(), "clause 12: the sink was not waited for");
    is_broken(session.as_mut()).await;
}

async fn what_is_deleted_goes_and_nothing_else_does(peer: &dyn IncomingPeer) {
    let mails = fill(peer, 4);
    let mut session = inbox(peer).await;
    let listed = everything(session.as_mut()).await;
    let effects = [1, 3].map(|at: usize| (listed[at].key.clone(), Effect::Delete));
    session.settle(&effects).await.expect("clause 8");
    session.settle(&[]).await.expect("clause 8: nothing to do");
    kept(session).await;
    assert_eq!(contents(peer, None), [mails[0].clone(), mails[2].clone()], "clause 8");
}

async fn an_effect_can_be_repeated_in_a_later_session(peer: &dyn IncomingPeer) {
    let mails = fill(peer, 2);
    for _ in 0..2 {
        let mut session = inbox(peer).await;
        let listed = everything(session.as_mut()).await;
        let gone = match listed.len() {
            2 => vec![(listed[0].key.clone(), Effect::Delete)],
            _ => vec![(RemoteKey::Uid(1), Effect::Delete), (RemoteKey::Uidl("gone".into()), Effect::Delete)],
        };
        session.settle(&gone).await.expect("clause 8");
        // Again in the same session, too.
        session.settle(&gone).await.expect("clause 8");
        kept(session).await;
        assert_eq!(contents(peer, None), [mails[1].clone()], "clause 8");
    }
}

async fn a_refused_sign_in_is_told_as_such(peer: &dyn IncomingPeer) {
    let route = peer.refused_route();
    let error = peer.transport().open(&route).await.err().expect("clause 10");
    assert_eq!((error.kind(), error.stage()), (ErrorKind::SignInRefused, Stage::SignIn), "clause 10");
    let report = peer.transport().probe(&route, None).await;
    assert_eq!(report.failure().map(crate::Error::kind), Some(ErrorKind::SignInRefused), "clause 11");
}

async fn a_probe_changes_nothing(peer: &dyn IncomingPeer) {
    fill(peer, 2);
    let before = peer.kept(None);
    let report = peer.transport().probe(&peer.route(), None).await;
    assert!(report.passed(), "clause 11: {:?}", report.failure());
    assert_eq!(report.stages().last().map(|(stage, _)| *stage), Some(Stage::Folder), "clause 11");
    assert_eq!(peer.kept(None), before, "clause 11");
}

async fn waiting_ends_in_time(peer: &dyn IncomingPeer) {
    fill(peer, 1);
    let mut session = inbox(peer).await;
    everything(session.as_mut()).await;
    let quiet = session.wait(Duration::from_millis(20)).await.expect("clause 9");
    assert_ne!(quiet, Hint::Changed, "clause 9");
    // The session is whole afterwards.
    assert_eq!(everything(session.as_mut()).await.len(), 1, "clause 9");
    if quiet == Hint::Quiet {
        let delivery = async {
            tokio::task::yield_now().await;
            peer.deliver(None, &mail(2));
        };
        let (hint, ()) = tokio::join!(session.wait(Duration::from_secs(60)), delivery);
        assert_eq!(hint.expect("clause 9"), Hint::Changed, "clause 9");
        assert_eq!(everything(session.as_mut()).await.len(), 2, "clause 9");
    }
    if session.wait(Duration::ZERO).await.expect("clause 14") != Hint::Poll {
        assert_eq!(session.wait(Duration::ZERO).await.expect("clause 14"), Hint::Quiet, "clause 14");
        let there = everything(session.as_mut()).await.len();
        peer.deliver(None, &mail(3));
        assert_eq!(session.wait(Duration::ZERO).await.expect("clause 14"), Hint::Changed, "clause 14");
        assert_eq!(everything(session.as_mut()).await.len(), there + 1, "clause 14");
        assert_eq!(session.wait(Duration::ZERO).await.expect("clause 14"), Hint::Quiet, "clause 14");
    }
    kept(session).await;
}

async fn the_next_uid_tells_whether_there_may_be_more(peer: &dyn IncomingPeer) {
    let mails = fill(peer, 2);
    let mut session = inbox(peer).await;
    let listed = everything(session.as_mut()).await;
    kept(session).await;
    let RemoteKey::Uid(last) = listed[1].key else { return };
    // A mail that goes brings no news; one that comes does.
    peer.take_away(&mails[0]);
    let mut session = open(peer).await;
    let selected = session.select(None, Access::ReadOnly).await.expect("the inbox");
    assert!(selected.may_hold_above(last - 1), "clause 14");
    let says_so = selected.uid_next.is_some();
    assert_eq!(selected.may_hold_above(last), !says_so, "clause 14");
    peer.deliver(None, &mail(3));
    let selected = session.select(None, Access::ReadOnly).await.expect("the inbox");
    assert!(selected.may_hold_above(last), "clause 14");
    kept(session).await;
}

const TARGET: &str = "Suporte/Clientes S\u{e3}o Paulo \"&\\%*";

async fn folders_are_listed_and_selected_by_their_names(peer: &dyn IncomingPeer) {
    peer.create_folder(TARGET);
    peer.deliver(Some(TARGET), &mail(1));
    let mut session = open(peer).await;
    let folders = session.folders().await.expect("clause 1");
    let found =
        folders.iter().find(|folder| folder.name == TARGET).expect("clause 1: the folder by its name");
    assert!(found.selectable, "clause 1");
    let there = session.select(Some(TARGET), Access::ReadOnly).await.expect("clause 1");
    assert_eq!(there.exists, 1, "clause 1");
    assert_eq!(everything(session.as_mut()).await.len(), 1, "clause 2");
    let other = session.select(None, Access::ReadOnly).await.expect("clause 1");
    assert_eq!(other.exists, 0, "clause 1");
    assert!(everything(session.as_mut()).await.is_empty(), "clause 2");
    kept(session).await;
}

async fn a_missing_folder_is_told_and_the_session_goes_on(peer: &dyn IncomingPeer) {
    fill(peer, 1);
    let mut session = open(peer).await;
    let error = session.select(Some(TARGET), Access::ReadWrite).await.expect_err("clause 1");
    assert_eq!((error.kind(), error.stage()), (ErrorKind::FolderMissing, Stage::Folder), "clause 1");
    session.select(None, Access::ReadWrite).await.expect("clause 1");
    assert_eq!(everything(session.as_mut()).await.len(), 1, "clause 1");
    kept(session).await;
}

async fn a_mail_is_appended_to_a_folder_that_is_there(peer: &dyn IncomingPeer) {
    peer.create_folder(TARGET);
    let mut session = peer.transport().open(&peer.route()).await.expect("a session");
    let mail = Bytes::from_static(b"Subject: copy\r\n\r\n{3}\r\n.\r\nend\r\n");
    let missing = session.append("Nowhere", mail.clone()).await.expect_err("clause 9");
    assert_eq!(missing.kind(), ErrorKind::FolderMissing, "clause 9");
    session.append(TARGET, mail.clone()).await.expect("clause 9");
    kept(session).await;
    assert_eq!(peer.kept(Some(TARGET)), [OnServer::new(mail, true)], "clause 9");
}

async fn a_mail_is_moved(peer: &dyn IncomingPeer) {
    let mails = fill(peer, 3);
    peer.create_folder(TARGET);
    let mut session = inbox(peer).await;
    let listed = everything(session.as_mut()).await;
    let effects = [(listed[1].key.clone(), Effect::Move(TARGET.into()))];
    session.settle(&effects).await.expect("clause 8");
    // It is not there any more, so this does nothing.
    session.settle(&effects).await.expect("clause 8");
    kept(session).await;
    assert_eq!(contents(peer, None), [mails[0].clone(), mails[2].clone()], "clause 8");
    assert_eq!(contents(peer, Some(TARGET)), [mails[1].clone()], "clause 8");
}

async fn a_missing_target_is_not_created(peer: &dyn IncomingPeer) {
    let mails = fill(peer, 1);
    let mut session = inbox(peer).await;
    let key = everything(session.as_mut()).await[0].key.clone();
    let error = session.settle(&[(key, Effect::Move(TARGET.into()))]).await.expect_err("clause 8");
    assert_eq!((error.kind(), error.stage()), (ErrorKind::FolderMissing, Stage::Settle), "clause 8");
    let folders = session.folders().await.expect("clause 1");
    assert!(!folders.iter().any(|folder| folder.name == TARGET), "clause 8");
    kept(session).await;
    assert_eq!(contents(peer, None), mails, "clause 8");
}

async fn a_probe_names_the_folders_that_exist(peer: &dyn IncomingPeer) {
    peer.create_folder("Suporte");
    let report = peer.transport().probe(&peer.route(), Some("Suporto")).await;
    let failure = report.failure().expect("clause 11");
    assert_eq!((failure.kind(), failure.stage()), (ErrorKind::FolderMissing, Stage::Folder), "clause 11");
    assert!(failure.to_string().contains("Suporte"), "clause 11: {failure}");
    let report = peer.transport().probe(&peer.route(), Some("Suporte")).await;
    assert!(report.passed(), "clause 11: {:?}", report.failure());
}

async fn what_is_selected_read_only_is_not_changed(peer: &dyn IncomingPeer) {
    fill(peer, 1);
    let before = peer.kept(None);
    let mut session = open(peer).await;
    session.select(None, Access::ReadOnly).await.expect("the inbox");
    let key = everything(session.as_mut()).await[0].key.clone();
    let error = session.settle(&[(key.clone(), Effect::Delete)]).await.expect_err("clause 1");
    assert_eq!(error.kind(), ErrorKind::Refused, "clause 1");
    fetched(session.as_mut(), &key).await;
    kept(session).await;
    assert_eq!(peer.kept(None), before, "clause 1");
}

async fn there_are_no_folders(peer: &dyn IncomingPeer) {
    let mut session = open(peer).await;
    assert!(session.folders().await.expect("clause 1").is_empty(), "clause 1");
    let selected = session.select(None, Access::ReadWrite).await.expect("clause 1");
    assert_eq!(selected.epoch, None, "clause 1");
    kept(session).await;
}

async fn a_mail_is_marked_as_read(peer: &dyn IncomingPeer) {
    fill(peer, 3);
    let mut session = inbox(peer).await;
    let key = everything(session.as_mut()).await[1].key.clone();
    for _ in 0..2 {
        session.settle(&[(key.clone(), Effect::Seen)]).await.expect("clause 8");
    }
    kept(session).await;
    assert_eq!(
        peer.kept(None).iter().map(|mail| mail.seen).collect::<Vec<_>>(),
        [false, true, false],
        "clause 8"
    );
}

async fn a_mail_is_found_by_its_message_id(peer: &dyn IncomingPeer) {
    fill(peer, 3);
    let mut session = inbox(peer).await;
    let listed = everything(session.as_mut()).await;
    let found = session.find("<2@acme.example>").await.expect("clause 9");
    assert_eq!(found, [listed[1].key.clone()], "clause 9");
    assert!(session.find("<9@acme.example>").await.expect("clause 9").is_empty(), "clause 9");
    kept(session).await;
}

async fn what_cannot_be_searched_says_so_and_goes_on(peer: &dyn IncomingPeer) {
    fill(peer, 1);
    let mut session = inbox(peer).await;
    let error = session.find("<1@acme.example>").await.expect_err("clause 9");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "clause 9");
    assert_eq!(everything(session.as_mut()).await.len(), 1, "clause 9");
    kept(session).await;
}
