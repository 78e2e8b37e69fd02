//! Mails of the queue as they change: read into [`QueueRow`]s, changed there, and written back with their timeline, all in
//! one transaction and in as many statements for a hundred mails as for one.

use std::collections::{BTreeMap, BTreeSet};

use postroom_core::id::{ClaimId, QueueId, WorkerId};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use crate::error::Result;
use crate::queue::TimelineEntry;
use crate::sql::rows::{hex, queue_ids, small, text, time, to_json};
use crate::sql::sqlite::connection::failed;
use crate::sql::sqlite::lanes::{self, Line};
use crate::transition::lease::Lease;
use crate::transition::queue::{QueueRow, RecipientRow};

const STAGE: &str = "read and write mails of the queue";

pub(in crate::sql::sqlite) const MAILS: &str =
    "SELECT m.id, m.outbox, m.contract, m.priority, m.created_at, m.on_doubt,
        coalesce(o.attempts, m.attempts), coalesce(o.expires_at, m.expires_at), o.due_at,
        o.claim, o.worker, o.lease_until
    FROM json_each(?1) j JOIN postroom_queue_mail m ON m.id = unhex(j.value)
    LEFT JOIN postroom_queue_open o ON o.mail = m.id";

pub(in crate::sql::sqlite) const RECIPIENTS: &str = "SELECT r.mail, r.address, r.state, r.doubted_by
    FROM json_each(?1) j JOIN postroom_queue_recipient r ON r.mail = unhex(j.value)
    ORDER BY r.mail, r.place";

/// Written for every changed mail that is unfinished, also for one that comes back by a retry.
pub(in crate::sql::sqlite) const OPEN: &str = "INSERT INTO postroom_queue_open
        (mail, outbox, contract, priority, state, paused, due_at, expires_at, attempts, claim, worker, lease_until)
    SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4,
        EXISTS (SELECT 1 FROM postroom_pause WHERE scope = 'contract' AND subject = value ->> 2),
        value ->> 5, value ->> 6, value ->> 7, unhex(value ->> 8), unhex(value ->> 9), value ->> 10
    FROM json_each(?1) WHERE true
    ON CONFLICT (mail) DO UPDATE SET state = excluded.state, due_at = excluded.due_at,
        expires_at = excluded.expires_at, attempts = excluded.attempts, claim = excluded.claim,
        worker = excluded.worker, lease_until = excluded.lease_until";

pub(in crate::sql::sqlite) const REOPENED: &str = "UPDATE postroom_queue_mail SET state = NULL
    WHERE id IN (SELECT unhex(value) FROM json_each(?1))";

pub(in crate::sql::sqlite) const FINISHED: &str = "UPDATE postroom_queue_mail AS m
    SET state = j.value ->> 1, attempts = j.value ->> 2, expires_at = j.value ->> 3
    FROM json_each(?1) j WHERE m.id = unhex(j.value ->> 0)";

pub(in crate::sql::sqlite) const CLOSED: &str = "DELETE FROM postroom_queue_open
    WHERE mail IN (SELECT unhex(value ->> 0) FROM json_each(?1))";

pub(in crate::sql::sqlite) const RECIPIENT: &str = "UPDATE postroom_queue_recipient AS r
    SET state = j.value ->> 2, doubted_by = unhex(j.value ->> 3)
    FROM json_each(?1) j WHERE r.mail = unhex(j.value ->> 0) AND r.place = j.value ->> 1";

/// In the order in which they are given.
pub(super) const TIMELINE: &str = "INSERT INTO postroom_event (noun, mail, at, recipient, what, state, detail, actor)
    SELECT 'queue', unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6
    FROM json_each(?1) ORDER BY key";

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

/// Reads these mails; those that are not there are left out.
pub(super) async fn load(
    tx: &mut SqliteConnection,
    ids: impl IntoIterator<Item = QueueId>,
) -> Result<BTreeMap<QueueId, Edit>> {
    let unique: BTreeSet<QueueId> = ids.into_iter().collect();
    let ids = queue_ids(unique)?;
    let mails: Vec<Columns> =
        sqlx::query_as(MAILS).bind(ids.clone()).fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
    let recipients: Vec<(Uuid, String, String, Option<Uuid>)> =
        sqlx::query_as(RECIPIENTS).bind(ids).fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
    let mut edits = BTreeMap::new();
    for columns in mails {
        let edit = edit(columns)?;
        edits.insert(edit.id, edit);
    }
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
pub(super) async fn save(tx: &mut SqliteConnection, edits: impl IntoIterator<Item = Edit>) -> Result<()> {
    let mut lines = BTreeSet::new();
    let (mut open, mut reopened, mut finished) = (Vec::new(), Vec::new(), Vec::new());
    let (mut recipients, mut timeline) = (Vec::new(), Vec::new());
    for edit in edits {
        let (id, row, before) = (hex(edit.id.uuid()), &edit.row, &edit.before);
        timeline.extend(edit.log.iter().map(|entry| timeline_row(&id, entry)));
        if row == before {
            continue;
        }
        let places = (0u32..).zip(row.recipients.iter().zip(&before.recipients));
        for (place, (now, _)) in places.filter(|(_, (now, before))| now != before) {
            let doubted_by = now.doubted_by.map(|claim| hex(claim.uuid()));
            recipients.push(json!([id, place, now.state, doubted_by]));
        }
        lines.insert(edit.line());
        let state = row.state();
        if row.is_finished() {
            finished.push(json!([id, state, row.attempts, row.expires_at.as_millis()]));
            continue;
        }
        if before.is_finished() {
            reopened.push(json!(id));
        }
        open.push(open_row(&id, row, (edit.outbox, edit.contract.as_str(), edit.priority)));
    }
    for (sql, rows) in [
        (RECIPIENT, &recipients),
        (OPEN, &open),
        (REOPENED, &reopened),
        (FINISHED, &finished),
        (CLOSED, &finished),
        (TIMELINE, &timeline),
    ] {
        write(tx, sql, rows).await?;
    }
    lanes::refresh_lines(tx, lines).await
}

/// The row of an unfinished mail, for [`OPEN`].
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

/// An entry of a mail's timeline, for [`TIMELINE`].
pub(super) fn timeline_row(id: &str, entry: &TimelineEntry) -> Value {
    let TimelineEntry { at, recipient, what, state, detail, actor } = entry;
    json!([id, at.as_millis(), recipient, what, state, detail, actor])
}

/// Writes rows by a statement that takes them apart; none, when there are none.
pub(super) async fn write(tx: &mut SqliteConnection, sql: &'static str, rows: &[Value]) -> Result<()> {
    if !rows.is_empty() {
        sqlx::query(sql).bind(to_json(rows)?).execute(tx).await.map_err(failed(STAGE))?;
    }
    Ok(())
}
