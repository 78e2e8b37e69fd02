//! Submissions: which of the mails that come together are new, and the port. The rows of those that are new are in `insert`.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::address::Address;
use postroom_core::id::{ContractId, MailboxId, QueueId, Revision};
use postroom_core::queue::Prepared;
use postroom_core::suppression::suppressed_form;
use postroom_core::time::Timestamp;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::insert::insert;
use crate::error::Result;
use crate::queue::{Enqueued, LOOKED_AT, QueueIntake, SentMail};
use crate::sql::admit::{Around, Counts, STAGE, admit, counted};
use crate::sql::rows::{day, from_json, hex, optional, small, text, to_json, unhex, unreadable};
use crate::sql::sqlite::connection::failed;
use crate::sql::sqlite::correspondents;
use crate::sql::sqlite::script::Script;
use crate::sql::sqlite::store::SqliteStore;
use crate::transition::registry::{OutboxState, Stored};

/// The mails that have the id of a place.
pub(in crate::sql::sqlite) const EXISTING: &str = "SELECT json_group_array(j.key)
    FROM json_each(?) j JOIN postroom_queue_mail m ON m.id = unhex(j.value)";

/// The mails that have the key of a place, with its fingerprint.
pub(in crate::sql::sqlite) const KEYED: &str =
    "SELECT json_group_array(json_array(j.value ->> 0, hex(k.mail), k.fingerprint)) FROM json_each(?) j
        JOIN postroom_queue_key k ON k.contract = j.value ->> 1 AND k.idempotency_key = j.value ->> 2";

/// What each decision stands on.
pub(in crate::sql::sqlite) const BASIS: &str =
    "SELECT json_group_array(json_array(c.revision, c.queued_limit, c.per_day_limit,
        (SELECT revision FROM postroom_step WHERE flow = j.value ->> 1 AND step = j.value ->> 2),
        (SELECT outbox FROM postroom_standard WHERE singleton = 1),
        m.kind, m.status, m.revision) ORDER BY j.key)
    FROM json_each(?) j
    LEFT JOIN postroom_contract c ON c.id = j.value ->> 0
    LEFT JOIN postroom_mailbox m ON m.id = j.value ->> 3";

/// Counts no further than the limit.
pub(in crate::sql::sqlite) const QUEUED: &str =
    "SELECT count(*) FROM (SELECT 1 FROM postroom_queue_open WHERE contract = ?1 LIMIT ?2 + 0)";

pub(in crate::sql::sqlite) const TODAY: &str =
    "SELECT coalesce(sum(submitted), 0) FROM postroom_queue_tally WHERE contract = ?1 AND day = ?2";

pub(in crate::sql::sqlite) const SENT: &str = "SELECT m.id, m.contract, m.record, m.message_id
    FROM json_each(?1) j JOIN postroom_queue_mail m ON m.message_id = j.value
    ORDER BY j.key, m.id";

pub(in crate::sql::sqlite) const SENT_TO: &str = "SELECT DISTINCT m.id, m.contract, m.record, m.message_id
    FROM postroom_queue_mail m INDEXED BY postroom_queue_mail_contract
        CROSS JOIN postroom_queue_recipient r ON r.mail = m.id
    WHERE m.contract = ?1 AND m.id > ?2 AND lower(r.address) = ?3 AND r.state IN ('accepted', 'bounced', 'in-doubt')
        AND ?4 >= (SELECT count(*) FROM (SELECT 1 FROM postroom_queue_mail n INDEXED BY postroom_queue_mail_contract
            WHERE n.contract = ?1 AND n.id > ?2 LIMIT ?4 + 1))
    LIMIT 2";

type Basis = (
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<String>,
    Option<String>,
    Option<i64>,
);

/// What is asked about mails before they are inserted.
pub(super) struct Question {
    ids: Vec<String>,
    /// Place, contract and key of each mail that has one.
    keys: Vec<Value>,
    /// What decisions stand on, each once: most mails that come together are of few contracts.
    bases: Vec<Value>,
    /// Which of these each mail's is.
    places: Vec<usize>,
}

