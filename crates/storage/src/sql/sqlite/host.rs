//! What is done within a transaction of the host, on a connection of its own to the store's file: which connection is fit for it, and
//! the part of the transaction that is ours.

use std::pin::pin;
use std::task::{Context, Waker};

use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;

use crate::error::{Error, ErrorKind, Result};
use crate::sql::sqlite::connection::failed;
use crate::sql::sqlite::schema;
use crate::sql::sqlite::store::SqliteStore;

/// Main file, `synchronous`, `foreign_keys`, `journal_mode` of a connection.
const SETTINGS: &str = "SELECT d.file, s.synchronous, f.foreign_keys, j.journal_mode
    FROM pragma_database_list d, pragma_synchronous s, pragma_foreign_keys f, pragma_journal_mode j
    WHERE d.name = 'main'";

fn unfit(why: &'static str, stage: &'static str) -> Error {
    Error::new(ErrorKind::UnfitConnection { why }, stage)
}

/// Refuses a connection on which a commit would not be what the store's own is.
async fn check(store: &SqliteStore, connection: &mut SqliteConnection, stage: &'static str) -> Result<()> {
    if !connection.is_in_transaction() {
        return Err(unfit("no transaction was begun on it by sqlx", stage));
    }
    let (file, synchronous, foreign_keys, journal): (Option<String>, i64, i64, String) =
        sqlx::query_as(SETTINGS).fetch_one(&mut *connection).await.map_err(failed(stage))?;
    let is_ours = file.is_some_and(|file| {
        let (theirs, ours) = (std::fs::canonicalize(file), std::fs::canonicalize(store.connections.file()));
        matches!((theirs, ours), (Ok(theirs), Ok(ours)) if theirs == ours)
    });
    if !is_ours {
        return Err(unfit("its main database is another file than the store's", stage));
    }
    if synchronous < 2 || ["off", "memory"].contains(&journal.as_str()) {
        return Err(unfit(
            "its commits may be lost with the power: set `synchronous` to FULL, in WAL mode",
            stage,
        ));
    }
    if foreign_keys == 0 {
        return Err(unfit("it does not check foreign keys: set `foreign_keys` to ON", stage));
    }
    schema::check_on(connection).await
}

const BEGIN: &str = "SAVEPOINT postroom_host";
const UNDO: &str = "ROLLBACK TO postroom_host";
const RELEASE: &str = "RELEASE postroom_host";

/// A part of the host's transaction. Dropped before it is kept, it is undone and the rest of the transaction stays.
///
/// This is no savepoint of sqlx: in 0.9.0 one whose beginning is dropped is rolled back twice, which takes the host's
/// transaction with it, and the host's commit succeeds all the same.
pub(super) struct Part<'a> {
    connection: &'a mut SqliteConnection,
    stage: &'static str,
    is_open: bool,
}

impl<'a> Part<'a> {
    /// Begins it, on a connection that is fit for it.
    ///
    /// # Errors
    /// [`ErrorKind::UnfitConnection`], [`ErrorKind::Schema`].
    pub(super) async fn begin(
        store: &SqliteStore,
        connection: &'a mut SqliteConnection,
        stage: &'static str,
    ) -> Result<Self> {
        check(store, connection, stage).await?;
        let part = Self { connection, stage, is_open: true };
        sqlx::query(BEGIN).execute(&mut *part.connection).await.map_err(failed(stage))?;
        Ok(part)
    }

    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        self.connection
    }

    /// Leaves it to the host's commit.
    pub(super) async fn keep(mut self) -> Result<()> {
        sqlx::query(RELEASE).execute(&mut *self.connection).await.map_err(failed(self.stage))?;
        self.is_open = false;
        Ok(())
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        if self.is_open {
            for sql in [UNDO, RELEASE] {
                // The first poll puts a statement into the connection's queue, behind what was put there before and before
                // whatever the host does next. Where there is no such savepoint any more, the statement changes nothing.
                let statement = pin!(sqlx::query(sql).execute(&mut *self.connection));
                let _ = statement.poll(&mut Context::from_waker(Waker::noop()));
            }
        }
    }
}
