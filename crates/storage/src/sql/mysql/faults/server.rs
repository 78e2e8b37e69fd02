//! A server that goes away in mid work: its sessions are ended, or it is killed and started again. What is in flight fails as
//! unavailable, what was reported is there afterwards, and the store goes on by itself.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use postroom_core::id::{QueueId, WorkerId};
use postroom_core::mailbox::Mailbox;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection};

use super::fixture::{accepted, check_whole, host, id, new_database, number, prepared, registered, store};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::queue::{ClaimMark, Enqueued, QueueDesk, QueueIntake, QueueWork};
use crate::sql::mysql::store::{MySqlOptions, MySqlStore};

/// What a caller was told.
#[derive(Default)]
struct Told {
    submitted: BTreeSet<QueueId>,
    accepted: BTreeSet<QueueId>,
    failures: u32,
}

impl Told {
    fn failed(&mut self, error: &Error) {
        assert_eq!(error.kind(), &ErrorKind::Unavailable, "{error:?}");
        self.failures += 1;
    }
}

/// Submits, claims, marks and settles until the end. What has an unknown outcome is said again.
async fn work(store: &MySqlStore, outbox: &Mailbox, end: &AtomicBool) -> Told {
    let mut told = Told::default();
    while !end.load(Ordering::SeqCst) {
        let now = store.now();
        let mail = prepared(now, outbox);
        match store.enqueue(now, &mail, Bytes::from_static(b"x")).await {
            Ok(Enqueued::New(id)) => drop(told.submitted.insert(id)),
            Ok(Enqueued::Existing(id)) => panic!("{id} is new"),
            Err(error) => {
                told.failed(&error);
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
        }
        let (worker, until) = (WorkerId::from_uuid(id()), now + Duration::from_secs(300));
        let round = async {
            let claimed = store.claim(now, outbox.id, 3, worker, until).await?;
            let marks: Vec<_> =
                claimed.iter().map(|one| ClaimMark { id: one.id, claim: one.claim }).collect();
            let marked = store.mark(now, &marks).await?;
            assert!(marked.iter().all(|marked| *marked));
            let settled: Vec<_> = claimed.iter().map(|one| accepted(one, now)).collect();
            store.settle(now, &settled).await?;
            Ok::<_, Error>(claimed.into_iter().map(|one| one.id).collect::<Vec<_>>())
        };
        match round.await {
            Ok(ids) => told.accepted.extend(ids),
            Err(error) => told.failed(&error),
        }
    }
    told
}

async fn check(store: &MySqlStore, told: &[Told]) {
    // A call that only reads may be the one that finds out.
    let _ = store.open_claims().await;
    check_whole(store).await;
    for told in told {
        assert!(told.submitted.len() > 5, "it did no work");
        for id in &told.submitted {
            let record = store.show(*id).await.unwrap().expect("a reported mail");
            let is_accepted = record.item.state == postroom_core::queue::State::Accepted;
            assert!(is_accepted || !told.accepted.contains(id), "{record:?}");
        }
        for id in &told.accepted {
            let record = store.show(*id).await.unwrap().expect("a reported mail");
            assert_eq!(record.item.state, postroom_core::queue::State::Accepted);
        }
    }
}

/// Ends the sessions in a database. Gives how many.
async fn end_sessions(killer: &mut MySqlConnection, database: &str) -> usize {
    let sql = "SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE db = ?";
    let ids: Vec<(i64,)> = sqlx::query_as(sql).bind(database).fetch_all(&mut *killer).await.unwrap();
    for (id,) in &ids {
        // It may have ended by itself.
        let _ = sqlx::raw_sql(AssertSqlSafe(format!("KILL CONNECTION {id}"))).execute(&mut *killer).await;
    }
    ids.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_the_server_ends_lose_nothing_and_the_store_goes_on() {
    let Some((store, url)) = store().await else { return };
    let outbox = registered(&store).await;
    let end = AtomicBool::new(false);
    let (server, database) = url.rsplit_once('/').unwrap();
    let mut killer = host(server).await;
    let killing = async {
        let mut ended = 0;
        for _ in 0..25 {
            tokio::time::sleep(Duration::from_millis(40)).await;
            ended += end_sessions(&mut killer, database).await;
        }
        // Time to work, too.
        tokio::time::sleep(Duration::from_millis(300)).await;
        end.store(true, Ordering::SeqCst);
        ended
    };
    let (ended, a, b, c) = tokio::join!(
        killing,
        work(&store, &outbox, &end),
        work(&store, &outbox, &end),
        work(&store, &outbox, &end)
    );
    let told = [a, b, c];
    assert!(
        ended > 10 && told.iter().any(|told| told.failures > 0),
        "{ended} sessions: the ends miss the work"
    );
    check(&store, &told).await;
    // What was idle while its server went is found out without a failure of the next call that writes.
    end_sessions(&mut killer, database).await;
    crate::registry::Mailboxes::reserve(&store).await.unwrap();
}

/// A server of its own, which the command that `POSTROOM_TEST_MYSQL_CRASH` names kills and starts again, at the URL in
/// `POSTROOM_TEST_MYSQL_CRASHED`.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_in_mid_work_loses_nothing_that_it_reported() {
    let (Ok(server), Ok(crash)) =
        (std::env::var("POSTROOM_TEST_MYSQL_CRASHED"), std::env::var("POSTROOM_TEST_MYSQL_CRASH"))
    else {
        return;
    };
    let url = new_database(&server, &format!("crash_{}", id().simple())).await;
    let store = MySqlStore::open(&url).await.unwrap();
    let outbox = registered(&store).await;
    let end = AtomicBool::new(false);
    let killing = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let status = tokio::task::spawn_blocking({
                let crash = crash.clone();
                move || std::process::Command::new("sh").args(["-c", &crash]).status()
            });
            assert!(status.await.unwrap().unwrap().success(), "{crash}");
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
        end.store(true, Ordering::SeqCst);
    };
    let ((), a, b) = tokio::join!(killing, work(&store, &outbox, &end), work(&store, &outbox, &end));
    assert!(a.failures + b.failures > 2, "the crashes miss the work");
    check(&store, &[a, b]).await;
    assert!(number(&store, "SELECT count(*) FROM postroom_queue_mail").await > 10);
    a_server_that_may_forget_commits_is_refused(&store, &url, &outbox).await;
}