impl Question {
    pub(super) fn about(mails: &[(&Prepared, &Bytes)]) -> Result<Self> {
        let mut known = BTreeMap::new();
        let mut question = Self { ids: Vec::new(), keys: Vec::new(), bases: Vec::new(), places: Vec::new() };
        for (place, (mail, _)) in mails.iter().enumerate() {
            question.ids.push(hex(mail.id.uuid()));
            if let Some((key, _)) = &mail.idempotency {
                question.keys.push(json!([place, mail.contract, key]));
            }
            let step = mail.step.as_ref();
            let (flow, step) = step.map(|key| (key.flow.as_str(), key.step.as_str())).unzip();
            let outbox = mail.resolution.outbox.number();
            let basis = (&mail.contract, flow, step, outbox);
            question.places.push(*known.entry(basis).or_insert_with(|| {
                question.bases.push(json!([mail.contract, flow, step, outbox]));
                question.bases.len() - 1
            }));
        }
        Ok(question)
    }

    /// Has a script ask.
    pub(super) fn ask(&self, script: &mut Script) -> Result<()> {
        script.of_rows(EXISTING, &self.ids)?;
        script.of_rows(KEYED, &self.keys)?;
        script.of_rows(BASIS, &self.bases)
    }

    /// What is stored around each mail, by what the script answered.
    pub(super) fn answers(self, mut answers: impl Iterator<Item = String>) -> Result<Vec<Around>> {
        let mut existing: BTreeMap<usize, (QueueId, Option<_>)> = BTreeMap::new();
        if self.ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut next = || answers.next().ok_or_else(unreadable);
        for place in from_json::<Vec<usize>>(&next()?)? {
            let id = self.ids.get(place).map(|id| unhex(id)).transpose()?.flatten();
            existing.insert(place, (QueueId::from_uuid(id.ok_or_else(unreadable)?), None));
        }
        if !self.keys.is_empty() {
            for (place, id, print) in from_json::<Vec<(usize, String, String)>>(&next()?)? {
                let id = QueueId::from_uuid(unhex(&id)?.ok_or_else(unreadable)?);
                // The row of the same id goes first.
                existing.entry(place).or_insert((id, Some(from_json(&print)?)));
            }
        }
        let bases = bases(&next()?)?;
        let around = |(place, basis): (usize, usize)| {
            let (stored, (queued_limit, per_day_limit)) = *bases.get(basis).ok_or_else(unreadable)?;
            Ok(Around { existing: existing.remove(&place), stored, queued_limit, per_day_limit })
        };
        self.places.into_iter().enumerate().map(around).collect()
    }
}

/// The most queued mails, and the most mails a day, of a contract.
type Limits = (Option<u64>, Option<u64>);

/// What decisions stand on, each asked for as contract, flow, step, outbox; with the limits of the contract.
pub(super) async fn basis(tx: &mut SqliteConnection, asked: &[Value]) -> Result<Vec<(Stored, Limits)>> {
    let rows = sqlx::query_as(BASIS).bind(to_json(asked)?);
    let (rows,): (String,) = rows.fetch_one(tx).await.map_err(failed(STAGE))?;
    bases(&rows)
}

/// What [`BASIS`] gave.
fn bases(rows: &str) -> Result<Vec<(Stored, Limits)>> {
    let rows: Vec<Basis> = from_json(rows)?;
    let basis = |basis: Basis| {
        let (contract, queued_limit, per_day_limit, step, standard, kind, status, revision) = basis;
        let outbox = match (kind, status, revision) {
            (Some(kind), Some(status), Some(revision)) => {
                let (kind, status) = (text(&kind)?, text(&status)?);
                Some(OutboxState { kind, status, revision: Revision::new(revision) })
            }
            _ => None,
        };
        let (contract, step) = (contract.map(Revision::new), step.map(Revision::new));
        let stored = Stored { outbox, contract, step, standard: standard.map(MailboxId::new) };
        Ok((stored, (queued_limit.map(small).transpose()?, per_day_limit.map(small).transpose()?)))
    };
    rows.into_iter().map(basis).collect()
}

