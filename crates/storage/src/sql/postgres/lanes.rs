//! The lines and lanes of the queue. A line is the mail of one contract and priority at one outbox: when its first claimable mail is
//! due, and when it was served. A lane is an outbox: when its first line is ready, and whether it may be tried. Both follow from
//! queue, mailbox, health and switches. Whoever changes one of them rings a bell in the same transaction; whoever looks for work
//! answers the bells first. A bell that is seen was committed with what it is about, so no due mail stays unseen; and nobody waits
//! for a transaction of a host, which only adds bells.

use postroom_core::id::MailboxId;
use sqlx::postgres::PgConnection;

use super::connection::{Connections, failed, write};
use crate::error::Result;

/// A line: outbox, contract, place of the priority.
pub(super) type Line = (i64, String, i64);

pub(super) const RING: &str = "INSERT INTO postroom_queue_bell (outbox) SELECT unnest($1::bigint[])";

/// Those of all lines that have mail of a contract.
pub(super) const RING_CONTRACT: &str = "INSERT INTO postroom_queue_bell (outbox, contract, priority)
    SELECT DISTINCT outbox, contract, priority FROM postroom_queue_open WHERE contract = $1";

pub(super) const IS_RUNG: &str = "SELECT EXISTS (
    SELECT 1 FROM (SELECT number FROM postroom_queue_bell ORDER BY number LIMIT 1) b)";

/// Those who answer come one after the other, by a statement of its own: what comes after it sees what the one before has
/// committed. The commit need not be synced: the bells come back with the lanes that were not written.
pub(super) const TURN: &str = "BEGIN; SET LOCAL synchronous_commit = off;
    SELECT pg_advisory_xact_lock(hashtextextended('postroom/bells/' || current_schema(), 0))";

/// Takes bells away and brings their lines up to date, by one seek for each; a line that stays as it is is not written. A line was
/// served last by the last bell that says so; a submission by a clock that was set back must not be held up by that. Gives how many
/// bells it took, and their outboxes.
pub(super) const LINES: &str = "WITH taken AS MATERIALIZED (
        DELETE FROM postroom_queue_bell WHERE number IN (
            SELECT number FROM postroom_queue_bell ORDER BY number LIMIT $1)
        RETURNING number, outbox, contract, priority, submitted_at, served_at
    ), placed AS (
        SELECT *, max(number) FILTER (WHERE served_at IS NOT NULL) OVER (PARTITION BY outbox, contract, priority) AS turn
        FROM taken WHERE contract IS NOT NULL
    ), rung AS MATERIALIZED (
        SELECT outbox, contract, priority, max(turn) AS turn, max(served_at) FILTER (WHERE number = turn) AS served_at,
            min(submitted_at) FILTER (WHERE turn IS NULL OR number > turn) AS submitted_at
        FROM placed GROUP BY outbox, contract, priority
    ), fresh AS (
        INSERT INTO postroom_queue_line AS l (outbox, contract, priority, due_at, served_at, turn)
        SELECT r.outbox, r.contract, r.priority,
            (SELECT q.due_at FROM postroom_queue_open q
                WHERE q.outbox = r.outbox AND NOT q.paused AND q.priority = r.priority AND q.contract = r.contract
                    AND q.claim IS NULL AND q.state = 'queued' ORDER BY q.due_at LIMIT 1),
            least(coalesce(r.served_at, old.served_at, 0), r.submitted_at), coalesce(r.turn, old.turn, 0)
        FROM rung r LEFT JOIN postroom_queue_line old
            ON old.outbox = r.outbox AND old.contract = r.contract AND old.priority = r.priority
        ON CONFLICT (outbox, contract, priority) DO UPDATE
            SET due_at = excluded.due_at, served_at = excluded.served_at, turn = excluded.turn
            WHERE (l.due_at, l.served_at, l.turn) IS DISTINCT FROM (excluded.due_at, excluded.served_at, excluded.turn)
    )
    SELECT count(*), coalesce(array_agg(DISTINCT outbox), '{}') FROM taken";

macro_rules! first_ready {
    ($rank:literal) => {
        concat!(
            "(SELECT l.ready_at FROM postroom_queue_line l WHERE l.outbox = r.outbox AND l.priority = ",
            $rank,
            " AND l.ready_at IS NOT NULL ORDER BY l.ready_at LIMIT 1)"
        )
    };
}

