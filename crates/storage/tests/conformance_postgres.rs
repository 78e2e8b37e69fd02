//! The store in PostgreSQL passes the suite, also after it was closed and opened again. Each case has a schema of its own in the
//! database that the variable `POSTROOM_TEST_POSTGRES` names; `cargo xtask test` starts one. Without it the cases are skipped.
#![cfg(all(feature = "conformance", feature = "postgres"))]

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};

use postroom_storage::conformance::Subject;
use postroom_storage::sqlx::postgres::PgConnection;
use postroom_storage::sqlx::{AssertSqlSafe, Connection, raw_sql};
use postroom_storage::{PgOptions, PgStore, Store};

/// A new schema, as the URL that leads to it; none where there is no server.
async fn schema() -> Option<String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static SKIPPED: Once = Once::new();
    let Ok(server) = std::env::var("POSTROOM_TEST_POSTGRES") else {
        let text =
            b"no PostgreSQL: POSTROOM_TEST_POSTGRES is not set, and its conformance cases are skipped\n";
        // Past the capture of tests that pass.
        SKIPPED.call_once(|| drop(std::io::stderr().write_all(text)));
        return None;
    };
    let name = format!("case_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut connection = PgConnection::connect(&server).await.expect("the server of the tests");
    let sql = format!("DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name}");
    raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect("a new schema");
    connection.close().await.expect("a connection that closes");
    let sign = if server.contains('?') { '&' } else { '?' };
    Some(format!("{server}{sign}options[search_path]={name}"))
}

async fn subject() -> Option<Subject> {
    let url = schema().await?;
    let store = PgStore::open(&url).await.expect("a new store");
    let reopened = Box::new(move || {
        let reopened = async move {
            let store = PgStore::connect(&url, PgOptions::new()).await.expect("the same store");
            Arc::new(store) as Arc<dyn Store>
        };
        Box::pin(reopened) as std::pin::Pin<Box<dyn Future<Output = Arc<dyn Store>> + Send>>
    });
    Some(Subject::new(Arc::new(store)).with_reopen(reopened))
}

postroom_storage::conformance_tests!(subject);
