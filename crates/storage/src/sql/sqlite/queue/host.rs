//! Submissions within a transaction of the host, on a connection of its own to the store's file.

use bytes::Bytes;
use postroom_core::queue::Prepared;
use postroom_core::time::Timestamp;
use sqlx::sqlite::SqliteConnection;

use super::intake::put;
use crate::error::Result;
use crate::queue::Enqueued;
use crate::sql::sqlite::host::Part;
use crate::sql::sqlite::store::SqliteStore;
use crate::sql::sqlite::suppressions::keep_to_list;

const STAGE: &str = "submit a mail with the host";

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
    /// [`crate::ErrorKind::UnfitConnection`] says what is wrong with the connection; [`crate::ErrorKind::Schema`];
    /// [`crate::ErrorKind::StaleDecision`]: prepare the mail again, after the transaction has ended;
    /// [`crate::ErrorKind::IdempotencyConflict`], [`crate::ErrorKind::LimitReached`],
    /// [`crate::ErrorKind::Suppressed`]. After each of these the transaction is as it was
    /// before the call, and can go on. After [`crate::ErrorKind::Full`] or [`crate::ErrorKind::Unavailable`] roll back: SQLite may have
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
        let mut part = Part::begin(self, connection, STAGE).await?;
        let enqueued = put(part.connection(), now, mail, &content).await?;
        if matches!(enqueued, Enqueued::New(_)) {
            keep_to_list(part.connection(), now, mail, STAGE).await?;
        }
        part.keep().await?;
        Ok(enqueued)
    }
}
