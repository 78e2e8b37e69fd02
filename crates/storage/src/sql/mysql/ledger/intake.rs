//! What fetchers write: places, baselines, received mails with their bytes, and what their servers were told.

use std::collections::BTreeSet;

use async_trait::async_trait;
use postroom_core::id::{LedgerId, MailboxId, Revision};
use postroom_core::ledger::{Place, RemoteKey};
use postroom_core::time::Timestamp;
use serde_json::json;
use sqlx::mysql::MySqlConnection;
use uuid::Uuid;

use super::insert::insert;
use super::recognise::recognise;
use super::row;
use crate::error::Result;
use crate::ledger::{
    Contact, LedgerEntry, LedgerIntake, LeftOut, Reached, Received, Stored, Told, Unsettled,
};
use crate::sql::mysql::connection::{failed, write};
use crate::sql::mysql::json::json_rows;
use crate::sql::mysql::locks;
use crate::sql::mysql::store::MySqlStore;
use crate::sql::recognise::Passed;
use crate::sql::rows::{big, contact, hex, latest, ledger_ids, new_ledger_id, sought, text, to_json};
use crate::transition::place::PlaceRow;

/// A folder has few epochs.
pub(in crate::sql::mysql) const LATEST: &str = "SELECT max(epoch) FROM postroom_ledger_place
    WHERE mailbox = ? AND folder = ? AND (epoch & 4294967295) = ?";

pub(in crate::sql::mysql) const CONTACT: &str = "SELECT
    (SELECT frontier FROM postroom_ledger_place WHERE mailbox = ? AND folder = ? AND epoch = ?),
    (SELECT seen_at FROM postroom_ledger_place WHERE mailbox = ? AND folder = ? AND epoch = ?),
    (SELECT baseline_at FROM postroom_ledger_place WHERE mailbox = ? AND folder = ? AND epoch = ?),
    (SELECT max(seen_at) FROM postroom_ledger_place WHERE mailbox = ? AND folder = ? AND epoch <> ?)";

/// Of each mail the one that has its key, and whether one of the same bytes is there, whatever its key.
pub(in crate::sql::mysql) const LOOK: &str = concat!(
    "SELECT (SELECT m.id FROM postroom_ledger_mail m FORCE INDEX (postroom_ledger_mail_key)
        WHERE m.mailbox = j.mailbox AND m.folder = CAST(j.folder AS BINARY) AND m.epoch = j.epoch
            AND m.remote_key = CAST(j.sought AS BINARY)),
    EXISTS (SELECT 1 FROM postroom_ledger_mail t FORCE INDEX (postroom_ledger_mail_content)
        WHERE t.mailbox = j.mailbox AND t.folder = CAST(j.folder AS BINARY) AND t.sha256 = UNHEX(j.content))
    FROM ",
    json_rows!("?"; mailbox number "[0]", folder text "[1]", epoch number "[2]", sought text "[3]", content key "[4]"),
    " j ORDER BY j.place"
);

pub(in crate::sql::mysql) const UNKNOWN: &str = concat!(
    "SELECT CAST(j.place AS SIGNED) FROM ",
    json_rows!("?"; sought text ""),
    " j WHERE NOT EXISTS (SELECT 1 FROM postroom_ledger_mail m FORCE INDEX (postroom_ledger_mail_key)
        WHERE m.mailbox = ? AND m.folder = ? AND m.epoch = ? AND m.remote_key = CAST(j.sought AS BINARY))
    ORDER BY j.place"
);

pub(in crate::sql::mysql) const UNSETTLED: &str =
    "SELECT id, CONVERT(remote_key USING utf8mb4) FROM postroom_ledger_mail FORCE INDEX (postroom_ledger_mail_telling)
    WHERE mailbox = ? AND folder = ? AND epoch = ? AND telling_at <= ? ORDER BY number LIMIT ?";

/// A key that is there stays as it is. The parameters are mailbox, folder, epoch, time, rows.
const SKIP: &str = concat!(
    "INSERT INTO postroom_ledger_mail
        (id, mailbox, folder, epoch, remote_key, size, stored_at, state, reasons, sender, subject, attempts)
    SELECT UNHEX(j.given), ?, ?, ?, CAST(j.sought AS BINARY), 0, ?, 'ignored', '[\"baseline\"]', '', '', 0 FROM ",
    json_rows!("?"; given id "[0]", sought text "[1]"),
    " j ORDER BY j.place ON DUPLICATE KEY UPDATE size = postroom_ledger_mail.size"
);

