//! Claims of mails. Those of one outbox that come together are one: its due mails are looked up once for all who ask.

use std::collections::BTreeSet;

use postroom_core::budget::Wait;
use postroom_core::id::{BodyId, ClaimId, MailboxId, QueueId};
use postroom_core::time::Timestamp;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::row::{Edit, Edits};
use crate::error::Result;
use crate::queue::Claimed;
use crate::sql::combine::ClaimOrder;
use crate::sql::postgres::budgets::{self, Account};
use crate::sql::postgres::connection::failed;
use crate::sql::postgres::lanes::Line;
use crate::sql::rows::{big, new_claim, optional, small, text, unreadable};
use crate::transition::lease::Lease;

const CLAIM: &str = "claim mails";

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

pub(super) use first_mail;

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
/// the lane may not have followed yet. An outbox that rests after a failure is for its prober, if that is one of `$4`. Whether there may be
/// more than what is locked is asked, too.
pub(in crate::sql::postgres) const DUE: &str = concat!(
    "WITH outbox AS MATERIALIZED (
        SELECT d.limited, CASE WHEN h.next_attempt > $1 THEN h.prober END AS prober FROM postroom_mailbox m JOIN postroom_queue_lane d ON d.outbox = m.id
        LEFT JOIN postroom_health h ON h.mailbox = m.id
        WHERE m.id = $2 AND m.kind = 'outbox' AND m.status = 'active' AND NOT coalesce(h.suspended, false)
            AND (h.next_attempt IS NULL OR h.next_attempt <= $1 OR h.prober = ANY($4::uuid[]))
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
    SELECT mail, (SELECT limited FROM outbox), (SELECT prober FROM outbox),
        (SELECT count(*) > 1 FROM lines) OR EXISTS (SELECT 1 FROM postroom_queue_line l
            WHERE l.outbox = $2 AND l.priority IN (1, 2) AND l.priority > (SELECT priority FROM lines LIMIT 1)
                AND l.ready_at IS NOT NULL AND l.ready_at <= $1)
    FROM (
        SELECT mail, place, row_number() OVER (PARTITION BY place ORDER BY due_at, mail) AS turn FROM mails) m
    ORDER BY turn, place LIMIT $3"
);

type Due = (Uuid, bool, Option<Uuid>, bool);

