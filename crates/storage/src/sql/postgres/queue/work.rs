//! Dispatchers' work: which outboxes have due mail, claims, marks, settlements, leases.

use async_trait::async_trait;
use postroom_core::budget::Wait;
use postroom_core::id::{BodyId, ClaimId, MailboxId, QueueId, WorkerId};
use postroom_core::queue::Event;
use postroom_core::time::Timestamp;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::row::{Edit, load, save, save_served};
use crate::error::Result;
use crate::queue::{Attempt, ClaimMark, Claimed, QueueWork, RecipientResult, Settled, Settlement, Sweep};
use crate::sql::combine::ClaimOrder;
use crate::sql::postgres::budgets::{self, Account};
use crate::sql::postgres::connection::{failed, write};
use crate::sql::postgres::lanes::{self, Line};
use crate::sql::postgres::store::PgStore;
use crate::sql::rows::{new_claim, optional, small, text, time, unreadable};
use crate::transition::lease::Lease;

const CLAIM: &str = "claim mails";

/// How many mails one transaction of a sweep changes: nobody who writes waits for a long one.
const SWEEP: i64 = 500;

/// A mail of a line that may be sent now; `l` is the line. The offset keeps the planner from turning it into a join that walks
/// over the mail of all lines.
macro_rules! first_mail {
    () => {
        "SELECT q.mail FROM postroom_queue_open q
            WHERE q.outbox = l.outbox AND NOT q.paused AND q.priority = l.priority AND q.contract = l.contract
                AND q.claim IS NULL AND q.state = 'queued' AND q.due_at <= $1 AND q.expires_at > $1
            OFFSET 0"
    };
}

pub(in crate::sql::postgres) const DUE_OUTBOXES: &str = concat!(
    "SELECT d.outbox FROM postroom_queue_lane d
    WHERE NOT d.blocked AND d.due_at IS NOT NULL AND d.due_at <= $1 AND (d.retry_at IS NULL OR d.retry_at <= $1)
        AND (d.spent_until IS NULL OR d.spent_until <= $1)
        AND NOT EXISTS (SELECT 1 FROM postroom_pause WHERE scope = 'system')
        AND EXISTS (SELECT 1 FROM postroom_queue_line l
            WHERE l.outbox = d.outbox AND l.priority IN (0, 1, 2) AND l.ready_at IS NOT NULL AND l.ready_at <= $1
                AND EXISTS (",
    first_mail!(),
    "))
    ORDER BY d.due_at, d.outbox LIMIT $2"
);

/// The lines of one priority whose turn it is, in order, unless there are some of a higher one.
macro_rules! due {
    ($rank:literal, $unless:literal) => {
        concat!(
            "AS MATERIALIZED (SELECT l.priority, l.ready_at, l.turn, l.contract FROM postroom_queue_line l
                WHERE l.outbox = $2 AND l.priority = ",
            $rank,
            " AND l.ready_at IS NOT NULL AND l.ready_at <= $1 AND (SELECT count(*) FROM outbox) > 0 ",
            $unless,
            " AND EXISTS (",
            first_mail!(),
            ") ORDER BY l.ready_at, l.turn, l.contract LIMIT $3)"
        )
    };
}

/// Locks the next mails of the lines of one priority, in turn: the first of each, the second of each, and so on. What somebody else
/// is about to claim or to change is left to him. Whether the outbox may be tried is asked of the tables that its lane follows from:
/// the lane may not have followed yet.
pub(in crate::sql::postgres) const DUE: &str = concat!(
    "WITH outbox AS MATERIALIZED (
        SELECT d.limited FROM postroom_mailbox m JOIN postroom_queue_lane d ON d.outbox = m.id
        LEFT JOIN postroom_health h ON h.mailbox = m.id
        WHERE m.id = $2 AND m.kind = 'outbox' AND m.status = 'active' AND NOT coalesce(h.suspended, false)
            AND (h.next_attempt IS NULL OR h.next_attempt <= $1 OR h.prober = $4)
            AND (d.spent_until IS NULL OR d.spent_until <= $1)
            AND NOT EXISTS (SELECT 1 FROM postroom_pause WHERE scope = 'outbox' AND subject = m.id::text)
            AND NOT EXISTS (SELECT 1 FROM postroom_pause WHERE scope = 'system')
    ), high ",
    due!("0", ""),
    ", normal ",
    due!("1", "AND (SELECT count(*) FROM high) = 0"),
    ", low ",
    due!("2", "AND (SELECT count(*) FROM high) = 0 AND (SELECT count(*) FROM normal) = 0"),
    ", lines AS MATERIALIZED (
        SELECT priority, contract, row_number() OVER (ORDER BY ready_at, turn, contract) AS place
        FROM (SELECT * FROM high UNION ALL SELECT * FROM normal UNION ALL SELECT * FROM low) l
    ), mails AS MATERIALIZED (
        SELECT l.place, q.mail, q.due_at FROM lines l CROSS JOIN LATERAL (
            SELECT q.mail, q.due_at FROM postroom_queue_open q
            WHERE q.outbox = $2 AND NOT q.paused AND q.priority = l.priority AND q.contract = l.contract
                AND q.claim IS NULL AND q.state = 'queued' AND q.due_at <= $1 AND q.expires_at > $1
            ORDER BY q.due_at, q.mail
            LIMIT (SELECT ceil($3::numeric / greatest(count(*), 1))::bigint FROM lines)
            FOR UPDATE SKIP LOCKED) q
    )
    SELECT mail, (SELECT limited FROM outbox) FROM (
        SELECT mail, place, row_number() OVER (PARTITION BY place ORDER BY due_at, mail) AS turn FROM mails) m
    ORDER BY turn, place LIMIT $3"
);

