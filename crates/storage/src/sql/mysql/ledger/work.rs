//! Handlers' work: claims, results, leases.

use async_trait::async_trait;
use postroom_core::id::{LedgerId, WorkerId};
use postroom_core::time::Timestamp;
use sqlx::mysql::MySqlConnection;
use uuid::Uuid;

use super::row::{load, save};
use crate::error::Result;
use crate::ledger::{ClaimedMail, Committing, HandlerResult, LedgerWork};
use crate::sql::mysql::connection::{failed, write};
use crate::sql::mysql::json::json_rows;
use crate::sql::mysql::locks;
use crate::sql::mysql::store::MySqlStore;
use crate::sql::rows::{new_claim, small, time, to_json};
use crate::transition::lease::Lease;

/// Goes from mailbox to mailbox and takes of each that has no live claim its first due mail; the longest stored first,
/// so that no mailbox with much mail holds up another. The parameters are now, three times, and how many.
pub(in crate::sql::mysql) const DUE: &str = "SELECT o.mail FROM (
        SELECT (SELECT o.number FROM postroom_ledger_open o FORCE INDEX (postroom_ledger_open_order)
            WHERE o.mailbox = box.mailbox AND o.due_at <= ? AND (o.lease_until IS NULL OR o.lease_until <= ?)
            ORDER BY o.number LIMIT 1) AS number
        FROM (SELECT mailbox FROM postroom_ledger_open FORCE INDEX (postroom_ledger_open_order)
            WHERE mailbox >= 0 GROUP BY mailbox) box
        WHERE NOT EXISTS (
            SELECT 1 FROM postroom_ledger_open l FORCE INDEX (postroom_ledger_open_lease)
            WHERE l.mailbox = box.mailbox AND l.lease_until > ?)) due
    STRAIGHT_JOIN postroom_ledger_open o FORCE INDEX (PRIMARY) ON o.number = due.number
    ORDER BY o.number LIMIT ?";

/// The mails that a worker has, in the order in which everybody locks mails.
pub(in crate::sql::mysql) const MINE: &str =
    "SELECT number FROM postroom_ledger_open FORCE INDEX (postroom_ledger_open_leases)
    WHERE lease_until > ? AND worker = ? ORDER BY number";

pub(in crate::sql::mysql) const RENEW: &str = concat!(
    "UPDATE ",
    json_rows!("?"; sought number ""),
    " j STRAIGHT_JOIN postroom_ledger_open o FORCE INDEX (PRIMARY) ON o.number = j.sought
    SET o.lease_until = ? WHERE o.lease_until > ? AND o.worker = ?"
);

pub(in crate::sql::mysql) const NEXT_DUE: &str = "SELECT MIN(at) FROM (
    SELECT MIN(waiting_at) AS at FROM postroom_ledger_open WHERE waiting_at > ?
    UNION ALL
    SELECT MIN(lease_until) FROM postroom_ledger_open WHERE lease_until > ?) next_due";

pub(in crate::sql::mysql) const OPEN_CLAIMS: &str = "SELECT COUNT(*) FROM postroom_ledger_open FORCE INDEX (postroom_ledger_open_leases) WHERE lease_until IS NOT NULL";

pub(in crate::sql::mysql) const COMPLETED: &str =
    "SELECT number FROM postroom_ledger_mail WHERE id = ? AND finished_by = ? AND state = 'handled'";

async fn claim_in(
    tx: &mut MySqlConnection,
    now: Timestamp,
    limit: u32,
    worker: WorkerId,
    until: Timestamp,
) -> Result<Vec<ClaimedMail>> {
    locks::handlers(tx).await?;
    let query = sqlx::query_as(DUE).bind(now.as_millis()).bind(now.as_millis());
    let query = query.bind(now.as_millis()).bind(i64::from(limit));
    let due: Vec<(Uuid,)> = query.fetch_all(&mut *tx).await.map_err(failed("claim received mails"))?;
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let mut claimed = Vec::new();
    for mut edit in load(tx, due.into_iter().map(|(id,)| LedgerId::from_uuid(id))).await? {
        // A person or a late handler may have changed it since it was found.
        let Some(body) = edit.mail.body.filter(|_| edit.row.is_due(now)) else { continue };
        let claim = new_claim(now)?;
        let attempt = edit.row.claim(Lease { claim, worker, until });
        save(tx, &edit, []).await?;
        claimed.push(ClaimedMail { claim, item: edit.mail.item, attempt, body });
    }
    Ok(claimed)
}

async fn finish_in(tx: &mut MySqlConnection, now: Timestamp, result: &HandlerResult) -> Result<bool> {
    let Some(mut edit) = load(tx, [result.id]).await?.pop() else { return Ok(false) };
    let Some(entry) = edit.row.finish(now, result)? else { return Ok(false) };
    save(tx, &edit, [entry]).await?;
    Ok(true)
}

async fn renew_in(
    tx: &mut MySqlConnection,
    now: Timestamp,
    worker: WorkerId,
    until: Timestamp,
) -> Result<u64> {
    const STAGE: &str = "renew claims";
    let mine = sqlx::query_as(MINE).bind(now.as_millis()).bind(worker.uuid()).fetch_all(&mut *tx).await;
    let mine: Vec<(i64,)> = mine.map_err(failed(STAGE))?;
    let mine: Vec<i64> = mine.into_iter().map(|(number,)| number).collect();
    let renew = sqlx::query(RENEW).bind(to_json(&mine)?);
    let renew = renew.bind(until.as_millis()).bind(now.as_millis()).bind(worker.uuid());
    Ok(renew.execute(tx).await.map_err(failed(STAGE))?.rows_affected())
}

#[async_trait]
impl LedgerWork for MySqlStore {
    async fn claim(
        &self,
        now: Timestamp,
        limit: u32,
        worker: WorkerId,
        until: Timestamp,
    ) -> Result<Vec<ClaimedMail>> {
        write!(self.connections, "claim received mails", |tx| claim_in(tx, now, limit, worker, until).await)
    }

    async fn finish(&self, now: Timestamp, result: &HandlerResult) -> Result<bool> {
        write!(self.connections, "finish a received mail", |tx| finish_in(tx, now, result).await)
    }

    async fn completed(&self, claim: &Committing) -> Result<bool> {
        const STAGE: &str = "verify what a host committed";
        let mut read = self.connections.read(STAGE).await?;
        let query = sqlx::query_as(COMPLETED).bind(claim.id.uuid()).bind(claim.claim.uuid());
        let row = query.fetch_optional(&mut *read).await.map_err(failed(STAGE));
        let row: Option<(i64,)> = read.finish(row).await?;
        Ok(row.is_some())
    }

    async fn renew(&self, now: Timestamp, worker: WorkerId, until: Timestamp) -> Result<u64> {
        write!(self.connections, "renew claims", |tx| renew_in(tx, now, worker, until).await)
    }

    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        const STAGE: &str = "find when a received mail is due";
        let mut read = self.connections.read(STAGE).await?;
        let query = sqlx::query_as(NEXT_DUE).bind(now.as_millis()).bind(now.as_millis());
        let row = query.fetch_one(&mut *read).await.map_err(failed(STAGE));
        let (at,): (Option<i64>,) = read.finish(row).await?;
        Ok(at.map(time))
    }

    async fn open_claims(&self) -> Result<u64> {
        const STAGE: &str = "count claims";
        let mut read = self.connections.read(STAGE).await?;
        let row = sqlx::query_as(OPEN_CLAIMS).fetch_one(&mut *read).await.map_err(failed(STAGE));
        let (claims,): (i64,) = read.finish(row).await?;
        small(claims)
    }
}
