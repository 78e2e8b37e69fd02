//! People's desk at the ledger: lists, one mail with its timeline, replay and routing.

use async_trait::async_trait;
use postroom_core::id::{Actor, ContractId, LedgerId, MailboxId};
use postroom_core::ledger::State;
use postroom_core::time::Timestamp;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::retention::prune_in;
use super::row::{Mail, columns, load, save};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::{LedgerDesk, LedgerEntry, LedgerItem, LedgerPruned, LedgerQuery, LedgerRecord};
use crate::sql::postgres::connection::{failed, write};
use crate::sql::postgres::store::PgStore;
use crate::sql::rows::{optional, page, time};
use crate::transition::ledger::LedgerRow;

macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT ", columns!(), "FROM postroom_ledger_mail m ", $rest)
    };
}

pub(in crate::sql::postgres) const ONE: &str = select!("WHERE m.id = $1");

/// By what is asked for: all, in a state, of a mailbox, both. `$1` is the mail that the page starts behind, `$2` the length,
/// `$3` the state, `$4` the mailbox.
pub(in crate::sql::postgres) const LISTS: [&str; 4] = [
    select!("WHERE m.id > $1 ORDER BY m.id LIMIT $2"),
    select!("WHERE m.state = $3 AND m.id > $1 ORDER BY m.id LIMIT $2"),
    select!("WHERE m.mailbox = $4 AND m.id > $1 ORDER BY m.id LIMIT $2"),
    select!("WHERE m.state = $3 AND m.mailbox = $4 AND m.id > $1 ORDER BY m.id LIMIT $2"),
];

pub(in crate::sql::postgres) const TIMELINE: &str = "SELECT at, what, state, detail, actor
    FROM postroom_event WHERE mail = $1 AND noun = 'ledger' ORDER BY number";

async fn show_in(connection: &mut PgConnection, id: LedgerId) -> Result<Option<LedgerRecord>> {
    const STAGE: &str = "show a received mail";
    type Entry = (i64, String, Option<String>, String, Option<String>);
    let row =
        sqlx::query(ONE).bind(id.uuid()).fetch_optional(&mut *connection).await.map_err(failed(STAGE))?;
    let Some(row) = row else { return Ok(None) };
    let Mail { item, attempts, body, is_skipped, .. } = Mail::read(&row)?;
    let rows = sqlx::query_as(TIMELINE).bind(id.uuid()).fetch_all(connection).await.map_err(failed(STAGE))?;
    let entry = |(at, what, state, detail, actor): Entry| {
        let (state, actor) = (optional(state)?, optional(actor)?);
        Ok(LedgerEntry { at: time(at), what, state, detail, actor })
    };
    let mut timeline = rows.into_iter().map(entry).collect::<Result<Vec<_>>>()?;
    if is_skipped {
        // A baseline may leave out a million mails: all that happened to each stands in its row.
        let (what, state, detail) = ("stored".to_owned(), Some(State::Ignored), item.reasons.join(", "));
        timeline.insert(0, LedgerEntry { at: item.stored_at, what, state, detail, actor: None });
    }
    Ok(Some(LedgerRecord { item, attempts, timeline, body }))
}

async fn decide(
    tx: &mut PgConnection,
    id: LedgerId,
    stage: &'static str,
    decide: impl FnOnce(&mut LedgerRow) -> Result<LedgerEntry> + Send,
) -> Result<()> {
    let mut edit = load(tx, [id]).await?.pop().ok_or_else(|| Error::new(ErrorKind::NotFound, stage))?;
    let entry = decide(&mut edit.row)?;
    save(tx, &edit, [entry]).await
}

#[async_trait]
impl LedgerDesk for PgStore {
    async fn list(&self, query: &LedgerQuery) -> Result<Vec<LedgerItem>> {
        const STAGE: &str = "list received mails";
        let [all, in_state, of_mailbox, in_state_of_mailbox] = LISTS;
        let sql = match (query.state, query.mailbox) {
            (None, None) => all,
            (Some(_), None) => in_state,
            (None, Some(_)) => of_mailbox,
            (Some(_), Some(_)) => in_state_of_mailbox,
        };
        let mut read = self.connections.read(STAGE).await?;
        let rows = sqlx::query(sql)
            .bind(query.after.map_or(Uuid::nil(), LedgerId::uuid))
            .bind(page(query.limit))
            .bind(query.state.map(State::word))
            .bind(query.mailbox.map(MailboxId::number))
            .fetch_all(&mut *read)
            .await
            .map_err(failed(STAGE));
        let rows: Vec<PgRow> = read.finish(rows).await?;
        rows.iter().map(|row| Mail::read(row).map(|mail| mail.item)).collect()
    }

    async fn show(&self, id: LedgerId) -> Result<Option<LedgerRecord>> {
        let mut read = self.connections.snapshot("show a received mail").await?;
        let record = show_in(&mut read, id).await;
        read.finish(record).await
    }

    async fn replay(&self, now: Timestamp, actor: &Actor, id: LedgerId) -> Result<()> {
        const STAGE: &str = "replay a received mail";
        write!(self.connections, STAGE, |tx| decide(tx, id, STAGE, |row| row.replay(now, actor)).await)
    }

    async fn route(&self, now: Timestamp, actor: &Actor, id: LedgerId, contract: &ContractId) -> Result<()> {
        const STAGE: &str = "route a received mail";
        write!(self.connections, STAGE, |tx| decide(tx, id, STAGE, |row| row.route(now, actor, contract))
            .await)
    }

    async fn ignore(&self, now: Timestamp, actor: &Actor, id: LedgerId) -> Result<()> {
        const STAGE: &str = "ignore a received mail";
        write!(self.connections, STAGE, |tx| decide(tx, id, STAGE, |row| row.ignore(now, actor)).await)
    }

    async fn prune(&self, now: Timestamp, limit: u32) -> Result<LedgerPruned> {
        write!(self.connections, "prune the ledger", |tx| prune_in(tx, now, limit).await)
    }
}
