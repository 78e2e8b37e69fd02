//! Submissions: a mail with its content, recipients and first timeline entry, in one transaction.

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::id::{ContractId, LedgerId, MailboxId, QueueId, RecordId, Revision};
use postroom_core::message::Fingerprint;
use postroom_core::queue::Prepared;
use postroom_core::time::Timestamp;
use serde_json::json;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::row;
use crate::error::{Error, ErrorKind, Result};
use crate::queue::{Enqueued, QueueIntake, SentMail};
use crate::sql::rows::{big, from_json, new_body_id, optional, rank, shown, small, text, to_json};
use crate::sql::sqlite::connection::failed;
use crate::sql::sqlite::store::SqliteStore;
use crate::sql::sqlite::{bodies, lanes, mailboxes};
use crate::transition::queue::QueueRow;
use crate::transition::registry::Stored;

const STAGE: &str = "submit a mail";

/// The mail that has this id or this key, with the key's fingerprint.
pub(in crate::sql::sqlite) const EXISTING: &str = "SELECT id, NULL FROM postroom_queue_mail WHERE id = ?1
    UNION ALL
    SELECT mail, fingerprint FROM postroom_queue_key WHERE contract = ?2 AND idempotency_key = ?3
    LIMIT 1";

/// What a decision stands on, besides its outbox.
pub(in crate::sql::sqlite) const BASIS: &str = "SELECT
    (SELECT revision FROM postroom_contract WHERE id = ?1),
    (SELECT revision FROM postroom_step WHERE flow = ?2 AND step = ?3),
    (SELECT outbox FROM postroom_standard WHERE singleton = 1),
    (SELECT queued_limit FROM postroom_contract WHERE id = ?1),
    (SELECT per_day_limit FROM postroom_contract WHERE id = ?1)";

/// Counts no further than the limit.
pub(in crate::sql::sqlite) const QUEUED: &str =
    "SELECT count(*) FROM (SELECT 1 FROM postroom_queue_open WHERE contract = ?1 LIMIT ?2)";

const TALLY: &str = "INSERT INTO postroom_queue_tally (contract, day, submitted) VALUES (?1, ?2, 1)
    ON CONFLICT (contract, day) DO UPDATE SET submitted = submitted + 1 RETURNING submitted";

const MAIL: &str = "INSERT INTO postroom_queue_mail
    (id, contract, flow, step, outbox, outbox_revision, sender, return_path, reasons, subject, message_id, raw, record,
        in_reply_to, priority, on_doubt, created_at, body, size, attempts, expires_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, 0, ?20)";

const OPEN: &str = "INSERT INTO postroom_queue_open
    (mail, outbox, contract, priority, state, paused, due_at, expires_at, attempts)
    VALUES (?1, ?2, ?3, ?4, ?5,
        EXISTS (SELECT 1 FROM postroom_pause WHERE scope = 'contract' AND subject = ?3), ?6, ?7, 0)";

const RECIPIENTS: &str = "INSERT INTO postroom_queue_recipient (mail, place, address, role, state)
    SELECT ?1, key, value ->> 0, value ->> 1, ?3 FROM json_each(?2)";

const KEY: &str = "INSERT INTO postroom_queue_key (contract, idempotency_key, mail, fingerprint, created_at)
    VALUES (?1, ?2, ?3, ?4, ?5)";

pub(in crate::sql::sqlite) const SENT: &str = "SELECT m.id, m.contract, m.record, m.message_id
    FROM json_each(?1) j JOIN postroom_queue_mail m ON m.message_id = j.value
    ORDER BY j.key, m.id";

/// The mail that was submitted before, by its id or its idempotency key.
async fn existing(tx: &mut SqliteConnection, mail: &Prepared) -> Result<Option<QueueId>> {
    let key = mail.idempotency.as_ref();
    let found: Option<(Uuid, Option<String>)> = sqlx::query_as(EXISTING)
        .bind(mail.id.uuid())
        .bind(mail.contract.as_str())
        .bind(key.map(|(key, _)| key.as_str()))
        .fetch_optional(tx)
        .await
        .map_err(failed(STAGE))?;
    let Some((id, print)) = found else { return Ok(None) };
    let existing = QueueId::from_uuid(id);
    if let (Some(print), Some((_, ours))) = (print, key) {
        let theirs: Fingerprint = from_json(&print)?;
        if let Some(field) = ours.first_difference(&theirs) {
            let field = field.to_owned();
            return Err(Error::new(ErrorKind::IdempotencyConflict { existing, field }, STAGE));
        }
    }
    Ok(Some(existing))
}