/// Would miss mail that is lost with the power though its submission returned. The setting is the whole server's.
async fn a_server_that_may_forget_commits_is_refused(store: &MySqlStore, url: &str, outbox: &Mailbox) {
    let mut host = host(url).await;
    let set = async |sql: &'static str| {
        let mut admin = MySqlConnection::connect(url).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut admin).await.unwrap();
    };
    for (forgetful, fits) in [("2", false), ("0", false), ("3", true), ("1", true)] {
        let sql = match forgetful {
            "0" => "SET GLOBAL innodb_flush_log_at_trx_commit = 0",
            "2" => "SET GLOBAL innodb_flush_log_at_trx_commit = 2",
            "3" => "SET GLOBAL innodb_flush_log_at_trx_commit = 3",
            _ => "SET GLOBAL innodb_flush_log_at_trx_commit = 1",
        };
        set(sql).await;
        let mut tx = host.begin().await.unwrap();
        let mail = prepared(store.now(), outbox);
        let submitted = store.enqueue_in(&mut tx, store.now(), &mail, Bytes::from_static(b"x")).await;
        tx.rollback().await.unwrap();
        let opened = MySqlStore::connect(url, MySqlOptions::new()).await.map(drop);
        for done in [submitted.map(drop), opened] {
            let is_refused = done.as_ref().is_err_and(
                |error| matches!(error.kind(), ErrorKind::UnfitConnection { why } if why.contains("sync")),
            );
            assert_eq!((done.is_ok(), is_refused), (fits, !fits), "{forgetful}: {done:?}");
        }
    }
}

/// A process that is stopped in the middle of a transaction, SIGSTOP say. Would miss locks that hold up every other process until it
/// goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_stands_still_is_ended_with_its_locks() {
    let Some((store, url)) = store().await else { return };
    let outbox = registered(&store).await;
    let other = MySqlStore::connect(&url, MySqlOptions::new()).await.unwrap();
    let mut stopped = store.connections.write("stand still").await.unwrap();
    crate::sql::mysql::locks::bells(&mut stopped).await.unwrap();
    let now = other.now();
    other.enqueue(now, &prepared(now, &outbox), Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(other.due_outboxes(now, 1).await.unwrap(), [outbox.id]);
    let done = stopped.finish(Ok(())).await;
    assert_eq!(done.unwrap_err().kind(), &ErrorKind::Unavailable);
}
