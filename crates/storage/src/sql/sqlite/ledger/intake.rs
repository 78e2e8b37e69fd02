//! What fetchers write: places, baselines, received mails with their bytes, and what their servers were told.

use async_trait::async_trait;
use postroom_core::id::{LedgerId, MailboxId, Revision};
use postroom_core::ledger::{Place, RemoteKey};
use postroom_core::time::Timestamp;
use serde_json::json;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::insert::insert_script;
use super::recognise::recognise;
use super::row;
use crate::error::Result;
use crate::ledger::{
    Contact, LedgerEntry, LedgerIntake, LeftOut, Reached, Received, Stored, Told, Unsettled,
};
use crate::sql::recognise::Passed;
use crate::sql::rows::{
    big, contact, from_json, hex, latest, ledger_ids, new_ledger_id, sought, text, to_json, unhex, unreadable,
};
use crate::sql::sqlite::connection::{BEGIN, failed};
use crate::sql::sqlite::script::{Script, over_rows};
use crate::sql::sqlite::store::SqliteStore;
use crate::transition::place::PlaceRow;

/// A folder has few epochs.
pub(in crate::sql::sqlite) const LATEST: &str = "SELECT max(epoch) FROM postroom_ledger_place
    WHERE mailbox = ?1 AND folder = ?2 AND (epoch & 4294967295) = ?3";

pub(in crate::sql::sqlite) const CONTACT: &str = "SELECT
    (SELECT frontier FROM postroom_ledger_place WHERE mailbox = ?1 AND folder = ?2 AND epoch = ?3),
    (SELECT seen_at FROM postroom_ledger_place WHERE mailbox = ?1 AND folder = ?2 AND epoch = ?3),
    (SELECT baseline_at FROM postroom_ledger_place WHERE mailbox = ?1 AND folder = ?2 AND epoch = ?3),
    (SELECT max(seen_at) FROM postroom_ledger_place WHERE mailbox = ?1 AND folder = ?2 AND epoch <> ?3)";

/// Of each mail the one that has its key, and whether one of the same bytes is there, whatever its key. In one row, as below: each row
/// is a message of SQLite's thread.
pub(in crate::sql::sqlite) const LOOK: &str = over_rows!(
    "SELECT json_group_array(json_array(
    (SELECT hex(m.id) FROM postroom_ledger_mail m WHERE m.mailbox = r.value ->> 0 AND m.folder = r.value ->> 1
        AND m.epoch = r.value ->> 2 AND m.remote_key = r.value ->> 3),
    EXISTS (SELECT 1 FROM postroom_ledger_mail t
        WHERE t.mailbox = r.value ->> 0 AND t.folder = r.value ->> 1 AND t.sha256 = unhex(r.value ->> 4))) ORDER BY r.key)
    FROM r"
);

pub(in crate::sql::sqlite) const UNKNOWN: &str =
    "SELECT json_group_array(j.key ORDER BY j.key) FROM json_each(?4) j
    WHERE NOT EXISTS (SELECT 1 FROM postroom_ledger_mail m
        WHERE m.mailbox = ?1 AND m.folder = ?2 AND m.epoch = ?3 AND m.remote_key = j.value)";

pub(in crate::sql::sqlite) const UNSETTLED: &str = "SELECT id, remote_key FROM postroom_ledger_mail
    WHERE mailbox = ?1 AND folder = ?2 AND epoch = ?3
        AND settle_at IS NOT NULL AND settled_at IS NULL AND settle_at <= ?4
    ORDER BY number LIMIT ?5 + 0";

const SKIP: &str = "INSERT INTO postroom_ledger_mail
    (id, mailbox, folder, epoch, remote_key, size, stored_at, state, reasons, sender, subject, attempts)
    SELECT unhex(value ->> 0), ?1, ?2, ?3, value ->> 1, 0, ?5, 'ignored', '[\"baseline\"]', '', '', 0
    FROM json_each(?4) WHERE true ORDER BY key
    ON CONFLICT (mailbox, folder, epoch, remote_key) DO NOTHING";

