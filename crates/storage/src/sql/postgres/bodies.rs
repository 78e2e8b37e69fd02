//! Contents in rows of pieces.

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::id::BodyId;
use postroom_core::time::Timestamp;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::connection::{failed, write};
use super::store::PgStore;
use crate::bodies::{Bodies, BodyRef, PIECE};
use crate::error::{Error, ErrorKind, Result};
use crate::sql::rows::{big, small};

/// A piece of a content that is there, and stays while this transaction lasts: a sweep may be about to remove it.
pub(super) const INSERT_PIECE: &str = "INSERT INTO postroom_body_piece (body, number, content)
    SELECT id, $2::bigint, $3::bytea FROM (SELECT id FROM postroom_body WHERE id = $1 FOR KEY SHARE) b";

pub(super) const PIECE_OF: &str = "SELECT content FROM postroom_body_piece WHERE body = $1 AND number = $2";

/// What another sweep has, or a mail that is about to refer to it, is left to them.
pub(super) const ORPHANS: &str =
    "SELECT id FROM postroom_body WHERE staged_at < $1 ORDER BY staged_at LIMIT 100 FOR UPDATE SKIP LOCKED";

/// Inserts a whole content that a row of the same transaction refers to.
pub(super) async fn insert(tx: &mut PgConnection, id: BodyId, content: &Bytes) -> Result<()> {
    const STAGE: &str = "insert a content";
    let sql = "INSERT INTO postroom_body (id, staged_at) VALUES ($1, NULL)";
    sqlx::query(sql).bind(id.uuid()).execute(&mut *tx).await.map_err(failed(STAGE))?;
    for (number, piece) in (0i64..).zip(content.chunks(PIECE)) {
        let piece = content.slice_ref(piece).to_vec();
        let insert = sqlx::query(INSERT_PIECE).bind(id.uuid()).bind(number).bind(piece);
        insert.execute(&mut *tx).await.map_err(failed(STAGE))?;
    }
    Ok(())
}

/// Makes a staged content real: a row of the same transaction refers to it.
///
/// # Errors
/// [`ErrorKind::NotFound`] when it is not there in its whole size.
pub(super) async fn refer(tx: &mut PgConnection, body: &BodyRef) -> Result<()> {
    const STAGE: &str = "refer to a content";
    let sql = "UPDATE postroom_body SET staged_at = NULL WHERE id = $1 AND $2 = (
        SELECT coalesce(sum(length(content)), 0) FROM postroom_body_piece WHERE body = $1)";
    let update = sqlx::query(sql).bind(body.id.uuid()).bind(big(body.size));
    let done = update.execute(tx).await.map_err(failed(STAGE))?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(Error::new(ErrorKind::NotFound, STAGE)) }
}

/// Whether a mail refers to a content.
pub(super) const REFERRED: &str = "SELECT EXISTS (SELECT 1 FROM postroom_queue_mail WHERE body = $1)
    OR EXISTS (SELECT 1 FROM postroom_ledger_mail WHERE body = $1)";

/// Removes contents that rows of the same transaction referred to, but for those that another row refers to.
pub(super) async fn release(tx: &mut PgConnection, ids: impl IntoIterator<Item = Uuid>) -> Result<()> {
    const STAGE: &str = "release a content";
    for id in ids {
        let query = sqlx::query_as(REFERRED).bind(id);
        let (is_referred,): (bool,) = query.fetch_one(&mut *tx).await.map_err(failed(STAGE))?;
        if !is_referred {
            remove(tx, id).await?;
        }
    }
    Ok(())
}

async fn remove(tx: &mut PgConnection, id: Uuid) -> Result<()> {
    for sql in ["DELETE FROM postroom_body_piece WHERE body = $1", "DELETE FROM postroom_body WHERE id = $1"]
    {
        sqlx::query(sql).bind(id).execute(&mut *tx).await.map_err(failed("remove a content"))?;
    }
    Ok(())
}

async fn stage_in(
    tx: &mut PgConnection,
    now: Timestamp,
    id: BodyId,
    number: u32,
    piece: &[u8],
) -> Result<()> {
    const STAGE: &str = "stage a content";
    let stored: Option<(Vec<u8>,)> = sqlx::query_as(PIECE_OF)
        .bind(id.uuid())
        .bind(i64::from(number))
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed(STAGE))?;
    match stored {
        Some((stored,)) if stored == piece => return Ok(()),
        Some(_) => return Err(Error::new(ErrorKind::Conflict, STAGE)),
        None => {}
    }
    let sql = "INSERT INTO postroom_body (id, staged_at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING";
    let begin = sqlx::query(sql).bind(id.uuid()).bind(now.as_millis());
    begin.execute(&mut *tx).await.map_err(failed(STAGE))?;
    let insert = sqlx::query(INSERT_PIECE).bind(id.uuid()).bind(i64::from(number)).bind(piece.to_vec());
    let inserted = insert.execute(tx).await.map_err(failed(STAGE))?;
    if inserted.rows_affected() == 1 { Ok(()) } else { Err(Error::new(ErrorKind::NotFound, STAGE)) }
}

/// Removes a few orphans. Gives how many.
async fn sweep_in(tx: &mut PgConnection, before: Timestamp) -> Result<u64> {
    const STAGE: &str = "sweep contents";
    let orphans: Vec<(Uuid,)> =
        sqlx::query_as(ORPHANS).bind(before.as_millis()).fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
    for (id,) in &orphans {
        remove(tx, *id).await?;
    }
    small(big(orphans.len()))
}

#[async_trait]
impl Bodies for PgStore {
    async fn stage(&self, now: Timestamp, id: BodyId, number: u32, piece: Bytes) -> Result<()> {
        write!(self.connections, "stage a content", |tx| stage_in(tx, now, id, number, &piece).await)
    }

    async fn piece(&self, id: BodyId, number: u32) -> Result<Option<Bytes>> {
        const STAGE: &str = "read a content";
        let mut read = self.connections.read(STAGE).await?;
        let query = sqlx::query_as(PIECE_OF).bind(id.uuid()).bind(i64::from(number));
        let row = query.fetch_optional(&mut *read).await.map_err(failed(STAGE));
        let row: Option<(Vec<u8>,)> = read.finish(row).await?;
        Ok(row.map(|(content,)| content.into()))
    }

    async fn sweep(&self, before: Timestamp) -> Result<u64> {
        let mut swept = 0;
        loop {
            // Some at a time: nobody who writes waits for a long sweep.
            match write!(self.connections, "sweep contents", |tx| sweep_in(tx, before).await)? {
                0 => return Ok(swept),
                some => swept += some,
            }
        }
    }
}
