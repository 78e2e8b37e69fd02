//! Mails of the queue as they change: read into [`QueueRow`]s, changed there, and written back with their timeline, all in
//! one transaction and in as many statements for a hundred mails as for one.

use std::collections::{BTreeMap, BTreeSet};

use postroom_core::id::{ClaimId, QueueId, WorkerId};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnection;

use crate::error::Result;
use crate::queue::TimelineEntry;
use crate::sql::rows::{from_json, hex, queue_ids, small, text, time, unhex, unreadable};
use crate::sql::sqlite::connection::failed;
use crate::sql::sqlite::lanes::{Line, SERVED, refresh_by};
use crate::sql::sqlite::script::{Script, over_rows};
use crate::transition::lease::Lease;
use crate::transition::queue::{QueueRow, RecipientRow};

const STAGE: &str = "read and write mails of the queue";

/// A mail as it is stored, as JSON: what changes of it, its recipients by place, and what is frozen of it that its worker gets. `m` is
/// the mail and `o` its row while it is unfinished.
macro_rules! edit_row {
    () => {
        "json_array(hex(m.id), m.outbox, m.contract, m.priority, m.created_at, m.on_doubt,
        coalesce(o.attempts, m.attempts), coalesce(o.expires_at, m.expires_at), o.due_at,
        hex(o.claim), hex(o.worker), o.lease_until,
        (SELECT json_group_array(json_array(r.address, r.state, hex(r.doubted_by)) ORDER BY r.place)
            FROM postroom_queue_recipient r WHERE r.mail = m.id),
        json_array(m.sender, m.return_path, hex(m.body), m.size))"
    };
}
pub(super) use edit_row;

/// All these mails, in one row: each row is a message of SQLite's thread.
pub(in crate::sql::sqlite) const MAILS: &str = concat!(
    "SELECT json_group_array(",
    edit_row!(),
    ") FROM json_each(?) j JOIN postroom_queue_mail m ON m.id = unhex(j.value)
    LEFT JOIN postroom_queue_open o ON o.mail = m.id"
);

/// Written for every changed mail that is unfinished, also for one that comes back by a retry.
pub(super) const OPEN: &str = over_rows!(
    "INSERT INTO postroom_queue_open
        (mail, outbox, contract, priority, state, paused, due_at, expires_at, attempts, claim, worker, lease_until)
    SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4,
        EXISTS (SELECT 1 FROM postroom_pause WHERE scope = 'contract' AND subject = value ->> 2),
        value ->> 5, value ->> 6, value ->> 7, unhex(value ->> 8), unhex(value ->> 9), value ->> 10
    FROM r WHERE true
    ON CONFLICT (mail) DO UPDATE SET state = excluded.state, due_at = excluded.due_at,
        expires_at = excluded.expires_at, attempts = excluded.attempts, claim = excluded.claim,
        worker = excluded.worker, lease_until = excluded.lease_until"
);

/// In the order in which they are given.
pub(super) const TIMELINE: &str = over_rows!(
    "INSERT INTO postroom_event (noun, mail, at, recipient, what, state, detail, actor)
    SELECT 'queue', unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6
    FROM r ORDER BY key"
);

const RECIPIENTS: &str = "UPDATE postroom_queue_recipient AS r
    SET state = j.value ->> 2, doubted_by = unhex(j.value ->> 3)
    FROM json_each(?) j WHERE r.mail = unhex(j.value ->> 0) AND r.place = j.value ->> 1";

const REOPENED: &str = "UPDATE postroom_queue_mail SET state = NULL, finished_at = NULL
    WHERE id IN (SELECT unhex(value) FROM json_each(?))";

const FINISHED: &str = "UPDATE postroom_queue_mail AS m
    SET state = j.value ->> 1, attempts = j.value ->> 2, expires_at = j.value ->> 3, finished_at = j.value ->> 4
    FROM json_each(?) j WHERE m.id = unhex(j.value ->> 0)";

const CLOSED: &str =
    "DELETE FROM postroom_queue_open WHERE mail IN (SELECT unhex(value ->> 0) FROM json_each(?))";

/// All that is written of changed mails.
#[cfg(test)]
pub(in crate::sql::sqlite) const SAVE: [&str; 6] = [RECIPIENTS, OPEN, REOPENED, FINISHED, CLOSED, TIMELINE];