pub(in crate::sql::mysql) const UNTOLD: &str = concat!(
    "SELECT m.id FROM ",
    json_rows!("?"; sought id ""),
    " j STRAIGHT_JOIN postroom_ledger_mail m FORCE INDEX (postroom_ledger_mail_id) ON m.id = UNHEX(j.sought)
    WHERE m.settled_at IS NULL FOR UPDATE"
);

pub(in crate::sql::mysql) const SETTLED: &str = concat!(
    "UPDATE ",
    json_rows!("?"; sought id ""),
    " j STRAIGHT_JOIN postroom_ledger_mail m FORCE INDEX (postroom_ledger_mail_id) ON m.id = UNHEX(j.sought)
    SET m.settled_at = ?, m.kept = ?"
);

const STAGE: &str = "store received mails";

/// How many keys one statement takes: at the longest they are 2 MB.
const TOGETHER: usize = 2000;

async fn store_in(tx: &mut MySqlConnection, now: Timestamp, mails: &[Received]) -> Result<Vec<Stored>> {
    let mailboxes: BTreeSet<MailboxId> = mails.iter().map(|mail| mail.place.mailbox).collect();
    for mailbox in mailboxes {
        locks::intake(tx, mailbox).await?;
    }
    let look = sqlx::query_as(LOOK).bind(to_json(&mails.iter().map(sought).collect::<Vec<_>>())?);
    let looks: Vec<(Option<Uuid>, bool)> = look.fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
    let (mut stored, mut new, mut passed) = (Vec::new(), Vec::new(), Passed::default());
    for (mail, (known, has_twin)) in mails.iter().zip(looks) {
        stored.push(match known {
            Some(id) => Stored::Known(LedgerId::from_uuid(id)),
            None if has_twin && let Some(stored) = recognise(tx, now, mail, &mut passed).await? => stored,
            None => {
                new.push(mail);
                Stored::New(mail.id)
            }
        });
    }
    insert(tx, now, &new).await?;
    Ok(stored)
}

async fn settled_in(tx: &mut MySqlConnection, now: Timestamp, ids: &[LedgerId], told: Told) -> Result<()> {
    const STAGE: &str = "record what a server was told";
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    let kept = told == Told::Keep;
    let untold = sqlx::query_as(UNTOLD).bind(ledger_ids(ids)?).fetch_all(&mut *tx).await;
    let told: Vec<(Uuid,)> = untold.map_err(failed(STAGE))?;
    let ids = ledger_ids(told.iter().map(|(id,)| LedgerId::from_uuid(*id)))?;
    let update = sqlx::query(SETTLED).bind(ids).bind(now.as_millis()).bind(kept);
    update.execute(&mut *tx).await.map_err(failed(STAGE))?;
    let told = told.into_iter().map(|(id,)| LedgerId::from_uuid(id));
    row::note(tx, told.map(|id| (id, LedgerEntry::new(now, "settled", None, String::new())))).await
}

