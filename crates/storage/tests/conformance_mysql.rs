//! The store in MariaDB passes the suite, also after it was closed and opened again. Each case has a database of its own, whose
//! character set and collation are those of an old installation, at the server that the variable `POSTROOM_TEST_MYSQL` names; `cargo xtask test` starts one. Without it the cases are skipped.
#![cfg(all(feature = "conformance", feature = "mysql"))]

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};

use postroom_storage::conformance::Subject;
use postroom_storage::sqlx::mysql::MySqlConnection;
use postroom_storage::sqlx::{AssertSqlSafe, Connection, raw_sql};
use postroom_storage::{MySqlOptions, MySqlStore, Store};

/// A new database, as the URL that leads to it; none where there is no server.
async fn database() -> Option<String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static SKIPPED: Once = Once::new();
    let Ok(server) = std::env::var("POSTROOM_TEST_MYSQL") else {
        let text = b"no MariaDB: POSTROOM_TEST_MYSQL is not set, and its conformance cases are skipped\n";
        // Past the capture of tests that pass.
        SKIPPED.call_once(|| drop(std::io::stderr().write_all(text)));
        return None;
    };
    let name = format!("case_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut connection = MySqlConnection::connect(&server).await.expect("the server of the tests");
    let sql = format!("DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name} CHARACTER SET latin1");
    raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect("a new database");
    connection.close().await.expect("a connection that closes");
    let (server, _) = server.rsplit_once('/').expect("a URL that ends with a database");
    Some(format!("{server}/{name}"))
}

async fn subject() -> Option<Subject> {
    let url = database().await?;
    let store = MySqlStore::open(&url).await.expect("a new store");
    let reopened = Box::new(move || {
        let reopened = async move {
            let store = MySqlStore::connect(&url, MySqlOptions::new()).await.expect("the same store");
            Arc::new(store) as Arc<dyn Store>
        };
        Box::pin(reopened) as std::pin::Pin<Box<dyn Future<Output = Arc<dyn Store>> + Send>>
    });
    Some(Subject::new(Arc::new(store)).with_reopen(reopened))
}

postroom_storage::conformance_tests!(subject);
