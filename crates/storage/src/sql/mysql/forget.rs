//! Forgetting a contract: what is removed of its finished mail, each time a few rows, by the statements of retention where they fit.

use async_trait::async_trait;
use postroom_core::id::{ContractId, LedgerId, QueueId};
use sqlx::mysql::MySqlConnection;
use uuid::Uuid;

use super::connection::{failed, write};
use super::json::json_rows;
use super::ledger::retention::{STRIPPED, TOLD};
use super::queue::retention::REMOVE;
use super::store::MySqlStore;
use super::{audit, bodies};
use crate::audit::{contract_subject, forgotten_changes};
use crate::error::Result;
use crate::forget::{FORGOTTEN_RECIPIENT, Forgetting, Forgotten, Waiting};
use crate::queue::KEYS_KEPT;
use crate::registry::Change;
use crate::sql::forget::{Finished, Sent};
use crate::sql::rows::{ledger_ids, queue_ids, small};

const STAGE: &str = "forget a contract";

/// Finished mails of a contract behind one: its content, whether it was finished by a time, and whether anything but a key is left. They are
/// locked in the order in which everybody locks mails. The parameters are the time, the contract, the one before, and how many.
pub(super) const SENT: &str =
    "SELECT id, body, COALESCE(finished_at <= ?, FALSE), body IS NOT NULL OR message_id <> ''
    FROM postroom_queue_mail FORCE INDEX (postroom_queue_mail_contract)
    WHERE contract = ? AND id > ? AND state IS NOT NULL ORDER BY id LIMIT ? FOR UPDATE";

/// The parameters are the mails and who stands in place of their recipients.
pub(super) const NOBODY: &str = concat!(
    "UPDATE ",
    json_rows!("?"; sought id ""),
    " j STRAIGHT_JOIN postroom_queue_recipient r FORCE INDEX (PRIMARY) ON r.mail = UNHEX(j.sought) SET r.address = ?"
);

pub(super) const KEY_LEFT: &str = concat!(
    "UPDATE ",
    json_rows!("?"; sought id ""),
    " j STRAIGHT_JOIN postroom_queue_mail m FORCE INDEX (PRIMARY) ON m.id = UNHEX(j.sought)
    SET m.subject = '', m.message_id = '', m.record = NULL, m.in_reply_to = NULL, m.return_path = NULL, m.body = NULL"
);

macro_rules! received {
    ($index:literal, $of:literal) => {
        concat!(
            "SELECT id, body FROM postroom_ledger_mail FORCE INDEX (",
            $index,
            ") WHERE ",
            $of,
            " = ? ORDER BY finished_at LIMIT ? FOR UPDATE"
        )
    };
}

/// Finished received mails of which more than the key is left, in the indexes of retention.
pub(super) const RECEIVED: [&str; 2] =
    [received!("postroom_ledger_mail_done", "done_of"), received!("postroom_ledger_mail_dead", "dead_of")];

pub(super) const LISTED: &str =
    "DELETE FROM postroom_suppression WHERE contract = ? ORDER BY address LIMIT ?";

/// What is stored waits for the handler; what waits for a person is no contract's.
pub(super) const WAITING: &str = "SELECT (SELECT COUNT(*) FROM postroom_queue_open WHERE contract = ?),
    (SELECT COUNT(*) FROM postroom_ledger_mail WHERE state = 'stored' AND contract = ?)";

async fn forget_sent(
    tx: &mut MySqlConnection,
    change: &Change,
    contract: &ContractId,
    after: Option<&QueueId>,
    limit: u32,
) -> Result<Forgotten> {
    let before = (change.now - KEYS_KEPT).as_millis();
    let after = after.map_or(Uuid::nil(), |id| id.uuid());
    let query = sqlx::query_as(SENT).bind(before).bind(contract.as_str()).bind(after).bind(i64::from(limit));
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
    tx: &mut MySqlConnection,
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
    tx: &mut MySqlConnection,
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
impl Forgetting for MySqlStore {
    async fn forget<'a>(
        &self,
        change: &Change,
        contract: &ContractId,
        after: Option<&'a QueueId>,
        limit: u32,
    ) -> Result<Forgotten> {
        write!(self.connections, STAGE, |tx| forget_in(tx, change, contract, after, limit).await)
    }

    async fn waiting(&self, contract: &ContractId) -> Result<Waiting> {
        const STAGE: &str = "count what waits of a contract";
        let mut read = self.connections.read(STAGE).await?;
        let query = sqlx::query_as(WAITING).bind(contract.as_str()).bind(contract.as_str());
        let counts = query.fetch_one(&mut *read).await.map_err(failed(STAGE));
        let (queued, received): (i64, i64) = read.finish(counts).await?;
        Ok(Waiting { queued: small(queued)?, received: small(received)? })
    }
}
