//! By what a mail is recognised whose key is not known: its bytes, where its server gave it another key.

use postroom_core::id::LedgerId;
use postroom_core::time::Timestamp;
use sqlx::postgres::PgConnection;

use super::row;
use crate::error::Result;
use crate::ledger::{LedgerEntry, Received};
use crate::sql::postgres::connection::failed;
use crate::sql::recognise::{PAGE, Passed, Same};
use crate::sql::rows::big;

/// Mails of the same bytes behind one of them, oldest first. Who stores mails of an inbox is alone with it (`locks::intake`).
pub(in crate::sql::postgres) const SAME: &str = "SELECT id, epoch, remote_key, settled_at IS NOT NULL, number
    FROM postroom_ledger_mail
    WHERE mailbox = $1 AND folder = $2 AND sha256 = $3 AND number > $4 AND size = $5 ORDER BY number LIMIT $6";

const STAGE: &str = "store received mails";

/// The mail that this one is, which has its key from now on; none when it is another one.
pub(super) async fn recognise<'a>(
    tx: &mut PgConnection,
    now: Timestamp,
    mail: &'a Received,
    passed: &mut Passed<'a>,
) -> Result<Option<LedgerId>> {
    let (place, mut search) = (&mail.place, passed.search(mail));
    while let Some(behind) = search.next() {
        let page: Vec<Same> = sqlx::query_as(SAME)
            .bind(place.mailbox.number())
            .bind(place.folder.as_str())
            .bind(mail.sha256.to_vec())
            .bind(behind.1)
            .bind(big(mail.size))
            .bind(i64::try_from(PAGE).unwrap_or(i64::MAX))
            .fetch_all(&mut *tx)
            .await
            .map_err(failed(STAGE))?;
        search.look(&page)?;
    }
    let Some((id, detail)) = search.found else { return Ok(None) };
    let sql = "UPDATE postroom_ledger_mail SET epoch = $2, remote_key = $3, settled_at = NULL WHERE id = $1";
    let update = sqlx::query(sql).bind(id.uuid()).bind(big(place.epoch)).bind(mail.key.to_string());
    update.execute(&mut *tx).await.map_err(failed(STAGE))?;
    row::note(tx, [(id, LedgerEntry::new(now, "recognised", None, detail))]).await?;
    Ok(Some(id))
}
