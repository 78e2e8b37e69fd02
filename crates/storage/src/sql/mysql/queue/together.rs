//! What submitters, or dispatchers, ask for at the same time, in one transaction. How it is collected is in `sql/combine`.

use async_trait::async_trait;
use sqlx::mysql::MySqlConnection;

use super::intake::put_all;
use super::work::{claim_in, mark_in, settle_in};
use crate::error::Result;
use crate::sql::combine::{Done, Transact, Work};
use crate::sql::mysql::connection::{Connections, write};

async fn transact_in(tx: &mut MySqlConnection, work: &Work<'_>) -> Result<Done> {
    let mut done = Done::default();
    if !work.settlements.is_empty() {
        done.settled = settle_in(tx, work.now, &work.settlements).await?;
    }
    if !work.marks.is_empty() {
        done.marked = mark_in(tx, work.now, &work.marks).await?;
    }
    if !work.mails.is_empty() {
        done.enqueued = put_all(tx, work.now, &work.mails).await?;
    }
    for order in &work.claims {
        done.claimed.push(claim_in(tx, work.now, *order).await?);
    }
    Ok(done)
}

#[async_trait]
impl Transact for Connections {
    async fn transact(&self, work: &Work<'_>) -> Result<Done> {
        write!(self, "work on the queue", |tx| transact_in(tx, work).await)
    }
}
