//! What fetchers write: places, baselines, received mails with their bytes, and what their servers were told.

use std::collections::BTreeSet;

use async_trait::async_trait;
use postroom_core::id::{LedgerId, MailboxId, Revision};
use postroom_core::ledger::{Place, RemoteKey};
use postroom_core::time::Timestamp;
use serde_json::json;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::insert::insert;
use super::recognise::recognise;
use super::row;
use crate::error::Result;
use crate::ledger::{
    Contact, LedgerEntry, LedgerIntake, LeftOut, Reached, Received, Stored, Told, Unsettled,
};
use crate::sql::postgres::connection::{failed, write};
use crate::sql::postgres::locks;
use crate::sql::postgres::store::PgStore;
use crate::sql::recognise::Passed;
use crate::sql::rows::{big, contact, hex, latest, new_ledger_id, text, to_json};
use crate::transition::place::PlaceRow;

/// A folder has few epochs.
pub(in crate::sql::postgres) const LATEST: &str = "SELECT max(epoch) FROM postroom_ledger_place
    WHERE mailbox = $1 AND folder = $2 AND (epoch & 4294967295) = $3";

pub(in crate::sql::postgres) const CONTACT: &str = "SELECT
    (SELECT frontier FROM postroom_ledger_place WHERE mailbox = $1 AND folder = $2 AND epoch = $3),
    (SELECT seen_at FROM postroom_ledger_place WHERE mailbox = $1 AND folder = $2 AND epoch = $3),
    (SELECT baseline_at FROM postroom_ledger_place WHERE mailbox = $1 AND folder = $2 AND epoch = $3),
    (SELECT max(seen_at) FROM postroom_ledger_place WHERE mailbox = $1 AND folder = $2 AND epoch <> $3)";

/// Of each mail the one that has its key, and whether one of the same bytes is there, whatever its key.
pub(in crate::sql::postgres) const LOOK: &str = "SELECT
    (SELECT m.id FROM postroom_ledger_mail m WHERE m.mailbox = j.mailbox AND m.folder = j.folder
        AND m.epoch = j.epoch AND m.remote_key = j.sought),
    EXISTS (SELECT 1 FROM postroom_ledger_mail t
        WHERE t.mailbox = j.mailbox AND t.folder = j.folder AND t.sha256 = j.content OFFSET 0)
    FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::bytea[])
        WITH ORDINALITY j (mailbox, folder, epoch, sought, content, place) ORDER BY j.place";

pub(in crate::sql::postgres) const UNKNOWN: &str =
    "SELECT j.place FROM unnest($4::text[]) WITH ORDINALITY j (value, place)
    WHERE NOT EXISTS (SELECT 1 FROM postroom_ledger_mail m
        WHERE m.mailbox = $1 AND m.folder = $2 AND m.epoch = $3 AND m.remote_key = j.value)
    ORDER BY j.place";

pub(in crate::sql::postgres) const UNSETTLED: &str = "SELECT id, remote_key FROM postroom_ledger_mail
    WHERE mailbox = $1 AND folder = $2 AND epoch = $3
        AND settle_at IS NOT NULL AND settled_at IS NULL AND settle_at <= $4
    ORDER BY number LIMIT $5";

const SKIP: &str = "INSERT INTO postroom_ledger_mail
    (id, mailbox, folder, epoch, remote_key, size, stored_at, state, reasons, sender, subject, attempts)
    SELECT (value ->> 0)::uuid, $1, $2, $3, value ->> 1, 0, $5, 'ignored', '[\"baseline\"]', '', '', 0
    FROM json_array_elements($4::json) WITH ORDINALITY j (value, place) ORDER BY place
    ON CONFLICT (mailbox, folder, epoch, remote_key) DO NOTHING";

pub(in crate::sql::postgres) const SETTLED: &str =
    "UPDATE postroom_ledger_mail SET settled_at = $2, kept = $3
    WHERE settled_at IS NULL AND id = ANY($1::uuid[]) RETURNING id";

const STAGE: &str = "store received mails";

