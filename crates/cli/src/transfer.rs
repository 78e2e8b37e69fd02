//! `postroom export` and `postroom import`: the registry as one JSON document, without secrets. A box that signs in is imported as
//! a draft: it is used once its password is set and it is enabled.

use std::collections::HashMap;
use std::path::PathBuf;

use postroom::core::contract::{Contract, ContractOutbox};
use postroom::core::id::{MailboxId, Revision};
use postroom::core::mailbox::{Kind, Mailbox, MailboxDraft, MailboxSettings, SettingsDraft, Status};
use postroom::core::rules;
use postroom::core::step::{Step, StepOutbox};
use postroom::core::violation::{Findings, Invalid};
use postroom::storage::{Change, MailboxQuery};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::output::note;
use crate::session::Session;

const FORMAT: &str = "postroom-registry-1";
const PAGE: u32 = 1000;

#[derive(Serialize, Deserialize)]
struct Registry {
    format: String,
    mailboxes: Vec<Entry>,
    contracts: Vec<Contract>,
    steps: Vec<Step>,
    standard: Option<MailboxId>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    id: MailboxId,
    status: Status,
    #[serde(flatten)]
    form: MailboxDraft,
}

pub(crate) async fn export(session: &Session) -> Result<()> {
    let store = session.store();
    let mailboxes = store.search(&MailboxQuery::default()).await?;
    let entry = |mailbox: &Mailbox| Entry {
        id: mailbox.id,
        status: mailbox.status,
        form: MailboxDraft::from(&mailbox.settings),
    };
    let mut registry = Registry {
        format: FORMAT.to_owned(),
        mailboxes: mailboxes.iter().map(entry).collect(),
        contracts: Vec::new(),
        steps: Vec::new(),
        standard: store.standard().await?,
    };
    loop {
        let page = store.contracts(registry.contracts.last().map(|contract| &contract.id), PAGE).await?;
        let last = page.len() < PAGE as usize;
        registry.contracts.extend(page);
        if last {
            break;
        }
    }
    loop {
        let page = store.steps(registry.steps.last().map(|step| &step.key), PAGE).await?;
        let last = page.len() < PAGE as usize;
        registry.steps.extend(page);
        if last {
            break;
        }
    }
    let text = serde_json::to_string_pretty(&registry)
        .map_err(|error| Failure::unreachable("output", error.to_string()));
    // The file for an import is the same document with and without --json.
    session.output.document(&registry, || text.unwrap_or_default())
}

#[derive(clap::Args)]
pub(crate) struct Source {
    file: PathBuf,
}

impl Source {
    pub(crate) async fn perform(&self, session: &Session) -> Result<()> {
        let bytes = std::fs::read(&self.file).map_err(|error| Failure::file(&self.file, &error))?;
        let unreadable = |error: serde_json::Error| {
            Failure::refused("unreadable-registry", format!("{}: {error}", self.file.display()))
        };
        let registry: Registry = serde_json::from_slice(&bytes).map_err(unreadable)?;
        if registry.format != FORMAT {
            let message = format!("{}: it is no registry of the format {FORMAT}", self.file.display());
            return Err(Failure::refused("unreadable-registry", message));
        }
        let checked = check(&registry)?;
        absent(session, &registry).await?;
        write(session, registry, checked).await
    }
}

/// Everything that is wrong with the document, before anything is written.
fn check(registry: &Registry) -> Result<Vec<MailboxSettings>> {
    let mut findings = Findings::default();
    let mut settings = Vec::new();
    for (index, mailbox) in registry.mailboxes.iter().enumerate() {
        match mailbox.form.check() {
            Ok(checked) => settings.push(checked),
            Err(violations) => findings.add_all(&format!("mailboxes[{index}]."), violations),
        }
    }
    let known = |id: &MailboxId| registry.mailboxes.iter().any(|mailbox| mailbox.id == *id);
    for (index, contract) in registry.contracts.iter().enumerate() {
        if let Err(violations) = contract.check() {
            findings.add_all(&format!("contracts[{index}]."), violations);
        }
        for id in contract.mailboxes().iter().filter(|id| !known(id)) {
            let invalid = Invalid::new(&rules::CONTRACT_OUTBOX).with("value", id.to_string());
            findings.add(invalid.at(format!("contracts[{index}]")));
        }
    }
    for (index, step) in registry.steps.iter().enumerate() {
        if let Err(violations) = step.check() {
            findings.add_all(&format!("steps[{index}]."), violations);
        }
        let strange = matches!(&step.outbox, StepOutbox::Specific(id) if !known(id));
        findings.refuse_if(strange, &format!("steps[{index}].outbox"), &rules::STEP_OUTBOX);
    }
    Ok(findings.finish(Some(settings))?)
}

