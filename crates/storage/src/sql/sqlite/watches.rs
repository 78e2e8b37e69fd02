//! Who reads which inbox. One transaction at a time writes here, so two that take never take the same.

use async_trait::async_trait;
use postroom_core::id::{MailboxId, Revision, WorkerId};
use postroom_core::time::Timestamp;
use serde_json::json;
use sqlx::sqlite::SqliteConnection;

use super::connection::failed;
use super::store::SqliteStore;
use crate::error::Result;
use crate::sql::rows::{WatchColumns, big, small, to_json, watch};
use crate::watches::{Held, Portion, Reading, Release, Renewal, Watch, WatchLease, Watches, share};

/// Ends watchers that are dead.
pub(super) const BURY: [&str; 2] = [
    "UPDATE postroom_watch SET watcher = NULL
        WHERE watcher IN (SELECT id FROM postroom_watcher WHERE until <= ?1)",
    "DELETE FROM postroom_watcher WHERE until <= ?1",
];

const ALIVE: &str = "INSERT INTO postroom_watcher (id, until) VALUES (?1, ?2)
    ON CONFLICT (id) DO UPDATE SET until = excluded.until";

const STILL_ALIVE: &str = "UPDATE postroom_watcher SET until = ?3 WHERE id = ?1 AND until > ?2";

/// The inboxes that may be read, the watchers, and what one of them has.
pub(super) const SHARE: &str = "SELECT
    (SELECT count(*) FROM postroom_mailbox m WHERE m.kind = 'inbox' AND m.status = 'active'
        AND NOT EXISTS (SELECT 1 FROM postroom_health h WHERE h.mailbox = m.id AND h.suspended <> 0)),
    (SELECT count(*) FROM postroom_watcher WHERE until > ?2),
    (SELECT count(*) FROM postroom_watch WHERE watcher = ?1)";

pub(super) const TAKE: &str = "INSERT INTO postroom_watch (mailbox, watcher, fence)
    SELECT m.id, ?1, 1 FROM postroom_mailbox m
    LEFT JOIN postroom_health h ON h.mailbox = m.id
    LEFT JOIN postroom_watch w ON w.mailbox = m.id
    WHERE m.kind = 'inbox' AND m.status = 'active' AND w.watcher IS NULL AND coalesce(h.suspended, 0) = 0
        AND coalesce(h.next_attempt, 0) <= ?2 AND coalesce(w.due_at, 0) <= ?2
    ORDER BY coalesce(w.read_at, 0), m.id LIMIT ?3
    ON CONFLICT (mailbox) DO UPDATE SET watcher = excluded.watcher, fence = fence + 1, due_at = NULL
    RETURNING mailbox, fence";

pub(super) const READ: &str = "UPDATE postroom_watch AS w SET read_at = j.value ->> 2, way = j.value ->> 3
    FROM json_each(?2) j
    WHERE w.mailbox = j.value ->> 0 AND w.fence = j.value ->> 1 AND w.watcher = ?1";

pub(super) const HELD: &str = "SELECT w.mailbox, w.fence, m.revision
    FROM postroom_watch w CROSS JOIN postroom_mailbox m ON m.id = w.mailbox
    WHERE w.watcher = ?1 AND m.kind = 'inbox' AND m.status = 'active'
        AND NOT EXISTS (SELECT 1 FROM postroom_health h WHERE h.mailbox = m.id AND h.suspended <> 0)
    ORDER BY w.mailbox";

pub(super) const RELEASE: &str = "UPDATE postroom_watch AS w SET watcher = NULL, due_at = j.value ->> 2
    FROM json_each(?2) j
    WHERE w.mailbox = j.value ->> 0 AND w.fence = j.value ->> 1 AND w.watcher = ?1";

const LEAVE: [&str; 2] = [
    "UPDATE postroom_watch SET watcher = NULL WHERE watcher = ?1",
    "DELETE FROM postroom_watcher WHERE id = ?1",
];

const WATCHES: &str = "SELECT w.mailbox, p.id, p.until, w.way, w.read_at, w.due_at FROM postroom_watch w
    LEFT JOIN postroom_watcher p ON p.id = w.watcher AND p.until > ?1
    WHERE ?2 IS NULL OR w.mailbox = ?2 ORDER BY w.mailbox";

async fn bury(tx: &mut SqliteConnection, now: Timestamp, stage: &'static str) -> Result<()> {
    for sql in BURY {
        sqlx::query(sql).bind(now.as_millis()).execute(&mut *tx).await.map_err(failed(stage))?;
    }
    Ok(())
}

