//! What submitters and dispatchers ask for at the same time, in one transaction. How it is collected is in `sql/combine`.

use std::collections::BTreeSet;

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;

use super::claim::Claiming;
use super::intake::{Question, put_by};
use super::row::{Edits, MAILS, edits, save_script};
use super::work::settle_and_mark;
use crate::error::Result;
use crate::sql::combine::{Done, Transact, Work};
use crate::sql::rows::{queue_ids, unreadable};
use crate::sql::sqlite::budgets;
use crate::sql::sqlite::connection::{BEGIN, Connections};
use crate::sql::sqlite::script::Script;

const STAGE: &str = "work on the queue";

/// Four ways to SQLite's thread, however many calls there are: one that begins the transaction and reads what is settled, marked and
/// submitted, one that inserts, one that reads what is claimed, and one that writes all that changed, whose script this gives, and commits.
async fn transact_in(tx: &mut SqliteConnection, work: &Work<'_>) -> Result<(Done, Script)> {
    let (mut done, now) = (Done::default(), work.now);
    let settled = work.settlements.iter().map(|settlement| settlement.id);
    let ids: BTreeSet<_> = settled.chain(work.marks.iter().map(|mark| mark.id)).collect();
    let question = Question::about(&work.mails)?;
    let mut script = Script::default();
    script.then(BEGIN);
    if !ids.is_empty() {
        script.then(MAILS).with(queue_ids(ids.iter().copied())?)?;
    }
    question.ask(&mut script)?;
    let mut answers = script.texts(tx, STAGE).await?;
    let mut changed =
        if ids.is_empty() { Edits::new() } else { edits(&answers.next().ok_or_else(unreadable)?)? };
    let settled;
    (settled, done.marked) = settle_and_mark(now, &work.settlements, &work.marks, &mut changed);
    let of = work.settlements.iter().zip(&settled);
    budgets::give_back(tx, of.map(|(settlement, (outbox, settled))| (*outbox, *settlement, *settled)))
        .await?;
    done.settled = settled.into_iter().map(|(_, settled)| settled).collect();
    if !work.mails.is_empty() {
        done.enqueued = put_by(tx, now, &work.mails, question.answers(answers)?).await?;
    }
    let mut claiming = Claiming::of(now, &work.claims);
    let mut served = Vec::new();
    loop {
        for claiming in &mut claiming {
            claiming.look(tx, &mut changed).await?;
            claiming.take(tx, &mut changed, &mut served).await?;
        }
        if claiming.iter().all(Claiming::has_ended) {
            break;
        }
        // There may be more in other lines, or in those of a lower priority.
        let edits = std::mem::take(&mut changed).into_values();
        save_script(edits, &std::mem::take(&mut served))?.run(tx, STAGE).await?;
    }
    done.claimed = work.claims.iter().map(|_| Vec::new()).collect();
    for claiming in claiming {
        for (place, mail) in claiming.end(tx).await? {
            done.claimed.get_mut(place).ok_or_else(unreadable)?.push(mail);
        }
    }
    Ok((done, save_script(changed.into_values(), &served)?))
}

#[async_trait]
impl Transact for Connections {
    async fn transact(&self, work: &Work<'_>) -> Result<Done> {
        let mut turn = self.turn(STAGE).await?;
        let done = transact_in(&mut turn, work).await;
        turn.finish_by(done).await
    }
}
