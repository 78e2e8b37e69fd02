//! `postroom health`: how mailboxes do.

use postroom::core::id::MailboxId;
use postroom::core::time::Timestamp;
use postroom::storage::{BudgetOwner, BudgetView, Budgets, Health};
use serde_json::{Value, json};

use crate::failure::Result;
use crate::output::fields;
use crate::session::Session;

#[derive(clap::Args)]
pub(crate) struct Which {
    /// One mailbox; without it, all that were ever tried.
    id: Option<MailboxId>,
}

impl Which {
    pub(crate) async fn perform(&self, session: &Session) -> Result<()> {
        if let Some(id) = self.id {
            session.postroom.mailbox(id).await?;
            let health = session.store().health(id).await?;
            let document = with_budget(&health, &budget(session, id).await?);
            return session.output.document(&document, || fields(&document));
        }
        let mut all = Vec::new();
        for health in session.store().all_health().await? {
            let budget = budget(session, health.mailbox).await?;
            all.push(with_budget(&health, &budget));
        }
        let header = ["Mailbox", "State", "Last success", "Failures", "Next attempt", "Last error", "Waits"];
        session.output.listing(&header, &all, |health| {
            let text = |name: &str| match &health[name] {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let state = match health {
                health if health["suspended"] == true => "suspended",
                health if health["failures"] != 0 => "failing",
                _ => "good",
            };
            let waits = health["waits"].as_object().map(|_| {
                let part = |name: &str| health["waits"][name].as_str().unwrap_or_default().to_owned();
                format!("{} until {}", part("limit"), part("until"))
            });
            vec![
                text("mailbox"),
                state.to_owned(),
                text("last_success"),
                text("failures"),
                text("next_attempt"),
                text("last_error"),
                waits.unwrap_or_default(),
            ]
        })
    }
}

/// How far the limits of an outbox are used, and what it waits for.
pub(crate) async fn budget(session: &Session, outbox: MailboxId) -> Result<BudgetView> {
    let now: Timestamp = session.postroom.now();
    let budgets: &dyn Budgets = session.store();
    Ok(budgets.budget(now, &BudgetOwner::Outbox(outbox)).await?)
}

fn with_budget(health: &Health, budget: &BudgetView) -> Value {
    let mut document = json!(health);
    document["limits"] = json!(budget.limits);
    document["waits"] = json!(budget.waits);
    document
}
