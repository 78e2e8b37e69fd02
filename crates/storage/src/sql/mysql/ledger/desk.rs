//! People's desk at the ledger: lists, one mail with its timeline, replay and routing.

use async_trait::async_trait;
use postroom_core::id::{Actor, ContractId, LedgerId};
use postroom_core::ledger::State;
use postroom_core::time::Timestamp;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use uuid::Uuid;

use super::retention::prune_in;
use super::row::{Mail, columns, load, save};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::{LedgerDesk, LedgerEntry, LedgerItem, LedgerPruned, LedgerQuery, LedgerRecord};
use crate::sql::mysql::connection::{failed, write};
use crate::sql::mysql::store::MySqlStore;
use crate::sql::rows::{optional, page, time};
use crate::transition::ledger::LedgerRow;

macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT ", columns!(), "FROM postroom_ledger_mail m ", $rest)
    };
}

pub(in crate::sql::mysql) const ONE: &str = select!("WHERE m.id = ?");

/// By what is asked for: all, in a state, of a mailbox, both. The parameters are the mailbox, the state, the mail that the page starts
/// behind, the length.
pub(in crate::sql::mysql) const LISTS: [&str; 4] = [
    select!("FORCE INDEX (postroom_ledger_mail_id) WHERE m.id > ? ORDER BY m.id LIMIT ?"),
    select!("FORCE INDEX (postroom_ledger_mail_state) WHERE m.state = ? AND m.id > ? ORDER BY m.id LIMIT ?"),
    select!(
        "FORCE INDEX (postroom_ledger_mail_mailbox) WHERE m.mailbox = ? AND m.id > ? ORDER BY m.id LIMIT ?"
    ),
    select!(
        "FORCE INDEX (postroom_ledger_mail_unhandled) WHERE m.mailbox = ? AND m.state = ? AND m.id > ?
        ORDER BY m.id LIMIT ?"
    ),
];

pub(in crate::sql::mysql) const TIMELINE: &str = "SELECT at, what, state, detail, actor
    FROM postroom_event WHERE mail = ? AND noun = 'ledger' ORDER BY place";

async fn show_in(connection: &mut MySqlConnection, id: LedgerId) -> Result<Option<LedgerRecord>> {
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
    tx: &mut MySqlConnection,
    id: LedgerId,
    stage: &'static str,
    decide: impl FnOnce(&mut LedgerRow) -> Result<LedgerEntry> + Send,
) -> Result<()> {
    let mut edit = load(tx, [id]).await?.pop().ok_or_else(|| Error::new(ErrorKind::NotFound, stage))?;
    let entry = decide(&mut edit.row)?;
    save(tx, &edit, [entry]).await
}

#[async_trait]
impl LedgerDesk for MySqlStore {
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
        let mut rows = sqlx::query(sql);
        if let Some(mailbox) = query.mailbox {
            rows = rows.bind(mailbox.number());
        }
        if let Some(state) = query.state {
            rows = rows.bind(state.word());
        }
        let rows = rows
            .bind(query.after.map_or(Uuid::nil(), LedgerId::uuid))
            .bind(page(query.limit))
            .fetch_all(&mut *read)
            .await
            .map_err(failed(STAGE));
        let rows: Vec<MySqlRow> = read.finish(rows).await?;
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
