//! `postroom step`: the e-mail steps of flows, with template, recipients and outbox setup.

use std::path::PathBuf;

use clap::Subcommand;
use postroom::core::id::{FlowId, MailboxId, StepId, StepKey};
use postroom::core::rules;
use postroom::core::step::{Step, StepOutbox, StepRecipient};
use postroom::core::template::Template;
use postroom::core::violation::{Findings, Invalid};
use postroom::engine::ErrorKind;
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::output::fields;
use crate::session::Session;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Set up a step. What is not named stays.
    Link(Box<Setup>),
    /// Show a step.
    Show { flow: FlowId, step: StepId },
    /// List all steps.
    List,
}

#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Setup {
    flow: FlowId,
    step: StepId,
    #[command(flatten)]
    outbox: Outbox,
    /// Its name, as people see it.
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// What it writes: a first line `Subject: ..`, an empty line, the text, with ${KEY} for values. @FILE reads it from a file.
    #[arg(long, value_name = "TEXT|@FILE")]
    template: Option<String>,
    /// The HTML part of the template.
    #[arg(long, value_name = "FILE", requires = "template")]
    template_html: Option<PathBuf>,
    /// An address, or a name that the host resolves; repeat it for more. They replace those that were set.
    #[arg(long)]
    recipient: Vec<String>,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Outbox {
    /// The outbox of the contract.
    #[arg(long)]
    contract: bool,
    /// One registered outbox.
    #[arg(long, value_name = "ID")]
    specific: Option<MailboxId>,
}

impl Command {
    pub(crate) async fn perform(&self, session: &Session) -> Result<()> {
        match self {
            Self::Link(setup) => setup.perform(session).await,
            Self::Show { flow, step } => {
                let key = StepKey::new(flow.clone(), step.clone());
                tell(session, &session.postroom.step(&key).await?)
            }
            Self::List => list(session).await,
        }
    }
}

impl Setup {
    async fn perform(&self, session: &Session) -> Result<()> {
        let key = StepKey::new(self.flow.clone(), self.step.clone());
        let mut step = match session.postroom.step(&key).await {
            Ok(step) => step,
            Err(error) if *error.kind() == ErrorKind::NotFound => Step::new(key),
            Err(error) => return Err(error.into()),
        };
        step.outbox = self.outbox.specific.map_or(StepOutbox::Contract, StepOutbox::Specific);
        if let Some(name) = &self.name {
            step.name.clone_from(name);
        }
        let mut findings = Findings::default();
        if let Some(text) = &self.template {
            step.template = findings.take("template", self.template(text)?);
        }
        if !self.recipient.is_empty() {
            let given = self.recipient.iter().enumerate();
            step.recipients = given
                .filter_map(|(index, text)| {
                    findings.take(&format!("recipients[{index}]"), StepRecipient::parse(text))
                })
                .collect();
        }
        // A name that is too long is found with the rest.
        if let Err(violations) = step.check() {
            findings.add_all("", violations);
        }
        findings.finish(Some(()))?;
        tell(session, &session.postroom.save_step(&session.actor, &step).await?)
    }

    fn template(&self, text: &str) -> Result<Result<Template, Invalid>> {
        let read = |path: &std::path::Path| {
            std::fs::read_to_string(path).map_err(|error| Failure::file(path, &error))
        };
        let text = match text.strip_prefix('@') {
            Some(path) => read(path.as_ref())?,
            None => text.to_owned(),
        };
        let template = Template::parse(&text);
        Ok(match &self.template_html {
            None => template,
            Some(path) => {
                let html = read(path)?;
                template.and_then(|template| with_html(&template, html))
            }
        })
    }
}

/// The template with an HTML part: its form is filled anew.
fn with_html(template: &Template, html: String) -> Result<Template, Invalid> {
    let mut form = json!(template);
    form["html"] = html.into();
    serde_json::from_value(form).map_err(|_| Invalid::new(&rules::TEMPLATE))
}

fn tell(session: &Session, step: &Step) -> Result<()> {
    let document = json!(step);
    session.output.document(&document, || fields(&document))
}

async fn list(session: &Session) -> Result<()> {
    const PAGE: u32 = 1000;
    let mut all: Vec<Step> = Vec::new();
    loop {
        let page = session.store().steps(all.last().map(|step| &step.key), PAGE).await?;
        let last = page.len() < PAGE as usize;
        all.extend(page);
        if last {
            break;
        }
    }
    session.output.listing(&["Step", "Name", "Outbox"], &all, |step| {
        let outbox = match step.outbox {
            StepOutbox::Contract => "contract".to_owned(),
            StepOutbox::Specific(outbox) => format!("outbox {outbox}"),
        };
        vec![step.key.to_string(), step.name.clone(), outbox]
    })
}
