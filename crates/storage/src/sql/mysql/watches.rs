//! Who reads which inbox. Those who take inboxes, renew or end come one after the other, by a lock of that name.

use async_trait::async_trait;
use postroom_core::id::{MailboxId, Revision, WorkerId};
use postroom_core::time::Timestamp;
use serde_json::json;
use sqlx::mysql::MySqlConnection;

use super::connection::{failed, write};
use super::json::json_rows;
use super::locks;
use super::store::MySqlStore;
use crate::error::Result;
use crate::sql::rows::{WatchColumns, big, small, to_json, watch};
use crate::watches::{Held, Portion, Reading, Release, Renewal, Watch, WatchLease, Watches, share};

/// Ends watchers that are dead.
pub(super) const BURY: [&str; 2] = [
    "UPDATE postroom_watch w JOIN postroom_watcher p ON p.id = w.watcher SET w.watcher = NULL WHERE p.until <= ?",
    "DELETE FROM postroom_watcher WHERE until <= ?",
];

const ALIVE: &str = "INSERT INTO postroom_watcher (id, until) VALUES (?, ?)
    ON DUPLICATE KEY UPDATE until = VALUES(until)";

const IS_ALIVE: &str = "SELECT 1 FROM postroom_watcher WHERE id = ? AND until > ?";

/// The inboxes that may be read, the watchers, and what one of them has.
pub(super) const SHARE: &str = "SELECT
    (SELECT count(*) FROM postroom_mailbox m FORCE INDEX (postroom_mailbox_usable)
        LEFT JOIN postroom_health h ON h.mailbox = m.id
        WHERE m.kind = 'inbox' AND m.status = 'active' AND COALESCE(h.suspended, 0) = 0),
    (SELECT count(*) FROM postroom_watcher WHERE until > ?),
    (SELECT count(*) FROM postroom_watch WHERE watcher = ?)";

pub(super) const DUE: &str = "SELECT m.id FROM postroom_mailbox m FORCE INDEX (postroom_mailbox_usable)
    LEFT JOIN postroom_health h ON h.mailbox = m.id
    LEFT JOIN postroom_watch w ON w.mailbox = m.id
    WHERE m.kind = 'inbox' AND m.status = 'active' AND w.watcher IS NULL AND COALESCE(h.suspended, 0) = 0
        AND COALESCE(h.next_attempt, 0) <= ? AND COALESCE(w.due_at, 0) <= ?
    ORDER BY COALESCE(w.read_at, 0), m.id LIMIT ?";

pub(super) const TAKE: &str = concat!(
    "INSERT INTO postroom_watch (mailbox, watcher, fence) SELECT j.mailbox, ?, 1 FROM ",
    json_rows!("?"; mailbox number ""),
    " j ON DUPLICATE KEY UPDATE watcher = VALUES(watcher), fence = postroom_watch.fence + 1, due_at = NULL"
);

pub(super) const FENCES: &str = concat!(
    "SELECT w.mailbox, w.fence FROM ",
    json_rows!("?"; mailbox number ""),
    " j STRAIGHT_JOIN postroom_watch w FORCE INDEX (PRIMARY) ON w.mailbox = j.mailbox ORDER BY j.place"
);

pub(super) const READ: &str = concat!(
    "UPDATE ",
    json_rows!("?"; mailbox number "[0]", fence number "[1]", read_at number "[2]", way key "[3]"),
    " j STRAIGHT_JOIN postroom_watch w FORCE INDEX (PRIMARY) ON w.mailbox = j.mailbox
    SET w.read_at = j.read_at, w.way = j.way WHERE w.fence = j.fence AND w.watcher = ?"
);

pub(super) const HELD: &str = "SELECT w.mailbox, w.fence, m.revision
    FROM postroom_watch w FORCE INDEX (postroom_watch_watcher) STRAIGHT_JOIN postroom_mailbox m ON m.id = w.mailbox
    LEFT JOIN postroom_health h ON h.mailbox = m.id
    WHERE w.watcher = ? AND m.kind = 'inbox' AND m.status = 'active' AND COALESCE(h.suspended, 0) = 0
    ORDER BY w.mailbox";

