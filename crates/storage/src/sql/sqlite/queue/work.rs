//! Dispatchers' work: which outboxes have due mail, claims, marks, settlements, leases.

use async_trait::async_trait;
use postroom_core::id::{MailboxId, QueueId, WorkerId};
use postroom_core::time::Timestamp;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::claim::may_be_sent;
use super::row::{Edits, load, save};
use crate::error::Result;
use crate::queue::{ClaimMark, Claimed, QueueWork, Settled, Settlement, Sweep};
use crate::sql::combine::ClaimOrder;
use crate::sql::rows::{small, time};
use crate::sql::sqlite::connection::failed;
use crate::sql::sqlite::store::SqliteStore;

/// How many mails one transaction of a sweep changes: nobody who writes waits for a long one.
const SWEEP: i64 = 500;

/// `LIMIT ?2 + 0`, here and below: SQLite looks at the value of a parameter that stands alone there when it makes the plan, and so makes
/// it anew for each call.
pub(in crate::sql::sqlite) const DUE_OUTBOXES: &str = concat!(
    "SELECT d.outbox FROM postroom_queue_lane d
    WHERE d.blocked = 0 AND d.due_at IS NOT NULL AND d.due_at <= ?1 AND (d.retry_at IS NULL OR d.retry_at <= ?1)
        AND (d.spent_until IS NULL OR d.spent_until <= ?1)
        AND NOT EXISTS (SELECT 1 FROM postroom_pause WHERE scope = 'system')
        AND EXISTS (SELECT 1 FROM postroom_queue_line l
            WHERE l.outbox = d.outbox AND l.priority IN (0, 1, 2) AND l.ready_at IS NOT NULL AND l.ready_at <= ?1
                AND EXISTS (SELECT 1 ",
    may_be_sent!(),
    "))
    ORDER BY d.due_at, d.outbox LIMIT ?2 + 0"
);

pub(in crate::sql::sqlite) const RENEW: &str = "UPDATE postroom_queue_open SET lease_until = ?3
    WHERE claim IS NOT NULL AND lease_until > ?1 AND worker = ?2";

pub(in crate::sql::sqlite) const OVERDUE: &str = "SELECT mail FROM (
        SELECT mail FROM postroom_queue_open WHERE claim IS NOT NULL AND lease_until <= ?1
        UNION ALL
        SELECT mail FROM postroom_queue_open
            WHERE claim IS NULL AND state IN ('queued', 'held') AND expires_at <= ?1)
    LIMIT ?2 + 0";

pub(in crate::sql::sqlite) const NEXT_DUE: &str = "SELECT min(at) FROM (
    SELECT min(due_at) AS at FROM postroom_queue_open
        WHERE claim IS NULL AND state = 'queued' AND due_at > ?1
    UNION ALL
    SELECT min(expires_at) FROM postroom_queue_open
        WHERE claim IS NULL AND state IN ('queued', 'held') AND expires_at > ?1
    UNION ALL
    SELECT min(lease_until) FROM postroom_queue_open WHERE claim IS NOT NULL AND lease_until > ?1
    UNION ALL
    SELECT min(retry_at) FROM postroom_queue_lane
        WHERE due_at IS NOT NULL AND retry_at IS NOT NULL AND retry_at > ?1
    UNION ALL
    SELECT min(spent_until) FROM postroom_queue_lane
        WHERE due_at IS NOT NULL AND spent_until IS NOT NULL AND spent_until > ?1)";

pub(in crate::sql::sqlite) const OPEN_CLAIMS: &str =
    "SELECT count(*) FROM postroom_queue_open WHERE claim IS NOT NULL";

