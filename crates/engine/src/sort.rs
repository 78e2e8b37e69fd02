//! Sort: the contract of a received mail, by what the store and the host's directory know of its box, thread and sender.
//! The decision itself is `postroom_core::sort`.

use postroom_core::address::Address;
use postroom_core::bounce::{Action, Report, Reported, report};
use postroom_core::contract::Contract;
use postroom_core::id::{ContractId, RecordId};
use postroom_core::ledger::State;
use postroom_core::mail::Mail;
use postroom_core::schedule::EXPIRY;
use postroom_core::sort::{Destination, Question, SortReason, Sorting, sort};
use postroom_core::thread::{
    Thread, may_be_tagged, may_have_token, references_of, verify, verify_plus, verify_subject,
};
use postroom_storage::{QueueDesk, QueueIntake, SentMail};

use crate::bounce::Named;
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
        let report = report(mail);
        let thread = self.thread(mail, report.as_ref(), contracts).await?;
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
        let mut sorted = Sorted::from(sorting);
        sorted.reasons.extend(mail.automatic.as_ref().map(ToString::to_string));
        // A report counts for the contract that it was sorted to, and for no other's mail.
        if let (Some(report), Some(thread)) = (&report, &thread)
            && sorted.contract.as_ref() == Some(&thread.contract)
            && self.record(report, thread, Named::ByItself).await?
        {
            sorted.reasons.push(format!("reports on {}", thread.message));
        }
        // One that names no mail at all is about the only one that its contract sent there of late.
        if let (Some(report), None, Some(contract)) = (&report, &thread, &sorted.contract)
            && let Some(thread) = self.only_sent(report, contract).await?
            && self.record(report, &thread, Named::ByRecipient).await?
        {
            sorted.reasons.push(format!("reports on {}, by its recipient alone", thread.message));
        }
        Ok(sorted)
    }

    /// The sent mail that a mail answers or reports on: by a plus tag of an address that it was sent to, or by a Message-ID that bears
    /// our signature, and else by a token in its subject. Other Message-IDs can be guessed, so of them a report alone may use one, and of a contract that has this box.
    async fn thread(
        &self,
        mail: &Mail,
        report: Option<&Report>,
        contracts: &[Contract],
    ) -> Result<Option<Thread>> {
        let named = mail.to.iter().chain(&mail.cc).map(|named| named.address());
        let tagged: Vec<&Address> =
            mail.delivered_to.iter().chain(named).filter(|address| may_be_tagged(address)).collect();
        let candidates = match report {
            Some(report) => report.message_ids.iter().map(String::as_str).collect(),
            None => references_of(mail),
        };
        if candidates.is_empty() && tagged.is_empty() && !may_have_token(&mail.subject) {
            return Ok(None);
        }
        let keys = self.token_keys().await?;
        let key = |number| keys.iter().find(|key| key.number() == number);
        let desk: &dyn QueueDesk = self.store();
        for id in tagged.into_iter().filter_map(|address| verify_plus(address, key)) {
            if let Some(sent) = desk.show(id).await? {
                return Ok(Some(Thread::new(sent.item.contract, sent.item.record, id)));
            }
        }
        let (signed, other): (Vec<String>, Vec<String>) =
            candidates.into_iter().map(ToOwned::to_owned).partition(|id| verify(id, key).is_some());
        let intake: &dyn QueueIntake = self.store();
        let thread = |sent: SentMail| Thread::new(sent.contract, sent.record, sent.id);
        if !signed.is_empty()
            && let Some(sent) = intake.sent_by_message_id(&signed).await?.into_iter().next()
        {
            return Ok(Some(thread(sent)));
        }
        if let Some(id) = verify_subject(&mail.subject, key)
            && let Some(sent) = desk.show(id).await?
        {
            return Ok(Some(Thread::new(sent.item.contract, sent.item.record, id)));
        }
        if report.is_none() || other.is_empty() {
            return Ok(None);
        }
        let found = intake.sent_by_message_id(&other).await?;
        let own = |sent: &SentMail| contracts.iter().any(|contract| contract.id == sent.contract);
        Ok(found.into_iter().find(own).map(thread))
    }

    /// The only mail of a contract that a report may be about which names nothing but one recipient that failed. It can be forged by whoever
    /// knows an address, so where two fit it is about neither.
    async fn only_sent(&self, report: &Report, contract: &ContractId) -> Result<Option<Thread>> {
        let [Reported { address, original, action: Action::Failed, .. }] = &report.recipients[..] else {
            return Ok(None);
        };
        if !report.message_ids.is_empty() {
            return Ok(None);
        }
        let intake: &dyn QueueIntake = self.store();
        let recipient = original.as_ref().unwrap_or(address);
        let found = intake.sent_to(contract, recipient, self.now() - EXPIRY).await?;
        let [sent] = &found[..] else { return Ok(None) };
        Ok(Some(Thread::new(sent.contract.clone(), sent.record.clone(), sent.id)))
    }
}
