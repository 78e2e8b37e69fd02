//! Received mail that a host completes within a transaction of its own, on a connection of its own to the store's database.

use postroom_core::id::ClaimId;
use postroom_core::time::Timestamp;
use sqlx::postgres::PgConnection;

use super::row::load;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::Committing;
use crate::sql::postgres::connection::failed;
use crate::sql::postgres::events::drawn_behind;
use crate::sql::postgres::host::{begin, release, undo};
use crate::sql::postgres::schema;
use crate::sql::postgres::store::PgStore;

const STAGE: &str = "complete a received mail with the host";

/// One statement: a future that is dropped leaves all of it or nothing. `$1` is the mail's number, `$2` its state, `$3` when it was
/// finished, `$4` the claim, `$5` and `$6` the words of its timeline.
pub(in crate::sql::postgres) const COMPLETE: &str = concat!(
    "WITH ",
    drawn_behind!(),
    ", done AS (
        UPDATE postroom_ledger_mail SET state = $2, finished_at = $3, finished_by = $4 WHERE number = $1 RETURNING id
    ), closed AS (
        DELETE FROM postroom_ledger_open WHERE number = $1
    )
    INSERT INTO postroom_event (noun, mail, at, what, state, detail)
    SELECT 'ledger', done.id, $3, $5, $2, $6 FROM drawn_behind, done"
);

impl PgStore {
    /// Records within the host's own transaction that a received mail is handled: the host's work and this stand together if and
    /// when the host commits, and neither of them does otherwise. The handler does its work, calls this with `Delivery::claim`, commits,
    /// and answers `Committed`; the engine then looks whether it is so.
    ///
    /// `connection` is the host's own, as for [`PgStore::enqueue_in`], with the same conditions; the transaction gets
    /// `synchronous_commit = on`. Until it ends the mail is locked, and the worker's other claims are not renewed: call this last, and
    /// commit at once.
    ///
    /// The fence is the claim: a call whose lease ran out counts as long as nobody has taken the mail over. It can be repeated.
    ///
    /// # Errors
    /// [`ErrorKind::StaleClaim`] when another worker has the mail, or a person decided: roll back, the work is another's.
    /// [`ErrorKind::NotFound`], [`ErrorKind::UnfitConnection`], [`ErrorKind::Schema`]. After each of these the transaction is as it was
    /// before the call. After [`ErrorKind::Full`] or [`ErrorKind::Unavailable`] roll back.
    ///
    /// # Cancel safety
    /// When the future is dropped, the transaction has all of it or nothing of it, and can go on.
    pub async fn complete_in(
        &self,
        connection: &mut PgConnection,
        now: Timestamp,
        claim: &Committing,
    ) -> Result<()> {
        begin(connection, STAGE).await?;
        let done = complete(connection, now, claim).await;
        if done.is_err() {
            undo(connection, STAGE).await?;
        }
        release(connection, STAGE).await?;
        done
    }
}

async fn complete(connection: &mut PgConnection, now: Timestamp, claim: &Committing) -> Result<()> {
    schema::check_on(connection).await?;
    let gone = || Error::new(ErrorKind::NotFound, STAGE);
    let mut edit = load(connection, [claim.id]).await?.pop().ok_or_else(gone)?;
    let Some(entry) = edit.row.complete(now, claim)? else { return Ok(()) };
    let query = sqlx::query(COMPLETE).bind(edit.mail.number).bind(edit.row.state.word());
    let query = query.bind(now.as_millis()).bind(edit.row.finished_by.map(ClaimId::uuid));
    let query = query.bind(entry.what).bind(entry.detail);
    query.execute(connection).await.map(drop).map_err(failed(STAGE))
}
