//! Handlers' work: claims, results, leases.

use async_trait::async_trait;
use postroom_core::id::{LedgerId, WorkerId};
use postroom_core::time::Timestamp;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::row::{load, save};
use crate::error::Result;
use crate::ledger::{ClaimedMail, Committing, HandlerResult, LedgerWork};
use crate::sql::postgres::connection::{failed, write};
use crate::sql::postgres::locks;
use crate::sql::postgres::store::PgStore;
use crate::sql::rows::{new_claim, small, time};
use crate::transition::lease::Lease;

/// Hops from mailbox to mailbox and takes of each that has no live claim its first due mail; the longest stored first,
/// so that no mailbox with much mail holds up another.
pub(in crate::sql::postgres) const DUE: &str = "WITH RECURSIVE box (mailbox) AS (
        (SELECT mailbox FROM postroom_ledger_open WHERE mailbox >= 0 ORDER BY mailbox LIMIT 1)
        UNION ALL
        SELECT (SELECT o.mailbox FROM postroom_ledger_open o WHERE o.mailbox > box.mailbox ORDER BY o.mailbox LIMIT 1)
            FROM box WHERE box.mailbox IS NOT NULL
    ), due (number) AS (
        SELECT (SELECT o.number FROM postroom_ledger_open o
            WHERE o.mailbox = box.mailbox AND o.due_at <= $1 AND (o.lease_until IS NULL OR o.lease_until <= $1)
            ORDER BY o.number LIMIT 1)
        FROM box WHERE box.mailbox IS NOT NULL AND NOT EXISTS (SELECT 1 FROM postroom_ledger_open l
            WHERE l.claim IS NOT NULL AND l.mailbox = box.mailbox AND l.lease_until > $1)
    )
    SELECT o.mail FROM due JOIN postroom_ledger_open o ON o.number = due.number ORDER BY o.number LIMIT $2";

pub(in crate::sql::postgres) const RENEW: &str = "WITH mine AS MATERIALIZED (
        SELECT number FROM postroom_ledger_open
        WHERE claim IS NOT NULL AND lease_until > $1 AND worker = $2 ORDER BY number FOR UPDATE
    )
    UPDATE postroom_ledger_open o SET lease_until = $3 FROM mine WHERE o.number = mine.number";

pub(in crate::sql::postgres) const NEXT_DUE: &str = "SELECT min(at) FROM (
    SELECT min(due_at) AS at FROM postroom_ledger_open WHERE claim IS NULL AND due_at > $1
    UNION ALL
    SELECT min(lease_until) FROM postroom_ledger_open WHERE claim IS NOT NULL AND lease_until > $1) next";

pub(in crate::sql::postgres) const OPEN_CLAIMS: &str =
    "SELECT count(*) FROM postroom_ledger_open WHERE claim IS NOT NULL";

pub(in crate::sql::postgres) const COMPLETED: &str =
    "SELECT number FROM postroom_ledger_mail WHERE id = $1 AND finished_by = $2 AND state = 'handled'";

async fn claim_in(
    tx: &mut PgConnection,
    now: Timestamp,
    limit: u32,
    worker: WorkerId,
    until: Timestamp,
) -> Result<Vec<ClaimedMail>> {
    locks::handlers(tx).await?;
    let query = sqlx::query_as(DUE).bind(now.as_millis()).bind(i64::from(limit));
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

async fn finish_in(tx: &mut PgConnection, now: Timestamp, result: &HandlerResult) -> Result<bool> {
    let Some(mut edit) = load(tx, [result.id]).await?.pop() else { return Ok(false) };
    let Some(entry) = edit.row.finish(now, result)? else { return Ok(false) };
    save(tx, &edit, [entry]).await?;
    Ok(true)
}

#[async_trait]
impl LedgerWork for PgStore {
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
        const STAGE: &str = "renew claims";
        let done = write!(self.connections, STAGE, |tx| {
            let query = sqlx::query(RENEW).bind(now.as_millis()).bind(worker.uuid()).bind(until.as_millis());
            query.execute(tx).await.map_err(failed(STAGE))
        })?;
        Ok(done.rows_affected())
    }

    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        const STAGE: &str = "find when a received mail is due";
        let mut read = self.connections.read(STAGE).await?;
        let query = sqlx::query_as(NEXT_DUE).bind(now.as_millis());
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
