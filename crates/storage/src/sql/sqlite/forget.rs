//! Forgetting a contract: what is removed of its finished mail, each time a few rows, by the statements of retention where they fit.

use async_trait::async_trait;
use postroom_core::id::{ContractId, LedgerId, QueueId};
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::connection::failed;
use super::ledger::retention::{STRIPPED, TOLD};
use super::queue::retention::REMOVE;
use super::store::SqliteStore;
use super::{audit, bodies};
use crate::audit::{contract_subject, forgotten_changes};
use crate::error::Result;
use crate::forget::{FORGOTTEN_RECIPIENT, Forgetting, Forgotten, Waiting};
use crate::queue::KEYS_KEPT;
use crate::registry::Change;
use crate::sql::forget::{Finished, Sent};
use crate::sql::rows::{ledger_ids, queue_ids, small};

const STAGE: &str = "forget a contract";

/// Finished mails of the contract `?1` behind `?2`: its content, whether it was finished by `?3`, and whether anything but a key is left.
pub(super) const SENT: &str =
    "SELECT id, body, coalesce(finished_at <= ?3, 0), body IS NOT NULL OR message_id <> ''
    FROM postroom_queue_mail INDEXED BY postroom_queue_mail_contract
    WHERE contract = ?1 AND id > ?2 AND state IS NOT NULL ORDER BY id LIMIT ?4";

pub(super) const NOBODY: &str = "UPDATE postroom_queue_recipient SET address = ?2
    WHERE mail IN (SELECT unhex(value) FROM json_each(?1))";

pub(super) const KEY_LEFT: &str = "UPDATE postroom_queue_mail
    SET subject = '', message_id = '', record = NULL, in_reply_to = NULL, return_path = NULL, body = NULL
    WHERE id IN (SELECT unhex(value) FROM json_each(?1))";

macro_rules! received {
    ($index:literal, $states:literal) => {
        concat!(
            "SELECT id, body FROM postroom_ledger_mail INDEXED BY ",
            $index,
            " WHERE coalesce(contract, '') = ?1 AND bare_at IS NULL AND finished_at IS NOT NULL AND state ",
            $states,
            " LIMIT ?2"
        )
    };
}

/// Finished received mails of which more than the key is left, in the indexes of retention.
pub(super) const RECEIVED: [&str; 2] = [
    received!("postroom_ledger_mail_done", "IN ('handled', 'ignored')"),
    received!("postroom_ledger_mail_dead", "= 'dead'"),
];

pub(super) const LISTED: &str = "DELETE FROM postroom_suppression WHERE (contract, address) IN (
    SELECT contract, address FROM postroom_suppression WHERE contract = ?1 LIMIT ?2)";

/// What is stored waits for the handler; what waits for a person is no contract's.
pub(super) const WAITING: &str = "SELECT (SELECT count(*) FROM postroom_queue_open WHERE contract = ?1),
    (SELECT count(*) FROM postroom_ledger_mail WHERE state = 'stored' AND contract = ?1)";

async fn forget_sent(
    tx: &mut SqliteConnection,
    change: &Change,
    contract: &ContractId,
    after: Option<&QueueId>,
    limit: u32,
) -> Result<Forgotten> {
    let before = (change.now - KEYS_KEPT).as_millis();
    let after = after.map_or(Uuid::nil(), |id| id.uuid());
    let query = sqlx::query_as(SENT).bind(contract.as_str()).bind(after).bind(before).bind(i64::from(limit));
    let mails: Vec<Sent> = query.fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
    let finished = Finished::of(&mails);
    if !finished.over.is_empty() {
        let ids = queue_ids(finished.over.iter().copied())?;
        for sql in REMOVE {
            sqlx::query(sql).bind(&ids).execute(&mut *tx).await.map_err(failed(STAGE))?;
        }
    }
    if !finished.kept.is_empty() {
        let ids = queue_ids(finished.kept.iter().copied())?;
        sqlx::query(TOLD).bind(&ids).execute(&mut *tx).await.map_err(failed(STAGE))?;
        let nobody = sqlx::query(NOBODY).bind(&ids).bind(FORGOTTEN_RECIPIENT);
        nobody.execute(&mut *tx).await.map_err(failed(STAGE))?;
        sqlx::query(KEY_LEFT).bind(ids).execute(&mut *tx).await.map_err(failed(STAGE))?;
    }
    let forgotten = finished.forgotten();
    bodies::release(tx, finished.contents).await?;
    Ok(forgotten)
}

async fn forget_received(
    tx: &mut SqliteConnection,
    change: &Change,
    contract: &str,
    limit: u32,
) -> Result<u64> {
    let mut mails: Vec<(Uuid, Option<Uuid>)> = Vec::new();
    for sql in RECEIVED {
        let left = limit.saturating_sub(u32::try_from(mails.len()).unwrap_or(limit));
        let query = sqlx::query_as(sql).bind(contract).bind(i64::from(left));
        let some: Vec<(Uuid, Option<Uuid>)> = query.fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
        mails.extend(some);
    }
    if !mails.is_empty() {
        let ids = ledger_ids(mails.iter().map(|(id, _)| LedgerId::from_uuid(*id)))?;
        sqlx::query(TOLD).bind(&ids).execute(&mut *tx).await.map_err(failed(STAGE))?;
        let strip = sqlx::query(STRIPPED).bind(ids).bind(change.now.as_millis());
        strip.execute(&mut *tx).await.map_err(failed(STAGE))?;
        let released: Vec<Uuid> = mails.iter().filter_map(|(_, body)| *body).collect();
        bodies::release(tx, released).await?;
    }
    Ok(u64::try_from(mails.len()).unwrap_or(u64::MAX))
}

async fn forget_in(
    tx: &mut SqliteConnection,
    change: &Change,
    contract: &ContractId,
    after: Option<&QueueId>,
    limit: u32,
) -> Result<Forgotten> {
    let mut forgotten = forget_sent(tx, change, contract, after, limit).await?;
    forgotten.received = forget_received(tx, change, contract.as_str(), limit).await?;
    let listed = sqlx::query(LISTED).bind(contract.as_str()).bind(i64::from(limit));
    forgotten.suppressions = listed.execute(&mut *tx).await.map_err(failed(STAGE))?.rows_affected();
    if forgotten.is_change() {
        let subject = contract_subject(contract);
        audit::write(tx, change, &subject, "forget", &forgotten_changes(&forgotten)).await?;
    }
    Ok(forgotten)
}

#[async_trait]
impl Forgetting for SqliteStore {
    async fn forget<'a>(
        &self,
        change: &Change,
        contract: &ContractId,
        after: Option<&'a QueueId>,
        limit: u32,
    ) -> Result<Forgotten> {
        let mut tx = self.connections.write(STAGE).await?;
        let done = forget_in(&mut tx, change, contract, after, limit).await;
        tx.finish(done).await
    }

    async fn waiting(&self, contract: &ContractId) -> Result<Waiting> {
        const STAGE: &str = "count what waits of a contract";
        let mut read = self.connections.read(STAGE).await?;
        let query = sqlx::query_as(WAITING).bind(contract.as_str());
        let counts = query.fetch_one(&mut *read).await.map_err(failed(STAGE));
        let (queued, received): (i64, i64) = read.finish(counts).await?;
        Ok(Waiting { queued: small(queued)?, received: small(received)? })
    }
}