pub(in crate::sql::postgres) const FROZEN: &str =
    "SELECT m.id, m.contract, m.sender, m.return_path, m.body, m.size, CASE WHEN m.size <= 262144 THEN
        (SELECT p.content FROM postroom_body_piece p WHERE p.body = m.body AND p.number = 0) END
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
        WHERE due_at IS NOT NULL AND retry_at IS NOT NULL AND retry_at > $1
    UNION ALL
    SELECT min(spent_until) FROM postroom_queue_lane
        WHERE due_at IS NOT NULL AND spent_until IS NOT NULL AND spent_until > $1) next";

pub(in crate::sql::postgres) const OPEN_CLAIMS: &str =
    "SELECT count(*) FROM postroom_queue_open WHERE claim IS NOT NULL";

/// What is frozen of a mail: id, contract, sender, return path, body, size, and the content where that is one piece.
type Frozen = (Uuid, String, String, Option<String>, Option<Uuid>, i64, Option<Vec<u8>>);

/// What was claimed so far, and what of the outbox's budget is left for more.
#[derive(Default)]
struct Claiming {
    claimed: Vec<Claimed>,
    account: Option<Account>,
    /// What the next mail waits for.
    waits: Option<Wait>,
}

/// Claims due mails of an outbox, as far as its budget goes: each line of the highest priority has its turn, and another, until
/// there are enough.
pub(super) async fn claim_in(
    tx: &mut PgConnection,
    now: Timestamp,
    order: ClaimOrder,
) -> Result<Vec<Claimed>> {
    let mut all = Claiming::default();
    let mut left = order.limit;
    while left > 0 && all.waits.is_none() {
        let due = sqlx::query_as(DUE).bind(now.as_millis()).bind(order.outbox.number());
        let due = due.bind(i64::from(left)).bind(order.worker.uuid()).fetch_all(&mut *tx).await;
        let due: Vec<(Uuid, bool)> = due.map_err(failed(CLAIM))?;
        let Some((_, limited)) = due.first() else { break };
        if *limited && all.account.is_none() {
            all.account = budgets::held(tx, order.outbox).await?;
        }
        left = left.saturating_sub(u32::try_from(due.len()).unwrap_or(u32::MAX));
        take(tx, now, order, due.into_iter().map(|(id, _)| id).collect(), &mut all).await?;
    }
    let Claiming { claimed, account, waits } = all;
    if let Some(account) = account {
        // The last mail that fits says already until when the next one waits: nobody has to ask for it in vain.
        let waits = waits.or_else(|| account.budget.wait(account.limits, now, 1));
        account.save(tx, waits).await?;
    }
    Ok(claimed)
}

