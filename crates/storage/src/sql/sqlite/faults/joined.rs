//! Calls that share a commit: how few commits they need, that each has its own answer, and what is left when some of them are
//! dropped.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use postroom_core::id::{Revision, WorkerId};
use postroom_core::queue::Prepared;

use super::fixture::{Drops, accepted, check_whole, id, number, open, prepared, registered};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::queue::{ClaimMark, Enqueued, QueueIntake, QueueWork, Settled};
use crate::sql::sqlite::store::{SqliteOptions, SqliteStore};

/// Counts the commits of the connection that writes.
async fn counted(store: &SqliteStore) -> Arc<AtomicUsize> {
    let commits = Arc::new(AtomicUsize::new(0));
    let mut tx = store.connections.write("count commits").await.unwrap();
    let counter = Arc::clone(&commits);
    tx.lock_handle().await.unwrap().set_commit_hook(move || {
        counter.fetch_add(1, Ordering::SeqCst);
        true
    });
    tx.finish(Ok(())).await.unwrap();
    commits.store(0, Ordering::SeqCst);
    commits
}

async fn enqueue(store: &SqliteStore, mail: &Prepared) -> Result<Enqueued> {
    store.enqueue(store.now(), mail, Bytes::from_static(b"x")).await
}

/// Fails where a call hangs.
async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("a call hangs")
}

fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn calls_at_the_same_time_share_their_commits() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let outbox = registered(&store).await;
    let commits = counted(&store).await;
    let mails: Vec<_> = (0..50).map(|_| prepared(store.now(), &outbox)).collect();
    let done = in_time(join_all(mails.iter().map(|mail| enqueue(&store, mail)))).await;
    for (mail, done) in mails.iter().zip(done) {
        assert_eq!(done.unwrap(), Enqueued::New(mail.id));
    }
    // One by one, as the next loop does it, they are 50.
    let together = commits.swap(0, Ordering::SeqCst);
    assert!((1..=5).contains(&together), "{together} commits");
    let now = store.now() + Duration::from_secs(1);
    let (worker, until) = (WorkerId::from_uuid(id()), now + Duration::from_secs(30));
    let claimed = store.claim(now, outbox.id, 50, worker, until).await.unwrap();
    let settled: Vec<_> = claimed.iter().map(|one| [accepted(one, now)]).collect();
    let marks: Vec<_> = claimed.iter().map(|one| [ClaimMark { id: one.id, claim: one.claim }]).collect();
    commits.store(0, Ordering::SeqCst);
    let marked = in_time(join_all(marks.iter().map(|mark| store.mark(now, mark)))).await;
    assert!(marked.into_iter().all(|marked| marked.unwrap() == [true]));
    let settled = in_time(join_all(settled.iter().map(|settlement| store.settle(now, settlement)))).await;
    assert!(settled.into_iter().all(|settled| settled.unwrap() == [Settled::Applied]));
    let together = commits.swap(0, Ordering::SeqCst);
    assert!((2..=10).contains(&together), "{together} commits");
    for _ in 0..5 {
        enqueue(&store, &prepared(now, &outbox)).await.unwrap();
    }
    assert_eq!(commits.load(Ordering::SeqCst), 5);
    check_whole(&store).await;
}

