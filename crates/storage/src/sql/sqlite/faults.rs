//! What only a store on a medium can get wrong: dropped futures, a full disk, a killed process, two processes, a schema of
//! another release. What every store has to keep is in the conformance suite.

mod completion;
mod copying;
mod fixture;
mod hosts;
mod joined;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use postroom_core::id::{MailboxId, QueueId, WorkerId};

use self::fixture::{Drops, accepted, check_whole, id, number, open, prepared, registered};
use super::connection::failed;
use super::schema;
use super::store::{SqliteOptions, SqliteStore};
use crate::clock::Clock;
use crate::error::ErrorKind;
use crate::queue::{ClaimMark, QueueIntake, QueueWork};
use crate::registry::Mailboxes;
use crate::sql::migrate::Migration;

#[tokio::test]
async fn every_commit_is_synced_and_readers_can_not_write() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let mut tx = store.connections.write("ask").await.unwrap();
    for (pragma, want) in [("synchronous", 2), ("foreign_keys", 1), ("trusted_schema", 0), ("query_only", 0)]
    {
        let sql = sqlx::AssertSqlSafe(format!("PRAGMA {pragma}"));
        let (value,): (i64,) = sqlx::query_as(sql).fetch_one(&mut *tx).await.unwrap();
        assert_eq!(value, want, "{pragma}");
    }
    let (mode,): (String,) = sqlx::query_as("PRAGMA journal_mode").fetch_one(&mut *tx).await.unwrap();
    assert_eq!(mode, "wal");
    tx.finish(Ok(())).await.unwrap();
    assert_eq!(number(&store, "PRAGMA query_only").await, 1);
    // In KiB: what four readers keep is not four times what the writer keeps.
    assert_eq!(number(&store, "PRAGMA cache_size").await, -4096);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_future_leaves_all_of_a_transaction_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let outbox = registered(&store).await;
    let (mut submits, mut claims, mut settles) = (Drops::default(), Drops::default(), Drops::default());
    for _ in 0..200 {
        let now = store.now();
        let mail = prepared(now, &outbox);
        let enqueue = store.enqueue(now, &mail, Bytes::from_static(b"x"));
        submits.drop_in(enqueue).await.map(Result::unwrap);
        let (worker, until) = (WorkerId::from_uuid(id()), now + Duration::from_secs(30));
        let claim = store.claim(now, outbox.id, 3, worker, until);
        if let Some(claimed) = claims.drop_in(claim).await {
            let settled: Vec<_> = claimed.unwrap().iter().map(|one| accepted(one, now)).collect();
            let marks: Vec<_> =
                settled.iter().map(|one| ClaimMark { id: one.id, claim: one.claim }).collect();
            store.mark(now, &marks).await.unwrap();
            settles.drop_in(store.settle(now, &settled)).await.map(Result::unwrap);
        }
        // Whoever comes next finds no transaction open.
        check_whole(&store).await;
    }
    submits.check(10);
    claims.check(10);
    settles.check(5);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stores_on_one_file_claim_each_mail_once() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(folder.path()).await, open(folder.path()).await);
    let outbox = registered(&one).await;
    for turn in 0..120 {
        let (store, now) = (if turn % 2 == 0 { &one } else { &other }, one.now());
        store.enqueue(now, &prepared(now, &outbox), Bytes::from_static(b"x")).await.unwrap();
    }
    let now = one.now() + Duration::from_secs(1);
    let work = |store: SqliteStore, outbox: MailboxId| async move {
        let mut ids = Vec::new();
        loop {
            let worker = WorkerId::from_uuid(id());
            let claimed = store.claim(now, outbox, 7, worker, now + Duration::from_secs(30)).await.unwrap();
            if claimed.is_empty() {
                return ids;
            }
            assert!(claimed.len() <= 7);
            ids.extend(claimed.iter().map(|one| one.id));
        }
    };
    let (a, b, c, d) = tokio::join!(
        work(one.clone(), outbox.id),
        work(other.clone(), outbox.id),
        work(one.clone(), outbox.id),
        work(other.clone(), outbox.id)
    );
    let all = [a, b, c, d].concat();
    assert_eq!(all.len(), 120);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 120);
    assert_eq!(other.open_claims().await.unwrap(), 120);
}

