//! Contents in rows of pieces.

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::id::BodyId;
use postroom_core::time::Timestamp;
use sqlx::mysql::MySqlConnection;
use uuid::Uuid;

use super::connection::{failed, write};
use super::json::json_rows;
use super::store::MySqlStore;
use crate::bodies::{Bodies, BodyRef, PIECE};
use crate::error::{Error, ErrorKind, Result};
use crate::sql::rows::{big, hex, small, to_json};

const INSERT_PIECE: &str = "INSERT INTO postroom_body_piece (body, number, content) VALUES (?, ?, ?)";

const INSERT_BODIES: &str = concat!(
    "INSERT INTO postroom_body (id, staged_at) SELECT UNHEX(j.id), ? FROM ",
    json_rows!("?"; id id ""),
    " j"
);

pub(super) const PIECE_OF: &str = "SELECT content FROM postroom_body_piece WHERE body = ? AND number = ?";

/// What another sweep has, or a mail that is about to refer to it, is left to them.
pub(super) const ORPHANS: &str =
    "SELECT id FROM postroom_body WHERE staged_at < ? ORDER BY staged_at LIMIT 100 FOR UPDATE SKIP LOCKED";

/// How many pieces one statement takes at most: 8 MiB of 16, which is what a server takes by itself.
const TOGETHER: usize = 32;

macro_rules! insert_pieces {
    ($($row:literal)+) => {
        concat!("INSERT INTO postroom_body_piece (body, number, content) VALUES (?, ?, ?)", $($row),+)
    };
}

/// By their number: 1, 2, 4 and so on, so that a connection has a few statements to prepare and not one for each number.
const INSERT_PIECES: [&str; 6] = [
    INSERT_PIECE,
    insert_pieces!(", (?, ?, ?)"),
    insert_pieces!(", (?, ?, ?)" ", (?, ?, ?)" ", (?, ?, ?)"),
    insert_pieces!(", (?, ?, ?), (?, ?, ?), (?, ?, ?), (?, ?, ?)" ", (?, ?, ?), (?, ?, ?), (?, ?, ?)"),
    insert_pieces!(
        ", (?, ?, ?), (?, ?, ?), (?, ?, ?), (?, ?, ?)" ", (?, ?, ?), (?, ?, ?), (?, ?, ?), (?, ?, ?)"
        ", (?, ?, ?), (?, ?, ?), (?, ?, ?), (?, ?, ?)" ", (?, ?, ?), (?, ?, ?), (?, ?, ?)"
    ),
    insert_pieces!(
        ", (?, ?, ?), (?, ?, ?), (?, ?, ?), (?, ?, ?)" ", (?, ?, ?), (?, ?, ?), (?, ?, ?), (?, ?, ?)"
        ", (?, ?, ?), (?, ?, ?), (?, ?, ?), (?, ?, ?)" ", (?, ?, ?), (?, ?, ?), (?, ?, ?), (?, ?, ?)"
        ", (?, ?, ?), (?, ?, ?), (?, ?, ?), (?, ?, ?)" ", (?, ?, ?), (?, ?, ?), (?, ?, ?), (?, ?, ?)"
        ", (?, ?, ?), (?, ?, ?), (?, ?, ?), (?, ?, ?)" ", (?, ?, ?), (?, ?, ?), (?, ?, ?)"
    ),
];

