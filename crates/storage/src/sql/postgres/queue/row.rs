//! Mails of the queue as they change: read into [`QueueRow`]s, changed there, and written back with their timeline, all in
//! one transaction and in as many statements for a hundred mails as for one.

use std::collections::{BTreeMap, BTreeSet};

use postroom_core::id::{ClaimId, QueueId, WorkerId};
use postroom_core::time::Timestamp;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Decode, Postgres, Row, Type};
use uuid::Uuid;

use super::changes::Changes;
use crate::error::Result;
use crate::queue::TimelineEntry;
use crate::sql::postgres::connection::failed;
use crate::sql::postgres::events::drawn_behind;
use crate::sql::postgres::lanes::Line;
use crate::sql::postgres::locks;
use crate::sql::rows::{small, text, time};
use crate::transition::lease::Lease;
use crate::transition::queue::{QueueRow, RecipientRow};

const STAGE: &str = "read and write mails of the queue";

/// Locks unfinished mails in the order in which everybody locks them: what is read of them afterwards is current until the transaction
/// ends.
pub(in crate::sql::postgres) const OPEN: &str = "SELECT mail FROM postroom_queue_open
    WHERE mail = ANY($1::uuid[]) ORDER BY mail FOR UPDATE";

/// Finished mails: these have no other row to lock.
pub(in crate::sql::postgres) const FINISHED: &str = "SELECT id FROM postroom_queue_mail
    WHERE id = ANY($1::uuid[]) AND state IS NOT NULL ORDER BY id FOR NO KEY UPDATE";

/// Mails that are locked, a row for each recipient, by place; of those of `$2` also the content, where that is one piece. A statement of
/// its own, behind the locks: it sees what those who had them before have committed.
pub(in crate::sql::postgres) const MAILS: &str =
    "SELECT m.id, m.outbox, m.contract, m.priority, m.created_at, m.on_doubt,
        coalesce(o.attempts, m.attempts), coalesce(o.expires_at, m.expires_at), coalesce(o.due_at, m.created_at),
        o.claim, o.worker, o.lease_until, r.address, r.state, r.doubted_by,
        m.sender, m.return_path, m.body, m.size, CASE WHEN j.whole AND r.place = 0 AND m.size <= 262144 THEN
            (SELECT p.content FROM postroom_body_piece p WHERE p.body = m.body AND p.number = 0) END
    FROM (SELECT id, false FROM unnest($1::uuid[]) a (id) UNION ALL SELECT id, true FROM unnest($2::uuid[]) b (id)) j (id, whole)
    JOIN postroom_queue_mail m ON m.id = j.id LEFT JOIN postroom_queue_open o ON o.mail = m.id
    JOIN postroom_queue_recipient r ON r.mail = m.id
    ORDER BY m.id, r.place";

/// Unfinished mails that come back by a retry, before the rest is written.
const REOPEN: &str = "WITH reopened AS (
        UPDATE postroom_queue_mail SET state = NULL, finished_at = NULL WHERE id = ANY($1::uuid[])
        RETURNING id, outbox, contract, priority, attempts, expires_at, created_at
    )
    INSERT INTO postroom_queue_open (mail, outbox, contract, priority, state, paused, due_at, expires_at, attempts)
    SELECT id, outbox, contract, priority, 'queued',
        EXISTS (SELECT 1 FROM postroom_pause WHERE scope = 'contract' AND subject = contract),
        created_at, expires_at, attempts
    FROM reopened";

