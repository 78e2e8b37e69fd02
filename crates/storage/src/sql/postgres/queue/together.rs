//! What submitters, or dispatchers, ask for at the same time, in one transaction. How it is collected is in `sql/combine`.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

use super::claim::{Claiming, by_order};
use super::intake::put_all;
use super::row::{lock, read, save_served};
use super::work::settle_and_mark;
use crate::error::Result;
use crate::sql::combine::{Done, Transact, Work};
use crate::sql::postgres::connection::{Connections, write};
use crate::sql::postgres::{budgets, lanes};

/// All that is settled, marked and claimed is locked, then read, then written, each in one statement.
async fn transact_in(tx: &mut PgConnection, work: &Work<'_>) -> Result<Done> {
    let mut done = Done::default();
    if !work.mails.is_empty() {
        done.enqueued = put_all(tx, work.now, &work.mails).await?;
    }
    let ids = work.settlements.iter().map(|settlement| settlement.id);
    let locked = lock(tx, ids.chain(work.marks.iter().map(|mark| mark.id))).await?;
    let mut claiming = Claiming::of(work.now, &work.claims);
    let mut due = Vec::new();
    for claiming in &mut claiming {
        due.extend(claiming.look(tx).await?);
    }
    due.retain(|id| !locked.contains(id));
    let mut edits = read(tx, locked, due).await?;
    let settled;
    (settled, done.marked) = settle_and_mark(work.now, &work.settlements, &work.marks, &mut edits);
    let of = work.settlements.iter().zip(&settled);
    budgets::give_back(tx, of.map(|(settlement, (outbox, settled))| (*outbox, *settlement, *settled)))
        .await?;
    done.settled = settled.into_iter().map(|(_, settled)| settled).collect();
    loop {
        let mut served = Vec::new();
        for claiming in &mut claiming {
            claiming.take(tx, &mut edits, &mut served).await?;
        }
        save_served(tx, edits.into_values(), served).await?;
        // There may be more in other lines, or in those of a lower priority.
        let mut due = Vec::new();
        for claiming in &mut claiming {
            due.extend(claiming.look(tx).await?);
        }
        if due.is_empty() {
            break;
        }
        edits = read(tx, Vec::new(), due).await?;
    }
    let mut claimed = Vec::new();
    for claiming in claiming {
        claimed.extend(claiming.end(tx).await?);
    }
    done.claimed = by_order(&work.claims, claimed)?;
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
