//! The host: a service desk that keeps tickets. It gets mail from postroom, opens a ticket or adds to one, and answers. Where mail
//! comes from and by which outbox it leaves is not its business.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use postroom::Postroom;
use postroom::core::address::NamedAddress;
use postroom::core::id::{ContractId, IdempotencyKey, LedgerId, RecordId, StepKey};
use postroom::core::message::Submission;
use postroom::core::template::Values;
use postroom::engine::{Answer, Delivery, DirectoryError, MessageHandler, RecipientDirectory, Submitted};
use tokio::sync::watch;

use crate::Outcome;
use crate::narrator::Narrator;

/// A mail in a ticket's thread.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) ledger: LedgerId,
    pub(crate) message_id: Option<String>,
    pub(crate) subject: String,
    /// The record that postroom found in the mail's thread.
    pub(crate) record: Option<RecordId>,
}

/// A ticket.
#[derive(Debug, Clone)]
pub(crate) struct Ticket {
    pub(crate) number: RecordId,
    pub(crate) contract: ContractId,
    pub(crate) thread: Vec<Entry>,
    pub(crate) answer: Option<Submitted>,
    pub(crate) notice: Option<Submitted>,
}

/// The desk. Its tickets are in memory: what is shown here is the mail.
#[derive(Debug)]
pub(crate) struct Desk {
    /// A handle without a handler, to submit by; the worker has its own over the same store.
    office: Postroom,
    /// The address that the customers of each contract write to.
    addresses: BTreeMap<ContractId, NamedAddress>,
    step: StepKey,
    tickets: Mutex<Vec<Ticket>>,
    changed: watch::Sender<()>,
    narrator: Arc<Narrator>,
}