pub(in crate::sql::sqlite) const SETTLED: &str = "UPDATE postroom_ledger_mail SET settled_at = ?2, kept = ?3
    WHERE settled_at IS NULL AND id IN (SELECT unhex(value) FROM json_each(?1)) RETURNING id";

const STAGE: &str = "store received mails";

/// What becomes of mails, and the last statements of it. A call of SQLite's thread begins the transaction and looks, one more writes and
/// commits, and what of the contents is too much for one goes ahead.
async fn store_in(
    tx: &mut SqliteConnection,
    now: Timestamp,
    mails: &[Received],
) -> Result<(Vec<Stored>, Script)> {
    let mut look = Script::default();
    look.then(BEGIN).then(LOOK).with(to_json(&mails.iter().map(sought).collect::<Vec<_>>())?)?;
    let looks = look.texts(tx, STAGE).await?.next().ok_or_else(unreadable)?;
    let looks: Vec<(Option<String>, i64)> = from_json(&looks)?;
    let (mut stored, mut new, mut passed) = (Vec::new(), Vec::new(), Passed::default());
    for (mail, (known, has_twin)) in mails.iter().zip(looks) {
        stored.push(match known {
            Some(id) => Stored::Known(LedgerId::from_uuid(unhex(&id)?.ok_or_else(unreadable)?)),
            None if has_twin != 0
                && let Some(stored) = recognise(tx, now, mail, &mut passed).await? =>
            {
                stored
            }
            None => {
                new.push(mail);
                Stored::New(mail.id)
            }
        });
    }
    Ok((stored, insert_script(tx, now, &new).await?))
}

async fn settled_in(tx: &mut SqliteConnection, now: Timestamp, ids: &[LedgerId], told: Told) -> Result<()> {
    let update = sqlx::query_as(SETTLED).bind(ledger_ids(ids.iter().copied())?).bind(now.as_millis());
    let update = update.bind(told == Told::Keep);
    let told: Vec<(Uuid,)> =
        update.fetch_all(&mut *tx).await.map_err(failed("record what a server was told"))?;
    let told = told.into_iter().map(|(id,)| LedgerId::from_uuid(id));
    row::note(tx, told.map(|id| (id, LedgerEntry::new(now, "settled", None, String::new())))).await
}

/// Writes what is known of a place beside what is there.
async fn reach(tx: &mut SqliteConnection, place: &Place, reached: PlaceRow) -> sqlx::Result<()> {
    let sql = "INSERT INTO postroom_ledger_place (mailbox, folder, epoch, frontier, seen_at, baseline_at)
        VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (mailbox, folder, epoch) DO UPDATE
        SET frontier = max(frontier, excluded.frontier), seen_at = max(seen_at, excluded.seen_at)";
    let query = sqlx::query(sql).bind(place.mailbox.number()).bind(place.folder.as_str());
    let query = query.bind(big(place.epoch)).bind(i64::from(reached.frontier));
    let query = query.bind(reached.whole_at.as_millis());
    query.bind(reached.baseline_at.map(|at| at.as_millis())).execute(tx).await.map(drop)
}

/// Whether the mailbox still has this revision.
async fn is_still(tx: &mut SqliteConnection, mailbox: MailboxId, revision: Revision) -> sqlx::Result<bool> {
    let sql = "SELECT revision FROM postroom_mailbox WHERE id = ?";
    let found: Option<(i64,)> = sqlx::query_as(sql).bind(mailbox.number()).fetch_optional(tx).await?;
    Ok(found == Some((revision.number(),)))
}

async fn skip_in(
    tx: &mut SqliteConnection,
    now: Timestamp,
    place: &Place,
    left_out: &LeftOut,
    rows: &str,
) -> sqlx::Result<bool> {
    if !is_still(tx, place.mailbox, left_out.revision).await? {
        return Ok(false);
    }
    let query = sqlx::query(SKIP).bind(place.mailbox.number()).bind(place.folder.as_str());
    query.bind(big(place.epoch)).bind(rows).bind(now.as_millis()).execute(&mut *tx).await?;
    reach(tx, place, PlaceRow::behind(left_out)).await?;
    Ok(true)
}

