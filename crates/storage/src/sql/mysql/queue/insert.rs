//! The rows of mails that are new: frozen, open, recipients, content, key, tally, first event. In the store's own transactions each
//! kind is written by a statement of its own, for ten mails as for one; in a host's, all but the content is one block of statements
//! that is done as a whole or not at all, whatever becomes of the future that waits for it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use postroom_core::id::{BodyId, RecordId};
use postroom_core::queue::Prepared;
use postroom_core::time::Timestamp;
use serde_json::{Value, json};
use sqlx::mysql::MySqlConnection;

use super::row::{self, insert_bells, insert_events, write_rows};
use crate::error::{Error, ErrorKind, Result};
use crate::sql::admit::STAGE;
use crate::sql::mysql::bodies;
use crate::sql::mysql::connection::{failed, say};
use crate::sql::mysql::json::json_rows;
use crate::sql::mysql::lanes::{Line, bell};
use crate::sql::rows::{day, hex, new_body_id, rank, shown, to_json};
use crate::transition::queue::QueueRow;

/// A key that is there stays as it is: whose it is, is asked afterwards.
macro_rules! keys {
    ($json:literal) => {
        concat!(
            "INSERT INTO postroom_queue_key (contract, idempotency_key, mail, fingerprint, created_at)
            SELECT j.of, j.given, UNHEX(j.id), j.print, j.at FROM ",
            json_rows!($json; of key "[0]", given key "[1]", id id "[2]", print text "[3]", at number "[4]"),
            " j ORDER BY j.of, j.given ON DUPLICATE KEY UPDATE mail = postroom_queue_key.mail"
        )
    };
}

macro_rules! taken {
    ($json:literal) => {
        concat!(
            "SELECT COUNT(*) FROM ",
            json_rows!($json; of key "[0]", given key "[1]", id id "[2]"),
            " j STRAIGHT_JOIN postroom_queue_key k FORCE INDEX (PRIMARY)
                ON k.contract = j.of AND k.idempotency_key = j.given WHERE k.mail <> UNHEX(j.id)"
        )
    };
}

macro_rules! frozen {
    ($json:literal) => {
        concat!(
            "INSERT INTO postroom_queue_mail
                (id, contract, flow, step, outbox, outbox_revision, sender, return_path, reasons, subject, message_id, raw,
                    record, in_reply_to, priority, on_doubt, created_at, body, size, attempts, expires_at)
            SELECT UNHEX(j.id), j.contract, j.flow, j.step, j.outbox, j.revision, j.sender, j.return_path, j.reasons,
                j.subject, j.message_id, j.raw, j.record, UNHEX(j.answers), j.priority, j.on_doubt, j.created_at,
                UNHEX(j.body), j.size, 0, j.expires_at
            FROM ",
            json_rows!($json; id id "[0]", contract text "[1]", flow text "[2]", step text "[3]", outbox number "[4]",
                revision number "[5]", sender text "[6]", return_path text "[7]", reasons text "[8]", subject text "[9]",
                message_id text "[10]", raw number "[11]", record text "[12]", answers id "[13]", priority number "[14]",
                on_doubt text "[15]", created_at number "[16]", body id "[17]", size number "[18]",
                expires_at number "[19]"),
            " j"
        )
    };
}

macro_rules! open {
    ($json:literal) => {
        concat!(
            "INSERT INTO postroom_queue_open
                (mail, outbox, contract, priority, state, paused, due_at, expires_at, attempts)
            SELECT UNHEX(j.mail), j.outbox, j.contract, j.priority, j.state,
                EXISTS (SELECT 1 FROM postroom_pause p WHERE p.scope = 'contract' AND p.subject = j.contract),
                j.due_at, j.expires_at, 0
            FROM ",
            json_rows!($json; mail id "[0]", outbox number "[1]", contract key "[2]", priority number "[3]",
                state text "[4]", due_at number "[5]", expires_at number "[6]"),
            " j"
        )
    };
}

macro_rules! recipients {
    ($json:literal) => {
        concat!(
            "INSERT INTO postroom_queue_recipient (mail, place, address, role, state)
            SELECT UNHEX(j.mail), j.rank, j.address, j.role, j.state FROM ",
            json_rows!($json; mail id "[0]", rank number "[1]", address text "[2]", role text "[3]", state text "[4]"),
            " j"
        )
    };
}

macro_rules! tallies {
    ($json:literal) => {
        concat!(
            "INSERT INTO postroom_queue_tally (contract, day, slot, submitted)
            SELECT j.of, j.at, CONNECTION_ID() % 64, j.more FROM ",
            json_rows!($json; of key "[0]", at number "[1]", more number "[2]"),
            " j ORDER BY j.of ON DUPLICATE KEY UPDATE submitted = submitted + VALUES(submitted)"
        )
    };
}

pub(in crate::sql::mysql) const KEYS: &str = keys!("?");
pub(in crate::sql::mysql) const TAKEN: &str = taken!("?");

/// In the order of their references, what makes a mail due last.
pub(in crate::sql::mysql) const INSERT: [&str; 6] =
    [frozen!("?"), recipients!("?"), tallies!("?"), insert_events!("?"), open!("?"), insert_bells!("?")];

