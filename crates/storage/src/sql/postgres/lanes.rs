//! The lanes: for each outbox, when its first claimable mail is due and whether it may be tried. A lane follows from queue,
//! mailbox, health and switches. Whoever changes one of them rings the outbox's bell in the same transaction; whoever looks for
//! work answers the bells first. A bell that is seen was committed with what it is about, so no due mail stays unseen; and nobody
//! waits for a transaction of a host, which only adds bells.

use postroom_core::id::MailboxId;
use sqlx::postgres::PgConnection;

use super::connection::{Connections, failed, write};
use crate::error::Result;
use crate::sql::group::Shared;

macro_rules! first_due {
    ($rank:literal) => {
        concat!(
            "(SELECT q.due_at FROM postroom_queue_open q
                WHERE q.outbox = r.outbox AND NOT q.paused AND q.priority = ",
            $rank,
            " AND q.claim IS NULL AND q.state = 'queued' ORDER BY q.due_at LIMIT 1)"
        )
    };
}

pub(super) const RING: &str = "INSERT INTO postroom_queue_bell (outbox) SELECT unnest($1::bigint[])";

pub(super) const IS_RUNG: &str = "SELECT EXISTS (
    SELECT 1 FROM (SELECT number FROM postroom_queue_bell ORDER BY number LIMIT 1) b)";

/// Those who answer come one after the other, by a statement of its own: what comes after it sees what the one before has
/// committed. The commit need not be synced: the bells come back with the lanes that were not written.
const TURN: &str = "SET LOCAL synchronous_commit = off;
    SELECT pg_advisory_xact_lock(hashtextextended('postroom/bells/' || current_schema(), 0))";

/// Takes bells away and brings their lanes up to date: one seek for each outbox and priority; a lane that stays as it is is not
/// written. Gives how many bells it took.
pub(super) const ANSWER: &str = concat!(
    "WITH taken AS MATERIALIZED (
        DELETE FROM postroom_queue_bell WHERE number IN (
            SELECT number FROM postroom_queue_bell ORDER BY number LIMIT $1) RETURNING outbox
    ), rung AS MATERIALIZED (
        SELECT DISTINCT outbox FROM taken
    ), gone AS (
        DELETE FROM postroom_queue_lane l USING rung r WHERE l.outbox = r.outbox
            AND NOT EXISTS (SELECT 1 FROM postroom_mailbox m WHERE m.id = r.outbox AND m.kind = 'outbox')
    ), fresh AS (
        INSERT INTO postroom_queue_lane AS l (outbox, due_at, retry_at, blocked)
        SELECT r.outbox, least(",
    first_due!("0"),
    ", ",
    first_due!("1"),
    ", ",
    first_due!("2"),
    "), h.next_attempt,
            m.status <> 'active' OR coalesce(h.suspended, false) OR EXISTS (
                SELECT 1 FROM postroom_pause WHERE scope = 'outbox' AND subject = r.outbox::text)
        FROM rung r
        CROSS JOIN LATERAL (
            SELECT status FROM postroom_mailbox WHERE id = r.outbox AND kind = 'outbox' LIMIT 1) m
        LEFT JOIN postroom_health h ON h.mailbox = r.outbox
        ON CONFLICT (outbox) DO UPDATE
            SET due_at = excluded.due_at, retry_at = excluded.retry_at, blocked = excluded.blocked
            WHERE (l.due_at, l.retry_at, l.blocked)
                IS DISTINCT FROM (excluded.due_at, excluded.retry_at, excluded.blocked)
    )
    SELECT count(*) FROM taken"
);

/// How many bells one transaction answers.
const ANSWERED: i64 = 5000;

const STAGE: &str = "find due outboxes";

/// Rings the bells of these outboxes, in the transaction that changes what their lanes follow from.
pub(super) async fn ring(tx: &mut PgConnection, outboxes: impl IntoIterator<Item = MailboxId>) -> Result<()> {
    let outboxes: Vec<i64> = outboxes.into_iter().map(MailboxId::number).collect();
    if !outboxes.is_empty() {
        sqlx::query(RING).bind(outboxes).execute(tx).await.map_err(failed("ring a bell"))?;
    }
    Ok(())
}

/// Brings every lane up to date with what is committed.
pub(super) async fn answer(connections: &Connections) -> Result<()> {
    loop {
        let mut read = connections.read(STAGE).await?;
        let row = sqlx::query_as(IS_RUNG).fetch_one(&mut *read).await.map_err(failed(STAGE));
        let (is_rung,): (bool,) = read.finish(row).await?;
        if !is_rung || write!(connections, STAGE, |tx| answer_in(tx).await)? < ANSWERED {
            return Ok(());
        }
    }
}

/// Answers some bells. Gives how many.
async fn answer_in(tx: &mut PgConnection) -> Result<i64> {
    tx.say(TURN, STAGE).await?;
    let row = sqlx::query_as(ANSWER).bind(ANSWERED).fetch_one(tx).await;
    let (taken,): (i64,) = row.map_err(failed(STAGE))?;
    Ok(taken)
}
