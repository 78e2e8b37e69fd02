//! Many mails by one call, over IMAP and POP3. What each dialogue would miss is in its first lines.

use std::time::Duration;

use postroom_core::ledger::RemoteKey;
use postroom_transport::{Access, ErrorKind, IncomingTimeouts, Result, Stage};

use crate::scripted::{self, Many, PATIENCE, listed, read, signed_in};

const TWO: [u32; 2] = [10, 11];

async fn imap(name: &str, uids: &[u32], piece: Duration) -> (Many, Result<()>) {
    let name = format!("imap/{name}");
    let mut timeouts = IncomingTimeouts::all(PATIENCE);
    timeouts.piece = piece;
    let mut many = Many::default();
    let mails = listed(uids.iter().copied().map(RemoteKey::Uid), 1000);
    let result = scripted::play(&name, &signed_in(&name), timeouts, async |mut session| {
        session.select(None, Access::ReadOnly).await?;
        session.fetch(&mails, 1000, &mut many).await
    })
    .await;
    (many, result)
}

fn uid(uid: u32) -> String {
    RemoteKey::Uid(uid).to_string()
}

#[tokio::test]
async fn what_is_not_surely_whole_is_asked_for_alone() {
    let (many, result) = imap("fetch_many", &[10, 11, 12, 13, 14, 15], PATIENCE).await;
    result.unwrap();
    assert_eq!(
        many.ended(),
        [
            (uid(15), Ok("* BY)\r")),
            (uid(10), Ok("abcd")),
            (uid(14), Ok("a\"b\\")),
            (uid(11), Err(ErrorKind::Gone)),
            (uid(12), Ok("abcdefghi")),
            (uid(13), Err(ErrorKind::Gone)),
        ]
    );
}

/// It would miss a server that takes no second command before it has answered the first: RFC 3501 section 5.5 knows none.
#[tokio::test]
async fn the_server_has_the_next_commands_while_it_answers_one() {
    let name = "imap/fetch_many_ahead";
    let mut many = Many::default();
    // Four mails of this size fill a command, whatever comes for them.
    let mails = listed((10..24).map(RemoteKey::Uid), 250_000);
    scripted::play(name, &signed_in(name), IncomingTimeouts::all(PATIENCE), async |mut session| {
        session.select(None, Access::ReadOnly).await?;
        session.fetch(&mails, 250_000, &mut many).await
    })
    .await
    .unwrap();
    let uids: Vec<_> = many.ended().into_iter().map(|(uid, _)| uid).collect();
    assert_eq!(uids, [14, 10, 12, 15, 16, 17, 13, 18, 19, 20, 21, 22, 23, 11].map(uid));
    for (key, mail) in many.ended() {
        let letter = (10..24).zip('a'..).find(|(number, _)| uid(*number) == key).unwrap().1;
        assert_eq!(mail, Ok(letter.to_string().repeat(4).as_str()), "{key}");
    }
}

#[tokio::test]
async fn what_the_server_says_to_the_other_commands_is_heard_out() {
    let name = "imap/fetch_many_missing";
    let mut many = Many::default();
    let mails = listed((10..24).map(RemoteKey::Uid), 250_000);
    let folders =
        scripted::play(name, &signed_in(name), IncomingTimeouts::all(PATIENCE), async |mut session| {
            session.select(None, Access::ReadOnly).await?;
            let error = session.fetch(&mails, 250_000, &mut many).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FolderMissing);
            session.folders().await
        })
        .await;
    assert_eq!(folders.unwrap(), []);
    assert_eq!(many.ended(), [(uid(10), Ok("aaaa"))]);
}

#[tokio::test]
async fn a_text_that_stands_for_a_removed_mail_is_none_of_many() {
    let (many, result) = imap("fetch_many_unavailable", &[10, 11, 12], PATIENCE).await;
    result.unwrap();
    let want = [(uid(10), Ok("abcd")), (uid(12), Ok("efgh")), (uid(11), Err(ErrorKind::Gone))];
    assert_eq!(many.ended(), want);
}

#[tokio::test]
async fn one_damaged_mail_costs_no_other() {
    let (many, result) = imap("fetch_many_refused", &[10, 11, 12], PATIENCE).await;
    result.unwrap();
    let want = [(uid(10), Ok("abcd")), (uid(11), Err(ErrorKind::Refused)), (uid(12), Ok("efgh"))];
    assert_eq!(many.ended(), want);
}

#[tokio::test]
async fn what_had_ended_before_the_connection_did_is_whole() {
    let (many, result) = imap("fetch_many_cut", &TWO, PATIENCE).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Disconnected);
    assert_eq!(many.ended(), [(uid(10), Ok("abcd"))]);
}