pub(super) const RELEASE: &str = concat!(
    "UPDATE ",
    json_rows!("?"; mailbox number "[0]", fence number "[1]", due_at number "[2]"),
    " j STRAIGHT_JOIN postroom_watch w FORCE INDEX (PRIMARY) ON w.mailbox = j.mailbox
    SET w.watcher = NULL, w.due_at = j.due_at WHERE w.fence = j.fence AND w.watcher = ?"
);

const LEAVE: [&str; 2] = [
    "UPDATE postroom_watch SET watcher = NULL WHERE watcher = ?",
    "DELETE FROM postroom_watcher WHERE id = ?",
];

const WATCHES: &str = "SELECT w.mailbox, p.id, p.until, w.way, w.read_at, w.due_at FROM postroom_watch w
    LEFT JOIN postroom_watcher p ON p.id = w.watcher AND p.until > ?
    WHERE ? IS NULL OR w.mailbox = ? ORDER BY w.mailbox";

async fn bury(tx: &mut MySqlConnection, now: Timestamp, stage: &'static str) -> Result<()> {
    for sql in BURY {
        sqlx::query(sql).bind(now.as_millis()).execute(&mut *tx).await.map_err(failed(stage))?;
    }
    Ok(())
}

/// A watcher's share, and how many inboxes it has.
async fn share_of(
    tx: &mut MySqlConnection,
    now: Timestamp,
    watcher: WorkerId,
    stage: &'static str,
) -> Result<(u32, u32)> {
    let query = sqlx::query_as(SHARE).bind(now.as_millis()).bind(watcher.uuid());
    let (inboxes, watchers, own): (i64, i64, i64) = query.fetch_one(tx).await.map_err(failed(stage))?;
    Ok((share(small(inboxes)?, small(watchers)?), small(own)?))
}

async fn take_in(
    tx: &mut MySqlConnection,
    now: Timestamp,
    watcher: WorkerId,
    limit: u32,
    portion: Portion,
    until: Timestamp,
) -> Result<Vec<WatchLease>> {
    const STAGE: &str = "take inboxes";
    bury(tx, now, STAGE).await?;
    let alive = sqlx::query(ALIVE).bind(watcher.uuid()).bind(until.as_millis());
    alive.execute(&mut *tx).await.map_err(failed(STAGE))?;
    let room = match portion {
        Portion::Share => {
            let (share, own) = share_of(tx, now, watcher, STAGE).await?;
            share.saturating_sub(own).min(limit)
        }
        Portion::All => limit,
    };
    if room == 0 {
        return Ok(Vec::new());
    }
    let due = sqlx::query_as(DUE).bind(now.as_millis()).bind(now.as_millis()).bind(i64::from(room));
    let due: Vec<(i64,)> = due.fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let due = to_json(&due.into_iter().map(|(mailbox,)| mailbox).collect::<Vec<_>>())?;
    let take = sqlx::query(TAKE).bind(watcher.uuid()).bind(due.clone());
    take.execute(&mut *tx).await.map_err(failed(STAGE))?;
    let rows = sqlx::query_as(FENCES).bind(due).fetch_all(tx).await;
    let rows: Vec<(i64, i64)> = rows.map_err(failed(STAGE))?;
    let lease = |(mailbox, fence)| Ok(WatchLease { mailbox: MailboxId::new(mailbox), fence: small(fence)? });
    rows.into_iter().map(lease).collect()
}

