//! Submissions within a transaction of the host, on a connection of its own to the store's database.

use bytes::Bytes;
use postroom_core::queue::Prepared;
use postroom_core::time::Timestamp;
use sqlx::mysql::MySqlConnection;

use super::insert::insert_with_host;
use super::intake::{decide, is_repeated};
use crate::error::Result;
use crate::queue::Enqueued;
use crate::sql::mysql::connection::TRIES;
use crate::sql::mysql::host::{begin, release, undo, undone};
use crate::sql::mysql::store::MySqlStore;
use crate::sql::mysql::suppressions::keep_to_list;
use crate::sql::rows::unreadable;

const STAGE: &str = "submit a mail with the host";

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
    /// [`crate::ErrorKind::UnfitConnection`] when no transaction is open, or the session is not as said above; [`crate::ErrorKind::Schema`];
    /// [`crate::ErrorKind::StaleDecision`]: prepare the mail again, after the transaction has ended; [`crate::ErrorKind::IdempotencyConflict`],
    /// [`crate::ErrorKind::LimitReached`],
    /// [`crate::ErrorKind::Suppressed`]. After each of these the transaction is as it was before the call, and can go on. After
    /// [`crate::ErrorKind::Full`] or [`crate::ErrorKind::Unavailable`] roll back: after a deadlock MariaDB has done so already, and what is written next
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
        begin(connection, STAGE).await?;
        let mut done = submit(connection, now, mail, &content).await;
        for _ in 0..TRIES {
            if !is_repeated(&done) {
                break;
            }
            undo(connection, STAGE).await?;
            done = submit(connection, now, mail, &content).await;
        }
        if let Err(error) = done {
            return Err(undone(connection, error, STAGE).await);
        }
        release(connection, STAGE).await?;
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
        keep_to_list(connection, now, mail, STAGE).await?;
        insert_with_host(connection, now, mail, content).await?;
    }
    Ok(decided)
}