/// What settlements and marks change of the mails that were read for them: what a server said comes first. Gives what became of each
/// settlement, with the outbox of its mail, and whether each mark was set.
pub(super) fn settle_and_mark(
    now: Timestamp,
    settlements: &[&Settlement],
    marks: &[&ClaimMark],
    edits: &mut Edits,
) -> (Vec<(i64, Settled)>, Vec<bool>) {
    let settle = |settlement: &&Settlement| {
        let Some(edit) = edits.get_mut(&settlement.id) else { return (0, Settled::Ignored) };
        let (settled, entries) = edit.row.settle(now, settlement);
        edit.note(entries);
        (edit.line().0, settled)
    };
    let settled = settlements.iter().map(settle).collect();
    let mark = |mark: &&ClaimMark| {
        let marked = edits.get_mut(&mark.id).and_then(|edit| {
            let entries = edit.row.mark(now, mark.claim)?;
            edit.note(entries);
            Some(())
        });
        marked.is_some()
    };
    (settled, marks.iter().map(mark).collect())
}

/// Sweeps a few mails. Gives none when none was left.
async fn sweep_in(tx: &mut SqliteConnection, now: Timestamp) -> Result<Option<Sweep>> {
    let overdue = sqlx::query_as(OVERDUE).bind(now.as_millis()).bind(SWEEP);
    let overdue: Vec<(Uuid,)> = overdue.fetch_all(&mut *tx).await.map_err(failed("sweep the queue"))?;
    if overdue.is_empty() {
        return Ok(None);
    }
    let mut edits = load(tx, overdue.into_iter().map(|(id,)| QueueId::from_uuid(id))).await?;
    let mut total = Sweep::default();
    for edit in edits.values_mut() {
        let (sweep, entries) = edit.row.sweep(now);
        edit.note(entries);
        total.released += sweep.released;
        total.doubted += sweep.doubted;
        total.expired += sweep.expired;
    }
    save(tx, edits.into_values()).await?;
    Ok(Some(total))
}

#[async_trait]
impl QueueWork for SqliteStore {
    async fn due_outboxes(&self, now: Timestamp, limit: u32) -> Result<Vec<MailboxId>> {
        const STAGE: &str = "find due outboxes";
        let mut read = self.connections.read(STAGE).await?;
        let query = sqlx::query_as(DUE_OUTBOXES).bind(now.as_millis()).bind(i64::from(limit));
        let rows = query.fetch_all(&mut *read).await.map_err(failed(STAGE));
        let rows: Vec<(i64,)> = read.finish(rows).await?;
        Ok(rows.into_iter().map(|(id,)| MailboxId::new(id)).collect())
    }

    async fn claim(
        &self,
        now: Timestamp,
        outbox: MailboxId,
        limit: u32,
        worker: WorkerId,
        until: Timestamp,
    ) -> Result<Vec<Claimed>> {
        self.queue.claim(now, ClaimOrder { outbox, limit, worker, until }).await
    }

    async fn mark(&self, now: Timestamp, claims: &[ClaimMark]) -> Result<Vec<bool>> {
        self.queue.mark(now, claims).await
    }

    async fn settle(&self, now: Timestamp, settlements: &[Settlement]) -> Result<Vec<Settled>> {
        self.queue.settle(now, settlements).await
    }

    async fn renew(&self, now: Timestamp, worker: WorkerId, until: Timestamp) -> Result<u64> {
        const STAGE: &str = "renew claims";
        let mut tx = self.connections.write(STAGE).await?;
        let query = sqlx::query(RENEW).bind(now.as_millis()).bind(worker.uuid()).bind(until.as_millis());
        let done = query.execute(&mut *tx).await.map_err(failed(STAGE));
        Ok(tx.finish(done).await?.rows_affected())
    }

    async fn expire(&self, now: Timestamp) -> Result<Sweep> {
        let mut total = Sweep::default();
        loop {
            let mut tx = self.connections.write("sweep the queue").await?;
            let done = sweep_in(&mut tx, now).await;
            let Some(sweep) = tx.finish(done).await? else { return Ok(total) };
            total.released += sweep.released;
            total.doubted += sweep.doubted;
            total.expired += sweep.expired;
        }
    }

    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        const STAGE: &str = "find when a mail is due";
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
