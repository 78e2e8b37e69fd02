//! The rows of mails that are new: frozen, open, recipients, content, key, tally, first event, in as many statements for ten mails
//! as for one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use postroom_core::id::{BodyId, RecordId};
use postroom_core::queue::Prepared;
use postroom_core::time::Timestamp;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnection;

use super::row::{OPEN, TIMELINE, open_row, timeline_row};
use crate::error::Result;
use crate::sql::admit::STAGE;
use crate::sql::rows::{day, hex, new_body_id, rank, shown, to_json};
use crate::sql::sqlite::bodies;
use crate::sql::sqlite::lanes::refresh_by;
use crate::sql::sqlite::script::{Script, over_rows};
use crate::transition::queue::QueueRow;

const FROZEN: &str = over_rows!(
    "INSERT INTO postroom_queue_mail
    (id, contract, flow, step, outbox, outbox_revision, sender, return_path, reasons, subject, message_id, raw, record,
        in_reply_to, priority, on_doubt, created_at, body, size, attempts, expires_at)
    SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
        value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, unhex(value ->> 13), value ->> 14,
        value ->> 15, value ->> 16, unhex(value ->> 17), value ->> 18, 0, value ->> 19
    FROM r"
);

const RECIPIENTS: &str = over_rows!(
    "INSERT INTO postroom_queue_recipient (mail, place, address, role, state)
    SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM r"
);

const KEYS: &str = "INSERT INTO postroom_queue_key (contract, idempotency_key, mail, fingerprint, created_at)
    SELECT value ->> 0, value ->> 1, unhex(value ->> 2), value ->> 3, value ->> 4 FROM json_each(?)";

const TALLY: &str = "INSERT INTO postroom_queue_tally (contract, day, submitted)
    SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?) WHERE true
    ON CONFLICT (contract, day) DO UPDATE SET submitted = submitted + excluded.submitted";

/// All that is written of new mails, but for their content.
#[cfg(test)]
pub(in crate::sql::sqlite) const INSERT: [&str; 6] = [FROZEN, OPEN, RECIPIENTS, KEYS, TALLY, TIMELINE];

/// Inserts mails with their contents, in one call of the driver.
pub(super) async fn insert(
    tx: &mut SqliteConnection,
    now: Timestamp,
    mails: &[(&Prepared, &Bytes)],
) -> Result<()> {
    let (mut frozen, mut open, mut recipients) = (Vec::new(), Vec::new(), Vec::new());
    let (mut keys, mut events, mut contents) = (Vec::new(), Vec::new(), Vec::new());
    let (mut tally, mut lines) = (BTreeMap::new(), BTreeSet::new());
    for (mail, content) in mails {
        let (row, entry) = QueueRow::enqueue(now, mail);
        let (id, body, rank) = (hex(mail.id.uuid()), new_body_id(now)?, rank(mail.priority));
        let (state, outbox) = (row.state(), mail.resolution.outbox.number());
        let places = (0u32..).zip(&mail.recipients);
        recipients.extend(places.map(|(place, one)| json!([id, place, one.address, one.role, state])));
        if let Some((key, print)) = &mail.idempotency {
            keys.push(json!([mail.contract, key, id, to_json(print)?, now.as_millis()]));
        }
        open.push(open_row(&id, &row, (outbox, mail.contract.as_str(), rank)));
        events.push(timeline_row(&id, &entry));
        frozen.push(frozen_row(mail, &row, body, content.len())?);
        contents.push((body, *content));
        *tally.entry(&mail.contract).or_insert(0u64) += 1;
        lines.insert((outbox, mail.contract.as_str().to_owned(), rank));
    }
    let tally: Vec<Value> =
        tally.into_iter().map(|(contract, mails)| json!([contract, day(now), mails])).collect();
    let mut script = Script::default();
    bodies::insert_by(tx, &mut script, &contents).await?;
    for (statement, rows) in [
        (FROZEN, frozen),
        (OPEN, open),
        (RECIPIENTS, recipients),
        (KEYS, keys),
        (TALLY, tally),
        (TIMELINE, events),
    ] {
        script.of_rows(statement, &rows)?;
    }
    refresh_by(&mut script, &lines, Some(now))?;
    script.run(tx, STAGE).await
}

fn frozen_row(mail: &Prepared, row: &QueueRow, body: BodyId, size: usize) -> Result<Value> {
    let resolution = &mail.resolution;
    Ok(json!([
        hex(mail.id.uuid()),
        mail.contract,
        mail.step.as_ref().map(|key| key.flow.as_str()),
        mail.step.as_ref().map(|key| key.step.as_str()),
        resolution.outbox.number(),
        resolution.revision.number(),
        resolution.sender.to_string(),
        shown(mail.return_path.as_ref()),
        to_json(&resolution.reasons)?,
        mail.subject,
        mail.message_id,
        i64::from(mail.raw),
        mail.record.as_ref().map(RecordId::as_str),
        mail.in_reply_to.map(|id| hex(id.uuid())),
        rank(mail.priority),
        mail.on_doubt.word(),
        row.created_at.as_millis(),
        hex(body.uuid()),
        size,
        row.expires_at.as_millis(),
    ]))
}
