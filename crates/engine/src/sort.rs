//! Sort: the contract of a received mail, by what the store and the host's directory know of its box, thread and sender.
//! The decision itself is `postroom_core::sort`.

use postroom_core::contract::Contract;
use postroom_core::id::{ContractId, RecordId};
use postroom_core::ledger::State;
use postroom_core::mail::Mail;
use postroom_core::sort::{Destination, Question, SortReason, Sorting, sort};
use postroom_core::thread::{Thread, references_of, verify};
use postroom_storage::QueueIntake;

use crate::error::Result;
use crate::handler::Verdict;
use crate::postroom::Postroom;

/// Where a mail goes, as a row holds it.
pub(crate) struct Sorted {
    pub(crate) state: State,
    pub(crate) contract: Option<ContractId>,
    pub(crate) reasons: Vec<String>,
    pub(crate) record: Option<RecordId>,
}

impl From<Sorting> for Sorted {
    fn from(sorting: Sorting) -> Self {
        let (state, contract) = match sorting.destination {
            Destination::Contract(contract) => (State::Stored, Some(contract)),
            Destination::Triage => (State::Triage, None),
            Destination::Quarantine { .. } => (State::Quarantined, None),
            Destination::Ignore(contract) => (State::Ignored, Some(contract)),
        };
        let reasons = sorting.reasons.iter().map(ToString::to_string).collect();
        Self { state, contract, reasons, record: sorting.record }
    }
}

impl Postroom {
    /// Which contract a mail belongs to, by its box, addresses and thread.
    pub(crate) async fn sorted(&self, mail: &Mail, contracts: &[Contract]) -> Result<Sorted> {
        let thread = self.thread(mail).await?;
        let mut sorting = sort(&Question { mail, contracts, thread: thread.as_ref() });
        if let (true, Destination::Contract(contract)) = (sorting.ask, sorting.destination.clone()) {
            let verdict = match mail.from.first() {
                Some(from) => self.ports.requesters.verdict(&contract, from.address()).await,
                None => Ok(Verdict::Triage),
            };
            match verdict {
                Ok(Verdict::Accept) => {}
                Ok(Verdict::Refuse) => {
                    sorting.reasons.push(SortReason::UnknownRequester);
                    sorting.destination = Destination::Ignore(contract);
                }
                Ok(Verdict::Triage) | Err(_) => {
                    sorting.reasons.push(SortReason::UnknownRequester);
                    sorting.destination = Destination::Triage;
                }
            }
        }
        Ok(Sorted::from(sorting))
    }

    /// The sent mail that a mail answers. Only Message-IDs that bear our signature count: others can be guessed.
    async fn thread(&self, mail: &Mail) -> Result<Option<Thread>> {
        let candidates = references_of(mail);
        if candidates.is_empty() {
            return Ok(None);
        }
        let keys = self.token_keys().await?;
        let signed =
            |id: &&str| verify(id, |number| keys.iter().find(|key| key.number() == number)).is_some();
        let ours: Vec<String> = candidates.into_iter().filter(signed).map(ToOwned::to_owned).collect();
        if ours.is_empty() {
            return Ok(None);
        }
        let intake: &dyn QueueIntake = self.store();
        let found = intake.sent_by_message_id(&ours).await?.into_iter().next();
        Ok(found.map(|sent| Thread::new(sent.contract, sent.record, sent.id)))
    }
}
