//! Mails of the queue as they change: read into [`QueueRow`]s, changed there, and written back with their timeline, all in
//! one transaction and in as many statements for a hundred mails as for one.

use std::collections::{BTreeMap, BTreeSet};

use postroom_core::id::{ClaimId, QueueId, WorkerId};
use postroom_core::time::Timestamp;
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::error::Result;
use crate::queue::TimelineEntry;
use crate::sql::postgres::connection::failed;
use crate::sql::postgres::events::drawn_behind;
use crate::sql::postgres::lanes::{Line, bell};
use crate::sql::postgres::locks;
use crate::sql::postgres::plain::plain;
use crate::sql::rows::{hex, small, text, time, to_json};
use crate::transition::lease::Lease;
use crate::transition::queue::{QueueRow, RecipientRow};

const STAGE: &str = "read and write mails of the queue";

macro_rules! select {
    ($open:literal) => {
        concat!("SELECT m.id, m.outbox, m.contract, m.priority, m.created_at, m.on_doubt, ", $open)
    };
}

/// Unfinished mails, locked in the order in which everybody locks them: what is read is current until the transaction ends.
pub(in crate::sql::postgres) const MAILS: &str = select!(
    "o.attempts, o.expires_at, o.due_at, o.claim, o.worker, o.lease_until
    FROM postroom_queue_open o JOIN postroom_queue_mail m ON m.id = o.mail
    WHERE o.mail = ANY($1::uuid[]) ORDER BY o.mail FOR UPDATE OF o"
);

/// Finished mails: these have no other row to lock.
pub(in crate::sql::postgres) const FINISHED: &str = select!(
    "m.attempts, m.expires_at, NULL::bigint, NULL::uuid, NULL::uuid, NULL::bigint
    FROM postroom_queue_mail m
    WHERE m.id = ANY($1::uuid[]) AND m.state IS NOT NULL ORDER BY m.id FOR NO KEY UPDATE"
);

pub(in crate::sql::postgres) const RECIPIENTS: &str = "SELECT mail, address, state, doubted_by
    FROM postroom_queue_recipient WHERE mail = ANY($1::uuid[]) ORDER BY mail, place";

/// Writes what changed, in one statement whose parts concern different rows: recipients (`$1`), unfinished mails (`$2`), also
/// those that come back by a retry (`$3`), finished mails (`$4`), events (`$5`), the bells of the lines that are to follow (`$6`).
pub(in crate::sql::postgres) const SAVE: &str = concat!("WITH ", drawn_behind!(), ", recipients AS (
        UPDATE postroom_queue_recipient r SET state = j.value ->> 2, doubted_by = (j.value ->> 3)::uuid
        FROM json_array_elements($1::json) j
        WHERE r.mail = (j.value ->> 0)::uuid AND r.place = (j.value ->> 1)::bigint
    ), unfinished AS (
        INSERT INTO postroom_queue_open
            (mail, outbox, contract, priority, state, paused, due_at, expires_at, attempts, claim, worker, lease_until)
        SELECT (value ->> 0)::uuid, (value ->> 1)::bigint, value ->> 2, (value ->> 3)::bigint, value ->> 4,
            EXISTS (SELECT 1 FROM postroom_pause WHERE scope = 'contract' AND subject = value ->> 2),
            (value ->> 5)::bigint, (value ->> 6)::bigint, (value ->> 7)::bigint,
            (value ->> 8)::uuid, (value ->> 9)::uuid, (value ->> 10)::bigint
        FROM json_array_elements($2::json)
        ON CONFLICT (mail) DO UPDATE SET state = excluded.state, due_at = excluded.due_at,
            expires_at = excluded.expires_at, attempts = excluded.attempts, claim = excluded.claim,
            worker = excluded.worker, lease_until = excluded.lease_until
    ), reopened AS (
        UPDATE postroom_queue_mail SET state = NULL, finished_at = NULL WHERE id = ANY($3::uuid[])
    ), finished AS (
        UPDATE postroom_queue_mail m SET state = j.value ->> 1, attempts = (j.value ->> 2)::bigint,
            expires_at = (j.value ->> 3)::bigint, finished_at = (j.value ->> 4)::bigint
        FROM json_array_elements($4::json) j WHERE m.id = (j.value ->> 0)::uuid
    ), closed AS (
        DELETE FROM postroom_queue_open o USING json_array_elements($4::json) j WHERE o.mail = (j.value ->> 0)::uuid
    ), bells AS (
        INSERT INTO postroom_queue_bell (outbox, contract, priority, served_at)
        SELECT (value ->> 0)::bigint, value ->> 1, (value ->> 2)::bigint, (value ->> 3)::bigint
        FROM json_array_elements($6::json) WITH ORDINALITY j (value, place) ORDER BY place
    )
    INSERT INTO postroom_event (noun, mail, at, recipient, what, state, detail, actor)
    SELECT 'queue', (value ->> 0)::uuid, (value ->> 1)::bigint, (value ->> 2)::bigint, value ->> 3, value ->> 4,
        value ->> 5, value ->> 6
    FROM drawn_behind, json_array_elements($5::json) WITH ORDINALITY j (value, place) ORDER BY place");

