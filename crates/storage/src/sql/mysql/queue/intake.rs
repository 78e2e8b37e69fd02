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
use sqlx::mysql::MySqlConnection;
use uuid::Uuid;

use super::insert::insert;
use crate::error::{ErrorKind, Result};
use crate::queue::{Enqueued, LOOKED_AT, QueueIntake, SentMail};
use crate::sql::admit::{Around, Counts, STAGE, admit, counted};
use crate::sql::mysql::connection::{TRIES, failed};
use crate::sql::mysql::json::json_rows;
use crate::sql::mysql::store::MySqlStore;
use crate::sql::mysql::{correspondents, locks};
use crate::sql::rows::{day, from_json, hex, optional, small, text, to_json, unreadable};
use crate::transition::registry::{OutboxState, Stored};

/// The mails that have the id of a place.
pub(in crate::sql::mysql) const EXISTING: &str = concat!(
    "SELECT CAST(j.place AS SIGNED) - 1 FROM ",
    json_rows!("?"; mail id "[0]"),
    " j STRAIGHT_JOIN postroom_queue_mail m FORCE INDEX (PRIMARY) ON m.id = UNHEX(j.mail)"
);

/// The mails that have the key of a place, with its fingerprint.
pub(in crate::sql::mysql) const KEYED: &str = concat!(
    "SELECT CAST(j.place AS SIGNED) - 1, k.mail, k.fingerprint FROM ",
    json_rows!("?"; contract key "[1]", given key "[2]"),
    " j STRAIGHT_JOIN postroom_queue_key k FORCE INDEX (PRIMARY)
        ON k.contract = j.contract AND k.idempotency_key = j.given"
);

/// What each decision stands on. Its rows are locked against changes until the transaction ends, in the order in which everybody
/// locks them, so what is checked here is what stands when the mail is there.
pub(in crate::sql::mysql) const BASIS: &str = concat!(
    "SELECT STRAIGHT_JOIN c.revision, c.queued_limit, c.per_day_limit, s.revision, m.kind, m.status, m.revision FROM ",
    json_rows!("?"; contract key "[0]", flow key "[1]", step key "[2]", outbox number "[3]"),
    " j LEFT JOIN postroom_mailbox m FORCE INDEX (PRIMARY) ON m.id = j.outbox
    LEFT JOIN postroom_contract c FORCE INDEX (PRIMARY) ON c.id = j.contract
    LEFT JOIN postroom_step s FORCE INDEX (PRIMARY) ON s.flow = j.flow AND s.step = j.step
    ORDER BY j.place LOCK IN SHARE MODE"
);

/// The last of what decisions stand on.
const STANDARD: &str = "SELECT outbox FROM postroom_standard WHERE singleton = 1 LOCK IN SHARE MODE";

/// Counts no further than the limit.
pub(in crate::sql::mysql) const QUEUED: &str =
    "SELECT COUNT(*) FROM (SELECT 1 FROM postroom_queue_open FORCE INDEX (postroom_queue_open_contract)
        WHERE contract = ? LIMIT ?) queued";

pub(in crate::sql::mysql) const TODAY: &str = "SELECT CAST(COALESCE(SUM(submitted), 0) AS SIGNED) FROM postroom_queue_tally WHERE contract = ? AND day = ?";

/// The index has the beginning of a long one.
pub(in crate::sql::mysql) const SENT: &str = concat!(
    "SELECT m.id, m.contract, m.record, m.message_id FROM ",
    json_rows!("?"; sought text ""),
    " j STRAIGHT_JOIN postroom_queue_mail m FORCE INDEX (postroom_queue_mail_message_id) ON m.message_id = j.sought
    ORDER BY j.place, m.id"
);

/// The parameters are the contract, the mail before, the recipient, how many mails are looked at, and the first two again, with one more than that.
pub(in crate::sql::mysql) const SENT_TO: &str = "SELECT DISTINCT m.id, m.contract, m.record, m.message_id
    FROM postroom_queue_mail m FORCE INDEX (postroom_queue_mail_contract)
        STRAIGHT_JOIN postroom_queue_recipient r FORCE INDEX (PRIMARY) ON r.mail = m.id
    WHERE m.contract = ? AND m.id > ? AND LOWER(r.address) = ? AND r.state IN ('accepted', 'bounced', 'in-doubt')
        AND ? >= (SELECT COUNT(*) FROM (SELECT 1 FROM postroom_queue_mail n FORCE INDEX (postroom_queue_mail_contract)
            WHERE n.contract = ? AND n.id > ? LIMIT ?) newer)
    LIMIT 2";

type Basis =
    (Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<String>, Option<String>, Option<i64>);

