//! Another outbox for a mail: checked against what it was decided by, and written with the new content, in one transaction.

use bytes::Bytes;
use postroom_core::id::Actor;
use postroom_core::time::Timestamp;
use serde_json::json;
use sqlx::mysql::MySqlConnection;
use uuid::Uuid;

use super::intake::basis;
use super::row::{load, save};
use crate::error::{Error, ErrorKind, Result};
use crate::queue::Rerouting;
use crate::sql::mysql::connection::failed;
use crate::sql::mysql::{bodies, lanes, links};
use crate::sql::rows::{big, new_body_id, to_json, unreadable};

const STAGE: &str = "reroute a mail";

pub(in crate::sql::mysql) const FROZEN: &str =
    "SELECT contract, flow, step, outbox, sender, body, raw FROM postroom_queue_mail WHERE id = ?";

const MAIL: &str = "UPDATE postroom_queue_mail SET outbox = ?, outbox_revision = ?, sender = ?,
    return_path = CASE WHEN return_path IS NULL THEN NULL ELSE ? END, reasons = ?, body = ?, size = ? WHERE id = ?";

const OPEN: &str = "UPDATE postroom_queue_open SET outbox = ? WHERE mail = ?";

type Frozen = (String, Option<String>, Option<String>, i64, String, Option<Uuid>, bool);

pub(super) async fn reroute_in(
    tx: &mut MySqlConnection,
    now: Timestamp,
    actor: &Actor,
    rerouting: &Rerouting,
    content: &Bytes,
) -> Result<()> {
    let (id, to) = (rerouting.id, &rerouting.resolution);
    let refused = |kind| Error::new(kind, STAGE);
    let mut edits = load(tx, [id]).await?;
    let mut edit = edits.remove(&id).ok_or_else(|| refused(ErrorKind::NotFound))?;
    let frozen = sqlx::query_as(FROZEN).bind(id.uuid()).fetch_one(&mut *tx).await;
    let (contract, flow, step, outbox, sender, body, raw): Frozen = frozen.map_err(failed(STAGE))?;
    if raw {
        return Err(refused(ErrorKind::NotPossible { state: "raw" }));
    }
    let detail = to.told_of_reroute(rerouting.from, &sender);
    edit.note([edit.row.reroute(now, actor, detail)?]);
    if outbox != rerouting.from.number() || body != Some(rerouting.rewritten.uuid()) {
        return Err(refused(ErrorKind::Conflict));
    }
    let asked = json!([contract, flow, step, to.outbox.number()]);
    let (stored, _) = basis(tx, &[asked]).await?.pop().ok_or_else(unreadable)?;
    let step = flow.as_deref().zip(step.as_deref()).map(|(flow, step)| links::key(flow, step)).transpose()?;
    if !stored.upholds_decision(to, &rerouting.basis, step.as_ref()) {
        return Err(refused(ErrorKind::StaleDecision));
    }
    let new = new_body_id(now)?;
    bodies::insert_all(tx, None, &[(new, content)]).await?;
    sqlx::query(MAIL)
        .bind(to.outbox.number())
        .bind(to.revision.number())
        .bind(to.sender.to_string())
        .bind(rerouting.return_path.as_str())
        .bind(to_json(&to.reasons)?)
        .bind(new.uuid())
        .bind(big(content.len()))
        .bind(id.uuid())
        .execute(&mut *tx)
        .await
        .map_err(failed(STAGE))?;
    let open = sqlx::query(OPEN).bind(to.outbox.number()).bind(id.uuid());
    open.execute(&mut *tx).await.map_err(failed(STAGE))?;
    bodies::release(tx, [rerouting.rewritten.uuid()]).await?;
    let left = edit.line();
    let joined = (to.outbox.number(), left.1.clone(), left.2);
    save(tx, [edit]).await?;
    lanes::ring_lines(tx, &[left, joined]).await
}
