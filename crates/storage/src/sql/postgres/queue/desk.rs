//! People's desk at the queue: lists, one mail with its timeline, decisions.

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::id::{Actor, BodyId, ClaimId, ContractId, LedgerId, MailboxId, QueueId};
use postroom_core::queue::{Event, Recipient, State};
use postroom_core::time::Timestamp;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::doubt::{doubts_in, prove_in, recover_in};
use super::reroute::reroute_in;
use super::retention::prune_in;
use super::row::{load, save};
use crate::error::{Error, ErrorKind, Result};
use crate::queue::{
    Doubt, Pruned, QueueDesk, QueueItem, QueueQuery, QueueRecord, RecipientState, Recovered, Rerouting,
    TimelineEntry,
};
use crate::sql::postgres::connection::{failed, write};
use crate::sql::postgres::links;
use crate::sql::postgres::store::PgStore;
use crate::sql::rows::{from_json, optional, page, small, text, time};
use crate::transition::queue::CONTENT_GONE;

type Columns = (
    Uuid,
    String,
    String,
    Option<String>,
    Option<String>,
    i64,
    String,
    String,
    String,
    String,
    Option<String>,
    Option<Uuid>,
    i64,
    i64,
    Option<i64>,
    i64,
);

macro_rules! select {
    ($from:literal) => {
        concat!(
            "SELECT m.id, coalesce(o.state, m.state), m.contract, m.flow, m.step, m.outbox, m.sender, m.reasons,
                m.subject, m.message_id, m.record, m.in_reply_to, coalesce(o.attempts, m.attempts), m.created_at,
                CASE WHEN o.claim IS NULL AND o.state = 'queued' THEN o.due_at END,
                coalesce(o.expires_at, m.expires_at) ",
            $from
        )
    };
}

pub(in crate::sql::postgres) const ONE: &str =
    select!("FROM postroom_queue_mail m LEFT JOIN postroom_queue_open o ON o.mail = m.id WHERE m.id = $1");

/// By what is asked for: all, of a contract, unfinished in a state, finished in a state, the latter two of a contract, and
/// what waits for a person. `$1` is the mail that the page starts behind, `$2` the length, `$3` the state, `$4` the contract.
pub(in crate::sql::postgres) const LISTS: [&str; 8] = [
    select!(
        "FROM postroom_queue_mail m LEFT JOIN postroom_queue_open o ON o.mail = m.id
        WHERE m.id > $1 ORDER BY m.id LIMIT $2"
    ),
    select!(
        "FROM postroom_queue_mail m LEFT JOIN postroom_queue_open o ON o.mail = m.id
        WHERE m.contract = $4 AND m.id > $1 ORDER BY m.id LIMIT $2"
    ),
    select!(
        "FROM postroom_queue_open o JOIN postroom_queue_mail m ON m.id = o.mail
        WHERE o.state = $3 AND o.mail > $1 ORDER BY o.mail LIMIT $2"
    ),
    select!(
        "FROM postroom_queue_mail m LEFT JOIN postroom_queue_open o ON o.mail = m.id
        WHERE m.state = $3 AND m.id > $1 ORDER BY m.id LIMIT $2"
    ),
    select!(
        "FROM postroom_queue_open o JOIN postroom_queue_mail m ON m.id = o.mail
        WHERE o.contract = $4 AND o.state = $3 AND o.mail > $1 ORDER BY o.mail LIMIT $2"
    ),
    select!(
        "FROM postroom_queue_mail m LEFT JOIN postroom_queue_open o ON o.mail = m.id
        WHERE m.contract = $4 AND m.state = $3 AND m.id > $1 ORDER BY m.id LIMIT $2"
    ),
    select!(
        "FROM postroom_queue_open o JOIN postroom_queue_mail m ON m.id = o.mail
        WHERE o.state = 'held' AND o.mail > $1 ORDER BY o.mail LIMIT $2"
    ),
    select!(
        "FROM postroom_queue_open o JOIN postroom_queue_mail m ON m.id = o.mail
        WHERE o.state = 'in-doubt' AND o.mail > $1 ORDER BY o.mail LIMIT $2"
    ),
];