/// Writes what changed, in one statement whose parts concern different rows: recipients (`$1` to `$4`), unfinished mails (`$5` to
/// `$12`), finished mails (`$13` to `$17`), events (`$18` to `$24`), the bells of the lines that are to follow (`$25` to `$28`).
/// Arrays, not JSON: PostgreSQL would take an entry's text apart anew for each of its columns.
pub(in crate::sql::postgres) const SAVE: &str = concat!("WITH ", drawn_behind!(), ", recipients AS (
        UPDATE postroom_queue_recipient r SET state = j.state, doubted_by = j.doubted_by
        FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::uuid[]) j (mail, place, state, doubted_by)
        WHERE r.mail = j.mail AND r.place = j.place
    ), unfinished AS (
        UPDATE postroom_queue_open o SET state = j.state, due_at = j.due_at, expires_at = j.expires_at,
            attempts = j.attempts, claim = j.claim, worker = j.worker, lease_until = j.lease_until
        FROM unnest($5::uuid[], $6::text[], $7::bigint[], $8::bigint[], $9::bigint[], $10::uuid[], $11::uuid[], $12::bigint[])
            j (mail, state, due_at, expires_at, attempts, claim, worker, lease_until)
        WHERE o.mail = j.mail
    ), finished AS (
        UPDATE postroom_queue_mail m SET state = j.state, attempts = j.attempts, expires_at = j.expires_at, finished_at = j.at
        FROM unnest($13::uuid[], $14::text[], $15::bigint[], $16::bigint[], $17::bigint[]) j (mail, state, attempts, expires_at, at)
        WHERE m.id = j.mail
    ), closed AS (
        DELETE FROM postroom_queue_open WHERE mail = ANY($13::uuid[])
    ), bells AS (
        INSERT INTO postroom_queue_bell (outbox, contract, priority, served_at)
        SELECT outbox, contract, priority, served_at FROM unnest($25::bigint[], $26::text[], $27::bigint[], $28::bigint[])
            WITH ORDINALITY j (outbox, contract, priority, served_at, place) ORDER BY place
    )
    INSERT INTO postroom_event (noun, mail, at, recipient, what, state, detail, actor)
    SELECT 'queue', j.mail, j.at, j.recipient, j.what, j.state, j.detail, j.actor FROM drawn_behind,
        unnest($18::uuid[], $19::bigint[], $20::bigint[], $21::text[], $22::text[], $23::text[], $24::text[])
            WITH ORDINALITY j (mail, at, recipient, what, state, detail, actor, place)
    ORDER BY j.place");

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

/// What is frozen of a mail that its worker gets, as it is stored.
pub(super) struct Frozen {
    pub(super) sender: String,
    pub(super) return_path: Option<String>,
    pub(super) body: Option<Uuid>,
    pub(super) size: i64,
    /// Where it is one piece, and was asked for.
    pub(super) content: Option<Vec<u8>>,
}

fn edit(row: &PgRow) -> Result<Edit> {
    let at = |place| Column { row, place };
    let lease =
        at(9).get::<Option<Uuid>>()?.zip(at(10).get::<Option<Uuid>>()?).zip(at(11).get::<Option<i64>>()?);
    let lease = lease.map(|((claim, worker), until)| Lease {
        claim: ClaimId::from_uuid(claim),
        worker: WorkerId::from_uuid(worker),
        until: time(until),
    });
    let row = QueueRow {
        created_at: time(at(4).get()?),
        attempts: small(at(6).get()?)?,
        expires_at: time(at(7).get()?),
        due_at: time(at(8).get()?),
        on_doubt: text(at(5).get()?)?,
        lease,
        recipients: Vec::new(),
    };
    Ok(Edit {
        id: QueueId::from_uuid(at(0).get()?),
        before: row.clone(),
        row,
        addresses: Vec::new(),
        outbox: at(1).get()?,
        contract: at(2).get()?,
        priority: at(3).get()?,
        frozen: Frozen {
            sender: at(15).get()?,
            return_path: at(16).get()?,
            body: at(17).get()?,
            size: at(18).get()?,
            content: at(19).get()?,
        },
        log: Vec::new(),
    })
}

/// Adds the recipient that a row has.
fn recipient(row: &PgRow, edit: &mut Edit) -> Result<()> {
    let at = |place| Column { row, place };
    let (state, doubted_by) = (text(at(13).get()?)?, at(14).get::<Option<Uuid>>()?.map(ClaimId::from_uuid));
    edit.row.recipients.push(RecipientRow { state, doubted_by });
    edit.addresses.push(at(12).get()?);
    Ok(())
}

/// A column of [`MAILS`].
struct Column<'r> {
    row: &'r PgRow,
    place: usize,
}

impl<'r> Column<'r> {
    fn get<T: Decode<'r, Postgres> + Type<Postgres>>(&self) -> Result<T> {
        self.row.try_get(self.place).map_err(failed(STAGE))
    }
}

/// Mails that are read, to be changed and written back.
pub(super) type Edits = BTreeMap<QueueId, Edit>;

/// Locks these mails. Gives those that are there.
pub(super) async fn lock(tx: &mut PgConnection, ids: impl IntoIterator<Item = QueueId>) -> Result<Vec<Uuid>> {
    let mut missing: BTreeSet<Uuid> = ids.into_iter().map(QueueId::uuid).collect();
    let mut locked = Vec::new();
    // A finished mail may come back by a retry before it is locked, and is then among the unfinished ones.
    for sql in [OPEN, FINISHED, OPEN, FINISHED] {
        if missing.is_empty() {
            break;
        }
        let ids: Vec<Uuid> = missing.iter().copied().collect();
        let found: Vec<(Uuid,)> =
            sqlx::query_as(sql).bind(ids).fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
        for (id,) in found {
            missing.remove(&id);
            locked.push(id);
        }
    }
    Ok(locked)
}

