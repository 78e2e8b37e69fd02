//! Dispatchers' work: which outboxes have due mail, marks, settlements, leases, and the port. Claims are in `claim`.

use std::collections::BTreeMap;

use async_trait::async_trait;
use postroom_core::id::{MailboxId, QueueId, WorkerId};
use postroom_core::time::Timestamp;
use sqlx::mysql::MySqlConnection;
use uuid::Uuid;

use super::claim::first_mail;
use super::row::{Edit, load, save};
use crate::error::Result;
use crate::queue::{ClaimMark, Claimed, QueueWork, Settled, Settlement, Sweep};
use crate::sql::combine::ClaimOrder;
use crate::sql::mysql::connection::{failed, write};
use crate::sql::mysql::json::json_rows;
use crate::sql::mysql::lanes;
use crate::sql::mysql::store::MySqlStore;
use crate::sql::rows::{queue_ids, small, time};

/// How many mails one transaction of a sweep changes: nobody who writes waits for a long one.
const SWEEP: i64 = 500;

/// The parameters are the time, six times, and how many.
pub(in crate::sql::mysql) const DUE_OUTBOXES: &str = concat!(
    "SELECT d.outbox FROM postroom_queue_lane d FORCE INDEX (postroom_queue_lane_due)
    WHERE d.open_at <= ? AND (d.retry_at IS NULL OR d.retry_at <= ?) AND (d.spent_until IS NULL OR d.spent_until <= ?)
        AND NOT EXISTS (SELECT 1 FROM postroom_pause p WHERE p.scope = 'system' AND p.subject = '')
        AND EXISTS (SELECT 1 FROM postroom_queue_line l FORCE INDEX (postroom_queue_line_ready)
            WHERE l.outbox = d.outbox AND l.priority IN (0, 1, 2) AND l.ready_at <= ? AND EXISTS (",
    first_mail!(),
    "))
    ORDER BY d.open_at, d.outbox LIMIT ?"
);

/// The mails that a worker has, in the order in which everybody locks mails.
pub(in crate::sql::mysql) const MINE: &str =
    "SELECT mail FROM postroom_queue_open FORCE INDEX (postroom_queue_open_lease)
    WHERE lease_until > ? AND worker = ? ORDER BY mail";

pub(in crate::sql::mysql) const RENEW: &str = concat!(
    "UPDATE ",
    json_rows!("?"; sought id ""),
    " j STRAIGHT_JOIN postroom_queue_open o FORCE INDEX (PRIMARY) ON o.mail = UNHEX(j.sought)
    SET o.lease_until = ? WHERE o.lease_until > ? AND o.worker = ?"
);

pub(in crate::sql::mysql) const OVERDUE: &str = "SELECT mail FROM (
        (SELECT mail FROM postroom_queue_open FORCE INDEX (postroom_queue_open_lease) WHERE lease_until <= ? LIMIT ?)
        UNION ALL
        (SELECT mail FROM postroom_queue_open FORCE INDEX (postroom_queue_open_expiry) WHERE expiring_at <= ? LIMIT ?)) overdue
    LIMIT ?";

pub(in crate::sql::mysql) const NEXT_DUE: &str = "SELECT MIN(at) FROM (
    SELECT MIN(queued_at) AS at FROM postroom_queue_open WHERE queued_at > ?
    UNION ALL
    SELECT MIN(expiring_at) FROM postroom_queue_open WHERE expiring_at > ?
    UNION ALL
    SELECT MIN(lease_until) FROM postroom_queue_open WHERE lease_until > ?
    UNION ALL
    SELECT MIN(tried_at) FROM postroom_queue_lane WHERE tried_at > ?
    UNION ALL
    SELECT MIN(spent_at) FROM postroom_queue_lane WHERE spent_at > ?) next_due";

pub(in crate::sql::mysql) const OPEN_CLAIMS: &str = "SELECT COUNT(*) FROM postroom_queue_open FORCE INDEX (postroom_queue_open_lease) WHERE lease_until IS NOT NULL";

/// What settlements and marks change of the mails that were read for them. Gives what became of each settlement, with the outbox of its
/// mail, and whether each mark was set.
pub(super) fn settle_and_mark(
    now: Timestamp,
    settlements: &[&Settlement],
    marks: &[&ClaimMark],
    edits: &mut BTreeMap<QueueId, Edit>,
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

async fn renew_in(
    tx: &mut MySqlConnection,
    now: Timestamp,
    worker: WorkerId,
    until: Timestamp,
) -> Result<u64> {
    const STAGE: &str = "renew claims";
    let mine = sqlx::query_as(MINE).bind(now.as_millis()).bind(worker.uuid()).fetch_all(&mut *tx).await;
    let mine: Vec<(Uuid,)> = mine.map_err(failed(STAGE))?;
    let renew = sqlx::query(RENEW).bind(queue_ids(mine.into_iter().map(|(id,)| QueueId::from_uuid(id)))?);
    let renew = renew.bind(until.as_millis()).bind(now.as_millis()).bind(worker.uuid());
    Ok(renew.execute(tx).await.map_err(failed(STAGE))?.rows_affected())
}

/// Sweeps a few mails. Gives none when none was left.
async fn sweep_in(tx: &mut MySqlConnection, now: Timestamp) -> Result<Option<Sweep>> {
    let overdue = sqlx::query_as(OVERDUE).bind(now.as_millis()).bind(SWEEP);
    let overdue = overdue.bind(now.as_millis()).bind(SWEEP).bind(SWEEP);
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
impl QueueWork for MySqlStore {
    async fn due_outboxes(&self, now: Timestamp, limit: u32) -> Result<Vec<MailboxId>> {
        const STAGE: &str = "find due outboxes";
        lanes::answer(&self.connections).await?;
        let mut read = self.connections.read(STAGE).await?;
        let mut query = sqlx::query_as(DUE_OUTBOXES);
        for _ in 0..6 {
            query = query.bind(now.as_millis());
        }
        let query = query.bind(i64::from(limit));
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
        self.work.claim(now, ClaimOrder { outbox, limit, worker, until }).await
    }

    async fn mark(&self, now: Timestamp, claims: &[ClaimMark]) -> Result<Vec<bool>> {
        self.work.mark(now, claims).await
    }

    async fn settle(&self, now: Timestamp, settlements: &[Settlement]) -> Result<Vec<Settled>> {
        self.work.settle(now, settlements).await
    }

    async fn renew(&self, now: Timestamp, worker: WorkerId, until: Timestamp) -> Result<u64> {
        write!(self.connections, "renew claims", |tx| renew_in(tx, now, worker, until).await)
    }

    async fn expire(&self, now: Timestamp) -> Result<Sweep> {
        let mut total = Sweep::default();
        loop {
            let done = write!(self.connections, "sweep the queue", |tx| sweep_in(tx, now).await)?;
            let Some(sweep) = done else { return Ok(total) };
            total.released += sweep.released;
            total.doubted += sweep.doubted;
            total.expired += sweep.expired;
        }
    }

    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        const STAGE: &str = "find when a mail is due";
        lanes::answer(&self.connections).await?;
        let mut read = self.connections.read(STAGE).await?;
        let mut query = sqlx::query_as(NEXT_DUE);
        for _ in 0..5 {
            query = query.bind(now.as_millis());
        }
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