#[tokio::test]
async fn a_row_that_can_not_be_read_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let outbox = registered(&store).await;
    let now = store.now();
    let (poison, good) = (prepared(now, &outbox), prepared(now, &outbox));
    store.enqueue(now, &poison, Bytes::from_static(b"poison")).await.unwrap();
    let mut write = store.connections.write("damage a row").await.unwrap();
    let damage = "UPDATE postroom_queue_recipient SET address = 'no address'";
    let damaged = sqlx::query(damage).execute(&mut *write).await.map(|_| ()).map_err(failed("damage a row"));
    write.finish(damaged).await.unwrap();
    store.enqueue(now, &good, Bytes::from_static(b"good")).await.unwrap();
    let worker = WorkerId::from_uuid(id());
    let claimed = store.claim(now, outbox.id, 10, worker, now + Duration::from_secs(30)).await.unwrap();
    // Would miss a claim that fails as a whole, for ever.
    assert_eq!(claimed.iter().map(|mail| mail.id).collect::<Vec<_>>(), [good.id]);
    assert_eq!(number(&store, "SELECT count(*) FROM postroom_queue_mail WHERE state = 'dead'").await, 1);
    assert_eq!(number(&store, "SELECT count(*) FROM postroom_queue_open").await, 1);
}

#[tokio::test]
async fn a_full_disk_is_reported_and_the_store_goes_on_when_there_is_space_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let outbox = registered(&store).await;
    let now = store.now();
    let big = Bytes::from(vec![b'x'; 600_000]);
    let mut tx = store.connections.write("fill the disk").await.unwrap();
    let limit = "PRAGMA max_page_count = 1";
    sqlx::query(limit).execute(&mut *tx).await.unwrap();
    tx.finish(Ok(())).await.unwrap();
    let error = store.enqueue(now, &prepared(now, &outbox), big.clone()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Full, "{error:?}");
    assert_eq!(number(&store, "SELECT count(*) FROM postroom_body_piece").await, 0);
    let mut tx = store.connections.write("make space").await.unwrap();
    sqlx::query("PRAGMA max_page_count = 1000000").execute(&mut *tx).await.unwrap();
    tx.finish(Ok(())).await.unwrap();
    store.enqueue(now, &prepared(now, &outbox), big).await.unwrap();
    check_whole(&store).await;
}

#[tokio::test]
async fn another_schema_is_refused_and_an_interrupted_migration_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("faults.db").display().to_string();
    let kind = |result: crate::error::Result<SqliteStore>| result.unwrap_err().kind().clone();
    let missing = SqliteStore::connect(&file, SqliteOptions::new()).await;
    assert_eq!(kind(missing), ErrorKind::Unavailable);
    let store = open(folder.path()).await;
    let mut tx = store.connections.write("interrupt").await.unwrap();
    for sql in [
        "ALTER TABLE postroom_ledger_mail DROP COLUMN kept",
        "DELETE FROM postroom_migration WHERE version = 10",
    ] {
        sqlx::query(sql).execute(&mut *tx).await.unwrap();
    }
    tx.finish(Ok(())).await.unwrap();
    assert_eq!(kind(SqliteStore::connect(&file, SqliteOptions::new()).await), ErrorKind::Schema);
    assert_eq!(SqliteStore::migrate(&file).await.unwrap(), 1);
    assert_eq!(SqliteStore::migrate(&file).await.unwrap(), 0);
    SqliteStore::connect(&file, SqliteOptions::new()).await.unwrap();
    let mut tx = store.connections.write("a newer release").await.unwrap();
    let sql = "INSERT INTO postroom_migration SELECT 99, name, checksum, 0 FROM postroom_migration WHERE version = 1";
    sqlx::query(sql).execute(&mut *tx).await.unwrap();
    tx.finish(Ok(())).await.unwrap();
    assert_eq!(kind(SqliteStore::connect(&file, SqliteOptions::new()).await), ErrorKind::Schema);
    assert_eq!(kind(SqliteStore::open(&file).await), ErrorKind::Schema);
}

/// Two releases at work on one schema: a newer one adds a column and an index while this one has statements prepared. What runs goes on;
/// what starts is refused with a reason. Would miss a migration that changes what is there: such a one is not made, and no test here can
/// know it.
#[tokio::test(flavor = "multi_thread")]
async fn a_release_at_work_goes_on_beside_a_newer_one_and_is_not_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let (store, newer) = (open(folder.path()).await, open(folder.path()).await);
    let outbox = registered(&store).await;
    let now = store.now();
    store.enqueue(now, &prepared(now, &outbox), Bytes::from_static(b"before")).await.unwrap();
    let next = Migration {
        version: schema::MIGRATIONS.last().unwrap().version + 1,
        name: "next",
        sql: "ALTER TABLE postroom_queue_mail ADD COLUMN next_release INTEGER;\n\
            CREATE INDEX postroom_next_release ON postroom_queue_mail (next_release);\n",
    };
    let known = [schema::MIGRATIONS, &[next]].concat();
    assert_eq!(schema::migrate(&newer.connections, &known, now).await.unwrap(), 1);
    store.enqueue(now, &prepared(now, &outbox), Bytes::from_static(b"after")).await.unwrap();
    let worker = WorkerId::from_uuid(id());
    let claimed = store.claim(now, outbox.id, 5, worker, now + Duration::from_secs(30)).await.unwrap();
    let marks: Vec<_> = claimed.iter().map(|one| ClaimMark { id: one.id, claim: one.claim }).collect();
    assert_eq!(store.mark(now, &marks).await.unwrap(), [true, true]);
    let settled: Vec<_> = claimed.iter().map(|one| accepted(one, now)).collect();
    store.settle(now, &settled).await.unwrap();
    check_whole(&store).await;
    for started in [
        SqliteStore::connect(&folder.path().join("faults.db").display().to_string(), SqliteOptions::new())
            .await,
        SqliteStore::open(&folder.path().join("faults.db").display().to_string()).await,
    ] {
        let refused = started.unwrap_err();
        assert_eq!(refused.kind(), &ErrorKind::Schema);
        assert!(refused.to_string().contains("newer release"), "{refused}");
    }
    assert_eq!(schema::migrate(&newer.connections, &known, now).await.unwrap(), 0);
}

