//! Automatic mails by correspondent: what a submission is decided by, and what it adds. Whoever calls has locked the contract against
//! others who submit.

use std::collections::BTreeMap;

use postroom_core::automatic::COUNTED;
use postroom_core::time::Timestamp;
use sqlx::postgres::PgConnection;

use super::connection::failed;
use crate::error::Result;
use crate::sql::admit::{Answers, Counted, STAGE};
use crate::sql::rows::time;

pub(super) const SENT_TO: &str = "SELECT at FROM postroom_answer WHERE account = $1 AND at > $2";

const ADD: &str =
    "INSERT INTO postroom_answer (account, mail, at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";

pub(super) const OVER: &str = "DELETE FROM postroom_answer WHERE (account, mail) IN (
    SELECT account, mail FROM postroom_answer WHERE at <= $1 LIMIT $2)";

/// When these accounts got automatic mail.
pub(super) async fn answers(tx: &mut PgConnection, now: Timestamp, of: &[Counted]) -> Result<Answers> {
    let mut answers = BTreeMap::new();
    for (account, _) in of {
        if !answers.contains_key(account) {
            let sent = sent_to(&mut *tx, now, account).await?;
            answers.insert(account.clone(), sent);
        }
    }
    Ok(answers)
}

/// When one of them got it.
pub(super) async fn sent_to(
    connection: &mut PgConnection,
    now: Timestamp,
    account: &str,
) -> Result<Vec<Timestamp>> {
    let query = sqlx::query_as(SENT_TO).bind(account).bind(now.as_millis().saturating_sub(COUNTED));
    let rows: Vec<(i64,)> = query.fetch_all(connection).await.map_err(failed(STAGE))?;
    Ok(rows.into_iter().map(|(at,)| time(at)).collect())
}

/// Counts new mails. Before they are inserted: what a dropped future leaves of it counts one too many for a day, never one too few.
pub(super) async fn add(tx: &mut PgConnection, now: Timestamp, new: &[Counted]) -> Result<()> {
    for (account, mail) in new {
        let add = sqlx::query(ADD).bind(account).bind(mail.uuid()).bind(now.as_millis());
        add.execute(&mut *tx).await.map_err(failed(STAGE))?;
    }
    Ok(())
}

/// Removes what counts no more.
pub(super) async fn prune(tx: &mut PgConnection, now: Timestamp, limit: u32) -> Result<()> {
    let query = sqlx::query(OVER).bind(now.as_millis().saturating_sub(COUNTED)).bind(i64::from(limit));
    query.execute(tx).await.map(drop).map_err(failed(STAGE))
}
