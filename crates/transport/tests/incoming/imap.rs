//! The dialogues of IMAP. What each would miss is in its first lines.

use std::time::Duration;

use postroom_core::ledger::RemoteKey;
use postroom_transport::{
    Access, CloseReport, Effect, ErrorKind, Folder, IncomingSession, IncomingTimeouts, Listed, Result, Stage,
};

use crate::scripted::{self, PATIENCE, fetch, read, signed_in};

/// Plays a dialogue to a session on its examined inbox.
pub(crate) async fn play<R>(
    name: &str,
    act: impl AsyncFnOnce(&mut dyn IncomingSession) -> Result<R>,
) -> Result<R> {
    let name = format!("imap/{name}");
    scripted::play(&name, &signed_in(&name), IncomingTimeouts::all(PATIENCE), async |mut session| {
        session.select(None, Access::ReadOnly).await?;
        act(session.as_mut()).await
    })
    .await
}

/// Plays a dialogue up to the sign-in, which fails.
async fn refused(name: &str) -> (ErrorKind, Stage) {
    let name = format!("imap/{name}");
    let timeouts = IncomingTimeouts::all(PATIENCE);
    let error =
        scripted::play(&name, &read(&name), timeouts, async |_| Ok(())).await.expect_err("no session");
    (error.kind(), error.stage())
}

async fn list_fails(name: &str) -> ErrorKind {
    let listed = play(name, async |session| {
        let list = session.list(None, 100).await;
        // What is broken stays so; nothing more goes over the wire.
        let is_broken = list.as_ref().is_err_and(|error| error.kind() != ErrorKind::Refused);
        assert!(!is_broken || session.folders().await.is_err(), "{name}");
        list
    });
    let error = listed.await.expect_err("no list");
    assert_eq!(error.stage(), Stage::List, "{name}");
    error.kind()
}

fn uids(list: &[Listed]) -> Vec<u32> {
    list.iter()
        .map(|listed| match listed.key {
            RemoteKey::Uid(uid) => uid,
            ref other => panic!("{other}"),
        })
        .collect()
}

#[tokio::test]
async fn oddities_cost_no_mail() {
    let list = play("oddities", async |session| session.list(None, 100).await).await.unwrap();
    assert_eq!(uids(&list), [10, 20, 30, 40]);
    let sizes: Vec<u64> = list.iter().map(|listed| listed.size).collect();
    // The first size can't be read, and 0 says so.
    assert_eq!(sizes, [0, 44, 5_000_000_000, 1]);
    let arrived: Vec<_> = list.iter().map(|listed| listed.arrived.map(|time| time.to_string())).collect();
    let time = |text: &str| Some(text.to_owned());
    assert_eq!(arrived, [time("2026-11-22T08:00:00.000Z"), time("2026-11-02T16:31:04.000Z"), None, None]);
}

#[tokio::test]
async fn a_list_that_is_cut_off_or_refused_is_an_error() {
    assert_eq!(list_fails("bye_in_list").await, ErrorKind::Deferred);
    assert_eq!(list_fails("closed_in_list").await, ErrorKind::Disconnected);
    assert_eq!(list_fails("list_refused_no").await, ErrorKind::Deferred);
    assert_eq!(list_fails("list_refused_bad").await, ErrorKind::Refused);
    assert_eq!(list_fails("list_unanswered").await, ErrorKind::Protocol);
    assert_eq!(list_fails("list_without_uid").await, ErrorKind::Protocol);
    assert_eq!(list_fails("list_unreadable").await, ErrorKind::Protocol);
}

#[tokio::test]
async fn an_answer_to_a_command_that_was_not_sent_ends_the_session() {
    assert_eq!(list_fails("foreseen_answer").await, ErrorKind::Protocol);
    assert_eq!(list_fails("old_answer").await, ErrorKind::Protocol);
}

