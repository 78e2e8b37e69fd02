//! Claims of mails: which are due at an outbox, in turn, and what their worker gets. Those of one outbox that come together are one.

use std::collections::{BTreeMap, BTreeSet};

use postroom_core::budget::Wait;
use postroom_core::id::{BodyId, ClaimId, MailboxId, QueueId};
use postroom_core::time::Timestamp;
use sqlx::mysql::MySqlConnection;
use uuid::Uuid;

use super::row::{Edit, load, save_served};
use crate::error::Result;
use crate::queue::Claimed;
use crate::sql::combine::ClaimOrder;
use crate::sql::mysql::budgets::{self, Account};
use crate::sql::mysql::connection::failed;
use crate::sql::mysql::json::json_rows;
use crate::sql::mysql::lanes::Line;
use crate::sql::rows::{new_claim, optional, queue_ids, small, text, unreadable};
use crate::transition::lease::Lease;

const CLAIM: &str = "claim mails";

/// A mail of a line that may be sent now; `l` is the line.
macro_rules! first_mail {
    () => {
        "SELECT 1 FROM postroom_queue_open q FORCE INDEX (postroom_queue_open_waiting)
            WHERE q.outbox = l.outbox AND q.priority = l.priority AND q.contract = l.contract
                AND q.waiting_at <= ? AND q.expires_at > ?"
    };
}
pub(super) use first_mail;

/// Whether an outbox may be tried, by whom alone while it rests after a failure, and whether it has limits. It is asked of the tables
/// that its lane follows from: the lane may not have followed yet.
pub(in crate::sql::mysql) const OPEN_OUTBOX: &str =
    "SELECT d.limited, COALESCE(h.next_attempt > ?, FALSE), h.prober
    FROM postroom_mailbox m JOIN postroom_queue_lane d ON d.outbox = m.id
    LEFT JOIN postroom_health h ON h.mailbox = m.id
    WHERE m.id = ? AND m.kind = 'outbox' AND m.status = 'active' AND NOT COALESCE(h.suspended, FALSE)
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
    " j STRAIGHT_JOIN postroom_queue_mail m FORCE INDEX (PRIMARY) ON m.id = UNHEX(j.mail)"
);

/// What is frozen of a mail: id, contract, sender, return path, body, size, and the content where that is one piece.
type Frozen = (Uuid, String, String, Option<String>, Option<Uuid>, i64, Option<Vec<u8>>);

/// Claims of one outbox that come together, and what of its budget is left for more.
struct Claiming<'a> {
    outbox: MailboxId,
    /// Who claims, by the place of the order, and how many more mails each gets.
    askers: Vec<(usize, &'a ClaimOrder, u32)>,
    claimed: Vec<(usize, Claimed)>,
    account: Option<Account>,
    /// What the next mail waits for.
    waits: Option<Wait>,
    /// The first priority that may have more.
    rank: i64,
}

/// Claims due mails of each outbox, as far as its budget goes: each line of the highest priority has its turn, and another, until
/// there are enough. What the transaction has changed before is written with the first of them. Gives what each order got.
pub(super) async fn claim_all(
    tx: &mut MySqlConnection,
    now: Timestamp,
    orders: &[ClaimOrder],
    changed: &mut Vec<Edit>,
) -> Result<Vec<Vec<Claimed>>> {
    let mut answers: Vec<Vec<Claimed>> = orders.iter().map(|_| Vec::new()).collect();
    let outboxes: BTreeSet<MailboxId> = orders.iter().map(|order| order.outbox).collect();
    for outbox in outboxes {
        let askers = orders.iter().enumerate().filter(|(_, order)| order.outbox == outbox);
        let askers = askers.map(|(place, order)| (place, order, order.limit)).collect();
        let mut all = Claiming { outbox, askers, claimed: Vec::new(), account: None, waits: None, rank: 0 };
        all.claim(tx, now, changed).await?;
        if let Some(account) = all.account {
            // The last mail that fits says already until when the next one waits: nobody has to ask for it in vain.
            let waits = all.waits.or_else(|| account.budget.wait(account.limits, now, 1));
            account.save(tx, waits).await?;
        }
        for (place, mail) in all.claimed {
            answers.get_mut(place).ok_or_else(unreadable)?.push(mail);
        }
    }
    Ok(answers)
}

