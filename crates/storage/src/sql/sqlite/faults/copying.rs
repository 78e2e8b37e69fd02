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
use crate::sql::sqlite::script::{Log, Script};
use crate::sql::sqlite::store::SqliteStore;

/// How many pages the log has at most before it is copied: from 2048 on by the first commit, or the second where the last copy was not
/// looked at. SQLite itself does it from 4096.
const OF_COPIER: i64 = 2200;

/// Writes some 65 pages.
async fn write(store: &SqliteStore) -> Result<()> {
    store.stage(store.now(), BodyId::from_uuid(id()), 0, vec![b'x'; 256 << 10].into()).await
}

async fn log(store: &SqliteStore) -> Log {
    let mut read = store.connections.read("ask").await.unwrap();
    let mut script = Script::default();
    script.then("PRAGMA wal_checkpoint(NOOP)");
    let log = script.log(&mut read, "ask").await;
    read.finish(log).await.unwrap()
}

/// Writes until the log is as a test wants it, and never until SQLite copies it within a commit: whoever copies is waited for.
async fn write_until(store: &SqliteStore, is_it: impl Fn(Log) -> bool) {
    for _ in 0..1000 {
        write(store).await.unwrap();
        let begun = Instant::now();
        let mut now = log(store).await;
        while now.pages >= OF_COPIER && now.copied == 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{now:?}: nobody copies");
            sleep(Duration::from_millis(10)).await;
            now = log(store).await;
        }
        if is_it(now) {
            return;
        }
    }
    panic!("{:?}", log(store).await);
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
    assert!(unseen.pages > OF_COPIER && unseen.copied == 0, "{unseen:?}");
    std::fs::rename(&elsewhere, file).unwrap();
    write_until(&store, |log| log.copied > 1000).await;
}