const RECIPIENTS: &str =
    "SELECT address, role, state FROM postroom_queue_recipient WHERE mail = $1 ORDER BY place";

pub(in crate::sql::postgres) const TIMELINE: &str = "SELECT at, recipient, what, state, detail, actor
    FROM postroom_event WHERE mail = $1 AND noun = 'queue' ORDER BY number";

fn item(columns: Columns) -> Result<QueueItem> {
    let (
        id,
        state,
        contract,
        flow,
        step,
        outbox,
        sender,
        reasons,
        subject,
        message_id,
        record,
        answers,
        attempts,
        created_at,
        due_at,
        expires_at,
    ) = columns;
    Ok(QueueItem {
        id: QueueId::from_uuid(id),
        state: text(&state)?,
        contract: text(&contract)?,
        step: flow.zip(step).map(|(flow, step)| links::key(&flow, &step)).transpose()?,
        outbox: MailboxId::new(outbox),
        sender: text(&sender)?,
        reasons: from_json(&reasons)?,
        subject,
        message_id,
        record: optional(record)?,
        in_reply_to: answers.map(LedgerId::from_uuid),
        attempts: small(attempts)?,
        created_at: time(created_at),
        due_at: due_at.map(time),
        expires_at: time(expires_at),
    })
}

async fn show_in(connection: &mut PgConnection, id: QueueId) -> Result<Option<QueueRecord>> {
    const STAGE: &str = "show a mail";
    type Entry = (i64, Option<i64>, String, Option<String>, String, Option<String>);
    let one = sqlx::query_as(ONE).bind(id.uuid()).fetch_optional(&mut *connection).await;
    let Some(columns) = one.map_err(failed(STAGE))? else { return Ok(None) };
    let recipients = sqlx::query_as(RECIPIENTS).bind(id.uuid()).fetch_all(&mut *connection).await;
    let recipients: Vec<(String, String, String)> = recipients.map_err(failed(STAGE))?;
    let timeline = sqlx::query_as(TIMELINE).bind(id.uuid()).fetch_all(&mut *connection).await;
    let timeline: Vec<Entry> = timeline.map_err(failed(STAGE))?;
    let body = sqlx::query_as("SELECT body, raw FROM postroom_queue_mail WHERE id = $1").bind(id.uuid());
    let (body, raw): (Option<Uuid>, bool) = body.fetch_one(connection).await.map_err(failed(STAGE))?;
    let recipient = |(address, role, state): (String, String, String)| {
        let recipient = Recipient::new(text(&address)?, text(&role)?);
        Ok(RecipientState { recipient, state: text(&state)? })
    };
    let entry = |(at, recipient, what, state, detail, actor): Entry| {
        let recipient = recipient.map(small).transpose()?;
        let (state, actor) = (optional(state)?, optional(actor)?);
        Ok(TimelineEntry { at: time(at), recipient, what, state, detail, actor })
    };
    Ok(Some(QueueRecord {
        item: item(columns)?,
        recipients: recipients.into_iter().map(recipient).collect::<Result<_>>()?,
        timeline: timeline.into_iter().map(entry).collect::<Result<_>>()?,
        raw,
        body: body.map(BodyId::from_uuid),
    }))
}

/// Whether a mail can be sent again: retention may have removed its content.
async fn has_content(tx: &mut PgConnection, id: QueueId) -> Result<bool> {
    let sql = "SELECT body IS NOT NULL FROM postroom_queue_mail WHERE id = $1";
    let row = sqlx::query_as(sql).bind(id.uuid()).fetch_one(tx).await.map_err(failed("decide on a mail"));
    row.map(|(has,): (bool,)| has)
}

