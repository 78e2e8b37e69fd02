//! How mailboxes do, and the sealed values of postroom's own.

use async_trait::async_trait;
use postroom_core::id::{MailboxId, WorkerId};
use postroom_core::time::Timestamp;
use sqlx::postgres::PgConnection;

use super::connection::{failed, write};
use super::plain::plain;
use super::store::PgStore;
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

const PROBE: &str = "UPDATE postroom_health SET prober = $3, next_attempt = $4
    WHERE mailbox = $1 AND NOT suspended AND (next_attempt IS NULL OR next_attempt <= $2)";

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

async fn of(connection: &mut PgConnection, mailbox: MailboxId) -> Result<Option<Health>> {
    let row: Option<Columns> = sqlx::query_as(select!("WHERE mailbox = $1"))
        .bind(mailbox.number())
        .fetch_optional(connection)
        .await
        .map_err(failed("read health"))?;
    row.map(health).transpose()
}

/// Writes the health of a mailbox that is there, and what follows from it.
async fn put(tx: &mut PgConnection, now: Timestamp, before: &Health, health: &Health) -> Result<()> {
    let sql = "INSERT INTO postroom_health
            (mailbox, last_success, failures, last_error, failed_at, next_attempt, suspended)
        SELECT id, $2, $3, $4, $5, $6, $7 FROM postroom_mailbox WHERE id = $1
        ON CONFLICT (mailbox) DO UPDATE SET last_success = excluded.last_success, failures = excluded.failures,
            last_error = excluded.last_error, failed_at = excluded.failed_at,
            next_attempt = excluded.next_attempt, suspended = excluded.suspended, prober = NULL";
    sqlx::query(sql)
        .bind(health.mailbox.number())
        .bind(health.last_success.map(Timestamp::as_millis))
        .bind(i64::from(health.failures))
        .bind(health.last_error.as_deref().map(plain))
        .bind(health.failed_at.map(Timestamp::as_millis))
        .bind(health.next_attempt.map(Timestamp::as_millis))
        .bind(health.suspended)
        .execute(&mut *tx)
        .await
        .map_err(failed("record health"))?;
    if let Some((what, detail)) = health_event(before, health) {
        events::note_mailbox(tx, now, health.mailbox, (what, &detail)).await?;
    }
    lanes::ring(tx, [health.mailbox]).await
}

#[async_trait]
impl HealthBook for PgStore {
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
            let query = sqlx::query(PROBE).bind(mailbox.number()).bind(now.as_millis());
            let query = query.bind(worker.uuid()).bind(until.as_millis());
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
impl Vault for PgStore {
    async fn put_if_absent(&self, binding: &Binding, sealed: Sealed) -> Result<Sealed> {
        const STAGE: &str = "put a sealed value";
        // The update changes nothing: it makes RETURNING give the row that is there.
        let sql = "INSERT INTO postroom_secret (owner, field, sealed) VALUES ($1, $2, $3)
            ON CONFLICT (owner, field) DO UPDATE SET sealed = postroom_secret.sealed RETURNING sealed";
        let (stored,): (Vec<u8>,) = write!(self.connections, STAGE, |tx| {
            let put = sqlx::query_as(sql).bind(&binding.owner).bind(&binding.field).bind(sealed.as_bytes());
            put.fetch_one(tx).await.map_err(failed(STAGE))
        })?;
        Ok(Sealed::from_bytes(stored))
    }

    async fn replace(&self, binding: &Binding, from: &Sealed, to: Option<Sealed>) -> Result<bool> {
        const STAGE: &str = "replace a sealed value";
        let update = "UPDATE postroom_secret SET sealed = $4 WHERE owner = $1 AND field = $2 AND sealed = $3";
        let delete = "DELETE FROM postroom_secret WHERE owner = $1 AND field = $2 AND sealed = $3";
        let done = write!(self.connections, STAGE, |tx| {
            let query = sqlx::query(if to.is_some() { update } else { delete });
            let query = query.bind(&binding.owner).bind(&binding.field).bind(from.as_bytes());
            let query = match &to {
                Some(to) => query.bind(to.as_bytes()),
                None => query,
            };
            query.execute(tx).await.map_err(failed(STAGE))
        })?;
        Ok(done.rows_affected() == 1)
    }

    async fn values(&self, owner: &str) -> Result<Vec<(Binding, Sealed)>> {
        const STAGE: &str = "read sealed values";
        let mut read = self.connections.read(STAGE).await?;
        let sql = "SELECT field, sealed FROM postroom_secret WHERE owner = $1 ORDER BY field";
        let rows = sqlx::query_as(sql).bind(owner).fetch_all(&mut *read).await.map_err(failed(STAGE));
        let rows: Vec<(String, Vec<u8>)> = read.finish(rows).await?;
        let value = |(field, sealed)| (Binding::new(owner, field), Sealed::from_bytes(sealed));
        Ok(rows.into_iter().map(value).collect())
    }
}
