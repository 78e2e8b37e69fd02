//! The lanes: for each outbox, when its first claimable mail is due and whether it may be tried. A lane follows from queue,
//! mailbox, health and switches; whoever changes one of them refreshes it in the same transaction.

use postroom_core::id::MailboxId;
use sqlx::sqlite::SqliteConnection;

use super::connection::failed;
use crate::error::Result;
use crate::sql::rows::to_json;

macro_rules! first_due {
    ($rank:literal) => {
        concat!(
            "coalesce((SELECT q.due_at FROM postroom_queue_open q
                WHERE q.outbox = m.id AND q.paused = 0 AND q.priority = ",
            $rank,
            " AND q.claim IS NULL AND q.state = 'queued' ORDER BY q.due_at LIMIT 1), 9223372036854775807)"
        )
    };
}

/// One seek for each priority; a lane that stays as it is is not written.
pub(super) const REFRESH: &str = concat!(
    "INSERT INTO postroom_queue_lane (outbox, due_at, retry_at, blocked)
    SELECT m.id, nullif(min(",
    first_due!("0"),
    ", ",
    first_due!("1"),
    ", ",
    first_due!("2"),
    "), 9223372036854775807), h.next_attempt,
        m.status <> 'active' OR coalesce(h.suspended, 0) OR EXISTS (
            SELECT 1 FROM postroom_pause WHERE scope = 'outbox' AND subject = CAST(m.id AS TEXT))
    FROM json_each(?1) j
    JOIN postroom_mailbox m ON m.id = j.value AND m.kind = 'outbox'
    LEFT JOIN postroom_health h ON h.mailbox = m.id
    WHERE true
    ON CONFLICT (outbox) DO UPDATE
        SET due_at = excluded.due_at, retry_at = excluded.retry_at, blocked = excluded.blocked
        WHERE (due_at, retry_at, blocked) IS NOT (excluded.due_at, excluded.retry_at, excluded.blocked)"
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