/// What is stored around each mail.
async fn around(tx: &mut MySqlConnection, mails: &[&Prepared]) -> Result<Vec<Around>> {
    let key = |mail: &Prepared| mail.idempotency.as_ref().map(|(key, _)| key.as_str().to_owned());
    let sought = |mail: &&Prepared| json!([hex(mail.id.uuid()), mail.contract, key(mail)]);
    let sought = to_json(&mails.iter().map(sought).collect::<Vec<_>>())?;
    let found = sqlx::query_as(EXISTING).bind(&sought).fetch_all(&mut *tx).await;
    let found: Vec<(i64,)> = found.map_err(failed(STAGE))?;
    let mut existing: BTreeMap<usize, (QueueId, Option<_>)> = BTreeMap::new();
    for (place,) in found {
        let place: usize = small(place)?;
        existing.insert(place, (mails.get(place).ok_or_else(unreadable)?.id, None));
    }
    if mails.iter().any(|mail| mail.idempotency.is_some()) {
        let found = sqlx::query_as(KEYED).bind(&sought).fetch_all(&mut *tx).await;
        let found: Vec<(i64, Uuid, String)> = found.map_err(failed(STAGE))?;
        for (place, id, print) in found {
            // The row of the same id goes first.
            existing.entry(small(place)?).or_insert((QueueId::from_uuid(id), Some(from_json(&print)?)));
        }
    }
    let asked = mails.iter().map(|mail| {
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
pub(super) async fn basis(tx: &mut MySqlConnection, asked: &[Value]) -> Result<Vec<(Stored, Limits)>> {
    let rows = sqlx::query_as(BASIS).bind(to_json(asked)?);
    let rows: Vec<Basis> = rows.fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
    let standard = sqlx::query_as(STANDARD).fetch_one(tx).await;
    let (standard,): (Option<i64>,) = standard.map_err(failed(STAGE))?;
    let basis = |basis: Basis| {
        let (contract, queued_limit, per_day_limit, step, kind, status, revision) = basis;
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
    tx: &mut MySqlConnection,
    now: Timestamp,
    mails: &[&Prepared],
    around: &[Around],
) -> Result<Counts> {
    let limited: BTreeMap<&ContractId, (Option<u64>, Option<u64>)> = mails
        .iter()
        .zip(around)
        .filter(|(mail, around)| {
            around.queued_limit.is_some() || around.per_day_limit.is_some() || mail.automatic.is_some()
        })
        .map(|(mail, around)| (&mail.contract, (around.queued_limit, around.per_day_limit)))
        .collect();
    let mut counts = Counts::default();
    locks::limits(tx, limited.keys().copied()).await?;
    for (contract, (queued_limit, per_day_limit)) in limited {
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
    counts.answers = correspondents::answers(tx, now, &counted(mails.iter().copied())).await?;
    Ok(counts)
}

/// Decides on mails, within a transaction that has what they are decided by to itself until it ends.
pub(super) async fn decide(
    tx: &mut MySqlConnection,
    now: Timestamp,
    mails: &[&Prepared],
) -> Result<Vec<Result<Enqueued>>> {
    let contracts: BTreeSet<String> = mails.iter().map(|mail| mail.contract.as_str().to_owned()).collect();
    // Before anything is read: a contract that is paused meanwhile is seen as paused.
    locks::unswitched(tx, contracts).await?;
    let around = around(tx, mails).await?;
    let counts = counts(tx, now, mails, &around).await?;
    let decided = admit(mails.iter().copied().zip(around), counts, now);
    let new = mails.iter().zip(&decided).filter(|(_, answer)| matches!(answer, Ok(Enqueued::New(_))));
    let new = counted(new.map(|(mail, _)| *mail));
    correspondents::add(tx, now, &new).await?;
    Ok(decided)
}

/// Puts mails into the queue, within a transaction, and answers each.
///
/// # Errors
/// [`ErrorKind::Conflict`] when one of them, or its idempotency key, was inserted meanwhile: it is there when it is looked for again.
pub(super) async fn put_all(
    tx: &mut MySqlConnection,
    now: Timestamp,
    mails: &[(&Prepared, &Bytes)],
) -> Result<Vec<Result<Enqueued>>> {
    let prepared: Vec<&Prepared> = mails.iter().map(|(mail, _)| *mail).collect();
    let decided = decide(tx, now, &prepared).await?;
    let new = mails.iter().zip(&decided).filter(|(_, answer)| matches!(answer, Ok(Enqueued::New(_))));
    let new: Vec<_> = new.map(|(mail, _)| *mail).collect();
    if !new.is_empty() {
        insert(tx, now, &new).await?;
    }
    Ok(decided)
}

/// Whether the same mail or key was submitted twice at the same time, so that it is there when it is looked for again.
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
impl QueueIntake for MySqlStore {
    async fn enqueue(&self, now: Timestamp, mail: &Prepared, content: Bytes) -> Result<Enqueued> {
        let mut done = self.intake.enqueue(now, mail, content.clone()).await;
        for _ in 0..TRIES {
            if !is_repeated(&done) {
                return done;
            }
            done = self.intake.enqueue(now, mail, content.clone()).await;
        }
        done
    }

    async fn sent_by_message_id(&self, message_ids: &[String]) -> Result<Vec<SentMail>> {
        const STAGE: &str = "find sent mails";
        let mut read = self.connections.read(STAGE).await?;
        let rows = sqlx::query_as(SENT)
            .bind(to_json(message_ids)?)
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
            .bind(i64::from(LOOKED_AT))
            .bind(contract.as_str())
            .bind(since)
            .bind(i64::from(LOOKED_AT) + 1);
        let rows = query.fetch_all(&mut *read).await.map_err(failed(STAGE));
        read.finish(rows).await?.into_iter().map(sent).collect()
    }
}
