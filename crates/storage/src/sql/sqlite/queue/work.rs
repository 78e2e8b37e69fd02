//! Dispatchers' work: which outboxes have due mail, claims, marks, settlements, leases.

use std::collections::BTreeSet;

use async_trait::async_trait;
use postroom_core::budget::Wait;
use postroom_core::id::{BodyId, ClaimId, MailboxId, QueueId, WorkerId};
use postroom_core::time::Timestamp;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::row::{Edit, Served, load, save, save_served};
use crate::bodies::PIECE;
use crate::error::Result;
use crate::queue::{ClaimMark, Claimed, QueueWork, Settled, Settlement, Sweep};
use crate::sql::combine::ClaimOrder;
use crate::sql::rows::{from_json, hex, new_claim, optional, small, text, time, to_json, unhex, unreadable};
use crate::sql::sqlite::budgets::{self, Account};
use crate::sql::sqlite::connection::failed;
use crate::sql::sqlite::lanes::Line;
use crate::sql::sqlite::store::SqliteStore;
use crate::transition::lease::Lease;

const CLAIM: &str = "claim mails";

/// How many mails one transaction of a sweep changes: nobody who writes waits for a long one.
const SWEEP: i64 = 500;

/// The first mail of a line that may be sent now; `l` is the line.
macro_rules! first_mail {
    () => {
        "SELECT q.mail FROM postroom_queue_open q
            WHERE q.outbox = l.outbox AND q.paused = 0 AND q.priority = l.priority AND q.contract = l.contract
                AND q.claim IS NULL AND q.state = 'queued' AND q.due_at <= ?1 AND q.expires_at > ?1
            ORDER BY q.due_at, q.mail LIMIT 1"
    };
}

