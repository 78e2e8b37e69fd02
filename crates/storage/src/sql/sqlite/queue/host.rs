//! Submissions within a transaction of the host, on a connection of its own to the store's file.

use std::pin::pin;
use std::task::{Context, Waker};

use bytes::Bytes;
use postroom_core::queue::Prepared;
use postroom_core::time::Timestamp;
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;

use super::intake::put;
use crate::error::{Error, ErrorKind, Result};
use crate::queue::Enqueued;
use crate::sql::sqlite::connection::failed;
use crate::sql::sqlite::schema;
use crate::sql::sqlite::store::SqliteStore;

const STAGE: &str = "submit a mail with the host";

/// Main file, `synchronous`, `foreign_keys`, `journal_mode` of a connection.
const SETTINGS: &str = "SELECT d.file, s.synchronous, f.foreign_keys, j.journal_mode
    FROM pragma_database_list d, pragma_synchronous s, pragma_foreign_keys f, pragma_journal_mode j
    WHERE d.name = 'main'";

fn unfit(why: &'static str) -> Error {
    Error::new(ErrorKind::UnfitConnection { why }, STAGE)
}

/// Refuses a connection on which a commit would not be what the store's own is.
async fn check(store: &SqliteStore, connection: &mut SqliteConnection) -> Result<()> {
    if !connection.is_in_transaction() {
        return Err(unfit("no transaction was begun on it by sqlx"));
    }
    let (file, synchronous, foreign_keys, journal): (Option<String>, i64, i64, String) =
        sqlx::query_as(SETTINGS).fetch_one(&mut *connection).await.map_err(failed(STAGE))?;
    let is_ours = file.is_some_and(|file| {
        let (theirs, ours) = (std::fs::canonicalize(file), std::fs::canonicalize(store.connections.file()));
        matches!((theirs, ours), (Ok(theirs), Ok(ours)) if theirs == ours)
    });
    if !is_ours {
        return Err(unfit("its main database is another file than the store's"));
    }
    if synchronous < 2 || ["off", "memory"].contains(&journal.as_str()) {
        return Err(unfit("its commits may be lost with the power: set `synchronous` to FULL, in WAL mode"));
    }
    if foreign_keys == 0 {
        return Err(unfit("it does not check foreign keys: set `foreign_keys` to ON"));
    }
    schema::check_on(connection).await
}

impl SqliteStore {
    /// Puts a mail into the queue within the host's own transaction: it is there if and when the host commits, and only
    /// then; a rollback leaves nothing. `mail` and `content` come from the engine's `prepare`. What is refused, and what an
    /// idempotency key does, is as for [`crate::QueueIntake::enqueue`].
    ///
    /// `connection` is the host's own, to the store's file: the host's tables stand beside those of postroom, whose names
    /// begin with `postroom_`. It has `foreign_keys` on, `synchronous` FULL or EXTRA (on macOS also `fullfsync`), and a
    /// transaction that was begun through sqlx. `BEGIN IMMEDIATE` is the right one: a deferred transaction that has read
    /// before it writes fails as unavailable when somebody else has written in between. Until it ends nobody else writes to
    /// the file, so prepare the mail before it begins, and keep it short.
    ///
    /// A worker finds the mail by its next look at the queue, or at once when the host rings for it after the commit.
    ///
    /// # Errors
    /// [`ErrorKind::UnfitConnection`] says what is wrong with the connection; [`ErrorKind::Schema`];
    /// [`ErrorKind::StaleDecision`]: prepare the mail again, after the transaction has ended;
    /// [`ErrorKind::IdempotencyConflict`], [`ErrorKind::LimitReached`]. After each of these the transaction is as it was
    /// before the call, and can go on. After [`ErrorKind::Full`] or [`ErrorKind::Unavailable`] roll back: SQLite may have
    /// ended the transaction.
    ///
    /// # Cancel safety
    /// When the future is dropped, the transaction has all of the mail or nothing of it, and can go on.
    pub async fn enqueue_in(
        &self,
        connection: &mut SqliteConnection,
        now: Timestamp,
        mail: &Prepared,
        content: Bytes,
    ) -> Result<Enqueued> {
        check(self, connection).await?;
        let mut savepoint = Savepoint { connection, is_open: true };
        sqlx::query(BEGIN).execute(&mut *savepoint.connection).await.map_err(failed(STAGE))?;
        let enqueued = put(savepoint.connection, now, mail, &content).await?;
        sqlx::query(RELEASE).execute(&mut *savepoint.connection).await.map_err(failed(STAGE))?;
        savepoint.is_open = false;
        Ok(enqueued)
    }
}

const BEGIN: &str = "SAVEPOINT postroom_submit";
const UNDO: &str = "ROLLBACK TO postroom_submit";
const RELEASE: &str = "RELEASE postroom_submit";

/// A part of the host's transaction. Dropped while it is open, it is undone and the rest of the transaction stays.
///
/// This is no savepoint of sqlx: in 0.9.0 one whose beginning is dropped is rolled back twice, which takes the host's
/// transaction with it, and the host's commit succeeds all the same.
struct Savepoint<'a> {
    connection: &'a mut SqliteConnection,
    is_open: bool,
}

impl Drop for Savepoint<'_> {
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
