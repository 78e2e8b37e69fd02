//! The links and boxes that a decision is made by, and those that were read last. Reading them is in `explain`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use postroom_core::contract::Contract;
use postroom_core::id::{ContractId, MailboxId, StepKey};
use postroom_core::mailbox::{Mailbox, Outbox};
use postroom_core::step::Step;

use crate::error::{Error, ErrorKind, Result};

/// The links and boxes that one decision was made by.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) contract: Option<Contract>,
    pub(crate) step: Option<Step>,
    pub(crate) standard: Option<MailboxId>,
    pub(crate) mailboxes: HashMap<MailboxId, Mailbox>,
}

impl Links {
    /// A mailbox that the decision names.
    pub(crate) fn mailbox(&self, id: MailboxId) -> Result<&Mailbox> {
        self.mailboxes.get(&id).ok_or_else(|| Error::new(ErrorKind::NotFound, "find the outbox"))
    }

    /// What only an outbox has, of a mailbox that the decision names.
    pub(crate) fn outbox(&self, id: MailboxId) -> Result<&Outbox> {
        self.mailbox(id)?.settings.outbox().ok_or_else(|| Error::new(ErrorKind::NotFound, "find the outbox"))
    }
}

/// How many contracts and steps are remembered.
const KNOWN: usize = 4096;

/// The links by which submissions were decided last. That they still stand is asked again when the mail is inserted, so what is
/// remembered too long costs a second decision and never a wrong one.
#[derive(Default)]
pub(crate) struct KnownLinks(Mutex<HashMap<Key, Arc<Links>>>);

type Key = (ContractId, Option<StepKey>);

impl KnownLinks {
    pub(crate) fn of(&self, contract: &ContractId, step: Option<&StepKey>) -> Option<Arc<Links>> {
        self.0.lock().ok()?.get(&(contract.clone(), step.cloned())).cloned()
    }

    pub(crate) fn keep(&self, contract: &ContractId, step: Option<&StepKey>, links: &Arc<Links>) {
        if let Ok(mut known) = self.0.lock() {
            if known.len() >= KNOWN {
                known.clear();
            }
            known.insert((contract.clone(), step.cloned()), Arc::clone(links));
        }
    }
}
