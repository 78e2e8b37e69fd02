//! Servers that give the whole mail where a piece of it is asked for. What each dialogue would miss is in its first lines.

use postroom_core::ledger::RemoteKey;
use postroom_transport::{Access, ErrorKind, IncomingTimeouts, Result};

use crate::imap::play;
use crate::scripted::{self, Many, PATIENCE, fetch, listed, signed_in};

const LIMIT: u64 = 1_000_000;

fn digits(length: usize) -> Vec<u8> {
    b"0123456789".iter().copied().cycle().take(length).collect()
}

async fn fetched(name: &str) -> Result<Vec<u8>> {
    play(name, async |session| fetch(session, &RemoteKey::Uid(10), LIMIT).await).await
}

// Seen to fail: with each literal of more than a piece a broken rule, as it was; with a piece taken for another one behind the first.
#[tokio::test]
async fn a_whole_mail_in_place_of_a_piece_is_taken_once() {
    play("fetch_whole", async |session| {
        assert!(fetch(session, &RemoteKey::Uid(10), LIMIT).await? == digits(300_000));
        assert!(fetch(session, &RemoteKey::Uid(20), LIMIT).await? == b"0123".repeat(65_536));
        assert_eq!(fetch(session, &RemoteKey::Uid(30), LIMIT).await?, b"abcd");
        assert!(fetch(session, &RemoteKey::Uid(40), LIMIT).await? == digits(300_000));
        Ok(())
    })
    .await
    .unwrap();
    assert!(fetched("fetch_whole_later").await.unwrap() == digits(300_000));
}

/// It would miss a server that gives another piece of the same bytes, without saying which: that is not found out by anybody.
#[tokio::test]
async fn what_may_be_another_piece_or_mail_is_no_mail() {
    for name in ["fetch_whole_other", "fetch_whole_rest", "fetch_whole_again", "fetch_whole_of_another"] {
        assert_eq!(fetched(name).await.expect_err(name).kind(), ErrorKind::Protocol, "{name}");
    }
}

/// The memory that it takes is measured in `incoming_memory.rs`.
#[tokio::test]
async fn a_whole_mail_beyond_the_limit_is_too_large_and_ends_the_session_only_if_its_end_is_far() {
    let name = "imap/fetch_whole_too_large";
    let mut many = Many::default();
    let script = signed_in(name);
    let result = scripted::play(name, &script, IncomingTimeouts::all(PATIENCE), async |mut session| {
        session.select(None, Access::ReadOnly).await?;
        for uid in [10, 20, 30] {
            session.fetch(&listed([RemoteKey::Uid(uid)], 4), 350_000, &mut many).await?;
        }
        Ok(())
    });
    assert_eq!(result.await.unwrap_err().kind(), ErrorKind::TooLarge);
    let ends = many.0.iter().map(|(_, bytes, end)| {
        assert!(digits(350_000).starts_with(bytes));
        (bytes.len(), end.as_ref().map(|end| end.as_ref().err().map(postroom_transport::Error::kind)))
    });
    let too_large = (350_000, Some(Some(ErrorKind::TooLarge)));
    assert_eq!(ends.collect::<Vec<_>>(), [too_large, (300_000, Some(None)), too_large]);
}

#[tokio::test]
async fn one_that_is_larger_than_a_response_may_be_is_passed_over_among_many_and_asked_for_alone() {
    let name = "imap/fetch_many_whole";
    let mut many = Many::default();
    scripted::play(name, &signed_in(name), IncomingTimeouts::all(PATIENCE), async |mut session| {
        session.select(None, Access::ReadOnly).await?;
        session.fetch(&listed([10, 11, 12].map(RemoteKey::Uid), 4), 2_000_000, &mut many).await
    })
    .await
    .unwrap();
    let uids: Vec<_> =
        many.0.iter().map(|(key, bytes, end)| (key.clone(), bytes.len(), end.is_some())).collect();
    let want = [(10, 4), (12, 4), (11, 2_000_000)];
    assert_eq!(uids, want.map(|(uid, length)| (RemoteKey::Uid(uid), length, true)));
    assert!(many.0[2].1 == digits(2_000_000));
}
