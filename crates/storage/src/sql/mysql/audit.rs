//! The record of changes: rows that are only ever added.

use async_trait::async_trait;
use postroom_core::id::EventNumber;
use serde_json::Value;
use sqlx::mysql::MySqlConnection;

use super::connection::failed;
use super::store::MySqlStore;
use crate::error::Result;
use crate::registry::{Audit, AuditEntry, Change};
use crate::sql::rows::{from_json, text, time, to_json};

/// Adds an entry, in the transaction that makes the change.
pub(super) async fn write(
    tx: &mut MySqlConnection,
    change: &Change,
    subject: &str,
    action: &'static str,
    changes: &Value,
) -> Result<()> {
    let sql = "INSERT INTO postroom_audit (at, actor, subject, action, changes) VALUES (?, ?, ?, ?, ?)";
    sqlx::query(sql)
        .bind(change.now.as_millis())
        .bind(change.actor.as_str())
        .bind(subject)
        .bind(action)
        .bind(to_json(changes)?)
        .execute(tx)
        .await
        .map_err(failed("write the audit"))?;
    Ok(())
}

pub(super) const ALL: &str = "SELECT number, at, actor, subject, action, changes FROM postroom_audit
    WHERE number > ? ORDER BY number LIMIT ?";

pub(super) const OF_SUBJECT: &str = "SELECT number, at, actor, subject, action, changes FROM postroom_audit
    WHERE subject = ? AND number > ? ORDER BY number LIMIT ?";

#[async_trait]
impl Audit for MySqlStore {
    async fn entries<'a>(
        &self,
        subject: Option<&'a str>,
        after: EventNumber,
        limit: u32,
    ) -> Result<Vec<AuditEntry>> {
        const STAGE: &str = "read the audit";
        let mut read = self.connections.read(STAGE).await?;
        let mut query = sqlx::query_as(if subject.is_some() { OF_SUBJECT } else { ALL });
        if let Some(subject) = subject {
            query = query.bind(subject);
        }
        let query = query.bind(after.number()).bind(i64::from(limit));
        let rows = query.fetch_all(&mut *read).await.map_err(failed(STAGE));
        let rows: Vec<(i64, i64, String, String, String, String)> = read.finish(rows).await?;
        let entry =
            |(number, at, actor, subject, action, changes): (i64, i64, String, String, String, String)| {
                Ok(AuditEntry {
                    number: EventNumber::new(number),
                    at: time(at),
                    actor: text(&actor)?,
                    subject,
                    action,
                    changes: from_json(&changes)?,
                })
            };
        rows.into_iter().map(entry).collect()
    }
}
