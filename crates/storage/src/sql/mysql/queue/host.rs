//! Submissions within a transaction of the host, on a connection of its own to the store's database.

use bytes::Bytes;
use postroom_core::queue::Prepared;
use postroom_core::time::Timestamp;
use sqlx::mysql::MySqlConnection;

use super::insert::insert_with_host;
use super::intake::{decide, is_repeated};
use crate::error::{Error, ErrorKind, Result};
use crate::queue::Enqueued;
use crate::sql::mysql::connection::{FORGETFUL, TRIES, failed, say};
use crate::sql::mysql::schema;
use crate::sql::mysql::store::MySqlStore;
use crate::sql::rows::unreadable;

const STAGE: &str = "submit a mail with the host";

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

const BEGIN: &str = "SAVEPOINT postroom_submit";
const UNDO: &str = "ROLLBACK TO SAVEPOINT postroom_submit";
const RELEASE: &str = "RELEASE SAVEPOINT postroom_submit";

impl MySqlStore {
    /// Puts a mail into the queue within the host's own transaction: it is there if and when the host commits, and only
    /// then; a rollback leaves nothing. `mail` and `content` come from the engine's `prepare`. What is refused, and what an
    /// idempotency key does, is as for [`crate::QueueIntake::enqueue`].
    ///
    /// `connection` is the host's own, in the store's database, with a transaction open on it: the host's tables stand beside those of
    /// postroom, whose names begin with `postroom_`, and are InnoDB's, too. Its session is at READ COMMITTED, which is not MariaDB's
    /// default (`SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED`): at a higher level what was committed since the transaction
    /// began is not seen, and gaps between rows are locked. It is strict, and speaks utf8mb4, as is the default.
    ///
    /// Until the transaction ends, the outbox, contract and step that the mail was decided by can't be changed, nor the standard outbox,
    /// and the contract can't be paused; others submit and send meanwhile, but for a contract with limits, whose submissions wait for each
    /// other, and for one with the same idempotency key. So keep the transaction short.
    ///
    /// A worker finds the mail by its next look at the queue, or at once when the host rings for it after the commit.
    ///
    /// # Errors
    /// [`ErrorKind::UnfitConnection`] when no transaction is open, or the session is not as said above; [`ErrorKind::Schema`];
    /// [`ErrorKind::StaleDecision`]: prepare the mail again, after the transaction has ended; [`ErrorKind::IdempotencyConflict`],
    /// [`ErrorKind::LimitReached`]. After each of these the transaction is as it was before the call, and can go on. After
    /// [`ErrorKind::Full`] or [`ErrorKind::Unavailable`] roll back: after a deadlock MariaDB has done so already, and what is written next
    /// would be in no transaction.
    ///
    /// # Cancel safety
    /// When the future is dropped, the transaction has all of the mail or nothing of it. The connection can't go on: its driver may have
    /// read half an answer. Close it, which rolls back.
    pub async fn enqueue_in(
        &self,
        connection: &mut MySqlConnection,
        now: Timestamp,
        mail: &Prepared,
        content: Bytes,
    ) -> Result<Enqueued> {
        let row = sqlx::query_as(FITNESS).fetch_one(&mut *connection).await.map_err(failed(STAGE))?;
        let (begun, level, mode, letters, synced): (bool, bool, bool, bool, bool) = row;
        let fit = [begun, level, mode, letters, synced];
        if let Some((_, why)) = fit.into_iter().zip(UNFIT).find(|(fit, _)| !fit) {
            return Err(Error::new(ErrorKind::UnfitConnection { why }, STAGE));
        }
        schema::check_on(connection).await?;
        say(connection, BEGIN, STAGE).await?;
        let mut done = submit(connection, now, mail, &content).await;
        for _ in 0..TRIES {
            if !is_repeated(&done) {
                break;
            }
            say(connection, UNDO, STAGE).await?;
            done = submit(connection, now, mail, &content).await;
        }
        if let Err(error) = done {
            // After a deadlock there is nothing to go back to.
            let undone = say(connection, UNDO, STAGE).await;
            return Err(if undone.is_ok() {
                error
            } else {
                Error::new(ErrorKind::Unavailable, STAGE).with_source(error)
            });
        }
        say(connection, RELEASE, STAGE).await?;
        done
    }
}

async fn submit(
    connection: &mut MySqlConnection,
    now: Timestamp,
    mail: &Prepared,
    content: &Bytes,
) -> Result<Enqueued> {
    let decided = decide(connection, now, &[mail]).await?.pop().ok_or_else(unreadable)??;
    if matches!(decided, Enqueued::New(_)) {
        insert_with_host(connection, now, mail, content).await?;
    }
    Ok(decided)
}