/// Inserts whole contents that rows of the same transaction refer to; staged ones, until something makes them real.
pub(super) async fn insert_all(
    tx: &mut MySqlConnection,
    staged_at: Option<Timestamp>,
    contents: &[(BodyId, &Bytes)],
) -> Result<()> {
    const STAGE: &str = "insert a content";
    let ids: Vec<String> = contents.iter().map(|(id, _)| hex(id.uuid())).collect();
    let insert = sqlx::query(INSERT_BODIES).bind(staged_at.map(Timestamp::as_millis)).bind(to_json(&ids)?);
    insert.execute(&mut *tx).await.map_err(failed(STAGE))?;
    let pieces = |(id, content): &(BodyId, &'_ Bytes)| {
        let (id, content) = (id.uuid(), (*content).clone());
        let pieces: Vec<_> = content.chunks(PIECE).map(|piece| content.slice_ref(piece)).collect();
        (0i64..).zip(pieces).map(move |(number, piece)| (id, number, piece)).collect::<Vec<_>>()
    };
    let pieces: Vec<(Uuid, i64, Bytes)> = contents.iter().flat_map(pieces).collect();
    let mut left = pieces.as_slice();
    while !left.is_empty() {
        let power = left.len().min(TOGETHER).ilog2();
        let (some, rest) = left.split_at(1 << power);
        let sql = usize::try_from(power).ok().and_then(|power| INSERT_PIECES.get(power));
        let mut query = sqlx::query(sql.copied().unwrap_or(INSERT_PIECE));
        for (id, number, piece) in some {
            query = query.bind(id).bind(number).bind(piece.as_ref());
        }
        query.execute(&mut *tx).await.map_err(failed(STAGE))?;
        left = rest;
    }
    Ok(())
}

/// Makes a staged content real: a row of the same transaction refers to it.
///
/// # Errors
/// [`ErrorKind::NotFound`] when it is not there in its whole size.
pub(super) async fn refer(tx: &mut MySqlConnection, body: &BodyRef) -> Result<()> {
    const STAGE: &str = "refer to a content";
    let sql = "UPDATE postroom_body SET staged_at = NULL WHERE id = ? AND ? = (
        SELECT COALESCE(SUM(LENGTH(p.content)), 0) FROM postroom_body_piece p WHERE p.body = postroom_body.id)";
    let update = sqlx::query(sql).bind(body.id.uuid()).bind(big(body.size));
    let done = update.execute(tx).await.map_err(failed(STAGE))?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(Error::new(ErrorKind::NotFound, STAGE)) }
}

/// Whether a mail refers to a content.
pub(super) const REFERRED: &str = "SELECT EXISTS (SELECT 1 FROM postroom_queue_mail WHERE body = ?) OR
    EXISTS (SELECT 1 FROM postroom_ledger_mail WHERE body = ?)";

/// Removes contents that rows of the same transaction referred to, but for those that another row refers to.
pub(super) async fn release(tx: &mut MySqlConnection, ids: impl IntoIterator<Item = Uuid>) -> Result<()> {
    const STAGE: &str = "release a content";
    for id in ids {
        let query = sqlx::query_as(REFERRED).bind(id).bind(id);
        let (is_referred,): (bool,) = query.fetch_one(&mut *tx).await.map_err(failed(STAGE))?;
        if !is_referred {
            remove(tx, id).await?;
        }
    }
    Ok(())
}

async fn remove(tx: &mut MySqlConnection, id: Uuid) -> Result<()> {
    for sql in ["DELETE FROM postroom_body_piece WHERE body = ?", "DELETE FROM postroom_body WHERE id = ?"] {
        sqlx::query(sql).bind(id).execute(&mut *tx).await.map_err(failed("remove a content"))?;
    }
    Ok(())
}

async fn stage_in(
    tx: &mut MySqlConnection,
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
    let sql =
        "INSERT INTO postroom_body (id, staged_at) VALUES (?, ?) ON DUPLICATE KEY UPDATE id = VALUES(id)";
    let begin = sqlx::query(sql).bind(id.uuid()).bind(now.as_millis());
    begin.execute(&mut *tx).await.map_err(failed(STAGE))?;
    let insert = sqlx::query(INSERT_PIECE).bind(id.uuid()).bind(i64::from(number)).bind(piece.to_vec());
    insert.execute(tx).await.map_err(failed(STAGE))?;
    Ok(())
}

/// Removes a few orphans. Gives how many.
async fn sweep_in(tx: &mut MySqlConnection, before: Timestamp) -> Result<u64> {
    const STAGE: &str = "sweep contents";
    let orphans: Vec<(Uuid,)> =
        sqlx::query_as(ORPHANS).bind(before.as_millis()).fetch_all(&mut *tx).await.map_err(failed(STAGE))?;
    for (id,) in &orphans {
        remove(tx, *id).await?;
    }
    small(big(orphans.len()))
}

#[async_trait]
impl Bodies for MySqlStore {
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