async fn take(
    tx: &mut PgConnection,
    now: Timestamp,
    ClaimOrder { outbox, worker, until, .. }: ClaimOrder,
    ids: Vec<Uuid>,
    all: &mut Claiming,
) -> Result<()> {
    let mut edits = load(tx, ids.iter().map(|id| QueueId::from_uuid(*id))).await?;
    let frozen = sqlx::query_as(FROZEN).bind(ids);
    let frozen: Vec<Frozen> = frozen.fetch_all(&mut *tx).await.map_err(failed(CLAIM))?;
    let mut served: Vec<Line> = Vec::new();
    for frozen in frozen {
        let edit = edits.get_mut(&QueueId::from_uuid(frozen.0)).ok_or_else(unreadable)?;
        if let Some(account) = &mut all.account
            && let Err(wait) = account.budget.take(account.limits, now, edit.row.queued())
        {
            all.waits = Some(wait);
            break;
        }
        let lease = Lease { claim: new_claim(now)?, worker, until };
        let (places, entry) = edit.row.claim(now, lease);
        edit.note([entry]);
        // A line goes behind all others with the last of its mails.
        let line = edit.line();
        served.retain(|other| *other != line);
        served.push(line);
        match read_claimed(edit, frozen, outbox, lease.claim, &places) {
            Ok(mail) => all.claimed.push(mail),
            Err(_) => bury(edit, now, lease.claim, &places),
        }
    }
    let bells = served.iter().map(|line| lanes::bell(line, Some(now))).collect();
    save_served(tx, edits.into_values(), bells).await
}

/// A mail as its worker gets it.
fn read_claimed(
    edit: &Edit,
    (_, contract, sender, return_path, body, size, content): Frozen,
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
        content: content.map(Into::into),
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

pub(super) async fn mark_in(
    tx: &mut PgConnection,
    now: Timestamp,
    claims: &[&ClaimMark],
) -> Result<Vec<bool>> {
    let mut edits = load(tx, claims.iter().map(|mark| mark.id)).await?;
    let mark = |mark: &&ClaimMark| {
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

pub(super) async fn settle_in(
    tx: &mut PgConnection,
    now: Timestamp,
    settlements: &[&Settlement],
) -> Result<Vec<Settled>> {
    let mut edits = load(tx, settlements.iter().map(|settlement| settlement.id)).await?;
    let settle = |settlement: &&Settlement| {
        let settled = edits.get_mut(&settlement.id).map(|edit| {
            let (settled, entries) = edit.row.settle(now, settlement);
            edit.note(entries);
            settled
        });
        settled.unwrap_or(Settled::Ignored)
    };
    let settled: Vec<Settled> = settlements.iter().map(settle).collect();
    let outboxes: Vec<i64> = settlements
        .iter()
        .map(|settlement| edits.get(&settlement.id).map_or(0, |edit| edit.line().0))
        .collect();
    save(tx, edits.into_values()).await?;
    let of = outboxes.into_iter().zip(settlements).zip(&settled);
    budgets::give_back(tx, of.map(|((outbox, settlement), settled)| (outbox, *settlement, *settled))).await?;
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
        lanes::answer(&self.connections).await?;
        self.work.claim(now, ClaimOrder { outbox, limit, worker, until }).await
    }

    async fn mark(&self, now: Timestamp, claims: &[ClaimMark]) -> Result<Vec<bool>> {
        self.work.mark(now, claims).await
    }

    async fn settle(&self, now: Timestamp, settlements: &[Settlement]) -> Result<Vec<Settled>> {
        self.work.settle(now, settlements).await
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
