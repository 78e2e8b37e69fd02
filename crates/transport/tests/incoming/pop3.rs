//! The dialogues of POP3. What each would miss is in its first lines.

use postroom_core::failure::Failure;
use postroom_core::ledger::RemoteKey;
use postroom_transport::{
    Access, CloseReport, Effect, ErrorKind, IncomingSession, IncomingTimeouts, Listed, Result, Stage,
};

use crate::scripted::{self, PATIENCE, fetch, read, signed_in};

/// Plays a dialogue to a signed-in session.
async fn play<R>(name: &str, act: impl AsyncFnOnce(Box<dyn IncomingSession>) -> Result<R>) -> Result<R> {
    let name = format!("pop3/{name}");
    scripted::play(&name, &signed_in(&name), IncomingTimeouts::all(PATIENCE), act).await
}

async fn list_fails(name: &str) -> ErrorKind {
    let listed = play(name, async |mut session| session.list(None, 100).await).await;
    let error = listed.expect_err("no list");
    assert_eq!(error.stage(), Stage::List, "{name}");
    error.kind()
}

fn keys(list: &[Listed]) -> Vec<String> {
    list.iter().map(|listed| listed.key.to_string()).collect()
}

fn uidl(id: &str) -> RemoteKey {
    RemoteKey::Uidl(id.to_owned())
}

#[tokio::test]
async fn a_wrong_password_a_lock_and_a_server_in_trouble_are_told_apart() {
    for (name, kind, stage) in [
        ("in_use", ErrorKind::InUse, Stage::SignIn),
        ("locked_without_code", ErrorKind::InUse, Stage::SignIn),
        ("login_delay", ErrorKind::Throttled, Stage::SignIn),
        ("sign_in_refused", ErrorKind::SignInRefused, Stage::SignIn),
        ("sign_in_unavailable", ErrorKind::SignInUnavailable, Stage::SignIn),
        ("user_echoed", ErrorKind::SignInRefused, Stage::SignIn),
        ("sasl", ErrorKind::SignInRefused, Stage::SignIn),
        ("sasl_unasked", ErrorKind::Protocol, Stage::SignIn),
        ("no_method", ErrorKind::NoSignInMethod, Stage::SignIn),
        ("bearer_refused", ErrorKind::SignInRefused, Stage::SignIn),
        ("bearer_xoauth2_refused", ErrorKind::SignInRefused, Stage::SignIn),
        ("bearer_another_prompt", ErrorKind::Protocol, Stage::SignIn),
        ("bearer_no_method", ErrorKind::NoSignInMethod, Stage::SignIn),
        ("bearer_no_capa", ErrorKind::NoSignInMethod, Stage::SignIn),
        ("greeting_refused", ErrorKind::SignInUnavailable, Stage::Greeting),
        ("stls_missing", ErrorKind::TlsUnavailable, Stage::Tls),
        ("stls_without_capa", ErrorKind::TlsUnavailable, Stage::Tls),
        ("stls_refused", ErrorKind::TlsUnavailable, Stage::Tls),
        ("stls_injected", ErrorKind::Injected, Stage::Tls),
        ("stls_forgets", ErrorKind::NoSignInMethod, Stage::SignIn),
    ] {
        let path = format!("pop3/{name}");
        let opened =
            scripted::play(&path, &read(&path), IncomingTimeouts::all(PATIENCE), async |_| Ok(())).await;
        let error = opened.expect_err(name);
        assert_eq!((error.kind(), error.stage()), (kind, stage), "{name}");
    }
}

#[tokio::test]
async fn a_token_is_taken_by_both_of_its_mechanisms() {
    for name in ["pop3/bearer", "pop3/bearer_xoauth2"] {
        let timeouts = IncomingTimeouts::all(PATIENCE);
        scripted::play(name, &read(name), timeouts, async |_| Ok(())).await.expect(name);
    }
}

#[tokio::test]
async fn the_time_that_a_server_wants_to_be_left_alone_is_kept() {
    for (name, delay) in [("login_delay_told", Some(900)), ("login_delay", None), ("in_use", None)] {
        let path = format!("pop3/{name}");
        let opened =
            scripted::play(&path, &read(&path), IncomingTimeouts::all(PATIENCE), async |_| Ok(())).await;
        let want = Failure::RetryAfter(delay.map(std::time::Duration::from_secs));
        assert_eq!(opened.expect_err(name).failure(), want, "{name}");
    }
}

#[tokio::test]
async fn a_server_without_capa_is_enough() {
    let name = "pop3/no_capa";
    let list = scripted::play(name, &read(name), IncomingTimeouts::all(PATIENCE), async |mut session| {
        assert_eq!(session.select(None, Access::ReadWrite).await?.exists, 1);
        session.list(None, 9).await
    })
    .await;
    assert_eq!(list.unwrap(), [Listed::new(uidl("a"), 12, None)]);
}

