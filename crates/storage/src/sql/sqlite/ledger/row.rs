//! Received mails as they are read and changed: read into items and [`LedgerRow`]s, changed there, and written back with
//! their timeline in one transaction.

use postroom_core::id::{BodyId, ClaimId, ContractId, LedgerId, MailboxId, WorkerId};
use postroom_core::ledger::State;
use postroom_core::time::Timestamp;
use serde_json::{Value, json};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use uuid::Uuid;

use crate::error::Result;
use crate::ledger::{LedgerEntry, LedgerItem};
use crate::sql::rows::{from_json, hex, ledger_ids, optional, small, text, time, to_json};
use crate::sql::sqlite::connection::failed;
use crate::sql::sqlite::script::{Script, over_rows};
use crate::transition::lease::Lease;
use crate::transition::ledger::LedgerRow;

const STAGE: &str = "read and write received mails";

macro_rules! columns {
    () => {
        "m.id, m.state, m.mailbox, m.folder, m.epoch, m.remote_key, m.contract, m.reasons, m.record, m.sender, m.subject,
        m.message_id, m.size, m.arrived, m.stored_at, m.attempts, m.body, m.sha256 IS NULL, m.number, m.finished_at, m.finished_by "
    };
}
pub(super) use columns;

pub(in crate::sql::sqlite) const EDITS: &str = concat!(
    "SELECT ",
    columns!(),
    ", o.due_at, o.claim, o.worker, o.lease_until
    FROM json_each(?1) j JOIN postroom_ledger_mail m ON m.id = unhex(j.value)
    LEFT JOIN postroom_ledger_open o ON o.number = m.number ORDER BY j.key"
);

const MAIL: &str = "UPDATE postroom_ledger_mail SET state = ?2, contract = ?3, reasons = ?4, attempts = ?5,
    finished_at = ?6, finished_by = ?7 WHERE number = ?1";

const OPEN: &str =
    "INSERT INTO postroom_ledger_open (number, mail, mailbox, due_at, claim, worker, lease_until)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
    ON CONFLICT (number) DO UPDATE SET due_at = excluded.due_at, claim = excluded.claim,
        worker = excluded.worker, lease_until = excluded.lease_until";

const CLOSED: &str = "DELETE FROM postroom_ledger_open WHERE number = ?1";

const TIMELINE: &str = over_rows!(
    "INSERT INTO postroom_event (noun, mail, at, what, state, detail, actor)
    SELECT 'ledger', unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
    FROM r ORDER BY key"
);

/// A received mail as every query here selects it.
pub(super) struct Mail {
    pub(super) item: LedgerItem,
    pub(super) attempts: u32,
    pub(super) body: Option<BodyId>,
    /// Whether the baseline left it out.
    pub(super) is_skipped: bool,
    pub(super) number: i64,
    finished_at: Option<Timestamp>,
    finished_by: Option<ClaimId>,
}

impl Mail {
    /// Reads the first columns of a row.
    pub(super) fn read(row: &SqliteRow) -> Result<Self> {
        let cell = |error| failed(STAGE)(error);
        let epoch: i64 = row.try_get(4).map_err(cell)?;
        let folder = row.try_get(3).map_err(cell)?;
        let key: String = row.try_get(5).map_err(cell)?;
        let reasons: String = row.try_get(7).map_err(cell)?;
        let item = LedgerItem {
            id: LedgerId::from_uuid(row.try_get(0).map_err(cell)?),
            state: text(&row.try_get::<String, _>(1).map_err(cell)?)?,
            mailbox: MailboxId::new(row.try_get(2).map_err(cell)?),
            folder,
            epoch: small(epoch)?,
            key: text(&key)?,
            contract: optional(row.try_get(6).map_err(cell)?)?,
            reasons: from_json(&reasons)?,
            record: optional(row.try_get(8).map_err(cell)?)?,
            sender: row.try_get(9).map_err(cell)?,
            subject: row.try_get(10).map_err(cell)?,
            message_id: row.try_get(11).map_err(cell)?,
            size: small(row.try_get(12).map_err(cell)?)?,
            arrived: row.try_get::<Option<i64>, _>(13).map_err(cell)?.map(time),
            stored_at: time(row.try_get(14).map_err(cell)?),
        };
        Ok(Self {
            item,
            attempts: small(row.try_get(15).map_err(cell)?)?,
            body: row.try_get::<Option<Uuid>, _>(16).map_err(cell)?.map(BodyId::from_uuid),
            is_skipped: row.try_get(17).map_err(cell)?,
            number: row.try_get(18).map_err(cell)?,
            finished_at: row.try_get::<Option<i64>, _>(19).map_err(cell)?.map(time),
            finished_by: row.try_get::<Option<Uuid>, _>(20).map_err(cell)?.map(ClaimId::from_uuid),
        })
    }
}

