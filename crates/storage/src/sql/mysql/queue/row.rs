//! Mails of the queue as they change: read into [`QueueRow`]s, changed there, and written back with their timeline, all in
//! one transaction and in as many statements for a hundred mails as for one.

use std::collections::{BTreeMap, BTreeSet};

use postroom_core::id::{ClaimId, QueueId, WorkerId};
use postroom_core::time::Timestamp;
use serde_json::{Value, json};
use sqlx::mysql::MySqlConnection;
use uuid::Uuid;

use crate::error::Result;
use crate::queue::TimelineEntry;
use crate::sql::mysql::connection::failed;
use crate::sql::mysql::json::json_rows;
use crate::sql::mysql::lanes::{Line, bell};
use crate::sql::mysql::locks;
use crate::sql::rows::{hex, queue_ids, small, text, time, to_json};
use crate::transition::lease::Lease;
use crate::transition::queue::{QueueRow, RecipientRow};

const STAGE: &str = "read and write mails of the queue";

/// How many rows one statement takes. What a server says in its longest reply, 2,000 times, is a few MiB; 16 are what MariaDB takes by
/// itself.
const TOGETHER: usize = 2000;

macro_rules! select {
    ($open:literal, $from:literal, $where:literal) => {
        concat!(
            "SELECT m.id, m.outbox, m.contract, m.priority, m.created_at, m.on_doubt, ",
            $open,
            " FROM ",
            json_rows!("?"; mail id ""),
            " j STRAIGHT_JOIN ",
            $from,
            " FORCE INDEX (PRIMARY) ON m.id = UNHEX(j.mail) ",
            $where,
            " FOR UPDATE"
        )
    };
}

/// Unfinished mails, locked in the order in which everybody locks them: what is read is current until the transaction ends.
pub(in crate::sql::mysql) const MAILS: &str = select!(
    "o.attempts, o.expires_at, o.due_at, o.claim, o.worker, o.lease_until",
    "postroom_queue_open o FORCE INDEX (PRIMARY) ON o.mail = UNHEX(j.mail) STRAIGHT_JOIN postroom_queue_mail m",
    ""
);

/// Finished mails: these have no other row to lock.
pub(in crate::sql::mysql) const FINISHED: &str = select!(
    "m.attempts, m.expires_at, NULL, NULL, NULL, NULL",
    "postroom_queue_mail m",
    "WHERE m.state IS NOT NULL"
);

/// They are sorted by whoever reads them: a server that sorts text writes it to a file first.
pub(in crate::sql::mysql) const RECIPIENTS: &str = concat!(
    "SELECT r.mail, r.place, r.address, r.state, r.doubted_by FROM ",
    json_rows!("?"; mail id ""),
    " j STRAIGHT_JOIN postroom_queue_recipient r FORCE INDEX (PRIMARY) ON r.mail = UNHEX(j.mail)"
);

const SAVE_RECIPIENTS: &str = concat!(
    "UPDATE ",
    json_rows!("?"; mail id "[0]", rank number "[1]", state key "[2]", doubted_by id "[3]"),
    " j STRAIGHT_JOIN postroom_queue_recipient r FORCE INDEX (PRIMARY) ON r.mail = UNHEX(j.mail) AND r.place = j.rank
    SET r.state = j.state, r.doubted_by = UNHEX(j.doubted_by)"
);

/// Also those that come back by a retry.
const SAVE_OPEN: &str = concat!(
    "INSERT INTO postroom_queue_open
        (mail, outbox, contract, priority, state, paused, due_at, expires_at, attempts, claim, worker, lease_until)
    SELECT UNHEX(j.mail), j.outbox, j.contract, j.priority, j.state,
        EXISTS (SELECT 1 FROM postroom_pause p WHERE p.scope = 'contract' AND p.subject = j.contract),
        j.due_at, j.expires_at, j.attempts, UNHEX(j.claim), UNHEX(j.worker), j.lease_until
    FROM ",
    json_rows!("?"; mail id "[0]", outbox number "[1]", contract key "[2]", priority number "[3]", state key "[4]",
        due_at number "[5]", expires_at number "[6]", attempts number "[7]", claim id "[8]", worker id "[9]",
        lease_until number "[10]"),
    " j ON DUPLICATE KEY UPDATE state = VALUES(state), due_at = VALUES(due_at), expires_at = VALUES(expires_at),
        attempts = VALUES(attempts), claim = VALUES(claim), worker = VALUES(worker), lease_until = VALUES(lease_until)"
);

const SAVE_REOPENED: &str = concat!(
    "UPDATE ",
    json_rows!("?"; mail id ""),
    " j STRAIGHT_JOIN postroom_queue_mail m FORCE INDEX (PRIMARY) ON m.id = UNHEX(j.mail)
    SET m.state = NULL, m.finished_at = NULL"
);

const SAVE_FINISHED: &str = concat!(
    "UPDATE ",
    json_rows!("?"; mail id "[0]", state key "[1]", attempts number "[2]", expires_at number "[3]", finished_at number "[4]"),
    " j STRAIGHT_JOIN postroom_queue_mail m FORCE INDEX (PRIMARY) ON m.id = UNHEX(j.mail)
    SET m.state = j.state, m.attempts = j.attempts, m.expires_at = j.expires_at, m.finished_at = j.finished_at"
);

