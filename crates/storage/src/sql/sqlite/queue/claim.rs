//! Claims of mails: which are due at an outbox, in turn, and what their worker gets. Those of one outbox that come together are one.

use std::collections::BTreeSet;

use postroom_core::budget::Wait;
use postroom_core::id::{BodyId, ClaimId, MailboxId, QueueId};
use postroom_core::time::Timestamp;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::row::{Edit, Edits, Served, edit, edit_row};
use crate::error::Result;
use crate::queue::Claimed;
use crate::sql::combine::ClaimOrder;
use crate::sql::rows::{hex, new_claim, optional, small, text, to_json, unhex, unreadable};
use crate::sql::sqlite::budgets::{self, Account};
use crate::sql::sqlite::connection::failed;
use crate::sql::sqlite::lanes::Line;
use crate::transition::lease::Lease;

const CLAIM: &str = "claim mails";

/// A mail of a line that may be sent now; `l` is the line.
macro_rules! may_be_sent {
    () => {
        "FROM postroom_queue_open q
            WHERE q.outbox = l.outbox AND q.paused = 0 AND q.priority = l.priority AND q.contract = l.contract
                AND q.claim IS NULL AND q.state = 'queued' AND q.due_at <= ?1 AND q.expires_at > ?1"
    };
}
pub(super) use may_be_sent;

/// The lines of one priority whose turn it is, in order.
macro_rules! due {
    ($rank:literal) => {
        concat!(
            "SELECT * FROM (SELECT l.outbox, l.priority, l.ready_at, l.turn, l.contract FROM postroom_queue_line l
                WHERE l.outbox = ?2 AND l.priority = ",
            $rank,
            " AND l.ready_at IS NOT NULL AND l.ready_at <= ?1 AND EXISTS (SELECT 1 ",
            may_be_sent!(),
            ") ORDER BY l.ready_at, l.turn, l.contract LIMIT ?3 + 0)"
        )
    };
}

/// The next mails of the lines of the highest priority that has some: each with its place in its line and its line's place, from 0, as it
/// is stored, and with its content where that is one piece; whether the outbox has limits, by whom alone it is tried while it rests, and
/// whether there may be more than these.
pub(in crate::sql::sqlite) const DUE: &str = concat!(
    "WITH due AS MATERIALIZED (SELECT * FROM (",
    due!("0"),
    " UNION ALL ",
    due!("1"),
    " UNION ALL ",
    due!("2"),
    ") WHERE EXISTS (SELECT 1 FROM postroom_queue_lane
            WHERE outbox = ?2 AND blocked = 0 AND (spent_until IS NULL OR spent_until <= ?1)
                AND (retry_at IS NULL OR retry_at <= ?1 OR EXISTS (SELECT 1 FROM postroom_health
                    WHERE mailbox = ?2 AND prober IN (SELECT unhex(value) FROM json_each(?4)))))
        AND NOT EXISTS (SELECT 1 FROM postroom_pause WHERE scope = 'system')),
    lines AS MATERIALIZED (SELECT outbox, priority, contract, row_number() OVER (ORDER BY ready_at, turn, contract) - 1 AS place
        FROM due WHERE priority = (SELECT min(priority) FROM due))
    SELECT j.key, l.place, ",
    edit_row!(),
    ", CASE WHEN m.size <= 262144 THEN
            (SELECT p.content FROM postroom_body_piece p WHERE p.body = m.body AND p.number = 0) END,
        (SELECT limited FROM postroom_queue_lane WHERE outbox = ?2),
        (SELECT h.prober FROM postroom_queue_lane d JOIN postroom_health h ON h.mailbox = d.outbox
            WHERE d.outbox = ?2 AND d.retry_at > ?1),
        (SELECT count(*) > 1 FROM due)
    FROM lines l CROSS JOIN json_each((SELECT json_group_array(hex(mail) ORDER BY due_at, mail) FROM (SELECT q.mail, q.due_at ",
    may_be_sent!(),
    " ORDER BY q.due_at, q.mail
            LIMIT (?3 + (SELECT count(*) FROM lines) - 1) / (SELECT count(*) FROM lines)))) j
    CROSS JOIN postroom_queue_mail m ON m.id = unhex(j.value)
    LEFT JOIN postroom_queue_open o ON o.mail = m.id"
);

type Due = (i64, i64, String, Option<Vec<u8>>, i64, Option<Uuid>, bool);

/// Claims of one outbox that come together, and what of its budget is left for more.
pub(super) struct Claiming<'a> {
    now: Timestamp,
    outbox: MailboxId,
    /// Who claims, by the place of the order, and how many more mails each gets.
    askers: Vec<(usize, &'a ClaimOrder, u32)>,
    /// The mails whose turn it is, with their contents.
    next: Vec<(QueueId, Option<Vec<u8>>)>,
    is_limited: bool,
    account: Option<Account>,
    /// What the next mail waits for.
    waits: Option<Wait>,
    claimed: Vec<(usize, Claimed)>,
    ended: bool,
}

