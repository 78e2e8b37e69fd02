//! Waiting for news over IMAP: what a server may do to a client that idles. What each dialogue would miss is in its first lines.

use std::time::Duration;

use postroom_core::ledger::RemoteKey;
use postroom_transport::{Access, ErrorKind, Hint, IncomingTimeouts, Result, Stage};

use crate::imap::play;
use crate::scripted::{self, PATIENCE, fetch, signed_in};

#[tokio::test]
async fn idle_tells_a_change_a_refusal_and_silence_apart() {
    let long = Duration::from_secs(600);
    play("idle", async |session| {
        assert_eq!(session.wait(long).await?, Hint::Changed);
        assert_eq!(session.wait(long).await?, Hint::Changed);
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(play("idle_refused", async |session| session.wait(long).await).await.unwrap(), Hint::Poll);
    // A list without an answer would be refused: the session is whole after the deadline.
    let quiet = play("idle_quiet", async |session| {
        let hint = session.wait(Duration::from_millis(20)).await?;
        assert!(session.list(None, 0).await?.is_empty());
        Ok(hint)
    });
    assert_eq!(quiet.await.unwrap(), Hint::Quiet);
}

#[tokio::test]
async fn the_end_of_the_connection_is_no_change() {
    for name in ["idle_closed", "idle_bye"] {
        let waited = play(name, async |session| session.wait(Duration::from_secs(600)).await).await;
        let error = waited.expect_err(name);
        assert_eq!((error.kind(), error.stage()), (ErrorKind::Disconnected, Stage::Wait), "{name}");
    }
}

const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_server_that_refuses_to_push_is_asked_for_news() {
    play("idle_refused_once", async |session| {
        assert_eq!(session.wait(LONG).await?, Hint::Poll);
        assert_eq!(session.wait(LONG).await?, Hint::Poll);
        assert_eq!(session.wait(Duration::ZERO).await?, Hint::Quiet);
        assert_eq!(session.wait(Duration::ZERO).await?, Hint::Changed);
        // It is known now, without another word.
        assert_eq!(session.wait(LONG).await?, Hint::Changed);
        Ok(())
    })
    .await
    .unwrap();
    let hint = play("idle_ended_at_once", async |session| session.wait(LONG).await).await;
    assert_eq!(hint.unwrap(), Hint::Poll);
}

/// A client that throws away what came with the continuation waits here until the test gives it up.
#[tokio::test]
async fn news_in_the_packet_of_the_continuation_wakes() {
    let hint = play("idle_in_one_packet", async |session| session.wait(LONG).await).await;
    assert_eq!(hint.unwrap(), Hint::Changed);
}

/// A client that forgets what it was told between its list and its wait says IDLE here, which nobody answers.
#[tokio::test]
async fn news_between_the_list_and_the_wait_is_not_lost() {
    play("idle_between", async |session| {
        assert_eq!(session.list(None, 9).await?.len(), 3);
        assert_eq!(fetch(session, &RemoteKey::Uid(10), 9).await?, b"x");
        assert_eq!(session.wait(LONG).await?, Hint::Changed);
        Ok(())
    })
    .await
    .unwrap();
}

/// Waits with short deadlines for each command.
async fn waited(name: &str, at_most: Duration, command: Duration) -> Result<Hint> {
    let name = format!("imap/{name}");
    let mut timeouts = IncomingTimeouts::all(PATIENCE);
    timeouts.command = command;
    scripted::play(&name, &signed_in(&name), timeouts, async |mut session| {
        session.select(None, Access::ReadOnly).await?;
        let waited = session.wait(at_most).await;
        assert!(waited.is_ok() || session.list(None, 1).await.is_err(), "{name}: it was not broken");
        waited
    })
    .await
}

#[tokio::test]
async fn a_server_that_neither_begins_nor_ends_to_idle_has_the_time_of_a_command() {
    for name in ["idle_without_continuation", "idle_never_ended"] {
        let begun = tokio::time::Instant::now();
        let error = waited(name, LONG, Duration::from_millis(500)).await.expect_err(name);
        assert_eq!((error.kind(), error.stage()), (ErrorKind::TimedOut, Stage::Wait), "{name}");
        assert!(begun.elapsed() < PATIENCE, "{name}: {:?}", begun.elapsed());
    }
}

/// It would miss a client that looks at its deadline only when nothing arrives, as long as it bounds the number of responses:
/// either of the two ends the flood.
#[tokio::test]
async fn words_without_news_do_not_keep_a_client_beyond_its_deadline() {
    let begun = tokio::time::Instant::now();
    // The time is over before the flood is; or else its number is too large. Either way it ends.
    let error = waited("idle_flood", Duration::from_millis(200), Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Protocol), "{error}");
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}
