//! Retention of received mail: what of finished mail is removed, by contract, each time a few rows. The key stays: it is the cursor.
//! A query hops from contract to contract, as that of the queue does.

use postroom_core::contract::Retention;
use postroom_core::time::Timestamp;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::error::Result;
use crate::ledger::LedgerPruned;
use crate::sql::postgres::bodies;
use crate::sql::postgres::connection::failed;

const STAGE: &str = "prune the ledger";

/// Finished mails whose time is over, in the order of the one index that has no other mail in it. What a person is about to replay
/// is left to him. `$1` is now, `$2` the days where the contract names none, `$3` how many.
macro_rules! over {
    ($which:literal, $days:literal) => {
        concat!(
            "WITH RECURSIVE hop (contract) AS (SELECT '' COLLATE \"C\" UNION ALL
                SELECT (SELECT coalesce(m.contract, '') FROM postroom_ledger_mail m
                    WHERE coalesce(m.contract, '') > hop.contract AND m.",
            $which,
            " ORDER BY coalesce(m.contract, ''), m.finished_at LIMIT 1) FROM hop WHERE hop.contract IS NOT NULL)
            SELECT m.id, m.body FROM hop CROSS JOIN LATERAL (
                SELECT m.id, m.body FROM postroom_ledger_mail m
                WHERE coalesce(m.contract, '') = hop.contract AND m.",
            $which,
            " AND m.finished_at <= $1::bigint - 86400000 * coalesce((
                    SELECT (k.settings::json #>> '{retention,",
            $days,
            "}')::bigint FROM postroom_contract k WHERE k.id = hop.contract), $2::bigint)
                ORDER BY m.finished_at LIMIT $3 FOR UPDATE SKIP LOCKED) m
            WHERE hop.contract IS NOT NULL LIMIT $3"
        )
    };
}

/// Bytes, done, dead.
pub(in crate::sql::postgres) const OVER: [&str; 3] = [
    over!("body IS NOT NULL AND finished_at IS NOT NULL AND state IN ('handled', 'ignored')", "raw"),
    over!("bare_at IS NULL AND finished_at IS NOT NULL AND state IN ('handled', 'ignored')", "timelines"),
    over!("bare_at IS NULL AND finished_at IS NOT NULL AND state = 'dead'", "dead"),
];

pub(in crate::sql::postgres) const TOLD: &str = "DELETE FROM postroom_event WHERE mail = ANY($1::uuid[])";

pub(in crate::sql::postgres) const STRIPPED: &str = "UPDATE postroom_ledger_mail
    SET sender = '', subject = '', message_id = NULL, record = NULL, body = NULL, bare_at = $2
    WHERE id = ANY($1::uuid[])";

pub(in crate::sql::postgres) const EMPTIED: &str =
    "UPDATE postroom_ledger_mail SET body = NULL WHERE id = ANY($1::uuid[])";

async fn over(
    tx: &mut PgConnection,
    sql: &'static str,
    now: Timestamp,
    days: u32,
    limit: u32,
) -> Result<Vec<(Uuid, Option<Uuid>)>> {
    let query = sqlx::query_as(sql).bind(now.as_millis()).bind(i64::from(days)).bind(i64::from(limit));
    query.fetch_all(tx).await.map_err(failed(STAGE))
}

fn ids(mails: &[(Uuid, Option<Uuid>)]) -> Vec<Uuid> {
    mails.iter().map(|(id, _)| *id).collect()
}

pub(super) async fn prune_in(tx: &mut PgConnection, now: Timestamp, limit: u32) -> Result<LedgerPruned> {
    let kept = Retention::default();
    let [raw, done, dead] = OVER;
    let mut mails = over(tx, done, now, kept.timelines, limit).await?;
    let left = limit.saturating_sub(u32::try_from(mails.len()).unwrap_or(limit));
    mails.extend(over(tx, dead, now, kept.dead, left).await?);
    if !mails.is_empty() {
        let ids = ids(&mails);
        sqlx::query(TOLD).bind(&ids).execute(&mut *tx).await.map_err(failed(STAGE))?;
        let strip = sqlx::query(STRIPPED).bind(ids).bind(now.as_millis());
        strip.execute(&mut *tx).await.map_err(failed(STAGE))?;
    }
    let contents = over(tx, raw, now, kept.raw, limit).await?;
    if !contents.is_empty() {
        sqlx::query(EMPTIED).bind(ids(&contents)).execute(&mut *tx).await.map_err(failed(STAGE))?;
    }
    let released: Vec<Uuid> = mails.iter().chain(&contents).filter_map(|(_, body)| *body).collect();
    bodies::release(tx, released).await?;
    let count = |all: usize| u64::try_from(all).unwrap_or(u64::MAX);
    Ok(LedgerPruned { bodies: count(contents.len()), mails: count(mails.len()) })
}
