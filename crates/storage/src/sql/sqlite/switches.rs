//! The standard outbox and the sending switches.

use async_trait::async_trait;
use postroom_core::id::MailboxId;
use postroom_core::mailbox::Kind;
use sqlx::sqlite::SqliteConnection;

use super::connection::failed;
use super::store::SqliteStore;
use super::{audit, lanes};
use crate::audit::{STANDARD_SUBJECT, standard_changes, switch_changes, switch_subject};
use crate::error::{Error, ErrorKind, Result};
use crate::registry::{Change, Scope, Switch, Switches};
use crate::sql::rows::{text, unreadable};

/// The standard outbox.
pub(super) async fn standard(connection: &mut SqliteConnection) -> Result<Option<MailboxId>> {
    let query = sqlx::query_as("SELECT outbox FROM postroom_standard WHERE singleton = 1");
    let row: Option<(i64,)> =
        query.fetch_optional(connection).await.map_err(failed("read the standard outbox"))?;
    Ok(row.map(|(id,)| MailboxId::new(id)))
}

/// Sets the standard outbox, with its audit entry.
pub(super) async fn make_standard(
    tx: &mut SqliteConnection,
    change: &Change,
    outbox: Option<MailboxId>,
) -> Result<()> {
    const STAGE: &str = "set the standard outbox";
    let old = standard(tx).await?;
    sqlx::query("DELETE FROM postroom_standard").execute(&mut *tx).await.map_err(failed(STAGE))?;
    if let Some(outbox) = outbox {
        let insert = sqlx::query("INSERT INTO postroom_standard (singleton, outbox) VALUES (1, ?)");
        insert.bind(outbox.number()).execute(&mut *tx).await.map_err(failed(STAGE))?;
    }
    audit::write(tx, change, STANDARD_SUBJECT, "set", &standard_changes(old, outbox)).await
}

async fn set_standard_in(
    tx: &mut SqliteConnection,
    change: &Change,
    outbox: Option<MailboxId>,
) -> Result<()> {
    const STAGE: &str = "set the standard outbox";
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

async fn set_switch_in(tx: &mut SqliteConnection, change: &Change, scope: &Scope, to: Switch) -> Result<()> {
    const STAGE: &str = "set a switch";
    let (word, subject) = columns(scope);
    let query = match to {
        Switch::Paused => {
            let sql = "INSERT INTO postroom_pause (scope, subject, paused_by, paused_at) VALUES (?, ?, ?, ?)
                ON CONFLICT (scope, subject) DO NOTHING";
            let query = sqlx::query(sql).bind(word).bind(subject);
            query.bind(change.actor.as_str()).bind(change.now.as_millis())
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
        Scope::Outbox(id) => lanes::refresh(tx, [*id]).await?,
        Scope::Contract(id) => {
            let sql = "UPDATE postroom_queue_open SET paused = ?2 WHERE contract = ?1";
            let query = sqlx::query(sql).bind(id.as_str()).bind(i64::from(to == Switch::Paused));
            query.execute(&mut *tx).await.map_err(failed(STAGE))?;
            let sql =
                "SELECT DISTINCT outbox, contract, priority FROM postroom_queue_open WHERE contract = ?";
            let query = sqlx::query_as(sql).bind(id.as_str());
            let lines: Vec<lanes::Line> = query.fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
            lanes::refresh_lines(tx, lines).await?;
        }
    }
    audit::write(tx, change, &switch_subject(scope), "set", &switch_changes(to)).await
}

#[async_trait]
impl Switches for SqliteStore {
    async fn standard(&self) -> Result<Option<MailboxId>> {
        let mut read = self.connections.read("read the standard outbox").await?;
        let row = standard(&mut read).await;
        read.finish(row).await
    }

    async fn set_standard(&self, change: &Change, outbox: Option<MailboxId>) -> Result<()> {
        let mut tx = self.connections.write("set the standard outbox").await?;
        let done = set_standard_in(&mut tx, change, outbox).await;
        tx.finish(done).await
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
        let mut tx = self.connections.write("set a switch").await?;
        let done = set_switch_in(&mut tx, change, scope, to).await;
        tx.finish(done).await
    }
}
