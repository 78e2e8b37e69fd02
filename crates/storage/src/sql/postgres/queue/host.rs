//! Submissions within a transaction of the host, on a connection of its own to the store's database.

use bytes::Bytes;
use postroom_core::queue::Prepared;
use postroom_core::time::Timestamp;
use sqlx::postgres::PgConnection;

use super::intake::{is_repeated, put};
use crate::error::Result;
use crate::queue::Enqueued;
use crate::sql::postgres::host::{begin, release, undo};
use crate::sql::postgres::schema;
use crate::sql::postgres::store::PgStore;
use crate::sql::postgres::suppressions::keep_to_list;

const STAGE: &str = "submit a mail with the host";

impl PgStore {
    /// Puts a mail into the queue within the host's own transaction: it is there if and when the host commits, and only
    /// then; a rollback leaves nothing. `mail` and `content` come from the engine's `prepare`. What is refused, and what an
    /// idempotency key does, is as for [`crate::QueueIntake::enqueue`].
    ///
    /// `connection` is the host's own, to the store's database, with a transaction open on it and the store's schema in its search
    /// path: the host's tables stand beside those of postroom, whose names begin with `postroom_`. READ COMMITTED is the right
    /// level; at a higher one a change of the registry since the transaction began makes the call fail as unavailable. The
    /// transaction gets `synchronous_commit = on`, whatever the session has.
    ///
    /// Until the transaction ends, the outbox, contract and step that the mail was decided by can't be changed, and the contract
    /// can't be paused; others submit and send meanwhile, but for a contract with limits, whose submissions wait for each other, and
    /// for one with the same idempotency key. So keep the transaction short.
    ///
    /// A worker finds the mail by its next look at the queue, or at once when the host rings for it after the commit.
    ///
    /// # Errors
    /// [`crate::ErrorKind::UnfitConnection`] when no transaction is open; [`crate::ErrorKind::Schema`]; [`crate::ErrorKind::StaleDecision`]: prepare
    /// the mail again, after the transaction has ended; [`crate::ErrorKind::IdempotencyConflict`], [`crate::ErrorKind::LimitReached`],
    /// [`crate::ErrorKind::Suppressed`]. After
    /// each of these the transaction is as it was before the call, and can go on. After [`crate::ErrorKind::Full`] or
    /// [`crate::ErrorKind::Unavailable`] roll back.
    ///
    /// # Cancel safety
    /// When the future is dropped, the transaction has all of the mail or nothing of it, and can go on.
    pub async fn enqueue_in(
        &self,
        connection: &mut PgConnection,
        now: Timestamp,
        mail: &Prepared,
        content: Bytes,
    ) -> Result<Enqueued> {
        begin(connection, STAGE).await?;
        let mut done = submit(connection, now, mail, &content).await;
        if is_repeated(&done) {
            undo(connection, STAGE).await?;
            done = submit(connection, now, mail, &content).await;
        }
        if done.is_err() {
            undo(connection, STAGE).await?;
        }
        release(connection, STAGE).await?;
        done
    }
}

async fn submit(
    connection: &mut PgConnection,
    now: Timestamp,
    mail: &Prepared,
    content: &Bytes,
) -> Result<Enqueued> {
    schema::check_on(connection).await?;
    let enqueued = put(connection, now, mail, content).await?;
    if matches!(enqueued, Enqueued::New(_)) {
        keep_to_list(connection, now, mail, STAGE).await?;
    }
    Ok(enqueued)
}