async fn renew_in(
    tx: &mut MySqlConnection,
    now: Timestamp,
    watcher: WorkerId,
    until: Timestamp,
    readings: &[Reading],
) -> Result<Option<Renewal>> {
    const STAGE: &str = "go on watching";
    // How many rows an update has changed says nothing here: one that stays as it is counts as not changed.
    let is_alive = sqlx::query(IS_ALIVE).bind(watcher.uuid()).bind(now.as_millis());
    if is_alive.fetch_optional(&mut *tx).await.map_err(failed(STAGE))?.is_none() {
        return Ok(None);
    }
    let alive = sqlx::query(ALIVE).bind(watcher.uuid()).bind(until.as_millis());
    alive.execute(&mut *tx).await.map_err(failed(STAGE))?;
    if !readings.is_empty() {
        let row = |one: &Reading| {
            let (mailbox, fence) = (one.lease.mailbox.number(), big(one.lease.fence));
            json!([mailbox, fence, one.read_at.as_millis(), one.way.word()])
        };
        let rows: Vec<_> = readings.iter().map(row).collect();
        let read = sqlx::query(READ).bind(to_json(&rows)?).bind(watcher.uuid());
        read.execute(&mut *tx).await.map_err(failed(STAGE))?;
    }
    let held = sqlx::query_as(HELD).bind(watcher.uuid()).fetch_all(&mut *tx).await;
    let held: Vec<(i64, i64, i64)> = held.map_err(failed(STAGE))?;
    let one = |(mailbox, fence, revision)| {
        let lease = WatchLease { mailbox: MailboxId::new(mailbox), fence: small(fence)? };
        Ok(Held { lease, revision: Revision::new(small(revision)?) })
    };
    let held = held.into_iter().map(one).collect::<Result<_>>()?;
    let (share, _) = share_of(tx, now, watcher, STAGE).await?;
    Ok(Some(Renewal { held, share }))
}

#[async_trait]
impl Watches for MySqlStore {
    async fn take(
        &self,
        now: Timestamp,
        watcher: WorkerId,
        limit: u32,
        portion: Portion,
        until: Timestamp,
    ) -> Result<Vec<WatchLease>> {
        write!(self.connections, "take inboxes", |tx| {
            locks::watches(tx).await?;
            take_in(tx, now, watcher, limit, portion, until).await
        })
    }

    async fn renew(
        &self,
        now: Timestamp,
        watcher: WorkerId,
        until: Timestamp,
        readings: &[Reading],
    ) -> Result<Option<Renewal>> {
        write!(self.connections, "go on watching", |tx| {
            locks::watches(tx).await?;
            renew_in(tx, now, watcher, until, readings).await
        })
    }

    async fn release(&self, watcher: WorkerId, leases: &[Release]) -> Result<()> {
        const STAGE: &str = "give inboxes back";
        let row = |one: &Release| {
            let (mailbox, fence) = (one.lease.mailbox.number(), big(one.lease.fence));
            json!([mailbox, fence, one.due_at.map(Timestamp::as_millis)])
        };
        let rows = to_json(&leases.iter().map(row).collect::<Vec<_>>())?;
        write!(self.connections, STAGE, |tx| {
            locks::watches(tx).await?;
            let release = sqlx::query(RELEASE).bind(rows.as_str()).bind(watcher.uuid());
            release.execute(tx).await.map(drop).map_err(failed(STAGE))
        })
    }

    async fn leave(&self, watcher: WorkerId) -> Result<()> {
        const STAGE: &str = "end a watcher";
        write!(self.connections, STAGE, |tx| {
            locks::watches(tx).await?;
            for sql in LEAVE {
                sqlx::query(sql).bind(watcher.uuid()).execute(&mut *tx).await.map_err(failed(STAGE))?;
            }
            Ok(())
        })
    }

    async fn watches(&self, now: Timestamp, mailbox: Option<MailboxId>) -> Result<Vec<Watch>> {
        const STAGE: &str = "read who watches";
        let mut read = self.connections.read(STAGE).await?;
        let number = mailbox.map(MailboxId::number);
        let query = sqlx::query_as(WATCHES).bind(now.as_millis()).bind(number).bind(number);
        let rows = query.fetch_all(&mut *read).await.map_err(failed(STAGE));
        let rows: Vec<WatchColumns> = read.finish(rows).await?;
        rows.into_iter().map(watch).collect()
    }
}
