//! Submissions: which of the mails that come together are new, and the port. The rows of those that are new are in `insert`.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::address::Address;
use postroom_core::id::{ContractId, MailboxId, QueueId, Revision};
use postroom_core::queue::Prepared;
use postroom_core::suppression::suppressed_form;
use postroom_core::time::Timestamp;
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::insert::insert;
use crate::error::{ErrorKind, Result};
use crate::queue::{Enqueued, LOOKED_AT, QueueIntake, SentMail};
use crate::sql::admit::{Around, Counts, STAGE, admit, counted};
use crate::sql::postgres::connection::{TRIES, failed};
use crate::sql::postgres::failed::unavailable;
use crate::sql::postgres::store::PgStore;
use crate::sql::postgres::{correspondents, locks};
use crate::sql::rows::{day, from_json, hex, optional, small, text, to_json, unreadable};
use crate::transition::registry::{OutboxState, Stored};

/// The mails that have the id or the key of a place, with the key's fingerprint; those with the id first.
pub(in crate::sql::postgres) const EXISTING: &str = "SELECT j.place - 1, m.id, NULL AS fingerprint
        FROM json_array_elements($1::json) WITH ORDINALITY j (value, place)
        JOIN postroom_queue_mail m ON m.id = (j.value ->> 0)::uuid
    UNION ALL
    SELECT j.place - 1, k.mail, k.fingerprint FROM json_array_elements($1::json) WITH ORDINALITY j (value, place)
        JOIN postroom_queue_key k ON k.contract = j.value ->> 1 AND k.idempotency_key = j.value ->> 2
    ORDER BY 1, 3 NULLS FIRST";

/// What each decision stands on. Its rows are locked against changes until the transaction ends, in the order in which everybody
/// locks them, so what is checked here is what stands when the mail is there.
pub(in crate::sql::postgres) const BASIS: &str = "WITH asked AS MATERIALIZED (
        SELECT j.place, j.value ->> 0 AS contract, j.value ->> 1 AS flow, j.value ->> 2 AS step, (j.value ->> 3)::bigint AS outbox
        FROM json_array_elements($1::json) WITH ORDINALITY j (value, place)
    ), outboxes AS MATERIALIZED (
        SELECT id, kind, status, revision FROM postroom_mailbox
        WHERE id = ANY(ARRAY(SELECT outbox FROM asked)) ORDER BY id FOR SHARE
    ), contracts AS MATERIALIZED (
        SELECT id, revision, queued_limit, per_day_limit FROM postroom_contract
        WHERE id = ANY(ARRAY(SELECT contract FROM asked)) ORDER BY id FOR SHARE
    ), steps AS MATERIALIZED (
        SELECT s.flow, s.step, s.revision FROM (SELECT DISTINCT flow, step FROM asked WHERE flow IS NOT NULL) a
        CROSS JOIN LATERAL (SELECT s.flow, s.step, s.revision FROM postroom_step s
            WHERE s.flow = a.flow AND s.step = a.step LIMIT 1 FOR SHARE) s
    ), standard AS MATERIALIZED (
        SELECT outbox FROM postroom_standard WHERE singleton = 1 FOR SHARE
    )
    SELECT c.revision, c.queued_limit, c.per_day_limit, s.revision, (SELECT outbox FROM standard),
        m.kind, m.status, m.revision
    FROM asked a
    LEFT JOIN contracts c ON c.id = a.contract
    LEFT JOIN outboxes m ON m.id = a.outbox
    LEFT JOIN steps s ON s.flow = a.flow AND s.step = a.step
    ORDER BY a.place";

/// Counts no further than the limit.
pub(in crate::sql::postgres) const QUEUED: &str =
    "SELECT count(*) FROM (SELECT 1 FROM postroom_queue_open WHERE contract = $1 LIMIT $2) queued";

pub(in crate::sql::postgres) const TODAY: &str =
    "SELECT coalesce(sum(submitted), 0)::bigint FROM postroom_queue_tally WHERE contract = $1 AND day = $2";

