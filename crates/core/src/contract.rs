//! The contract: which outbox and inboxes a client has, how its mail is recognised, and what it may use.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::address::{Address, Domain};
use crate::id::{ContractId, MailboxId, Revision};
use crate::mailbox::Mailbox;
use crate::rules;
use crate::text::words;
use crate::violation::{Findings, Invalid, Violations, shown};

/// Which outbox a contract sends by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, reason = "the link's two options, as the form shows them")]
pub enum ContractOutbox {
    /// The system's standard outbox.
    #[default]
    Standard,
    /// One registered outbox.
    Specific {
        /// The outbox.
        outbox: MailboxId,
        /// One of its senders; none for its default.
        sender: Option<Address>,
    },
}

words! {
    /// What happens to a mail whose sender no contract knows.
    Requesters, rules::REQUESTER;
    /// It is the contract's mail like any other.
    Accept = "accept",
    /// It is ignored, by rule, and kept in the ledger.
    Refuse = "refuse",
    /// The host's requester directory decides.
    Ask = "ask",
}

/// What a contract may use at most; none is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[non_exhaustive]
pub struct Limits {
    /// Mailboxes linked to it.
    pub boxes: Option<u32>,
    /// Mails queued and not finished.
    pub queued: Option<u32>,
    /// Mails submitted per day (UTC).
    pub per_day: Option<u32>,
}

impl Limits {
    /// Sets a limit from its text form `NAME=N`: `boxes`, `queued`, `per-day`; `NAME=` removes it.
    ///
    /// # Errors
    /// [`rules::LIMIT_NAME`].
    pub fn set(&mut self, text: &str) -> Result<(), Invalid> {
        let invalid = || Invalid::new(&rules::LIMIT_NAME).with("value", shown(text));
        let (name, number) = assignment(text, 1_000_000_000).ok_or_else(invalid)?;
        match name {
            "boxes" => self.boxes = number,
            "queued" => self.queued = number,
            "per-day" => self.per_day = number,
            _ => return Err(invalid()),
        }
        Ok(())
    }
}

/// For how many days a contract's content is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Retention {
    /// Bodies of finished sent mail. Default 30.
    pub bodies: u32,
    /// Raw bytes of received mail. Default 90.
    pub raw: u32,
    /// Timelines. Default 365.
    pub timelines: u32,
    /// Dead letters. Default 365.
    pub dead: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { bodies: 30, raw: 90, timelines: 365, dead: 365 }
    }
}

impl Retention {
    /// Sets a retention from its text form `NAME=DAYS`: `bodies`, `raw`, `timelines`, `dead`.
    ///
    /// # Errors
    /// [`rules::RETENTION`].
    pub fn set(&mut self, text: &str) -> Result<(), Invalid> {
        let invalid = || Invalid::new(&rules::RETENTION).with("value", shown(text));
        let (name, days) = assignment(text, 36_500).ok_or_else(invalid)?;
        let days = days.ok_or_else(invalid)?;
        match name {
            "bodies" => self.bodies = days,
            "raw" => self.raw = days,
            "timelines" => self.timelines = days,
            "dead" => self.dead = days,
            _ => return Err(invalid()),
        }
        Ok(())
    }
}

/// `NAME=N` with N from 1 to `most`, or `NAME=` for none.
fn assignment(text: &str, most: u32) -> Option<(&str, Option<u32>)> {
    let (name, number) = text.trim().split_once('=')?;
    if number.is_empty() {
        return Some((name, None));
    }
    number.parse().ok().filter(|number| (1..=most).contains(number)).map(|number| (name, Some(number)))
}

/// A contract's links and settings. Whether it is paused stands with the switches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Contract {
    /// The host's id of it.
    pub id: ContractId,
    /// How often it was changed; 0 before the first save.
    pub revision: Revision,
    /// The outbox that it sends by.
    #[serde(default)]
    pub outbox: ContractOutbox,
    /// The outboxes that its steps may name; none for any.
    #[serde(default)]
    pub allowed_outboxes: Option<Vec<MailboxId>>,
    /// Its inboxes.
    #[serde(default)]
    pub inboxes: Vec<MailboxId>,
    /// Addresses that its mail is sent to or from.
    #[serde(default)]
    pub addresses: Vec<Address>,
    /// Domains that only its people send from.
    #[serde(default)]
    pub domains: Vec<Domain>,
    /// What to do with unknown requesters.
    #[serde(default = "accept")]
    pub requesters: Requesters,
    /// What it may use.
    #[serde(default)]
    pub limits: Limits,
    /// For how long its content is kept.
    #[serde(default)]
    pub retention: Retention,
}

fn accept() -> Requesters {
    Requesters::Accept
}

impl Contract {
    /// A contract with no links: it sends by Standard and takes mail from anybody.
    #[must_use]
    pub fn new(id: ContractId) -> Self {
        Self {
            id,
            revision: Revision::new(0),
            outbox: ContractOutbox::Standard,
            allowed_outboxes: None,
            inboxes: Vec::new(),
            addresses: Vec::new(),
            domains: Vec::new(),
            requesters: Requesters::Accept,
            limits: Limits::default(),
            retention: Retention::default(),
        }
    }