/// Claims of one outbox that come together, and what of its budget is left for more.
pub(super) struct Claiming<'a> {
    now: Timestamp,
    outbox: MailboxId,
    /// Who claims, and how many more mails each gets.
    askers: Vec<(&'a ClaimOrder, u32)>,
    /// The mails whose turn it is.
    next: Vec<Uuid>,
    is_limited: bool,
    account: Option<Account>,
    /// What the next mail waits for.
    waits: Option<Wait>,
    claimed: Vec<(&'a ClaimOrder, Claimed)>,
    ended: bool,
}

impl<'a> Claiming<'a> {
    /// One for each outbox.
    pub(super) fn of(now: Timestamp, orders: &'a [ClaimOrder]) -> Vec<Self> {
        let outboxes: BTreeSet<MailboxId> = orders.iter().map(|order| order.outbox).collect();
        let claiming = |outbox| {
            let askers = orders.iter().filter(|order| order.outbox == outbox && order.limit > 0);
            Self {
                now,
                outbox,
                askers: askers.map(|order| (order, order.limit)).collect(),
                next: Vec::new(),
                is_limited: false,
                account: None,
                waits: None,
                claimed: Vec::new(),
                ended: false,
            }
        };
        outboxes.into_iter().map(claiming).collect()
    }

    fn left(&self) -> u32 {
        self.askers.iter().fold(0, |left, (_, more)| left.saturating_add(*more))
    }

    /// Locks the next mails of the lines of one priority, in turn. Gives them; none when there is nothing to claim any more.
    pub(super) async fn look(&mut self, tx: &mut PgConnection) -> Result<Vec<Uuid>> {
        self.next.clear();
        let limit = self.left();
        if self.ended || limit == 0 || self.waits.is_some() {
            return Ok(Vec::new());
        }
        let workers: Vec<Uuid> = self.askers.iter().map(|(order, _)| order.worker.uuid()).collect();
        let due = sqlx::query_as(DUE).bind(self.now.as_millis()).bind(self.outbox.number());
        let due = due.bind(i64::from(limit)).bind(workers).fetch_all(&mut *tx).await;
        let due: Vec<Due> = due.map_err(failed(CLAIM))?;
        let Some((_, limited, prober, more)) = due.first() else {
            self.ended = true;
            return Ok(Vec::new());
        };
        self.is_limited = *limited;
        self.ended = !more || small::<u32>(big(due.len()))? >= limit;
        if let Some(prober) = prober {
            // The outbox rests: only who tries it gets something.
            self.askers.retain(|(order, _)| order.worker.uuid() == *prober);
        }
        let limit = usize::try_from(self.left()).unwrap_or(usize::MAX);
        self.next.extend(due.iter().take(limit).map(|(id, ..)| *id));
        Ok(self.next.clone())
    }

    /// Claims the mails that were locked and read, as far as the outbox's budget goes, for who has most left to get first. Says which
    /// lines it served.
    pub(super) async fn take(
        &mut self,
        tx: &mut PgConnection,
        edits: &mut Edits,
        served: &mut Vec<(Line, Timestamp)>,
    ) -> Result<()> {
        let now = self.now;
        if self.is_limited && self.account.is_none() && !self.next.is_empty() {
            self.account = budgets::held(tx, self.outbox).await?;
        }
        for id in std::mem::take(&mut self.next) {
            let edit = edits.get_mut(&QueueId::from_uuid(id)).ok_or_else(unreadable)?;
            // A late answer of this same transaction may have ended it.
            if !edit.row.is_due(now) {
                continue;
            }
            let Some((order, more)) = self.askers.iter_mut().find(|(_, more)| *more > 0) else { break };
            if let Some(account) = &mut self.account
                && let Err(wait) = account.budget.take(account.limits, now, edit.row.queued())
            {
                self.waits = Some(wait);
                break;
            }
            *more -= 1;
            let lease = Lease { claim: new_claim(now)?, worker: order.worker, until: order.until };
            let (places, entry) = edit.row.claim(now, lease);
            edit.note([entry]);
            // A line goes behind all others with the last of its mails.
            let line = edit.line();
            served.retain(|(other, _)| *other != line);
            served.push((line, now));
            match read_claimed(edit, self.outbox, lease.claim, &places) {
                Ok(mail) => self.claimed.push((order, mail)),
                Err(_) => {
                    let entries = edit.row.bury(now, edit.id, lease.claim, &places);
                    edit.note(entries);
                }
            }
        }
        Ok(())
    }

    /// Writes what is left of the budget. Gives what was claimed, for whom.
    pub(super) async fn end(self, tx: &mut PgConnection) -> Result<Vec<(&'a ClaimOrder, Claimed)>> {
        if let Some(account) = self.account {
            // The last mail that fits says already until when the next one waits: nobody has to ask for it in vain.
            let waits = self.waits.or_else(|| account.budget.wait(account.limits, self.now, 1));
            account.save(tx, waits).await?;
        }
        Ok(self.claimed)
    }
}

/// What was claimed, by the order that asked for it.
pub(super) fn by_order(
    orders: &[ClaimOrder],
    claimed: Vec<(&ClaimOrder, Claimed)>,
) -> Result<Vec<Vec<Claimed>>> {
    let mut answers: Vec<Vec<Claimed>> = orders.iter().map(|_| Vec::new()).collect();
    for (order, mail) in claimed {
        let place = orders.iter().position(|other| std::ptr::eq(other, order));
        answers.get_mut(place.ok_or_else(unreadable)?).ok_or_else(unreadable)?.push(mail);
    }
    Ok(answers)
}

/// A mail as its worker gets it.
fn read_claimed(edit: &mut Edit, outbox: MailboxId, claim: ClaimId, places: &[u32]) -> Result<Claimed> {
    let address = |place: &u32| {
        let address = usize::try_from(*place).ok().and_then(|place| edit.addresses.get(place));
        Ok((*place, text(address.ok_or_else(unreadable)?)?))
    };
    let content = edit.frozen.content.take();
    let frozen = &edit.frozen;
    Ok(Claimed {
        id: edit.id,
        claim,
        contract: text(&edit.line().1)?,
        outbox,
        sender: text(&frozen.sender)?,
        return_path: optional(frozen.return_path.clone())?,
        recipients: places.iter().map(address).collect::<Result<_>>()?,
        attempt: edit.row.attempts.saturating_add(1),
        body: BodyId::from_uuid(frozen.body.ok_or_else(unreadable)?),
        size: small(frozen.size)?,
        content: content.map(Into::into),
        created_at: edit.row.created_at,
        expires_at: edit.row.expires_at,
        on_doubt: edit.row.on_doubt,
    })
}
