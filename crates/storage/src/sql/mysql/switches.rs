//! The standard outbox and the sending switches.

use async_trait::async_trait;
use postroom_core::id::MailboxId;
use postroom_core::mailbox::Kind;
use sqlx::mysql::MySqlConnection;

use super::connection::{failed, write};
use super::store::MySqlStore;
use super::{audit, lanes, locks};
use crate::audit::{STANDARD_SUBJECT, standard_changes, switch_changes, switch_subject};
use crate::error::{Error, ErrorKind, Result};
use crate::registry::{Change, Scope, Switch, Switches};
use crate::sql::rows::{text, unreadable};

/// The standard outbox.
pub(super) async fn standard(connection: &mut MySqlConnection) -> Result<Option<MailboxId>> {
    let query = sqlx::query_as("SELECT outbox FROM postroom_standard WHERE singleton = 1");
    let row: Option<(Option<i64>,)> =
        query.fetch_optional(connection).await.map_err(failed("read the standard outbox"))?;
    Ok(row.and_then(|(id,)| id).map(MailboxId::new))
}

/// Sets the standard outbox, with its audit entry.
pub(super) async fn make_standard(
    tx: &mut MySqlConnection,
    change: &Change,
    outbox: Option<MailboxId>,
) -> Result<()> {
    const STAGE: &str = "set the standard outbox";
    let old = standard(tx).await?;
    let update = sqlx::query("UPDATE postroom_standard SET outbox = ? WHERE singleton = 1");
    update.bind(outbox.map(MailboxId::number)).execute(&mut *tx).await.map_err(failed(STAGE))?;
    audit::write(tx, change, STANDARD_SUBJECT, "set", &standard_changes(old, outbox)).await
}

async fn set_standard_in(tx: &mut MySqlConnection, change: &Change, outbox: Option<MailboxId>) -> Result<()> {
    const STAGE: &str = "set the standard outbox";
    locks::registry(tx).await?;
    if let Some(id) = outbox {
        let sql = "SELECT 1 FROM postroom_mailbox WHERE id = ? AND kind = ?";
        let query = sqlx::query(sql).bind(id.number()).bind(Kind::Outbox.word());
        let found = query.fetch_optional(&mut *tx).await.map_err(failed(STAGE))?;
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, STAGE))?;
    }
    make_standard(tx, change, outbox).await
}

fn columns(scope: &Scope) -> (&'static str, String) {
    match scope {
        Scope::System => ("system", String::new()),
        Scope::Contract(id) => ("contract", id.as_str().to_owned()),
        Scope::Outbox(id) => ("outbox", id.to_string()),
    }
}

/// Sets the copies of a contract's switch, in the order in which everybody locks mails.
pub(super) const PAUSE: &str = "UPDATE postroom_queue_open FORCE INDEX (postroom_queue_open_contract)
    SET paused = ? WHERE contract = ? ORDER BY mail";

pub(super) async fn set_switch_in(
    tx: &mut MySqlConnection,
    change: &Change,
    scope: &Scope,
    to: Switch,
) -> Result<()> {
    const STAGE: &str = "set a switch";
    let (word, subject) = columns(scope);
    locks::registry(tx).await?;
    if let Scope::Contract(id) = scope {
        locks::switch(tx, id).await?;
    }
    let query = match to {
        Switch::Paused => {
            let sql =
                "INSERT INTO postroom_pause (scope, subject, paused_by, paused_at) SELECT ?, ?, ?, ? FROM DUAL
                WHERE NOT EXISTS (SELECT 1 FROM postroom_pause WHERE scope = ? AND subject = ?)";
            let query = sqlx::query(sql).bind(word).bind(subject.clone());
            let query = query.bind(change.actor.as_str()).bind(change.now.as_millis());
            query.bind(word).bind(subject)
        }
        Switch::Running => {
            sqlx::query("DELETE FROM postroom_pause WHERE scope = ? AND subject = ?").bind(word).bind(subject)
        }
    };
    if query.execute(&mut *tx).await.map_err(failed(STAGE))?.rows_affected() == 0 {
        return Ok(());
    }
    match scope {
        Scope::System => {}
        Scope::Outbox(id) => lanes::ring(tx, [*id]).await?,
        Scope::Contract(id) => {
            let query = sqlx::query(PAUSE).bind(to == Switch::Paused).bind(id.as_str());
            query.execute(&mut *tx).await.map_err(failed(STAGE))?;
            let ring = sqlx::query(lanes::RING_CONTRACT).bind(id.as_str());
            ring.execute(&mut *tx).await.map_err(failed(STAGE))?;
        }
    }
    audit::write(tx, change, &switch_subject(scope), "set", &switch_changes(to)).await
}

#[async_trait]
impl Switches for MySqlStore {
    async fn standard(&self) -> Result<Option<MailboxId>> {
        let mut read = self.connections.read("read the standard outbox").await?;
        let row = standard(&mut read).await;
        read.finish(row).await
    }

    async fn set_standard(&self, change: &Change, outbox: Option<MailboxId>) -> Result<()> {
        write!(self.connections, "set the standard outbox", |tx| set_standard_in(tx, change, outbox).await)
    }

    async fn paused(&self) -> Result<Vec<Scope>> {
        const STAGE: &str = "read the switches";
        let mut read = self.connections.read(STAGE).await?;
        let rows = sqlx::query_as("SELECT scope, subject FROM postroom_pause").fetch_all(&mut *read).await;
        let rows: Vec<(String, String)> = read.finish(rows.map_err(failed(STAGE))).await?;
        let scope = |(word, subject): (String, String)| match word.as_str() {
            "system" => Ok(Scope::System),
            "contract" => text(&subject).map(Scope::Contract),
            "outbox" => text(&subject).map(Scope::Outbox),
            _ => Err(unreadable()),
        };
        let mut scopes: Vec<Scope> = rows.into_iter().map(scope).collect::<Result<_>>()?;
        scopes.sort_unstable();
        Ok(scopes)
    }

    async fn set_switch(&self, change: &Change, scope: &Scope, to: Switch) -> Result<()> {
        write!(self.connections, "set a switch", |tx| set_switch_in(tx, change, scope, to).await)
    }
}
