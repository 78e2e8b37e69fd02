//! The store in an SQLite file passes the suite, also after it was closed and opened again.
#![cfg(all(feature = "conformance", feature = "sqlite"))]

use std::sync::Arc;

use postroom_core::time::Timestamp;
use postroom_storage::conformance::Subject;
use postroom_storage::{Clock, SqliteOptions, SqliteStore, Store};
use tempfile::TempDir;

/// The folder of a store's file, as its clock: it goes when the last handle of the store goes.
struct Folder(TempDir);

impl Clock for Folder {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }
}

async fn subject() -> Subject {
    let folder = Arc::new(Folder(tempfile::tempdir().expect("a folder")));
    let file = format!("sqlite://{}", folder.0.path().join("postroom.db").display());
    let options = SqliteOptions::new().with_clock(folder);
    let store = SqliteStore::open_with(&file, options.clone()).await.expect("a new store");
    Subject::new(Arc::new(store)).with_reopen(Box::new(move || {
        Box::pin(async move {
            let store = SqliteStore::connect(&file, options).await.expect("the same store");
            Arc::new(store) as Arc<dyn Store>
        })
    }))
}

postroom_storage::conformance_tests!(subject);
