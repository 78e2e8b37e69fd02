//! Submissions: a mail with its content, recipients and first timeline entry, in one transaction.

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::id::{ContractId, LedgerId, MailboxId, QueueId, RecordId, Revision};
use postroom_core::mailbox::Mailbox;
use postroom_core::message::Fingerprint;
use postroom_core::queue::Prepared;
use postroom_core::time::Timestamp;
use serde_json::json;
use sqlx::Row;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::row;
use crate::bodies::PIECE;
use crate::error::{Error, ErrorKind, Result};
use crate::queue::{Enqueued, QueueIntake, SentMail};
use crate::sql::postgres::connection::{TRIES, failed, join};
use crate::sql::postgres::failed::unavailable;
use crate::sql::postgres::locks;
use crate::sql::postgres::plain::plain;
use crate::sql::postgres::store::PgStore;
use crate::sql::rows::{
    big, from_json, hex, mailbox, new_body_id, optional, rank, shown, small, text, to_json,
};
use crate::transition::queue::QueueRow;
use crate::transition::registry::Stored;

const STAGE: &str = "submit a mail";

/// The mail that has this id or this key, with the key's fingerprint; and what a decision stands on. The rows that it stands on are
/// locked against changes until the transaction ends, so what is checked here is what stands when the mail is there.
pub(in crate::sql::postgres) const BASIS: &str = "WITH existing AS (
        SELECT id, NULL AS fingerprint FROM postroom_queue_mail WHERE id = $1
        UNION ALL
        SELECT mail, fingerprint FROM postroom_queue_key WHERE contract = $2 AND idempotency_key = $3
        LIMIT 1
    ), outbox AS MATERIALIZED (
        SELECT id, settings, status, revision, changed_by, changed_at FROM postroom_mailbox
        WHERE id = $6 AND NOT EXISTS (SELECT 1 FROM existing) FOR SHARE
    ), contract AS MATERIALIZED (
        SELECT revision, queued_limit, per_day_limit FROM postroom_contract
        WHERE id = $2 AND NOT EXISTS (SELECT 1 FROM existing) FOR SHARE
    ), step AS MATERIALIZED (
        SELECT revision FROM postroom_step
        WHERE flow = $4 AND step = $5 AND NOT EXISTS (SELECT 1 FROM existing) FOR SHARE
    ), standard AS MATERIALIZED (
        SELECT outbox FROM postroom_standard
        WHERE singleton = 1 AND NOT EXISTS (SELECT 1 FROM existing) FOR SHARE
    )
    SELECT existing.id, existing.fingerprint, contract.revision, step.revision, standard.outbox, contract.queued_limit,
        contract.per_day_limit, outbox.id, outbox.settings, outbox.status, outbox.revision, outbox.changed_by,
        outbox.changed_at
    FROM (SELECT pg_advisory_xact_lock_shared(hashtextextended('postroom/switch/' || $2::text || '/' || current_schema(), 0))) locked
        LEFT JOIN existing ON true LEFT JOIN outbox ON true LEFT JOIN contract ON true LEFT JOIN step ON true
        LEFT JOIN standard ON true";

/// Counts no further than the limit.
pub(in crate::sql::postgres) const QUEUED: &str =
    "SELECT count(*) FROM (SELECT 1 FROM postroom_queue_open WHERE contract = $1 LIMIT $2) queued";

pub(in crate::sql::postgres) const TALLIED: &str =
    "SELECT coalesce(sum(submitted), 0)::bigint FROM postroom_queue_tally WHERE contract = $1 AND day = $2";