/// A mail between being read and being written back.
pub(super) struct Edit {
    pub(super) id: QueueId,
    pub(super) row: QueueRow,
    /// The recipients' addresses, by place.
    pub(super) addresses: Vec<String>,
    before: QueueRow,
    outbox: i64,
    contract: String,
    priority: i64,
    log: Vec<TimelineEntry>,
}

impl Edit {
    /// Adds to the mail's timeline.
    pub(super) fn note(&mut self, entries: impl IntoIterator<Item = TimelineEntry>) {
        self.log.extend(entries);
    }

    /// The line that it stands in.
    pub(super) fn line(&self) -> Line {
        (self.outbox, self.contract.clone(), self.priority)
    }
}

type Columns =
    (Uuid, i64, String, i64, i64, String, i64, i64, Option<i64>, Option<Uuid>, Option<Uuid>, Option<i64>);

fn edit(columns: Columns) -> Result<Edit> {
    let (
        id,
        outbox,
        contract,
        priority,
        created_at,
        on_doubt,
        attempts,
        expires_at,
        due_at,
        claim,
        worker,
        until,
    ) = columns;
    let lease = claim.zip(worker).zip(until).map(|((claim, worker), until)| Lease {
        claim: ClaimId::from_uuid(claim),
        worker: WorkerId::from_uuid(worker),
        until: time(until),
    });
    let row = QueueRow {
        created_at: time(created_at),
        expires_at: time(expires_at),
        due_at: time(due_at.unwrap_or(created_at)),
        on_doubt: text(&on_doubt)?,
        attempts: small(attempts)?,
        lease,
        recipients: Vec::new(),
    };
    let (id, before) = (QueueId::from_uuid(id), row.clone());
    Ok(Edit { id, row, addresses: Vec::new(), before, outbox, contract, priority, log: Vec::new() })
}

/// Reads and locks these mails; those that are not there are left out.
pub(super) async fn load(
    tx: &mut PgConnection,
    ids: impl IntoIterator<Item = QueueId>,
) -> Result<BTreeMap<QueueId, Edit>> {
    let mut missing: BTreeSet<QueueId> = ids.into_iter().collect();
    let mut edits = BTreeMap::new();
    // A finished mail may come back by a retry before it is locked, and is then among the unfinished ones.
    for sql in [MAILS, FINISHED, MAILS, FINISHED] {
        if missing.is_empty() {
            break;
        }
        let ids: Vec<Uuid> = missing.iter().map(|id| id.uuid()).collect();
        let mails: Vec<Columns> =
            sqlx::query_as(sql).bind(ids).fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
        for columns in mails {
            let edit = edit(columns)?;
            missing.remove(&edit.id);
            edits.insert(edit.id, edit);
        }
    }
    let ids: Vec<Uuid> = edits.keys().map(|id| id.uuid()).collect();
    // A statement of its own, behind the locks: it sees what those who had them before have committed.
    let recipients: Vec<(Uuid, String, String, Option<Uuid>)> =
        sqlx::query_as(RECIPIENTS).bind(ids).fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
    for (mail, address, state, doubted_by) in recipients {
        if let Some(edit) = edits.get_mut(&QueueId::from_uuid(mail)) {
            let doubted_by = doubted_by.map(ClaimId::from_uuid);
            edit.before.recipients.push(RecipientRow { state: text(&state)?, doubted_by });
            edit.addresses.push(address);
        }
    }
    for edit in edits.values_mut() {
        edit.row.recipients.clone_from(&edit.before.recipients);
    }
    Ok(edits)
}

