//! Pages that are copied from the log into the file beside the writer: that it happens before a commit would do it, that the log begins
//! anew, and that a copy which fails is no commit's failure.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use postroom_core::id::BodyId;
use tokio::time::{Instant, sleep};

use super::fixture::{id, open};
use crate::bodies::Bodies;
use crate::clock::Clock;
use crate::error::Result;
use crate::sql::sqlite::script::Log;
use crate::sql::sqlite::store::SqliteStore;

/// The pages after which SQLite copies within a commit.
const OF_SQLITE: i64 = 4096;

/// Writes some 65 pages.
async fn write(store: &SqliteStore) -> Result<()> {
    store.stage(store.now(), BodyId::from_uuid(id()), 0, vec![b'x'; 256 << 10].into()).await
}

async fn log(store: &SqliteStore) -> Log {
    let mut read = store.connections.read("ask").await.unwrap();
    let log = sqlx::query_as("PRAGMA wal_checkpoint(NOOP)").fetch_one(&mut *read).await.unwrap();
    let (_, pages, copied): (i64, i64, i64) = log;
    read.finish(Ok(Log { pages, copied })).await.unwrap()
}

/// Writes until the log is as a test wants it, with a rest for whoever copies, and never as long as SQLite lets it become.
async fn write_until(store: &SqliteStore, is_it: impl Fn(Log) -> bool) -> Log {
    let begun = Instant::now();
    loop {
        write(store).await.unwrap();
        sleep(Duration::from_millis(30)).await;
        let now = log(store).await;
        assert!(now.pages < OF_SQLITE, "{now:?}: the log was left to SQLite");
        if is_it(now) {
            return now;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{now:?}");
    }
}

/// Would miss a checkpoint within a commit, for which whoever writes next waits, and a log that never begins anew.
#[tokio::test]
async fn the_log_is_copied_beside_the_writer_and_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    for _ in 0..3 {
        write_until(&store, |log| log.copied > 1000).await;
        write_until(&store, |log| log.pages < 1000).await;
    }
    store.close().await.unwrap();
}

/// Would miss pages that are lost when a store is closed while they are copied. A connection that is closed a moment later it does not see.
#[tokio::test]
async fn a_store_that_is_closed_while_it_copies_is_whole_and_leaves_no_log() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let (body, content) = (BodyId::from_uuid(id()), Bytes::from(vec![b'x'; 256 << 10]));
    store.stage(store.now(), body, 0, content.clone()).await.unwrap();
    // Behind the 32nd the copy begins.
    for _ in 0..35 {
        write(&store).await.unwrap();
    }
    store.close().await.unwrap();
    assert!(!folder.path().join("faults.db-wal").exists());
    let store = open(folder.path()).await;
    assert_eq!(store.piece(body, 0).await.unwrap(), Some(content));
}

/// Would miss a commit that is reported to have failed, and is done again, because what follows it did.
#[tokio::test]
async fn a_copy_that_fails_is_no_failure_of_a_commit() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    // The connection that asks is open by then.
    log(&store).await;
    let (file, elsewhere): (&Path, _) =
        (&folder.path().join("faults.db"), folder.path().join("elsewhere.db"));
    // Connections that are open go on; another one finds nothing.
    std::fs::rename(file, &elsewhere).unwrap();
    for _ in 0..40 {
        write(&store).await.unwrap();
    }
    let unseen = log(&store).await;
    assert!(unseen.pages > 2048 && unseen.copied == 0, "{unseen:?}");
    std::fs::rename(&elsewhere, file).unwrap();
    write_until(&store, |log| log.copied > 1000).await;
}