/// A mail between being read and being written back.
pub(super) struct Edit {
    pub(super) mail: Mail,
    pub(super) row: LedgerRow,
    before: LedgerRow,
}

/// Reads these mails, in their order; those that are not there are left out.
pub(super) async fn load(
    tx: &mut SqliteConnection,
    ids: impl IntoIterator<Item = LedgerId>,
) -> Result<Vec<Edit>> {
    let rows = sqlx::query(EDITS).bind(ledger_ids(ids)?).fetch_all(tx).await.map_err(failed(STAGE))?;
    let edit = |row: &SqliteRow| {
        let mail = Mail::read(row)?;
        let cell = |index: usize| index + 21;
        let due_at: Option<i64> = row.try_get(cell(0)).map_err(failed(STAGE))?;
        let claim: Option<Uuid> = row.try_get(cell(1)).map_err(failed(STAGE))?;
        let worker: Option<Uuid> = row.try_get(cell(2)).map_err(failed(STAGE))?;
        let until: Option<i64> = row.try_get(cell(3)).map_err(failed(STAGE))?;
        let lease = claim.zip(worker).zip(until).map(|((claim, worker), until)| Lease {
            claim: ClaimId::from_uuid(claim),
            worker: WorkerId::from_uuid(worker),
            until: time(until),
        });
        let row = LedgerRow {
            state: mail.item.state,
            contract: mail.item.contract.clone(),
            reasons: mail.item.reasons.clone(),
            attempts: mail.attempts,
            due_at: due_at.map_or(mail.item.stored_at, time),
            lease,
            body: mail.body,
            finished_at: mail.finished_at,
            finished_by: mail.finished_by,
        };
        Ok(Edit { mail, before: row.clone(), row })
    };
    rows.iter().map(edit).collect()
}

/// Writes what changed of a mail, with its timeline.
pub(super) async fn save(
    tx: &mut SqliteConnection,
    edit: &Edit,
    entries: impl IntoIterator<Item = LedgerEntry>,
) -> Result<()> {
    let Edit { mail, row, before } = edit;
    let (number, id) = (mail.number, mail.item.id);
    let of_open = |row: &LedgerRow| LedgerRow { due_at: before.due_at, lease: before.lease, ..row.clone() };
    if of_open(row) != *before {
        let contract = row.contract.as_ref().map(ContractId::as_str);
        let query = sqlx::query(MAIL).bind(number).bind(row.state.word()).bind(contract);
        let query = query.bind(to_json(&row.reasons)?).bind(i64::from(row.attempts));
        let query =
            query.bind(row.finished_at.map(Timestamp::as_millis)).bind(row.finished_by.map(ClaimId::uuid));
        query.execute(&mut *tx).await.map_err(failed(STAGE))?;
    }
    if row.state == State::Stored {
        write_open(tx, number, id, mail.item.mailbox, row).await?;
    } else if before.state == State::Stored {
        sqlx::query(CLOSED).bind(number).execute(&mut *tx).await.map_err(failed(STAGE))?;
    }
    note(tx, entries.into_iter().map(|entry| (id, entry))).await
}

/// Has a mail wait for a handler.
pub(super) async fn write_open(
    tx: &mut SqliteConnection,
    number: i64,
    id: LedgerId,
    mailbox: MailboxId,
    row: &LedgerRow,
) -> Result<()> {
    sqlx::query(OPEN)
        .bind(number)
        .bind(id.uuid())
        .bind(mailbox.number())
        .bind(row.due_at.as_millis())
        .bind(row.lease.map(|lease| lease.claim.uuid()))
        .bind(row.lease.map(|lease| lease.worker.uuid()))
        .bind(row.lease.map(|lease| lease.until.as_millis()))
        .execute(tx)
        .await
        .map_err(failed(STAGE))?;
    Ok(())
}

/// Adds to the timelines of mails.
pub(super) async fn note(
    tx: &mut SqliteConnection,
    entries: impl IntoIterator<Item = (LedgerId, LedgerEntry)>,
) -> Result<()> {
    let mut script = Script::default();
    note_by(&mut script, entries)?;
    script.run(tx, STAGE).await
}

/// Has a script add to the timelines of mails.
pub(super) fn note_by(
    script: &mut Script,
    entries: impl IntoIterator<Item = (LedgerId, LedgerEntry)>,
) -> Result<()> {
    let row = |(id, entry): (LedgerId, LedgerEntry)| {
        let LedgerEntry { at, what, state, detail, actor } = entry;
        json!([hex(id.uuid()), at.as_millis(), what, state, detail, actor])
    };
    script.of_rows(TIMELINE, &entries.into_iter().map(row).collect::<Vec<Value>>())
}
