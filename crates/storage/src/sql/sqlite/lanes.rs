//! The lines and lanes of the queue. A line is the mail of one contract and priority at one outbox: when its first claimable
//! mail is due, and when it was served. A lane is an outbox: when its first line is ready, and whether it may be tried. Both
//! follow from queue, mailbox, health and switches; whoever changes one of them refreshes them in the same transaction.

use std::collections::BTreeSet;

use postroom_core::id::MailboxId;
use postroom_core::time::Timestamp;
use sqlx::sqlite::SqliteConnection;

use super::connection::failed;
use super::script::Script;
use crate::error::Result;
use crate::sql::rows::to_json;

/// A line: outbox, contract, place of the priority.
pub(super) type Line = (i64, String, i64);

/// One seek for each line; a line that stays as it is is not written. The time is that of a submission: a clock that was set back
/// must not hold up what is submitted by it.
macro_rules! lines {
    ($lines:literal, $submitted:literal) => {
        concat!(
            "INSERT INTO postroom_queue_line (outbox, contract, priority, due_at)
    SELECT value ->> 0, value ->> 1, value ->> 2, (SELECT q.due_at FROM postroom_queue_open q
        WHERE q.outbox = value ->> 0 AND q.paused = 0 AND q.priority = value ->> 2 AND q.contract = value ->> 1
            AND q.claim IS NULL AND q.state = 'queued' ORDER BY q.due_at LIMIT 1)
    FROM json_each(",
            $lines,
            ") WHERE true
    ON CONFLICT (outbox, contract, priority) DO UPDATE
        SET due_at = excluded.due_at, served_at = min(served_at, coalesce(",
            $submitted,
            ", served_at))
        WHERE due_at IS NOT excluded.due_at OR served_at > ",
            $submitted,
        )
    };
}

/// Lines go behind all that are ready, in the order in which they are given, each with its time and with the turns that it and
/// those before it had.
macro_rules! served {
    ($lines:literal) => {
        concat!(
            "UPDATE postroom_queue_line AS s SET served_at = j.value ->> 3, turn = j.value ->> 4 + coalesce(
        (SELECT l.turn FROM postroom_queue_line l
            WHERE l.outbox = j.value ->> 0 AND l.priority = j.value ->> 2 AND l.ready_at IS NOT NULL
                AND l.ready_at = j.value ->> 3
            ORDER BY l.turn DESC LIMIT 1), 0)
    FROM json_each(",
            $lines,
            ") j
    WHERE s.outbox = j.value ->> 0 AND s.contract = j.value ->> 1 AND s.priority = j.value ->> 2"
        )
    };
}

macro_rules! first_ready {
    ($rank:literal) => {
        concat!(
            "coalesce((SELECT l.ready_at FROM postroom_queue_line l
                WHERE l.outbox = m.id AND l.priority = ",
            $rank,
            " AND l.ready_at IS NOT NULL ORDER BY l.ready_at LIMIT 1), 9223372036854775807)"
        )
    };
}

/// One seek for each outbox and priority; a lane that stays as it is is not written. `+m.kind` is no term of an index: by that of
/// the kinds, the planner would walk over all outboxes to find these.
macro_rules! lanes {
    ($outboxes:expr) => {
        concat!(
            "INSERT INTO postroom_queue_lane (outbox, due_at, retry_at, blocked, limited)
    SELECT m.id, nullif(min(",
            first_ready!("0"),
            ", ",
            first_ready!("1"),
            ", ",
            first_ready!("2"),
            "), 9223372036854775807), h.next_attempt,
        m.status <> 'active' OR coalesce(h.suspended, 0) OR EXISTS (
            SELECT 1 FROM postroom_pause WHERE scope = 'outbox' AND subject = CAST(m.id AS TEXT)),
        m.settings ->> 'per_minute' IS NOT NULL OR m.settings ->> 'recipients_per_day' IS NOT NULL
    FROM postroom_mailbox m
    LEFT JOIN postroom_health h ON h.mailbox = m.id
    WHERE m.id IN (",
            $outboxes,
            ") AND +m.kind = 'outbox'
    ON CONFLICT (outbox) DO UPDATE
        SET due_at = excluded.due_at, retry_at = excluded.retry_at, blocked = excluded.blocked,
            limited = excluded.limited
        WHERE (due_at, retry_at, blocked, limited)
            IS NOT (excluded.due_at, excluded.retry_at, excluded.blocked, excluded.limited)"
        )
    };
}

pub(super) const REFRESH: &str = lanes!("SELECT value FROM json_each(?1)");

/// What a script brings up to date: lines, and then the lanes of their outboxes; and, before them, the lines that were served.
pub(super) const LINES: &str = lines!("?", "?");
pub(super) const LANES: &str = lanes!("SELECT value ->> 0 FROM json_each(?)");
pub(super) const SERVED: &str = served!("?");

/// Refreshes the lanes of these outboxes; what is no outbox is left out.
pub(super) async fn refresh(
    tx: &mut SqliteConnection,
    outboxes: impl IntoIterator<Item = MailboxId>,
) -> Result<()> {
    let outboxes: Vec<i64> = outboxes.into_iter().map(MailboxId::number).collect();
    if outboxes.is_empty() {
        return Ok(());
    }
    let outboxes = to_json(&outboxes)?;
    sqlx::query(REFRESH).bind(outboxes).execute(tx).await.map_err(failed("refresh a lane"))?;
    Ok(())
}

/// Refreshes these lines and the lanes of their outboxes.
pub(super) async fn refresh_lines(
    tx: &mut SqliteConnection,
    lines: impl IntoIterator<Item = Line>,
) -> Result<()> {
    let lines: BTreeSet<Line> = lines.into_iter().collect();
    let mut script = Script::default();
    refresh_by(&mut script, &lines, None)?;
    script.run(tx, "refresh a line").await
}

/// Has a script refresh lines and the lanes of their outboxes; those of mails that were submitted, with the time of that.
pub(super) fn refresh_by(
    script: &mut Script,
    lines: &BTreeSet<Line>,
    submitted: Option<Timestamp>,
) -> Result<()> {
    if !lines.is_empty() {
        let (lines, submitted) = (to_json(lines)?, submitted.map(Timestamp::as_millis));
        script.then(LINES).with(lines.clone())?.with(submitted)?.with(submitted)?;
        script.then(LANES).with(lines)?;
    }
    Ok(())
}
