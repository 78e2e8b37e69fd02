//! An e-mail step of a flow: its template, its recipients, and the outbox setup that its form shows.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::address::NamedAddress;
use crate::id::{HOST_ID_LIMIT, MailboxId, Revision, StepKey};
use crate::mailbox::Mailbox;
use crate::rules;
use crate::template::Template;
use crate::text::text_form;
use crate::violation::{Findings, Invalid, Violations, shown};

/// The outbox setup of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, reason = "the setup's two options, as the form shows them")]
pub enum StepOutbox {
    /// The outbox of the contract.
    #[default]
    Contract,
    /// One registered outbox.
    Specific(MailboxId),
}

/// Whom a step writes to: an address, or a name that the host resolves to addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the form's two ways to name somebody")]
pub enum StepRecipient {
    /// This address.
    Address(NamedAddress),
    /// Whomever the host's recipient directory names by it: `requester`, `approvers`.
    Name(String),
}

impl StepRecipient {
    /// Reads an address, or else a name of 1 to 200 bytes without `@`, `<`, `>` and control characters.
    ///
    /// # Errors
    /// [`rules::STEP_RECIPIENTS`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        let invalid = || Invalid::new(&rules::STEP_RECIPIENTS).with("value", shown(text));
        if text.contains(['@', '<', '>']) {
            return NamedAddress::parse(text).map(Self::Address).map_err(|_| invalid());
        }
        if text.is_empty() || text.len() > HOST_ID_LIMIT || text.chars().any(char::is_control) {
            return Err(invalid());
        }
        Ok(Self::Name(text.to_owned()))
    }
}

impl fmt::Display for StepRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

text_form!(StepRecipient);

/// A registered step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Step {
    /// The flow and the step in it.
    pub key: StepKey,
    /// How often it was changed; 0 before the first save.
    pub revision: Revision,
    /// Its name, as people see it.
    pub name: String,
    /// What it writes; none for a step whose mails the host submits ready.
    pub template: Option<Template>,
    /// Whom it writes to.
    pub recipients: Vec<StepRecipient>,
    /// The outbox setup.
    pub outbox: StepOutbox,
}

impl Step {
    /// A step that uses its contract's outbox.
    #[must_use]
    pub fn new(key: StepKey) -> Self {
        let name = key.to_string().chars().take(200).collect();
        let outbox = StepOutbox::Contract;
        Self { key, revision: Revision::new(0), name, template: None, recipients: Vec::new(), outbox }
    }

    /// Sends by this outbox.
    #[must_use]
    pub fn with_outbox(mut self, outbox: MailboxId) -> Self {
        self.outbox = StepOutbox::Specific(outbox);
        self
    }

    /// Writes this.
    #[must_use]
    pub fn with_template(mut self, template: Template) -> Self {
        self.template = Some(template);
        self
    }

    /// Writes to these.
    #[must_use]
    pub fn with_recipients(mut self, recipients: Vec<StepRecipient>) -> Self {
        self.recipients = recipients;
        self
    }

    /// Checks name and recipients; the other fields are valid by construction.
    ///
    /// # Errors
    /// Every violation.
    pub fn check(&self) -> Result<(), Violations> {
        let mut findings = Findings::default();
        let characters = self.name.chars().count();
        let bad = !(1..=200).contains(&characters) || self.name.chars().any(char::is_control);
        findings.refuse_if(bad, "name", &rules::STEP_NAME);
        findings.refuse_if(self.recipients.len() > 100, "recipients", &rules::STEP_RECIPIENTS);
        findings.finish(Some(()))
    }

    /// Checks its link against the registry: it is to an outbox.
    ///
    /// # Errors
    /// [`rules::STEP_OUTBOX`].
    pub fn check_links<'a>(
        &self,
        mailbox: &dyn Fn(MailboxId) -> Option<&'a Mailbox>,
    ) -> Result<(), Violations> {
        match self.outbox {
            StepOutbox::Specific(id) if mailbox(id).and_then(|found| found.settings.outbox()).is_none() => {
                Err(Invalid::new(&rules::STEP_OUTBOX).with("value", id.to_string()).at("outbox").into())
            }
            StepOutbox::Contract | StepOutbox::Specific(_) => Ok(()),
        }
    }
}
