//! Contents in rows of pieces.

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::id::BodyId;
use postroom_core::time::Timestamp;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::connection::failed;
use super::script::{Script, over_rows};
use super::store::SqliteStore;
use crate::bodies::{Bodies, BodyRef, PIECE};
use crate::error::{Error, ErrorKind, Result};
use crate::sql::rows::{big, hex, small, to_json};

const INSERT_PIECE: &str = "INSERT INTO postroom_body_piece (body, number, content) VALUES (?1, ?2, ?3)";

pub(super) const PIECE_OF: &str = "SELECT content FROM postroom_body_piece WHERE body = ?1 AND number = ?2";

pub(super) const ORPHANS: &str =
    "SELECT id FROM postroom_body WHERE staged_at < ?1 ORDER BY staged_at LIMIT 100";

const INSERT_BODIES: &str =
    "INSERT INTO postroom_body (id, staged_at) SELECT unhex(value), NULL FROM json_each(?)";

/// Pieces that lie one behind the other in one value: where each begins, and its length.
const INSERT_PIECES: &str = over_rows!(
    "INSERT INTO postroom_body_piece (body, number, content)
    SELECT unhex(value ->> 0), value ->> 1, substr(?, value ->> 2, value ->> 3) FROM r"
);

/// How many bytes of pieces one statement takes, when they are more than one piece.
const CARGO: usize = 4 * PIECE;

/// Inserts whole contents that rows of the same transaction refer to.
pub(super) async fn insert(tx: &mut SqliteConnection, contents: &[(BodyId, &Bytes)]) -> Result<()> {
    let mut script = Script::default();
    insert_by(tx, &mut script, contents).await?;
    script.run(tx, "insert contents").await
}

/// Has a script insert whole contents that later statements of it refer to. What is too much for one call goes ahead of it.
pub(super) async fn insert_by(
    tx: &mut SqliteConnection,
    script: &mut Script,
    contents: &[(BodyId, &Bytes)],
) -> Result<()> {
    const STAGE: &str = "insert contents";
    let ids: Vec<String> = contents.iter().map(|(id, _)| hex(id.uuid())).collect();
    script.then(INSERT_BODIES).with(to_json(&ids)?)?;
    let (mut cargo, mut places) = (Vec::new(), Vec::new());
    for (id, (_, content)) in ids.iter().zip(contents) {
        for (number, piece) in (0u32..).zip(content.chunks(PIECE)) {
            if !cargo.is_empty() && cargo.len() + piece.len() > CARGO {
                write_pieces(script, &mut cargo, &mut places)?;
                std::mem::take(script).run(tx, STAGE).await?;
            }
            // SQLite counts from 1.
            places.push(json!([id, number, cargo.len() + 1, piece.len()]));
            cargo.extend_from_slice(piece);
        }
    }
    write_pieces(script, &mut cargo, &mut places)
}

fn write_pieces(script: &mut Script, cargo: &mut Vec<u8>, places: &mut Vec<Value>) -> Result<()> {
    if !places.is_empty() {
        let (cargo, places) = (std::mem::take(cargo), to_json(&std::mem::take(places))?);
        script.then(INSERT_PIECES).with(places)?.with(cargo)?;
    }
    Ok(())
}

/// Makes a staged content real: a row of the same transaction refers to it.
///
/// # Errors
/// [`ErrorKind::NotFound`] when it is not there in its whole size.
pub(super) async fn refer(tx: &mut SqliteConnection, body: &BodyRef) -> Result<()> {
    const STAGE: &str = "refer to a content";
    let sql = "UPDATE postroom_body SET staged_at = NULL WHERE id = ?1 AND ?2 = (
        SELECT coalesce(sum(length(content)), 0) FROM postroom_body_piece WHERE body = ?1)";
    let update = sqlx::query(sql).bind(body.id.uuid()).bind(big(body.size));
    let done = update.execute(tx).await.map_err(failed(STAGE))?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(Error::new(ErrorKind::NotFound, STAGE)) }
}

/// Whether a mail refers to a content.
pub(super) const REFERRED: &str = "SELECT EXISTS (SELECT 1 FROM postroom_queue_mail WHERE body = ?1)
    OR EXISTS (SELECT 1 FROM postroom_ledger_mail WHERE body = ?1)";

/// Removes contents that rows of the same transaction referred to, but for those that another row refers to.
pub(super) async fn release(tx: &mut SqliteConnection, ids: impl IntoIterator<Item = Uuid>) -> Result<()> {
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

async fn remove(tx: &mut SqliteConnection, id: Uuid) -> Result<()> {
    for sql in ["DELETE FROM postroom_body_piece WHERE body = ?", "DELETE FROM postroom_body WHERE id = ?"] {
        sqlx::query(sql).bind(id).execute(&mut *tx).await.map_err(failed("remove a content"))?;
    }
    Ok(())
}

async fn stage_in(
    tx: &mut SqliteConnection,
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
    let sql = "INSERT INTO postroom_body (id, staged_at) VALUES (?, ?) ON CONFLICT (id) DO NOTHING";
    let begin = sqlx::query(sql).bind(id.uuid()).bind(now.as_millis());
    begin.execute(&mut *tx).await.map_err(failed(STAGE))?;
    let insert = sqlx::query(INSERT_PIECE).bind(id.uuid()).bind(i64::from(number)).bind(piece.to_vec());
    insert.execute(tx).await.map_err(failed(STAGE))?;
    Ok(())
}

/// Removes a few orphans. Gives how many.
async fn sweep_in(tx: &mut SqliteConnection, before: Timestamp) -> Result<u64> {
    const STAGE: &str = "sweep contents";
    let orphans: Vec<(Uuid,)> =
        sqlx::query_as(ORPHANS).bind(before.as_millis()).fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
    for (id,) in &orphans {
        remove(tx, *id).await?;
    }
    small(big(orphans.len()))
}

#[async_trait]
impl Bodies for SqliteStore {
    async fn stage(&self, now: Timestamp, id: BodyId, number: u32, piece: Bytes) -> Result<()> {
        let mut tx = self.connections.write("stage a content").await?;
        let done = stage_in(&mut tx, now, id, number, &piece).await;
        tx.finish(done).await
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
            let mut tx = self.connections.write("sweep contents").await?;
            let done = sweep_in(&mut tx, before).await;
            match tx.finish(done).await? {
                0 => return Ok(swept),
                some => swept += some,
            }
        }
    }
}
