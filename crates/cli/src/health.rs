//! `postroom health`: which mailboxes fail, since when, and what each waits for.

use std::collections::BTreeMap;

use postroom::core::id::MailboxId;
use postroom::core::ledger::State;
use postroom::core::mailbox::Mailbox;
use postroom::core::time::Timestamp;
use postroom::storage::{
    BudgetOwner, BudgetView, Budgets, Health, LedgerDesk, LedgerQuery, MailboxQuery, Watch, Watches,
};
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
            let mut document = with_budget(&health, &budget(session, id).await?);
            let watches: &dyn Watches = session.store();
            if let Some(watch) = watches.watches(session.postroom.now(), Some(id)).await?.first() {
                add_reading(session, &mut document, watch);
                document["oldest_unhandled"] = json!(oldest_unhandled(session, id).await?);
            }
            return session.output.document(&document, || fields(&document));
        }
        let mut all = Vec::new();
        let watches: &dyn Watches = session.store();
        let watches = watches.watches(session.postroom.now(), None).await?;
        let mailboxes = session.postroom.search(&MailboxQuery::default()).await?;
        let mailboxes: BTreeMap<MailboxId, Mailbox> =
            mailboxes.into_iter().map(|mailbox| (mailbox.id, mailbox)).collect();
        for health in session.store().all_health().await? {
            let budget = budget(session, health.mailbox).await?;
            let mut document = with_budget(&health, &budget);
            // One that was deleted meanwhile has its number only.
            if let Some(mailbox) = mailboxes.get(&health.mailbox) {
                document["description"] = json!(mailbox.settings.description());
                document["server"] = json!(mailbox.settings.endpoint().host.to_string());
            }
            if let Some(watch) = watches.iter().find(|watch| watch.mailbox == health.mailbox) {
                add_reading(session, &mut document, watch);
            }
            all.push(document);
        }
        let header = [
            "Mailbox",
            "Description",
            "Server",
            "State",
            "Last success",
            "Failures",
            "Next attempt",
            "Last error",
            "Waits",
            "Lag",
            "By",
        ];
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
            let lag = health["lag_seconds"].as_u64().map(|seconds| format!("{seconds} s"));
            vec![
                text("mailbox"),
                text("description"),
                text("server"),
                state.to_owned(),
                text("last_success"),
                text("failures"),
                text("next_attempt"),
                text("last_error"),
                waits.unwrap_or_default(),
                lag.unwrap_or_default(),
                text("way"),
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

/// Who reads an inbox and how, when ledger and server were last found to agree, and how long ago that is.
fn add_reading(session: &Session, document: &mut Value, watch: &Watch) {
    let now: Timestamp = session.postroom.now();
    document["reader"] = json!(watch.watcher);
    document["reader_until"] = json!(watch.until);
    document["way"] = json!(watch.way);
    document["read_at"] = json!(watch.read_at);
    document["lag_seconds"] = json!(watch.read_at.map(|at| now.since(at).as_secs()));
}

/// Since when the mail that has waited longest waits for the handler.
async fn oldest_unhandled(session: &Session, inbox: MailboxId) -> Result<Option<Timestamp>> {
    let desk: &dyn LedgerDesk = session.store();
    let (state, mailbox, limit) = (Some(State::Stored), Some(inbox), Some(1));
    let waiting = LedgerQuery { state, mailbox, limit, ..LedgerQuery::default() };
    Ok(desk.list(&waiting).await?.first().map(|mail| mail.stored_at))
}