/// Reads mails that are locked; of those that are to be claimed also the content, if it is one piece.
pub(super) async fn read(tx: &mut PgConnection, locked: Vec<Uuid>, claimable: Vec<Uuid>) -> Result<Edits> {
    if locked.is_empty() && claimable.is_empty() {
        return Ok(Edits::new());
    }
    let rows = sqlx::query(MAILS).bind(locked).bind(claimable).fetch_all(&mut *tx).await;
    let mut edits: Vec<Edit> = Vec::new();
    for row in rows.map_err(failed(STAGE))? {
        let id = QueueId::from_uuid(Column { row: &row, place: 0 }.get()?);
        if edits.last().is_none_or(|edit| edit.id != id) {
            edits.push(edit(&row)?);
        }
        edits.last_mut().map_or(Ok(()), |edit| recipient(&row, edit))?;
    }
    for edit in &mut edits {
        edit.before.recipients.clone_from(&edit.row.recipients);
    }
    Ok(edits.into_iter().map(|edit| (edit.id, edit)).collect())
}

/// Reads and locks these mails; those that are not there are left out.
pub(super) async fn load(tx: &mut PgConnection, ids: impl IntoIterator<Item = QueueId>) -> Result<Edits> {
    let locked = lock(tx, ids).await?;
    read(tx, locked, Vec::new()).await
}

/// Writes what changed. What did not change is not written.
pub(super) async fn save(tx: &mut PgConnection, edits: impl IntoIterator<Item = Edit>) -> Result<()> {
    save_served(tx, edits, Vec::new()).await
}

/// The same, with the lines that were served and when, in the order in which they were.
pub(super) async fn save_served(
    tx: &mut PgConnection,
    edits: impl IntoIterator<Item = Edit>,
    served: Vec<(Line, Timestamp)>,
) -> Result<()> {
    let (mut lines, mut contracts, mut reopened) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    let mut changes = Changes::default();
    for edit in edits {
        changes.add(edit.id, &edit.row, &edit.before, &edit.log);
        // A mark or an acceptance changes nothing of when the outbox has work.
        if due(&edit.row) != due(&edit.before) {
            lines.insert(edit.line());
        }
        if edit.before.is_finished() && !edit.row.is_finished() {
            reopened.push(edit.id.uuid());
            contracts.insert(edit.contract);
        }
    }
    let Changes { recipients, open, finished, events } = changes;
    if open.mails.is_empty() && finished.mails.is_empty() && events.mails.is_empty() {
        return Ok(());
    }
    if !reopened.is_empty() {
        locks::unswitched(tx, contracts).await?;
        sqlx::query(REOPEN).bind(reopened).execute(&mut *tx).await.map_err(failed(STAGE))?;
    }
    // What was served tells of its line already.
    lines.retain(|line| !served.iter().any(|(other, _)| other == line));
    let mut bells = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let served = served.into_iter().map(|(line, at)| (line, Some(at.as_millis())));
    for ((outbox, contract, priority), at) in served.chain(lines.into_iter().map(|line| (line, None))) {
        bells.0.push(outbox);
        bells.1.push(contract);
        bells.2.push(priority);
        bells.3.push(at);
    }
    let save = sqlx::query(SAVE).bind(recipients.mails).bind(recipients.places).bind(recipients.states);
    let save = save.bind(recipients.doubted_by).bind(open.mails).bind(open.states).bind(open.due_at);
    let save = save.bind(open.expires_at).bind(open.attempts).bind(open.claims).bind(open.workers);
    let save = save.bind(open.lease_until).bind(finished.mails).bind(finished.states).bind(finished.attempts);
    let save = save.bind(finished.expires_at).bind(finished.at);
    let save = save.bind(events.mails).bind(events.at).bind(events.recipients).bind(events.what);
    let save = save.bind(events.states).bind(events.details).bind(events.actors);
    let save = save.bind(bells.0).bind(bells.1).bind(bells.2).bind(bells.3);
    save.execute(tx).await.map_err(failed(STAGE))?;
    Ok(())
}

/// When a mail can be claimed, if it can.
fn due(row: &QueueRow) -> Option<Timestamp> {
    row.is_waiting().then_some(row.due_at)
}