const SAVE_CLOSED: &str = concat!(
    "DELETE o FROM ",
    json_rows!("?"; mail id "[0]"),
    " j STRAIGHT_JOIN postroom_queue_open o FORCE INDEX (PRIMARY) ON o.mail = UNHEX(j.mail)"
);

/// Bells of lines, as they are rung by submissions and claims.
macro_rules! insert_bells {
    ($json:literal) => {
        concat!(
            "INSERT INTO postroom_queue_bell (outbox, contract, priority, submitted_at, served_at)
            SELECT j.outbox, j.contract, j.priority, j.submitted_at, j.served_at FROM ",
            json_rows!($json; outbox number "[0]", contract key "[1]", priority number "[2]", submitted_at number "[3]",
                served_at number "[4]"),
            " j ORDER BY j.place"
        )
    };
}
pub(super) use insert_bells;

macro_rules! insert_events {
    ($json:literal) => {
        concat!(
            "INSERT INTO postroom_event (noun, mail, at, recipient, what, state, detail, actor)
            SELECT 'queue', UNHEX(j.mail), j.at, j.recipient, j.what, j.state, j.detail, j.actor FROM ",
            json_rows!($json; mail id "[0]", at number "[1]", recipient number "[2]", what text "[3]", state text "[4]",
                detail text "[5]", actor text "[6]"),
            " j ORDER BY j.place"
        )
    };
}
pub(super) use insert_events;

/// Writes what changed, each part of it in its own statement.
pub(in crate::sql::mysql) const SAVE: [&str; 7] = [
    SAVE_RECIPIENTS,
    SAVE_OPEN,
    SAVE_REOPENED,
    SAVE_FINISHED,
    SAVE_CLOSED,
    insert_bells!("?"),
    insert_events!("?"),
];

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
    tx: &mut MySqlConnection,
    ids: impl IntoIterator<Item = QueueId>,
) -> Result<BTreeMap<QueueId, Edit>> {
    let mut missing: BTreeSet<QueueId> = ids.into_iter().collect();
    let mut edits = BTreeMap::new();
    // A finished mail may come back by a retry before it is locked, and is then among the unfinished ones.
    for sql in [MAILS, FINISHED, MAILS, FINISHED] {
        if missing.is_empty() {
            break;
        }
        let ids = queue_ids(missing.iter().copied())?;
        let mails: Vec<Columns> =
            sqlx::query_as(sql).bind(ids).fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
        for columns in mails {
            let edit = edit(columns)?;
            missing.remove(&edit.id);
            edits.insert(edit.id, edit);
        }
    }
    let ids = queue_ids(edits.keys().copied())?;
    // A statement of its own, behind the locks: it sees what those who had them before have committed.
    let mut recipients: Vec<(Uuid, i64, String, String, Option<Uuid>)> =
        sqlx::query_as(RECIPIENTS).bind(ids).fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
    recipients.sort_unstable_by_key(|(mail, place, ..)| (*mail, *place));
    for (mail, _, address, state, doubted_by) in recipients {
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
pub(super) async fn save(tx: &mut MySqlConnection, edits: impl IntoIterator<Item = Edit>) -> Result<()> {
    save_served(tx, edits, &[], Timestamp::from_millis(0)).await
}

/// Writes what changed, also of mails that were claimed: these lines were served at that time, in this order.
pub(super) async fn save_served(
    tx: &mut MySqlConnection,
    edits: impl IntoIterator<Item = Edit>,
    served: &[Line],
    now: Timestamp,
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
            reopened.push(json!(id));
            contracts.insert(edit.contract.clone());
        }
        open.push(open_row(&id, row, (edit.outbox, edit.contract.as_str(), edit.priority)));
    }
    lines.retain(|line| !served.contains(line));
    let bells = lines.iter().map(|line| bell(line, None, None));
    let bells: Vec<Value> = bells.chain(served.iter().map(|line| bell(line, None, Some(now)))).collect();
    if open.is_empty() && finished.is_empty() && events.is_empty() {
        return Ok(());
    }
    if !contracts.is_empty() {
        locks::unswitched(tx, contracts).await?;
    }
    let closed = finished.clone();
    for (sql, rows) in SAVE.into_iter().zip([recipients, open, reopened, finished, closed, bells, events]) {
        write_rows(tx, sql, &rows, STAGE).await?;
    }
    Ok(())
}

/// Runs a statement that takes rows apart, for as many at once as a packet takes.
pub(super) async fn write_rows(
    tx: &mut MySqlConnection,
    sql: &'static str,
    rows: &[Value],
    stage: &'static str,
) -> Result<()> {
    for rows in rows.chunks(TOGETHER) {
        sqlx::query(sql).bind(to_json(rows)?).execute(&mut *tx).await.map_err(failed(stage))?;
    }
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
    json!([id, at.as_millis(), recipient, what, state, detail, actor])
}
