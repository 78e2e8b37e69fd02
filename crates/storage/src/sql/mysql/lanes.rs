//! The lines and lanes of the queue. A line is the mail of one contract and priority at one outbox: when its first claimable mail is
//! due, and when it was served. A lane is an outbox: when its first line is ready, and whether it may be tried. Both follow from
//! queue, mailbox, health and switches. Whoever changes one of them rings a bell in the same transaction; whoever looks for work
//! answers the bells first. A bell that is seen was committed with what it is about, so no due mail stays unseen; and nobody waits
//! for a transaction of a host, which only adds bells.

use std::collections::{BTreeMap, BTreeSet};

use postroom_core::id::MailboxId;
use postroom_core::time::Timestamp;
use serde_json::{Value, json};
use sqlx::mysql::MySqlConnection;

use super::connection::{Connections, failed, write};
use super::json::json_rows;
use super::locks;
use crate::error::Result;
use crate::sql::rows::to_json;

/// A line: outbox, contract, place of the priority.
pub(super) type Line = (i64, String, i64);

/// A bell for a line, for JSON that a statement takes apart: of mail that was submitted, of mail that was claimed.
pub(super) fn bell(
    (outbox, contract, priority): &Line,
    submitted: Option<Timestamp>,
    served: Option<Timestamp>,
) -> Value {
    json!([outbox, contract, priority, submitted.map(Timestamp::as_millis), served.map(Timestamp::as_millis)])
}

pub(super) const RING: &str = concat!(
    "INSERT INTO postroom_queue_bell (outbox) SELECT j.outbox FROM ",
    json_rows!("?"; outbox number ""),
    " j"
);

const RING_LINES: &str = concat!(
    "INSERT INTO postroom_queue_bell (outbox, contract, priority) SELECT j.outbox, j.contract, j.priority FROM ",
    json_rows!("?"; outbox number "[0]", contract key "[1]", priority number "[2]"),
    " j"
);

/// Those of all lines that have mail of a contract.
pub(super) const RING_CONTRACT: &str = "INSERT INTO postroom_queue_bell (outbox, contract, priority)
    SELECT DISTINCT outbox, contract, priority FROM postroom_queue_open FORCE INDEX (postroom_queue_open_contract)
    WHERE contract = ?";

pub(super) const IS_RUNG: &str = "SELECT number FROM postroom_queue_bell ORDER BY number LIMIT 1";

/// With whether the outbox is there.
pub(super) const BELLS: &str = "SELECT number, outbox, contract, priority, submitted_at, served_at,
        EXISTS (SELECT 1 FROM postroom_mailbox m FORCE INDEX (PRIMARY)
            WHERE m.id = postroom_queue_bell.outbox AND m.kind = 'outbox')
    FROM postroom_queue_bell ORDER BY number LIMIT ?";

pub(super) const TAKE: &str = concat!(
    "DELETE b FROM ",
    json_rows!("?"; bell number ""),
    " j STRAIGHT_JOIN postroom_queue_bell b FORCE INDEX (PRIMARY) ON b.number = j.bell"
);

/// Brings lines up to date, by one seek for each. A line was served last by the last bell that says so; a submission by a clock that
/// was set back must not be held up by that.
pub(super) const LINES: &str = concat!(
    "INSERT INTO postroom_queue_line (outbox, contract, priority, due_at, served_at, turn)
    SELECT r.outbox, r.contract, r.priority,
        (SELECT q.waiting_at FROM postroom_queue_open q FORCE INDEX (postroom_queue_open_waiting)
            WHERE q.outbox = r.outbox AND q.priority = r.priority AND q.contract = r.contract AND q.waiting_at IS NOT NULL
            ORDER BY q.waiting_at LIMIT 1),
        LEAST(COALESCE(r.served_at, l.served_at, 0), COALESCE(r.submitted_at, 9223372036854775807)),
        COALESCE(r.turn, l.turn, 0)
    FROM ",
    json_rows!("?"; outbox number "[0]", contract key "[1]", priority number "[2]", turn number "[3]",
        served_at number "[4]", submitted_at number "[5]"),
    " r LEFT JOIN postroom_queue_line l ON l.outbox = r.outbox AND l.contract = r.contract AND l.priority = r.priority
    ON DUPLICATE KEY UPDATE due_at = VALUES(due_at), served_at = VALUES(served_at), turn = VALUES(turn)"
);

