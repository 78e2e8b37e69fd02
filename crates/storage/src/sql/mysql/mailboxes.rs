//! Mailboxes: numbers, rows, search, and what uses them. Links are in `links`, switches in `switches`.

use async_trait::async_trait;
use postroom_core::id::{MailboxId, Revision};
use postroom_core::mailbox::{Mailbox, MailboxDraft};
use sqlx::mysql::MySqlConnection;

use super::connection::{failed, write};
use super::store::MySqlStore;
use super::{audit, budgets, lanes, links, locks, switches};
use crate::audit::{mailbox_changes, mailbox_subject};
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::Sealed;
use crate::registry::{Change, Direction, MailboxQuery, Mailboxes, SecretWrite, Sort, Uses};
use crate::sql::rows::{MailboxColumns, mailbox, page, small, text, to_json, unreadable};
use crate::transition::registry::{companion, with_companion};

pub(super) const BY_ID: &str = "SELECT id, settings, status, revision, changed_by, changed_at
    FROM postroom_mailbox WHERE id = ?";

pub(super) const COMPANIONS: &str = "SELECT id, settings, status, revision, changed_by, changed_at
    FROM postroom_mailbox WHERE companion = ? ORDER BY id";

/// What the covering index answers, page by page; the rows of the page are read by their number.
macro_rules! search {
    ($index:literal, $after:literal, $order:literal, $sort:literal) => {
        concat!(
            "SELECT m.id, m.settings, m.status, m.revision, m.changed_by, m.changed_at FROM (
                SELECT i.id FROM postroom_mailbox i FORCE INDEX FOR ORDER BY (",
            $index,
            ") WHERE (? IS NULL OR INSTR(LOWER(i.server), ?) > 0)
                    AND (? IS NULL OR INSTR(LOWER(i.description), ?) > 0)
                    AND (? IS NULL OR i.kind = ?)
                    AND (? IS NULL OR i.status = ?)
                    AND (? IS NULL OR EXISTS (SELECT 1 FROM postroom_contract_mailbox l
                        WHERE l.mailbox = i.id AND l.contract = ?))
                    AND (? IS NULL OR ",
            $after,
            ") ORDER BY ",
            $order,
            " LIMIT ?) page STRAIGHT_JOIN postroom_mailbox m FORCE INDEX (PRIMARY) ON m.id = page.id ORDER BY ",
            $sort
        )
    };
}

pub(super) const SEARCHES: [&str; 4] = [
    search!("postroom_mailbox_by_id", "? IS NULL OR i.id > ?", "i.id", "m.id"),
    search!("postroom_mailbox_by_id", "? IS NULL OR i.id < ?", "i.id DESC", "m.id DESC"),
    search!("postroom_mailbox_by_server", "(i.server, i.id) > (?, ?)", "i.server, i.id", "m.server, m.id"),
    search!(
        "postroom_mailbox_by_server",
        "(i.server, i.id) < (?, ?)",
        "i.server DESC, i.id DESC",
        "m.server DESC, m.id DESC"
    ),
];

pub(super) const USES: [&str; 6] = [
    "SELECT DISTINCT contract FROM postroom_contract_mailbox WHERE mailbox = ? ORDER BY contract",
    "SELECT flow, step FROM postroom_step WHERE outbox = ? ORDER BY flow, step",
    "SELECT id FROM postroom_mailbox WHERE companion = ? ORDER BY id",
    "SELECT count(*) FROM postroom_standard WHERE singleton = 1 AND outbox = ?",
    "SELECT count(*) FROM postroom_queue_open WHERE outbox = ?",
    "SELECT count(*) FROM postroom_ledger_mail
        WHERE mailbox = ? AND state IN ('stored', 'triage', 'quarantined')",
];

/// The mailbox with this number.
pub(super) async fn by_id(connection: &mut MySqlConnection, id: MailboxId) -> Result<Option<Mailbox>> {
    let query = sqlx::query_as(BY_ID).bind(id.number());
    let row: Option<MailboxColumns> =
        query.fetch_optional(connection).await.map_err(failed("read a mailbox"))?;
    row.map(mailbox).transpose()
}

fn owner(id: MailboxId) -> String {
    mailbox_subject(id)
}

async fn write_secret(tx: &mut MySqlConnection, id: MailboxId, secret: &SecretWrite) -> Result<u64> {
    const STAGE: &str = "write a sealed secret";
    let query = match secret {
        SecretWrite::Keep => return Ok(0),
        SecretWrite::Clear => {
            sqlx::query("DELETE FROM postroom_secret WHERE owner = ? AND field = 'password'").bind(owner(id))
        }
        SecretWrite::Set(sealed) => {
            let sql = "INSERT INTO postroom_secret (owner, field, sealed) VALUES (?, 'password', ?)
                ON DUPLICATE KEY UPDATE sealed = VALUES(sealed)";
            sqlx::query(sql).bind(owner(id)).bind(sealed.as_bytes().to_vec())
        }
    };
    Ok(query.execute(tx).await.map_err(failed(STAGE))?.rows_affected())
}

/// Inserts or overwrites a row as it is; the number is the last of the parameters.
async fn put(tx: &mut MySqlConnection, mailbox: &Mailbox, sql: &'static str) -> Result<()> {
    let settings = &mailbox.settings;
    sqlx::query(sql)
        .bind(settings.kind().word())
        .bind(mailbox.status.word())
        .bind(settings.endpoint().host.to_string())
        .bind(settings.description().to_owned())
        .bind(companion(settings).map(MailboxId::number))
        .bind(mailbox.revision.number())
        .bind(mailbox.changed_by.as_str().to_owned())
        .bind(mailbox.changed_at.as_millis())
        .bind(to_json(&MailboxDraft::from(settings))?)
        .bind(mailbox.id.number())
        .execute(tx)
        .await
        .map_err(failed("write a mailbox"))?;
    Ok(())
}

const INSERT: &str = "INSERT INTO postroom_mailbox
    (kind, status, server, description, companion, revision, changed_by, changed_at, settings, id)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

const UPDATE: &str = "UPDATE postroom_mailbox SET kind = ?, status = ?, server = ?, description = ?,
    companion = ?, revision = ?, changed_by = ?, changed_at = ?, settings = ? WHERE id = ?";

/// The mailbox as a change leaves it.
fn stamped(mailbox: &Mailbox, change: &Change, revision: Revision) -> Mailbox {
    let (id, settings, status) = (mailbox.id, mailbox.settings.clone(), mailbox.status);
    Mailbox::new(id, settings, status, revision, change.actor.clone(), change.now)
}

/// Writes the new state of a stored mailbox, with its audit entry.
async fn rewrite(
    tx: &mut MySqlConnection,
    change: &Change,
    old: &Mailbox,
    new: &Mailbox,
    secret: &SecretWrite,
) -> Result<Revision> {
    let new = stamped(new, change, Revision::new(old.revision.number().saturating_add(1)));
    put(tx, &new, UPDATE).await?;
    write_secret(tx, new.id, secret).await?;
    let changes = mailbox_changes(Some(old), Some(&new), secret);
    audit::write(tx, change, &mailbox_subject(new.id), "save", &changes).await?;
    lanes::ring(tx, [new.id]).await?;
    budgets::ask_anew(tx, new.id).await?;
    Ok(new.revision)
}

async fn add_in(
    tx: &mut MySqlConnection,
    change: &Change,
    mailbox: &Mailbox,
    secret: Option<Sealed>,
) -> Result<()> {
    locks::registry(tx).await?;
    let new = stamped(mailbox, change, mailbox.revision);
    put(tx, &new, INSERT).await?;
    let sql = "UPDATE postroom_sequence SET last = GREATEST(last, ?) WHERE name = 'mailbox'";
    sqlx::query(sql).bind(new.id.number()).execute(&mut *tx).await.map_err(failed("add a mailbox"))?;
    let secret = secret.map_or(SecretWrite::Keep, SecretWrite::Set);
    write_secret(tx, new.id, &secret).await?;
    let changes = mailbox_changes(None, Some(&new), &secret);
    audit::write(tx, change, &mailbox_subject(new.id), "add", &changes).await?;
    lanes::ring(tx, [new.id]).await
}

async fn save_in(
    tx: &mut MySqlConnection,
    change: &Change,
    mailbox: &Mailbox,
    secret: &SecretWrite,
) -> Result<Revision> {
    const STAGE: &str = "save a mailbox";
    locks::registry(tx).await?;
    let old = by_id(tx, mailbox.id).await?.ok_or_else(|| Error::new(ErrorKind::NotFound, STAGE))?;
    if old.revision != mailbox.revision || old.settings.kind() != mailbox.settings.kind() {
        return Err(Error::new(ErrorKind::Conflict, STAGE));
    }
    rewrite(tx, change, &old, mailbox, secret).await
}

async fn uses_in(connection: &mut MySqlConnection, id: MailboxId) -> Result<Uses> {
    const STAGE: &str = "find what uses a mailbox";
    let [contracts, steps, companion_of, standard, queued, unhandled] = USES;
    let id = id.number();
    let contracts: Vec<(String,)> =
        sqlx::query_as(contracts).bind(id).fetch_all(&mut *connection).await.map_err(failed(STAGE))?;
    let steps: Vec<(String, String)> =
        sqlx::query_as(steps).bind(id).fetch_all(&mut *connection).await.map_err(failed(STAGE))?;
    let companion_of: Vec<(i64,)> =
        sqlx::query_as(companion_of).bind(id).fetch_all(&mut *connection).await.map_err(failed(STAGE))?;
    let mut counts = [0u64; 3];
    for (sql, count) in [standard, queued, unhandled].into_iter().zip(&mut counts) {
        let (number,): (i64,) =
            sqlx::query_as(sql).bind(id).fetch_one(&mut *connection).await.map_err(failed(STAGE))?;
        *count = small(number)?;
    }
    let [standard, queued, unhandled] = counts;
    Ok(Uses {
        contracts: contracts.iter().map(|(id,)| text(id)).collect::<Result<_>>()?,
        steps: steps.iter().map(|(flow, step)| links::key(flow, step)).collect::<Result<_>>()?,
        companion_of: companion_of.into_iter().map(|(id,)| MailboxId::new(id)).collect(),
        standard: standard > 0,
        queued,
        unhandled,
    })
}

/// Moves everything that names a mailbox to its replacement.
async fn relink(tx: &mut MySqlConnection, change: &Change, from: MailboxId, to: &Mailbox) -> Result<()> {
    let query = sqlx::query_as(COMPANIONS).bind(from.number());
    let rows: Vec<MailboxColumns> = query.fetch_all(&mut *tx).await.map_err(failed("move a companion"))?;
    for row in rows {
        let old = mailbox(row)?;
        let mut new = old.clone();
        new.settings = with_companion(&old.settings, to.id).map_err(|_| unreadable())?;
        rewrite(tx, change, &old, &new, &SecretWrite::Keep).await?;
    }
    links::relink(tx, change, from, to).await?;
    if switches::standard(tx).await? == Some(from) {
        switches::make_standard(tx, change, Some(to.id)).await?;
    }
    Ok(())
}

async fn remove_in(
    tx: &mut MySqlConnection,
    change: &Change,
    id: MailboxId,
    replacement: Option<MailboxId>,
) -> Result<()> {
    const STAGE: &str = "remove a mailbox";
    let refused = |kind| Error::new(kind, STAGE);
    locks::registry(tx).await?;
    // Whoever submits a mail to it holds its row: what is counted below is then committed, or refused.
    let lock = sqlx::query("SELECT 1 FROM postroom_mailbox WHERE id = ? FOR UPDATE").bind(id.number());
    lock.execute(&mut *tx).await.map_err(failed(STAGE))?;
    let mailbox = by_id(tx, id).await?.ok_or_else(|| refused(ErrorKind::NotFound))?;
    let to = match replacement {
        Some(to) => Some(by_id(tx, to).await?.ok_or_else(|| refused(ErrorKind::NotFound))?),
        None => None,
    };
    if to.as_ref().is_some_and(|to| to.id == id || to.settings.kind() != mailbox.settings.kind()) {
        return Err(refused(ErrorKind::Conflict));
    }
    let uses = uses_in(tx, id).await?;
    if uses.queued > 0 || uses.unhandled > 0 || (to.is_none() && !uses.is_empty()) {
        return Err(refused(ErrorKind::InUse));
    }
    if let Some(to) = to {
        relink(tx, change, id, &to).await?;
    }
    let had_secret = write_secret(tx, id, &SecretWrite::Clear).await? > 0;
    for sql in [
        "DELETE FROM postroom_health WHERE mailbox = ?",
        "DELETE FROM postroom_watch WHERE mailbox = ?",
        "DELETE FROM postroom_budget WHERE owner = CONCAT('outbox/', ?)",
        "DELETE FROM postroom_pause WHERE scope = 'outbox' AND subject = CAST(? AS CHAR)",
        "DELETE FROM postroom_mailbox WHERE id = ?",
    ] {
        sqlx::query(sql).bind(id.number()).execute(&mut *tx).await.map_err(failed(STAGE))?;
    }
    lanes::ring(tx, [id]).await?;
    let secret = if had_secret { SecretWrite::Clear } else { SecretWrite::Keep };
    let changes = mailbox_changes(Some(&mailbox), None, &secret);
    audit::write(tx, change, &mailbox_subject(id), "remove", &changes).await
}

#[async_trait]
impl Mailboxes for MySqlStore {
    async fn reserve(&self) -> Result<MailboxId> {
        const STAGE: &str = "reserve a number";
        let next = "UPDATE postroom_sequence SET last = last + 1 WHERE name = 'mailbox'";
        let read = "SELECT last FROM postroom_sequence WHERE name = 'mailbox'";
        let (number,): (i64,) = write!(self.connections, STAGE, |tx| {
            sqlx::query(next).execute(&mut *tx).await.map_err(failed(STAGE))?;
            sqlx::query_as(read).fetch_one(tx).await.map_err(failed(STAGE))
        })?;
        Ok(MailboxId::new(number))
    }

    async fn add(&self, change: &Change, mailbox: &Mailbox, secret: Option<Sealed>) -> Result<()> {
        write!(self.connections, "add a mailbox", |tx| add_in(tx, change, mailbox, secret.clone()).await)
    }

    async fn save(&self, change: &Change, mailbox: &Mailbox, secret: SecretWrite) -> Result<Revision> {
        write!(self.connections, "save a mailbox", |tx| save_in(tx, change, mailbox, &secret).await)
    }

    async fn mailbox(&self, id: MailboxId) -> Result<Option<Mailbox>> {
        let mut read = self.connections.read("read a mailbox").await?;
        let row = by_id(&mut read, id).await;
        read.finish(row).await
    }

    async fn search(&self, query: &MailboxQuery) -> Result<Vec<Mailbox>> {
        const STAGE: &str = "search mailboxes";
        let [by_id, by_id_down, by_server, by_server_down] = SEARCHES;
        let sql = match (query.sort, query.direction) {
            (Sort::Id, Direction::Ascending) => by_id,
            (Sort::Id, Direction::Descending) => by_id_down,
            (Sort::Server, Direction::Ascending) => by_server,
            (Sort::Server, Direction::Descending) => by_server_down,
        };
        let part = |text: &Option<String>| text.as_ref().map(|text| text.to_ascii_lowercase());
        let mut read = self.connections.read(STAGE).await?;
        let (server, description) = (part(&query.server), part(&query.description));
        let (kind, status) = (query.kind.map(|kind| kind.word()), query.status.map(|status| status.word()));
        let contract = query.contract.as_ref().map(|id| id.as_str().to_owned());
        let after = query.after.as_ref().map(|after| after.id.number());
        let rows = sqlx::query_as(sql).bind(server.clone()).bind(server).bind(description.clone());
        let rows = rows.bind(description).bind(kind).bind(kind).bind(status).bind(status);
        let rows = rows
            .bind(contract.clone())
            .bind(contract)
            .bind(after)
            .bind(query.after.as_ref().map(|after| after.server.clone()))
            .bind(after)
            .bind(page(query.limit))
            .fetch_all(&mut *read)
            .await
            .map_err(failed(STAGE));
        let rows: Vec<MailboxColumns> = read.finish(rows).await?;
        rows.into_iter().map(mailbox).collect()
    }

    async fn secret(&self, id: MailboxId) -> Result<Option<Sealed>> {
        const STAGE: &str = "read a sealed secret";
        let mut read = self.connections.read(STAGE).await?;
        let sql = "SELECT sealed FROM postroom_secret WHERE owner = ? AND field = 'password'";
        let row = sqlx::query_as(sql).bind(owner(id)).fetch_optional(&mut *read).await.map_err(failed(STAGE));
        let row: Option<(Vec<u8>,)> = read.finish(row).await?;
        Ok(row.map(|(sealed,)| Sealed::from_bytes(sealed)))
    }

    async fn uses(&self, id: MailboxId) -> Result<Uses> {
        const STAGE: &str = "find what uses a mailbox";
        let mut read = self.connections.snapshot(STAGE).await?;
        let done = async {
            by_id(&mut read, id).await?.ok_or_else(|| Error::new(ErrorKind::NotFound, STAGE))?;
            uses_in(&mut read, id).await
        };
        let done = done.await;
        read.finish(done).await
    }

    async fn remove(&self, change: &Change, id: MailboxId, replacement: Option<MailboxId>) -> Result<()> {
        write!(self.connections, "remove a mailbox", |tx| remove_in(tx, change, id, replacement).await)
    }
}