/// Would miss a refusal that fails, or undoes, what the others of the group did.
#[tokio::test]
async fn each_call_of_a_group_has_its_own_answer() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let outbox = registered(&store).await;
    let stale = |mut mail: Prepared| {
        mail.basis.contract = Some(Revision::new(7));
        mail
    };
    let fresh = || prepared(store.now(), &outbox);
    let commits = counted(&store).await;
    let (first, second, third) = (fresh(), fresh(), fresh());
    // The stale one as the first of its group, and as one that joins.
    let mails =
        [stale(fresh()), first.clone(), stale(fresh()), second.clone(), first.clone(), stale(fresh()), third];
    let done = in_time(join_all(mails.iter().map(|mail| enqueue(&store, mail)))).await;
    let said: Vec<_> = done.iter().map(|done| done.as_ref().map_err(Error::kind)).collect();
    let (new, refused) = (|mail: &Prepared| Ok(Enqueued::New(mail.id)), || Err(&ErrorKind::StaleDecision));
    let expected = [
        refused(),
        new(&mails[1]),
        refused(),
        new(&mails[3]),
        Ok(Enqueued::Existing(first.id)),
        refused(),
        new(&mails[6]),
    ];
    for (said, expected) in said.into_iter().zip(expected) {
        assert_eq!(said.cloned(), expected);
    }
    // The first is performed at once, the others together; one by one they are 7. On a machine that is busy with something else, what is
    // together may be two groups.
    let together = commits.load(Ordering::SeqCst);
    assert!((2..=4).contains(&together), "{together} commits: they were no group");
    assert_eq!(number(&store, "SELECT count(*) FROM postroom_queue_mail").await, 3);
    // What the refused ones had begun is undone.
    assert_eq!(number(&store, "SELECT sum(submitted) FROM postroom_queue_tally").await, 3);
    check_whole(&store).await;
}

/// Runs calls at the same time, of which the first and the third are dropped in the middle.
async fn with_drops<F: Future>(
    calls: impl IntoIterator<Item = F>,
    [first, third]: &mut [Drops; 2],
) -> Vec<Option<F::Output>> {
    let mut calls = calls.into_iter();
    let mut next = || calls.next().expect("three calls or more");
    let (one, two, three) = (next(), next(), next());
    let others = join_all([two].into_iter().chain(calls));
    let dropped = join(first.drop_in(one), third.drop_in(three));
    let ((one, three), others) = in_time(join(dropped, others)).await;
    let mut others = others.into_iter().map(Some);
    let two = others.next().flatten();
    [one, two, three].into_iter().chain(others).collect()
}

/// Would miss a live call that hangs, that is told another's answer, or whose commit it takes for none: begun again it would
/// find its own mail there, or its claim settled.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_call_of_a_group_leaves_the_others_whole() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let outbox = registered(&store).await;
    let (mut submits, mut marking, mut settling) = <([Drops; 2], [Drops; 2], [Drops; 2])>::default();
    for round in 0..200 {
        let now = store.now();
        let mails: Vec<_> = (0..5).map(|_| prepared(now, &outbox)).collect();
        let answers = with_drops(mails.iter().map(|mail| enqueue(&store, mail)), &mut submits).await;
        for (mail, answer) in mails.iter().zip(answers) {
            if let Some(answer) = answer {
                assert_eq!(answer.unwrap(), Enqueued::New(mail.id));
            }
        }
        let now = now + Duration::from_secs(1);
        let (worker, until) = (WorkerId::from_uuid(id()), now + Duration::from_secs(300));
        let claimed = store.claim(now, outbox.id, 5, worker, until).await.unwrap();
        assert!(claimed.len() >= 3, "a live caller's mail is lost");
        let marks: Vec<_> = claimed.iter().map(|one| [ClaimMark { id: one.id, claim: one.claim }]).collect();
        let answers = with_drops(marks.iter().map(|mark| store.mark(now, mark)), &mut marking).await;
        assert!(answers.into_iter().flatten().all(|marked| marked.unwrap() == [true]));
        for mark in &marks {
            assert_eq!(store.mark(now, mark).await.unwrap(), [true]);
        }
        let settled: Vec<_> = claimed.iter().map(|one| [accepted(one, now)]).collect();
        let answers = with_drops(settled.iter().map(|one| store.settle(now, one)), &mut settling).await;
        for answer in answers.into_iter().flatten() {
            assert_eq!(answer.unwrap(), [Settled::Applied], "round {round}");
        }
        if round % 8 == 0 {
            check_whole(&store).await;
        }
    }
    check_whole(&store).await;
    for drops in submits.iter().chain(&marking).chain(&settling) {
        drops.check(40);
    }
}

