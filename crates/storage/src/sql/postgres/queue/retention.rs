//! Retention: what of finished mail is removed, by contract, each time a few rows. A query hops from contract to contract and
//! takes of each what is older than its days, so that it costs the same with a thousand finished mails and with a million.

use std::time::Duration;

use postroom_core::contract::Retention;
use postroom_core::time::Timestamp;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::error::Result;
use crate::queue::{KEYS_KEPT, Pruned};
use crate::sql::postgres::connection::failed;
use crate::sql::postgres::{bodies, correspondents, suppressions};

const STAGE: &str = "prune the queue";

/// Finished mails whose time is over, in the order of the one index that has no other mail in it. What a person is about to send again
/// is left to him.
///
/// `$1` is now, `$2` the days where the contract names none, `$3` the least days, `$4` how many.
macro_rules! over {
    ($which:literal, $days:literal) => {
        concat!(
            "WITH RECURSIVE hop (contract) AS (
                (SELECT contract FROM postroom_queue_mail WHERE contract > '' AND ",
            $which,
            " ORDER BY contract, finished_at LIMIT 1) UNION ALL
                SELECT (SELECT m.contract FROM postroom_queue_mail m WHERE m.contract > hop.contract AND m.",
            $which,
            " ORDER BY m.contract, m.finished_at LIMIT 1) FROM hop WHERE hop.contract IS NOT NULL)
            SELECT m.id, m.body FROM hop CROSS JOIN LATERAL (
                SELECT m.id, m.body FROM postroom_queue_mail m WHERE m.contract = hop.contract AND m.",
            $which,
            " AND m.finished_at <= $1::bigint - 86400000 * greatest($3::bigint, coalesce((
                    SELECT (k.settings::json #>> '{retention,",
            $days,
            "}')::bigint FROM postroom_contract k WHERE k.id = hop.contract), $2::bigint))
                ORDER BY m.finished_at LIMIT $4 FOR UPDATE SKIP LOCKED) m
            WHERE hop.contract IS NOT NULL LIMIT $4"
        )
    };
}

pub(in crate::sql::postgres) const OVER: [&str; 3] = [
    over!("body IS NOT NULL AND state IN ('accepted', 'bounced', 'cancelled')", "bodies"),
    over!("state IN ('accepted', 'bounced', 'cancelled')", "timelines"),
    over!("state IN ('refused', 'expired', 'dead')", "dead"),
];

const FORGET: &str = "UPDATE postroom_queue_mail SET body = NULL WHERE id = ANY($1::uuid[])";

/// In the order of their references.
pub(in crate::sql::postgres) const REMOVE: [&str; 4] = [
    "DELETE FROM postroom_event WHERE mail = ANY($1::uuid[])",
    "DELETE FROM postroom_queue_key WHERE mail = ANY($1::uuid[])",
    "DELETE FROM postroom_queue_recipient WHERE mail = ANY($1::uuid[])",
    "DELETE FROM postroom_queue_mail WHERE id = ANY($1::uuid[])",
];

pub(in crate::sql::postgres) const MAILBOXES: &str = "DELETE FROM postroom_event WHERE number IN (
    SELECT number FROM postroom_event WHERE mail IS NULL AND at <= $1 LIMIT $2)";

/// The days before yesterday count for no limit any more.
pub(in crate::sql::postgres) const TALLIES: &str =
    "DELETE FROM postroom_queue_tally WHERE (contract, day, slot) IN (
    SELECT contract, day, slot FROM postroom_queue_tally WHERE day < $1 - 1 LIMIT $2)";

const DAY: u64 = 24 * 60 * 60;

async fn over(
    tx: &mut PgConnection,
    sql: &'static str,
    now: Timestamp,
    days: u32,
    least: Duration,
    limit: u32,
) -> Result<Vec<(Uuid, Option<Uuid>)>> {
    let least = i64::try_from(least.as_secs() / DAY).unwrap_or(i64::MAX);
    let query = sqlx::query_as(sql).bind(now.as_millis()).bind(i64::from(days)).bind(least);
    query.bind(i64::from(limit)).fetch_all(tx).await.map_err(failed(STAGE))
}

fn ids(mails: &[(Uuid, Option<Uuid>)]) -> Vec<Uuid> {
    mails.iter().map(|(id, _)| *id).collect()
}

pub(super) async fn prune_in(tx: &mut PgConnection, now: Timestamp, limit: u32) -> Result<Pruned> {
    let kept = Retention::default();
    let [bodies, done, failed_mails] = OVER;
    let mut mails = over(tx, done, now, kept.timelines, KEYS_KEPT, limit).await?;
    let left = limit.saturating_sub(u32::try_from(mails.len()).unwrap_or(limit));
    mails.extend(over(tx, failed_mails, now, kept.dead, KEYS_KEPT, left).await?);
    if !mails.is_empty() {
        let ids = ids(&mails);
        for sql in REMOVE {
            sqlx::query(sql).bind(&ids).execute(&mut *tx).await.map_err(failed(STAGE))?;
        }
    }
    let contents = over(tx, bodies, now, kept.bodies, Duration::ZERO, limit).await?;
    if !contents.is_empty() {
        sqlx::query(FORGET).bind(ids(&contents)).execute(&mut *tx).await.map_err(failed(STAGE))?;
    }
    let released: Vec<Uuid> = mails.iter().chain(&contents).filter_map(|(_, body)| *body).collect();
    bodies::release(tx, released).await?;
    let before = now.as_millis().saturating_sub(i64::from(kept.timelines) * 86_400_000);
    let query = sqlx::query(MAILBOXES).bind(before).bind(i64::from(limit));
    let events = query.execute(&mut *tx).await.map_err(failed(STAGE))?.rows_affected();
    let day = now.as_secs().div_euclid(24 * 60 * 60);
    let query = sqlx::query(TALLIES).bind(day).bind(i64::from(limit));
    query.execute(&mut *tx).await.map_err(failed(STAGE))?;
    correspondents::prune(tx, now, limit).await?;
    suppressions::prune(tx, now, limit).await?;
    let count = |all: usize| u64::try_from(all).unwrap_or(u64::MAX);
    Ok(Pruned { bodies: count(contents.len()), mails: count(mails.len()), events })
}
