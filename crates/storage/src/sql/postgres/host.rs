//! The part of a host's transaction that is ours: a savepoint on the host's own connection.

use sqlx::postgres::PgConnection;

use super::connection::say;
use super::failed::code;
use crate::error::{Error, ErrorKind, Result};

/// Refused where no transaction is open. What is read first is undone by nothing that follows; the host's commit is to be on the
/// medium, as the store's own is.
const BEGIN: &str = "SAVEPOINT postroom_host; SET LOCAL synchronous_commit = on";
/// What was set behind the savepoint goes with it.
const UNDO: &str = "ROLLBACK TO SAVEPOINT postroom_host; SET LOCAL synchronous_commit = on";
const RELEASE: &str = "RELEASE SAVEPOINT postroom_host";

/// Begins it.
///
/// A statement that fails takes the host's transaction with it, so nothing is asked before there is a way back. A savepoint that a
/// dropped future leaves open does no harm: what is written, one statement writes.
///
/// # Errors
/// [`ErrorKind::UnfitConnection`] where no transaction is open.
pub(super) async fn begin(connection: &mut PgConnection, stage: &'static str) -> Result<()> {
    say(connection, BEGIN, stage).await.map_err(|error| match code(&error) {
        // no_active_sql_transaction
        Some("25P01") => {
            Error::new(ErrorKind::UnfitConnection { why: "no transaction is open on it" }, stage)
        }
        _ => error,
    })
}

/// Goes back to its beginning, and stays in it.
pub(super) async fn undo(connection: &mut PgConnection, stage: &'static str) -> Result<()> {
    say(connection, UNDO, stage).await
}

/// Leaves it to the host's commit.
pub(super) async fn release(connection: &mut PgConnection, stage: &'static str) -> Result<()> {
    say(connection, RELEASE, stage).await
}