#[tokio::test]
async fn two_openings_of_a_new_file_migrate_it_once() {
    let ran = i64::try_from(schema::MIGRATIONS.len()).unwrap();
    // Of one moment in many the first of all locks is asked for by both.
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = tokio::join!(open(folder.path()), open(folder.path()));
        for store in [one, other] {
            assert_eq!(number(&store, "SELECT count(*) FROM postroom_migration").await, ran);
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    registered(&store).await;
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap).collect();
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
}

#[tokio::test]
async fn a_closed_store_refuses_to_work() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let clone = store.clone();
    store.reserve().await.unwrap();
    store.close().await.unwrap();
    assert_eq!(clone.reserve().await.unwrap_err().kind(), &ErrorKind::Unavailable);
    assert_eq!(clone.open_claims().await.unwrap_err().kind(), &ErrorKind::Unavailable);
    // SQLite removes its log when the last connection closes: nothing is left open.
    assert!(!folder.path().join("faults.db-wal").exists());
}

#[tokio::test]
async fn a_location_that_is_no_file_is_refused() {
    for location in
        ["", "sqlite://", "sqlite://:memory:", "postgres://localhost/postroom", "/nowhere/at/all.db"]
    {
        let error = SqliteStore::open(location).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Unavailable, "{location}");
    }
}

const CHILD: &str = "POSTROOM_FAULTS_CHILD";

/// Works until it is killed, when [`a_killed_process_leaves_whole_mails_and_none_that_it_reported_is_lost`] starts it;
/// otherwise it has nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let store = open(Path::new(&folder)).await;
    let outbox = registered(&store).await;
    loop {
        let now = store.now();
        let mail = prepared(now, &outbox);
        store.enqueue(now, &mail, Bytes::from(vec![b'x'; 300_000])).await.unwrap();
        println!("submitted {}", mail.id);
        let (worker, until) = (WorkerId::from_uuid(id()), now + Duration::from_secs(30));
        let claimed = store.claim(now, outbox.id, 1, worker, until).await.unwrap();
        let settled: Vec<_> = claimed.iter().map(|one| accepted(one, now)).collect();
        let marks: Vec<_> = settled.iter().map(|one| ClaimMark { id: one.id, claim: one.claim }).collect();
        assert_eq!(store.mark(now, &marks).await.unwrap(), vec![true; marks.len()]);
        store.settle(now, &settled).await.unwrap();
        settled.iter().for_each(|one| println!("accepted {}", one.id));
    }
}

/// Kills at random moments. It kills the process, not the machine: that the medium has what was synced is SQLite's promise.
#[tokio::test]
async fn a_killed_process_leaves_whole_mails_and_none_that_it_reported_is_lost() {
    let mut reported = 0;
    for round in 0u64..6 {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sql::sqlite::faults::child", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut seen: Vec<String> = lines.by_ref().take(8).collect();
        std::thread::sleep(Duration::from_micros(round * 1_700));
        child.kill().unwrap();
        child.wait().unwrap();
        seen.extend(lines);
        let store = open(folder.path()).await;
        check_whole(&store).await;
        for line in &seen {
            let Some((what, id)) = line.split_once(' ') else { continue };
            let Ok(id) = QueueId::parse(id) else { continue };
            let record = crate::queue::QueueDesk::show(&store, id).await.unwrap().expect("a reported mail");
            let is_accepted = record.item.state == postroom_core::queue::State::Accepted;
            assert!(what != "accepted" || is_accepted, "{line}: {:?}", record.item.state);
            reported += 1;
        }
    }
    assert!(reported > 12, "{reported} reports: the child did no work");
}