/// Nothing that is there already is overwritten.
async fn absent(session: &Session, registry: &Registry) -> Result<()> {
    let mut there = Vec::new();
    for contract in &registry.contracts {
        if session.store().contract(&contract.id).await?.is_some() {
            there.push(format!("contract {}", contract.id));
        }
    }
    for step in &registry.steps {
        if session.store().step(&step.key).await?.is_some() {
            there.push(format!("step {}", step.key));
        }
    }
    if there.is_empty() {
        return Ok(());
    }
    Err(Failure::refused(
        "conflict",
        format!("an import overwrites nothing, and there is already: {}", there.join(", ")),
    ))
}

async fn write(session: &Session, registry: Registry, checked: Vec<MailboxSettings>) -> Result<()> {
    let (store, actor) = (session.store(), &session.actor);
    let mut numbers = HashMap::new();
    for mailbox in &registry.mailboxes {
        numbers.insert(mailbox.id, store.reserve().await?);
    }
    let renumbered = |id: MailboxId| numbers.get(&id).copied().unwrap_or(id);
    let mut drafts = Vec::new();
    // Inboxes first: they are the companions of outboxes.
    let boxes = || registry.mailboxes.iter().zip(&checked);
    for kind in [Kind::Inbox, Kind::Outbox] {
        for (mailbox, settings) in boxes().filter(|(_, settings)| settings.kind() == kind) {
            let id = renumbered(mailbox.id);
            let mut form = mailbox.form.clone();
            if let SettingsDraft::Outbox(outbox) = &mut form.settings {
                outbox.companion = outbox.companion.map(renumbered);
            }
            let status = if settings.user().is_some() { Status::Draft } else { mailbox.status };
            if status == Status::Draft {
                drafts.push(id);
            }
            let change = Change::new(session.postroom.now(), actor.clone());
            let revision = Revision::new(1);
            let new = Mailbox::new(id, form.check()?, status, revision, actor.clone(), change.now);
            store.add(&change, &new, None).await?;
        }
    }
    for mut contract in registry.contracts.iter().cloned() {
        contract.revision = Revision::new(0);
        if let ContractOutbox::Specific { outbox, .. } = &mut contract.outbox {
            *outbox = renumbered(*outbox);
        }
        let lists = contract.allowed_outboxes.iter_mut().flatten().chain(&mut contract.inboxes);
        lists.for_each(|id| *id = renumbered(*id));
        session.postroom.save_contract(actor, &contract).await?;
    }
    for mut step in registry.steps.iter().cloned() {
        step.revision = Revision::new(0);
        if let StepOutbox::Specific(outbox) = &mut step.outbox {
            *outbox = renumbered(*outbox);
        }
        session.postroom.save_step(actor, &step).await?;
    }
    if let (Some(standard), None) = (registry.standard, store.standard().await?) {
        session.postroom.set_standard(actor, Some(renumbered(standard))).await?;
    }
    tell(session, &registry, &numbers, &drafts)
}

fn tell(
    session: &Session,
    registry: &Registry,
    numbers: &HashMap<MailboxId, MailboxId>,
    drafts: &[MailboxId],
) -> Result<()> {
    let pairs: Vec<_> = registry
        .mailboxes
        .iter()
        .map(|mailbox| json!({ "was": mailbox.id, "id": numbers.get(&mailbox.id) }))
        .collect();
    let document = json!({
        "mailboxes": pairs,
        "drafts": drafts,
        "contracts": registry.contracts.len(),
        "steps": registry.steps.len(),
    });
    if !drafts.is_empty() {
        let ids: Vec<String> = drafts.iter().map(ToString::to_string).collect();
        note(&format!(
            "drafts until their password is set (`mailbox edit ID --password-stdin`) and they are enabled: {}",
            ids.join(", ")
        ));
    }
    session.output.document(&document, || {
        let counts = (registry.mailboxes.len(), registry.contracts.len(), registry.steps.len());
        format!("{} mailboxes, {} contracts and {} steps imported", counts.0, counts.1, counts.2)
    })
}