/// `LIMIT ?2 + 0`, here and below: SQLite looks at the value of a parameter that stands alone there when it makes the plan, and so makes
/// it anew for each call.
pub(in crate::sql::sqlite) const DUE_OUTBOXES: &str = concat!(
    "SELECT d.outbox FROM postroom_queue_lane d
    WHERE d.blocked = 0 AND d.due_at IS NOT NULL AND d.due_at <= ?1 AND (d.retry_at IS NULL OR d.retry_at <= ?1)
        AND (d.spent_until IS NULL OR d.spent_until <= ?1)
        AND NOT EXISTS (SELECT 1 FROM postroom_pause WHERE scope = 'system')
        AND EXISTS (SELECT 1 FROM postroom_queue_line l
            WHERE l.outbox = d.outbox AND l.priority IN (0, 1, 2) AND l.ready_at IS NOT NULL AND l.ready_at <= ?1
                AND EXISTS (",
    first_mail!(),
    "))
    ORDER BY d.due_at, d.outbox LIMIT ?2 + 0"
);

/// The lines of one priority whose turn it is, in order, each with its first mail.
macro_rules! due {
    ($rank:literal) => {
        concat!(
            "SELECT * FROM (SELECT l.priority, l.ready_at, l.turn, l.contract, (",
            first_mail!(),
            ") AS mail FROM postroom_queue_line l
                WHERE l.outbox = ?2 AND l.priority = ",
            $rank,
            " AND l.ready_at IS NOT NULL AND l.ready_at <= ?1 AND EXISTS (",
            first_mail!(),
            ") ORDER BY l.ready_at, l.turn, l.contract LIMIT ?3 + 0)"
        )
    };
}

pub(in crate::sql::sqlite) const DUE: &str = concat!(
    "SELECT priority, contract, mail, (SELECT limited FROM postroom_queue_lane WHERE outbox = ?2),
        (SELECT h.prober FROM postroom_queue_lane d JOIN postroom_health h ON h.mailbox = d.outbox
            WHERE d.outbox = ?2 AND d.retry_at > ?1)
    FROM (",
    due!("0"),
    " UNION ALL ",
    due!("1"),
    " UNION ALL ",
    due!("2"),
    ") WHERE EXISTS (SELECT 1 FROM postroom_queue_lane
            WHERE outbox = ?2 AND blocked = 0 AND (spent_until IS NULL OR spent_until <= ?1)
                AND (retry_at IS NULL OR retry_at <= ?1 OR EXISTS (SELECT 1 FROM postroom_health
                    WHERE mailbox = ?2 AND prober IN (SELECT unhex(value) FROM json_each(?4)))))
        AND NOT EXISTS (SELECT 1 FROM postroom_pause WHERE scope = 'system')
    ORDER BY priority, ready_at, turn, contract LIMIT ?3 + 0"
);

/// The next mails of one line.
pub(in crate::sql::sqlite) const OF_LINE: &str = "SELECT q.mail FROM postroom_queue_open q
    WHERE q.outbox = ?2 AND q.paused = 0 AND q.priority = ?3 AND q.contract = ?4
        AND q.claim IS NULL AND q.state = 'queued' AND q.due_at <= ?1 AND q.expires_at > ?1
    ORDER BY q.due_at, q.mail LIMIT ?5 + 0";

/// The first pieces of contents.
pub(in crate::sql::sqlite) const CONTENTS: &str = "SELECT j.key, p.content
    FROM json_each(?1) j JOIN postroom_body_piece p ON p.body = unhex(j.value) AND p.number = 0";

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

/// Claims of one outbox that come together, and what of its budget is left for more.
struct Claiming<'a> {
    now: Timestamp,
    outbox: MailboxId,
    /// Who claims, and how many more mails each gets.
    askers: Vec<(&'a ClaimOrder, u32)>,
    claimed: Vec<(&'a ClaimOrder, Claimed)>,
    account: Option<Account>,
    /// What the next mail waits for.
    waits: Option<Wait>,
}

/// Claims due mails, as far as the budgets go, for each order in turn: each line of the highest priority has its turn, and another,
/// until there are enough. Gives what each order gets.
pub(super) async fn claim_in(
    tx: &mut SqliteConnection,
    now: Timestamp,
    orders: &[ClaimOrder],
) -> Result<Vec<Vec<Claimed>>> {
    let outboxes: BTreeSet<MailboxId> = orders.iter().map(|order| order.outbox).collect();
    let mut claimed = Vec::new();
    for outbox in outboxes {
        let askers = orders.iter().filter(|order| order.outbox == outbox && order.limit > 0);
        let mut all = Claiming {
            now,
            outbox,
            askers: askers.map(|order| (order, order.limit)).collect(),
            claimed: Vec::new(),
            account: None,
            waits: None,
        };
        while all.waits.is_none() {
            let turns = all.turns(tx).await?;
            if turns.is_empty() {
                break;
            }
            all.take(tx, &turns).await?;
        }
        if let Some(account) = all.account {
            // The last mail that fits says already until when the next one waits: nobody has to ask for it in vain.
            let waits = all.waits.or_else(|| account.budget.wait(account.limits, now, 1));
            account.save(tx, waits).await?;
        }
        claimed.extend(all.claimed);
    }
    bring_along(tx, claimed.iter_mut().map(|(_, mail)| mail)).await?;
    let mut answers: Vec<Vec<Claimed>> = orders.iter().map(|_| Vec::new()).collect();
    for (order, mail) in claimed {
        let place = orders.iter().position(|other| std::ptr::eq(other, order));
        answers.get_mut(place.ok_or_else(unreadable)?).ok_or_else(unreadable)?.push(mail);
    }
    Ok(answers)
}

/// Gives the contents along that are one piece.
async fn bring_along<'a>(
    tx: &mut SqliteConnection,
    mails: impl Iterator<Item = &'a mut Claimed>,
) -> Result<()> {
    let whole = u64::try_from(PIECE).unwrap_or(u64::MAX);
    let mut mails: Vec<&mut Claimed> = mails.filter(|mail| mail.size <= whole).collect();
    if mails.is_empty() {
        return Ok(());
    }
    let bodies: Vec<String> = mails.iter().map(|mail| hex(mail.body.uuid())).collect();
    let contents = sqlx::query_as(CONTENTS).bind(to_json(&bodies)?);
    let contents: Vec<(i64, Vec<u8>)> = contents.fetch_all(tx).await.map_err(failed(CLAIM))?;
    for (place, content) in contents {
        if let Some(mail) = mails.get_mut(small::<usize>(place)?) {
            mail.content = Some(content.into());
        }
    }
    Ok(())
}

type Due = (i64, String, Uuid, i64, Option<Uuid>);

impl Claiming<'_> {
    fn left(&self) -> u32 {
        self.askers.iter().fold(0, |left, (_, more)| left.saturating_add(*more))
    }

    /// The next mails of the lines of one priority, in turn: the first of each, the second of each, and so on.
    async fn turns(&mut self, tx: &mut SqliteConnection) -> Result<Vec<QueueId>> {
        let limit = self.left();
        if limit == 0 {
            return Ok(Vec::new());
        }
        let workers: Vec<String> = self.askers.iter().map(|(order, _)| hex(order.worker.uuid())).collect();
        let due = sqlx::query_as(DUE).bind(self.now.as_millis()).bind(self.outbox.number());
        let due = due.bind(i64::from(limit)).bind(to_json(&workers)?).fetch_all(&mut *tx).await;
        let due: Vec<Due> = due.map_err(failed(CLAIM))?;
        let Some((highest, _, _, limited, prober)) = due.first() else { return Ok(Vec::new()) };
        if let Some(prober) = prober {
            // The outbox rests: only who tries it gets something.
            self.askers.retain(|(order, _)| order.worker.uuid() == *prober);
        }
        if *limited != 0 && self.account.is_none() {
            self.account = budgets::account(tx, self.outbox).await?;
        }
        let limit = self.left();
        let lines: Vec<_> = due.iter().take_while(|(rank, ..)| rank == highest).collect();
        let turns = limit.div_ceil(u32::try_from(lines.len()).unwrap_or(u32::MAX));
        let mut mails = Vec::new();
        for (place, (rank, contract, first, ..)) in lines.into_iter().enumerate() {
            if turns == 1 {
                mails.push((0, place, *first));
                continue;
            }
            let of_line = sqlx::query_as(OF_LINE).bind(self.now.as_millis()).bind(self.outbox.number());
            let of_line = of_line.bind(rank).bind(contract.as_str()).bind(i64::from(turns));
            let of_line: Vec<(Uuid,)> = of_line.fetch_all(&mut *tx).await.map_err(failed(CLAIM))?;
            mails.extend(of_line.into_iter().enumerate().map(|(turn, (id,))| (turn, place, id)));
        }
        mails.sort_unstable();
        mails.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(mails.into_iter().map(|(.., id)| QueueId::from_uuid(id)).collect())
    }

    /// Claims these mails, for who has got least of what it asked for first.
    async fn take(&mut self, tx: &mut SqliteConnection, ids: &[QueueId]) -> Result<()> {
        let now = self.now;
        let mut edits = load(tx, ids.iter().copied()).await?;
        let mut served: Vec<(Line, u32)> = Vec::new();
        for id in ids {
            let edit = edits.get_mut(id).ok_or_else(unreadable)?;
            if let Some(account) = &mut self.account
                && let Err(wait) = account.budget.take(account.limits, now, edit.row.queued())
            {
                self.waits = Some(wait);
                break;
            }
            let Some((order, more)) = self.askers.iter_mut().find(|(_, more)| *more > 0) else { break };
            *more -= 1;
            let lease = Lease { claim: new_claim(now)?, worker: order.worker, until: order.until };
            let (places, entry) = edit.row.claim(now, lease);
            edit.note([entry]);
            let line = edit.line();
            let place = served.iter().position(|(other, _)| *other == line);
            let before = place.map_or(0, |place| served.remove(place).1);
            served.push((line, before + 1));
            match read_claimed(edit, self.outbox, lease.claim, &places) {
                Ok(mail) => self.claimed.push((order, mail)),
                Err(_) => {
                    let entries = edit.row.bury(now, edit.id, lease.claim, &places);
                    edit.note(entries);
                }
            }
        }
        let mut turns = 0;
        let served = served.into_iter().map(|((outbox, contract, priority), mails)| {
            turns += mails;
            (outbox, contract, priority, now.as_millis(), turns)
        });
        let served: Vec<Served> = served.collect();
        save_served(tx, edits.into_values(), &served).await
    }
}

/// A mail as its worker gets it.
fn read_claimed(edit: &Edit, outbox: MailboxId, claim: ClaimId, places: &[u32]) -> Result<Claimed> {
    let (sender, return_path, body, size): (String, Option<String>, String, u64) = from_json(&edit.frozen)?;
    let address = |place: &u32| {
        let address = usize::try_from(*place).ok().and_then(|place| edit.addresses.get(place));
        Ok((*place, text(address.ok_or_else(unreadable)?)?))
    };
    Ok(Claimed {
        id: edit.id,
        claim,
        contract: text(&edit.line().1)?,
        outbox,
        sender: text(&sender)?,
        return_path: optional(return_path)?,
        recipients: places.iter().map(address).collect::<Result<_>>()?,
        attempt: edit.row.attempts.saturating_add(1),
        body: BodyId::from_uuid(unhex(&body)?.ok_or_else(unreadable)?),
        size,
        content: None,
        created_at: edit.row.created_at,
        expires_at: edit.row.expires_at,
        on_doubt: edit.row.on_doubt,
    })
}

/// Settles, and then marks: what a server said comes first.
pub(super) async fn settle_and_mark(
    tx: &mut SqliteConnection,
    now: Timestamp,
    settlements: &[&Settlement],
    marks: &[&ClaimMark],
) -> Result<(Vec<Settled>, Vec<bool>)> {
    let ids = settlements.iter().map(|settlement| settlement.id).chain(marks.iter().map(|mark| mark.id));
    let mut edits = load(tx, ids).await?;
    let settle = |settlement: &&Settlement| {
        let settled = edits.get_mut(&settlement.id).map(|edit| {
            let (settled, entries) = edit.row.settle(now, settlement);
            edit.note(entries);
            (edit.line().0, settled)
        });
        settled.unwrap_or((0, Settled::Ignored))
    };
    let settled: Vec<(i64, Settled)> = settlements.iter().map(settle).collect();
    let mark = |mark: &&ClaimMark| {
        let marked = edits.get_mut(&mark.id).and_then(|edit| {
            let entries = edit.row.mark(now, mark.claim)?;
            edit.note(entries);
            Some(())
        });
        marked.is_some()
    };
    let marked = marks.iter().map(mark).collect();
    save(tx, edits.into_values()).await?;
    let of = settlements.iter().zip(&settled);
    budgets::give_back(tx, of.map(|(settlement, (outbox, settled))| (*outbox, *settlement, *settled)))
        .await?;
    Ok((settled.into_iter().map(|(_, settled)| settled).collect(), marked))
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
