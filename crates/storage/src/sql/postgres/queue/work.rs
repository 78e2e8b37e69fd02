//! Dispatchers' work: which outboxes have due mail, claims, marks, settlements, leases.

use async_trait::async_trait;
use postroom_core::id::{BodyId, ClaimId, MailboxId, QueueId, WorkerId};
use postroom_core::queue::Event;
use postroom_core::time::Timestamp;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::row::{Edit, load, save};
use crate::error::Result;
use crate::queue::{Attempt, ClaimMark, Claimed, QueueWork, RecipientResult, Settled, Settlement, Sweep};
use crate::sql::postgres::connection::{failed, join, write};
use crate::sql::postgres::lanes;
use crate::sql::postgres::store::PgStore;
use crate::sql::rows::{new_claim, optional, small, text, time, unreadable};
use crate::transition::lease::Lease;

/// How many mails one transaction of a sweep changes: nobody who writes waits for a long one.
const SWEEP: i64 = 500;

pub(in crate::sql::postgres) const DUE_OUTBOXES: &str = "SELECT l.outbox FROM postroom_queue_lane l
    WHERE NOT l.blocked AND l.due_at IS NOT NULL AND l.due_at <= $1 AND (l.retry_at IS NULL OR l.retry_at <= $1)
        AND NOT EXISTS (SELECT 1 FROM postroom_pause WHERE scope = 'system')
        AND EXISTS (SELECT 1 FROM postroom_queue_open q
            WHERE q.outbox = l.outbox AND NOT q.paused AND q.priority IN (0, 1, 2)
                AND q.claim IS NULL AND q.state = 'queued' AND q.due_at <= $1 AND q.expires_at > $1)
    ORDER BY l.due_at, l.outbox LIMIT $2";

/// The due mails of one priority, in the order of claiming, no more than are still wanted. What somebody else is about to claim
/// or to change is left to him.
macro_rules! due {
    ($rank:literal, $limit:literal) => {
        concat!(
            "AS MATERIALIZED (SELECT q.mail, q.priority, q.due_at FROM postroom_queue_open q
                WHERE q.outbox = $2 AND NOT q.paused AND q.priority = ",
            $rank,
            " AND q.claim IS NULL AND q.state = 'queued' AND q.due_at <= $1 AND q.expires_at > $1
                    AND (SELECT count(*) FROM outbox) > 0
                ORDER BY q.due_at, q.mail LIMIT ",
            $limit,
            " FOR UPDATE SKIP LOCKED)"
        )
    };
}

/// Locks what is to be claimed. Whether the outbox may be tried is asked of the tables that its lane follows from: the lane may
/// not have followed yet.
pub(in crate::sql::postgres) const DUE: &str = concat!(
    "WITH outbox AS MATERIALIZED (
        SELECT m.id FROM postroom_mailbox m LEFT JOIN postroom_health h ON h.mailbox = m.id
        WHERE m.id = $2 AND m.kind = 'outbox' AND m.status = 'active' AND NOT coalesce(h.suspended, false)
            AND (h.next_attempt IS NULL OR h.next_attempt <= $1)
            AND NOT EXISTS (SELECT 1 FROM postroom_pause WHERE scope = 'outbox' AND subject = m.id::text)
            AND NOT EXISTS (SELECT 1 FROM postroom_pause WHERE scope = 'system')
    ), high ",
    due!("0", "$3"),
    ", normal ",
    due!("1", "(SELECT greatest($3 - count(*), 0) FROM high)"),
    ", low ",
    due!(
        "2",
        "(SELECT greatest($3 - count(*), 0) FROM (SELECT FROM high UNION ALL SELECT FROM normal) taken)"
    ),
    "SELECT mail FROM (SELECT * FROM high UNION ALL SELECT * FROM normal UNION ALL SELECT * FROM low) due
    ORDER BY priority, due_at, mail"
);

