//! The part of a host's transaction that is ours: a savepoint on the host's own connection, and what its session has to be like.

use sqlx::mysql::MySqlConnection;

use super::connection::{FORGETFUL, failed, say};
use super::schema;
use crate::error::{Error, ErrorKind, Result};

/// What the host's session has to be like. What sets a level for one transaction alone is not seen here.
const FITNESS: &str =
    "SELECT CAST(@@in_transaction AS SIGNED) = 1 OR @@autocommit = 0, @@tx_isolation = 'READ-COMMITTED',
    @@sql_mode LIKE '%STRICT_%' AND @@sql_mode NOT LIKE '%ANSI_QUOTES%' AND @@foreign_key_checks = 1,
    @@character_set_client = 'utf8mb4' AND @@character_set_connection = 'utf8mb4',
    @@GLOBAL.innodb_flush_log_at_trx_commit IN (1, 3) AND (@@GLOBAL.log_bin = 0 OR @@GLOBAL.sync_binlog = 1)";

const UNFIT: [&str; 5] = [
    "no transaction is open on it",
    "it is not at READ COMMITTED: SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED before the transaction begins",
    "its sql_mode is not strict, or its foreign keys are not checked: SET SESSION sql_mode = 'STRICT_ALL_TABLES'",
    "its character set is not utf8mb4: SET NAMES utf8mb4",
    FORGETFUL,
];

const BEGIN: &str = "SAVEPOINT postroom_host";
const UNDO: &str = "ROLLBACK TO SAVEPOINT postroom_host";
const RELEASE: &str = "RELEASE SAVEPOINT postroom_host";

/// Begins it, on a connection that is fit for it.
///
/// # Errors
/// [`ErrorKind::UnfitConnection`], [`ErrorKind::Schema`].
pub(super) async fn begin(connection: &mut MySqlConnection, stage: &'static str) -> Result<()> {
    let row = sqlx::query_as(FITNESS).fetch_one(&mut *connection).await.map_err(failed(stage))?;
    let (begun, level, mode, letters, synced): (bool, bool, bool, bool, bool) = row;
    let fit = [begun, level, mode, letters, synced];
    if let Some((_, why)) = fit.into_iter().zip(UNFIT).find(|(fit, _)| !fit) {
        return Err(Error::new(ErrorKind::UnfitConnection { why }, stage));
    }
    schema::check_on(connection).await?;
    say(connection, BEGIN, stage).await
}

/// Goes back to its beginning, and stays in it.
pub(super) async fn undo(connection: &mut MySqlConnection, stage: &'static str) -> Result<()> {
    say(connection, UNDO, stage).await
}

/// Goes back to its beginning because of an error. Gives the error that the host is to get.
pub(super) async fn undone(connection: &mut MySqlConnection, error: Error, stage: &'static str) -> Error {
    // After a deadlock there is nothing to go back to.
    match undo(connection, stage).await {
        Ok(()) => error,
        Err(_) => Error::new(ErrorKind::Unavailable, stage).with_source(error),
    }
}

/// Leaves it to the host's commit.
pub(super) async fn release(connection: &mut MySqlConnection, stage: &'static str) -> Result<()> {
    say(connection, RELEASE, stage).await
}
