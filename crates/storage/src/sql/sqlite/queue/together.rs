//! What submitters and dispatchers ask for at the same time, in one transaction. How it is collected is in `sql/combine`.

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;

use super::intake::put_all;
use super::work::{claim_in, settle_and_mark};
use crate::error::Result;
use crate::sql::combine::{Done, Transact, Work};
use crate::sql::sqlite::connection::Connections;

async fn transact_in(tx: &mut SqliteConnection, work: &Work<'_>) -> Result<Done> {
    let mut done = Done::default();
    if !work.settlements.is_empty() || !work.marks.is_empty() {
        (done.settled, done.marked) = settle_and_mark(tx, work.now, &work.settlements, &work.marks).await?;
    }
    if !work.mails.is_empty() {
        done.enqueued = put_all(tx, work.now, &work.mails).await?;
    }
    done.claimed = claim_in(tx, work.now, &work.claims).await?;
    Ok(done)
}

#[async_trait]
impl Transact for Connections {
    async fn transact(&self, work: &Work<'_>) -> Result<Done> {
        let mut tx = self.write("work on the queue").await?;
        let done = transact_in(&mut tx, work).await;
        tx.finish(done).await
    }
}