async fn store_in(tx: &mut PgConnection, now: Timestamp, mails: &[Received]) -> Result<Vec<Stored>> {
    let mailboxes: BTreeSet<MailboxId> = mails.iter().map(|mail| mail.place.mailbox).collect();
    for mailbox in mailboxes {
        locks::intake(tx, mailbox).await?;
    }
    let each = |column: fn(&Received) -> i64| mails.iter().map(column).collect::<Vec<_>>();
    let look = sqlx::query_as(LOOK)
        .bind(each(|mail| mail.place.mailbox.number()))
        .bind(mails.iter().map(|mail| mail.place.folder.as_str()).collect::<Vec<_>>())
        .bind(each(|mail| big(mail.place.epoch)))
        .bind(mails.iter().map(|mail| mail.key.to_string()).collect::<Vec<_>>())
        .bind(mails.iter().map(|mail| mail.sha256.to_vec()).collect::<Vec<_>>());
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

async fn settled_in(tx: &mut PgConnection, now: Timestamp, ids: &[LedgerId], told: Told) -> Result<()> {
    let update = sqlx::query_as(SETTLED)
        .bind(ids.iter().map(|id| id.uuid()).collect::<Vec<_>>())
        .bind(now.as_millis())
        .bind(told == Told::Keep);
    let told: Vec<(Uuid,)> =
        update.fetch_all(&mut *tx).await.map_err(failed("record what a server was told"))?;
    let told = told.into_iter().map(|(id,)| LedgerId::from_uuid(id));
    row::note(tx, told.map(|id| (id, LedgerEntry::new(now, "settled", None, String::new())))).await
}

/// Writes what is known of a place beside what is there.
async fn reach(tx: &mut PgConnection, place: &Place, reached: PlaceRow) -> sqlx::Result<()> {
    let sql = "INSERT INTO postroom_ledger_place (mailbox, folder, epoch, frontier, seen_at, baseline_at)
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (mailbox, folder, epoch) DO UPDATE
        SET frontier = greatest(postroom_ledger_place.frontier, excluded.frontier),
            seen_at = greatest(postroom_ledger_place.seen_at, excluded.seen_at)";
    let query = sqlx::query(sql).bind(place.mailbox.number()).bind(place.folder.as_str());
    let query = query.bind(big(place.epoch)).bind(i64::from(reached.frontier));
    let query = query.bind(reached.whole_at.as_millis());
    query.bind(reached.baseline_at.map(|at| at.as_millis())).execute(tx).await.map(drop)
}

/// Whether the mailbox still has this revision. Nobody changes it before the transaction ends.
async fn is_still(tx: &mut PgConnection, mailbox: MailboxId, revision: Revision) -> sqlx::Result<bool> {
    let sql = "SELECT revision FROM postroom_mailbox WHERE id = $1 FOR SHARE";
    let found: Option<(i64,)> = sqlx::query_as(sql).bind(mailbox.number()).fetch_optional(tx).await?;
    Ok(found == Some((revision.number(),)))
}

#[async_trait]
impl LedgerIntake for PgStore {
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
        write!(self.connections, STAGE, |tx| {
            reach(tx, place, PlaceRow::of(reached)).await.map_err(failed(STAGE))
        })
    }

    async fn unknown(&self, place: &Place, keys: &[RemoteKey]) -> Result<Vec<RemoteKey>> {
        const STAGE: &str = "find unknown mails";
        let mut read = self.connections.read(STAGE).await?;
        let query = sqlx::query_as(UNKNOWN).bind(place.mailbox.number()).bind(place.folder.as_str());
        let query =
            query.bind(big(place.epoch)).bind(keys.iter().map(ToString::to_string).collect::<Vec<_>>());
        let rows = query.fetch_all(&mut *read).await.map_err(failed(STAGE));
        let rows: Vec<(i64,)> = read.finish(rows).await?;
        let key = |(index,): (i64,)| keys.get(usize::try_from(index - 1).ok()?).cloned();
        Ok(rows.into_iter().filter_map(key).collect())
    }

    async fn skip(&self, now: Timestamp, place: &Place, left_out: &LeftOut) -> Result<bool> {
        const STAGE: &str = "record a baseline";
        let row = |key: &RemoteKey| Ok(json!([hex(new_ledger_id(now)?.uuid()), key]));
        let rows = left_out.keys.iter().map(row).collect::<Result<Vec<_>>>()?;
        let rows = to_json(&rows)?;
        write!(self.connections, STAGE, |tx| {
            locks::intake(tx, place.mailbox).await?;
            if !is_still(tx, place.mailbox, left_out.revision).await.map_err(failed(STAGE))? {
                return Ok(false);
            }
            let query = sqlx::query(SKIP).bind(place.mailbox.number()).bind(place.folder.as_str());
            let query = query.bind(big(place.epoch)).bind(rows.as_str()).bind(now.as_millis());
            query.execute(&mut *tx).await.map_err(failed(STAGE))?;
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
        let query = sqlx::query_as(UNSETTLED).bind(place.mailbox.number()).bind(place.folder.as_str());
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