impl Desk {
    pub(crate) fn new(
        office: Postroom,
        addresses: BTreeMap<ContractId, NamedAddress>,
        step: StepKey,
        narrator: Arc<Narrator>,
    ) -> Self {
        let (tickets, changed) = (Mutex::default(), watch::Sender::new(()));
        Self { office, addresses, step, tickets, changed, narrator }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Ticket>> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tickets(&self) -> Vec<Ticket> {
        self.lock().clone()
    }

    /// Waits for a ticket with this in its thread.
    pub(crate) async fn wait_for(&self, within: Duration, found: impl Fn(&Ticket) -> bool) -> Option<Ticket> {
        let mut changes = self.changed.subscribe();
        let search = async {
            loop {
                if let Some(ticket) = self.tickets().into_iter().find(&found) {
                    return ticket;
                }
                // The sender lives in `self`: this ends only when there is news.
                let _ = changes.changed().await;
            }
        };
        tokio::time::timeout(within, search).await.ok()
    }

    fn change(&self, number: &RecordId, change: impl FnOnce(&mut Ticket)) {
        self.lock().iter_mut().find(|ticket| ticket.number == *number).map(change);
        self.changed.send_replace(());
    }

    /// The ticket of a mail, with whether the mail opened it. A mail that comes again, since the desk failed the first time, finds
    /// the ticket that it has.
    fn file(&self, contract: &ContractId, delivery: &Delivery) -> Outcome<(Ticket, bool)> {
        let entry = Entry {
            ledger: delivery.id,
            message_id: delivery.mail.message_id.clone(),
            subject: delivery.mail.subject.clone(),
            record: delivery.record.clone(),
        };
        let mut tickets = self.lock();
        let known = |ticket: &&Ticket| ticket.thread.iter().any(|entry| entry.ledger == delivery.id);
        if let Some(ticket) = tickets.iter().find(known) {
            return Ok((ticket.clone(), ticket.thread[0].ledger == delivery.id));
        }
        let of_record = |ticket: &&mut Ticket| Some(&ticket.number) == delivery.record.as_ref();
        if let Some(ticket) = tickets.iter_mut().find(of_record) {
            ticket.thread.push(entry);
            return Ok((ticket.clone(), false));
        }
        let number = RecordId::parse(&format!("REQ-{}", tickets.len() + 1001))?;
        let ticket =
            Ticket { number, contract: contract.clone(), thread: vec![entry], answer: None, notice: None };
        tickets.push(ticket.clone());
        Ok((ticket, true))
    }

    async fn take(&self, delivery: Delivery) -> Outcome<()> {
        let contract = delivery.contract.clone().ok_or("the mail has no contract")?;
        let (ticket, opened) = self.file(&contract, &delivery)?;
        let (number, subject) = (&ticket.number, &delivery.mail.subject);
        let what = if opened { "opened by" } else { "a reply by" };
        let from = delivery.mail.from.first().ok_or("the mail names no author")?;
        let why = delivery.reasons.join(", ");
        self.narrator
            .say("desk", format!("{number} ({contract}): {what} {from}, {subject:?}; because of: {why}"));
        // Mail that a program sent is never answered: that is how loops begin.
        if opened && delivery.mail.automatic.is_none() {
            let answer = self.answer(&contract, number, &delivery, from).await?;
            self.change(number, |ticket| ticket.answer = Some(answer));
            if ticket.notice.is_none() {
                let notice = self.notify(&contract, number, subject).await?;
                self.change(number, |ticket| ticket.notice = Some(notice));
            }
        }
        self.changed.send_replace(());
        Ok(())
    }

    async fn answer(
        &self,
        contract: &ContractId,
        number: &RecordId,
        delivery: &Delivery,
        to: &NamedAddress,
    ) -> Outcome<Submitted> {
        let subject = format!("Re: {} [{number}]", delivery.mail.subject);
        let text = format!("Thank you. Your request is {number}; just reply to this mail to add to it.\n");
        let mut mail = Submission::text(contract.clone(), subject, text)
            .with_to(to.clone())
            .with_record(number.clone())
            .with_in_reply_to(delivery.id)
            // Should the desk fail before it says done, the same mail comes again, and this is the same answer.
            .with_idempotency_key(IdempotencyKey::parse(&format!("answer-{}", delivery.id))?);
        // By whichever outbox it leaves, the customer's reply goes to the contract's address.
        mail.reply_to = self.addresses.get(contract).cloned();
        Ok(self.office.submit(&mail).await?)
    }

    async fn notify(&self, contract: &ContractId, number: &RecordId, subject: &str) -> Outcome<Submitted> {
        let values = Values::default()
            .with("number", number.as_str())
            .with("contract", contract.as_str())
            .with("subject", subject);
        Ok(self.office.notify(contract, &self.step, values, Some(number.clone())).await?)
    }
}

/// The desk, as the worker's handler.
#[derive(Debug)]
pub(crate) struct FrontDoor(pub(crate) Arc<Desk>);

#[async_trait]
impl MessageHandler for FrontDoor {
    async fn handle(&self, delivery: Delivery) -> Answer {
        match self.0.take(delivery).await {
            Ok(()) => Answer::Done,
            Err(error) => {
                self.0.narrator.say("desk", format!("failed, and will be asked again: {error}"));
                Answer::Retry { after: Some(Duration::from_secs(1)), reason: error.to_string() }
            }
        }
    }
}

/// Who looks after each contract, for steps that write to a name.
#[derive(Debug)]
pub(crate) struct Staff;

#[async_trait]
impl RecipientDirectory for Staff {
    async fn addresses<'a>(
        &self,
        contract: &ContractId,
        name: &str,
        _: Option<&'a RecordId>,
    ) -> Result<Vec<NamedAddress>, DirectoryError> {
        if name != "account-manager" {
            return Ok(Vec::new());
        }
        let address = format!("{}-manager@desk.example", contract.as_str().to_lowercase());
        NamedAddress::parse(&address)
            .map(|found| vec![found])
            .map_err(|error| DirectoryError::new(error.to_string()))
    }
}