impl Claiming<'_> {
    fn left(&self) -> u32 {
        self.askers.iter().fold(0, |left, (.., more)| left.saturating_add(*more))
    }

    async fn claim(
        &mut self,
        tx: &mut MySqlConnection,
        now: Timestamp,
        changed: &mut Vec<Edit>,
    ) -> Result<()> {
        let query = sqlx::query_as(OPEN_OUTBOX).bind(now.as_millis()).bind(self.outbox.number());
        let open = query.bind(now.as_millis()).fetch_optional(&mut *tx).await.map_err(failed(CLAIM))?;
        let Some((limited, rests, prober)): Option<(bool, bool, Option<Uuid>)> = open else { return Ok(()) };
        if rests {
            // Only who tries it gets something.
            self.askers.retain(|(_, order, _)| Some(order.worker.uuid()) == prober);
        }
        while self.left() > 0 && self.waits.is_none() {
            let mails = self.due(tx, now).await?;
            if mails.is_empty() {
                return Ok(());
            }
            if limited && self.account.is_none() {
                self.account = budgets::held(tx, self.outbox).await?;
            }
            self.take(tx, now, mails, changed).await?;
        }
        Ok(())
    }

    /// Locks the next mails of the lines of the highest priority that has some, in turn: the first of each, the second of each, and so
    /// on.
    async fn due(&mut self, tx: &mut MySqlConnection, now: Timestamp) -> Result<Vec<Uuid>> {
        let (outbox, now, most) = (self.outbox.number(), now.as_millis(), self.left());
        for rank in self.rank..3 {
            let lines = sqlx::query_as(DUE_LINES).bind(outbox).bind(rank).bind(now).bind(now).bind(now);
            let lines = lines.bind(i64::from(most)).fetch_all(&mut *tx).await;
            let lines: Vec<(String,)> = lines.map_err(failed(CLAIM))?;
            if lines.is_empty() {
                self.rank = rank + 1;
                continue;
            }
            let is_alone = lines.len() == 1;
            let each = u32::try_from(lines.len()).map_or(1, |lines| most.div_ceil(lines));
            let mut turns: Vec<(usize, Uuid)> = Vec::new();
            for (contract,) in lines {
                let mails = sqlx::query_as(DUE_MAILS).bind(outbox).bind(rank).bind(contract).bind(now);
                let mails = mails.bind(now).bind(i64::from(each)).fetch_all(&mut *tx).await;
                let mails: Vec<(Uuid,)> = mails.map_err(failed(CLAIM))?;
                turns.extend(mails.into_iter().map(|(id,)| id).enumerate());
            }
            // Stable: within a turn the lines stay in their order.
            turns.sort_by_key(|(turn, _)| *turn);
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            if is_alone && turns.len() < most {
                // The line has no more: that need not be asked.
                self.rank = rank + 1;
            }
            return Ok(turns.into_iter().map(|(_, id)| id).take(most).collect());
        }
        Ok(Vec::new())
    }

    async fn take(
        &mut self,
        tx: &mut MySqlConnection,
        now: Timestamp,
        ids: Vec<Uuid>,
        changed: &mut Vec<Edit>,
    ) -> Result<()> {
        let order: BTreeMap<Uuid, usize> = ids.iter().copied().zip(0..).collect();
        let mut edits = load(tx, ids.iter().map(|id| QueueId::from_uuid(*id))).await?;
        let frozen = sqlx::query_as(FROZEN).bind(queue_ids(ids.into_iter().map(QueueId::from_uuid))?);
        let mut frozen: Vec<Frozen> = frozen.fetch_all(&mut *tx).await.map_err(failed(CLAIM))?;
        frozen.sort_by_key(|(id, ..)| order.get(id).copied());
        let mut served: Vec<Line> = Vec::new();
        for frozen in frozen {
            let edit = edits.get_mut(&QueueId::from_uuid(frozen.0)).ok_or_else(unreadable)?;
            let Some((place, order, more)) = self.askers.iter_mut().find(|(.., more)| *more > 0) else {
                break;
            };
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
            served.retain(|other| *other != line);
            served.push(line);
            match read_claimed(edit, frozen, self.outbox, lease.claim, &places) {
                Ok(mail) => self.claimed.push((*place, mail)),
                Err(_) => {
                    let entries = edit.row.bury(now, edit.id, lease.claim, &places);
                    edit.note(entries);
                }
            }
        }
        let edits = std::mem::take(changed).into_iter().chain(edits.into_values());
        save_served(tx, edits, &served, now).await
    }
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
