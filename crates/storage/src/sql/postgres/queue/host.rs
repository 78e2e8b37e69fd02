//! Submissions within a transaction of the host, on a connection of its own to the store's database.

use bytes::Bytes;
use postroom_core::queue::Prepared;
use postroom_core::time::Timestamp;
use sqlx::postgres::PgConnection;

use super::intake::{is_repeated, put};
use crate::error::{Error, ErrorKind, Result};
use crate::queue::Enqueued;
use crate::sql::postgres::connection::say;
use crate::sql::postgres::failed::code;
use crate::sql::postgres::schema;
use crate::sql::postgres::store::PgStore;

const STAGE: &str = "submit a mail with the host";

/// Refused where no transaction is open. What is read first is undone by nothing that follows; the host's commit is to be on the
/// medium, as the store's own is.
const BEGIN: &str = "SAVEPOINT postroom_submit; SET LOCAL synchronous_commit = on";
/// What was set behind the savepoint goes with it.
const UNDO: &str = "ROLLBACK TO SAVEPOINT postroom_submit; SET LOCAL synchronous_commit = on";
const RELEASE: &str = "RELEASE SAVEPOINT postroom_submit";

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
    /// [`ErrorKind::UnfitConnection`] when no transaction is open; [`ErrorKind::Schema`]; [`ErrorKind::StaleDecision`]: prepare
    /// the mail again, after the transaction has ended; [`ErrorKind::IdempotencyConflict`], [`ErrorKind::LimitReached`]. After
    /// each of these the transaction is as it was before the call, and can go on. After [`ErrorKind::Full`] or
    /// [`ErrorKind::Unavailable`] roll back.
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
        // A statement that fails takes the host's transaction with it, so nothing is asked before there is a way back. A savepoint
        // that a dropped future leaves open does no harm: what is written, one statement writes.
        say(connection, BEGIN, STAGE).await.map_err(|error| match code(&error) {
            // no_active_sql_transaction
            Some("25P01") => {
                Error::new(ErrorKind::UnfitConnection { why: "no transaction is open on it" }, STAGE)
            }
            _ => error,
        })?;
        let mut done = submit(connection, now, mail, &content).await;
        if is_repeated(&done) {
            say(connection, UNDO, STAGE).await?;
            done = submit(connection, now, mail, &content).await;
        }
        if done.is_err() {
            say(connection, UNDO, STAGE).await?;
        }
        say(connection, RELEASE, STAGE).await?;
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
    put(connection, now, mail, content).await
}