macro_rules! first_ready {
    ($rank:literal) => {
        concat!(
            "COALESCE((SELECT l.ready_at FROM postroom_queue_line l FORCE INDEX (postroom_queue_line_ready)
                WHERE l.outbox = r.outbox AND l.priority = ",
            $rank,
            " AND l.ready_at IS NOT NULL ORDER BY l.ready_at LIMIT 1), 9223372036854775807)"
        )
    };
}

/// What belongs to outboxes that are gone.
const GONE: [&str; 2] = [
    concat!(
        "DELETE l FROM ",
        json_rows!("?"; outbox number ""),
        " r STRAIGHT_JOIN postroom_queue_lane l FORCE INDEX (PRIMARY) ON l.outbox = r.outbox
        WHERE NOT EXISTS (SELECT 1 FROM postroom_mailbox m WHERE m.id = r.outbox AND m.kind = 'outbox')"
    ),
    concat!(
        "DELETE l FROM ",
        json_rows!("?"; outbox number ""),
        " r STRAIGHT_JOIN postroom_queue_line l FORCE INDEX (PRIMARY) ON l.outbox = r.outbox
        WHERE NOT EXISTS (SELECT 1 FROM postroom_mailbox m WHERE m.id = r.outbox AND m.kind = 'outbox')"
    ),
];

