//! What outboxes took of their limits, and until when they wait. A lane says whether its outbox has limits at all: claims of
//! those that have none read nothing here.

use async_trait::async_trait;
use postroom_core::automatic;
use postroom_core::budget::{Budget, Limit, Limits, Wait};
use postroom_core::id::MailboxId;
use postroom_core::time::Timestamp;
use sqlx::sqlite::SqliteConnection;

use super::connection::failed;
use super::correspondents;
use super::store::SqliteStore;
use crate::budgets::{BudgetOwner, BudgetView, Budgets, Used};
use crate::error::Result;
use crate::queue::{Settled, Settlement};
use crate::sql::rows::{from_json, small, time, to_json, unreadable};

pub(super) const OF: &str =
    "SELECT m.settings ->> 'per_minute', m.settings ->> 'recipients_per_day', b.minute, b.day,
        l.spent_limit, l.spent_until
    FROM postroom_mailbox m LEFT JOIN postroom_budget b ON b.owner = 'outbox/' || m.id
    LEFT JOIN postroom_queue_lane l ON l.outbox = m.id
    WHERE m.id = ?1 AND m.kind = 'outbox'";

const WRITE: &str = "INSERT INTO postroom_budget (owner, minute, day) VALUES ('outbox/' || ?1, ?2, ?3)
    ON CONFLICT (owner) DO UPDATE SET minute = excluded.minute, day = excluded.day";

const WAITS: &str = "UPDATE postroom_queue_lane SET spent_limit = ?2, spent_until = ?3
    WHERE outbox = ?1 AND (spent_limit, spent_until) IS NOT (?2, ?3)";

type Columns = (Option<i64>, Option<i64>, Option<String>, Option<String>, Option<String>, Option<i64>);

/// The budget of an outbox between being read and being written back.
pub(super) struct Account {
    outbox: MailboxId,
    pub(super) limits: Limits,
    pub(super) budget: Budget,
    before: Budget,
    waits: Option<Wait>,
}

/// The account of an outbox; none where there is no such.
pub(super) async fn account(tx: &mut SqliteConnection, outbox: MailboxId) -> Result<Option<Account>> {
    let row = sqlx::query_as(OF).bind(outbox.number()).fetch_optional(tx).await;
    let row: Option<Columns> = row.map_err(failed("read a budget"))?;
    let Some((per_minute, per_day, minute, day, limit, until)) = row else { return Ok(None) };
    let number = |number: Option<i64>| number.map(small).transpose();
    let taken = |text: Option<String>| text.map_or_else(|| Ok(Default::default()), |text| from_json(&text));
    let wait = |(limit, until): (String, i64)| {
        let limit = Limit::of_word(&limit).ok_or_else(unreadable)?;
        Ok(Wait { limit, until: time(until) })
    };
    let budget = Budget { minute: taken(minute)?, day: taken(day)? };
    Ok(Some(Account {
        outbox,
        limits: Limits { per_minute: number(per_minute)?, recipients_per_day: number(per_day)? },
        before: budget.clone(),
        budget,
        waits: limit.zip(until).map(wait).transpose()?,
    }))
}

impl Account {
    /// Writes what was taken or given back, and until when the outbox waits.
    pub(super) async fn save(self, tx: &mut SqliteConnection, waits: Option<Wait>) -> Result<()> {
        const STAGE: &str = "write a budget";
        if self.budget != self.before {
            let query = sqlx::query(WRITE).bind(self.outbox.number());
            let query = query.bind(to_json(&self.budget.minute)?).bind(to_json(&self.budget.day)?);
            query.execute(&mut *tx).await.map_err(failed(STAGE))?;
        }
        wait(tx, self.outbox, waits).await
    }
}

/// Sets until when an outbox waits; none for not at all.
async fn wait(tx: &mut SqliteConnection, outbox: MailboxId, waits: Option<Wait>) -> Result<()> {
    let query = sqlx::query(WAITS).bind(outbox.number()).bind(waits.map(|wait| wait.limit.word()));
    let query = query.bind(waits.map(|wait| wait.until.as_millis()));
    query.execute(tx).await.map_err(failed("set until when an outbox waits"))?;
    Ok(())
}

/// The next claim finds out: settings have changed.
pub(super) async fn ask_anew(tx: &mut SqliteConnection, outbox: MailboxId) -> Result<()> {
    wait(tx, outbox, None).await
}

/// Gives back what the settlements say was not sent.
pub(super) async fn give_back(
    tx: &mut SqliteConnection,
    settlements: impl Iterator<Item = (i64, &Settlement, Settled)>,
) -> Result<()> {
    for (outbox, settlement, settled) in settlements {
        if let Some((at, recipients)) = settlement.unsent(settled)
            && let Some(mut account) = account(tx, MailboxId::new(outbox)).await?
            && !account.limits.is_empty()
        {
            account.budget.give_back(at, recipients);
            account.save(tx, None).await?;
        }
    }
    Ok(())
}

#[async_trait]
impl Budgets for SqliteStore {
    async fn budget(&self, now: Timestamp, owner: &BudgetOwner) -> Result<BudgetView> {
        let mut read = self.connections.read("read a budget").await?;
        let outbox = match owner {
            BudgetOwner::Outbox(outbox) => outbox,
            BudgetOwner::Correspondent(contract, address) => {
                let sent =
                    correspondents::sent_to(&mut read, now, &automatic::account(contract, address)).await;
                return Ok(BudgetView::of_correspondent(&read.finish(sent).await?, now));
            }
        };
        let account = account(&mut read, *outbox).await;
        let Some(Account { limits, budget, waits, .. }) = read.finish(account).await? else {
            return Ok(BudgetView::default());
        };
        Ok(BudgetView {
            limits: Used::all(limits, &budget, now),
            waits: waits.filter(|wait| wait.until > now),
        })
    }
}