pub(in crate::sql::postgres) const FROZEN: &str =
    "SELECT m.id, m.contract, m.sender, m.return_path, m.body, m.size
    FROM unnest($1::uuid[]) WITH ORDINALITY j (id, place) JOIN postroom_queue_mail m ON m.id = j.id
    ORDER BY j.place";

pub(in crate::sql::postgres) const RENEW: &str = "WITH mine AS MATERIALIZED (
        SELECT mail FROM postroom_queue_open
        WHERE claim IS NOT NULL AND lease_until > $1 AND worker = $2 ORDER BY mail FOR UPDATE
    )
    UPDATE postroom_queue_open o SET lease_until = $3 FROM mine WHERE o.mail = mine.mail";

pub(in crate::sql::postgres) const OVERDUE: &str = "SELECT mail FROM (
        SELECT mail FROM postroom_queue_open WHERE claim IS NOT NULL AND lease_until <= $1
        UNION ALL
        SELECT mail FROM postroom_queue_open
            WHERE claim IS NULL AND state IN ('queued', 'held') AND expires_at <= $1) overdue
    LIMIT $2";

pub(in crate::sql::postgres) const NEXT_DUE: &str = "SELECT min(at) FROM (
    SELECT min(due_at) AS at FROM postroom_queue_open
        WHERE claim IS NULL AND state = 'queued' AND due_at > 0 AND due_at > $1
    UNION ALL
    SELECT min(expires_at) FROM postroom_queue_open
        WHERE claim IS NULL AND state IN ('queued', 'held') AND expires_at > $1
    UNION ALL
    SELECT min(lease_until) FROM postroom_queue_open WHERE claim IS NOT NULL AND lease_until > $1
    UNION ALL
    SELECT min(retry_at) FROM postroom_queue_lane
        WHERE due_at IS NOT NULL AND retry_at IS NOT NULL AND retry_at > $1) next";

pub(in crate::sql::postgres) const OPEN_CLAIMS: &str =
    "SELECT count(*) FROM postroom_queue_open WHERE claim IS NOT NULL";

/// What is frozen of a mail: id, contract, sender, return path, body, size.
type Frozen = (Uuid, String, String, Option<String>, Option<Uuid>, i64);

async fn claim_in(
    tx: &mut PgConnection,
    now: Timestamp,
    outbox: MailboxId,
    limit: u32,
    worker: WorkerId,
    until: Timestamp,
) -> Result<Vec<Claimed>> {
    const STAGE: &str = "claim mails";
    let due = sqlx::query_as(DUE).bind(now.as_millis()).bind(outbox.number()).bind(i64::from(limit));
    let due: Vec<(Uuid,)> = due.fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<QueueId> = due.into_iter().map(|(id,)| QueueId::from_uuid(id)).collect();
    let mut edits = load(tx, ids.iter().copied()).await?;
    let ids: Vec<Uuid> = ids.into_iter().map(QueueId::uuid).collect();
    let frozen = sqlx::query_as(FROZEN).bind(ids);
    let frozen: Vec<Frozen> = frozen.fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
    let mut claimed = Vec::new();
    for frozen in frozen {
        let edit = edits.get_mut(&QueueId::from_uuid(frozen.0)).ok_or_else(unreadable)?;
        let lease = Lease { claim: new_claim(now)?, worker, until };
        let (places, entry) = edit.row.claim(now, lease);
        edit.note([entry]);
        match read_claimed(edit, frozen, outbox, lease.claim, &places) {
            Ok(mail) => claimed.push(mail),
            Err(_) => bury(edit, now, lease.claim, &places),
        }
    }
    save(tx, edits.into_values()).await?;
    Ok(claimed)
}

