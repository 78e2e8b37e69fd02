//! The embedded migrations and the table that records them. A statement that makes or changes a table commits by itself, so each
//! statement of a migration may run twice, and what has run is recorded after each.

use postroom_core::time::Timestamp;
use sqlx::mysql::MySqlConnection;

use super::connection::{Connections, failed, say};
use super::failed::unavailable;
use crate::error::{Error, ErrorKind, Result};
use crate::sql::migrate::{Migration, pending};

const fn migration(version: i64, name: &'static str, sql: &'static str) -> Migration {
    Migration { version, name, sql }
}

pub(super) const MIGRATIONS: &[Migration] = &[
    migration(1, "registry", include_str!("../../../migrations/mysql/0001_registry.sql")),
    migration(2, "bodies", include_str!("../../../migrations/mysql/0002_bodies.sql")),
    migration(3, "queue", include_str!("../../../migrations/mysql/0003_queue.sql")),
    migration(4, "ledger", include_str!("../../../migrations/mysql/0004_ledger.sql")),
    migration(5, "budgets", include_str!("../../../migrations/mysql/0005_budgets.sql")),
    migration(6, "watches", include_str!("../../../migrations/mysql/0006_watches.sql")),
    migration(7, "received", include_str!("../../../migrations/mysql/0007_received.sql")),
    migration(8, "automatic", include_str!("../../../migrations/mysql/0008_automatic.sql")),
    migration(9, "baseline", include_str!("../../../migrations/mysql/0009_baseline.sql")),
    migration(10, "receiving", include_str!("../../../migrations/mysql/0010_receiving.sql")),
];

/// A long migration is no reason to give up.
const PATIENCE: &str =
    "SET SESSION max_statement_time = 0, innodb_lock_wait_timeout = 600, lock_wait_timeout = 600";

/// Whoever migrates a database has it to himself, until he lets go or his connection is gone.
const LOCK: &str = "SELECT GET_LOCK(CONCAT('postroom/migrate/', SHA1(DATABASE())), 600)";

const UNLOCK: &str = "SELECT RELEASE_LOCK(CONCAT('postroom/migrate/', SHA1(DATABASE())))";

const TABLE: &str = "CREATE TABLE IF NOT EXISTS postroom_migration (
    version BIGINT NOT NULL PRIMARY KEY,
    name VARCHAR(50) NOT NULL,
    -- SHA-256 of its SQL.
    checksum BINARY(32) NOT NULL,
    -- How many of its statements ran.
    steps BIGINT NOT NULL,
    -- Null until all of them did.
    applied_at BIGINT
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin";

const APPLIED: &str =
    "SELECT version, checksum FROM postroom_migration WHERE applied_at IS NOT NULL ORDER BY version";

const BEGUN: &str = "SELECT checksum, steps FROM postroom_migration WHERE version = ?";

const RECORD: &str =
    "INSERT INTO postroom_migration (version, name, checksum, steps, applied_at) VALUES (?, ?, ?, ?, ?)
    ON DUPLICATE KEY UPDATE steps = VALUES(steps), applied_at = VALUES(applied_at)";

const STAGE: &str = "migrate the schema";

const CHECK: &str = "check the schema";

/// Brings the schema to that of the `known` migrations, statement by statement with a record of each, so that an interrupted run goes
/// on where it stopped and two runs at once do no harm. Gives how many migrations ran.
///
/// # Errors
/// [`ErrorKind::Schema`] when a newer or another release made the schema, or began to.
pub(super) async fn migrate(connections: &Connections, known: &[Migration], now: Timestamp) -> Result<u64> {
    let mut guard = connections.read(STAGE).await?;
    let connection: &mut MySqlConnection = &mut guard;
    say(connection, PATIENCE, STAGE).await?;
    let locked = sqlx::query_as(LOCK).fetch_one(&mut *connection).await.map_err(failed(STAGE))?;
    // Neither unlocked nor given back where it fails: the lock goes with the connection.
    let (Some(1),): (Option<i64>,) = locked else { return Err(unavailable(STAGE)) };
    say(connection, TABLE, STAGE).await?;
    let applied = sqlx::query_as(APPLIED).fetch_all(&mut *connection).await;
    let applied: Vec<(i64, Vec<u8>)> = applied.map_err(failed(STAGE))?;
    let mut ran = 0;
    for next in pending(known, &applied)? {
        run(connection, next, now).await?;
        ran += 1;
    }
    sqlx::query(UNLOCK).execute(connection).await.map_err(failed(STAGE))?;
    // Its session is a patient one: it is not given back.
    drop(guard);
    Ok(ran)
}

/// Runs what is left of a migration.
async fn run(connection: &mut MySqlConnection, next: &Migration, now: Timestamp) -> Result<()> {
    let begun = sqlx::query_as(BEGUN).bind(next.version).fetch_optional(&mut *connection).await;
    let begun: Option<(Vec<u8>, i64)> = begun.map_err(failed(STAGE))?;
    let done = match begun {
        Some((checksum, _)) if checksum != next.checksum() => {
            return Err(Error::new(ErrorKind::Schema, STAGE));
        }
        Some((_, steps)) => steps,
        None => 0,
    };
    let statements: Vec<&'static str> = statements(next.sql).collect();
    let all = i64::try_from(statements.len()).unwrap_or(i64::MAX);
    for (step, sql) in (1i64..).zip(statements).filter(|(step, _)| *step > done) {
        say(connection, sql, STAGE).await?;
        record(connection, next, step, (step == all).then_some(now)).await?;
    }
    // It was interrupted behind its last statement.
    if done >= all { record(connection, next, all, Some(now)).await } else { Ok(()) }
}

async fn record(
    connection: &mut MySqlConnection,
    migration: &Migration,
    steps: i64,
    at: Option<Timestamp>,
) -> Result<()> {
    let query = sqlx::query(RECORD).bind(migration.version).bind(migration.name).bind(migration.checksum());
    let query = query.bind(steps).bind(at.map(Timestamp::as_millis));
    query.execute(connection).await.map(drop).map_err(failed(STAGE))
}

/// The statements of a migration: each ends with a semicolon at the end of its line.
fn statements(sql: &'static str) -> impl Iterator<Item = &'static str> {
    let is_statement = |text: &&str| text.lines().any(|line| !line.is_empty() && !line.starts_with("--"));
    sql.split(";\n").map(str::trim).filter(is_statement)
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

/// Checks that the schema of a connection's database is this release's.
///
/// # Errors
/// [`ErrorKind::Schema`].
pub(super) async fn check_on(connection: &mut MySqlConnection) -> Result<()> {
    let applied: Vec<(i64, Vec<u8>)> =
        sqlx::query_as(APPLIED).fetch_all(connection).await.map_err(failed(CHECK))?;
    if pending(MIGRATIONS, &applied)?.is_empty() { Ok(()) } else { Err(Error::new(ErrorKind::Schema, CHECK)) }
}