/// A mail between being read and being written back.
pub(super) struct Edit {
    pub(super) id: QueueId,
    pub(super) row: QueueRow,
    /// The recipients' addresses, by place.
    pub(super) addresses: Vec<String>,
    pub(super) frozen: Frozen,
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

/// A line that was served: outbox, contract, priority, when, and how many turns it and those before it had.
pub(super) type Served = (i64, String, i64, i64, u32);

/// Sender, return path, body, size, as they are stored: what a mail's worker gets.
pub(super) type Frozen = (String, Option<String>, String, i64);

/// What `edit_row` gives.
type Columns = (
    String,
    i64,
    String,
    i64,
    i64,
    String,
    i64,
    i64,
    Option<i64>,
    String,
    String,
    Option<i64>,
    Vec<(String, String, String)>,
    Frozen,
);

/// The mail that a row is.
pub(super) fn edit(row: &str) -> Result<Edit> {
    from_columns(from_json(row)?)
}

fn from_columns(columns: Columns) -> Result<Edit> {
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
        recipients,
        frozen,
    ) = columns;
    let lease = unhex(&claim)?.zip(unhex(&worker)?).zip(until).map(|((claim, worker), until)| Lease {
        claim: ClaimId::from_uuid(claim),
        worker: WorkerId::from_uuid(worker),
        until: time(until),
    });
    let recipient = |(address, state, doubted_by): (String, String, String)| {
        let doubted_by = unhex(&doubted_by)?.map(ClaimId::from_uuid);
        Ok((address, RecipientRow { state: text(&state)?, doubted_by }))
    };
    let recipients: Vec<_> = recipients.into_iter().map(recipient).collect::<Result<_>>()?;
    let (addresses, recipients) = recipients.into_iter().unzip();
    let row = QueueRow {
        created_at: time(created_at),
        expires_at: time(expires_at),
        due_at: time(due_at.unwrap_or(created_at)),
        on_doubt: text(&on_doubt)?,
        attempts: small(attempts)?,
        lease,
        recipients,
    };
    let id = QueueId::from_uuid(unhex(&id)?.ok_or_else(unreadable)?);
    let before = row.clone();
    Ok(Edit { id, row, addresses, frozen, before, outbox, contract, priority, log: Vec::new() })
}

/// Mails that are read, to be changed and written back.
pub(super) type Edits = BTreeMap<QueueId, Edit>;

/// The mails that [`MAILS`] gave.
pub(super) fn edits(rows: &str) -> Result<Edits> {
    let rows: Vec<Columns> = from_json(rows)?;
    rows.into_iter().map(|row| from_columns(row).map(|edit| (edit.id, edit))).collect()
}

/// Reads these mails; those that are not there are left out.
pub(super) async fn load(tx: &mut SqliteConnection, ids: impl IntoIterator<Item = QueueId>) -> Result<Edits> {
    let unique: BTreeSet<QueueId> = ids.into_iter().collect();
    let mails = sqlx::query_as(MAILS).bind(queue_ids(unique)?);
    let (mails,): (String,) = mails.fetch_one(tx).await.map_err(failed(STAGE))?;
    edits(&mails)
}

/// Writes what changed, in one call of the driver. What did not change is not written.
pub(super) async fn save(tx: &mut SqliteConnection, edits: impl IntoIterator<Item = Edit>) -> Result<()> {
    save_script(edits, &[])?.run(tx, STAGE).await
}

/// The script that writes what changed, and the lines that were served.
pub(super) fn save_script(edits: impl IntoIterator<Item = Edit>, served: &[Served]) -> Result<Script> {
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
            let at = edit.log.last().map(|entry| entry.at.as_millis());
            finished.push(json!([id, state, row.attempts, row.expires_at.as_millis(), at]));
            continue;
        }
        if before.is_finished() {
            reopened.push(json!(id));
        }
        open.push(open_row(&id, row, (edit.outbox, edit.contract.as_str(), edit.priority)));
    }
    let mut script = Script::default();
    script.of_rows(RECIPIENTS, &recipients)?;
    script.of_rows(OPEN, &open)?;
    script.of_rows(REOPENED, &reopened)?;
    script.of_rows(FINISHED, &finished)?;
    script.of_rows(CLOSED, &finished)?;
    script.of_rows(TIMELINE, &timeline)?;
    script.of_rows(SERVED, served)?;
    refresh_by(&mut script, &lines, None)?;
    Ok(script)
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
