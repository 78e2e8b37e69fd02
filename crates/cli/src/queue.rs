//! `postroom queue`: what waits, what was sent, what became of it, and what a person does about it.

use clap::Subcommand;
use postroom::core::id::{ContractId, MailboxId, QueueId};
use postroom::core::queue::{Event, State};
use postroom::storage::{QueueDesk, QueueItem, QueueQuery, QueueRecord, Scope, Switch};
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::{Failure, Result};
use crate::output::{fields, table};
use crate::session::Session;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// List mails, oldest first.
    List(Filter),
    /// Show a mail with its recipients and its timeline.
    Show { id: QueueId },
    /// Hold a mail that waits, until it is retried or cancelled.
    Hold { id: QueueId },
    /// Have a mail sent again that is held, in doubt, refused, expired, dead or bounced. What was in doubt may arrive twice.
    Retry { id: QueueId },
    /// Take a mail back that was not sent yet.
    Cancel { id: QueueId },
    /// Have another outbox send a mail that no server has yet: From and Reply-To are replaced, the Message-ID is kept. The
    /// outbox is one that the mail's step, its contract or Standard names.
    Reroute { id: QueueId, outbox: MailboxId },
    /// Say what became of a mail in doubt.
    Settle { id: QueueId, verdict: Verdict },
    /// Remove what the contracts' retention no longer keeps of finished mail. A running worker does it by itself.
    Prune,
    /// Stop sending: that of a contract, of an outbox, or, with neither option, everything. What is submitted meanwhile waits.
    Pause(Which),
    /// Send again: what `pause` with the same options stopped.
    Resume(Which),
    /// List what is paused.
    Paused,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Verdict {
    Accepted,
    Refused,
}

