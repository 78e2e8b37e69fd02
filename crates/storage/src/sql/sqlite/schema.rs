//! The embedded migrations and the table that records them.

use postroom_core::time::Timestamp;
use sqlx::sqlite::SqliteConnection;

use super::connection::{Connections, failed};
use crate::error::{Error, ErrorKind, Result};
use crate::sql::migrate::{Migration, pending};

const fn migration(version: i64, name: &'static str, sql: &'static str) -> Migration {
    Migration { version, name, sql }
}

pub(super) const MIGRATIONS: &[Migration] = &[
    migration(1, "registry", include_str!("../../../migrations/sqlite/0001_registry.sql")),
    migration(2, "bodies", include_str!("../../../migrations/sqlite/0002_bodies.sql")),
    migration(3, "queue", include_str!("../../../migrations/sqlite/0003_queue.sql")),
    migration(4, "ledger", include_str!("../../../migrations/sqlite/0004_ledger.sql")),
    migration(5, "budgets", include_str!("../../../migrations/sqlite/0005_budgets.sql")),
    migration(6, "watches", include_str!("../../../migrations/sqlite/0006_watches.sql")),
    migration(7, "received", include_str!("../../../migrations/sqlite/0007_received.sql")),
    migration(8, "automatic", include_str!("../../../migrations/sqlite/0008_automatic.sql")),
    migration(9, "baseline", include_str!("../../../migrations/sqlite/0009_baseline.sql")),
    migration(10, "receiving", include_str!("../../../migrations/sqlite/0010_receiving.sql")),
];

const TABLE: &str = "CREATE TABLE IF NOT EXISTS postroom_migration (
    version INTEGER NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    -- SHA-256 of its SQL.
    checksum BLOB NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT";

const APPLIED: &str = "SELECT version, checksum FROM main.postroom_migration ORDER BY version";

const CHECK: &str = "check the schema";

/// Brings the schema to that of the `known` migrations, each migration in a transaction of its own with its record, so that an
/// interrupted run goes on where it stopped and two runs at once do no harm. Gives how many ran.
///
/// # Errors
/// [`ErrorKind::Schema`] when a newer or another release made the schema.
pub(super) async fn migrate(connections: &Connections, known: &[Migration], now: Timestamp) -> Result<u64> {
    const STAGE: &str = "migrate the schema";
    let mut ran = 0;
    loop {
        let mut tx = connections.write(STAGE).await?;
        let step = async {
            sqlx::query(TABLE).execute(&mut *tx).await.map_err(failed(STAGE))?;
            let applied: Vec<(i64, Vec<u8>)> =
                sqlx::query_as(APPLIED).fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
            let Some(next) = pending(known, &applied)?.first() else { return Ok(false) };
            sqlx::raw_sql(next.sql).execute(&mut *tx).await.map_err(failed(STAGE))?;
            sqlx::query(
                "INSERT INTO postroom_migration (version, name, checksum, applied_at) VALUES (?, ?, ?, ?)",
            )
            .bind(next.version)
            .bind(next.name)
            .bind(next.checksum())
            .bind(now.as_millis())
            .execute(&mut *tx)
            .await
            .map_err(failed(STAGE))?;
            Ok(true)
        };
        let step = step.await;
        if !tx.finish(step).await? {
            return Ok(ran);
        }
        ran += 1;
    }
}

/// Checks that the schema is this release's.
///
/// # Errors
/// [`ErrorKind::Schema`].
pub(super) async fn check(connections: &Connections) -> Result<()> {
    let mut read = connections.read(CHECK).await?;
    let checked = check_on(&mut read).await;
    read.finish(checked).await
}

/// Checks that the main database of a connection has this release's schema.
///
/// # Errors
/// [`ErrorKind::Schema`].
pub(super) async fn check_on(connection: &mut SqliteConnection) -> Result<()> {
    let applied: Vec<(i64, Vec<u8>)> =
        sqlx::query_as(APPLIED).fetch_all(connection).await.map_err(failed(CHECK))?;
    if pending(MIGRATIONS, &applied)?.is_empty() { Ok(()) } else { Err(Error::new(ErrorKind::Schema, CHECK)) }
}
