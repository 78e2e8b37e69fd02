//! The journey: a customer of each contract writes, gets his answer, and replies to it. Here things happen; whether they happened
//! rightly is looked at in `proof`.

use std::sync::Arc;
use std::time::Duration;

use postroom::Postroom;

use crate::Outcome;
use crate::customers::{Customers, Got, Letter};
use crate::desk::{Desk, Ticket};
use crate::narrator::Narrator;
use crate::register::Registered;

/// How far one contract's customer came.
#[derive(Debug, Default)]
pub(crate) struct Trip {
    /// The Message-ID of his letter.
    pub(crate) letter: Option<String>,
    /// What the desk opened.
    pub(crate) ticket: Option<Ticket>,
    /// What he got.
    pub(crate) answer: Option<Got>,
    /// The Message-ID of his reply.
    pub(crate) reply: Option<String>,
}

pub(crate) struct Journey<'a> {
    pub(crate) office: &'a Postroom,
    pub(crate) desk: &'a Arc<Desk>,
    pub(crate) customers: &'a Customers,
    pub(crate) narrator: &'a Narrator,
    /// How long each mail may take.
    pub(crate) patience: Duration,
}

impl Journey<'_> {
    /// One trip for each client; one that stops short says so by what it lacks.
    pub(crate) async fn travel(&self, clients: &[Registered]) -> Outcome<Vec<Trip>> {
        let mut trips: Vec<Trip> = clients.iter().map(|_| Trip::default()).collect();
        self.narrator.chapter("The customers write");
        for (client, trip) in clients.iter().zip(&mut trips).filter(|(client, _)| client.customer_writes) {
            let letter = Letter {
                contract: &client.contract,
                from: &client.customer,
                to: client.address.clone(),
                subject: "The printer is on fire".to_owned(),
                text: "Smoke comes out of it. Please help.\r\n",
                parent: None,
            };
            trip.letter = Some(self.write(&letter).await?);
        }
        for (client, trip) in clients.iter().zip(&mut trips) {
            let Some(letter) = &trip.letter else { continue };
            let opened = |ticket: &Ticket| {
                ticket.contract == client.contract
                    && ticket.notice.is_some()
                    && ticket.thread[0].message_id.as_ref() == Some(letter)
            };
            trip.ticket = self.desk.wait_for(self.patience, opened).await;
        }
        self.narrator.chapter("The customers read their answers, and reply");
        for (client, trip) in clients.iter().zip(&mut trips) {
            let (Some(letter), Some(_)) = (&trip.letter, &trip.ticket) else { continue };
            trip.answer = self.customers.read(&client.customer, letter, self.patience).await;
            let Some(got) = &trip.answer else { continue };
            let Some(from) = got.mail.from.first() else { continue };
            self.narrator
                .say("customer", format!("{} got {:?} from {from}", client.customer, got.mail.subject));
            let reply = Letter {
                contract: &client.contract,
                from: &client.customer,
                to: got.mail.reply_to.first().unwrap_or(from).clone(),
                subject: got.mail.subject.clone(),
                text: "It has gone out by itself. The paper is lost.\r\n",
                parent: Some(got),
            };
            trip.reply = Some(self.write(&reply).await?);
        }
        for (client, trip) in clients.iter().zip(&mut trips) {
            let Some(reply) = &trip.reply else { continue };
            let filed = |ticket: &Ticket| {
                ticket.contract == client.contract
                    && ticket.thread.iter().any(|entry| entry.message_id.as_ref() == Some(reply))
            };
            // What it was filed under, rightly or not, is what the proof looks at.
            trip.ticket = self.desk.wait_for(self.patience, filed).await.or(trip.ticket.take());
        }
        Ok(trips)
    }

    async fn write(&self, letter: &Letter<'_>) -> Outcome<String> {
        let message_id = self.customers.write(letter, self.office.now()).await?;
        let (from, to) = (letter.from, &letter.to);
        self.narrator.say("customer", format!("{from} writes {:?} to {to}", letter.subject));
        Ok(message_id)
    }
}
