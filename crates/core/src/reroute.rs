//! Another outbox for a mail that is frozen already, by an operator's wish: which outboxes may take it over, as whom it goes
//! then, and where its answers go. The bytes are rewritten in `mime`, the rows in the storage crate.

use crate::address::NamedAddress;
use crate::contract::ContractOutbox;
use crate::id::{MailboxId, Revision};
use crate::mime::Addressing;
use crate::resolve::{Question, Reason, Resolution, Unresolved};
use crate::step::StepOutbox;

/// Decides as whom `to` sends a mail that `from` was to send, written as `was`.
///
/// Only an outbox that the step, the contract (also in the list for its steps) or Standard names may take it over. It goes
/// as the same sender where the outbox has it, else as the sender that the contract names for this outbox, else as the one
/// that answers go to where the outbox has that, else as the outbox's default. Answers go where they went before. `sender`
/// and `when_unavailable` of the question are not looked at.
///
/// # Errors
/// [`Unresolved::NotNamed`], [`Unresolved::Unavailable`].
pub fn reroute(
    question: &Question<'_>,
    was: &Addressing,
    from: MailboxId,
    to: MailboxId,
) -> Result<Resolution, Unresolved> {
    let named = name(question, to).ok_or(Unresolved::NotNamed { outbox: to })?;
    let unavailable = Unresolved::Unavailable { outbox: to };
    let mailbox = (question.mailbox)(to).filter(|mailbox| mailbox.is_active()).ok_or(unavailable.clone())?;
    let outbox = mailbox.settings.outbox().ok_or(unavailable)?;
    let answers = was.reply_to.as_ref().unwrap_or(&was.from);
    let linked = match question.contract.map(|contract| &contract.outbox) {
        Some(ContractOutbox::Specific { outbox, sender: Some(sender) }) if *outbox == to => Some(sender),
        _ => None,
    };
    let candidates = [Some(was.from.address()), linked, Some(answers.address())];
    let owned = candidates.into_iter().flatten().find_map(|candidate| outbox.sender(candidate));
    let sender = owned.unwrap_or_else(|| outbox.default_sender());
    let is_sender = |one: &NamedAddress| one.address() == sender.address();
    let reply_to = Some(answers.clone()).filter(|answers| !is_sender(answers));
    Ok(Resolution { reply_to, ..Resolution::rerouted(to, mailbox.revision, sender.clone(), from, named) })
}

impl Resolution {
    /// The decision that `to` sends as `sender` what `from` was to send, `named` being the link that names it.
    #[must_use]
    pub fn rerouted(
        to: MailboxId,
        revision: Revision,
        sender: NamedAddress,
        from: MailboxId,
        named: Reason,
    ) -> Self {
        let reasons = vec![Reason::Rerouted { from }, named];
        Self { outbox: to, revision, sender, reply_to: None, reasons, held: false }
    }

    /// What the timeline says of a mail that this takes from the outbox `from`, which was to send it as `sender`.
    #[must_use]
    pub fn told_of_reroute(&self, from: MailboxId, sender: &str) -> String {
        let reasons: Vec<String> = self.reasons.iter().map(ToString::to_string).collect();
        let Self { outbox, sender: now, .. } = self;
        format!("outbox {outbox} as {now}, before outbox {from} as {sender}: {}", reasons.join(", "))
    }
}

/// By which link an outbox may take the mail over.
fn name(question: &Question<'_>, outbox: MailboxId) -> Option<Reason> {
    let allows = question.contract.is_none_or(|contract| contract.allows(outbox));
    if question.step.map(|step| step.outbox) == Some(StepOutbox::Specific(outbox)) && allows {
        return Some(Reason::Step);
    }
    let lists = question.contract.is_some_and(|contract| {
        let links =
            matches!(&contract.outbox, ContractOutbox::Specific { outbox: own, .. } if *own == outbox);
        links || contract.allowed_outboxes.as_ref().is_some_and(|listed| listed.contains(&outbox))
    });
    if lists {
        return Some(Reason::Contract);
    }
    (question.standard == Some(outbox)).then_some(Reason::Standard)
}
