//! What a report says of a sent mail: states and timeline. The suppression list is the folder above's.

use postroom_core::id::QueueId;
use postroom_core::time::Timestamp;
use sqlx::sqlite::SqliteConnection;

use super::row::{load, save};
use crate::error::{Error, ErrorKind, Result};
use crate::suppressions::RecipientReport;

/// Applies it. Gives whether a state changed.
pub(in crate::sql::sqlite) async fn report_in(
    tx: &mut SqliteConnection,
    now: Timestamp,
    id: QueueId,
    reports: &[RecipientReport],
) -> Result<bool> {
    let mut edits = load(tx, [id]).await?;
    let not_found = || Error::new(ErrorKind::NotFound, "record a report");
    let edit = edits.get_mut(&id).ok_or_else(not_found)?;
    let (mut changed, mut log) = (false, Vec::new());
    for report in reports {
        changed |= edit.row.report(now, report, &mut log);
    }
    edit.note(log);
    save(tx, edits.into_values()).await?;
    Ok(changed)
}
