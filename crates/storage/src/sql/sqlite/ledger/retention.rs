//! Retention of received mail: what of finished mail is removed, by contract, each time a few rows. The key stays: it is the cursor.
//! A query hops from contract to contract, as that of the queue does.

use postroom_core::contract::Retention;
use postroom_core::id::LedgerId;
use postroom_core::time::Timestamp;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use crate::error::Result;
use crate::ledger::LedgerPruned;
use crate::sql::rows::ledger_ids;
use crate::sql::sqlite::bodies;
use crate::sql::sqlite::connection::failed;

const STAGE: &str = "prune the ledger";

/// Finished mails whose time is over, by the one index that has no other mail in it. `?1` is now, `?2` the days where the contract
/// names none, `?3` how many.
macro_rules! over {
    ($index:literal, $which:literal, $days:literal) => {
        concat!(
            "WITH RECURSIVE hop (contract) AS (SELECT '' UNION ALL
                SELECT (SELECT min(coalesce(contract, '')) FROM postroom_ledger_mail INDEXED BY ",
            $index,
            " WHERE coalesce(contract, '') > hop.contract AND ",
            $which,
            ") FROM hop WHERE hop.contract IS NOT NULL)
            SELECT m.id, m.body FROM hop CROSS JOIN postroom_ledger_mail m INDEXED BY ",
            $index,
            "
            WHERE hop.contract IS NOT NULL AND coalesce(m.contract, '') = hop.contract AND m.",
            $which,
            " AND m.finished_at <= ?1 - 86400000 * coalesce((SELECT k.settings ->> '$.retention.",
            $days,
            "' FROM postroom_contract k WHERE k.id = hop.contract), ?2) LIMIT ?3"
        )
    };
}

/// Bytes, done, dead.
pub(in crate::sql::sqlite) const OVER: [&str; 3] = [
    over!(
        "postroom_ledger_mail_raw",
        "body IS NOT NULL AND finished_at IS NOT NULL AND state IN ('handled', 'ignored')",
        "raw"
    ),
    over!(
        "postroom_ledger_mail_done",
        "bare_at IS NULL AND finished_at IS NOT NULL AND state IN ('handled', 'ignored')",
        "timelines"
    ),
    over!(
        "postroom_ledger_mail_dead",
        "bare_at IS NULL AND finished_at IS NOT NULL AND state = 'dead'",
        "dead"
    ),
];

pub(in crate::sql::sqlite) const TOLD: &str =
    "DELETE FROM postroom_event WHERE mail IN (SELECT unhex(value) FROM json_each(?1))";

pub(in crate::sql::sqlite) const STRIPPED: &str = "UPDATE postroom_ledger_mail
    SET sender = '', subject = '', message_id = NULL, record = NULL, body = NULL, bare_at = ?2
    WHERE id IN (SELECT unhex(value) FROM json_each(?1))";

pub(in crate::sql::sqlite) const EMPTIED: &str =
    "UPDATE postroom_ledger_mail SET body = NULL WHERE id IN (SELECT unhex(value) FROM json_each(?1))";

async fn over(
    tx: &mut SqliteConnection,
    sql: &'static str,
    now: Timestamp,
    days: u32,
    limit: u32,
) -> Result<Vec<(Uuid, Option<Uuid>)>> {
    let query = sqlx::query_as(sql).bind(now.as_millis()).bind(i64::from(days)).bind(i64::from(limit));
    query.fetch_all(tx).await.map_err(failed(STAGE))
}

fn ids(mails: &[(Uuid, Option<Uuid>)]) -> Result<String> {
    ledger_ids(mails.iter().map(|(id, _)| LedgerId::from_uuid(*id)))
}

pub(super) async fn prune_in(tx: &mut SqliteConnection, now: Timestamp, limit: u32) -> Result<LedgerPruned> {
    let kept = Retention::default();
    let [raw, done, dead] = OVER;
    let mut mails = over(tx, done, now, kept.timelines, limit).await?;
    let left = limit.saturating_sub(u32::try_from(mails.len()).unwrap_or(limit));
    mails.extend(over(tx, dead, now, kept.dead, left).await?);
    if !mails.is_empty() {
        let ids = ids(&mails)?;
        sqlx::query(TOLD).bind(&ids).execute(&mut *tx).await.map_err(failed(STAGE))?;
        let strip = sqlx::query(STRIPPED).bind(ids).bind(now.as_millis());
        strip.execute(&mut *tx).await.map_err(failed(STAGE))?;
    }
    let contents = over(tx, raw, now, kept.raw, limit).await?;
    if !contents.is_empty() {
        sqlx::query(EMPTIED).bind(ids(&contents)?).execute(&mut *tx).await.map_err(failed(STAGE))?;
    }
    let released: Vec<Uuid> = mails.iter().chain(&contents).filter_map(|(_, body)| *body).collect();
    bodies::release(tx, released).await?;
    let count = |all: usize| u64::try_from(all).unwrap_or(u64::MAX);
    Ok(LedgerPruned { bodies: count(contents.len()), mails: count(mails.len()) })
}