/// Brings the lanes of outboxes up to date, and takes away what belongs to one that is gone.
pub(super) const LANES: &str = concat!(
    "WITH rung AS MATERIALIZED (
        SELECT r.outbox, m.status, m.settings FROM unnest($1::bigint[]) r (outbox) LEFT JOIN LATERAL (
            SELECT status, settings FROM postroom_mailbox WHERE id = r.outbox AND kind = 'outbox' LIMIT 1) m ON true
    ), gone AS (
        DELETE FROM postroom_queue_lane l USING rung r WHERE l.outbox = r.outbox AND r.status IS NULL
    ), lines AS (
        DELETE FROM postroom_queue_line l USING rung r WHERE l.outbox = r.outbox AND r.status IS NULL
    )
    INSERT INTO postroom_queue_lane AS lane (outbox, due_at, retry_at, blocked, limited)
    SELECT r.outbox, least(",
    first_ready!("0"),
    ", ",
    first_ready!("1"),
    ", ",
    first_ready!("2"),
    "), h.next_attempt,
        r.status <> 'active' OR coalesce(h.suspended, false) OR EXISTS (
            SELECT 1 FROM postroom_pause WHERE scope = 'outbox' AND subject = r.outbox::text),
        r.settings::json ->> 'per_minute' IS NOT NULL OR r.settings::json ->> 'recipients_per_day' IS NOT NULL
    FROM rung r LEFT JOIN postroom_health h ON h.mailbox = r.outbox
    WHERE r.status IS NOT NULL
    ON CONFLICT (outbox) DO UPDATE
        SET due_at = excluded.due_at, retry_at = excluded.retry_at, blocked = excluded.blocked,
            limited = excluded.limited
        WHERE (lane.due_at, lane.retry_at, lane.blocked, lane.limited)
            IS DISTINCT FROM (excluded.due_at, excluded.retry_at, excluded.blocked, excluded.limited)"
);

/// How many bells one transaction answers.
const ANSWERED: i64 = 5000;

const STAGE: &str = "find due outboxes";

/// Rings the bells of whole outboxes, in the transaction that changes what their lanes follow from.
pub(super) async fn ring(tx: &mut PgConnection, outboxes: impl IntoIterator<Item = MailboxId>) -> Result<()> {
    let outboxes: Vec<i64> = outboxes.into_iter().map(MailboxId::number).collect();
    if !outboxes.is_empty() {
        sqlx::query(RING).bind(outboxes).execute(tx).await.map_err(failed("ring a bell"))?;
    }
    Ok(())
}

/// Rings the bells of lines.
pub(super) async fn ring_lines(tx: &mut PgConnection, lines: &[Line]) -> Result<()> {
    let sql = "INSERT INTO postroom_queue_bell (outbox, contract, priority)
        SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[])";
    let outboxes: Vec<i64> = lines.iter().map(|(outbox, ..)| *outbox).collect();
    let contracts: Vec<String> = lines.iter().map(|(_, contract, _)| contract.clone()).collect();
    let ranks: Vec<i64> = lines.iter().map(|(.., rank)| *rank).collect();
    let query = sqlx::query(sql).bind(outboxes).bind(contracts).bind(ranks);
    query.execute(tx).await.map(drop).map_err(failed("ring a bell"))
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
    let row = sqlx::query_as(IS_RUNG).fetch_one(&mut *read).await.map_err(failed(STAGE));
    read.finish(row).await.map(|(is_rung,): (bool,)| is_rung)
}

async fn answer_some(connections: &Connections) -> Result<u64> {
    write!(connections, STAGE, TURN, |tx| answer_in(tx).await).map(i64::unsigned_abs)
}

/// Answers some bells. Gives how many.
async fn answer_in(tx: &mut PgConnection) -> Result<i64> {
    let row = sqlx::query_as(LINES).bind(ANSWERED).fetch_one(&mut *tx).await;
    let (taken, outboxes): (i64, Vec<i64>) = row.map_err(failed(STAGE))?;
    if taken > 0 {
        // A statement of its own, which sees the lines as they are now.
        sqlx::query(LANES).bind(outboxes).execute(tx).await.map_err(failed(STAGE))?;
    }
    Ok(taken)
}
