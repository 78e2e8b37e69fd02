//! Locks by name, which last until the transaction ends: rows that are there for nothing else. Whoever takes several takes them in
//! the order in which they are listed here, before it locks any other row. What has a place by its hash waits for others of that
//! place, too, which costs some time and nothing else.

use std::collections::BTreeSet;

use postroom_core::id::{ContractId, MailboxId};
use sha2::{Digest, Sha256};
use sqlx::mysql::MySqlConnection;

use super::connection::failed;
use super::json::json_rows;
use crate::error::Result;
use crate::sql::rows::to_json;

pub(super) const EXCLUSIVE: &str = "SELECT place FROM postroom_lock WHERE scope = ? AND place = ? FOR UPDATE";

pub(super) const SHARED: &str = concat!(
    "SELECT l.place FROM ",
    json_rows!("?"; slot number ""),
    " j STRAIGHT_JOIN postroom_lock l FORCE INDEX (PRIMARY) ON l.scope = 'switch' AND l.place = j.slot
    LOCK IN SHARE MODE"
);

const STAGE: &str = "wait for others";

async fn exclusive(tx: &mut MySqlConnection, scope: &'static str, place: i64) -> Result<()> {
    let lock = sqlx::query(EXCLUSIVE).bind(scope).bind(place);
    lock.fetch_one(tx).await.map(drop).map_err(failed(STAGE))
}

/// The place of a contract.
fn place(contract: &str) -> i64 {
    Sha256::digest(contract.as_bytes()).first().copied().map_or(0, i64::from)
}

/// The place of a mailbox.
fn place_of(mailbox: MailboxId) -> i64 {
    mailbox.number().rem_euclid(256)
}

/// Whoever changes the registry has it to himself among those who do: changes are few and small, and name each other's rows.
/// Those who submit mail lock the rows that they decide by, and do not wait here.
pub(super) async fn registry(tx: &mut MySqlConnection) -> Result<()> {
    exclusive(tx, "registry", 0).await
}

/// Whoever records the health of a mailbox does so by what is recorded.
pub(super) async fn health(tx: &mut MySqlConnection, mailbox: MailboxId) -> Result<()> {
    exclusive(tx, "health", place_of(mailbox)).await
}

/// Whoever pauses a contract waits for those who add unfinished mail of it, and they for him: the mail's copy of the switch
/// follows from the switch.
pub(super) async fn switch(tx: &mut MySqlConnection, contract: &ContractId) -> Result<()> {
    exclusive(tx, "switch", place(contract.as_str())).await
}

/// The other side of [`switch`]: several share it.
pub(super) async fn unswitched(
    tx: &mut MySqlConnection,
    contracts: impl IntoIterator<Item = String>,
) -> Result<()> {
    // Sorted: two that take several take them in one order.
    let places: BTreeSet<i64> = contracts.into_iter().map(|contract| place(&contract)).collect();
    let lock = sqlx::query(SHARED).bind(to_json(&places)?);
    lock.fetch_all(tx).await.map(drop).map_err(failed(STAGE))
}

/// Of contracts that have limits one transaction at a time submits, so that no two of them take the last place.
pub(super) async fn limits<'a>(
    tx: &mut MySqlConnection,
    contracts: impl IntoIterator<Item = &'a ContractId>,
) -> Result<()> {
    let places: BTreeSet<i64> = contracts.into_iter().map(|contract| place(contract.as_str())).collect();
    for place in places {
        exclusive(tx, "limits", place).await?;
    }
    Ok(())
}

/// What an outbox may send is taken by one transaction at a time, and given back.
pub(super) async fn budget(tx: &mut MySqlConnection, outbox: MailboxId) -> Result<()> {
    exclusive(tx, "budget", place_of(outbox)).await
}

/// Who stores received mail of a mailbox has it to himself: each row of the ledger accounts for one mail.
pub(super) async fn intake(tx: &mut MySqlConnection, mailbox: MailboxId) -> Result<()> {
    exclusive(tx, "intake", place_of(mailbox)).await
}

/// Those who take inboxes, renew or end come one after the other: what is a share is counted by what others have.
pub(super) async fn watches(tx: &mut MySqlConnection) -> Result<()> {
    exclusive(tx, "watches", 0).await
}

/// Those who claim received mail come one after the other: of a mailbox one mail at a time is handled.
pub(super) async fn handlers(tx: &mut MySqlConnection) -> Result<()> {
    exclusive(tx, "handlers", 0).await
}

/// Those who answer bells come one after the other.
pub(super) async fn bells(tx: &mut MySqlConnection) -> Result<()> {
    exclusive(tx, "bells", 0).await
}
