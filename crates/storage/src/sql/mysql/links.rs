//! Contracts and steps. The mailboxes that they name stand beside them in rows of their own, so that a link is found from
//! both ends.

use async_trait::async_trait;
use postroom_core::contract::{Contract, ContractOutbox};
use postroom_core::id::{ContractId, MailboxId, Revision, StepKey};
use postroom_core::mailbox::Mailbox;
use postroom_core::step::{Step, StepOutbox};
use sqlx::mysql::MySqlConnection;

use super::connection::{failed, write};
use super::json::json_rows;
use super::store::MySqlStore;
use super::{audit, locks};
use crate::audit::{contract_changes, contract_subject, step_changes, step_subject};
use crate::error::{Error, ErrorKind, Result};
use crate::registry::{Change, Links};
use crate::sql::rows::{from_json, text, to_json};
use crate::transition::registry::{relink_contract, relink_step};

pub(super) const CONTRACT: &str = "SELECT settings FROM postroom_contract WHERE id = ?";

pub(super) const CONTRACTS: &str = "SELECT settings FROM postroom_contract WHERE id > ? ORDER BY id LIMIT ?";

pub(super) const CONTRACTS_OF: &str = "SELECT c.settings FROM postroom_contract_mailbox l
    JOIN postroom_contract c ON c.id = l.contract
    WHERE l.mailbox = ? AND l.role = 'inbox' ORDER BY l.contract";

const CONTRACTS_WITH: &str = "SELECT settings FROM postroom_contract WHERE id IN (
    SELECT contract FROM postroom_contract_mailbox WHERE mailbox = ?) ORDER BY id";

pub(super) const STEP: &str = "SELECT settings FROM postroom_step WHERE flow = ? AND step = ?";

pub(super) const STEPS: &str = "SELECT settings FROM postroom_step WHERE flow >= ? AND (flow > ? OR step > ?)
    ORDER BY flow, step LIMIT ?";

const STEPS_WITH: &str = "SELECT settings FROM postroom_step WHERE outbox = ? ORDER BY flow, step";

type Settings = (String,);

/// The step key of these columns.
pub(super) fn key(flow: &str, step: &str) -> Result<StepKey> {
    Ok(StepKey::new(text(flow)?, text(step)?))
}

async fn contract(connection: &mut MySqlConnection, id: &ContractId) -> Result<Option<Contract>> {
    let query = sqlx::query_as(CONTRACT).bind(id.as_str());
    let row: Option<Settings> = query.fetch_optional(connection).await.map_err(failed("read a contract"))?;
    row.map(|(settings,)| from_json(&settings)).transpose()
}

async fn step(connection: &mut MySqlConnection, key: &StepKey) -> Result<Option<Step>> {
    let query = sqlx::query_as(STEP).bind(key.flow.as_str()).bind(key.step.as_str());
    let row: Option<Settings> = query.fetch_optional(connection).await.map_err(failed("read a step"))?;
    row.map(|(settings,)| from_json(&settings)).transpose()
}

/// The roles in which a contract names mailboxes.
fn roles(contract: &Contract) -> Vec<(&'static str, i64)> {
    let outbox = match &contract.outbox {
        ContractOutbox::Specific { outbox, .. } => Some(("outbox", outbox.number())),
        ContractOutbox::Standard => None,
    };
    let allowed = contract.allowed_outboxes.iter().flatten().map(|id| ("allowed", id.number()));
    let inboxes = contract.inboxes.iter().map(|id| ("inbox", id.number()));
    outbox.into_iter().chain(allowed).chain(inboxes).collect()
}

async fn write_contract(
    tx: &mut MySqlConnection,
    change: &Change,
    old: Option<&Contract>,
    contract: &Contract,
) -> Result<Revision> {
    const STAGE: &str = "save a contract";
    let mut new = contract.clone();
    new.revision = Revision::new(contract.revision.number().saturating_add(1));
    let sql = "INSERT INTO postroom_contract
            (id, revision, changed_by, changed_at, queued_limit, per_day_limit, settings)
        VALUES (?, ?, ?, ?, ?, ?, ?)
        ON DUPLICATE KEY UPDATE revision = VALUES(revision), changed_by = VALUES(changed_by),
            changed_at = VALUES(changed_at), queued_limit = VALUES(queued_limit),
            per_day_limit = VALUES(per_day_limit), settings = VALUES(settings)";
    sqlx::query(sql)
        .bind(new.id.as_str())
        .bind(new.revision.number())
        .bind(change.actor.as_str())
        .bind(change.now.as_millis())
        .bind(new.limits.queued.map(i64::from))
        .bind(new.limits.per_day.map(i64::from))
        .bind(to_json(&new)?)
        .execute(&mut *tx)
        .await
        .map_err(failed(STAGE))?;
    let clear = sqlx::query("DELETE FROM postroom_contract_mailbox WHERE contract = ?").bind(new.id.as_str());
    clear.execute(&mut *tx).await.map_err(failed(STAGE))?;
    // A mailbox that is gone breaks the foreign key, which is `NotFound`.
    let sql = concat!(
        "INSERT INTO postroom_contract_mailbox (contract, role, mailbox) SELECT DISTINCT ?, j.role, j.mailbox FROM ",
        json_rows!("?"; role key "[0]", mailbox number "[1]"),
        " j"
    );
    let links = sqlx::query(sql).bind(new.id.as_str()).bind(to_json(&roles(&new))?);
    links.execute(&mut *tx).await.map_err(failed(STAGE))?;
    let action = if old.is_some() { "save" } else { "add" };
    audit::write(tx, change, &contract_subject(&new.id), action, &contract_changes(old, &new)).await?;
    Ok(new.revision)
}

