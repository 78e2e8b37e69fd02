//! `postroom ledger`: received mail, what became of it, and what a person does about it.

use clap::Subcommand;
use postroom::core::id::{ContractId, LedgerId, MailboxId};
use postroom::core::ledger::{HISTORIC, State};
use postroom::storage::{Bodies, LedgerDesk, LedgerQuery, LedgerRecord};
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::output::{fields, table};
use crate::session::Session;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// List mails, oldest first.
    List(Filter),
    /// Show a mail with its timeline.
    Show {
        id: LedgerId,
        /// Print its raw bytes instead.
        #[arg(long)]
        raw: bool,
    },
    /// Have a mail handed over again: one that is dead, handled or ignored.
    Replay { id: LedgerId },
    /// Name the contract of a mail in triage or quarantine.
    Route { id: LedgerId, contract: ContractId },
    /// Drop a mail that waits, in triage, in quarantine or for the handler. It can be replayed as long as its bytes are kept.
    Ignore { id: LedgerId },
    /// Remove what the contracts' retention no longer keeps of finished mail; its keys stay. A running worker does it by itself.
    Prune,
}

#[derive(clap::Args)]
pub(crate) struct Filter {
    /// stored, triage, quarantined, handled, ignored or dead.
    #[arg(long)]
    state: Option<State>,
    #[arg(long, value_name = "ID")]
    mailbox: Option<MailboxId>,
    /// Those behind this one.
    #[arg(long, value_name = "ID")]
    after: Option<LedgerId>,
    /// At most so many.
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

impl Command {
    pub(crate) async fn perform(&self, session: &Session) -> Result<()> {
        let desk: &dyn LedgerDesk = session.store();
        let now = session.postroom.now();
        match self {
            Self::List(filter) => filter.perform(session).await,
            Self::Show { id, raw: true } => raw(session, *id).await,
            Self::Show { id, raw: false } => show(session, *id).await,
            Self::Replay { id } => {
                desk.replay(now, &session.actor, *id).await?;
                told(session, *id).await
            }
            Self::Route { id, contract } => {
                desk.route(now, &session.actor, *id, contract).await?;
                told(session, *id).await
            }
            Self::Prune => {
                let pruned = session.postroom.prune_received().await?;
                session.output.document(&pruned, || {
                    let (keys, bytes) = (pruned.mails, pruned.bodies);
                    format!("all but the keys of {keys} mails removed, and the bytes of {bytes} more")
                })
            }
            Self::Ignore { id } => {
                desk.ignore(now, &session.actor, *id).await?;
                told(session, *id).await
            }
        }
    }
}

impl Filter {
    async fn perform(&self, session: &Session) -> Result<()> {
        let query =
            LedgerQuery { state: self.state, mailbox: self.mailbox, after: self.after, limit: self.limit };
        let desk: &dyn LedgerDesk = session.store();
        let found = desk.list(&query).await?;
        let header = ["ID", "State", "Mailbox", "Contract", "Stored", "From", "Subject"];
        session.output.listing(&header, &found, |item| {
            vec![
                item.id.to_string(),
                if item.is_historic() {
                    format!("{}, {HISTORIC}", item.state)
                } else {
                    item.state.to_string()
                },
                item.mailbox.to_string(),
                item.contract.as_ref().map(ToString::to_string).unwrap_or_default(),
                item.stored_at.to_string(),
                item.sender.clone(),
                item.subject.clone(),
            ]
        })
    }
}

async fn record(session: &Session, id: LedgerId) -> Result<LedgerRecord> {
    let desk: &dyn LedgerDesk = session.store();
    desk.show(id)
        .await?
        .ok_or_else(|| Failure::refused("not-found", format!("there is no mail {id} in the ledger")))
}

async fn told(session: &Session, id: LedgerId) -> Result<()> {
    let item = record(session, id).await?.item;
    session.output.document(&item, || format!("mail {id} is {}", item.state))
}

async fn show(session: &Session, id: LedgerId) -> Result<()> {
    let record = record(session, id).await?;
    session.output.document(&record, || {
        let timeline = record.timeline.iter().map(|entry| {
            vec![
                entry.at.to_string(),
                entry.what.clone(),
                entry.state.map(|state| state.to_string()).unwrap_or_default(),
                entry.actor.as_ref().map(ToString::to_string).unwrap_or_default(),
                entry.detail.clone(),
            ]
        });
        let head = fields(&json!(record.item));
        let calls = format!("calls of the handler: {}", record.attempts);
        [head, calls, table(&["When", "What", "State", "Who", "Detail"], timeline)].join("\n\n")
    })
}

async fn raw(session: &Session, id: LedgerId) -> Result<()> {
    let gone = || Failure::refused("not-found", "its bytes are not kept any more");
    let body = record(session, id).await?.body.ok_or_else(gone)?;
    let bodies: &dyn Bodies = session.store();
    let mut number = 0;
    while let Some(piece) = bodies.piece(body, number).await? {
        session.output.bytes(&piece)?;
        number += 1;
    }
    Ok(())
}