/// Writes what changed. What did not change is not written.
pub(super) async fn save(tx: &mut PgConnection, edits: impl IntoIterator<Item = Edit>) -> Result<()> {
    save_served(tx, edits, Vec::new()).await
}

/// Writes what changed of mails that were claimed, with the bells of their lines.
pub(super) async fn save_served(
    tx: &mut PgConnection,
    edits: impl IntoIterator<Item = Edit>,
    mut bells: Vec<Value>,
) -> Result<()> {
    let (mut lines, mut contracts) = (BTreeSet::new(), BTreeSet::new());
    let (mut open, mut reopened, mut finished) = (Vec::new(), Vec::new(), Vec::new());
    let (mut recipients, mut events) = (Vec::new(), Vec::new());
    for edit in edits {
        let (id, row, before) = (hex(edit.id.uuid()), &edit.row, &edit.before);
        events.extend(edit.log.iter().map(|entry| event_row(&id, entry)));
        if row == before {
            continue;
        }
        let places = (0u32..).zip(row.recipients.iter().zip(&before.recipients));
        for (place, (now, _)) in places.filter(|(_, (now, before))| now != before) {
            let doubted_by = now.doubted_by.map(|claim| hex(claim.uuid()));
            recipients.push(json!([id, place, now.state, doubted_by]));
        }
        // A mark or an acceptance changes nothing of when the outbox has work.
        if due(row) != due(before) {
            lines.insert(edit.line());
        }
        let state = row.state();
        if row.is_finished() {
            let at = edit.log.last().map(|entry| entry.at.as_millis());
            finished.push(json!([id, state, row.attempts, row.expires_at.as_millis(), at]));
            continue;
        }
        if before.is_finished() {
            reopened.push(edit.id.uuid());
            contracts.insert(edit.contract.clone());
        }
        open.push(open_row(&id, row, (edit.outbox, edit.contract.as_str(), edit.priority)));
    }
    // A claim has told of its lines.
    if bells.is_empty() {
        bells.extend(lines.iter().map(|line| bell(line, None)));
    }
    if open.is_empty() && finished.is_empty() && events.is_empty() {
        return Ok(());
    }
    if !contracts.is_empty() {
        locks::unswitched(tx, contracts).await?;
    }
    sqlx::query(SAVE)
        .bind(to_json(&recipients)?)
        .bind(to_json(&open)?)
        .bind(reopened)
        .bind(to_json(&finished)?)
        .bind(to_json(&events)?)
        .bind(to_json(&bells)?)
        .execute(tx)
        .await
        .map_err(failed(STAGE))?;
    Ok(())
}

/// The row of an unfinished mail, for JSON that a statement takes apart.
pub(super) fn open_row(id: &str, row: &QueueRow, (outbox, contract, priority): (i64, &str, i64)) -> Value {
    let claim = row.lease.map(|lease| hex(lease.claim.uuid()));
    let worker = row.lease.map(|lease| hex(lease.worker.uuid()));
    let until = row.lease.map(|lease| lease.until.as_millis());
    let (due_at, expires_at) = (row.due_at.as_millis(), row.expires_at.as_millis());
    json!([
        id,
        outbox,
        contract,
        priority,
        row.state(),
        due_at,
        expires_at,
        row.attempts,
        claim,
        worker,
        until
    ])
}

/// When a mail can be claimed, if it can.
fn due(row: &QueueRow) -> Option<Timestamp> {
    row.is_waiting().then_some(row.due_at)
}

/// The event that an entry of a mail's timeline is, for JSON that a statement takes apart.
pub(super) fn event_row(id: &str, entry: &TimelineEntry) -> Value {
    let TimelineEntry { at, recipient, what, state, detail, actor } = entry;
    json!([id, at.as_millis(), recipient, what, state, plain(detail), actor])
}