/// Everything that a mail consists of, in one statement: a future that is dropped leaves all of it or nothing. Gives whether it was
/// inserted: not where the idempotency key was taken meanwhile.
pub(in crate::sql::postgres) const INSERT: &str = "WITH key AS (
        INSERT INTO postroom_queue_key (contract, idempotency_key, mail, fingerprint, created_at)
        SELECT $2::text, $21::text, $1::uuid, $22::text, $17::bigint WHERE $21 IS NOT NULL
        ON CONFLICT (contract, idempotency_key) DO NOTHING RETURNING 1
    ), given AS MATERIALIZED (
        SELECT $1::uuid AS mail WHERE $21::text IS NULL OR EXISTS (SELECT 1 FROM key)
    ), content AS (
        INSERT INTO postroom_body (id) SELECT $18::uuid FROM given
    ), pieces AS (
        INSERT INTO postroom_body_piece (body, number, content)
        SELECT $18, place - 1, piece FROM given, unnest($23::bytea[]) WITH ORDINALITY p (piece, place)
    ), frozen AS (
        INSERT INTO postroom_queue_mail
            (id, contract, flow, step, outbox, outbox_revision, sender, return_path, reasons, subject, message_id, raw,
                record, in_reply_to, priority, on_doubt, created_at, body, size, attempts, expires_at)
        SELECT mail, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, 0, $20 FROM given
    ), unfinished AS (
        INSERT INTO postroom_queue_open
            (mail, outbox, contract, priority, state, paused, due_at, expires_at, attempts)
        SELECT mail, $5, $2, $15, $24,
            EXISTS (SELECT 1 FROM postroom_pause WHERE scope = 'contract' AND subject = $2), $25, $20, 0 FROM given
    ), recipients AS (
        INSERT INTO postroom_queue_recipient (mail, place, address, role, state)
        SELECT mail, place - 1, value ->> 0, value ->> 1, $24
        FROM given, json_array_elements($26::json) WITH ORDINALITY j (value, place)
    ), tally AS (
        INSERT INTO postroom_queue_tally AS t (contract, day, slot, submitted)
        SELECT $2, $27, pg_backend_pid() % 64, 1 FROM given
        ON CONFLICT (contract, day, slot) DO UPDATE SET submitted = t.submitted + 1
    ), bell AS (
        INSERT INTO postroom_queue_bell (outbox) SELECT $5 FROM given
    ), event AS (
        INSERT INTO postroom_event (noun, mail, at, recipient, what, state, detail, actor)
        SELECT 'queue', (value ->> 0)::uuid, (value ->> 1)::bigint, (value ->> 2)::bigint, value ->> 3, value ->> 4,
            value ->> 5, value ->> 6
        FROM given, (SELECT $28::json AS value) j
    )
    SELECT count(*) FROM given";

pub(in crate::sql::postgres) const SENT: &str = "SELECT m.id, m.contract, m.record, m.message_id
    FROM unnest($1::text[]) WITH ORDINALITY j (value, place) JOIN postroom_queue_mail m ON m.message_id = j.value
    ORDER BY j.place, m.id";

/// What [`BASIS`] gives.
struct Basis {
    existing: Option<(QueueId, Option<String>)>,
    contract: Option<i64>,
    step: Option<i64>,
    standard: Option<i64>,
    queued_limit: Option<i64>,
    per_day_limit: Option<i64>,
    outbox: Option<Mailbox>,
}

async fn basis(tx: &mut PgConnection, mail: &Prepared) -> Result<Basis> {
    let step = mail.step.as_ref();
    let row = sqlx::query(BASIS)
        .bind(mail.id.uuid())
        .bind(mail.contract.as_str())
        .bind(mail.idempotency.as_ref().map(|(key, _)| key.as_str()))
        .bind(step.map(|key| key.flow.as_str()))
        .bind(step.map(|key| key.step.as_str()))
        .bind(mail.resolution.outbox.number())
        .fetch_one(tx)
        .await
        .map_err(failed(STAGE))?;
    let number = |index: usize| row.try_get::<Option<i64>, _>(index).map_err(failed(STAGE));
    let words = |index: usize| row.try_get::<Option<String>, _>(index).map_err(failed(STAGE));
    let id: Option<Uuid> = row.try_get(0).map_err(failed(STAGE))?;
    let existing = match id {
        Some(id) => Some((QueueId::from_uuid(id), words(1)?)),
        None => None,
    };
    let texts = words(8)?.zip(words(9)?).zip(words(11)?);
    let numbers = number(7)?.zip(number(10)?).zip(number(12)?);
    let outbox = numbers.zip(texts).map(|(((id, revision), at), ((settings, status), by))| {
        mailbox((id, settings, status, revision, by, at))
    });
    Ok(Basis {
        existing,
        contract: number(2)?,
        step: number(3)?,
        standard: number(4)?,
        queued_limit: number(5)?,
        per_day_limit: number(6)?,
        outbox: outbox.transpose()?,
    })
}

/// What a mail that was submitted before means to one that has its id or its idempotency key.
fn repeated(existing: QueueId, print: Option<String>, mail: &Prepared) -> Result<Enqueued> {
    if let (Some(print), Some((_, ours))) = (print, &mail.idempotency) {
        let theirs: Fingerprint = from_json(&print)?;
        if let Some(field) = ours.first_difference(&theirs) {
            let field = field.to_owned();
            return Err(Error::new(ErrorKind::IdempotencyConflict { existing, field }, STAGE));
        }
    }
    Ok(Enqueued::Existing(existing))
}

/// Refuses a mail that is one too many. Those that come at the same time wait for each other, and see each other's mail.
async fn check_limits(tx: &mut PgConnection, day: i64, mail: &Prepared, basis: &Basis) -> Result<()> {
    if basis.queued_limit.is_none() && basis.per_day_limit.is_none() {
        return Ok(());
    }
    let contract = mail.contract.as_str();
    let reached = |limit, most| Err(Error::new(ErrorKind::LimitReached { limit, most }, STAGE));
    locks::limits(tx, &mail.contract).await?;
    if let Some(most) = basis.queued_limit {
        let query = sqlx::query_as(QUEUED).bind(contract).bind(most);
        let (queued,): (i64,) = query.fetch_one(&mut *tx).await.map_err(failed(STAGE))?;
        if queued >= most {
            return reached("queued", small(most)?);
        }
    }
    if let Some(most) = basis.per_day_limit {
        let query = sqlx::query_as(TALLIED).bind(contract).bind(day);
        let (submitted,): (i64,) = query.fetch_one(tx).await.map_err(failed(STAGE))?;
        if submitted >= most {
            return reached("per-day", small(most)?);
        }
    }
    Ok(())
}