#[derive(clap::Args)]
pub(crate) struct Filter {
    /// queued, held, claimed, crossing, accepted, bounced, refused, expired, cancelled, dead or in-doubt.
    #[arg(long)]
    state: Option<State>,
    #[arg(long)]
    contract: Option<ContractId>,
    /// Those behind this one.
    #[arg(long, value_name = "ID")]
    after: Option<QueueId>,
    /// At most so many.
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

#[derive(clap::Args)]
#[group(multiple = false)]
pub(crate) struct Which {
    #[arg(long)]
    contract: Option<ContractId>,
    #[arg(long, value_name = "ID")]
    outbox: Option<MailboxId>,
}

impl Which {
    fn scope(&self) -> Scope {
        match (&self.contract, self.outbox) {
            (Some(contract), _) => Scope::Contract(contract.clone()),
            (None, Some(outbox)) => Scope::Outbox(outbox),
            (None, None) => Scope::System,
        }
    }
}

impl Command {
    pub(crate) async fn perform(&self, session: &Session) -> Result<()> {
        match self {
            Self::List(filter) => filter.perform(session).await,
            Self::Show { id } => show(session, *id).await,
            Self::Hold { id } => decide(session, *id, Event::Hold).await,
            Self::Retry { id } => retry(session, *id).await,
            Self::Cancel { id } => decide(session, *id, Event::Cancel).await,
            Self::Reroute { id, outbox } => reroute(session, *id, *outbox).await,
            Self::Settle { id, verdict: Verdict::Accepted } => decide(session, *id, Event::Accept).await,
            Self::Settle { id, verdict: Verdict::Refused } => decide(session, *id, Event::Refuse).await,
            Self::Prune => prune(session).await,
            Self::Pause(which) => switch(session, which, Switch::Paused).await,
            Self::Resume(which) => switch(session, which, Switch::Running).await,
            Self::Paused => paused(session).await,
        }
    }
}

/// With the reasons as words, as every other command prints them.
fn with_words(value: &impl Serialize, item: &QueueItem) -> Value {
    let mut document = json!(value);
    document["reasons"] = item.reasons.iter().map(ToString::to_string).collect();
    document
}

impl Filter {
    async fn perform(&self, session: &Session) -> Result<()> {
        let query = QueueQuery {
            state: self.state,
            contract: self.contract.clone(),
            after: self.after,
            limit: self.limit,
        };
        let desk: &dyn QueueDesk = session.store();
        let found: Vec<Value> = desk.list(&query).await?.iter().map(|item| with_words(item, item)).collect();
        let header = ["ID", "State", "Contract", "Outbox", "Created", "Subject"];
        session.output.listing(&header, &found, |item| {
            let names = ["id", "state", "contract", "outbox", "created_at", "subject"];
            names.map(|name| item[name].as_str().unwrap_or_default().to_owned()).to_vec()
        })
    }
}

async fn record(session: &Session, id: QueueId) -> Result<QueueRecord> {
    let desk: &dyn QueueDesk = session.store();
    desk.show(id)
        .await?
        .ok_or_else(|| Failure::refused("not-found", format!("there is no mail {id} in the queue")))
}

async fn show(session: &Session, id: QueueId) -> Result<()> {
    let record = record(session, id).await?;
    let health = session.store().health(record.item.outbox).await?;
    let mut document = with_words(&record, &record.item);
    // Why a mail waits may be the outbox's matter and not the mail's.
    document["outbox_health"] = json!({
        "suspended": health.suspended,
        "failures": health.failures,
        "last_error": health.last_error,
        "next_attempt": health.next_attempt,
        "waits": crate::health::budget(session, record.item.outbox).await?.waits,
    });
    session.output.document(&document, || text(&document, &record))
}

fn text(document: &Value, record: &QueueRecord) -> String {
    let mut head = document.clone();
    if let Some(head) = head.as_object_mut() {
        let _ = (head.remove("recipients"), head.remove("timeline"));
    }
    let recipients = record.recipients.iter().enumerate().map(|(place, recipient)| {
        vec![
            place.to_string(),
            recipient.recipient.address.to_string(),
            recipient.recipient.role.to_string(),
            recipient.state.to_string(),
        ]
    });
    let timeline = record.timeline.iter().map(|entry| {
        vec![
            entry.at.to_string(),
            entry.recipient.map(|place| place.to_string()).unwrap_or_default(),
            entry.what.clone(),
            entry.state.map(|state| state.to_string()).unwrap_or_default(),
            entry.actor.as_ref().map(ToString::to_string).unwrap_or_default(),
            entry.detail.clone(),
        ]
    });
    [
        fields(&head),
        table(&["#", "Recipient", "Role", "State"], recipients),
        table(&["When", "#", "What", "State", "Who", "Detail"], timeline),
    ]
    .join("\n\n")
}

/// What was held is let go, all else is sent again.
async fn retry(session: &Session, id: QueueId) -> Result<()> {
    let record = record(session, id).await?;
    let held = record.recipients.iter().any(|recipient| recipient.state == State::Held);
    decide(session, id, if held { Event::Unhold } else { Event::Retry }).await
}

async fn decide(session: &Session, id: QueueId, event: Event) -> Result<()> {
    let desk: &dyn QueueDesk = session.store();
    desk.decide(session.postroom.now(), &session.actor, id, event).await?;
    let item = record(session, id).await?.item;
    session.output.document(&with_words(&item, &item), || format!("mail {id} is {}", item.state))
}

async fn reroute(session: &Session, id: QueueId, outbox: MailboxId) -> Result<()> {
    session.postroom.reroute(&session.actor, id, outbox).await?;
    let item = record(session, id).await?.item;
    session.output.document(&with_words(&item, &item), || {
        format!("mail {id} goes by outbox {outbox} as {} and is {}", item.sender, item.state)
    })
}

async fn prune(session: &Session) -> Result<()> {
    let pruned = session.postroom.prune().await?;
    session.output.document(&pruned, || {
        format!("{} mails removed, and the contents of {} more", pruned.mails, pruned.bodies)
    })
}

async fn switch(session: &Session, which: &Which, to: Switch) -> Result<()> {
    session.postroom.set_switch(&session.actor, &which.scope(), to).await?;
    paused(session).await
}

async fn paused(session: &Session) -> Result<()> {
    let scopes = session.store().paused().await?;
    session.output.document(&json!({ "paused": scopes }), || {
        if scopes.is_empty() {
            return "nothing is paused".into();
        }
        let words = scopes.iter().map(|scope| match scope {
            Scope::System => "everything".to_owned(),
            Scope::Contract(contract) => format!("contract {contract}"),
            Scope::Outbox(outbox) => format!("outbox {outbox}"),
        });
        format!("paused: {}", words.collect::<Vec<_>>().join(", "))
    })
}
