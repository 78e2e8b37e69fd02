//! Who reads which inbox. Those who take inboxes, renew or end come one after the other, by a lock of that name.

use async_trait::async_trait;
use postroom_core::id::{MailboxId, Revision, WorkerId};
use postroom_core::time::Timestamp;
use sqlx::postgres::PgConnection;

use super::connection::{failed, write};
use super::locks;
use super::store::PgStore;
use crate::error::Result;
use crate::sql::rows::{WatchColumns, big, small, watch};
use crate::watches::{Held, Portion, Reading, Release, Renewal, Watch, WatchLease, Watches, share};

/// Ends watchers that are dead.
pub(super) const BURY: [&str; 2] = [
    "UPDATE postroom_watch SET watcher = NULL
        WHERE watcher IN (SELECT id FROM postroom_watcher WHERE until <= $1)",
    "DELETE FROM postroom_watcher WHERE until <= $1",
];

const ALIVE: &str = "INSERT INTO postroom_watcher (id, until) VALUES ($1, $2)
    ON CONFLICT (id) DO UPDATE SET until = excluded.until";

const STILL_ALIVE: &str = "UPDATE postroom_watcher SET until = $3 WHERE id = $1 AND until > $2";

/// The inboxes that may be read, the watchers, and what one of them has.
pub(super) const SHARE: &str = "SELECT
    (SELECT count(*) FROM postroom_mailbox m WHERE m.kind = 'inbox' AND m.status = 'active'
        AND NOT EXISTS (SELECT 1 FROM postroom_health h WHERE h.mailbox = m.id AND h.suspended)),
    (SELECT count(*) FROM postroom_watcher WHERE until > $2),
    (SELECT count(*) FROM postroom_watch WHERE watcher = $1)";

pub(super) const TAKE: &str = "INSERT INTO postroom_watch (mailbox, watcher, fence)
    SELECT m.id, $1, 1::bigint FROM postroom_mailbox m
    LEFT JOIN postroom_health h ON h.mailbox = m.id
    LEFT JOIN postroom_watch w ON w.mailbox = m.id
    WHERE m.kind = 'inbox' AND m.status = 'active' AND w.watcher IS NULL AND NOT coalesce(h.suspended, false)
        AND coalesce(h.next_attempt, 0) <= $2 AND coalesce(w.due_at, 0) <= $2
    ORDER BY coalesce(w.read_at, 0), m.id LIMIT $3
    ON CONFLICT (mailbox) DO UPDATE SET watcher = excluded.watcher, fence = postroom_watch.fence + 1, due_at = NULL
    RETURNING mailbox, fence";

pub(super) const READ: &str = "UPDATE postroom_watch AS w SET read_at = j.read_at, way = j.way
    FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::text[]) AS j (mailbox, fence, read_at, way)
    WHERE w.mailbox = j.mailbox AND w.fence = j.fence AND w.watcher = $1";

pub(super) const HELD: &str = "SELECT w.mailbox, w.fence, m.revision
    FROM postroom_watch w JOIN postroom_mailbox m ON m.id = w.mailbox
    WHERE w.watcher = $1 AND m.kind = 'inbox' AND m.status = 'active'
        AND NOT EXISTS (SELECT 1 FROM postroom_health h WHERE h.mailbox = m.id AND h.suspended)
    ORDER BY w.mailbox";

pub(super) const RELEASE: &str = "UPDATE postroom_watch AS w SET watcher = NULL, due_at = j.due_at
    FROM unnest($2::bigint[], $3::bigint[], $4::bigint[]) AS j (mailbox, fence, due_at)
    WHERE w.mailbox = j.mailbox AND w.fence = j.fence AND w.watcher = $1";

const LEAVE: [&str; 2] = [
    "UPDATE postroom_watch SET watcher = NULL WHERE watcher = $1",
    "DELETE FROM postroom_watcher WHERE id = $1",
];

const WATCHES: &str = "SELECT w.mailbox, p.id, p.until, w.way, w.read_at, w.due_at FROM postroom_watch w
    LEFT JOIN postroom_watcher p ON p.id = w.watcher AND p.until > $1
    WHERE $2::bigint IS NULL OR w.mailbox = $2 ORDER BY w.mailbox";

async fn bury(tx: &mut PgConnection, now: Timestamp, stage: &'static str) -> Result<()> {
    for sql in BURY {
        sqlx::query(sql).bind(now.as_millis()).execute(&mut *tx).await.map_err(failed(stage))?;
    }
    Ok(())
}

/// The columns of leases.
fn columns(leases: impl Iterator<Item = WatchLease>) -> (Vec<i64>, Vec<i64>) {
    leases.map(|lease| (lease.mailbox.number(), big(lease.fence))).unzip()
}

/// A watcher's share, and how many inboxes it has.
async fn share_of(
    tx: &mut PgConnection,
    now: Timestamp,
    watcher: WorkerId,
    stage: &'static str,
) -> Result<(u32, u32)> {
    let query = sqlx::query_as(SHARE).bind(watcher.uuid()).bind(now.as_millis());
    let (inboxes, watchers, own): (i64, i64, i64) = query.fetch_one(tx).await.map_err(failed(stage))?;
    Ok((share(small(inboxes)?, small(watchers)?), small(own)?))
}

async fn take_in(
    tx: &mut PgConnection,
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
    tx: &mut PgConnection,
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
        let (mailboxes, fences) = columns(readings.iter().map(|one| one.lease));
        let times: Vec<i64> = readings.iter().map(|one| one.read_at.as_millis()).collect();
        let ways: Vec<&str> = readings.iter().map(|one| one.way.word()).collect();
        let read = sqlx::query(READ).bind(watcher.uuid()).bind(mailboxes).bind(fences).bind(times).bind(ways);
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
impl Watches for PgStore {
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
        let (mailboxes, fences) = columns(leases.iter().map(|one| one.lease));
        let due: Vec<_> = leases.iter().map(|one| one.due_at.map(Timestamp::as_millis)).collect();
        write!(self.connections, STAGE, |tx| {
            locks::watches(tx).await?;
            let release = sqlx::query(RELEASE).bind(watcher.uuid()).bind(&mailboxes).bind(&fences).bind(&due);
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
        let query = sqlx::query_as(WATCHES).bind(now.as_millis()).bind(mailbox.map(MailboxId::number));
        let rows = query.fetch_all(&mut *read).await.map_err(failed(STAGE));
        let rows: Vec<WatchColumns> = read.finish(rows).await?;
        rows.into_iter().map(watch).collect()
    }
}