/// Inserts a mail with its content. Gives nothing where its idempotency key was taken meanwhile.
async fn insert(
    tx: &mut PgConnection,
    now: Timestamp,
    day: i64,
    mail: &Prepared,
    content: &Bytes,
) -> Result<Option<Enqueued>> {
    let (row, entry) = QueueRow::enqueue(now, mail);
    let (resolution, key) = (&mail.resolution, mail.idempotency.as_ref());
    let recipients: Vec<_> = mail.recipients.iter().map(|one| json!([one.address, one.role])).collect();
    let inserted = sqlx::query_as(INSERT)
        .bind(mail.id.uuid())
        .bind(mail.contract.as_str())
        .bind(mail.step.as_ref().map(|key| key.flow.as_str()))
        .bind(mail.step.as_ref().map(|key| key.step.as_str()))
        .bind(resolution.outbox.number())
        .bind(resolution.revision.number())
        .bind(resolution.sender.to_string())
        .bind(shown(mail.return_path.as_ref()))
        .bind(to_json(&resolution.reasons)?)
        .bind(plain(&mail.subject))
        .bind(plain(&mail.message_id))
        .bind(mail.raw)
        .bind(mail.record.as_ref().map(RecordId::as_str))
        .bind(mail.in_reply_to.map(LedgerId::uuid))
        .bind(rank(mail.priority))
        .bind(mail.on_doubt.word())
        .bind(row.created_at.as_millis())
        .bind(new_body_id(now)?.uuid())
        .bind(big(content.len()))
        .bind(row.expires_at.as_millis())
        .bind(key.map(|(key, _)| key.as_str()))
        .bind(key.map(|(_, print)| to_json(print)).transpose()?)
        .bind(content.chunks(PIECE).map(<[u8]>::to_vec).collect::<Vec<_>>())
        .bind(row.state().word())
        .bind(row.due_at.as_millis())
        .bind(to_json(&recipients)?)
        .bind(day)
        .bind(to_json(&row::event_row(&hex(mail.id.uuid()), &entry))?)
        .fetch_one(tx)
        .await
        .map_err(failed(STAGE))?;
    let (inserted,): (i64,) = inserted;
    Ok((inserted > 0).then_some(Enqueued::New(mail.id)))
}

/// Puts a mail into the queue, within a transaction. What it writes, it writes in one statement, the last one.
pub(super) async fn put(
    tx: &mut PgConnection,
    now: Timestamp,
    mail: &Prepared,
    content: &Bytes,
) -> Result<Enqueued> {
    let day = now.as_secs().div_euclid(24 * 60 * 60);
    for _ in 0..TRIES {
        let mut basis = basis(tx, mail).await?;
        if let Some((existing, print)) = basis.existing.take() {
            return repeated(existing, print, mail);
        }
        let stored = Stored {
            outbox: basis.outbox.as_ref(),
            contract: basis.contract.map(Revision::new),
            step: basis.step.map(Revision::new),
            standard: basis.standard.map(MailboxId::new),
        };
        if !stored.upholds(mail) {
            return Err(Error::new(ErrorKind::StaleDecision, STAGE));
        }
        check_limits(tx, day, mail, &basis).await?;
        if let Some(enqueued) = insert(tx, now, day, mail, content).await? {
            return Ok(enqueued);
        }
        // Whoever took the key has committed: his mail is seen now.
    }
    Err(unavailable(STAGE))
}

/// Whether the same mail was submitted twice at the same time, so that it is there when it is looked for again.
pub(super) fn is_repeated<T>(done: &Result<T>) -> bool {
    done.as_ref().is_err_and(|error| error.kind() == &ErrorKind::Conflict)
}

#[async_trait]
impl QueueIntake for PgStore {
    async fn enqueue(&self, now: Timestamp, mail: &Prepared, content: Bytes) -> Result<Enqueued> {
        let submit = async || join!(self.connections, intake, STAGE, |tx| put(tx, now, mail, &content).await);
        let done = submit().await;
        if is_repeated(&done) { submit().await } else { done }
    }

    async fn sent_by_message_id(&self, message_ids: &[String]) -> Result<Vec<SentMail>> {
        const STAGE: &str = "find sent mails";
        let mut read = self.connections.read(STAGE).await?;
        let rows = sqlx::query_as(SENT)
            .bind(message_ids.to_vec())
            .fetch_all(&mut *read)
            .await
            .map_err(failed(STAGE));
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