/// Refuses a mail whose decision does not stand any more, or that is one too many.
async fn check(tx: &mut SqliteConnection, now: Timestamp, mail: &Prepared) -> Result<()> {
    type Columns = (Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<i64>);
    let step = mail.step.as_ref();
    let (contract, step, standard, queued_limit, per_day_limit): Columns = sqlx::query_as(BASIS)
        .bind(mail.contract.as_str())
        .bind(step.map(|key| key.flow.as_str()))
        .bind(step.map(|key| key.step.as_str()))
        .fetch_one(&mut *tx)
        .await
        .map_err(failed(STAGE))?;
    let outbox = mailboxes::by_id(tx, mail.resolution.outbox).await?;
    let stored = Stored {
        outbox: outbox.as_ref(),
        contract: contract.map(Revision::new),
        step: step.map(Revision::new),
        standard: standard.map(MailboxId::new),
    };
    if !stored.upholds(mail) {
        return Err(Error::new(ErrorKind::StaleDecision, STAGE));
    }
    let reached = |limit, most| Err(Error::new(ErrorKind::LimitReached { limit, most }, STAGE));
    if let Some(most) = queued_limit {
        let query = sqlx::query_as(QUEUED).bind(mail.contract.as_str()).bind(most);
        let (queued,): (i64,) = query.fetch_one(&mut *tx).await.map_err(failed(STAGE))?;
        if queued >= most {
            return reached("queued", small(most)?);
        }
    }
    let day = now.as_secs().div_euclid(24 * 60 * 60);
    let query = sqlx::query_as(TALLY).bind(mail.contract.as_str()).bind(day);
    let (submitted,): (i64,) = query.fetch_one(&mut *tx).await.map_err(failed(STAGE))?;
    match per_day_limit {
        Some(most) if submitted > most => reached("per-day", small(most)?),
        _ => Ok(()),
    }
}

async fn insert(tx: &mut SqliteConnection, now: Timestamp, mail: &Prepared, content: &Bytes) -> Result<()> {
    let (row, entry) = QueueRow::enqueue(now, mail);
    let (id, resolution, rank) = (mail.id.uuid(), &mail.resolution, rank(mail.priority));
    let body = new_body_id(now)?;
    bodies::insert(tx, body, content).await?;
    sqlx::query(MAIL)
        .bind(id)
        .bind(mail.contract.as_str())
        .bind(mail.step.as_ref().map(|key| key.flow.as_str()))
        .bind(mail.step.as_ref().map(|key| key.step.as_str()))
        .bind(resolution.outbox.number())
        .bind(resolution.revision.number())
        .bind(resolution.sender.to_string())
        .bind(shown(mail.return_path.as_ref()))
        .bind(to_json(&resolution.reasons)?)
        .bind(mail.subject.as_str())
        .bind(mail.message_id.as_str())
        .bind(i64::from(mail.raw))
        .bind(mail.record.as_ref().map(RecordId::as_str))
        .bind(mail.in_reply_to.map(LedgerId::uuid))
        .bind(rank)
        .bind(mail.on_doubt.word())
        .bind(row.created_at.as_millis())
        .bind(body.uuid())
        .bind(big(content.len()))
        .bind(row.expires_at.as_millis())
        .execute(&mut *tx)
        .await
        .map_err(failed(STAGE))?;
    sqlx::query(OPEN)
        .bind(id)
        .bind(resolution.outbox.number())
        .bind(mail.contract.as_str())
        .bind(rank)
        .bind(row.state().word())
        .bind(row.due_at.as_millis())
        .bind(row.expires_at.as_millis())
        .execute(&mut *tx)
        .await
        .map_err(failed(STAGE))?;
    let recipients: Vec<_> = mail.recipients.iter().map(|one| json!([one.address, one.role])).collect();
    let query = sqlx::query(RECIPIENTS).bind(id).bind(to_json(&recipients)?).bind(row.state().word());
    query.execute(&mut *tx).await.map_err(failed(STAGE))?;
    if let Some((key, print)) = &mail.idempotency {
        let query = sqlx::query(KEY).bind(mail.contract.as_str()).bind(key.as_str()).bind(id);
        let query = query.bind(to_json(print)?).bind(now.as_millis());
        query.execute(&mut *tx).await.map_err(failed(STAGE))?;
    }
    row::begin_timeline(tx, mail.id, &entry).await?;
    let line = (resolution.outbox.number(), mail.contract.as_str().to_owned(), rank);
    lanes::joined(tx, now, line).await
}

/// Puts a mail into the queue, within a transaction. After an error some of it may be there: the caller undoes it.
pub(super) async fn put(
    tx: &mut SqliteConnection,
    now: Timestamp,
    mail: &Prepared,
    content: &Bytes,
) -> Result<Enqueued> {
    if let Some(existing) = existing(tx, mail).await? {
        return Ok(Enqueued::Existing(existing));
    }
    check(tx, now, mail).await?;
    insert(tx, now, mail, content).await?;
    Ok(Enqueued::New(mail.id))
}

#[async_trait]
impl QueueIntake for SqliteStore {
    async fn enqueue(&self, now: Timestamp, mail: &Prepared, content: Bytes) -> Result<Enqueued> {
        loop {
            let mut tx = self.connections.join(STAGE).await?;
            let done = put(&mut tx, now, mail, &content).await;
            if let Some(done) = tx.finish(done).await {
                return done;
            }
        }
    }

    async fn sent_by_message_id(&self, message_ids: &[String]) -> Result<Vec<SentMail>> {
        const STAGE: &str = "find sent mails";
        let message_ids = to_json(message_ids)?;
        let mut read = self.connections.read(STAGE).await?;
        let rows = sqlx::query_as(SENT).bind(message_ids).fetch_all(&mut *read).await.map_err(failed(STAGE));
        let rows: Vec<(Uuid, String, Option<String>, String)> = read.finish(rows).await?;
        let sent = |(id, contract, record, message_id): (Uuid, String, Option<String>, String)| {
            Ok(SentMail {
                id: QueueId::from_uuid(id),
                contract: text::<ContractId>(&contract)?,
                record: optional(record)?,
                message_id,
            })
        };
        rows.into_iter().map(sent).collect()
    }
}