impl<'a> Claiming<'a> {
    /// One for each outbox.
    pub(super) fn of(now: Timestamp, orders: &'a [ClaimOrder]) -> Vec<Self> {
        let outboxes: BTreeSet<MailboxId> = orders.iter().map(|order| order.outbox).collect();
        let claiming = |outbox| {
            let askers = orders.iter().enumerate();
            let askers = askers.filter(|(_, order)| order.outbox == outbox && order.limit > 0);
            Self {
                now,
                outbox,
                askers: askers.map(|(place, order)| (place, order, order.limit)).collect(),
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

    /// Whether there is nothing more to claim, or nobody who would.
    pub(super) fn has_ended(&self) -> bool {
        self.ended || self.waits.is_some() || self.left() == 0
    }

    fn left(&self) -> u32 {
        self.askers.iter().fold(0, |left, (.., more)| left.saturating_add(*more))
    }

    /// Reads the next mails of the lines of one priority, in turn: the first of each, the second of each, and so on.
    pub(super) async fn look(&mut self, tx: &mut SqliteConnection, edits: &mut Edits) -> Result<()> {
        self.next.clear();
        if self.has_ended() {
            return Ok(());
        }
        let limit = self.left();
        let workers: Vec<String> = self.askers.iter().map(|(_, order, _)| hex(order.worker.uuid())).collect();
        let due = sqlx::query_as(DUE).bind(self.now.as_millis()).bind(self.outbox.number());
        let due = due.bind(i64::from(limit)).bind(to_json(&workers)?).fetch_all(tx).await;
        let mut due: Vec<Due> = due.map_err(failed(CLAIM))?;
        let Some((.., limited, prober, more)) = due.first() else {
            self.ended = true;
            return Ok(());
        };
        self.is_limited = *limited != 0;
        self.ended = !more;
        if let Some(prober) = prober {
            // The outbox rests: only who tries it gets something.
            self.askers.retain(|(_, order, _)| order.worker.uuid() == *prober);
        }
        due.sort_unstable_by_key(|(turn, place, ..)| (*turn, *place));
        let limit = usize::try_from(self.left()).unwrap_or(usize::MAX);
        for (_, _, mail, content, ..) in due.into_iter().take(limit) {
            let edit = edit(&mail)?;
            self.next.push((edit.id, content));
            // What this same transaction has changed of it stands.
            edits.entry(edit.id).or_insert(edit);
        }
        Ok(())
    }

    /// Claims the mails that were read, as far as the outbox's budget goes, for who asked first. Says which lines it served.
    pub(super) async fn take(
        &mut self,
        tx: &mut SqliteConnection,
        edits: &mut Edits,
        served: &mut Vec<Served>,
    ) -> Result<()> {
        let now = self.now;
        if self.is_limited && self.account.is_none() && !self.next.is_empty() {
            self.account = budgets::account(tx, self.outbox).await?;
        }
        let mut lines: Vec<(Line, u32)> = Vec::new();
        for (id, content) in std::mem::take(&mut self.next) {
            let edit = edits.get_mut(&id).ok_or_else(unreadable)?;
            // A late answer of this same transaction may have ended it.
            if !edit.row.is_due(now) {
                continue;
            }
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
            let known = lines.iter().position(|(other, _)| *other == line);
            let before = known.map_or(0, |known| lines.remove(known).1);
            lines.push((line, before + 1));
            match read_claimed(edit, content, self.outbox, lease.claim, &places) {
                Ok(mail) => self.claimed.push((*place, mail)),
                Err(_) => {
                    let entries = edit.row.bury(now, edit.id, lease.claim, &places);
                    edit.note(entries);
                }
            }
        }
        let mut turns = 0;
        served.extend(lines.into_iter().map(|((outbox, contract, priority), mails)| {
            turns += mails;
            (outbox, contract, priority, now.as_millis(), turns)
        }));
        Ok(())
    }

    /// Writes what is left of the budget. Gives what was claimed, each with the place of the order that it is for.
    pub(super) async fn end(self, tx: &mut SqliteConnection) -> Result<Vec<(usize, Claimed)>> {
        if let Some(account) = self.account {
            // The last mail that fits says already until when the next one waits: nobody has to ask for it in vain.
            let waits = self.waits.or_else(|| account.budget.wait(account.limits, self.now, 1));
            account.save(tx, waits).await?;
        }
        Ok(self.claimed)
    }
}

/// A mail as its worker gets it.
fn read_claimed(
    edit: &Edit,
    content: Option<Vec<u8>>,
    outbox: MailboxId,
    claim: ClaimId,
    places: &[u32],
) -> Result<Claimed> {
    let (sender, return_path, body, size) = &edit.frozen;
    let address = |place: &u32| {
        let address = usize::try_from(*place).ok().and_then(|place| edit.addresses.get(place));
        Ok((*place, text(address.ok_or_else(unreadable)?)?))
    };
    Ok(Claimed {
        id: edit.id,
        claim,
        contract: text(&edit.line().1)?,
        outbox,
        sender: text(sender)?,
        return_path: optional(return_path.clone())?,
        recipients: places.iter().map(address).collect::<Result<_>>()?,
        attempt: edit.row.attempts.saturating_add(1),
        body: BodyId::from_uuid(unhex(body)?.ok_or_else(unreadable)?),
        size: small(*size)?,
        content: content.map(Into::into),
        created_at: edit.row.created_at,
        expires_at: edit.row.expires_at,
        on_doubt: edit.row.on_doubt,
    })
}
