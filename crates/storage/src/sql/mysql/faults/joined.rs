//! Calls that share a commit: how few commits they need, that each has its own answer, and what is left when some of them are
//! dropped. The logic is the same as SQLite's; what it says to the server is not.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use postroom_core::id::{Revision, WorkerId};
use postroom_core::queue::Prepared;

use super::fixture::{accepted, check_whole, dropped_after, host, id, number, prepared, registered, store};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::queue::{ClaimMark, Enqueued, QueueIntake, QueueWork, Settled};
use crate::sql::mysql::store::MySqlStore;

/// How many statements have written events behind the place `after`, one in each transaction, and the last place.
async fn transactions(store: &MySqlStore, after: i64) -> (i64, i64) {
    let sql = "SELECT count(DISTINCT written), coalesce(max(place), 0) FROM postroom_event WHERE place > ?";
    let mut read = store.connections.read("ask").await.unwrap();
    let row = sqlx::query_as(sql).bind(after).fetch_one(&mut *read).await.unwrap();
    read.finish(Ok(row)).await.unwrap()
}

async fn enqueue(store: &MySqlStore, mail: &Prepared) -> Result<Enqueued> {
    store.enqueue(store.now(), mail, Bytes::from_static(b"x")).await
}

/// Fails where a call hangs.
async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("a call hangs")
}

#[tokio::test]
async fn calls_at_the_same_time_share_their_commits() {
    let Some((store, url)) = store().await else { return };
    // The same for all rows of a statement.
    let sql = "ALTER TABLE postroom_event ADD written TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)";
    sqlx::raw_sql(sql).execute(&mut host(&url).await).await.unwrap();
    let outbox = registered(&store).await;
    let mails: Vec<_> = (0..50).map(|_| prepared(store.now(), &outbox)).collect();
    let done = in_time(join_all(mails.iter().map(|mail| enqueue(&store, mail)))).await;
    for (mail, done) in mails.iter().zip(done) {
        assert_eq!(done.unwrap(), Enqueued::New(mail.id));
    }
    // One by one, as the last loop does it, they are 50.
    let (together, last) = transactions(&store, 0).await;
    assert!((1..=5).contains(&together), "{together} commits");
    let now = store.now() + Duration::from_secs(1);
    let (worker, until) = (WorkerId::from_uuid(id()), now + Duration::from_secs(30));
    let claimed = store.claim(now, outbox.id, 50, worker, until).await.unwrap();
    let settled: Vec<_> = claimed.iter().map(|one| [accepted(one, now)]).collect();
    let marks: Vec<_> = claimed.iter().map(|one| [ClaimMark { id: one.id, claim: one.claim }]).collect();
    let marked = in_time(join_all(marks.iter().map(|mark| store.mark(now, mark)))).await;
    assert!(marked.into_iter().all(|marked| marked.unwrap() == [true]));
    let settled = in_time(join_all(settled.iter().map(|settlement| store.settle(now, settlement)))).await;
    assert!(settled.into_iter().all(|settled| settled.unwrap() == [Settled::Applied]));
    let (together, last) = transactions(&store, last).await;
    assert!((3..=11).contains(&together), "{together} commits");
    for _ in 0..5 {
        enqueue(&store, &prepared(now, &outbox)).await.unwrap();
    }
    assert_eq!(transactions(&store, last).await.0, 5);
    check_whole(&store).await;
}

