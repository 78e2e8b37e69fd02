//! Received mail that a host completes within a transaction of its own, on a connection of its own to the store's file.

use postroom_core::time::Timestamp;
use sqlx::sqlite::SqliteConnection;

use super::row::{load, save};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::Committing;
use crate::sql::sqlite::host::Part;
use crate::sql::sqlite::store::SqliteStore;

const STAGE: &str = "complete a received mail with the host";

async fn complete(tx: &mut SqliteConnection, now: Timestamp, claim: &Committing) -> Result<()> {
    let gone = || Error::new(ErrorKind::NotFound, STAGE);
    let mut edit = load(tx, [claim.id]).await?.pop().ok_or_else(gone)?;
    match edit.row.complete(now, claim)? {
        Some(entry) => save(tx, &edit, [entry]).await,
        None => Ok(()),
    }
}

impl SqliteStore {
    /// Records within the host's own transaction that a received mail is handled: the host's work and this stand together if and
    /// when the host commits, and neither of them does otherwise. The handler does its work, calls this with `Delivery::claim`, commits,
    /// and answers `Committed`; the engine then looks whether it is so.
    ///
    /// `connection` is the host's own, as for [`SqliteStore::enqueue_in`], with the same conditions. Until the transaction ends nobody
    /// else writes to the file, and no claim is renewed: keep it short, and call this last.
    ///
    /// The fence is the claim: a call whose lease ran out counts as long as nobody has taken the mail over. It can be repeated.
    ///
    /// # Errors
    /// [`ErrorKind::StaleClaim`] when another worker has the mail, or a person decided: roll back, the work is another's.
    /// [`ErrorKind::NotFound`], [`ErrorKind::UnfitConnection`], [`ErrorKind::Schema`]. After each of these the transaction is as it was
    /// before the call. After [`ErrorKind::Full`] or [`ErrorKind::Unavailable`] roll back: SQLite may have ended the transaction.
    ///
    /// # Cancel safety
    /// When the future is dropped, the transaction has all of it or nothing of it, and can go on.
    pub async fn complete_in(
        &self,
        connection: &mut SqliteConnection,
        now: Timestamp,
        claim: &Committing,
    ) -> Result<()> {
        let mut part = Part::begin(self, connection, STAGE).await?;
        complete(part.connection(), now, claim).await?;
        part.keep().await
    }
}
