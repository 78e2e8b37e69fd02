//! The rows of received mails that are new: contents, mails, what waits for a handler, first events, in one statement for a hundred
//! mails as for one.

use postroom_core::time::Timestamp;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::error::Result;
use crate::ledger::{RawMail, Received};
use crate::sql::postgres::bodies;
use crate::sql::postgres::connection::failed;
use crate::sql::postgres::events::drawn_behind;
use crate::sql::postgres::plain::plain;
use crate::sql::rows::{big, new_body_id, to_json};
use crate::transition::ledger::LedgerRow;

const STAGE: &str = "store received mails";

/// Everything that mails consist of. Arrays, not JSON: PostgreSQL would take a mail's text apart anew for each of its columns.
///
/// `$1` the time, `$2` to `$19` mails, `$20` their first events' detail, `$21` and `$22` contents that come with them.
pub(in crate::sql::postgres) const INSERT: &str = concat!("WITH ", drawn_behind!(), ", given AS MATERIALIZED (
        SELECT * FROM unnest($2::uuid[], $3::bigint[], $4::text[], $5::bigint[], $6::text[], $7::bytea[], $8::bigint[],
            $9::bigint[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[],
            $17::bigint[], $18::uuid[], $19::bigint[], $20::text[])
            WITH ORDINALITY j (mail, mailbox, folder, epoch, remote_key, sha256, size, arrived, state, contract, reasons, record,
                message_id, sender, subject, settle_at, body, finished_at, detail, place)
    ), contents AS (
        INSERT INTO postroom_body (id) SELECT * FROM unnest($21::uuid[])
    ), pieces AS (
        INSERT INTO postroom_body_piece (body, number, content)
        SELECT p.body, 0, p.piece FROM unnest($21::uuid[], $22::bytea[]) p (body, piece)
    ), mails AS (
        INSERT INTO postroom_ledger_mail
            (id, mailbox, folder, epoch, remote_key, sha256, size, arrived, stored_at, state, contract, reasons, record,
                message_id, sender, subject, attempts, settle_at, body, finished_at)
        SELECT mail, mailbox, folder, epoch, remote_key, sha256, size, arrived, $1, state, contract, reasons, record,
            message_id, sender, subject, 0, settle_at, body, finished_at
        FROM given ORDER BY place RETURNING number, id, mailbox, state
    ), unhandled AS (
        INSERT INTO postroom_ledger_open (number, mail, mailbox, due_at)
        SELECT number, id, mailbox, $1 FROM mails WHERE state = 'stored'
    )
    INSERT INTO postroom_event (noun, mail, at, what, state, detail)
    SELECT 'ledger', mail, $1, 'stored', state, detail FROM drawn_behind, given ORDER BY place");

/// The rows of mails, column by column.
#[derive(Default)]
struct Rows<'a> {
    ids: Vec<Uuid>,
    mailboxes: Vec<i64>,
    folders: Vec<&'a str>,
    epochs: Vec<i64>,
    keys: Vec<String>,
    hashes: Vec<Vec<u8>>,
    sizes: Vec<i64>,
    arrived: Vec<Option<i64>>,
    states: Vec<&'static str>,
    contracts: Vec<Option<&'a str>>,
    reasons: Vec<String>,
    records: Vec<Option<&'a str>>,
    message_ids: Vec<Option<String>>,
    senders: Vec<String>,
    subjects: Vec<String>,
    settle_at: Vec<Option<i64>>,
    bodies: Vec<Uuid>,
    finished_at: Vec<Option<i64>>,
    details: Vec<String>,
    contents: (Vec<Uuid>, Vec<Vec<u8>>),
}

impl<'a> Rows<'a> {
    async fn add(&mut self, tx: &mut PgConnection, now: Timestamp, mail: &'a Received) -> Result<()> {
        let body = match &mail.raw {
            RawMail::Whole(content) => {
                let id = new_body_id(now)?;
                self.contents.0.push(id.uuid());
                self.contents.1.push(content.to_vec());
                id
            }
            RawMail::Staged(staged) => {
                bodies::refer(tx, staged).await?;
                staged.id
            }
        };
        let row = LedgerRow::received(now, mail, Some(body));
        self.ids.push(mail.id.uuid());
        self.mailboxes.push(mail.place.mailbox.number());
        self.folders.push(&mail.place.folder);
        self.epochs.push(big(mail.place.epoch));
        self.keys.push(mail.key.to_string());
        self.hashes.push(mail.sha256.to_vec());
        self.sizes.push(big(mail.size));
        self.arrived.push(mail.arrived.map(Timestamp::as_millis));
        self.states.push(mail.state.word());
        self.contracts.push(mail.contract.as_ref().map(|contract| contract.as_str()));
        self.reasons.push(to_json(&mail.reasons)?);
        self.records.push(mail.record.as_ref().map(|record| record.as_str()));
        self.message_ids.push(mail.message_id.as_deref().map(|id| plain(id).into_owned()));
        self.senders.push(plain(&mail.sender).into_owned());
        self.subjects.push(plain(&mail.subject).into_owned());
        self.settle_at.push(mail.settle_at.map(Timestamp::as_millis));
        self.bodies.push(body.uuid());
        self.finished_at.push(row.finished_at.map(Timestamp::as_millis));
        self.details.push(plain(&mail.reasons.join(", ")).into_owned());
        Ok(())
    }
}

pub(super) async fn insert(tx: &mut PgConnection, now: Timestamp, mails: &[&Received]) -> Result<()> {
    if mails.is_empty() {
        return Ok(());
    }
    let mut rows = Rows::default();
    for mail in mails {
        rows.add(tx, now, mail).await?;
    }
    let insert = sqlx::query(INSERT).bind(now.as_millis()).bind(rows.ids).bind(rows.mailboxes);
    let insert = insert.bind(rows.folders).bind(rows.epochs).bind(rows.keys).bind(rows.hashes);
    let insert = insert.bind(rows.sizes).bind(rows.arrived).bind(rows.states).bind(rows.contracts);
    let insert = insert.bind(rows.reasons).bind(rows.records).bind(rows.message_ids).bind(rows.senders);
    let insert = insert.bind(rows.subjects).bind(rows.settle_at).bind(rows.bodies).bind(rows.finished_at);
    let insert = insert.bind(rows.details).bind(rows.contents.0).bind(rows.contents.1);
    insert.execute(tx).await.map_err(failed(STAGE))?;
    Ok(())
}