/// Would miss a transaction that stays open when the last of those who wait for it is dropped.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_nobody_waits_for_keeps_no_other_process_from_writing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let outbox = registered(&store).await;
    let file = folder.path().join("faults.db").display().to_string();
    let options = SqliteOptions::new().with_busy_timeout(Duration::from_secs(2));
    let other = SqliteStore::connect(&file, options).await.unwrap();
    let (mut first_drops, mut second_drops) = (Drops::default(), Drops::default());
    for _ in 0..60 {
        let mails = [prepared(store.now(), &outbox), prepared(store.now(), &outbox)];
        // Both are dropped in the middle, the one that performs before the one that waits, or behind it.
        let (first, second) = (enqueue(&store, &mails[0]), enqueue(&store, &mails[1]));
        in_time(join(first_drops.drop_in(first), second_drops.drop_in(second))).await;
        enqueue(&other, &prepared(other.now(), &outbox)).await.unwrap();
        check_whole(&store).await;
    }
    first_drops.check(10);
    second_drops.check(10);
}

/// Would miss a call that is cut off by whoever closes the store.
#[tokio::test]
async fn a_writer_of_its_own_and_a_close_wait_for_what_has_begun() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let outbox = registered(&store).await;
    let (mail, late) = (prepared(store.now(), &outbox), prepared(store.now(), &outbox));
    let (done, swept, other) = in_time(async {
        tokio::join!(enqueue(&store, &mail), store.expire(store.now()), enqueue(&store, &late))
    })
    .await;
    assert_eq!((done.unwrap(), other.unwrap()), (Enqueued::New(mail.id), Enqueued::New(late.id)));
    swept.unwrap();
    // A store that knows of no other callers begins at once.
    let store = open(folder.path()).await;
    let last = prepared(store.now(), &outbox);
    let mut call = pin!(enqueue(&store, &last));
    assert!(poll_once(call.as_mut()).is_pending());
    let (closed, done) = in_time(async { tokio::join!(store.close(), call) }).await;
    closed.unwrap();
    assert_eq!(done.unwrap(), Enqueued::New(last.id));
    let store = open(folder.path()).await;
    assert_eq!(number(&store, "SELECT count(*) FROM postroom_queue_mail").await, 3);
    check_whole(&store).await;
}

/// Would miss a store whose claims look in vain for what is on its way: the engine rings those who wait when a submission is begun.
#[tokio::test]
async fn a_claim_that_comes_with_submissions_finds_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    assert!(store.claims_wait_for_submissions());
    let outbox = registered(&store).await;
    let commits = counted(&store).await;
    let (one, other) = (prepared(store.now(), &outbox), prepared(store.now(), &outbox));
    let (now, worker) = (store.now(), WorkerId::from_uuid(id()));
    let claim = store.claim(now, outbox.id, 5, worker, now + Duration::from_secs(60));
    let (one, other, claimed) =
        in_time(async { tokio::join!(enqueue(&store, &one), enqueue(&store, &other), claim) }).await;
    assert!(one.is_ok() && other.is_ok());
    assert_eq!(claimed.unwrap().len(), 2);
    assert!(commits.load(Ordering::SeqCst) <= 2, "{commits:?}");
    check_whole(&store).await;
}

/// A disk that fills up for one call makes SQLite end the transaction of all: each is then tried alone.
#[tokio::test]
async fn a_call_that_fills_the_disk_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let outbox = registered(&store).await;
    let limit = number(&store, "PRAGMA page_count").await + 60;
    let mut tx = store.connections.write("limit the file").await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {limit}")))
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.finish(Ok(())).await.unwrap();
    let (small, big, last) =
        (prepared(store.now(), &outbox), prepared(store.now(), &outbox), prepared(store.now(), &outbox));
    let content = Bytes::from(vec![b'x'; 600_000]);
    let (one, full, other) = in_time(async {
        tokio::join!(
            enqueue(&store, &small),
            store.enqueue(store.now(), &big, content),
            enqueue(&store, &last)
        )
    })
    .await;
    assert_eq!((one.unwrap(), other.unwrap()), (Enqueued::New(small.id), Enqueued::New(last.id)));
    assert_eq!(full.unwrap_err().kind(), &ErrorKind::Full);
    check_whole(&store).await;
}
