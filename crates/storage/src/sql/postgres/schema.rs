//! The embedded migrations and the table that records them.

use postroom_core::time::Timestamp;
use sqlx::postgres::PgConnection;

use super::connection::{Connections, failed, say, write};
use crate::error::{Error, ErrorKind, Result};
use crate::sql::migrate::{Migration, pending};

const fn migration(version: i64, name: &'static str, sql: &'static str) -> Migration {
    Migration { version, name, sql }
}

pub(super) const MIGRATIONS: &[Migration] = &[
    migration(1, "registry", include_str!("../../../migrations/postgres/0001_registry.sql")),
    migration(2, "bodies", include_str!("../../../migrations/postgres/0002_bodies.sql")),
    migration(3, "queue", include_str!("../../../migrations/postgres/0003_queue.sql")),
    migration(4, "ledger", include_str!("../../../migrations/postgres/0004_ledger.sql")),
    migration(5, "budgets", include_str!("../../../migrations/postgres/0005_budgets.sql")),
    migration(6, "watches", include_str!("../../../migrations/postgres/0006_watches.sql")),
    migration(7, "received", include_str!("../../../migrations/postgres/0007_received.sql")),
    migration(8, "automatic", include_str!("../../../migrations/postgres/0008_automatic.sql")),
    migration(9, "baseline", include_str!("../../../migrations/postgres/0009_baseline.sql")),
    migration(10, "receiving", include_str!("../../../migrations/postgres/0010_receiving.sql")),
];

/// Whoever migrates a schema has it to himself. The lock is taken by a statement of its own: what comes after it sees what the
/// one before has committed. A long migration is no reason to give up.
const LOCK: &str = "SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0;
    SELECT pg_advisory_xact_lock(hashtextextended('postroom/migrate/' || current_schema(), 0))";

const TABLE: &str = "CREATE TABLE IF NOT EXISTS postroom_migration (
    version bigint NOT NULL PRIMARY KEY,
    name text COLLATE \"C\" NOT NULL,
    -- SHA-256 of its SQL.
    checksum bytea NOT NULL,
    applied_at bigint NOT NULL
)";

const APPLIED: &str = "SELECT version, checksum FROM postroom_migration ORDER BY version";

const RECORD: &str =
    "INSERT INTO postroom_migration (version, name, checksum, applied_at) VALUES ($1, $2, $3, $4)";

const STAGE: &str = "migrate the schema";

const CHECK: &str = "check the schema";

/// Brings the schema to that of the `known` migrations, each migration in a transaction of its own with its record, so that an
/// interrupted run goes on where it stopped and two runs at once do no harm. Gives how many ran.
///
/// # Errors
/// [`ErrorKind::Schema`] when a newer or another release made the schema, or the search path names none that is there.
pub(super) async fn migrate(connections: &Connections, known: &[Migration], now: Timestamp) -> Result<u64> {
    let mut ran = 0;
    while write!(connections, STAGE, |tx| step(tx, known, now).await)? {
        ran += 1;
    }
    Ok(ran)
}

/// Runs the next migration, if there is one.
async fn step(tx: &mut PgConnection, known: &[Migration], now: Timestamp) -> Result<bool> {
    let schema = sqlx::query_as("SELECT current_schema()::text").fetch_one(&mut *tx).await;
    let (schema,): (Option<String>,) = schema.map_err(failed(STAGE))?;
    schema.ok_or_else(|| Error::new(ErrorKind::Schema, STAGE))?;
    say(tx, LOCK, STAGE).await?;
    say(tx, TABLE, STAGE).await?;
    let applied = sqlx::query_as(APPLIED).fetch_all(&mut *tx).await;
    let applied: Vec<(i64, Vec<u8>)> = applied.map_err(failed(STAGE))?;
    let Some(next) = pending(known, &applied)?.first() else { return Ok(false) };
    say(tx, next.sql, STAGE).await?;
    let record = sqlx::query(RECORD).bind(next.version).bind(next.name).bind(next.checksum());
    record.bind(now.as_millis()).execute(&mut *tx).await.map_err(failed(STAGE))?;
    Ok(true)
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

/// Checks that a connection's search path leads to this release's schema.
///
/// # Errors
/// [`ErrorKind::Schema`].
pub(super) async fn check_on(connection: &mut PgConnection) -> Result<()> {
    let applied: Vec<(i64, Vec<u8>)> =
        sqlx::query_as(APPLIED).fetch_all(connection).await.map_err(failed(CHECK))?;
    if pending(MIGRATIONS, &applied)?.is_empty() { Ok(()) } else { Err(Error::new(ErrorKind::Schema, CHECK)) }
}
