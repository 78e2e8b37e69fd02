//! Explain: which outbox would send a mail, as whom, and why; and the reading of links by which submissions decide too.
//! The decision itself is `postroom_core::resolve`; what is read is in `links`.

use std::collections::HashMap;

use postroom_core::address::Address;
use postroom_core::contract::Contract;
use postroom_core::id::{ContractId, MailboxId, StepKey};
use postroom_core::mailbox::Mailbox;
use postroom_core::resolve::{Question, Resolution, resolve};
use postroom_core::step::StepOutbox;

use crate::error::Result;
use crate::links::Links;
use crate::postroom::Postroom;

impl Postroom {
    /// Says which outbox would send a mail, as whom, and why; nothing is sent.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unresolved`] says what is missing.
    pub async fn explain(
        &self,
        contract: &ContractId,
        step: Option<&StepKey>,
        sender: Option<&Address>,
    ) -> Result<Resolution> {
        let links = self.links(contract, step).await?;
        self.decide(&links, sender)
    }

    /// Reads what a decision is made by.
    pub(crate) async fn links(&self, contract: &ContractId, step: Option<&StepKey>) -> Result<Links> {
        let store = self.store();
        let contract = store.contract(contract).await?;
        let step = match step {
            Some(key) => store.step(key).await?,
            None => None,
        };
        let standard = store.standard().await?;
        let mut named: Vec<MailboxId> =
            contract.iter().flat_map(Contract::mailboxes).chain(standard).collect();
        if let Some(StepOutbox::Specific(outbox)) = step.as_ref().map(|step| step.outbox) {
            named.push(outbox);
        }
        Ok(Links { mailboxes: self.mailboxes(named).await?, contract, step, standard })
    }

    /// Decides by links that were read.
    pub(crate) fn decide(&self, links: &Links, sender: Option<&Address>) -> Result<Resolution> {
        let mailbox = |id| links.mailboxes.get(&id);
        Ok(resolve(&self.question(links, &mailbox, sender))?)
    }

    /// The question that links answer.
    pub(crate) fn question<'a>(
        &self,
        links: &'a Links,
        mailbox: &'a dyn Fn(MailboxId) -> Option<&'a Mailbox>,
        sender: Option<&'a Address>,
    ) -> Question<'a> {
        Question {
            contract: links.contract.as_ref(),
            step: links.step.as_ref(),
            standard: links.standard,
            sender,
            when_unavailable: self.ports.options.when_unavailable,
            mailbox,
        }
    }

    pub(crate) async fn mailboxes(&self, ids: Vec<MailboxId>) -> Result<HashMap<MailboxId, Mailbox>> {
        let mut found = HashMap::new();
        for id in ids {
            if !found.contains_key(&id)
                && let Some(mailbox) = self.store().mailbox(id).await?
            {
                found.insert(id, mailbox);
            }
        }
        Ok(found)
    }
}
