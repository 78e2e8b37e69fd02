//! By what a mail is recognised whose key is not known: its bytes, where its server gave it another key.

use postroom_core::time::Timestamp;
use sqlx::mysql::MySqlConnection;

use super::row;
use crate::error::Result;
use crate::ledger::{EQUALS, LedgerEntry, Received, Stored, TWINS};
use crate::sql::mysql::connection::failed;
use crate::sql::recognise::{Found, PAGE, Passed, Same, Twin, limit};
use crate::sql::rows::big;

/// Mails of the same bytes behind one of them, oldest first. Who stores mails of an inbox is alone with it (`locks::intake`).
pub(in crate::sql::mysql) const SAME: &str =
    "SELECT id, epoch, CONVERT(remote_key USING utf8mb4), settled_at IS NOT NULL,
        number
    FROM postroom_ledger_mail FORCE INDEX (postroom_ledger_mail_content)
    WHERE mailbox = ? AND folder = ? AND sha256 = ? AND number > ? AND size = ? ORDER BY number LIMIT ?";

/// Those of them that were in the same epoch and arrived at the same moment, of so many that came last.
pub(in crate::sql::mysql) const TWINS_OF: &str = "SELECT id, CONVERT(remote_key USING utf8mb4) FROM
    (SELECT id, remote_key, epoch, size, arrived, settled_at, kept, number
        FROM postroom_ledger_mail FORCE INDEX (postroom_ledger_mail_content)
        WHERE mailbox = ? AND folder = ? AND sha256 = ? ORDER BY number DESC LIMIT ?) equal
    WHERE epoch = ? AND size = ? AND arrived = ? AND (settled_at IS NULL OR kept) ORDER BY number DESC LIMIT ?";

const STAGE: &str = "store received mails";

/// What became of a mail whose bytes are known: the mail that it is has its key from now on. None when it is another one.
pub(super) async fn recognise<'a>(
    tx: &mut MySqlConnection,
    now: Timestamp,
    mail: &'a Received,
    passed: &mut Passed<'a>,
) -> Result<Option<Stored>> {
    let (place, mut search) = (&mail.place, passed.search(mail));
    while let Some(behind) = search.next() {
        let page: Vec<Same> = sqlx::query_as(SAME)
            .bind(place.mailbox.number())
            .bind(place.folder.as_bytes())
            .bind(mail.sha256.to_vec())
            .bind(behind.1)
            .bind(big(mail.size))
            .bind(limit(PAGE))
            .fetch_all(&mut *tx)
            .await
            .map_err(failed(STAGE))?;
        search.look(&page)?;
    }
    if let Some(arrived) = search.arrived() {
        let twins: Vec<Twin> = sqlx::query_as(TWINS_OF)
            .bind(place.mailbox.number())
            .bind(place.folder.as_bytes())
            .bind(mail.sha256.to_vec())
            .bind(limit(EQUALS))
            .bind(big(place.epoch))
            .bind(big(mail.size))
            .bind(arrived.as_millis())
            .bind(limit(TWINS))
            .fetch_all(&mut *tx)
            .await
            .map_err(failed(STAGE))?;
        search.compare(&twins)?;
    }
    let (id, detail) = match search.found() {
        Found::Nothing => return Ok(None),
        Found::Undecided(stored) => return Ok(Some(stored)),
        Found::Known(id, detail) => (id, detail),
    };
    let sql = "UPDATE postroom_ledger_mail SET epoch = ?, remote_key = ?, settled_at = NULL WHERE id = ?";
    let update =
        sqlx::query(sql).bind(big(place.epoch)).bind(mail.key.to_string().into_bytes()).bind(id.uuid());
    update.execute(&mut *tx).await.map_err(failed(STAGE))?;
    row::note(tx, [(id, LedgerEntry::new(now, "recognised", None, detail))]).await?;
    Ok(Some(Stored::Recognised(id)))
}