/// What the contracts have that a limit bounds.
async fn counts(
    tx: &mut SqliteConnection,
    now: Timestamp,
    mails: &[(&Prepared, &Bytes)],
    around: &[Around],
) -> Result<Counts> {
    let mut counts = Counts::default();
    for ((mail, _), around) in mails.iter().zip(around) {
        let contract = &mail.contract;
        if let Some(most) = around.queued_limit.filter(|_| !counts.queued.contains_key(contract)) {
            let most = i64::try_from(most).map_err(|_| unreadable())?;
            let query = sqlx::query_as(QUEUED).bind(contract.as_str()).bind(most);
            let (queued,): (i64,) = query.fetch_one(&mut *tx).await.map_err(failed(STAGE))?;
            counts.queued.insert(contract.clone(), small(queued)?);
        }
        if around.per_day_limit.is_some() && !counts.today.contains_key(contract) {
            let query = sqlx::query_as(TODAY).bind(contract.as_str()).bind(day(now));
            let (today,): (i64,) = query.fetch_one(&mut *tx).await.map_err(failed(STAGE))?;
            counts.today.insert(contract.clone(), small(today)?);
        }
    }
    counts.answers = correspondents::answers(tx, now, &counted(mails.iter().map(|(mail, _)| *mail))).await?;
    Ok(counts)
}

/// Puts mails into the queue, within a transaction, by what is stored around them, and answers each. After an error some may be there:
/// the caller undoes it.
pub(super) async fn put_by(
    tx: &mut SqliteConnection,
    now: Timestamp,
    mails: &[(&Prepared, &Bytes)],
    around: Vec<Around>,
) -> Result<Vec<Result<Enqueued>>> {
    let counts = counts(tx, now, mails, &around).await?;
    let answers = admit(mails.iter().map(|(mail, _)| *mail).zip(around), counts, now);
    let new = mails.iter().zip(&answers).filter(|(_, answer)| matches!(answer, Ok(Enqueued::New(_))));
    let new: Vec<_> = new.map(|(mail, _)| *mail).collect();
    if !new.is_empty() {
        correspondents::add(tx, now, &counted(new.iter().map(|(mail, _)| *mail))).await?;
        insert(tx, now, &new).await?;
    }
    Ok(answers)
}

/// Puts one mail into the queue.
pub(super) async fn put(
    tx: &mut SqliteConnection,
    now: Timestamp,
    mail: &Prepared,
    content: &Bytes,
) -> Result<Enqueued> {
    let (mails, mut script) = ([(mail, content)], Script::default());
    let question = Question::about(&mails)?;
    question.ask(&mut script)?;
    let around = question.answers(script.texts(tx, STAGE).await?)?;
    put_by(tx, now, &mails, around).await?.pop().ok_or_else(unreadable)?
}

type Sent = (Uuid, String, Option<String>, String);

fn sent((id, contract, record, message_id): Sent) -> Result<SentMail> {
    Ok(SentMail {
        id: QueueId::from_uuid(id),
        contract: text::<ContractId>(&contract)?,
        record: optional(record)?,
        message_id,
    })
}

#[async_trait]
impl QueueIntake for SqliteStore {
    async fn enqueue(&self, now: Timestamp, mail: &Prepared, content: Bytes) -> Result<Enqueued> {
        self.queue.enqueue(now, mail, content).await
    }

    fn claims_wait_for_submissions(&self) -> bool {
        true
    }

    async fn sent_by_message_id(&self, message_ids: &[String]) -> Result<Vec<SentMail>> {
        const STAGE: &str = "find sent mails";
        let message_ids = to_json(message_ids)?;
        let mut read = self.connections.read(STAGE).await?;
        let rows = sqlx::query_as(SENT).bind(message_ids).fetch_all(&mut *read).await.map_err(failed(STAGE));
        read.finish(rows).await?.into_iter().map(sent).collect()
    }

    async fn sent_to(
        &self,
        contract: &ContractId,
        recipient: &Address,
        since: Timestamp,
    ) -> Result<Vec<SentMail>> {
        const STAGE: &str = "find a sent mail by its recipient";
        let since = QueueId::new(since, [0xff; 10]).uuid();
        let mut read = self.connections.read(STAGE).await?;
        let query = sqlx::query_as(SENT_TO)
            .bind(contract.as_str())
            .bind(since)
            .bind(suppressed_form(recipient).to_string())
            .bind(i64::from(LOOKED_AT));
        let rows = query.fetch_all(&mut *read).await.map_err(failed(STAGE));
        read.finish(rows).await?.into_iter().map(sent).collect()
    }
}
