//! What came back: reports on sent mail, and the suppression lists.

use async_trait::async_trait;
use postroom_core::address::Address;
use postroom_core::id::{ContractId, QueueId};
use postroom_core::message::OnSuppressed;
use postroom_core::queue::Prepared;
use postroom_core::suppression::{Suppression, suppressed_form};
use postroom_core::time::Timestamp;
use sqlx::postgres::PgConnection;

use super::audit;
use super::connection::{failed, write};
use super::plain::plain;
use super::queue::report::report_in as record;
use super::store::PgStore;
use crate::audit::{suppression_changes, suppression_subject};
use crate::error::{Error, ErrorKind, Result};
use crate::registry::Change;
use crate::sql::rows::{SuppressionColumns, page, suppression};
use crate::suppressions::{RecipientReport, SuppressionQuery, Suppressions};

const ONE: &str =
    "SELECT contract, address, cause, detail, mail, added_at, expires_at FROM postroom_suppression
    WHERE contract = $1 AND address = $2";

pub(super) const STOPPED: &str = "SELECT contract, address, cause, detail, mail, added_at, expires_at
    FROM postroom_suppression WHERE contract = $1 AND address = ANY($2) ORDER BY address";

/// By contract; all. Both behind an address.
pub(super) const LISTS: [&str; 2] = [
    "SELECT contract, address, cause, detail, mail, added_at, expires_at FROM postroom_suppression
        WHERE contract = $1 AND address > $2 AND (expires_at IS NULL OR expires_at > $3) ORDER BY contract, address LIMIT $4",
    "SELECT contract, address, cause, detail, mail, added_at, expires_at FROM postroom_suppression
        WHERE (contract > $1 OR contract = $2 AND address > $3) AND (expires_at IS NULL OR expires_at > $4) ORDER BY contract, address LIMIT $5",
];

const PUT: &str = "INSERT INTO postroom_suppression
    (contract, address, cause, detail, mail, added_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (contract, address) DO UPDATE SET cause = excluded.cause, detail = excluded.detail, mail = excluded.mail,
        added_at = excluded.added_at, expires_at = excluded.expires_at";

const REMOVE: &str = "DELETE FROM postroom_suppression WHERE contract = $1 AND address = $2";

pub(super) const OVER: &str = "DELETE FROM postroom_suppression WHERE (contract, address) IN (
    SELECT contract, address FROM postroom_suppression WHERE expires_at <= $1 LIMIT $2)";

async fn one(
    tx: &mut PgConnection,
    contract: &ContractId,
    address: &Address,
    stage: &'static str,
) -> Result<Option<Suppression>> {
    let query = sqlx::query_as(ONE).bind(contract.as_str()).bind(address.as_str());
    let row: Option<SuppressionColumns> = query.fetch_optional(tx).await.map_err(failed(stage))?;
    row.map(suppression).transpose()
}

async fn put(tx: &mut PgConnection, entry: &Suppression, stage: &'static str) -> Result<()> {
    let query = sqlx::query(PUT).bind(entry.contract.as_str()).bind(entry.address.as_str());
    let query = query
        .bind(entry.cause.word())
        .bind(plain(&entry.detail).into_owned())
        .bind(entry.mail.map(QueueId::uuid));
    let query = query.bind(entry.added_at.as_millis()).bind(entry.expires_at.map(Timestamp::as_millis));
    query.execute(tx).await.map(drop).map_err(failed(stage))
}

async fn report_in(
    tx: &mut PgConnection,
    now: Timestamp,
    id: QueueId,
    reports: &[RecipientReport],
) -> Result<bool> {
    const STAGE: &str = "record a report";
    let changed = record(tx, now, id, reports).await?;
    for new in reports.iter().filter_map(|report| report.suppression.as_ref()) {
        let old = one(tx, &new.contract, &new.address, STAGE).await?;
        if new.replaces(old.as_ref(), now) {
            put(tx, new, STAGE).await?;
        }
    }
    Ok(changed)
}

async fn suppress_in(tx: &mut PgConnection, change: &Change, new: &Suppression) -> Result<()> {
    const STAGE: &str = "suppress an address";
    let old = one(tx, &new.contract, &new.address, STAGE).await?;
    put(tx, new, STAGE).await?;
    let subject = suppression_subject(&new.contract, &new.address);
    audit::write(tx, change, &subject, "set", &suppression_changes(old.as_ref(), Some(new))).await
}

