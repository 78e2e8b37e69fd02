//! The rows of mails that are new: frozen, open, recipients, content, key, tally, first event, in one
//! statement for ten mails as for one.

use std::collections::BTreeSet;

use bytes::Bytes;
use postroom_core::id::QueueId;
use postroom_core::queue::{Prepared, State};
use postroom_core::time::Timestamp;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::bodies::PIECE;
use crate::error::Result;
use crate::sql::admit::STAGE;
use crate::sql::postgres::connection::failed;
use crate::sql::postgres::events::drawn_behind;
use crate::sql::postgres::plain::plain;
use crate::sql::rows::{big, day, new_body_id, rank, shown, to_json};
use crate::transition::queue::QueueRow;

/// Everything that mails consist of, in one statement: a future that is dropped leaves all of them or nothing. Gives the mails that
/// were inserted: not those whose idempotency key was taken meanwhile. Arrays, not JSON: PostgreSQL would take a mail's text apart
/// anew for each of its columns.
///
/// `$1` the time, `$2` its day, `$3` to `$22` what is frozen, `$23` and `$24` what is not, `$25` to `$27` the first event, `$28` to `$32`
/// recipients, `$33` to `$35` the pieces of contents, `$36` to `$39` keys.
pub(in crate::sql::postgres) const INSERT: &str = concat!("WITH ", drawn_behind!(), ", keys AS (
        INSERT INTO postroom_queue_key (contract, idempotency_key, mail, fingerprint, created_at)
        SELECT contract, key, mail, fingerprint, $1
        FROM unnest($36::text[], $37::text[], $38::uuid[], $39::text[]) k (contract, key, mail, fingerprint) ORDER BY 1, 2
        ON CONFLICT (contract, idempotency_key) DO NOTHING RETURNING mail
    ), given AS MATERIALIZED (
        SELECT * FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::text[], $10::text[],
            $11::text[], $12::text[], $13::text[], $14::boolean[], $15::text[], $16::uuid[], $17::bigint[], $18::text[],
            $19::bigint[], $20::uuid[], $21::bigint[], $22::bigint[], $23::text[], $24::bigint[], $25::text[], $26::text[],
            $27::text[])
            WITH ORDINALITY j (mail, contract, flow, step, outbox, outbox_revision, sender, return_path, reasons, subject,
                message_id, raw, record, in_reply_to, priority, on_doubt, created_at, body, size, expires_at, state, due_at,
                what, event_state, detail, place)
        WHERE j.mail <> ALL($38::uuid[]) OR j.mail IN (SELECT mail FROM keys)
    ), contents AS (
        INSERT INTO postroom_body (id) SELECT body FROM given
    ), pieces AS (
        INSERT INTO postroom_body_piece (body, number, content)
        SELECT p.body, p.number, p.piece FROM unnest($33::uuid[], $34::bigint[], $35::bytea[]) p (body, number, piece)
        WHERE p.body IN (SELECT body FROM given)
    ), frozen AS (
        INSERT INTO postroom_queue_mail
            (id, contract, flow, step, outbox, outbox_revision, sender, return_path, reasons, subject, message_id, raw,
                record, in_reply_to, priority, on_doubt, created_at, body, size, attempts, expires_at)
        SELECT mail, contract, flow, step, outbox, outbox_revision, sender, return_path, reasons, subject, message_id, raw,
            record, in_reply_to, priority, on_doubt, created_at, body, size, 0, expires_at
        FROM given
    ), unfinished AS (
        INSERT INTO postroom_queue_open
            (mail, outbox, contract, priority, state, paused, due_at, expires_at, attempts)
        SELECT mail, outbox, contract, priority, state,
            EXISTS (SELECT 1 FROM postroom_pause WHERE scope = 'contract' AND subject = contract), due_at, expires_at, 0
        FROM given
    ), recipients AS (
        INSERT INTO postroom_queue_recipient (mail, place, address, role, state)
        SELECT r.mail, r.place, r.address, r.role, r.state
        FROM unnest($28::uuid[], $29::bigint[], $30::text[], $31::text[], $32::text[]) r (mail, place, address, role, state)
        WHERE r.mail IN (SELECT mail FROM given)
    ), tally AS (
        INSERT INTO postroom_queue_tally AS t (contract, day, slot, submitted)
        SELECT contract, $2, pg_backend_pid() % 64, count(*) FROM given GROUP BY 1 ORDER BY 1
        ON CONFLICT (contract, day, slot) DO UPDATE SET submitted = t.submitted + excluded.submitted
    ), bells AS (
        INSERT INTO postroom_queue_bell (outbox, contract, priority, submitted_at)
        SELECT DISTINCT outbox, contract, priority, $1 FROM given
    ), events AS (
        INSERT INTO postroom_event (noun, mail, at, what, state, detail)
        SELECT 'queue', mail, $1, what, event_state, detail FROM drawn_behind, given ORDER BY place
    )
    SELECT mail FROM given");