/// It would miss a client that gives more time for each word that it hears: behind the last one there is silence.
#[tokio::test]
async fn words_without_mail_bring_no_more_time() {
    let (many, result) = imap("fetch_many_silent", &TWO, Duration::from_millis(100)).await;
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.stage()), (ErrorKind::TimedOut, Stage::Fetch));
    assert!(many.ended().is_empty());
}

async fn pop3(name: &str, script: &str, ids: &[&str], limit: u64) -> (Many, Result<()>) {
    let mut many = Many::default();
    let result = scripted::play(name, script, IncomingTimeouts::all(PATIENCE), async |mut session| {
        let all = session.list(None, 9).await?;
        let is_wanted = |key: &RemoteKey| ids.iter().any(|id| *key == RemoteKey::Uidl((*id).into()));
        let mails: Vec<_> = all.into_iter().filter(|listed| is_wanted(&listed.key)).collect();
        session.fetch(&mails, limit, &mut many).await
    })
    .await;
    (many, result)
}

fn id(id: &str) -> String {
    RemoteKey::Uidl(id.to_owned()).to_string()
}

#[tokio::test]
async fn pop3_asks_ahead_where_that_is_offered() {
    let name = "pop3/pipelined";
    let (many, result) = pop3(name, &read(name), &["a", "b", "c", "d", "e"], 10).await;
    result.unwrap();
    let (refused, too_large) = (Err(ErrorKind::Refused), Err(ErrorKind::TooLarge));
    let want = [("a", Ok("ab\r\n")), ("b", refused), ("c", too_large), ("d", Ok(".\r\n")), ("e", too_large)];
    assert_eq!(many.ended(), want.map(|(name, end)| (id(name), end)));
    // The header of what is too large is had all the same.
    assert_eq!((&many.0[2].1[..], &many.0[4].1[..]), (&b"0123456789"[..], &b"A: b\r\n\r\n"[..]));
}

#[tokio::test]
async fn pop3_asks_singly_where_it_is_not_and_ends_what_has_no_end() {
    let name = "pop3/not_pipelined";
    let (many, result) = pop3(name, &signed_in(name), &["a", "b", "c"], 100).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(many.ended(), [(id("a"), Ok("ab\r\n"))]);
    assert_eq!((many.0.len(), many.0[1].1.len()), (2, 100));
}

/// The rounds that are cut at every byte elsewhere, whole.
#[tokio::test]
async fn a_round_with_a_good_server_gives_all_mails() {
    let name = "imap/round";
    let mut many = Many::default();
    scripted::play(name, &read(name), IncomingTimeouts::all(PATIENCE), async |mut session| {
        let selected = session.select(None, Access::ReadOnly).await?;
        assert!(selected.may_hold_above(19) && !selected.may_hold_above(20));
        let mails = session.list(None, 9).await?;
        assert_eq!(scripted::fetch(session.as_mut(), &RemoteKey::Uid(20), 9).await?, b"ab\r\ncd\r\n");
        session.fetch(&mails, 9, &mut many).await
    })
    .await
    .unwrap();
    assert_eq!(many.ended(), [(uid(10), Ok("ef\r\n")), (uid(20), Ok("ab\r\ncd\r\n"))]);
    let name = "pop3/round";
    let (many, result) = pop3(name, &read(name), &["a", "b"], 9).await;
    result.unwrap();
    assert_eq!(many.ended(), [(id("a"), Ok("ef\r\n")), (id("b"), Ok("ab\r\ncd\r\n"))]);
}

/// It would miss what these servers really say today: the dialogues are written from how each is known to speak.
#[tokio::test]
async fn the_servers_of_large_providers_are_understood() {
    for (name, tells_uid_next) in [
        ("vendor_gmail", true),
        ("vendor_exchange", true),
        ("vendor_courier", false),
        ("vendor_cyrus", true),
        ("vendor_netease", false),
    ] {
        let path = format!("imap/{name}");
        let mut many = Many::default();
        scripted::play(&path, &read(&path), IncomingTimeouts::all(PATIENCE), async |mut session| {
            let selected = session.select(None, Access::ReadOnly).await?;
            assert_eq!(selected.may_hold_above(20), !tells_uid_next, "{name}");
            let mails = session.list(None, 9).await?;
            let arrived = mails[0].arrived.map(|time| time.to_string());
            assert_eq!(arrived.as_deref(), Some("2026-11-22T08:00:00.000Z"), "{name}");
            session.fetch(&mails, 100, &mut many).await
        })
        .await
        .unwrap();
        assert_eq!(many.ended(), [(uid(10), Ok("ef\r\n")), (uid(20), Ok("ab\r\ncd\r\n"))], "{name}");
    }
}