/// Would miss a refusal that fails, or undoes, what the others of the group did; also one by the database, which does not
/// end the transaction by itself.
#[tokio::test]
async fn each_call_of_a_group_has_its_own_answer() {
    let Some((store, _)) = store().await else { return };
    let outbox = registered(&store).await;
    let stale = |mut mail: Prepared| {
        mail.basis.contract = Some(Revision::new(7));
        mail
    };
    // No column takes that.
    let illegal = |mut mail: Prepared| {
        mail.message_id = (0..400).map(|_| id().simple().to_string()).collect();
        mail
    };
    let fresh = || prepared(store.now(), &outbox);
    let (first, second, third) = (fresh(), fresh(), fresh());
    // The refused ones as the first of those that come together, and between others.
    let mails = [
        stale(fresh()),
        first.clone(),
        illegal(fresh()),
        stale(fresh()),
        second.clone(),
        first.clone(),
        illegal(fresh()),
        third.clone(),
    ];
    let done = in_time(join_all(mails.iter().map(|mail| enqueue(&store, mail)))).await;
    let said: Vec<_> = done.iter().map(|done| done.as_ref().map_err(Error::kind).cloned()).collect();
    assert_eq!(said[0], Err(&ErrorKind::StaleDecision));
    assert_eq!(said[1], Ok(Enqueued::New(first.id)));
    assert!(said[2].is_err() && said[6].is_err(), "{said:?}");
    assert_eq!(said[3], Err(&ErrorKind::StaleDecision));
    assert_eq!(said[4], Ok(Enqueued::New(second.id)));
    assert_eq!(said[5], Ok(Enqueued::Existing(first.id)));
    assert_eq!(said[7], Ok(Enqueued::New(third.id)));
    assert_eq!(number(&store, "SELECT count(*) FROM postroom_queue_mail").await, 3);
    // What the refused ones had begun is undone.
    assert_eq!(number(&store, "SELECT CAST(sum(submitted) AS SIGNED) FROM postroom_queue_tally").await, 3);
    check_whole(&store).await;
}

/// Runs calls at the same time, of which the first is dropped after so many polls and the third after others.
async fn with_drops<F: Future>(calls: impl IntoIterator<Item = F>, round: usize) -> Vec<Option<F::Output>> {
    let calls = calls.into_iter().enumerate().map(|(place, call)| {
        let polls = match place {
            0 => round % 19,
            2 => (round * 7) % 23,
            _ => usize::MAX,
        };
        dropped_after(call, polls)
    });
    in_time(join_all(calls)).await
}

/// Would miss a live call that hangs, that is told another's answer, or whose commit it takes for none: begun again it would
/// find its own mail there, or its claim settled.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_call_of_a_group_leaves_the_others_whole() {
    let Some((store, _)) = store().await else { return };
    let outbox = registered(&store).await;
    let (mut cut, mut done) = (0, 0);
    for round in 0..120 {
        let now = store.now();
        let mails: Vec<_> = (0..5).map(|_| prepared(now, &outbox)).collect();
        let answers = with_drops(mails.iter().map(|mail| enqueue(&store, mail)), round).await;
        for (mail, answer) in mails.iter().zip(answers) {
            match answer {
                Some(answer) => assert_eq!(answer.unwrap(), Enqueued::New(mail.id)),
                None => cut += 1,
            }
        }
        let now = now + Duration::from_secs(1);
        let (worker, until) = (WorkerId::from_uuid(id()), now + Duration::from_secs(300));
        let claimed = store.claim(now, outbox.id, 5, worker, until).await.unwrap();
        assert!(claimed.len() >= 3, "a live caller's mail is lost");
        let marks: Vec<_> = claimed.iter().map(|one| [ClaimMark { id: one.id, claim: one.claim }]).collect();
        let answers = with_drops(marks.iter().map(|mark| store.mark(now, mark)), round).await;
        assert!(answers.into_iter().flatten().all(|marked| marked.unwrap() == [true]));
        for mark in &marks {
            assert_eq!(store.mark(now, mark).await.unwrap(), [true]);
        }
        let settled: Vec<_> = claimed.iter().map(|one| [accepted(one, now)]).collect();
        let answers = with_drops(settled.iter().map(|one| store.settle(now, one)), round).await;
        for answer in answers.into_iter().flatten() {
            assert_eq!(answer.unwrap(), [Settled::Applied], "round {round}");
            done += 1;
        }
        if round % 8 == 0 {
            check_whole(&store).await;
        }
    }
    check_whole(&store).await;
    assert!(cut > 60 && done > 240, "{cut} cut, {done} done: the drops miss the calls");
}
