//! Locks by name, which last until the transaction ends. Names are told apart by schema. Whoever takes several takes them in the
//! order in which they are listed here, before it locks any row.

use postroom_core::id::{ContractId, MailboxId};
use sqlx::postgres::PgConnection;

use super::connection::failed;
use crate::error::Result;

const EXCLUSIVE: &str =
    "SELECT pg_advisory_xact_lock(hashtextextended('postroom/' || $1::text || '/' || current_schema(), 0))";

const STAGE: &str = "wait for others";

async fn exclusive(tx: &mut PgConnection, name: &str) -> Result<()> {
    sqlx::query(EXCLUSIVE).bind(name).execute(tx).await.map(drop).map_err(failed(STAGE))
}

/// Whoever changes the registry has it to himself among those who do: changes are few and small, and name each other's rows.
/// Those who submit mail lock the rows that they decide by, and do not wait here.
pub(super) async fn registry(tx: &mut PgConnection) -> Result<()> {
    exclusive(tx, "registry").await
}

/// Whoever records the health of a mailbox does so by what is recorded.
pub(super) async fn health(tx: &mut PgConnection, mailbox: MailboxId) -> Result<()> {
    exclusive(tx, &format!("health/{mailbox}")).await
}

/// Whoever pauses a contract waits for those who add unfinished mail of it, and they for him: the mail's copy of the switch
/// follows from the switch.
pub(super) async fn switch(tx: &mut PgConnection, contract: &ContractId) -> Result<()> {
    exclusive(tx, &format!("switch/{contract}")).await
}

/// The other side of [`switch`]: several share it.
pub(super) async fn unswitched(
    tx: &mut PgConnection,
    contracts: impl IntoIterator<Item = String>,
) -> Result<()> {
    // Sorted in a subquery: two that take several take them in one order.
    let sql = "SELECT pg_advisory_xact_lock_shared(key) FROM (
        SELECT DISTINCT hashtextextended('postroom/switch/' || c || '/' || current_schema(), 0) AS key
        FROM unnest($1::text[]) c ORDER BY key) k";
    let contracts: Vec<String> = contracts.into_iter().collect();
    sqlx::query(sql).bind(contracts).execute(tx).await.map(drop).map_err(failed(STAGE))
}

/// Of a contract that has limits one transaction at a time submits, so that no two of them take the last place.
pub(super) async fn limits(tx: &mut PgConnection, contract: &ContractId) -> Result<()> {
    exclusive(tx, &format!("limits/{contract}")).await
}

/// What an outbox may send is taken by one transaction at a time, and given back.
pub(super) async fn budget(tx: &mut PgConnection, outbox: MailboxId) -> Result<()> {
    exclusive(tx, &format!("budget/{outbox}")).await
}

/// Who stores received mail of a mailbox has it to himself: each row of the ledger accounts for one mail.
pub(super) async fn intake(tx: &mut PgConnection, mailbox: MailboxId) -> Result<()> {
    exclusive(tx, &format!("intake/{mailbox}")).await
}

/// Those who take inboxes, renew or end come one after the other: what is a share is counted by what others have.
pub(super) async fn watches(tx: &mut PgConnection) -> Result<()> {
    exclusive(tx, "watches").await
}

/// Those who claim received mail come one after the other: of a mailbox one mail at a time is handled.
pub(super) async fn handlers(tx: &mut PgConnection) -> Result<()> {
    exclusive(tx, "handlers").await
}
