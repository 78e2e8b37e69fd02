//! By what a mail is recognised whose key is not known: its bytes, where its server gave it another key.

use postroom_core::id::LedgerId;
use postroom_core::time::Timestamp;
use sqlx::sqlite::SqliteConnection;

use super::row;
use crate::error::Result;
use crate::ledger::{LedgerEntry, Received};
use crate::sql::recognise::{Same, renumbered};
use crate::sql::rows::big;
use crate::sql::sqlite::connection::failed;

/// The oldest mail of the same bytes whose key is of another epoch of the same folder.
pub(in crate::sql::sqlite) const RENUMBERED: &str = "SELECT id, epoch, remote_key FROM postroom_ledger_mail
    WHERE mailbox = ?1 AND folder = ?2 AND sha256 = ?3 AND epoch <> ?4 AND size = ?5 ORDER BY number LIMIT 1";

/// Of a box without epochs: the mails of the same bytes that its server was not told to delete, oldest first.
pub(in crate::sql::sqlite) const SAME: &str = "SELECT id, epoch, remote_key FROM postroom_ledger_mail
    WHERE mailbox = ?1 AND folder = ?2 AND sha256 = ?3 AND epoch = ?4 AND size = ?5 AND settled_at IS NULL
    ORDER BY number";

const STAGE: &str = "store received mails";

/// The mail that this one is, which has its key from now on; none when it is another one.
pub(super) async fn recognise(
    tx: &mut SqliteConnection,
    now: Timestamp,
    mail: &Received,
) -> Result<Option<LedgerId>> {
    let place = &mail.place;
    let sql = if mail.shown.is_some() { SAME } else { RENUMBERED };
    let same: Vec<Same> = sqlx::query_as(sql)
        .bind(place.mailbox.number())
        .bind(place.folder.as_str())
        .bind(mail.sha256.to_vec())
        .bind(i64::from(place.epoch))
        .bind(big(mail.size))
        .fetch_all(&mut *tx)
        .await
        .map_err(failed(STAGE))?;
    let Some((id, detail)) = renumbered(mail, same) else { return Ok(None) };
    let sql = "UPDATE postroom_ledger_mail SET epoch = ?2, remote_key = ?3, settled_at = NULL WHERE id = ?1";
    let update = sqlx::query(sql).bind(id.uuid()).bind(i64::from(place.epoch)).bind(mail.key.to_string());
    update.execute(&mut *tx).await.map_err(failed(STAGE))?;
    row::note(tx, [(id, LedgerEntry::new(now, "recognised", None, detail))]).await?;
    Ok(Some(id))
}