    /// Sends by this outbox.
    #[must_use]
    pub fn with_outbox(mut self, outbox: MailboxId, sender: Option<Address>) -> Self {
        self.outbox = ContractOutbox::Specific { outbox, sender };
        self
    }

    /// Adds an inbox.
    #[must_use]
    pub fn with_inbox(mut self, inbox: MailboxId) -> Self {
        self.inboxes.push(inbox);
        self
    }

    /// Whether a step of this contract may name `outbox`.
    #[must_use]
    pub fn allows(&self, outbox: MailboxId) -> bool {
        self.allowed_outboxes.as_ref().is_none_or(|allowed| allowed.contains(&outbox))
    }

    /// Every mailbox that it is linked to, each once.
    #[must_use]
    pub fn mailboxes(&self) -> Vec<MailboxId> {
        let mut all = self.inboxes.clone();
        if let ContractOutbox::Specific { outbox, .. } = &self.outbox {
            all.push(*outbox);
        }
        all.extend(self.allowed_outboxes.iter().flatten());
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Checks what can be checked without the registry: counts, doubles, domains, limits. That its mailboxes exist is
    /// checked by [`Contract::check_links`].
    ///
    /// # Errors
    /// Every violation.
    pub fn check(&self) -> Result<(), Violations> {
        let mut findings = Findings::default();
        let allowed = self.allowed_outboxes.as_deref().unwrap_or_default();
        findings.refuse_if(
            has_double(allowed) || allowed.len() > 100,
            "allowed_outboxes",
            &rules::CONTRACT_ALLOWED,
        );
        let most = self.limits.boxes.map_or(usize::MAX, |boxes| usize::try_from(boxes).unwrap_or(usize::MAX));
        let over = self.mailboxes().len() > most;
        findings.refuse_if(has_double(&self.inboxes) || over, "inboxes", &rules::CONTRACT_INBOX);
        let addresses = has_double(&self.addresses) || self.addresses.len() > 1000;
        findings.refuse_if(addresses, "addresses", &rules::CONTRACT_ADDRESSES);
        let domains = has_double(&self.domains) || self.domains.len() > 1000;
        findings.refuse_if(domains, "domains", &rules::CONTRACT_DOMAINS);
        for (index, domain) in self.domains.iter().enumerate() {
            if domain.is_public_provider() || domain.is_public_suffix() {
                let invalid = Invalid::new(&rules::PUBLIC_DOMAIN).with("value", domain.as_str());
                findings.add(invalid.at(format!("domains[{index}]")));
            }
        }
        findings.finish(Some(()))
    }
}

impl Contract {
    /// Checks its links against the registry: each is to a mailbox of the right kind, and the sender is the outbox's.
    ///
    /// # Errors
    /// Every violation.
    pub fn check_links<'a>(
        &self,
        mailbox: &dyn Fn(MailboxId) -> Option<&'a Mailbox>,
    ) -> Result<(), Violations> {
        let mut findings = Findings::default();
        let outbox = |id| mailbox(id).and_then(|found| found.settings.outbox());
        let missing = |rule, id: MailboxId| Invalid::new(rule).with("value", id.to_string());
        if let ContractOutbox::Specific { outbox: id, sender } = &self.outbox {
            match (outbox(*id), sender) {
                (None, _) => findings.add(missing(&rules::CONTRACT_OUTBOX, *id).at("outbox")),
                (Some(outbox), Some(sender)) if outbox.sender(sender).is_none() => {
                    let invalid = Invalid::new(&rules::CONTRACT_SENDER).with("value", sender.as_str());
                    findings.add(invalid.at("sender"));
                }
                (Some(_), _) => {}
            }
        }
        for (index, id) in self.allowed_outboxes.iter().flatten().enumerate() {
            if outbox(*id).is_none() {
                findings.add(missing(&rules::CONTRACT_ALLOWED, *id).at(format!("allowed_outboxes[{index}]")));
            }
        }
        for (index, id) in self.inboxes.iter().enumerate() {
            if mailbox(*id).and_then(|found| found.settings.inbox()).is_none() {
                findings.add(missing(&rules::CONTRACT_INBOX, *id).at(format!("inboxes[{index}]")));
            }
        }
        findings.finish(Some(()))
    }
}

fn has_double<T: Ord>(items: &[T]) -> bool {
    let mut sorted: Vec<&T> = items.iter().collect();
    sorted.sort_unstable();
    sorted.windows(2).any(|pair| pair[0] == pair[1])
}

impl fmt::Display for ContractOutbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard => f.write_str("standard"),
            Self::Specific { outbox, sender: None } => write!(f, "outbox {outbox}"),
            Self::Specific { outbox, sender: Some(sender) } => write!(f, "outbox {outbox} as {sender}"),
        }
    }
}
