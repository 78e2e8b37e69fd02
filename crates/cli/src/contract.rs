//! `postroom contract`: which outbox and inboxes a contract has, how its mail is recognised, and what it may use.

use std::io::{self, BufRead, IsTerminal};

use clap::Subcommand;
use postroom::core::address::{Address, Domain};
use postroom::core::contract::{Contract, ContractOutbox, Requesters};
use postroom::core::id::{ContractId, MailboxId};
use postroom::core::violation::{Findings, Invalid};
use postroom::storage::{Scope, Waiting};
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::output::{fields, note};
use crate::session::Session;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Choose the outbox that a contract sends by.
    Link(Link),
    /// Link an inbox to a contract.
    Inbox {
        contract: ContractId,
        id: MailboxId,
        /// Take the link away.
        #[arg(long)]
        remove: bool,
    },
    /// Show a contract's links and settings.
    Show { contract: ContractId },
    /// Set how its mail is recognised and what it may use. What is not named stays.
    Set(Box<Settings>),
    /// List all contracts.
    List,
    /// Remove for good what is kept of its finished mail, sent and received, and its suppression list. Links and settings stay, and so do keys without
    /// content, so that nothing is sent or handed over a second time. Mail that is not finished is left alone and counted. On a terminal it asks first.
    Forget {
        contract: ContractId,
        /// Don't ask.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Link {
    contract: ContractId,
    #[command(flatten)]
    outbox: Outbox,
    /// One of the outbox's senders; without it, its default.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "standard")]
    sender: Option<Address>,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Outbox {
    /// The system's standard outbox.
    #[arg(long)]
    standard: bool,
    /// One registered outbox.
    #[arg(long, value_name = "ID")]
    outbox: Option<MailboxId>,
}

#[derive(clap::Args)]
pub(crate) struct Settings {
    contract: ContractId,
    /// An address that its mail is sent to or from; repeat it for more. They replace those that were set; '' for none.
    #[arg(long, value_name = "ADDRESS")]
    address: Vec<String>,
    /// A domain that only its people send from; repeat it for more. They replace those that were set; '' for none.
    #[arg(long)]
    domain: Vec<String>,
    /// What to do with unknown requesters: accept, refuse or ask.
    #[arg(long, value_name = "WHAT")]
    requester: Option<String>,
    /// What it may use: boxes=N, queued=N, per-day=N; NAME= for no limit.
    #[arg(long, value_name = "NAME=N")]
    limit: Vec<String>,
    /// For how long its content is kept: bodies=DAYS, raw=DAYS, timelines=DAYS, dead=DAYS.
    #[arg(long, value_name = "NAME=DAYS")]
    retain: Vec<String>,
    /// An outbox that its steps may name; repeat it for more. They replace those that were set.
    #[arg(long, value_name = "ID", conflicts_with = "allow_any_outbox")]
    allow_outbox: Vec<String>,
    /// Let its steps name any outbox.
    #[arg(long)]
    allow_any_outbox: bool,
}

impl Command {
    pub(crate) async fn perform(&self, session: &Session) -> Result<()> {
        match self {
            Self::Link(link) => {
                change(session, &link.contract, |contract| {
                    contract.outbox = match link.outbox.outbox {
                        Some(outbox) => ContractOutbox::Specific { outbox, sender: link.sender.clone() },
                        None => ContractOutbox::Standard,
                    };
                    Ok(())
                })
                .await
            }
            Self::Inbox { contract, id, remove } => {
                change(session, contract, |contract| {
                    contract.inboxes.retain(|inbox| inbox != id);
                    if !remove {
                        contract.inboxes.push(*id);
                    }
                    Ok(())
                })
                .await
            }
            Self::Show { contract } => tell(session, &session.postroom.contract(contract).await?).await,
            Self::Set(settings) => {
                change(session, &settings.contract, |contract| settings.apply(contract)).await
            }
            Self::List => list(session).await,
            Self::Forget { contract, yes } => forget(session, contract, *yes).await,
        }
    }
}

async fn change(
    session: &Session,
    id: &ContractId,
    apply: impl FnOnce(&mut Contract) -> Result<()>,
) -> Result<()> {
    let mut contract = session.postroom.contract(id).await?;
    apply(&mut contract)?;
    let saved = session.postroom.save_contract(&session.actor, &contract).await?;
    tell(session, &saved).await
}

async fn tell(session: &Session, contract: &Contract) -> Result<()> {
    let mut document = json!(contract);
    document["outbox"] = outbox(contract);
    document["paused"] =
        session.store().paused().await?.contains(&Scope::Contract(contract.id.clone())).into();
    session.output.document(&document, || fields(&document))
}

/// The link in a form that scripts can ask: `{"standard": true}`, or `{"outbox": ID, "sender": A}`.
fn outbox(contract: &Contract) -> serde_json::Value {
    match &contract.outbox {
        ContractOutbox::Standard => json!({ "standard": true }),
        ContractOutbox::Specific { outbox, sender } => json!({ "outbox": outbox, "sender": sender }),
    }
}

async fn list(session: &Session) -> Result<()> {
    const PAGE: u32 = 1000;
    let mut all: Vec<Contract> = Vec::new();
    loop {
        let page = session.store().contracts(all.last().map(|contract| &contract.id), PAGE).await?;
        let last = page.len() < PAGE as usize;
        all.extend(page);
        if last {
            break;
        }
    }
    session.output.listing(&["Contract", "Outbox", "Inboxes"], &all, |contract| {
        let inboxes: Vec<String> = contract.inboxes.iter().map(ToString::to_string).collect();
        vec![contract.id.to_string(), contract.outbox.to_string(), inboxes.join(", ")]
    })
}

async fn forget(session: &Session, contract: &ContractId, is_sure: bool) -> Result<()> {
    if !is_sure && io::stdin().is_terminal() {
        note(&format!(
            "this removes for good what is kept of the mail of {contract}; write its id to go on:"
        ));
        confirm(contract, io::stdin().lock())?;
    }
    let forgotten = session.postroom.forget(&session.actor, contract).await?;
    let (sent, received, suppressions) = (forgotten.sent, forgotten.received, forgotten.suppressions);
    let counts = json!({
        "sent": sent,
        "received": received,
        "suppressions": suppressions,
        "waiting": forgotten.waiting,
    });
    session.output.document(&counts, || {
        let done = format!("{contract}: {sent} sent and {received} received mails and {suppressions} suppressed addresses are forgotten");
        let Waiting { queued, received, .. } = forgotten.waiting;
        if queued + received == 0 {
            return done;
        }
        let then = "finish them (`queue list|cancel|settle`, `ledger list|ignore`) and forget again";
        format!("{done}\n{queued} in the queue and {received} for the handler are not finished and were left: {then}")
    })
}

/// Takes the id of the contract for a yes, and nothing else.
fn confirm(contract: &ContractId, mut answers: impl BufRead) -> Result<()> {
    let mut answer = String::new();
    let read = answers.read_line(&mut answer);
    match read {
        Ok(_) if answer.trim_end_matches(['\r', '\n']) == contract.as_str() => Ok(()),
        _ => Err(Failure::refused("not-confirmed", "that is not its id: nothing was removed")),
    }
}

impl Settings {
    /// Every violation of what was given is found at once.
    fn apply(&self, contract: &mut Contract) -> Result<()> {
        let mut findings = Findings::default();
        replace("addresses", &self.address, Address::parse, &mut contract.addresses, &mut findings);
        replace("domains", &self.domain, Domain::parse, &mut contract.domains, &mut findings);
        if let Some(requester) = &self.requester {
            let found = findings.take("requester", Requesters::parse(requester));
            contract.requesters = found.unwrap_or(contract.requesters);
        }
        for (index, text) in self.limit.iter().enumerate() {
            findings.take(&format!("limits[{index}]"), contract.limits.set(text));
        }
        for (index, text) in self.retain.iter().enumerate() {
            findings.take(&format!("retention[{index}]"), contract.retention.set(text));
        }
        if self.allow_any_outbox {
            contract.allowed_outboxes = None;
        } else if !self.allow_outbox.is_empty() {
            let allowed = contract.allowed_outboxes.get_or_insert_default();
            replace("allowed_outboxes", &self.allow_outbox, MailboxId::parse, allowed, &mut findings);
        }
        findings.finish(Some(())).map_err(Failure::from)
    }
}

/// Replaces a list when values were given; an empty value stands for none.
fn replace<T>(
    field: &str,
    given: &[String],
    parse: impl Fn(&str) -> Result<T, Invalid>,
    list: &mut Vec<T>,
    findings: &mut Findings,
) {
    if given.is_empty() {
        return;
    }
    let texts = given.iter().enumerate().filter(|(_, text)| !text.is_empty());
    *list =
        texts.filter_map(|(index, text)| findings.take(&format!("{field}[{index}]"), parse(text))).collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        settings: Settings,
    }

    fn apply(arguments: &[&str], contract: &mut Contract) -> Result<()> {
        Only::try_parse_from([&["set", "C"], arguments].concat()).expect("arguments").settings.apply(contract)
    }

    #[test]
    fn lists_are_replaced_and_an_empty_value_empties_them() {
        let mut contract = Contract::new(ContractId::parse("C").expect("id"));
        apply(
            &["--address", "a@acme.example", "--address", "b@acme.example", "--limit", "queued=5"],
            &mut contract,
        )
        .expect("good values");
        assert_eq!((contract.addresses.len(), contract.limits.queued), (2, Some(5)));
        apply(&["--address", "", "--limit", "queued="], &mut contract).expect("good values");
        assert_eq!((contract.addresses.len(), contract.limits.queued), (0, None));
    }

    #[test]
    fn nothing_but_the_id_of_the_contract_confirms() {
        let contract = ContractId::parse("ACME").expect("id");
        for (answer, is_yes) in
            [("ACME\n", true), ("ACME\r\n", true), ("yes\n", false), ("acme\n", false), ("", false)]
        {
            let said = confirm(&contract, answer.as_bytes());
            assert_eq!(said.is_ok(), is_yes, "{answer:?}: {said:?}");
        }
    }

    #[test]
    fn every_bad_value_is_named_at_once() {
        let mut contract = Contract::new(ContractId::parse("C").expect("id"));
        let bad =
            ["--address", "x", "--domain", "@", "--requester", "no", "--limit", "x=1", "--retain", "raw=0"];
        let failure = apply(&bad, &mut contract).expect_err("five are bad");
        let json: serde_json::Value =
            serde_json::from_str(&failure.words(true).expect("words")).expect("json");
        let rules: Vec<_> =
            json["violations"].as_array().expect("a list").iter().map(|v| v["rule"].clone()).collect();
        assert_eq!(
            rules,
            ["address.form", "domain.form", "contract.requester", "contract.limit", "contract.retention"]
        );
    }
}