#[tokio::test]
async fn gaps_and_the_largest_uid_are_walked_in_windows() {
    play("gaps", async |session| {
        let first = session.list(Some(&RemoteKey::Uid(7)), 2).await?;
        assert_eq!(uids(&first), [8, 3_000_000_000]);
        let second = session.list(Some(&first[1].key), 2).await?;
        assert_eq!(uids(&second), [4_294_967_290, 4_294_967_291]);
        assert!(session.list(Some(&RemoteKey::Uid(u32::MAX)), 2).await?.is_empty());
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn no_mail_is_missed_while_others_are_expunged() {
    play("expunged_between", async |session| {
        let first = session.list(None, 2).await?;
        assert_eq!(uids(&first), [10, 20]);
        assert_eq!(uids(&session.list(Some(&first[1].key), 2).await?), [30]);
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_is_too_much_ends_the_session() {
    for name in ["huge_literal", "endless_line", "endless_literals", "endless_responses"] {
        assert_eq!(list_fails(name).await, ErrorKind::Protocol, "{name}");
    }
}

#[tokio::test]
async fn a_million_parentheses_are_passed_over() {
    let list = play("million_parentheses", async |session| session.list(None, 9).await).await;
    assert_eq!(uids(&list.unwrap()), [10, 20, 30]);
}

#[tokio::test]
async fn a_body_is_taken_once_and_as_it_is() {
    play("fetch", async |session| {
        assert_eq!(fetch(session, &RemoteKey::Uid(10), 100).await?, b"Hi\r\n\r\n* BYE\r)\r\n"[..12]);
        assert_eq!(fetch(session, &RemoteKey::Uid(20), 100).await?, b"a\"b\\cd");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_wrong_size_neither_cuts_nor_hangs() {
    play("fetch_wrong_size", async |session| {
        assert_eq!(fetch(session, &RemoteKey::Uid(10), 100).await?, b"abcd");
        assert_eq!(fetch(session, &RemoteKey::Uid(20), 100).await?, b"abcdefghi");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_mail_that_is_gone_leaves_the_session_whole() {
    play("fetch_gone", async |session| {
        for _ in 0..4 {
            let error = fetch(session, &RemoteKey::Uid(10), 100).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Gone);
        }
        let error = fetch(session, &RemoteKey::Uid(20), 100).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        Ok(())
    })
    .await
    .unwrap();
}

/// Without it such a text came to the handler as a mail of its own.
#[tokio::test]
async fn a_text_that_stands_for_a_removed_mail_is_no_mail() {
    play("fetch_unavailable", async |session| {
        let error = fetch(session, &RemoteKey::Uid(10), 1000).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Gone);
        assert!(fetch(session, &RemoteKey::Uid(11), 1000).await?.starts_with(b"From: System Administrator"));
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_mail_that_is_not_whole_is_an_error() {
    for (name, kind) in [
        ("fetch_too_large", ErrorKind::TooLarge),
        ("fetch_larger_than_said", ErrorKind::TooLarge),
        ("fetch_other_piece", ErrorKind::Protocol),
        ("fetch_unreadable", ErrorKind::Protocol),
        ("fetch_cut", ErrorKind::Disconnected),
    ] {
        let fetched = play(name, async |session| fetch(session, &RemoteKey::Uid(10), 16).await).await;
        assert_eq!(fetched.expect_err(name).kind(), kind, "{name}");
    }
}

#[tokio::test]
async fn a_folder_without_epoch_or_count_is_not_selected() {
    for (name, kind) in [
        ("select_unavailable", ErrorKind::Deferred),
        ("select_without_epoch", ErrorKind::Protocol),
        ("select_without_count", ErrorKind::Protocol),
    ] {
        let selected = play(name, async |session| {
            session.select(Some("Suporte/S\u{e3}o Paulo"), Access::ReadOnly).await
        });
        assert_eq!(selected.await.expect_err(name).kind(), kind, "{name}");
    }
}

#[tokio::test]
async fn folders_are_told_by_name_and_a_refusal_is_not_none() {
    let folders = play("folders", async |session| session.folders().await).await.unwrap();
    let want = [
        ("INBOX", true),
        ("Suporte", false),
        ("a\"b\\cd", false),
        ("Suporte/S\u{e3}o Paulo", true),
        // What we could not name to the server.
        ("&AGE-", false),
        ("caf\u{fffd}", false),
    ];
    let mut want = want.map(|(name, selectable)| Folder::new(name, selectable)).to_vec();
    want.insert(5, Folder::new("Enviados", true).with_sent());
    assert_eq!(folders, want);
    for (name, kind) in [("folders_refused", ErrorKind::Refused), ("folders_endless", ErrorKind::Protocol)] {
        let folders = play(name, async |session| session.folders().await).await;
        assert_eq!(folders.expect_err(name).kind(), kind, "{name}");
    }
}

#[tokio::test]
async fn a_search_that_is_refused_or_unanswered_is_not_empty() {
    play("search_refused", async |session| {
        let id = "<a@acme.example>";
        assert_eq!(session.find(id).await.unwrap_err().kind(), ErrorKind::Refused);
        assert_eq!(session.find(id).await?, [5, 7, u32::MAX].map(RemoteKey::Uid));
        assert!(session.find(id).await?.is_empty());
        assert_eq!(session.find("<a@b>\r\nA1 LOGOUT").await.unwrap_err().kind(), ErrorKind::Refused);
        assert_eq!(session.find(id).await.unwrap_err().kind(), ErrorKind::Protocol);
        Ok(())
    })
    .await
    .unwrap();
}

/// Plays a dialogue of a server without extensions to a session on its selected inbox.
async fn settle(name: &str, act: impl AsyncFnOnce(&mut dyn IncomingSession) -> Result<()>) {
    let name = format!("imap/{name}");
    scripted::play(&name, &read(&name), IncomingTimeouts::all(PATIENCE), async |mut session| {
        session.select(None, Access::ReadWrite).await?;
        act(session.as_mut()).await
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_others_have_marked_is_not_expunged() {
    settle("delete_without_uidplus", async |session| {
        let effects = [20, 11, 10].map(|uid| (RemoteKey::Uid(uid), Effect::Delete));
        session.settle(&effects).await?;
        session.settle(&effects).await
    })
    .await;
}

#[tokio::test]
async fn a_refused_copy_is_looked_into() {
    settle("move_without_target", async |session| {
        let effects = [(RemoteKey::Uid(10), Effect::Move("a*".into()))];
        assert_eq!(session.settle(&effects).await.unwrap_err().kind(), ErrorKind::FolderMissing);
        assert_eq!(session.settle(&effects).await.unwrap_err().kind(), ErrorKind::Refused);
        session.settle(&effects).await
    })
    .await;
}

#[tokio::test]
async fn a_wrong_password_and_a_server_in_trouble_are_told_apart() {
    for (name, kind) in [
        ("sign_in_refused", ErrorKind::SignInRefused),
        ("sign_in_refused_without_code", ErrorKind::SignInRefused),
        ("sign_in_unavailable", ErrorKind::SignInUnavailable),
        ("sign_in_limited", ErrorKind::Throttled),
        ("sign_in_too_many", ErrorKind::Throttled),
        ("sign_in_bye", ErrorKind::SignInUnavailable),
        ("sign_in_cut", ErrorKind::Disconnected),
        ("sign_in_echoed", ErrorKind::SignInRefused),
        ("sign_in_unasked", ErrorKind::Protocol),
        ("sign_in_another_prompt", ErrorKind::SignInRefused),
        ("login_disabled", ErrorKind::NoSignInMethod),
        ("login_command", ErrorKind::SignInRefused),
        ("bearer_refused", ErrorKind::SignInRefused),
        ("bearer_xoauth2_refused", ErrorKind::SignInRefused),
        ("bearer_another_prompt", ErrorKind::SignInRefused),
        ("bearer_no_method", ErrorKind::NoSignInMethod),
    ] {
        assert_eq!(refused(name).await, (kind, Stage::SignIn), "{name}");
    }
}

#[tokio::test]
async fn a_response_follows_its_prompt() {
    for name in ["imap/sign_in_prompts", "imap/bearer", "imap/bearer_xoauth2"] {
        let timeouts = IncomingTimeouts::all(PATIENCE);
        scripted::play(name, &read(name), timeouts, async |_| Ok(())).await.expect(name);
    }
}

#[tokio::test]
async fn a_greeting_that_is_none_is_an_error() {
    assert_eq!(refused("greeting_bye").await, (ErrorKind::SignInUnavailable, Stage::Greeting));
    assert_eq!(refused("greeting_of_smtp").await, (ErrorKind::Protocol, Stage::Greeting));
    let (name, timeouts) = ("imap/greeting_silent", IncomingTimeouts::all(Duration::from_millis(100)));
    let error = scripted::play(name, &read(name), timeouts, async |_| Ok(())).await.unwrap_err();
    assert_eq!((error.kind(), error.stage()), (ErrorKind::TimedOut, Stage::Greeting));
}

#[tokio::test]
async fn nothing_of_the_sign_in_is_said_before_tls() {
    for (name, kind, stage) in [
        ("preauth", ErrorKind::TlsUnavailable, Stage::Tls),
        ("preauth_in_tls", ErrorKind::Protocol, Stage::Greeting),
        ("starttls_missing", ErrorKind::TlsUnavailable, Stage::Tls),
        ("starttls_refused", ErrorKind::TlsUnavailable, Stage::Tls),
        ("starttls_injected", ErrorKind::Injected, Stage::Tls),
        ("starttls_forgets", ErrorKind::NoSignInMethod, Stage::SignIn),
    ] {
        assert_eq!(refused(name).await, (kind, stage), "{name}");
    }
}

#[tokio::test]
async fn a_session_that_broke_is_closed_without_a_word() {
    let name = "imap/bye_in_list";
    scripted::play(name, &signed_in(name), IncomingTimeouts::all(PATIENCE), async |mut session| {
        session.select(None, Access::ReadOnly).await?;
        session.list(None, 9).await.unwrap_err();
        assert!(matches!(session.close().await, CloseReport::Kept));
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_silent_server_is_waited_for_as_long_as_a_piece_may_take() {
    let mut timeouts = IncomingTimeouts::all(PATIENCE);
    timeouts.piece = Duration::from_millis(100);
    let name = "imap/fetch_silent";
    let begun = tokio::time::Instant::now();
    let fetched = scripted::play(name, &signed_in(name), timeouts, async |mut session| {
        session.select(None, Access::ReadOnly).await?;
        fetch(session.as_mut(), &RemoteKey::Uid(10), 100).await
    })
    .await;
    let error = fetched.unwrap_err();
    assert_eq!((error.kind(), error.stage()), (ErrorKind::TimedOut, Stage::Fetch));
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
}