/// A watcher's share, and how many inboxes it has.
async fn share_of(
    tx: &mut SqliteConnection,
    now: Timestamp,
    watcher: WorkerId,
    stage: &'static str,
) -> Result<(u32, u32)> {
    let query = sqlx::query_as(SHARE).bind(watcher.uuid()).bind(now.as_millis());
    let (inboxes, watchers, own): (i64, i64, i64) = query.fetch_one(tx).await.map_err(failed(stage))?;
    Ok((share(small(inboxes)?, small(watchers)?), small(own)?))
}

async fn take_in(
    tx: &mut SqliteConnection,
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
    let take = sqlx::query_as(TAKE).bind(watcher.uuid()).bind(now.as_millis()).bind(i64::from(room));
    let rows: Vec<(i64, i64)> = take.fetch_all(tx).await.map_err(failed(STAGE))?;
    let lease = |(mailbox, fence)| Ok(WatchLease { mailbox: MailboxId::new(mailbox), fence: small(fence)? });
    rows.into_iter().map(lease).collect()
}

async fn renew_in(
    tx: &mut SqliteConnection,
    now: Timestamp,
    watcher: WorkerId,
    until: Timestamp,
    readings: &[Reading],
) -> Result<Option<Renewal>> {
    const STAGE: &str = "go on watching";
    let alive = sqlx::query(STILL_ALIVE).bind(watcher.uuid()).bind(now.as_millis()).bind(until.as_millis());
    if alive.execute(&mut *tx).await.map_err(failed(STAGE))?.rows_affected() == 0 {
        return Ok(None);
    }
    if !readings.is_empty() {
        let row = |one: &Reading| {
            let (mailbox, fence) = (one.lease.mailbox.number(), big(one.lease.fence));
            json!([mailbox, fence, one.read_at.as_millis(), one.way.word()])
        };
        let rows: Vec<_> = readings.iter().map(row).collect();
        let read = sqlx::query(READ).bind(watcher.uuid()).bind(to_json(&rows)?);
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
impl Watches for SqliteStore {
    async fn take(
        &self,
        now: Timestamp,
        watcher: WorkerId,
        limit: u32,
        portion: Portion,
        until: Timestamp,
    ) -> Result<Vec<WatchLease>> {
        let mut tx = self.connections.write("take inboxes").await?;
        let done = take_in(&mut tx, now, watcher, limit, portion, until).await;
        tx.finish(done).await
    }

    async fn renew(
        &self,
        now: Timestamp,
        watcher: WorkerId,
        until: Timestamp,
        readings: &[Reading],
    ) -> Result<Option<Renewal>> {
        let mut tx = self.connections.write("go on watching").await?;
        let done = renew_in(&mut tx, now, watcher, until, readings).await;
        tx.finish(done).await
    }

    async fn release(&self, watcher: WorkerId, leases: &[Release]) -> Result<()> {
        const STAGE: &str = "give inboxes back";
        let row = |one: &Release| {
            let (mailbox, fence) = (one.lease.mailbox.number(), big(one.lease.fence));
            json!([mailbox, fence, one.due_at.map(Timestamp::as_millis)])
        };
        let rows: Vec<_> = leases.iter().map(row).collect();
        let mut tx = self.connections.write(STAGE).await?;
        let release = sqlx::query(RELEASE).bind(watcher.uuid()).bind(to_json(&rows)?);
        let done = release.execute(&mut *tx).await.map_err(failed(STAGE));
        tx.finish(done).await.map(drop)
    }

    async fn leave(&self, watcher: WorkerId) -> Result<()> {
        const STAGE: &str = "end a watcher";
        let mut tx = self.connections.write(STAGE).await?;
        let done = async {
            for sql in LEAVE {
                sqlx::query(sql).bind(watcher.uuid()).execute(&mut *tx).await.map_err(failed(STAGE))?;
            }
            Ok(())
        };
        let done = done.await;
        tx.finish(done).await
    }

    async fn watches(&self, now: Timestamp, mailbox: Option<MailboxId>) -> Result<Vec<Watch>> {
        const STAGE: &str = "read who watches";
        let mut read = self.connections.read(STAGE).await?;
        let query = sqlx::query_as(WATCHES).bind(now.as_millis()).bind(mailbox.map(MailboxId::number));
        let rows = query.fetch_all(&mut *read).await.map_err(failed(STAGE));
        let rows: Vec<WatchColumns> = read.finish(rows).await?;
        rows.into_iter().map(watch).collect()
    }
}