async fn unsuppress_in(
    tx: &mut PgConnection,
    change: &Change,
    contract: &ContractId,
    address: &Address,
) -> Result<bool> {
    const STAGE: &str = "take an address off the suppression list";
    let address = suppressed_form(address);
    let Some(old) = one(tx, contract, &address, STAGE).await? else { return Ok(false) };
    let query = sqlx::query(REMOVE).bind(contract.as_str()).bind(address.as_str());
    query.execute(&mut *tx).await.map_err(failed(STAGE))?;
    let subject = suppression_subject(contract, &address);
    audit::write(tx, change, &subject, "remove", &suppression_changes(Some(&old), None)).await?;
    Ok(true)
}

/// Of these addresses those that get no mail of the contract.
async fn stopped(
    connection: &mut PgConnection,
    now: Timestamp,
    contract: &ContractId,
    addresses: &[Address],
    stage: &'static str,
) -> Result<Vec<Suppression>> {
    let addresses: Vec<String> =
        addresses.iter().map(|address| suppressed_form(address).to_string()).collect();
    let query = sqlx::query_as(STOPPED).bind(contract.as_str()).bind(addresses);
    let rows: Vec<SuppressionColumns> = query.fetch_all(connection).await.map_err(failed(stage))?;
    let entries: Vec<Suppression> = rows.into_iter().map(suppression).collect::<Result<_>>()?;
    Ok(entries.into_iter().filter(|entry| entry.stops(now)).collect())
}

/// Refuses a mail to addresses on its contract's list, unless it says that it goes all the same.
pub(super) async fn keep_to_list(
    connection: &mut PgConnection,
    now: Timestamp,
    mail: &Prepared,
    stage: &'static str,
) -> Result<()> {
    if mail.on_suppressed == OnSuppressed::Send {
        return Ok(());
    }
    let addresses: Vec<Address> = mail.recipients.iter().map(|one| one.address.clone()).collect();
    match stopped(connection, now, &mail.contract, &addresses, stage).await? {
        none if none.is_empty() => Ok(()),
        found => Err(Error::new(ErrorKind::Suppressed(found), stage)),
    }
}

/// Removes entries whose time is over.
pub(super) async fn prune(tx: &mut PgConnection, now: Timestamp, limit: u32) -> Result<()> {
    let query = sqlx::query(OVER).bind(now.as_millis()).bind(i64::from(limit));
    query.execute(tx).await.map(drop).map_err(failed("prune the suppression lists"))
}

#[async_trait]
impl Suppressions for PgStore {
    async fn report(&self, now: Timestamp, id: QueueId, reports: &[RecipientReport]) -> Result<bool> {
        write!(self.connections, "record a report", |tx| report_in(tx, now, id, reports).await)
    }

    async fn suppressed(
        &self,
        now: Timestamp,
        contract: &ContractId,
        addresses: &[Address],
    ) -> Result<Vec<Suppression>> {
        const STAGE: &str = "look at the suppression list";
        let mut read = self.connections.read(STAGE).await?;
        let found = stopped(&mut read, now, contract, addresses, STAGE).await;
        read.finish(found).await
    }

    async fn suppressions(&self, now: Timestamp, query: &SuppressionQuery) -> Result<Vec<Suppression>> {
        const STAGE: &str = "list suppressed addresses";
        let [of, all] = LISTS;
        let after = query.after.as_ref();
        let address = after.map_or("", |(_, address)| address.as_str());
        let behind = after.map_or("", |(contract, _)| contract.as_str());
        let limit = page(query.limit);
        let mut read = self.connections.read(STAGE).await?;
        let rows = match &query.contract {
            Some(contract) => {
                // Behind an entry of another contract is all of this one, or nothing.
                let address = if behind == contract.as_str() { address } else { "" };
                let limit = if behind > contract.as_str() { 0 } else { limit };
                let query = sqlx::query_as(of).bind(contract.as_str()).bind(address);
                query.bind(now.as_millis()).bind(limit).fetch_all(&mut *read).await
            }
            None => {
                let query = sqlx::query_as(all).bind(behind).bind(behind).bind(address);
                query.bind(now.as_millis()).bind(limit).fetch_all(&mut *read).await
            }
        };
        let rows: Vec<SuppressionColumns> = read.finish(rows.map_err(failed(STAGE))).await?;
        rows.into_iter().map(suppression).collect()
    }

    async fn suppress(&self, change: &Change, entry: &Suppression) -> Result<()> {
        write!(self.connections, "suppress an address", |tx| suppress_in(tx, change, entry).await)
    }

    async fn unsuppress(&self, change: &Change, contract: &ContractId, address: &Address) -> Result<bool> {
        write!(self.connections, "take an address off the suppression list", |tx| unsuppress_in(
            tx, change, contract, address
        )
        .await)
    }
}
