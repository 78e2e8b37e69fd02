//! How mailboxes do, and the sealed values of postroom's own.

use async_trait::async_trait;
use postroom_core::id::{MailboxId, WorkerId};
use postroom_core::time::Timestamp;
use sqlx::sqlite::SqliteConnection;

use super::connection::failed;
use super::store::SqliteStore;
use super::{events, lanes};
use crate::error::Result;
use crate::keyring::{Binding, Sealed};
use crate::registry::{Health, HealthBook, Sign, Vault};
use crate::sql::rows::{small, time};
use crate::transition::registry::{health_after, health_cleared, health_event, is_fresh};

type Columns = (i64, Option<i64>, i64, Option<String>, Option<i64>, Option<i64>, i64);

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT mailbox, last_success, failures, last_error, failed_at, next_attempt, suspended
            FROM postroom_health ",
            $rest
        )
    };
}

const PROBE: &str = "UPDATE postroom_health SET prober = ?3, next_attempt = ?4
    WHERE mailbox = ?1 AND suspended = 0 AND (next_attempt IS NULL OR next_attempt <= ?2)";

fn health(columns: Columns) -> Result<Health> {
    let (mailbox, last_success, failures, last_error, failed_at, next_attempt, suspended) = columns;
    Ok(Health {
        mailbox: MailboxId::new(mailbox),
        last_success: last_success.map(time),
        failures: small(failures)?,
        last_error,
        failed_at: failed_at.map(time),
        next_attempt: next_attempt.map(time),
        suspended: suspended != 0,
    })
}

async fn of(connection: &mut SqliteConnection, mailbox: MailboxId) -> Result<Option<Health>> {
    let row: Option<Columns> = sqlx::query_as(select!("WHERE mailbox = ?"))
        .bind(mailbox.number())
        .fetch_optional(connection)
        .await
        .map_err(failed("read health"))?;
    row.map(health).transpose()
}

/// Writes the health of a mailbox that is there, and what follows from it.
async fn write(tx: &mut SqliteConnection, now: Timestamp, before: &Health, health: &Health) -> Result<()> {
    let sql = "INSERT INTO postroom_health
            (mailbox, last_success, failures, last_error, failed_at, next_attempt, suspended)
        SELECT id, ?2, ?3, ?4, ?5, ?6, ?7 FROM postroom_mailbox WHERE id = ?1
        ON CONFLICT (mailbox) DO UPDATE SET last_success = excluded.last_success, failures = excluded.failures,
            last_error = excluded.last_error, failed_at = excluded.failed_at,
            next_attempt = excluded.next_attempt, suspended = excluded.suspended, prober = NULL";
    sqlx::query(sql)
        .bind(health.mailbox.number())
        .bind(health.last_success.map(Timestamp::as_millis))
        .bind(i64::from(health.failures))
        .bind(health.last_error.as_deref())
        .bind(health.failed_at.map(Timestamp::as_millis))
        .bind(health.next_attempt.map(Timestamp::as_millis))
        .bind(i64::from(health.suspended))
        .execute(&mut *tx)
        .await
        .map_err(failed("record health"))?;
    if let Some((what, detail)) = health_event(before, health) {
        events::note_mailbox(tx, now, health.mailbox, (what, &detail)).await?;
    }
    lanes::refresh(tx, [health.mailbox]).await
}

#[async_trait]
impl HealthBook for SqliteStore {
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
        let mut tx = self.connections.write("record health").await?;
        let done = async {
            let before = of(&mut tx, mailbox).await?.unwrap_or_else(|| Health::unknown(mailbox));
            write(&mut tx, now, &before, &health_after(before.clone(), now, sign)).await
        };
        let done = done.await;
        tx.finish(done).await
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
        let mut tx = self.connections.write(STAGE).await?;
        let done = async {
            let query = sqlx::query(PROBE).bind(mailbox.number()).bind(now.as_millis());
            let query = query.bind(worker.uuid()).bind(until.as_millis());
            let taken = query.execute(&mut *tx).await.map_err(failed(STAGE))?.rows_affected() > 0;
            if taken {
                lanes::refresh(&mut tx, [mailbox]).await?;
            }
            Ok(taken)
        };
        let done = done.await;
        tx.finish(done).await
    }

    async fn clear(&self, now: Timestamp, mailbox: MailboxId) -> Result<()> {
        let mut tx = self.connections.write("clear health").await?;
        let done = async {
            match of(&mut tx, mailbox).await? {
                Some(before) => write(&mut tx, now, &before, &health_cleared(&before)).await,
                None => Ok(()),
            }
        };
        let done = done.await;
        tx.finish(done).await
    }
}

#[async_trait]
impl Vault for SqliteStore {
    async fn put_if_absent(&self, binding: &Binding, sealed: Sealed) -> Result<Sealed> {
        const STAGE: &str = "put a sealed value";
        let mut tx = self.connections.write(STAGE).await?;
        // The update changes nothing: it makes RETURNING give the row that is there.
        let sql = "INSERT INTO postroom_secret (owner, field, sealed) VALUES (?, ?, ?)
            ON CONFLICT (owner, field) DO UPDATE SET sealed = sealed RETURNING sealed";
        let put = sqlx::query_as(sql).bind(&binding.owner).bind(&binding.field).bind(sealed.as_bytes());
        let row = put.fetch_one(&mut *tx).await.map_err(failed(STAGE));
        let (stored,): (Vec<u8>,) = tx.finish(row).await?;
        Ok(Sealed::from_bytes(stored))
    }

    async fn replace(&self, binding: &Binding, from: &Sealed, to: Option<Sealed>) -> Result<bool> {
        const STAGE: &str = "replace a sealed value";
        let mut tx = self.connections.write(STAGE).await?;
        let query = match &to {
            Some(to) => {
                let sql =
                    "UPDATE postroom_secret SET sealed = ? WHERE owner = ? AND field = ? AND sealed = ?";
                sqlx::query(sql).bind(to.as_bytes())
            }
            None => sqlx::query("DELETE FROM postroom_secret WHERE owner = ? AND field = ? AND sealed = ?"),
        };
        let query = query.bind(&binding.owner).bind(&binding.field).bind(from.as_bytes());
        let done = query.execute(&mut *tx).await.map_err(failed(STAGE));
        Ok(tx.finish(done).await?.rows_affected() == 1)
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
