//! Which outbox sends this mail, as whom, and why: a pure function of the links as they were read. Nothing is looked up
//! here, nothing falls back silently.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::address::{Address, NamedAddress};
use crate::contract::{Contract, ContractOutbox};
use crate::id::{MailboxId, Revision};
use crate::mailbox::{Mailbox, Outbox};
use crate::rules;
use crate::step::{Step, StepOutbox};
use crate::text::words;

words! {
    /// What to do when the chosen outbox is disabled or gone at submission.
    WhenUnavailable, rules::WHEN_UNAVAILABLE;
    /// The submission is refused. The default.
    Refuse = "refuse",
    /// The mail is held until the outbox is usable again. An outbox that is gone is refused all the same.
    Hold = "hold",
    /// The standard outbox sends it, as a sender of its own; the wanted sender becomes Reply-To.
    Standard = "standard",
}

/// The links and boxes that a decision is made by.
#[derive(Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "the arguments of one pure function")]
pub struct Question<'a> {
    /// The contract's links; none if it has no row.
    pub contract: Option<&'a Contract>,
    /// The step's links; none if it has no row, or the mail names none.
    pub step: Option<&'a Step>,
    /// The system's standard outbox.
    pub standard: Option<MailboxId>,
    /// The sender that the mail asks for.
    pub sender: Option<&'a Address>,
    /// What to do when the chosen outbox can't be used.
    pub when_unavailable: WhenUnavailable,
    /// The mailboxes by number; none for one that is gone.
    pub mailbox: &'a dyn Fn(MailboxId) -> Option<&'a Mailbox>,
}

impl fmt::Debug for Question<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question")
            .field("contract", &self.contract)
            .field("step", &self.step)
            .field("standard", &self.standard)
            .field("sender", &self.sender)
            .field("when_unavailable", &self.when_unavailable)
            .finish_non_exhaustive()
    }
}

/// Why something was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// The step names the outbox.
    Step,
    /// The contract names the outbox.
    Contract,
    /// The standard outbox, since neither step nor contract names one.
    Standard,
    /// The mail asks for the sender.
    SenderRequested,
    /// The contract names the sender.
    SenderOfContract,
    /// The outbox's default sender.
    SenderDefault,
    /// The outbox that was chosen first can't be used, and the policy falls back to Standard.
    Fallback {
        /// The outbox that was chosen first.
        from: MailboxId,
    },
    /// The chosen outbox can't be used now, and the policy holds the mail.
    Held,
    /// A person has another outbox send the mail; the next reason says which link names it.
    Rerouted {
        /// The outbox that was to send it.
        from: MailboxId,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step => f.write_str("step"),
            Self::Contract => f.write_str("contract"),
            Self::Standard => f.write_str("standard"),
            Self::SenderRequested => f.write_str("sender-requested"),
            Self::SenderOfContract => f.write_str("sender-of-contract"),
            Self::SenderDefault => f.write_str("sender-default"),
            Self::Fallback { from } => write!(f, "fallback from outbox {from}"),
            Self::Held => f.write_str("held"),
            Self::Rerouted { from } => write!(f, "rerouted from outbox {from}"),
        }
    }
}

/// The decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Resolution {
    /// The outbox.
    pub outbox: MailboxId,
    /// Its revision when the decision was made: an explanation, not a condition.
    pub revision: Revision,
    /// The sender: one of the outbox's.
    pub sender: NamedAddress,
    /// The sender that was wanted and is not the outbox's, after a fallback.
    pub reply_to: Option<NamedAddress>,
    /// Why, the reason for the outbox first.
    pub reasons: Vec<Reason>,
    /// Whether the mail is held at first.
    pub held: bool,
}

/// Why no outbox can be named.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unresolved {
    /// Neither step nor contract names an outbox, and there is no standard outbox.
    NoOutbox,
    /// The step names an outbox that its contract does not allow.
    NotAllowed {
        /// The outbox.
        outbox: MailboxId,
    },
    /// The outbox that a mail is to be rerouted to is named by neither its step, its contract nor Standard.
    NotNamed {
        /// The outbox.
        outbox: MailboxId,
    },
    /// The chosen outbox is disabled, a draft, gone, or no outbox, and the policy refuses.
    Unavailable {
        /// The outbox.
        outbox: MailboxId,
    },
    /// The sender that the mail asks for is not one of the outbox's.
    ForeignSender {
        /// The outbox.
        outbox: MailboxId,
        /// The sender.
        sender: Address,
    },
}

impl Unresolved {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoOutbox => "no-outbox",
            Self::NotAllowed { .. } => "outbox-not-allowed",
            Self::NotNamed { .. } => "outbox-not-named",
            Self::Unavailable { .. } => "outbox-unavailable",
            Self::ForeignSender { .. } => "foreign-sender",
        }
    }
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOutbox => f.write_str(
                "no outbox is linked and there is no standard outbox; set one, or link the contract",
            ),
            Self::NotAllowed { outbox } => {
                write!(
                    f,
                    "the step names outbox {outbox}, which its contract does not allow; allow it, or change the step"
                )
            }
            Self::NotNamed { outbox } => {
                write!(
                    f,
                    "outbox {outbox} is named by neither the mail's step, its contract nor Standard; link it, or take another"
                )
            }
            Self::Unavailable { outbox } => {
                write!(f, "outbox {outbox} is not in use; enable it, or link another")
            }
            Self::ForeignSender { outbox, sender } => {
                write!(
                    f,
                    "{sender} is not a sender of outbox {outbox}; register it there, or ask for another"
                )
            }
        }
    }
}

