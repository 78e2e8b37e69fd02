//! How mailboxes do, and the sealed values of postroom's own.

use async_trait::async_trait;
use postroom_core::id::{MailboxId, WorkerId};
use postroom_core::time::Timestamp;
use sqlx::mysql::MySqlConnection;

use super::connection::{failed, write};
use super::store::MySqlStore;
use super::{events, lanes, locks};
use crate::error::Result;
use crate::keyring::{Binding, Sealed};
use crate::registry::{Health, HealthBook, Sign, Vault};
use crate::sql::rows::{small, time};
use crate::transition::registry::{health_after, health_cleared, health_event, is_fresh};

type Columns = (i64, Option<i64>, i64, Option<String>, Option<i64>, Option<i64>, bool);

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT mailbox, last_success, failures, last_error, failed_at, next_attempt, suspended
            FROM postroom_health ",
            $rest
        )
    };
}

const PROBE: &str = "UPDATE postroom_health SET prober = ?, next_attempt = ?
    WHERE mailbox = ? AND NOT suspended AND (next_attempt IS NULL OR next_attempt <= ?)";

fn health(columns: Columns) -> Result<Health> {
    let (mailbox, last_success, failures, last_error, failed_at, next_attempt, suspended) = columns;
    Ok(Health {
        mailbox: MailboxId::new(mailbox),
        last_success: last_success.map(time),
        failures: small(failures)?,
        last_error,
        failed_at: failed_at.map(time),
        next_attempt: next_attempt.map(time),
        suspended,
    })
}

async fn of(connection: &mut MySqlConnection, mailbox: MailboxId) -> Result<Option<Health>> {
    let row: Option<Columns> = sqlx::query_as(select!("WHERE mailbox = ?"))
        .bind(mailbox.number())
        .fetch_optional(connection)
        .await
        .map_err(failed("read health"))?;
    row.map(health).transpose()
}

/// Writes the health of a mailbox that is there, and what follows from it.
async fn put(tx: &mut MySqlConnection, now: Timestamp, before: &Health, health: &Health) -> Result<()> {
    let sql = "INSERT INTO postroom_health
            (mailbox, last_success, failures, last_error, failed_at, next_attempt, suspended)
        SELECT id, ?, ?, ?, ?, ?, ? FROM postroom_mailbox WHERE id = ?
        ON DUPLICATE KEY UPDATE last_success = VALUES(last_success), failures = VALUES(failures),
            last_error = VALUES(last_error), failed_at = VALUES(failed_at),
            next_attempt = VALUES(next_attempt), suspended = VALUES(suspended), prober = NULL";
    sqlx::query(sql)
        .bind(health.last_success.map(Timestamp::as_millis))
        .bind(i64::from(health.failures))
        .bind(health.last_error.as_deref())
        .bind(health.failed_at.map(Timestamp::as_millis))
        .bind(health.next_attempt.map(Timestamp::as_millis))
        .bind(health.suspended)
        .bind(health.mailbox.number())
        .execute(&mut *tx)
        .await
        .map_err(failed("record health"))?;
    if let Some((what, detail)) = health_event(before, health) {
        events::note_mailbox(tx, now, health.mailbox, (what, &detail)).await?;
    }
    lanes::ring(tx, [health.mailbox]).await
}

#[async_trait]
impl HealthBook for MySqlStore {
    async fn health(&self, mailbox: MailboxId) -> Result<Health> {
        let mut read = self.connections.read("read health").await?;
        let row = of(&mut read, mailbox).await;
        Ok(read.finish(row).await?.unwrap_or_else(|| Health::unknown(mailbox)))
    }

    async fn all_health(&self) -> Result<Vec<Health>> {
        const STAGE: &str = "read health";
        let mut read = self.connections.read(STAGE).await?;
        let rows =
            sqlx::query_as(select!("ORDER BY mailbox")).fetch_all(&mut *read).await.map_err(failed(STAGE));
        let rows: Vec<Columns> = read.finish(rows).await?;
        rows.into_iter().map(health).collect()
    }

