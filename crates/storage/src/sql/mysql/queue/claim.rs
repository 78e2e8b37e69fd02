//! Claims of mails: which are due at an outbox, in turn, and what their worker gets.

use std::collections::BTreeMap;

use postroom_core::budget::Wait;
use postroom_core::id::{BodyId, ClaimId, MailboxId, QueueId};
use postroom_core::queue::Event;
use postroom_core::time::Timestamp;
use sqlx::mysql::MySqlConnection;
use uuid::Uuid;

use super::row::{Edit, load, save_served};
use crate::error::Result;
use crate::queue::{Attempt, Claimed, RecipientResult, Settlement};
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
    " j STRAIGHT_JOIN postroom_queue_mail m FORCE INDEX (PRIMARY) ON m.id = UNHEX(j.mail)"
);

/// What is frozen of a mail: id, contract, sender, return path, body, size, and the content where that is one piece.
type Frozen = (Uuid, String, String, Option<String>, Option<Uuid>, i64, Option<Vec<u8>>);

/// What was claimed so far, and what of the outbox's budget is left for more.
#[derive(Default)]
struct Claiming {
    claimed: Vec<Claimed>,
    /// What else the transaction changes: it is written with the first mails that are claimed.
    changed: Vec<Edit>,
    account: Option<Account>,
    /// What the next mail waits for.
    waits: Option<Wait>,
}

/// Claims due mails of an outbox, what the transaction has changed before being written with them where there are some, as far as its budget goes: each line of the highest priority has its turn, and another, until
/// there are enough.
pub(super) async fn claim_in(
    tx: &mut MySqlConnection,
    now: Timestamp,
    order: ClaimOrder,
    changed: &mut Vec<Edit>,
) -> Result<Vec<Claimed>> {
    let mut all = Claiming { changed: std::mem::take(changed), ..Claiming::default() };
    let mut left = order.limit;
    while left > 0 && all.waits.is_none() {
        let Some((mails, limited)) = due(tx, now, order, left).await? else { break };
        if limited && all.account.is_none() {
            all.account = budgets::held(tx, order.outbox).await?;
        }
        left = left.saturating_sub(u32::try_from(mails.len()).unwrap_or(u32::MAX));
        take(tx, now, order, mails, &mut all).await?;
    }
    let Claiming { claimed, account, waits, changed: left } = all;
    *changed = left;
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
    let order: BTreeMap<Uuid, usize> = ids.iter().copied().zip(0..).collect();
    let frozen = sqlx::query_as(FROZEN).bind(queue_ids(ids.into_iter().map(QueueId::from_uuid))?);
    let mut frozen: Vec<Frozen> = frozen.fetch_all(&mut *tx).await.map_err(failed(CLAIM))?;
    frozen.sort_by_key(|(id, ..)| order.get(id).copied());
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
    save_served(tx, std::mem::take(&mut all.changed).into_iter().chain(edits.into_values()), &served, now)
        .await
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
