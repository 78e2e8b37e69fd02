//! The rows of mails that are new: frozen, open, recipients, content, key, tally, first event, in one
//! statement for ten mails as for one.

use std::collections::BTreeSet;

use bytes::Bytes;
use postroom_core::id::{BodyId, QueueId, RecordId};
use postroom_core::queue::Prepared;
use postroom_core::time::Timestamp;
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::row;
use crate::bodies::PIECE;
use crate::error::Result;
use crate::sql::admit::STAGE;
use crate::sql::postgres::connection::failed;
use crate::sql::postgres::events::drawn_behind;
use crate::sql::postgres::plain::plain;
use crate::sql::rows::{day, hex, new_body_id, rank, shown, to_json};
use crate::transition::queue::QueueRow;

/// Everything that mails consist of, in one statement: a future that is dropped leaves all of them or nothing. Gives the mails that
/// were inserted: not those whose idempotency key was taken meanwhile.
///
/// `$1` what is frozen, `$2` to `$4` the pieces of contents, `$5` the unfinished mails, `$6` recipients, `$7` keys, `$8` events,
/// `$9` the time, `$10` its day.
pub(in crate::sql::postgres) const INSERT: &str = concat!("WITH ", drawn_behind!(), ", keyed AS MATERIALIZED (
        SELECT (value ->> 2)::uuid AS mail FROM json_array_elements($7::json)
    ), keys AS (
        INSERT INTO postroom_queue_key (contract, idempotency_key, mail, fingerprint, created_at)
        SELECT value ->> 0, value ->> 1, (value ->> 2)::uuid, value ->> 3, $9
        FROM json_array_elements($7::json) ORDER BY 1, 2
        ON CONFLICT (contract, idempotency_key) DO NOTHING RETURNING mail
    ), given AS MATERIALIZED (
        SELECT (value ->> 0)::uuid AS mail, value FROM json_array_elements($1::json)
        WHERE (value ->> 0)::uuid NOT IN (SELECT mail FROM keyed) OR (value ->> 0)::uuid IN (SELECT mail FROM keys)
    ), contents AS (
        INSERT INTO postroom_body (id) SELECT (value ->> 17)::uuid FROM given
    ), pieces AS (
        INSERT INTO postroom_body_piece (body, number, content)
        SELECT p.body, p.number, p.piece FROM unnest($2::uuid[], $3::bigint[], $4::bytea[]) p (body, number, piece)
        WHERE p.body IN (SELECT (value ->> 17)::uuid FROM given)
    ), frozen AS (
        INSERT INTO postroom_queue_mail
            (id, contract, flow, step, outbox, outbox_revision, sender, return_path, reasons, subject, message_id, raw,
                record, in_reply_to, priority, on_doubt, created_at, body, size, attempts, expires_at)
        SELECT mail, value ->> 1, value ->> 2, value ->> 3, (value ->> 4)::bigint, (value ->> 5)::bigint, value ->> 6,
            value ->> 7, value ->> 8, value ->> 9, value ->> 10, (value ->> 11)::boolean, value ->> 12,
            (value ->> 13)::uuid, (value ->> 14)::bigint, value ->> 15, (value ->> 16)::bigint, (value ->> 17)::uuid,
            (value ->> 18)::bigint, 0, (value ->> 19)::bigint
        FROM given
    ), unfinished AS (
        INSERT INTO postroom_queue_open
            (mail, outbox, contract, priority, state, paused, due_at, expires_at, attempts)
        SELECT mail, (j.value ->> 1)::bigint, j.value ->> 2, (j.value ->> 3)::bigint, j.value ->> 4,
            EXISTS (SELECT 1 FROM postroom_pause WHERE scope = 'contract' AND subject = j.value ->> 2),
            (j.value ->> 5)::bigint, (j.value ->> 6)::bigint, 0
        FROM json_array_elements($5::json) j JOIN given ON mail = (j.value ->> 0)::uuid
    ), recipients AS (
        INSERT INTO postroom_queue_recipient (mail, place, address, role, state)
        SELECT mail, (j.value ->> 1)::bigint, j.value ->> 2, j.value ->> 3, j.value ->> 4
        FROM json_array_elements($6::json) j JOIN given ON mail = (j.value ->> 0)::uuid
    ), tally AS (
        INSERT INTO postroom_queue_tally AS t (contract, day, slot, submitted)
        SELECT value ->> 1, $10, pg_backend_pid() % 64, count(*) FROM given GROUP BY 1 ORDER BY 1
        ON CONFLICT (contract, day, slot) DO UPDATE SET submitted = t.submitted + excluded.submitted
    ), bells AS (
        INSERT INTO postroom_queue_bell (outbox, contract, priority, submitted_at)
        SELECT DISTINCT (value ->> 4)::bigint, value ->> 1, (value ->> 14)::bigint, $9 FROM given
    ), events AS (
        INSERT INTO postroom_event (noun, mail, at, recipient, what, state, detail, actor)
        SELECT 'queue', mail, (j.value ->> 1)::bigint, (j.value ->> 2)::bigint, j.value ->> 3, j.value ->> 4,
            j.value ->> 5, j.value ->> 6
        FROM drawn_behind, json_array_elements($8::json) WITH ORDINALITY j (value, place)
            JOIN given ON mail = (j.value ->> 0)::uuid
        ORDER BY j.place
    )
    SELECT mail FROM given");

/// Inserts mails with their contents. Gives those that were inserted.
pub(super) async fn insert(
    tx: &mut PgConnection,
    now: Timestamp,
    mails: &[(&Prepared, &Bytes)],
) -> Result<BTreeSet<QueueId>> {
    let (mut frozen, mut open, mut recipients) = (Vec::new(), Vec::new(), Vec::new());
    let (mut keys, mut events) = (Vec::new(), Vec::new());
    let (mut bodies, mut numbers, mut pieces) = (Vec::new(), Vec::new(), Vec::new());
    for (mail, content) in mails {
        let (row, entry) = QueueRow::enqueue(now, mail);
        let (id, body, rank) = (hex(mail.id.uuid()), new_body_id(now)?, rank(mail.priority));
        let (state, outbox) = (row.state(), mail.resolution.outbox.number());
        let places = (0u32..).zip(&mail.recipients);
        recipients.extend(places.map(|(place, one)| json!([id, place, one.address, one.role, state])));
        if let Some((key, print)) = &mail.idempotency {
            keys.push(json!([mail.contract, key, id, to_json(print)?]));
        }
        open.push(row::open_row(&id, &row, (outbox, mail.contract.as_str(), rank)));
        events.push(row::event_row(&id, &entry));
        frozen.push(frozen_row(mail, &row, body, content.len())?);
        for (number, piece) in (0i64..).zip(content.chunks(PIECE)) {
            bodies.push(body.uuid());
            numbers.push(number);
            pieces.push(piece.to_vec());
        }
    }
    let inserted = sqlx::query_as(INSERT)
        .bind(to_json(&frozen)?)
        .bind(bodies)
        .bind(numbers)
        .bind(pieces)
        .bind(to_json(&open)?)
        .bind(to_json(&recipients)?)
        .bind(to_json(&keys)?)
        .bind(to_json(&events)?)
        .bind(now.as_millis())
        .bind(day(now))
        .fetch_all(tx)
        .await
        .map_err(failed(STAGE))?;
    Ok(inserted.into_iter().map(|(id,): (Uuid,)| QueueId::from_uuid(id)).collect())
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
        plain(&mail.subject),
        plain(&mail.message_id),
        mail.raw,
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
