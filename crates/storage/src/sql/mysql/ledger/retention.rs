//! Retention of received mail: what of finished mail is removed, by contract, each time a few rows. The key stays: it is the cursor.
//! A query looks at the oldest of each contract, as that of the queue does.

use std::collections::BTreeSet;

use postroom_core::contract::Retention;
use postroom_core::time::Timestamp;
use sqlx::mysql::MySqlConnection;
use uuid::Uuid;

use crate::error::Result;
use crate::ledger::LedgerPruned;
use crate::sql::mysql::bodies;
use crate::sql::mysql::connection::failed;
use crate::sql::mysql::json::json_rows;
use crate::sql::rows::{hex, to_json};

const STAGE: &str = "prune the ledger";

/// The contracts that have mail whose time is over, each with the time that what is over was finished by. The parameters are now, the
/// days where the contract names none, and how many contracts.
macro_rules! contracts {
    ($index:literal, $of:literal, $days:literal) => {
        concat!(
            "SELECT over_by.contract, over_by.at FROM (
                SELECT oldest.contract, oldest.finished_at, ? - 86400000 * COALESCE((
                    SELECT CAST(JSON_VALUE(k.settings, '$.retention.",
            $days,
            "') AS SIGNED) FROM postroom_contract k WHERE k.id = oldest.contract), ?) AS at
                FROM (SELECT ",
            $of,
            " AS contract, MIN(finished_at) AS finished_at FROM postroom_ledger_mail FORCE INDEX (",
            $index,
            ") WHERE ",
            $of,
            " >= '' GROUP BY ",
            $of,
            ") oldest) over_by
            WHERE over_by.finished_at <= over_by.at LIMIT ?"
        )
    };
}

/// The mails of such a contract. What a person is about to replay is left to him.
macro_rules! mails {
    ($index:literal, $of:literal) => {
        concat!(
            "SELECT id, body FROM postroom_ledger_mail FORCE INDEX (",
            $index,
            ") WHERE ",
            $of,
            " = ? AND finished_at <= ? ORDER BY finished_at LIMIT ? FOR UPDATE SKIP LOCKED"
        )
    };
}

/// Bytes, done, dead.
pub(in crate::sql::mysql) const OVER: [[&str; 2]; 3] = [
    [contracts!("postroom_ledger_mail_raw", "raw_of", "raw"), mails!("postroom_ledger_mail_raw", "raw_of")],
    [
        contracts!("postroom_ledger_mail_done", "done_of", "timelines"),
        mails!("postroom_ledger_mail_done", "done_of"),
    ],
    [
        contracts!("postroom_ledger_mail_dead", "dead_of", "dead"),
        mails!("postroom_ledger_mail_dead", "dead_of"),
    ],
];

pub(in crate::sql::mysql) const TOLD: &str = concat!(
    "DELETE e FROM ",
    json_rows!("?"; sought id ""),
    " j STRAIGHT_JOIN postroom_event e FORCE INDEX (postroom_event_mail) ON e.mail = UNHEX(j.sought)"
);

/// The parameters are the mails and now.
pub(in crate::sql::mysql) const STRIPPED: &str = concat!(
    "UPDATE ",
    json_rows!("?"; sought id ""),
    " j STRAIGHT_JOIN postroom_ledger_mail m FORCE INDEX (postroom_ledger_mail_id) ON m.id = UNHEX(j.sought)
    SET m.sender = '', m.subject = '', m.message_id = NULL, m.record = NULL, m.body = NULL, m.bare_at = ?"
);

pub(in crate::sql::mysql) const EMPTIED: &str = concat!(
    "UPDATE ",
    json_rows!("?"; sought id ""),
    " j STRAIGHT_JOIN postroom_ledger_mail m FORCE INDEX (postroom_ledger_mail_id) ON m.id = UNHEX(j.sought)
    SET m.body = NULL"
);

async fn over(
    tx: &mut MySqlConnection,
    [contracts, mails]: [&'static str; 2],
    now: Timestamp,
    days: u32,
    limit: u32,
) -> Result<Vec<(Uuid, Option<Uuid>)>> {
    let query = sqlx::query_as(contracts).bind(now.as_millis()).bind(i64::from(days)).bind(i64::from(limit));
    let contracts: Vec<(String, i64)> = query.fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
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
    let ids: BTreeSet<String> = mails.iter().map(|(id, _)| hex(*id)).collect();
    to_json(&ids)
}

pub(super) async fn prune_in(tx: &mut MySqlConnection, now: Timestamp, limit: u32) -> Result<LedgerPruned> {
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