#[async_trait]
impl LedgerIntake for SqliteStore {
    async fn latest(&self, place: &Place) -> Result<Place> {
        const STAGE: &str = "look a place up";
        let mut read = self.connections.read(STAGE).await?;
        let query = sqlx::query_as(LATEST).bind(place.mailbox.number()).bind(place.folder.as_str());
        let row = query.bind(big(place.validity())).fetch_one(&mut *read).await.map_err(failed(STAGE));
        latest(place, read.finish(row).await?)
    }

    async fn contact(&self, place: &Place) -> Result<Contact> {
        const STAGE: &str = "look a place up";
        let mut read = self.connections.read(STAGE).await?;
        let query = sqlx::query_as(CONTACT).bind(place.mailbox.number()).bind(place.folder.as_str());
        let row = query.bind(big(place.epoch)).fetch_one(&mut *read).await.map_err(failed(STAGE));
        contact(read.finish(row).await?)
    }

    async fn advance(&self, place: &Place, reached: Reached) -> Result<()> {
        const STAGE: &str = "advance a frontier";
        let mut tx = self.connections.write(STAGE).await?;
        let done = reach(&mut tx, place, PlaceRow::of(reached)).await.map_err(failed(STAGE));
        tx.finish(done).await
    }

    async fn unknown(&self, place: &Place, keys: &[RemoteKey]) -> Result<Vec<RemoteKey>> {
        const STAGE: &str = "find unknown mails";
        let mut read = self.connections.read(STAGE).await?;
        let query = sqlx::query_as(UNKNOWN).bind(place.mailbox.number()).bind(place.folder.as_str());
        let query = query.bind(big(place.epoch)).bind(to_json(keys)?);
        let row = query.fetch_one(&mut *read).await.map_err(failed(STAGE));
        let (unknown,): (String,) = read.finish(row).await?;
        let unknown: Vec<usize> = from_json(&unknown)?;
        Ok(unknown.into_iter().filter_map(|index| keys.get(index).cloned()).collect())
    }

    async fn skip(&self, now: Timestamp, place: &Place, left_out: &LeftOut) -> Result<bool> {
        const STAGE: &str = "record a baseline";
        let row = |key: &RemoteKey| Ok(json!([hex(new_ledger_id(now)?.uuid()), key]));
        let rows = left_out.keys.iter().map(row).collect::<Result<Vec<_>>>()?;
        let rows = to_json(&rows)?;
        let mut tx = self.connections.write(STAGE).await?;
        let done = skip_in(&mut tx, now, place, left_out, &rows).await.map_err(failed(STAGE));
        tx.finish(done).await
    }

    async fn store(&self, now: Timestamp, mails: &[Received]) -> Result<Vec<Stored>> {
        let mut turn = self.connections.turn(STAGE).await?;
        let done = store_in(&mut turn, now, mails).await;
        turn.finish_by(done).await
    }

    async fn unsettled(&self, now: Timestamp, place: &Place, limit: u32) -> Result<Vec<Unsettled>> {
        const STAGE: &str = "find what a server is to be told";
        let mut read = self.connections.read(STAGE).await?;
        let query = sqlx::query_as(UNSETTLED).bind(place.mailbox.number()).bind(place.folder.as_str());
        let query = query.bind(big(place.epoch)).bind(now.as_millis()).bind(i64::from(limit));
        let rows = query.fetch_all(&mut *read).await.map_err(failed(STAGE));
        let rows: Vec<(Uuid, String)> = read.finish(rows).await?;
        let mail =
            |(id, key): (Uuid, String)| Ok(Unsettled { id: LedgerId::from_uuid(id), key: text(&key)? });
        rows.into_iter().map(mail).collect()
    }

    async fn settled(&self, now: Timestamp, ids: &[LedgerId], told: Told) -> Result<()> {
        let mut tx = self.connections.write("record what a server was told").await?;
        let done = settled_in(&mut tx, now, ids, told).await;
        tx.finish(done).await
    }
}
