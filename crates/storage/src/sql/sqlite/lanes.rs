//! The lines and lanes of the queue. A line is the mail of one contract and priority at one outbox: when its first claimable
//! mail is due, and when it was served. A lane is an outbox: when its first line is ready, and whether it may be tried. Both
//! follow from queue, mailbox, health and switches; whoever changes one of them refreshes them in the same transaction.

use std::collections::BTreeSet;

use postroom_core::id::MailboxId;
use postroom_core::time::Timestamp;
use sqlx::sqlite::SqliteConnection;

use super::connection::failed;
use crate::error::Result;
use crate::sql::rows::to_json;

/// A line: outbox, contract, place of the priority.
pub(super) type Line = (i64, String, i64);

/// One seek for each line; a line that stays as it is is not written. `?2` is the time of a submission: a clock that was set back
/// must not hold up what is submitted by it.
pub(super) const LINES: &str = "INSERT INTO postroom_queue_line (outbox, contract, priority, due_at)
    SELECT value ->> 0, value ->> 1, value ->> 2, (SELECT q.due_at FROM postroom_queue_open q
        WHERE q.outbox = value ->> 0 AND q.paused = 0 AND q.priority = value ->> 2 AND q.contract = value ->> 1
            AND q.claim IS NULL AND q.state = 'queued' ORDER BY q.due_at LIMIT 1)
    FROM json_each(?1) WHERE true
    ON CONFLICT (outbox, contract, priority) DO UPDATE
        SET due_at = excluded.due_at, served_at = min(served_at, coalesce(?2, served_at))
        WHERE due_at IS NOT excluded.due_at OR served_at > ?2";

/// The line goes behind all that are ready, by as many turns as it had.
pub(super) const SERVED: &str = "UPDATE postroom_queue_line SET served_at = ?4, turn = ?5 + coalesce(
        (SELECT l.turn FROM postroom_queue_line l
            WHERE l.outbox = ?1 AND l.priority = ?3 AND l.ready_at IS NOT NULL AND l.ready_at = ?4
            ORDER BY l.turn DESC LIMIT 1), 0)
    WHERE outbox = ?1 AND contract = ?2 AND priority = ?3";

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

/// One seek for each priority; a lane that stays as it is is not written.
pub(super) const REFRESH: &str = concat!(
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
    FROM json_each(?1) j
    JOIN postroom_mailbox m ON m.id = j.value AND m.kind = 'outbox'
    LEFT JOIN postroom_health h ON h.mailbox = m.id
    WHERE true
    ON CONFLICT (outbox) DO UPDATE
        SET due_at = excluded.due_at, retry_at = excluded.retry_at, blocked = excluded.blocked,
            limited = excluded.limited
        WHERE (due_at, retry_at, blocked, limited)
            IS NOT (excluded.due_at, excluded.retry_at, excluded.blocked, excluded.limited)"
);

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
    let lines: Vec<Line> = lines.into_iter().collect();
    write_lines(tx, &lines, None).await
}

/// Refreshes the lines that mails were submitted to.
pub(super) async fn joined(tx: &mut SqliteConnection, now: Timestamp, lines: &[Line]) -> Result<()> {
    write_lines(tx, lines, Some(now)).await
}

async fn write_lines(tx: &mut SqliteConnection, lines: &[Line], submitted: Option<Timestamp>) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let query = sqlx::query(LINES).bind(to_json(lines)?).bind(submitted.map(Timestamp::as_millis));
    query.execute(&mut *tx).await.map_err(failed("refresh a line"))?;
    let outboxes: BTreeSet<MailboxId> = lines.iter().map(|(outbox, ..)| MailboxId::new(*outbox)).collect();
    refresh(tx, outboxes).await
}

/// Sends a line that mails are claimed from to the end of the turns. Its refresh follows with the mails' new state.
pub(super) async fn served(
    tx: &mut SqliteConnection,
    now: Timestamp,
    (outbox, contract, priority): &Line,
    mails: u32,
) -> Result<()> {
    let query = sqlx::query(SERVED).bind(outbox).bind(contract.as_str()).bind(priority).bind(now.as_millis());
    query.bind(i64::from(mails)).execute(tx).await.map_err(failed("move a line"))?;
    Ok(())
}
