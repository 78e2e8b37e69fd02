//! Received mail that a host completes within a transaction of its own, on a connection of its own to the store's database.

use postroom_core::time::Timestamp;
use sqlx::mysql::MySqlConnection;

use super::row::{load, save};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::Committing;
use crate::sql::mysql::host::{begin, release, undone};
use crate::sql::mysql::store::MySqlStore;

const STAGE: &str = "complete a received mail with the host";

impl MySqlStore {
    /// Records within the host's own transaction that a received mail is handled: the host's work and this stand together if and
    /// when the host commits, and neither of them does otherwise. The handler does its work, calls this with `Delivery::claim`, commits,
    /// and answers `Committed`; the engine then looks whether it is so.
    ///
    /// `connection` is the host's own, as for [`MySqlStore::enqueue_in`], with the same conditions. Until the transaction ends the mail is
    /// locked, and the worker's other claims are not renewed: call this last, and commit at once.
    ///
    /// The fence is the claim: a call whose lease ran out counts as long as nobody has taken the mail over. It can be repeated.
    ///
    /// # Errors
    /// [`ErrorKind::StaleClaim`] when another worker has the mail, or a person decided: roll back, the work is another's.
    /// [`ErrorKind::NotFound`], [`ErrorKind::UnfitConnection`], [`ErrorKind::Schema`]. After each of these the transaction is as it was
    /// before the call. After [`ErrorKind::Full`] or [`ErrorKind::Unavailable`] roll back: after a deadlock MariaDB has done so already, and
    /// what is written next would be in no transaction.
    ///
    /// # Cancel safety
    /// None: when the future is dropped, close the connection, which rolls back. The transaction may have a part of it, and the driver
    /// may have read half an answer.
    pub async fn complete_in(
        &self,
        connection: &mut MySqlConnection,
        now: Timestamp,
        claim: &Committing,
    ) -> Result<()> {
        begin(connection, STAGE).await?;
        if let Err(error) = complete(connection, now, claim).await {
            return Err(undone(connection, error, STAGE).await);
        }
        release(connection, STAGE).await
    }
}

async fn complete(connection: &mut MySqlConnection, now: Timestamp, claim: &Committing) -> Result<()> {
    let gone = || Error::new(ErrorKind::NotFound, STAGE);
    let mut edit = load(connection, [claim.id]).await?.pop().ok_or_else(gone)?;
    match edit.row.complete(now, claim)? {
        Some(entry) => save(connection, &edit, [entry]).await,
        None => Ok(()),
    }
}
