//! Dispatchers' work: which outboxes have due mail, claims, marks, settlements, leases.

use async_trait::async_trait;
use postroom_core::budget::Wait;
use postroom_core::id::{BodyId, ClaimId, MailboxId, QueueId, WorkerId};
use postroom_core::queue::Event;
use postroom_core::time::Timestamp;
use sqlx::mysql::MySqlConnection;
use uuid::Uuid;

use super::row::{Edit, load, save, save_served};
use crate::error::Result;
use crate::queue::{Attempt, ClaimMark, Claimed, QueueWork, RecipientResult, Settled, Settlement, Sweep};
use crate::sql::combine::ClaimOrder;
use crate::sql::mysql::budgets::{self, Account};
use crate::sql::mysql::connection::{failed, write};
use crate::sql::mysql::json::json_rows;
use crate::sql::mysql::lanes::{self, Line};
use crate::sql::mysql::store::MySqlStore;
use crate::sql::rows::{new_claim, optional, queue_ids, small, text, time, unreadable};
use crate::transition::lease::Lease;

const CLAIM: &str = "claim mails";

/// How many mails one transaction of a sweep changes: nobody who writes waits for a long one.
const SWEEP: i64 = 500;

/// A mail of a line that may be sent now; `l` is the line.
macro_rules! first_mail {
    () => {
        "SELECT 1 FROM postroom_queue_open q FORCE INDEX (postroom_queue_open_waiting)
            WHERE q.outbox = l.outbox AND q.priority = l.priority AND q.contract = l.contract
                AND q.waiting_at <= ? AND q.expires_at > ?"
    };
}

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

/// Whether an outbox may be tried, and whether it has limits. It is asked of the tables that its lane follows from: the lane may not
/// have followed yet.
pub(in crate::sql::mysql) const OPEN_OUTBOX: &str =
    "SELECT d.limited FROM postroom_mailbox m JOIN postroom_queue_lane d ON d.outbox = m.id
    LEFT JOIN postroom_health h ON h.mailbox = m.id
    WHERE m.id = ? AND m.kind = 'outbox' AND m.status = 'active' AND NOT COALESCE(h.suspended, FALSE)
        AND (h.next_attempt IS NULL OR h.next_attempt <= ? OR h.prober = ?)
        AND (d.spent_until IS NULL OR d.spent_until <= ?)
        AND NOT EXISTS (SELECT 1 FROM postroom_pause p WHERE p.scope = 'outbox' AND p.subject = CAST(m.id AS CHAR))
        AND NOT EXISTS (SELECT 1 FROM postroom_pause p WHERE p.scope = 'system' AND p.subject = '')";