    async fn record(&self, now: Timestamp, mailbox: MailboxId, sign: &Sign) -> Result<()> {
        if *sign == Sign::Success && is_fresh(&self.health(mailbox).await?, now) {
            return Ok(());
        }
        write!(self.connections, "record health", |tx| {
            locks::health(tx, mailbox).await?;
            let before = of(&mut *tx, mailbox).await?.unwrap_or_else(|| Health::unknown(mailbox));
            put(tx, now, &before, &health_after(before.clone(), now, sign)).await
        })
    }

    async fn probe(
        &self,
        now: Timestamp,
        mailbox: MailboxId,
        worker: WorkerId,
        until: Timestamp,
    ) -> Result<bool> {
        const STAGE: &str = "try a mailbox that failed";
        let health = self.health(mailbox).await?;
        if health.failures == 0 && !health.suspended {
            return Ok(true);
        }
        write!(self.connections, STAGE, |tx| {
            let query = sqlx::query(PROBE).bind(worker.uuid()).bind(until.as_millis());
            let query = query.bind(mailbox.number()).bind(now.as_millis());
            let taken = query.execute(&mut *tx).await.map_err(failed(STAGE))?.rows_affected() > 0;
            if taken {
                lanes::ring(tx, [mailbox]).await?;
            }
            Ok(taken)
        })
    }

    async fn clear(&self, now: Timestamp, mailbox: MailboxId) -> Result<()> {
        write!(self.connections, "clear health", |tx| {
            locks::health(tx, mailbox).await?;
            match of(&mut *tx, mailbox).await? {
                Some(before) => put(tx, now, &before, &health_cleared(&before)).await,
                None => Ok(()),
            }
        })
    }
}

#[async_trait]
impl Vault for MySqlStore {
    async fn put_if_absent(&self, binding: &Binding, sealed: Sealed) -> Result<Sealed> {
        const STAGE: &str = "put a sealed value";
        // The update changes nothing, and locks the row that is there.
        let put = "INSERT INTO postroom_secret (owner, field, sealed) VALUES (?, ?, ?)
            ON DUPLICATE KEY UPDATE field = VALUES(field)";
        let read = "SELECT sealed FROM postroom_secret WHERE owner = ? AND field = ?";
        let (stored,): (Vec<u8>,) = write!(self.connections, STAGE, |tx| {
            let put = sqlx::query(put).bind(&binding.owner).bind(&binding.field).bind(sealed.as_bytes());
            put.execute(&mut *tx).await.map_err(failed(STAGE))?;
            let read = sqlx::query_as(read).bind(&binding.owner).bind(&binding.field);
            read.fetch_one(tx).await.map_err(failed(STAGE))
        })?;
        Ok(Sealed::from_bytes(stored))
    }

    async fn replace(&self, binding: &Binding, from: &Sealed, to: Option<Sealed>) -> Result<bool> {
        const STAGE: &str = "replace a sealed value";
        let update = "UPDATE postroom_secret SET sealed = ? WHERE owner = ? AND field = ? AND sealed = ?";
        let delete = "DELETE FROM postroom_secret WHERE owner = ? AND field = ? AND sealed = ?";
        let done = write!(self.connections, STAGE, |tx| {
            let query = match &to {
                Some(to) => sqlx::query(update).bind(to.as_bytes()),
                None => sqlx::query(delete),
            };
            let query = query.bind(&binding.owner).bind(&binding.field).bind(from.as_bytes());
            query.execute(tx).await.map_err(failed(STAGE))
        })?;
        Ok(done.rows_affected() == 1)
    }

    async fn values(&self, owner: &str) -> Result<Vec<(Binding, Sealed)>> {
        const STAGE: &str = "read sealed values";
        let mut read = self.connections.read(STAGE).await?;
        let sql = "SELECT field, sealed FROM postroom_secret WHERE owner = ? ORDER BY field";
        let rows = sqlx::query_as(sql).bind(owner).fetch_all(&mut *read).await.map_err(failed(STAGE));
        let rows: Vec<(String, Vec<u8>)> = read.finish(rows).await?;
        let value = |(field, sealed)| (Binding::new(owner, field), Sealed::from_bytes(sealed));
        Ok(rows.into_iter().map(value).collect())
    }
}