/// Brings the lanes of outboxes up to date.
pub(super) const LANES: &str = concat!(
    "INSERT INTO postroom_queue_lane (outbox, due_at, retry_at, blocked, limited)
    SELECT r.outbox, NULLIF(LEAST(",
    first_ready!("0"),
    ", ",
    first_ready!("1"),
    ", ",
    first_ready!("2"),
    "), 9223372036854775807), h.next_attempt,
        m.status <> 'active' OR COALESCE(h.suspended, FALSE) OR EXISTS (
            SELECT 1 FROM postroom_pause p WHERE p.scope = 'outbox' AND p.subject = CAST(r.outbox AS CHAR)),
        JSON_VALUE(m.settings, '$.per_minute') IS NOT NULL OR JSON_VALUE(m.settings, '$.recipients_per_day') IS NOT NULL
    FROM ",
    json_rows!("?"; outbox number ""),
    " r STRAIGHT_JOIN postroom_mailbox m FORCE INDEX (PRIMARY) ON m.id = r.outbox AND m.kind = 'outbox'
    LEFT JOIN postroom_health h ON h.mailbox = r.outbox
    ON DUPLICATE KEY UPDATE due_at = VALUES(due_at), retry_at = VALUES(retry_at), blocked = VALUES(blocked),
        limited = VALUES(limited)"
);

/// How many bells one transaction answers.
const ANSWERED: i64 = 5000;

const STAGE: &str = "find due outboxes";

/// Rings the bells of whole outboxes, in the transaction that changes what their lanes follow from.
pub(super) async fn ring(
    tx: &mut MySqlConnection,
    outboxes: impl IntoIterator<Item = MailboxId>,
) -> Result<()> {
    let outboxes: Vec<i64> = outboxes.into_iter().map(MailboxId::number).collect();
    if !outboxes.is_empty() {
        let ring = sqlx::query(RING).bind(to_json(&outboxes)?);
        ring.execute(tx).await.map_err(failed("ring a bell"))?;
    }
    Ok(())
}

/// Rings the bells of lines.
pub(super) async fn ring_lines(tx: &mut MySqlConnection, lines: &[Line]) -> Result<()> {
    let ring = sqlx::query(RING_LINES).bind(to_json(lines)?);
    ring.execute(tx).await.map(drop).map_err(failed("ring a bell"))
}

/// Brings every line and lane up to date with what is committed.
pub(super) async fn answer(connections: &Connections) -> Result<()> {
    connections
        .answers
        .give(|| is_rung(connections), || answer_some(connections), ANSWERED.unsigned_abs())
        .await
}

async fn is_rung(connections: &Connections) -> Result<bool> {
    let mut read = connections.read(STAGE).await?;
    let row = sqlx::query_as(IS_RUNG).fetch_optional(&mut *read).await.map_err(failed(STAGE));
    let rung: Option<(i64,)> = read.finish(row).await?;
    Ok(rung.is_some())
}

async fn answer_some(connections: &Connections) -> Result<u64> {
    write!(connections, STAGE, |tx| answer_in(tx).await)
}

type Bell = (i64, i64, Option<String>, Option<i64>, Option<i64>, Option<i64>, bool);

/// What bells say of a line.
#[derive(Default)]
struct Rung {
    /// The last bell that tells of a claim, and when that was.
    served: Option<(i64, i64)>,
    /// The first submission since.
    submitted_at: Option<i64>,
}

/// What bells say, in their order, of each line.
fn lines(bells: Vec<Bell>) -> BTreeMap<Line, Rung> {
    let mut lines: BTreeMap<Line, Rung> = BTreeMap::new();
    for (number, outbox, contract, priority, submitted_at, served_at, _) in bells {
        let Some((contract, priority)) = contract.zip(priority) else { continue };
        let rung = lines.entry((outbox, contract, priority)).or_default();
        if let Some(served_at) = served_at {
            *rung = Rung { served: Some((number, served_at)), submitted_at: None };
        }
        rung.submitted_at = rung.submitted_at.into_iter().chain(submitted_at).min();
    }
    lines
}

/// Answers some bells. Gives how many.
async fn answer_in(tx: &mut MySqlConnection) -> Result<u64> {
    // What comes after this sees what the one before has committed.
    locks::bells(tx).await?;
    let bells = sqlx::query_as(BELLS).bind(ANSWERED).fetch_all(&mut *tx).await;
    let bells: Vec<Bell> = bells.map_err(failed(STAGE))?;
    if bells.is_empty() {
        return Ok(0);
    }
    let taken = u64::try_from(bells.len()).unwrap_or(u64::MAX);
    let gone: BTreeSet<i64> = bells.iter().filter(|bell| !bell.6).map(|bell| bell.1).collect();
    let numbers: Vec<i64> = bells.iter().map(|(number, ..)| *number).collect();
    let outboxes: BTreeSet<i64> = bells.iter().map(|(_, outbox, ..)| *outbox).collect();
    let line = |((outbox, contract, priority), rung): (Line, Rung)| {
        let (turn, served_at) = rung.served.unzip();
        json!([outbox, contract, priority, turn, served_at, rung.submitted_at])
    };
    let lines: Vec<Value> = lines(bells).into_iter().map(line).collect();
    let take = sqlx::query(TAKE).bind(to_json(&numbers)?);
    take.execute(&mut *tx).await.map_err(failed(STAGE))?;
    if !lines.is_empty() {
        sqlx::query(LINES).bind(to_json(&lines)?).execute(&mut *tx).await.map_err(failed(STAGE))?;
    }
    if !gone.is_empty() {
        let gone = to_json(&gone)?;
        for sql in GONE {
            sqlx::query(sql).bind(&gone).execute(&mut *tx).await.map_err(failed(STAGE))?;
        }
    }
    sqlx::query(LANES).bind(to_json(&outboxes)?).execute(tx).await.map_err(failed(STAGE))?;
    Ok(taken)
}