/// A mail as its worker gets it.
fn read_claimed(
    edit: &Edit,
    (_, contract, sender, return_path, body, size): Frozen,
    outbox: MailboxId,
    claim: ClaimId,
    places: &[u32],
) -> Result<Claimed> {
    let address = |place: &u32| {
        let address = usize::try_from(*place).ok().and_then(|place| edit.addresses.get(place));
        Ok((*place, text(address.ok_or_else(unreadable)?)?))
    };
    Ok(Claimed {
        id: edit.id,
        claim,
        contract: text(&contract)?,
        outbox,
        sender: text(&sender)?,
        return_path: optional(return_path)?,
        recipients: places.iter().map(address).collect::<Result<_>>()?,
        attempt: edit.row.attempts.saturating_add(1),
        body: BodyId::from_uuid(body.ok_or_else(unreadable)?),
        size: small(size)?,
        created_at: edit.row.created_at,
        expires_at: edit.row.expires_at,
        on_doubt: edit.row.on_doubt,
    })
}

/// Ends a mail whose row can't be read, so that it alone fails and not every claim of its outbox.
fn bury(edit: &mut Edit, now: Timestamp, claim: ClaimId, places: &[u32]) {
    let detail = "its row can't be read: it is damaged, or of a newer release".to_owned();
    let result = |recipient: &u32| RecipientResult {
        recipient: *recipient,
        event: Event::Die,
        detail: detail.clone(),
    };
    let results = places.iter().map(result).collect();
    let settlement = Settlement { id: edit.id, claim, results, due_at: now, attempt: Attempt::Spent };
    let (_, entries) = edit.row.settle(now, &settlement);
    edit.note(entries);
}

async fn mark_in(tx: &mut PgConnection, now: Timestamp, claims: &[ClaimMark]) -> Result<Vec<bool>> {
    let mut edits = load(tx, claims.iter().map(|mark| mark.id)).await?;
    let mark = |mark: &ClaimMark| {
        let marked = edits.get_mut(&mark.id).and_then(|edit| {
            let entries = edit.row.mark(now, mark.claim)?;
            edit.note(entries);
            Some(())
        });
        marked.is_some()
    };
    let marked = claims.iter().map(mark).collect();
    save(tx, edits.into_values()).await?;
    Ok(marked)
}

async fn settle_in(
    tx: &mut PgConnection,
    now: Timestamp,
    settlements: &[Settlement],
) -> Result<Vec<Settled>> {
    let mut edits = load(tx, settlements.iter().map(|settlement| settlement.id)).await?;
    let settle = |settlement: &Settlement| {
        let settled = edits.get_mut(&settlement.id).map(|edit| {
            let (settled, entries) = edit.row.settle(now, settlement);
            edit.note(entries);
            settled
        });
        settled.unwrap_or(Settled::Ignored)
    };
    let settled = settlements.iter().map(settle).collect();
    save(tx, edits.into_values()).await?;
    Ok(settled)
}

/// Sweeps a few mails. Gives none when none was left.
async fn sweep_in(tx: &mut PgConnection, now: Timestamp) -> Result<Option<Sweep>> {
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
impl QueueWork for PgStore {
    async fn due_outboxes(&self, now: Timestamp, limit: u32) -> Result<Vec<MailboxId>> {
        const STAGE: &str = "find due outboxes";
        lanes::answer(&self.connections).await?;
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
        join!(self.connections, work, "claim mails", |tx| claim_in(tx, now, outbox, limit, worker, until)
            .await)
    }

    async fn mark(&self, now: Timestamp, claims: &[ClaimMark]) -> Result<Vec<bool>> {
        join!(self.connections, work, "mark mails", |tx| mark_in(tx, now, claims).await)
    }

    async fn settle(&self, now: Timestamp, settlements: &[Settlement]) -> Result<Vec<Settled>> {
        join!(self.connections, work, "settle mails", |tx| settle_in(tx, now, settlements).await)
    }

    async fn renew(&self, now: Timestamp, worker: WorkerId, until: Timestamp) -> Result<u64> {
        const STAGE: &str = "renew claims";
        let done = write!(self.connections, STAGE, |tx| {
            let query = sqlx::query(RENEW).bind(now.as_millis()).bind(worker.uuid()).bind(until.as_millis());
            query.execute(tx).await.map_err(failed(STAGE))
        })?;
        Ok(done.rows_affected())
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
