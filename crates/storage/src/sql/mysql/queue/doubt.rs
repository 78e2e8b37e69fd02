//! Doubt beyond a lost reply: recovery after a restore, the mails in doubt, and their proof.

use std::collections::BTreeMap;

use postroom_core::id::{Actor, ClaimId, MailboxId, QueueId};
use postroom_core::queue::State;
use postroom_core::time::Timestamp;
use sqlx::mysql::MySqlConnection;
use uuid::Uuid;

use super::row::{load, save};
use crate::error::{Error, ErrorKind, Result};
use crate::queue::{Doubt, Recovered};
use crate::sql::mysql::connection::failed;
use crate::sql::rows::new_claim;

/// How many mails one transaction of a recovery changes.
const BATCH: i64 = 500;

/// A walk over what is unfinished, in pages.
pub(in crate::sql::mysql) const RESTORED: &str =
    "SELECT o.mail FROM postroom_queue_open o FORCE INDEX (PRIMARY)
    STRAIGHT_JOIN postroom_queue_mail m FORCE INDEX (PRIMARY) ON m.id = o.mail
    WHERE o.mail > ? AND o.state IN ('queued', 'held', 'claimed', 'crossing') AND m.created_at <= ?
    ORDER BY o.mail LIMIT ?";

pub(in crate::sql::mysql) const DOUBTS: &str =
    "SELECT o.mail, m.outbox, m.message_id FROM postroom_queue_open o FORCE INDEX (postroom_queue_open_state)
    STRAIGHT_JOIN postroom_queue_mail m FORCE INDEX (PRIMARY) ON m.id = o.mail
    WHERE o.state = 'in-doubt' AND o.mail > ? ORDER BY o.mail LIMIT ?";

/// Recovers a page of mails. Gives the last of them; none when none was left.
pub(super) async fn recover_in(
    tx: &mut MySqlConnection,
    now: Timestamp,
    actor: &Actor,
    since: Timestamp,
    after: Option<QueueId>,
    total: &mut Recovered,
) -> Result<Option<QueueId>> {
    let query = sqlx::query_as(RESTORED).bind(after.map_or(Uuid::nil(), QueueId::uuid));
    let query = query.bind(since.as_millis()).bind(BATCH);
    let page: Vec<(Uuid,)> = query.fetch_all(&mut *tx).await.map_err(failed("recover the queue"))?;
    let mut edits = load(tx, page.into_iter().map(|(id,)| QueueId::from_uuid(id))).await?;
    let last = edits.last_key_value().map(|(id, _)| *id);
    for edit in edits.values_mut() {
        match edit.row.recover(now, actor, new_claim(now)?) {
            Some(entries) => {
                edit.note(entries);
                total.doubted += 1;
            }
            None => total.busy += 1,
        }
    }
    save(tx, edits.into_values()).await?;
    Ok(last)
}

pub(super) async fn doubts_in(
    connection: &mut MySqlConnection,
    after: Option<QueueId>,
    limit: u32,
) -> Result<Vec<Doubt>> {
    let query = sqlx::query_as(DOUBTS).bind(after.map_or(Uuid::nil(), QueueId::uuid));
    let rows = query.bind(i64::from(limit)).fetch_all(&mut *connection).await;
    let rows: Vec<(Uuid, i64, String)> = rows.map_err(failed("list mails in doubt"))?;
    let ids: Vec<QueueId> = rows.iter().map(|(id, ..)| QueueId::from_uuid(*id)).collect();
    let edits = load(connection, ids).await?;
    let doubted = |id| -> Vec<(u32, ClaimId)> {
        let recipients = edits.get(&id).map(|edit| &edit.row.recipients).into_iter().flatten();
        let places = (0..).zip(recipients).filter(|(_, one)| one.state == State::InDoubt);
        places.filter_map(|(place, one)| Some((place, one.doubted_by?))).collect()
    };
    let doubt = |(id, outbox, message_id): (Uuid, i64, String)| {
        let id = QueueId::from_uuid(id);
        Doubt { id, outbox: MailboxId::new(outbox), message_id, recipients: doubted(id) }
    };
    Ok(rows.into_iter().map(doubt).collect())
}

pub(super) async fn prove_in(
    tx: &mut MySqlConnection,
    now: Timestamp,
    id: QueueId,
    claim: ClaimId,
    detail: &str,
) -> Result<bool> {
    let mut edits: BTreeMap<_, _> = load(tx, [id]).await?;
    let not_found = || Error::new(ErrorKind::NotFound, "prove a mail in doubt");
    let edit = edits.get_mut(&id).ok_or_else(not_found)?;
    let entries = edit.row.prove(now, claim, detail);
    let is_proven = !entries.is_empty();
    edit.note(entries);
    save(tx, edits.into_values()).await?;
    Ok(is_proven)
}
