//! Retention: what of finished mail is removed, by contract, each time a few rows. A query looks at the oldest of
//! each contract and takes what is older than its days, so that it costs the same with a thousand finished mails and with a million.

use std::collections::BTreeSet;
use std::time::Duration;

use postroom_core::contract::Retention;
use postroom_core::time::Timestamp;
use sqlx::mysql::MySqlConnection;
use uuid::Uuid;

use crate::error::Result;
use crate::queue::{KEYS_KEPT, Pruned};
use crate::sql::mysql::connection::failed;
use crate::sql::mysql::json::json_rows;
use crate::sql::mysql::{bodies, correspondents, suppressions};
use crate::sql::rows::{hex, to_json};

const STAGE: &str = "prune the queue";

/// The contracts that have mail whose time is over, each with the time that what is over was finished by. The oldest of each contract is
/// looked at, in an index that has no other mail in it.
///
/// The parameters are now, the least days, the days where the contract names none, and how many contracts.
macro_rules! contracts {
    ($index:literal, $of:literal, $days:literal) => {
        concat!(
            "SELECT over_by.contract, over_by.at FROM (
                SELECT oldest.contract, oldest.finished_at, ? - 86400000 * GREATEST(?, COALESCE((
                    SELECT CAST(JSON_VALUE(k.settings, '$.retention.",
            $days,
            "') AS SIGNED) FROM postroom_contract k WHERE k.id = oldest.contract), ?)) AS at
                FROM (SELECT ",
            $of,
            " AS contract, MIN(finished_at) AS finished_at FROM postroom_queue_mail FORCE INDEX (",
            $index,
            ") WHERE ",
            $of,
            " > '' GROUP BY ",
            $of,
            ") oldest) over_by
            WHERE over_by.finished_at <= over_by.at LIMIT ?"
        )
    };
}

/// The mails of such a contract. What a person is about to send again is left to him.
macro_rules! mails {
    ($index:literal, $of:literal) => {
        concat!(
            "SELECT id, body FROM postroom_queue_mail FORCE INDEX (",
            $index,
            ") WHERE ",
            $of,
            " = ? AND finished_at <= ? ORDER BY finished_at LIMIT ? FOR UPDATE SKIP LOCKED"
        )
    };
}

/// What is over: contents, sent or taken back, failed.
pub(in crate::sql::mysql) const OVER: [[&str; 2]; 3] = [
    [
        contracts!("postroom_queue_mail_content", "content_of", "bodies"),
        mails!("postroom_queue_mail_content", "content_of"),
    ],
    [
        contracts!("postroom_queue_mail_done", "done_of", "timelines"),
        mails!("postroom_queue_mail_done", "done_of"),
    ],
    [
        contracts!("postroom_queue_mail_failed", "failed_of", "dead"),
        mails!("postroom_queue_mail_failed", "failed_of"),
    ],
];

macro_rules! of_mails {
    ($delete:literal, $table:literal, $mail:literal) => {
        concat!($delete, " FROM ", json_rows!("?"; sought id ""), " j STRAIGHT_JOIN ", $table, " ON ", $mail,
            " = UNHEX(j.sought)")
    };
}

const FORGET: &str = concat!(
    "UPDATE ",
    json_rows!("?"; sought id ""),
    " j STRAIGHT_JOIN postroom_queue_mail m FORCE INDEX (PRIMARY) ON m.id = UNHEX(j.sought) SET m.body = NULL"
);

/// In the order of their references.
pub(in crate::sql::mysql) const REMOVE: [&str; 4] = [
    of_mails!("DELETE e", "postroom_event e FORCE INDEX (postroom_event_mail)", "e.mail"),
    of_mails!("DELETE k", "postroom_queue_key k FORCE INDEX (postroom_queue_key_mail)", "k.mail"),
    of_mails!("DELETE r", "postroom_queue_recipient r FORCE INDEX (PRIMARY)", "r.mail"),
    of_mails!("DELETE m", "postroom_queue_mail m FORCE INDEX (PRIMARY)", "m.id"),
];

pub(in crate::sql::mysql) const MAILBOXES: &str =
    "DELETE FROM postroom_event WHERE mailbox_at <= ? ORDER BY mailbox_at LIMIT ?";

/// The days before yesterday count for no limit any more.
pub(in crate::sql::mysql) const TALLIES: &str =
    "DELETE FROM postroom_queue_tally WHERE day < ? - 1 ORDER BY day LIMIT ?";

const DAY: u64 = 24 * 60 * 60;

async fn over(
    tx: &mut MySqlConnection,
    [contracts, mails]: [&'static str; 2],
    now: Timestamp,
    days: u32,
    least: Duration,
    limit: u32,
) -> Result<Vec<(Uuid, Option<Uuid>)>> {
    let least = i64::try_from(least.as_secs() / DAY).unwrap_or(i64::MAX);
    let query = sqlx::query_as(contracts).bind(now.as_millis()).bind(least).bind(i64::from(days));
    let contracts: Vec<(String, i64)> =
        query.bind(i64::from(limit)).fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
    let mut over: Vec<(Uuid, Option<Uuid>)> = Vec::new();
    for (contract, at) in contracts {
        let left = limit.saturating_sub(u32::try_from(over.len()).unwrap_or(limit));
        if left == 0 {
            break;
        }
        let query = sqlx::query_as(mails).bind(contract).bind(at).bind(i64::from(left));
        let some: Vec<(Uuid, Option<Uuid>)> = query.fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
        over.extend(some);
    }
    Ok(over)
}

fn ids(mails: &[(Uuid, Option<Uuid>)]) -> Result<String> {
    // In the order in which everybody locks mails.
    let ids: BTreeSet<String> = mails.iter().map(|(id, _)| hex(*id)).collect();
    to_json(&ids)
}

pub(super) async fn prune_in(tx: &mut MySqlConnection, now: Timestamp, limit: u32) -> Result<Pruned> {
    let kept = Retention::default();
    let [bodies, done, failed_mails] = OVER;
    let mut mails = over(tx, done, now, kept.timelines, KEYS_KEPT, limit).await?;
    let left = limit.saturating_sub(u32::try_from(mails.len()).unwrap_or(limit));
    mails.extend(over(tx, failed_mails, now, kept.dead, KEYS_KEPT, left).await?);
    if !mails.is_empty() {
        let ids = ids(&mails)?;
        for sql in REMOVE {
            sqlx::query(sql).bind(&ids).execute(&mut *tx).await.map_err(failed(STAGE))?;
        }
    }
    let contents = over(tx, bodies, now, kept.bodies, Duration::ZERO, limit).await?;
    if !contents.is_empty() {
        sqlx::query(FORGET).bind(ids(&contents)?).execute(&mut *tx).await.map_err(failed(STAGE))?;
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