impl std::error::Error for Unresolved {}

/// Decides which outbox sends, as whom, and why.
///
/// # Errors
/// [`Unresolved`] says what is missing and what to do.
pub fn resolve(question: &Question<'_>) -> Result<Resolution, Unresolved> {
    let (chosen, reason) = choose(question)?;
    let found = (question.mailbox)(chosen).and_then(|mailbox| Some((mailbox, mailbox.settings.outbox()?)));
    match (found, question.when_unavailable) {
        (Some((mailbox, outbox)), _) if mailbox.is_active() => {
            decide(question, mailbox, outbox, vec![reason], false)
        }
        (Some((mailbox, outbox)), WhenUnavailable::Hold) => {
            decide(question, mailbox, outbox, vec![reason, Reason::Held], true)
        }
        (found, WhenUnavailable::Standard) => fall_back(question, chosen, found, reason),
        (_, WhenUnavailable::Refuse | WhenUnavailable::Hold) => {
            Err(Unresolved::Unavailable { outbox: chosen })
        }
    }
}

/// The table of the specification: the step's outbox, else the contract's, else Standard.
fn choose(question: &Question<'_>) -> Result<(MailboxId, Reason), Unresolved> {
    if let Some(StepOutbox::Specific(outbox)) = question.step.map(|step| step.outbox) {
        if question.contract.is_some_and(|contract| !contract.allows(outbox)) {
            return Err(Unresolved::NotAllowed { outbox });
        }
        return Ok((outbox, Reason::Step));
    }
    if let Some(ContractOutbox::Specific { outbox, .. }) = question.contract.map(|contract| &contract.outbox)
    {
        return Ok((*outbox, Reason::Contract));
    }
    question.standard.map(|outbox| (outbox, Reason::Standard)).ok_or(Unresolved::NoOutbox)
}

fn decide(
    question: &Question<'_>,
    mailbox: &Mailbox,
    outbox: &Outbox,
    mut reasons: Vec<Reason>,
    held: bool,
) -> Result<Resolution, Unresolved> {
    let (sender, reason) = match (question.sender, sender_of_contract(question, mailbox.id)) {
        (Some(asked), _) => {
            let foreign = || Unresolved::ForeignSender { outbox: mailbox.id, sender: asked.clone() };
            (outbox.sender(asked).ok_or_else(foreign)?, Reason::SenderRequested)
        }
        (None, Some(linked)) => match outbox.sender(linked) {
            Some(sender) => (sender, Reason::SenderOfContract),
            None => return Err(Unresolved::ForeignSender { outbox: mailbox.id, sender: linked.clone() }),
        },
        (None, None) => (outbox.default_sender(), Reason::SenderDefault),
    };
    reasons.push(reason);
    Ok(Resolution {
        outbox: mailbox.id,
        revision: mailbox.revision,
        sender: sender.clone(),
        reply_to: None,
        reasons,
        held,
    })
}

/// The contract's sender counts for the contract's own outbox only.
fn sender_of_contract<'a>(question: &Question<'a>, outbox: MailboxId) -> Option<&'a Address> {
    match &question.contract?.outbox {
        ContractOutbox::Specific { outbox: linked, sender } if *linked == outbox => sender.as_ref(),
        _ => None,
    }
}

fn fall_back(
    question: &Question<'_>,
    from: MailboxId,
    wanted: Option<(&Mailbox, &Outbox)>,
    reason: Reason,
) -> Result<Resolution, Unresolved> {
    let standard = question.standard.filter(|standard| *standard != from);
    let found = standard.and_then(question.mailbox).filter(|mailbox| mailbox.is_active());
    let (mailbox, outbox) = found
        .and_then(|mailbox| Some((mailbox, mailbox.settings.outbox()?)))
        .ok_or(Unresolved::Unavailable { outbox: from })?;
    let may_be_asked = |asked: &Address| {
        outbox.sender(asked).is_some() || wanted.is_none_or(|(_, wanted)| wanted.sender(asked).is_some())
    };
    if let Some(asked) = question.sender.filter(|asked| !may_be_asked(asked)) {
        return Err(Unresolved::ForeignSender { outbox: from, sender: asked.clone() });
    }
    let wanted = match (question.sender.or_else(|| sender_of_contract(question, from)), wanted) {
        (Some(asked), wanted) => {
            let named = wanted.and_then(|(_, outbox)| outbox.sender(asked)).cloned();
            Some(named.unwrap_or_else(|| asked.clone().into()))
        }
        (None, Some((_, outbox))) => Some(outbox.default_sender().clone()),
        (None, None) => None,
    };
    let own = wanted.as_ref().and_then(|wanted| outbox.sender(wanted.address()));
    let sender = own.unwrap_or_else(|| outbox.default_sender());
    Ok(Resolution {
        outbox: mailbox.id,
        revision: mailbox.revision,
        sender: sender.clone(),
        reply_to: if own.is_some() { None } else { wanted },
        reasons: vec![reason, Reason::Fallback { from }, Reason::Standard],
        held: false,
    })
}