pub(in crate::sql::postgres) const SENT: &str = "SELECT m.id, m.contract, m.record, m.message_id
    FROM unnest($1::text[]) WITH ORDINALITY j (value, place) JOIN postroom_queue_mail m ON m.message_id = j.value
    ORDER BY j.place, m.id";

pub(in crate::sql::postgres) const SENT_TO: &str = "SELECT DISTINCT m.id, m.contract, m.record, m.message_id
    FROM postroom_queue_mail m JOIN postroom_queue_recipient r ON r.mail = m.id
    WHERE m.contract = $1 AND m.id > $2 AND lower(r.address) = $3 AND r.state IN ('accepted', 'bounced', 'in-doubt')
        AND $4::bigint >= (SELECT count(*) FROM (SELECT 1 FROM postroom_queue_mail n
            WHERE n.contract = $1 AND n.id > $2 LIMIT $4::bigint + 1) newer)
    LIMIT 2";

type Existing = (i64, Uuid, Option<String>);

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

/// What is stored around each mail.
async fn around(tx: &mut PgConnection, mails: &[(&Prepared, &Bytes)]) -> Result<Vec<Around>> {
    let mails = mails.iter().map(|(mail, _)| *mail);
    let key = |mail: &Prepared| mail.idempotency.as_ref().map(|(key, _)| key.as_str().to_owned());
    let sought: Vec<Value> =
        mails.clone().map(|mail| json!([hex(mail.id.uuid()), mail.contract, key(mail)])).collect();
    let found = sqlx::query_as(EXISTING).bind(to_json(&sought)?);
    let found: Vec<Existing> = found.fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
    let mut existing: BTreeMap<usize, (QueueId, Option<_>)> = BTreeMap::new();
    for (place, id, print) in found {
        let print = print.as_deref().map(from_json).transpose()?;
        // The row of the same id comes first.
        existing.entry(small(place)?).or_insert((QueueId::from_uuid(id), print));
    }
    let asked = mails.map(|mail| {
        let (flow, step) = mail.step.as_ref().map(|key| (key.flow.as_str(), key.step.as_str())).unzip();
        json!([mail.contract, flow, step, mail.resolution.outbox.number()])
    });
    let basis = basis(tx, &asked.collect::<Vec<_>>()).await?;
    let around = |(place, (stored, (queued_limit, per_day_limit)))| Around {
        existing: existing.remove(&place),
        stored,
        queued_limit,
        per_day_limit,
    };
    Ok(basis.into_iter().enumerate().map(around).collect())
}

/// The most queued mails, and the most mails a day, of a contract.
type Limits = (Option<u64>, Option<u64>);