#[async_trait]
impl QueueDesk for PgStore {
    async fn list(&self, query: &QueueQuery) -> Result<Vec<QueueItem>> {
        const STAGE: &str = "list mails";
        let [all, of_contract, open, finished, open_of_contract, finished_of_contract, held, doubt] = LISTS;
        let sql = match (query.state.map(State::is_final), &query.contract) {
            (None, None) => all,
            (None, Some(_)) => of_contract,
            (Some(false), None) if query.state == Some(State::Held) => held,
            (Some(false), None) if query.state == Some(State::InDoubt) => doubt,
            (Some(false), None) => open,
            (Some(true), None) => finished,
            (Some(false), Some(_)) => open_of_contract,
            (Some(true), Some(_)) => finished_of_contract,
        };
        let mut read = self.connections.read(STAGE).await?;
        let rows = sqlx::query_as(sql)
            .bind(query.after.map_or(Uuid::nil(), QueueId::uuid))
            .bind(page(query.limit))
            .bind(query.state.map(State::word))
            .bind(query.contract.as_ref().map(ContractId::as_str))
            .fetch_all(&mut *read)
            .await
            .map_err(failed(STAGE));
        let rows: Vec<Columns> = read.finish(rows).await?;
        rows.into_iter().map(item).collect()
    }

    async fn show(&self, id: QueueId) -> Result<Option<QueueRecord>> {
        let mut read = self.connections.snapshot("show a mail").await?;
        let record = show_in(&mut read, id).await;
        read.finish(record).await
    }

    async fn decide(&self, now: Timestamp, actor: &Actor, id: QueueId, event: Event) -> Result<()> {
        const STAGE: &str = "decide on a mail";
        write!(self.connections, STAGE, |tx| {
            let mut edits = load(&mut *tx, [id]).await?;
            let edit = edits.get_mut(&id).ok_or_else(|| Error::new(ErrorKind::NotFound, STAGE))?;
            let entries = edit.row.decide(now, actor, event)?;
            if event == Event::Retry && !has_content(&mut *tx, id).await? {
                return Err(Error::new(ErrorKind::NotPossible { state: CONTENT_GONE }, STAGE));
            }
            edit.note(entries);
            save(&mut *tx, edits.into_values()).await
        })
    }
    async fn reroute(
        &self,
        now: Timestamp,
        actor: &Actor,
        rerouting: &Rerouting,
        content: Bytes,
    ) -> Result<()> {
        write!(self.connections, "reroute a mail", |tx| {
            reroute_in(tx, now, actor, rerouting, &content).await
        })
    }
    async fn prune(&self, now: Timestamp, limit: u32) -> Result<Pruned> {
        write!(self.connections, "prune the queue", |tx| prune_in(tx, now, limit).await)
    }

    async fn recover(&self, now: Timestamp, actor: &Actor, since: Timestamp) -> Result<Recovered> {
        let (mut total, mut after) = (Recovered::default(), None);
        loop {
            let (counts, last) = write!(self.connections, "recover the queue", |tx| {
                let mut counts = total;
                let last = recover_in(tx, now, actor, since, after, &mut counts).await?;
                Ok((counts, last))
            })?;
            (total, after) = (counts, last);
            if after.is_none() {
                return Ok(total);
            }
        }
    }

    async fn doubts<'a>(&self, after: Option<&'a QueueId>, limit: u32) -> Result<Vec<Doubt>> {
        // It locks what it reads: no transaction that only reads can do that.
        write!(self.connections, "list mails in doubt", |tx| doubts_in(tx, after.copied(), limit).await)
    }

    async fn prove(&self, now: Timestamp, id: QueueId, claim: ClaimId, detail: &str) -> Result<bool> {
        write!(self.connections, "prove a mail in doubt", |tx| prove_in(tx, now, id, claim, detail).await)
    }
}