#[tokio::test]
async fn dots_are_taken_out_and_long_lines_are_no_trouble() {
    let mail =
        play("dots", async |mut session| fetch(session.as_mut(), &uidl("a"), 1 << 20).await).await.unwrap();
    let want = format!(".\r\na\n.\nb\r\n.c\r\n{}\r\n", "0123456789".repeat(30_000));
    assert!(mail == want.as_bytes(), "{} bytes", mail.len());
}

#[tokio::test]
async fn without_unique_ids_the_contents_are_the_keys() {
    let list = play("uidl_missing", async |mut session| session.list(None, 9).await).await.unwrap();
    // Of "a\r\n" and "b\r\n".
    let a = "content:f6a6263167c92de8644ac998b3c4e4d1bbb4c9d8c52b2b6a32ef2a0bb4a1b3d8";
    let keys = keys(&list);
    assert_eq!(keys[0].len(), a.len() + 2);
    assert_eq!(keys[0].strip_suffix(":1"), keys[2].strip_suffix(":2"));
    assert_ne!(keys[0].strip_suffix(":1"), keys[1].strip_suffix(":1"));
}

#[tokio::test]
async fn a_doubled_or_illegal_id_is_no_key() {
    play("uidl_doubled", async |mut session| {
        let list = session.list(None, 9).await?;
        let kinds: Vec<bool> = list.iter().map(|listed| listed.key == uidl("good")).collect();
        assert_eq!(kinds, [false, false, false, false, true]);
        let mut different = keys(&list);
        different.sort();
        different.dedup();
        assert_eq!(different.len(), 5);
        // A window behind a key of either kind.
        assert_eq!(session.list(Some(&list[1].key), 2).await?, list[2..4]);
        assert!(session.list(Some(&uidl("good")), 2).await?.is_empty());
        // A mail that is not there tells no place, so all are listed.
        assert_eq!(session.list(Some(&uidl("taken away")), 9).await?, list);
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_list_that_is_cut_off_or_refused_is_an_error() {
    assert_eq!(list_fails("list_refused").await, ErrorKind::Deferred);
    assert_eq!(list_fails("list_unreadable").await, ErrorKind::Protocol);
    assert_eq!(list_fails("list_cut").await, ErrorKind::Disconnected);
    assert_eq!(list_fails("endless_line").await, ErrorKind::Protocol);
}

#[tokio::test]
async fn a_mail_that_is_not_whole_is_an_error() {
    play("retr", async |mut session| {
        let refused = fetch(session.as_mut(), &uidl("a"), 100).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Refused);
        // Its size is known: it is not asked for.
        let gone = fetch(session.as_mut(), &uidl("gone"), 100).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::Gone);
        let cut = fetch(session.as_mut(), &uidl("a"), 100).await.unwrap_err();
        assert_eq!(cut.kind(), ErrorKind::Disconnected);
        Ok(())
    })
    .await
    .unwrap();
    let more =
        play("retr_more", async |mut session| fetch(session.as_mut(), &uidl("a"), 1_000_000).await).await;
    assert_eq!(more.expect_err("more").kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn what_is_said_unasked_is_no_answer() {
    let spoke = play("spoke_unasked", async |mut session| {
        assert!(session.list(None, 9).await?.is_empty());
        session.settle(&[(uidl("a"), Effect::Delete)]).await?;
        match session.close().await {
            CloseReport::Kept => Ok(()),
            CloseReport::Lost(error) => Err(error),
        }
    });
    spoke.await.expect("nothing was settled, so nothing is lost");
}

async fn closed(name: &str) -> CloseReport {
    play(name, async |mut session| {
        session.settle(&[(uidl("a"), Effect::Delete)]).await?;
        // Once more, and a mail that is not there: nothing is sent.
        session.settle(&[(uidl("a"), Effect::Delete), (uidl("gone"), Effect::Delete)]).await?;
        if name == "dele_cut" {
            session.settle(&[(uidl("b"), Effect::Delete)]).await.unwrap_err();
        }
        Ok(session.close().await)
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn deletions_hold_only_when_quit_says_so() {
    assert!(matches!(closed("quit_kept").await, CloseReport::Kept));
    for (name, kind) in [
        ("quit_lost", ErrorKind::Disconnected),
        ("quit_refused", ErrorKind::Refused),
        ("dele_cut", ErrorKind::Disconnected),
    ] {
        match closed(name).await {
            CloseReport::Lost(error) => {
                assert_eq!((error.kind(), error.stage()), (kind, Stage::Close), "{name}");
            }
            CloseReport::Kept => panic!("{name}: the deletions are taken for done"),
        }
    }
}

#[tokio::test]
async fn what_pop3_lacks_is_said_before_anything_is_deleted() {
    let name = "pop3/signed_in";
    scripted::play(name, &read(name), IncomingTimeouts::all(PATIENCE), async |mut session| {
        let effects = [(uidl("a"), Effect::Delete), (uidl("b"), Effect::Seen)];
        assert_eq!(session.settle(&effects).await.unwrap_err().kind(), ErrorKind::Unsupported);
        let error = session.select(Some("Suporte"), Access::ReadOnly).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FolderMissing);
        Ok(())
    })
    .await
    .unwrap();
}
