//! People's desk at the queue: lists, one mail with its timeline, decisions.

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::id::{Actor, BodyId, ClaimId, LedgerId, MailboxId, QueueId};
use postroom_core::queue::{Event, Recipient, State};
use postroom_core::time::Timestamp;
use sqlx::mysql::MySqlConnection;
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
use crate::sql::mysql::connection::{failed, write};
use crate::sql::mysql::links;
use crate::sql::mysql::store::MySqlStore;
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

macro_rules! columns {
    () => {
            "m.id, COALESCE(o.state, m.state), m.contract, m.flow, m.step, m.outbox, m.sender, m.reasons,
                m.subject, m.message_id, m.record, m.in_reply_to, COALESCE(o.attempts, m.attempts), m.created_at,
                CASE WHEN o.claim IS NULL AND o.state = 'queued' THEN o.due_at END,
                COALESCE(o.expires_at, m.expires_at) "
    };
}

pub(in crate::sql::mysql) const ONE: &str = concat!(
    "SELECT ",
    columns!(),
    "FROM postroom_queue_mail m LEFT JOIN postroom_queue_open o ON o.mail = m.id WHERE m.id = ?"
);

macro_rules! all {
    ($index:literal, $where:literal) => {
        concat!(
            "SELECT STRAIGHT_JOIN ",
            columns!(),
            "FROM postroom_queue_mail m FORCE INDEX (",
            $index,
            ") LEFT JOIN postroom_queue_open o FORCE INDEX (PRIMARY) ON o.mail = m.id WHERE ",
            $where,
            " m.id > ? ORDER BY m.id LIMIT ?"
        )
    };
}

macro_rules! unfinished {
    ($index:literal, $where:literal) => {
        concat!(
            "SELECT STRAIGHT_JOIN ",
            columns!(),
            "FROM postroom_queue_open o FORCE INDEX (",
            $index,
            ") JOIN postroom_queue_mail m FORCE INDEX (PRIMARY) ON m.id = o.mail WHERE ",
            $where,
            " o.mail > ? ORDER BY o.mail LIMIT ?"
        )
    };
}

/// By what is asked for: all, of a contract, unfinished in a state, finished in a state, the latter two of a contract. The parameters
/// are the contract, the state, the mail that the page starts behind, the length.
pub(in crate::sql::mysql) const LISTS: [&str; 6] = [
    all!("PRIMARY", ""),
    all!("postroom_queue_mail_contract", "m.contract = ? AND"),
    unfinished!("postroom_queue_open_state", "o.state = ? AND"),
    all!("postroom_queue_mail_state", "m.state = ? AND"),
    unfinished!("postroom_queue_open_contract", "o.contract = ? AND o.state = ? AND"),
    all!("postroom_queue_mail_contract", "m.contract = ? AND m.state = ? AND"),
];

const RECIPIENTS: &str =
    "SELECT address, role, state FROM postroom_queue_recipient WHERE mail = ? ORDER BY place";

pub(in crate::sql::mysql) const TIMELINE: &str = "SELECT at, recipient, what, state, detail, actor
    FROM postroom_event WHERE mail = ? AND noun = 'queue' ORDER BY place";

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

async fn show_in(connection: &mut MySqlConnection, id: QueueId) -> Result<Option<QueueRecord>> {
    const STAGE: &str = "show a mail";
    type Entry = (i64, Option<i64>, String, Option<String>, String, Option<String>);
    let one = sqlx::query_as(ONE).bind(id.uuid()).fetch_optional(&mut *connection).await;
    let Some(columns) = one.map_err(failed(STAGE))? else { return Ok(None) };
    let recipients = sqlx::query_as(RECIPIENTS).bind(id.uuid()).fetch_all(&mut *connection).await;
    let recipients: Vec<(String, String, String)> = recipients.map_err(failed(STAGE))?;
    let timeline = sqlx::query_as(TIMELINE).bind(id.uuid()).fetch_all(&mut *connection).await;
    let timeline: Vec<Entry> = timeline.map_err(failed(STAGE))?;
    let body = sqlx::query_as("SELECT body, raw FROM postroom_queue_mail WHERE id = ?").bind(id.uuid());
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
async fn has_content(tx: &mut MySqlConnection, id: QueueId) -> Result<bool> {
    let sql = "SELECT body IS NOT NULL FROM postroom_queue_mail WHERE id = ?";
    let row = sqlx::query_as(sql).bind(id.uuid()).fetch_one(tx).await.map_err(failed("decide on a mail"));
    row.map(|(has,): (bool,)| has)
}

#[async_trait]
impl QueueDesk for MySqlStore {
    async fn list(&self, query: &QueueQuery) -> Result<Vec<QueueItem>> {
        const STAGE: &str = "list mails";
        let [all, of_contract, open, finished, open_of_contract, finished_of_contract] = LISTS;
        let sql = match (query.state.map(State::is_final), &query.contract) {
            (None, None) => all,
            (None, Some(_)) => of_contract,
            (Some(false), None) => open,
            (Some(true), None) => finished,
            (Some(false), Some(_)) => open_of_contract,
            (Some(true), Some(_)) => finished_of_contract,
        };
        let mut read = self.connections.read(STAGE).await?;
        let mut rows = sqlx::query_as(sql);
        if let Some(contract) = &query.contract {
            rows = rows.bind(contract.as_str());
        }
        if let Some(state) = query.state {
            rows = rows.bind(state.word());
        }
        let rows = rows
            .bind(query.after.map_or(Uuid::nil(), QueueId::uuid))
            .bind(page(query.limit))
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