/// The lines of one priority whose turn it is, in order.
pub(in crate::sql::mysql) const DUE_LINES: &str = concat!(
    "SELECT l.contract FROM postroom_queue_line l FORCE INDEX (postroom_queue_line_ready)
    WHERE l.outbox = ? AND l.priority = ? AND l.ready_at <= ? AND EXISTS (",
    first_mail!(),
    ") ORDER BY l.ready_at, l.turn, l.contract LIMIT ?"
);

/// Locks the next mails of a line. What somebody else is about to claim or to change is left to him.
pub(in crate::sql::mysql) const DUE_MAILS: &str =
    "SELECT q.mail FROM postroom_queue_open q FORCE INDEX (postroom_queue_open_waiting)
    WHERE q.outbox = ? AND q.priority = ? AND q.contract = ? AND q.waiting_at <= ? AND q.expires_at > ?
    ORDER BY q.waiting_at, q.mail LIMIT ? FOR UPDATE SKIP LOCKED";

pub(in crate::sql::mysql) const FROZEN: &str = concat!(
    "SELECT m.id, m.contract, m.sender, m.return_path, m.body, m.size, CASE WHEN m.size <= 262144 THEN
        (SELECT p.content FROM postroom_body_piece p WHERE p.body = m.body AND p.number = 0) END
    FROM ",
    json_rows!("?"; mail id ""),
    " j STRAIGHT_JOIN postroom_queue_mail m FORCE INDEX (PRIMARY) ON m.id = UNHEX(j.mail) ORDER BY j.place"
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
    tx: &mut MySqlConnection,
    now: Timestamp,
    order: ClaimOrder,
) -> Result<Vec<Claimed>> {
    let mut all = Claiming::default();
    let mut left = order.limit;
    while left > 0 && all.waits.is_none() {
        let Some((mails, limited)) = due(tx, now, order, left).await? else { break };
        if limited && all.account.is_none() {
            all.account = budgets::held(tx, order.outbox).await?;
        }
        left = left.saturating_sub(u32::try_from(mails.len()).unwrap_or(u32::MAX));
        take(tx, now, order, mails, &mut all).await?;
    }
    let Claiming { claimed, account, waits } = all;
    if let Some(account) = account {
        // The last mail that fits says already until when the next one waits: nobody has to ask for it in vain.
        let waits = waits.or_else(|| account.budget.wait(account.limits, now, 1));
        account.save(tx, waits).await?;
    }
    Ok(claimed)
}

/// Locks the next mails of the lines of the highest priority that has some, in turn: the first of each, the second of each, and so on.
/// Gives with them whether the outbox has limits; none when there is nothing to claim.
async fn due(
    tx: &mut MySqlConnection,
    now: Timestamp,
    ClaimOrder { outbox, worker, .. }: ClaimOrder,
    most: u32,
) -> Result<Option<(Vec<Uuid>, bool)>> {
    let (outbox, now) = (outbox.number(), now.as_millis());
    let open = sqlx::query_as(OPEN_OUTBOX).bind(outbox).bind(now).bind(worker.uuid()).bind(now);
    let open: Option<(bool,)> = open.fetch_optional(&mut *tx).await.map_err(failed(CLAIM))?;
    let Some((limited,)) = open else { return Ok(None) };
    for rank in 0..3i64 {
        let lines = sqlx::query_as(DUE_LINES).bind(outbox).bind(rank).bind(now).bind(now).bind(now);
        let lines = lines.bind(i64::from(most)).fetch_all(&mut *tx).await;
        let lines: Vec<(String,)> = lines.map_err(failed(CLAIM))?;
        if lines.is_empty() {
            continue;
        }
        let each = u32::try_from(lines.len()).map_or(1, |lines| most.div_ceil(lines));
        let mut turns: Vec<(usize, Uuid)> = Vec::new();
        for (contract,) in lines {
            let mails = sqlx::query_as(DUE_MAILS).bind(outbox).bind(rank).bind(contract).bind(now).bind(now);
            let mails = mails.bind(i64::from(each)).fetch_all(&mut *tx).await;
            let mails: Vec<(Uuid,)> = mails.map_err(failed(CLAIM))?;
            turns.extend(mails.into_iter().map(|(id,)| id).enumerate());
        }
        // Stable: within a turn the lines stay in their order.
        turns.sort_by_key(|(turn, _)| *turn);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mails: Vec<Uuid> = turns.into_iter().map(|(_, id)| id).take(most).collect();
        return Ok((!mails.is_empty()).then_some((mails, limited)));
    }
    Ok(None)
}

async fn take(
    tx: &mut MySqlConnection,
    now: Timestamp,
    ClaimOrder { outbox, worker, until, .. }: ClaimOrder,
    ids: Vec<Uuid>,
    all: &mut Claiming,
) -> Result<()> {
    let mut edits = load(tx, ids.iter().map(|id| QueueId::from_uuid(*id))).await?;
    let frozen = sqlx::query_as(FROZEN).bind(queue_ids(ids.into_iter().map(QueueId::from_uuid))?);
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
    let bells = served.iter().map(|line| lanes::bell(line, None, Some(now))).collect();
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
    tx: &mut MySqlConnection,
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
    tx: &mut MySqlConnection,
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