/// Writes what is known of a place beside what is there.
async fn reach(tx: &mut MySqlConnection, place: &Place, reached: PlaceRow) -> sqlx::Result<()> {
    let sql = "INSERT INTO postroom_ledger_place (mailbox, folder, epoch, frontier, seen_at, baseline_at)
        VALUES (?, ?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE
        frontier = GREATEST(frontier, VALUES(frontier)), seen_at = GREATEST(seen_at, VALUES(seen_at))";
    let query = sqlx::query(sql).bind(place.mailbox.number()).bind(place.folder.as_bytes());
    let query = query.bind(big(place.epoch)).bind(i64::from(reached.frontier));
    let query = query.bind(reached.whole_at.as_millis());
    query.bind(reached.baseline_at.map(|at| at.as_millis())).execute(tx).await.map(drop)
}

/// Whether the mailbox still has this revision. Nobody changes it before the transaction ends.
async fn is_still(tx: &mut MySqlConnection, mailbox: MailboxId, revision: Revision) -> sqlx::Result<bool> {
    let sql = "SELECT revision FROM postroom_mailbox WHERE id = ? LOCK IN SHARE MODE";
    let found: Option<(i64,)> = sqlx::query_as(sql).bind(mailbox.number()).fetch_optional(tx).await?;
    Ok(found == Some((revision.number(),)))
}

#[async_trait]
impl LedgerIntake for MySqlStore {
    async fn latest(&self, place: &Place) -> Result<Place> {
        const STAGE: &str = "look a place up";
        let mut read = self.connections.read(STAGE).await?;
        let query = sqlx::query_as(LATEST).bind(place.mailbox.number()).bind(place.folder.as_bytes());
        let row = query.bind(big(place.validity())).fetch_one(&mut *read).await.map_err(failed(STAGE));
        latest(place, read.finish(row).await?)
    }

    async fn contact(&self, place: &Place) -> Result<Contact> {
        const STAGE: &str = "look a place up";
        let mut read = self.connections.read(STAGE).await?;
        let query = sqlx::query_as(CONTACT).bind(place.mailbox.number()).bind(place.folder.as_bytes());
        let mut query = query.bind(big(place.epoch));
        for _ in 0..3 {
            query = query.bind(place.mailbox.number()).bind(place.folder.as_bytes());
            query = query.bind(big(place.epoch));
        }
        let row = query.fetch_one(&mut *read).await.map_err(failed(STAGE));
        contact(read.finish(row).await?)
    }

    async fn advance(&self, place: &Place, reached: Reached) -> Result<()> {
        const STAGE: &str = "advance a frontier";
        write!(self.connections, STAGE, |tx| {
            reach(tx, place, PlaceRow::of(reached)).await.map_err(failed(STAGE))
        })
    }

    async fn unknown(&self, place: &Place, keys: &[RemoteKey]) -> Result<Vec<RemoteKey>> {
        const STAGE: &str = "find unknown mails";
        let mut read = self.connections.read(STAGE).await?;
        let mut unknown = Vec::new();
        for keys in keys.chunks(TOGETHER) {
            let query = sqlx::query_as(UNKNOWN).bind(to_json(keys)?).bind(place.mailbox.number());
            let query = query.bind(place.folder.as_bytes()).bind(big(place.epoch));
            let rows: Vec<(i64,)> = match query.fetch_all(&mut *read).await.map_err(failed(STAGE)) {
                Ok(rows) => rows,
                Err(error) => return read.finish(Err(error)).await,
            };
            let key = |(place,): (i64,)| keys.get(usize::try_from(place - 1).ok()?).cloned();
            unknown.extend(rows.into_iter().filter_map(key));
        }
        read.finish(Ok(unknown)).await
    }

    async fn skip(&self, now: Timestamp, place: &Place, left_out: &LeftOut) -> Result<bool> {
        const STAGE: &str = "record a baseline";
        let row = |key: &RemoteKey| Ok(json!([hex(new_ledger_id(now)?.uuid()), key]));
        let rows = left_out.keys.iter().map(row).collect::<Result<Vec<_>>>()?;
        write!(self.connections, STAGE, |tx| {
            locks::intake(tx, place.mailbox).await?;
            if !is_still(tx, place.mailbox, left_out.revision).await.map_err(failed(STAGE))? {
                return Ok(false);
            }
            for rows in rows.chunks(TOGETHER) {
                let query = sqlx::query(SKIP).bind(place.mailbox.number()).bind(place.folder.as_bytes());
                let query = query.bind(big(place.epoch)).bind(now.as_millis()).bind(to_json(rows)?);
                query.execute(&mut *tx).await.map_err(failed(STAGE))?;
            }
            reach(tx, place, PlaceRow::behind(left_out)).await.map_err(failed(STAGE))?;
            Ok(true)
        })
    }

    async fn store(&self, now: Timestamp, mails: &[Received]) -> Result<Vec<Stored>> {
        write!(self.connections, STAGE, |tx| store_in(tx, now, mails).await)
    }

    async fn unsettled(&self, now: Timestamp, place: &Place, limit: u32) -> Result<Vec<Unsettled>> {
        const STAGE: &str = "find what a server is to be told";
        let mut read = self.connections.read(STAGE).await?;
        let query = sqlx::query_as(UNSETTLED).bind(place.mailbox.number()).bind(place.folder.as_bytes());
        let query = query.bind(big(place.epoch)).bind(now.as_millis()).bind(i64::from(limit));
        let rows = query.fetch_all(&mut *read).await.map_err(failed(STAGE));
        let rows: Vec<(Uuid, String)> = read.finish(rows).await?;
        let mail =
            |(id, key): (Uuid, String)| Ok(Unsettled { id: LedgerId::from_uuid(id), key: text(&key)? });
        rows.into_iter().map(mail).collect()
    }

    async fn settled(&self, now: Timestamp, ids: &[LedgerId], told: Told) -> Result<()> {
        write!(self.connections, "record what a server was told", |tx| settled_in(tx, now, ids, told).await)
    }
}