async fn write_step(
    tx: &mut MySqlConnection,
    change: &Change,
    old: Option<&Step>,
    step: &Step,
) -> Result<Revision> {
    let mut new = step.clone();
    new.revision = Revision::new(step.revision.number().saturating_add(1));
    let outbox = match new.outbox {
        StepOutbox::Specific(outbox) => Some(outbox.number()),
        StepOutbox::Contract => None,
    };
    let sql = "INSERT INTO postroom_step (flow, step, revision, changed_by, changed_at, outbox, settings)
        VALUES (?, ?, ?, ?, ?, ?, ?)
        ON DUPLICATE KEY UPDATE revision = VALUES(revision), changed_by = VALUES(changed_by),
            changed_at = VALUES(changed_at), outbox = VALUES(outbox), settings = VALUES(settings)";
    sqlx::query(sql)
        .bind(new.key.flow.as_str())
        .bind(new.key.step.as_str())
        .bind(new.revision.number())
        .bind(change.actor.as_str())
        .bind(change.now.as_millis())
        .bind(outbox)
        .bind(to_json(&new)?)
        .execute(&mut *tx)
        .await
        .map_err(failed("save a step"))?;
    let action = if old.is_some() { "save" } else { "add" };
    audit::write(tx, change, &step_subject(&new.key), action, &step_changes(old, &new)).await?;
    Ok(new.revision)
}

/// Moves the links of contracts and steps from a mailbox to its replacement.
pub(super) async fn relink(
    tx: &mut MySqlConnection,
    change: &Change,
    from: MailboxId,
    to: &Mailbox,
) -> Result<()> {
    const STAGE: &str = "move links";
    let rows: Vec<Settings> = sqlx::query_as(CONTRACTS_WITH)
        .bind(from.number())
        .fetch_all(&mut *tx)
        .await
        .map_err(failed(STAGE))?;
    for (settings,) in rows {
        let old: Contract = from_json(&settings)?;
        let mut new = old.clone();
        if relink_contract(&mut new, from, to).is_some() {
            write_contract(tx, change, Some(&old), &new).await?;
        }
    }
    let rows: Vec<Settings> =
        sqlx::query_as(STEPS_WITH).bind(from.number()).fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
    for (settings,) in rows {
        let old: Step = from_json(&settings)?;
        let mut new = old.clone();
        if relink_step(&mut new, from, to.id).is_some() {
            write_step(tx, change, Some(&old), &new).await?;
        }
    }
    Ok(())
}

fn check_revision(stored: Option<Revision>, read: Revision, stage: &'static str) -> Result<()> {
    if stored.unwrap_or(Revision::new(0)) == read {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::Conflict, stage))
    }
}

#[async_trait]
impl Links for MySqlStore {
    async fn contract(&self, id: &ContractId) -> Result<Option<Contract>> {
        let mut read = self.connections.read("read a contract").await?;
        let row = contract(&mut read, id).await;
        read.finish(row).await
    }

    async fn save_contract(&self, change: &Change, new: &Contract) -> Result<Revision> {
        const STAGE: &str = "save a contract";
        write!(self.connections, STAGE, |tx| {
            locks::registry(tx).await?;
            let old = contract(&mut *tx, &new.id).await?;
            check_revision(old.as_ref().map(|old| old.revision), new.revision, STAGE)?;
            write_contract(tx, change, old.as_ref(), new).await
        })
    }

    async fn contracts<'a>(&self, after: Option<&'a ContractId>, limit: u32) -> Result<Vec<Contract>> {
        const STAGE: &str = "read contracts";
        let mut read = self.connections.read(STAGE).await?;
        // No id is empty, so the empty text is before all of them.
        let query =
            sqlx::query_as(CONTRACTS).bind(after.map_or("", ContractId::as_str)).bind(i64::from(limit));
        let rows = query.fetch_all(&mut *read).await.map_err(failed(STAGE));
        let rows: Vec<Settings> = read.finish(rows).await?;
        rows.iter().map(|(settings,)| from_json(settings)).collect()
    }

    async fn contracts_of(&self, inbox: MailboxId) -> Result<Vec<Contract>> {
        const STAGE: &str = "read the contracts of an inbox";
        let mut read = self.connections.read(STAGE).await?;
        let query = sqlx::query_as(CONTRACTS_OF).bind(inbox.number());
        let rows = query.fetch_all(&mut *read).await.map_err(failed(STAGE));
        let rows: Vec<Settings> = read.finish(rows).await?;
        rows.iter().map(|(settings,)| from_json(settings)).collect()
    }

    async fn step(&self, key: &StepKey) -> Result<Option<Step>> {
        let mut read = self.connections.read("read a step").await?;
        let row = step(&mut read, key).await;
        read.finish(row).await
    }

    async fn save_step(&self, change: &Change, new: &Step) -> Result<Revision> {
        const STAGE: &str = "save a step";
        write!(self.connections, STAGE, |tx| {
            locks::registry(tx).await?;
            let old = step(&mut *tx, &new.key).await?;
            check_revision(old.as_ref().map(|old| old.revision), new.revision, STAGE)?;
            write_step(tx, change, old.as_ref(), new).await
        })
    }

    async fn steps<'a>(&self, after: Option<&'a StepKey>, limit: u32) -> Result<Vec<Step>> {
        const STAGE: &str = "read steps";
        let mut read = self.connections.read(STAGE).await?;
        let (flow, step) = after.map_or(("", ""), |after| (after.flow.as_str(), after.step.as_str()));
        let query = sqlx::query_as(STEPS).bind(flow).bind(flow).bind(step).bind(i64::from(limit));
        let rows = query.fetch_all(&mut *read).await.map_err(failed(STAGE));
        let rows: Vec<Settings> = read.finish(rows).await?;
        rows.iter().map(|(settings,)| from_json(settings)).collect()
    }
}