/// The rows of mails, column by column.
#[derive(Default)]
struct Rows {
    ids: Vec<Uuid>,
    contracts: Vec<String>,
    steps: (Vec<Option<String>>, Vec<Option<String>>),
    outboxes: (Vec<i64>, Vec<i64>),
    senders: Vec<String>,
    return_paths: Vec<Option<String>>,
    reasons: Vec<String>,
    subjects: Vec<String>,
    message_ids: Vec<String>,
    raw: Vec<bool>,
    records: Vec<Option<String>>,
    in_reply_to: Vec<Option<Uuid>>,
    priorities: Vec<i64>,
    on_doubt: Vec<&'static str>,
    created_at: Vec<i64>,
    bodies: Vec<Uuid>,
    sizes: Vec<i64>,
    expires_at: Vec<i64>,
    open: (Vec<&'static str>, Vec<i64>),
    events: (Vec<String>, Vec<Option<&'static str>>, Vec<String>),
    recipients: Recipients,
    pieces: (Vec<Uuid>, Vec<i64>, Vec<Vec<u8>>),
    keys: (Vec<String>, Vec<String>, Vec<Uuid>, Vec<String>),
}

/// The rows of recipients.
#[derive(Default)]
struct Recipients {
    mails: Vec<Uuid>,
    places: Vec<i64>,
    addresses: Vec<String>,
    roles: Vec<&'static str>,
    states: Vec<&'static str>,
}

impl Rows {
    fn add(&mut self, now: Timestamp, mail: &Prepared, content: &Bytes) -> Result<()> {
        let (row, entry) = QueueRow::enqueue(now, mail);
        let (id, body, resolution) = (mail.id.uuid(), new_body_id(now)?.uuid(), &mail.resolution);
        self.ids.push(id);
        self.contracts.push(mail.contract.as_str().to_owned());
        self.steps.0.push(mail.step.as_ref().map(|key| key.flow.as_str().to_owned()));
        self.steps.1.push(mail.step.as_ref().map(|key| key.step.as_str().to_owned()));
        self.outboxes.0.push(resolution.outbox.number());
        self.outboxes.1.push(resolution.revision.number());
        self.senders.push(resolution.sender.to_string());
        self.return_paths.push(shown(mail.return_path.as_ref()));
        self.reasons.push(to_json(&resolution.reasons)?);
        self.subjects.push(plain(&mail.subject).into_owned());
        self.message_ids.push(plain(&mail.message_id).into_owned());
        self.raw.push(mail.raw);
        self.records.push(mail.record.as_ref().map(|record| record.as_str().to_owned()));
        self.in_reply_to.push(mail.in_reply_to.map(|id| id.uuid()));
        self.priorities.push(rank(mail.priority));
        self.on_doubt.push(mail.on_doubt.word());
        self.created_at.push(row.created_at.as_millis());
        self.bodies.push(body);
        self.sizes.push(big(content.len()));
        self.expires_at.push(row.expires_at.as_millis());
        let state = row.state().word();
        self.open.0.push(state);
        self.open.1.push(row.due_at.as_millis());
        self.events.0.push(entry.what);
        self.events.1.push(entry.state.map(State::word));
        self.events.2.push(plain(&entry.detail).into_owned());
        for (place, one) in (0i64..).zip(&mail.recipients) {
            self.recipients.mails.push(id);
            self.recipients.places.push(place);
            self.recipients.addresses.push(one.address.to_string());
            self.recipients.roles.push(one.role.word());
            self.recipients.states.push(state);
        }
        for (number, piece) in (0i64..).zip(content.chunks(PIECE)) {
            self.pieces.0.push(body);
            self.pieces.1.push(number);
            self.pieces.2.push(piece.to_vec());
        }
        if let Some((key, print)) = &mail.idempotency {
            self.keys.0.push(mail.contract.as_str().to_owned());
            self.keys.1.push(key.as_str().to_owned());
            self.keys.2.push(id);
            self.keys.3.push(to_json(print)?);
        }
        Ok(())
    }
}

/// Inserts mails with their contents. Gives those that were inserted.
pub(super) async fn insert(
    tx: &mut PgConnection,
    now: Timestamp,
    mails: &[(&Prepared, &Bytes)],
) -> Result<BTreeSet<QueueId>> {
    let mut rows = Rows::default();
    for (mail, content) in mails {
        rows.add(now, mail, content)?;
    }
    let insert =
        sqlx::query_as(INSERT).bind(now.as_millis()).bind(day(now)).bind(rows.ids).bind(rows.contracts);
    let insert = insert.bind(rows.steps.0).bind(rows.steps.1).bind(rows.outboxes.0).bind(rows.outboxes.1);
    let insert = insert.bind(rows.senders).bind(rows.return_paths).bind(rows.reasons).bind(rows.subjects);
    let insert = insert.bind(rows.message_ids).bind(rows.raw).bind(rows.records).bind(rows.in_reply_to);
    let insert = insert.bind(rows.priorities).bind(rows.on_doubt).bind(rows.created_at).bind(rows.bodies);
    let insert = insert.bind(rows.sizes).bind(rows.expires_at).bind(rows.open.0).bind(rows.open.1);
    let insert = insert.bind(rows.events.0).bind(rows.events.1).bind(rows.events.2);
    let Recipients { mails, places, addresses, roles, states } = rows.recipients;
    let insert = insert.bind(mails).bind(places).bind(addresses).bind(roles).bind(states);
    let insert = insert.bind(rows.pieces.0).bind(rows.pieces.1).bind(rows.pieces.2);
    let insert = insert.bind(rows.keys.0).bind(rows.keys.1).bind(rows.keys.2).bind(rows.keys.3);
    let inserted: Vec<(Uuid,)> = insert.fetch_all(tx).await.map_err(failed(STAGE))?;
    Ok(inserted.into_iter().map(|(id,)| QueueId::from_uuid(id)).collect())
}
