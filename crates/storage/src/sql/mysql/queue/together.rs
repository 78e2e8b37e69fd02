//! What submitters, or dispatchers, ask for at the same time, in one transaction. How it is collected is in `sql/combine`.

use async_trait::async_trait;
use sqlx::mysql::MySqlConnection;

use super::claim::claim_all;
use super::intake::put_all;
use super::row::{load, save};
use super::work::settle_and_mark;
use crate::error::Result;
use crate::sql::combine::{Done, Transact, Work};
use crate::sql::mysql::connection::{Connections, write};
use crate::sql::mysql::{budgets, lanes};

/// All that is settled and marked is locked and read once, and written once, with the first mails that are claimed.
async fn transact_in(tx: &mut MySqlConnection, work: &Work<'_>) -> Result<Done> {
    let mut done = Done::default();
    if !work.mails.is_empty() {
        done.enqueued = put_all(tx, work.now, &work.mails).await?;
    }
    let ids = work.settlements.iter().map(|settlement| settlement.id);
    let ids: Vec<_> = ids.chain(work.marks.iter().map(|mark| mark.id)).collect();
    let mut changed = Vec::new();
    if !ids.is_empty() {
        let mut edits = load(tx, ids).await?;
        let settled;
        (settled, done.marked) = settle_and_mark(work.now, &work.settlements, &work.marks, &mut edits);
        let of = work.settlements.iter().zip(&settled);
        let of = of.map(|(settlement, (outbox, settled))| (*outbox, *settlement, *settled));
        budgets::give_back(tx, of).await?;
        done.settled = settled.into_iter().map(|(_, settled)| settled).collect();
        changed.extend(edits.into_values());
    }
    done.claimed = claim_all(tx, work.now, &work.claims, &mut changed).await?;
    save(tx, changed).await?;
    Ok(done)
}

#[async_trait]
impl Transact for Connections {
    async fn transact(&self, work: &Work<'_>) -> Result<Done> {
        if !work.claims.is_empty() {
            lanes::answer(self).await?;
        }
        write!(self, "work on the queue", |tx| transact_in(tx, work).await)
    }
}