/// What decisions stand on, each asked for as contract, flow, step, outbox; with the limits of the contract.
pub(super) async fn basis(tx: &mut PgConnection, asked: &[Value]) -> Result<Vec<(Stored, Limits)>> {
    let rows = sqlx::query_as(BASIS).bind(to_json(asked)?);
    let rows: Vec<Basis> = rows.fetch_all(tx).await.map_err(failed(STAGE))?;
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

/// What the contracts have that a limit bounds. Of such a contract one transaction at a time submits: those that come at the same
/// time see each other's mail.
async fn counts(
    tx: &mut PgConnection,
    now: Timestamp,
    mails: &[(&Prepared, &Bytes)],
    around: &[Around],
) -> Result<Counts> {
    let limited: BTreeMap<&ContractId, (Option<u64>, Option<u64>)> = mails
        .iter()
        .zip(around)
        .filter(|((mail, _), around)| {
            around.queued_limit.is_some() || around.per_day_limit.is_some() || mail.automatic.is_some()
        })
        .map(|((mail, _), around)| (&mail.contract, (around.queued_limit, around.per_day_limit)))
        .collect();
    let mut counts = Counts::default();
    for (contract, (queued_limit, per_day_limit)) in limited {
        locks::limits(tx, contract).await?;
        if let Some(most) = queued_limit {
            let most = i64::try_from(most).map_err(|_| unreadable())?;
            let query = sqlx::query_as(QUEUED).bind(contract.as_str()).bind(most);
            let (queued,): (i64,) = query.fetch_one(&mut *tx).await.map_err(failed(STAGE))?;
            counts.queued.insert(contract.clone(), small(queued)?);
        }
        if per_day_limit.is_some() {
            let query = sqlx::query_as(TODAY).bind(contract.as_str()).bind(day(now));
            let (today,): (i64,) = query.fetch_one(&mut *tx).await.map_err(failed(STAGE))?;
            counts.today.insert(contract.clone(), small(today)?);
        }
    }
    counts.answers = correspondents::answers(tx, now, &counted(mails.iter().map(|(mail, _)| *mail))).await?;
    Ok(counts)
}

/// Puts mails into the queue, within a transaction, and answers each. What it writes, it writes in one statement, the last one of a
/// round; there is another for mails whose idempotency key was taken in this moment.
pub(super) async fn put_all(
    tx: &mut PgConnection,
    now: Timestamp,
    mails: &[(&Prepared, &Bytes)],
) -> Result<Vec<Result<Enqueued>>> {
    let contracts: BTreeSet<String> =
        mails.iter().map(|(mail, _)| mail.contract.as_str().to_owned()).collect();
    // Before anything is read: a contract that is paused meanwhile is seen as paused.
    locks::unswitched(tx, contracts).await?;
    let mut answers: Vec<Option<Result<Enqueued>>> = mails.iter().map(|_| None).collect();
    for _ in 0..TRIES {
        let left: Vec<usize> =
            (0..mails.len()).filter(|place| answers.get(*place).is_some_and(Option::is_none)).collect();
        if left.is_empty() {
            break;
        }
        let round: Vec<_> = left.iter().filter_map(|place| mails.get(*place)).copied().collect();
        let around = around(tx, &round).await?;
        let counts = counts(tx, now, &round, &around).await?;
        let decided = admit(round.iter().map(|(mail, _)| *mail).zip(around), counts, now);
        let new = round.iter().zip(&decided).filter(|(_, answer)| matches!(answer, Ok(Enqueued::New(_))));
        let new: Vec<_> = new.map(|(mail, _)| *mail).collect();
        correspondents::add(tx, now, &counted(new.iter().map(|(mail, _)| *mail))).await?;
        let inserted = if new.is_empty() { BTreeSet::new() } else { insert(tx, now, &new).await? };
        // Whoever took a key has committed: his mail is seen by the next round. What was to follow its twin goes there, too.
        let is_settled = |answer: &Result<Enqueued>| match answer {
            Ok(Enqueued::New(id)) => inserted.contains(id),
            Ok(Enqueued::Existing(id)) => inserted.contains(id) || new.iter().all(|(mail, _)| mail.id != *id),
            Err(_) => true,
        };
        for (place, answer) in left.into_iter().zip(decided) {
            if is_settled(&answer)
                && let Some(slot) = answers.get_mut(place)
            {
                *slot = Some(answer);
            }
        }
    }
    Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(unavailable(STAGE)))).collect())
}

/// Puts one mail into the queue.
pub(super) async fn put(
    tx: &mut PgConnection,
    now: Timestamp,
    mail: &Prepared,
    content: &Bytes,
) -> Result<Enqueued> {
    put_all(tx, now, &[(mail, content)]).await?.pop().ok_or_else(unreadable)?
}

/// Whether the same mail was submitted twice at the same time, so that it is there when it is looked for again.
pub(super) fn is_repeated<T>(done: &Result<T>) -> bool {
    done.as_ref().is_err_and(|error| error.kind() == &ErrorKind::Conflict)
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
impl QueueIntake for PgStore {
    async fn enqueue(&self, now: Timestamp, mail: &Prepared, content: Bytes) -> Result<Enqueued> {
        let done = self.intake.enqueue(now, mail, content.clone()).await;
        if is_repeated(&done) { self.intake.enqueue(now, mail, content).await } else { done }
    }

    async fn sent_by_message_id(&self, message_ids: &[String]) -> Result<Vec<SentMail>> {
        const STAGE: &str = "find sent mails";
        let mut read = self.connections.read(STAGE).await?;
        let rows = sqlx::query_as(SENT)
            .bind(message_ids.to_vec())
            .fetch_all(&mut *read)
            .await
            .map_err(failed(STAGE));
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