/// What a host's block takes its rows from: a block has no parameters.
const GIVEN: &str =
    "SET @postroom_keys = ?, @postroom_frozen = ?, @postroom_recipients = ?, @postroom_tallies = ?,
    @postroom_events = ?, @postroom_open = ?, @postroom_bells = ?, @postroom_body = ?";

/// The savepoint is the caller's. What fails takes all of the block back; the number of the error of a taken key is 1644.
const BLOCK: &str = concat!(
    "BEGIN NOT ATOMIC
    DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK TO SAVEPOINT postroom_host; RESIGNAL; END;\n",
    keys!("@postroom_keys"),
    ";\nIF (",
    taken!("@postroom_keys"),
    ") > 0 THEN SIGNAL SQLSTATE '45000'; END IF;\n",
    frozen!("@postroom_frozen"),
    ";\n",
    recipients!("@postroom_recipients"),
    ";\n",
    tallies!("@postroom_tallies"),
    ";\n",
    insert_events!("@postroom_events"),
    ";\n",
    open!("@postroom_open"),
    ";\n",
    insert_bells!("@postroom_bells"),
    ";\nUPDATE postroom_body SET staged_at = NULL WHERE id = UNHEX(@postroom_body);\nEND"
);

/// The rows of mails, for JSON that the statements take apart.
#[derive(Default)]
struct Rows {
    keys: Vec<Value>,
    frozen: Vec<Value>,
    recipients: Vec<Value>,
    tallies: BTreeMap<String, u64>,
    events: Vec<Value>,
    open: Vec<Value>,
    bells: BTreeSet<Line>,
}

impl Rows {
    fn add(&mut self, now: Timestamp, mail: &Prepared, body: BodyId, size: usize) -> Result<()> {
        let (row, entry) = QueueRow::enqueue(now, mail);
        let (id, rank, contract) = (hex(mail.id.uuid()), rank(mail.priority), mail.contract.as_str());
        let (state, outbox) = (row.state(), mail.resolution.outbox.number());
        let places = (0u32..).zip(&mail.recipients);
        self.recipients.extend(places.map(|(place, one)| json!([id, place, one.address, one.role, state])));
        if let Some((key, print)) = &mail.idempotency {
            self.keys.push(json!([contract, key, id, to_json(print)?, now.as_millis()]));
        }
        self.open.push(row::open_row(&id, &row, (outbox, contract, rank)));
        self.events.push(row::event_row(&id, &entry));
        self.frozen.push(frozen_row(mail, &row, body, size)?);
        *self.tallies.entry(contract.to_owned()).or_default() += 1;
        self.bells.insert((outbox, contract.to_owned(), rank));
        Ok(())
    }

    /// In the order of [`INSERT`].
    fn parts(self, now: Timestamp) -> [Vec<Value>; 6] {
        let tally = |(contract, count)| json!([contract, day(now), count]);
        let tallies = self.tallies.into_iter().map(tally).collect();
        let bells = self.bells.iter().map(|line| bell(line, Some(now), None)).collect();
        [self.frozen, self.recipients, tallies, self.events, self.open, bells]
    }
}

/// Inserts mails with their contents.
///
/// # Errors
/// [`ErrorKind::Conflict`] when one of them, or its idempotency key, was inserted meanwhile.
pub(super) async fn insert(
    tx: &mut MySqlConnection,
    now: Timestamp,
    mails: &[(&Prepared, &Bytes)],
) -> Result<()> {
    let (mut rows, mut contents) = (Rows::default(), Vec::new());
    for (mail, content) in mails {
        let body = new_body_id(now)?;
        rows.add(now, mail, body, content.len())?;
        contents.push((body, *content));
    }
    if !rows.keys.is_empty() {
        let keys = to_json(&rows.keys)?;
        sqlx::query(KEYS).bind(&keys).execute(&mut *tx).await.map_err(failed(STAGE))?;
        let taken = sqlx::query_as(TAKEN).bind(&keys).fetch_one(&mut *tx).await;
        let (taken,): (i64,) = taken.map_err(failed(STAGE))?;
        if taken > 0 {
            return Err(Error::new(ErrorKind::Conflict, STAGE));
        }
    }
    bodies::insert_all(tx, None, &contents).await?;
    for (sql, rows) in INSERT.into_iter().zip(rows.parts(now)) {
        write_rows(tx, sql, &rows, STAGE).await?;
    }
    Ok(())
}

/// Inserts a mail behind the savepoint of a host's transaction.
///
/// # Errors
/// As for [`insert`]; the transaction is then as it was at the savepoint.
pub(super) async fn insert_with_host(
    tx: &mut MySqlConnection,
    now: Timestamp,
    mail: &Prepared,
    content: &Bytes,
) -> Result<()> {
    let (mut rows, body) = (Rows::default(), new_body_id(now)?);
    rows.add(now, mail, body, content.len())?;
    // What a dropped future leaves of it is an orphan, which is swept away.
    bodies::insert_all(tx, Some(now), &[(body, content)]).await?;
    let mut given = sqlx::query(GIVEN).bind(to_json(&rows.keys)?);
    for rows in rows.parts(now) {
        given = given.bind(to_json(&rows)?);
    }
    given.bind(hex(body.uuid())).execute(&mut *tx).await.map_err(failed(STAGE))?;
    say(tx, BLOCK, STAGE).await
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
        i32::from(mail.raw),
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
