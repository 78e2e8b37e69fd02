//! What must be true at the end, looked up where it can't be made up: in the records of the servers, in the customers' mailboxes, and
//! in postroom's rows. Every fact is a line; a missing one makes the program fail.

use std::fmt::Display;

use postroom::Postroom;
use postroom::core::ledger;
use postroom::core::queue;
use postroom::engine::Submitted;
use postroom::storage::{LedgerDesk, QueueDesk};
use postroom_testkit::Accepted;

use crate::Outcome;
use crate::desk::Ticket;
use crate::journey::Trip;
use crate::loopback::Servers;
use crate::register::{Registered, Registry};

/// Facts with what was found instead, where one does not hold.
#[derive(Debug, Default)]
pub(crate) struct Proof {
    pub(crate) held: usize,
    pub(crate) missing: Vec<String>,
    /// What could not be looked at, and why.
    pub(crate) skipped: Vec<String>,
}

impl Proof {
    fn fact(&mut self, what: impl Display, holds: bool, found: impl Display) {
        if holds {
            self.held += 1;
        } else {
            self.missing.push(format!("{what}; found: {found}"));
        }
    }

    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: impl Display, want: &T, found: &T) {
        self.fact(format!("{what} is {want:?}"), want == found, format!("{found:?}"));
    }
}

/// Looks at what every postroom can know: its rows, and what the customer got.
pub(crate) async fn of_rows(
    proof: &mut Proof,
    office: &Postroom,
    registry: &Registry,
    trips: &[Trip],
) -> Outcome<()> {
    for (client, trip) in registry.clients.iter().zip(trips) {
        let id = &client.contract;
        if !client.customer_writes {
            proof.skipped.push(format!(
                "{id}: no customer's mailboxes are configured, so nobody wrote to {}",
                client.address
            ));
            continue;
        }
        let Some(ticket) = &trip.ticket else {
            proof.fact(format!("{id}: the customer's mail became a ticket"), false, "none");
            continue;
        };
        proof.same(format!("{id}: the ticket's contract"), id, &ticket.contract);
        let (answer, notice) = (ticket.answer.as_ref(), ticket.notice.as_ref());
        sent(proof, office, &format!("{id}: the answer"), answer, client.outbox.id).await?;
        sent(proof, office, &format!("{id}: the notice"), notice, registry.alerts.id).await?;
        received(proof, office, client, trip, ticket).await?;
    }
    Ok(())
}

async fn sent(
    proof: &mut Proof,
    office: &Postroom,
    what: &str,
    mail: Option<&Submitted>,
    outbox: postroom::core::id::MailboxId,
) -> Outcome<()> {
    let Some(mail) = mail else {
        proof.fact(format!("{what} was submitted"), false, "nothing");
        return Ok(());
    };
    proof.same(format!("{what}: its outbox"), &outbox, &mail.outbox);
    let record = QueueDesk::show(office.store(), mail.id).await?;
    let state = record.map(|record| record.item.state);
    proof.same(format!("{what}: its state"), &Some(queue::State::Accepted), &state);
    Ok(())
}

async fn received(
    proof: &mut Proof,
    office: &Postroom,
    client: &Registered,
    trip: &Trip,
    ticket: &Ticket,
) -> Outcome<()> {
    let id = &client.contract;
    let sender = client.outbox.settings.outbox().map(|outbox| outbox.default_sender().clone());
    let from = trip.answer.as_ref().and_then(|got| got.mail.from.first().cloned());
    proof.same(format!("{id}: whom the customer's answer is from"), &sender, &from);
    let replies: Vec<_> =
        ticket.thread.iter().filter(|entry| trip.reply.is_some() && entry.message_id == trip.reply).collect();
    proof.same(format!("{id}: how often the reply is in the ticket's thread"), &1, &replies.len());
    for reply in replies {
        proof.same(format!("{id}: the record of the reply"), &Some(ticket.number.clone()), &reply.record);
    }
    for entry in &ticket.thread {
        let state = LedgerDesk::show(office.store(), entry.ledger).await?.map(|record| record.item.state);
        proof.same(format!("{id}: the state of {:?}", entry.subject), &Some(ledger::State::Handled), &state);
    }
    Ok(())
}

/// By which server, as whom and how each contract's answer has to leave: Acme and Borealis by their own, Cobalt by Standard.
const EXPECTED: [(&str, &str, &str); 3] = [
    ("Acme", "Acme's server", "support@acme.example"),
    ("Borealis", "Borealis' server", "help@borealis.example"),
    ("Cobalt", "the desk's server", "service@desk.example"),
];

/// Looks at what the servers wrote down.
pub(crate) fn of_servers(proof: &mut Proof, servers: &Servers, registry: &Registry, trips: &[Trip]) {
    let accepted = servers.accepted();
    for ((client, trip), (id, server, login)) in registry.clients.iter().zip(trips).zip(EXPECTED) {
        let Some(ticket) = &trip.ticket else { continue };
        letters_lie_on_the_server(proof, servers, client, trip);

        let customer = client.customer.address().to_string();
        if let Some(mail) =
            only(proof, &format!("{id}: the answer"), server, &accepted, ticket.answer.as_ref())
        {
            let what = |what: &str| format!("{id}: the answer's {what} at {server}");
            proof.same(what("login"), &Some(login.to_owned()), &mail.login);
            proof.same(what("TLS"), &true, &mail.tls);
            proof.same(what("MAIL FROM"), &login.to_owned(), &mail.mail_from);
            proof.same(what("recipients"), &vec![customer], &mail.recipients);
            proof.same(what("In-Reply-To"), &trip.letter, &mail.header("In-Reply-To"));
        }
        if let Some(mail) =
            only(proof, &format!("{id}: the notice"), "the house relay", &accepted, ticket.notice.as_ref())
        {
            let what = |what: &str| format!("{id}: the notice's {what} at the house relay");
            proof.same(what("login"), &None, &mail.login);
            proof.same(what("MAIL FROM"), &"alerts@desk.example".to_owned(), &mail.mail_from);
            let manager = format!("{}-manager@desk.example", id.to_lowercase());
            proof.same(what("recipients"), &vec!["duty@desk.example".to_owned(), manager], &mail.recipients);
            let subject = format!("[{}] A request of {id}", ticket.number);
            proof.same(what("subject"), &Some(subject), &mail.subject());
        }
    }
    // A letter, an answer, a notice and a reply for each, and nothing twice.
    proof.same("how many mails all servers took", &(4 * registry.clients.len()), &accepted.len());
}

/// The letter and the reply are in the contract's mailbox, and were read there by a session that had signed in inside TLS.
fn letters_lie_on_the_server(proof: &mut Proof, servers: &Servers, client: &Registered, trip: &Trip) {
    let (id, address) = (&client.contract, client.address.address().to_string());
    let server = servers.of(id.as_str());
    let kept: Vec<_> =
        server.messages(&address, "INBOX").iter().map(|mail| mail.header("Message-ID")).collect();
    proof.same(
        format!("{id}: what lies in {address}"),
        &vec![trip.letter.clone(), trip.reply.clone()],
        &kept,
    );
    let port = client.inbox.settings.endpoint().port.number();
    let sessions = server.sessions();
    let read = sessions.iter().any(|session| {
        session.port == port && session.tls && session.login.as_deref() == Some(address.as_str())
    });
    proof.fact(format!("{id}: {address} signed in inside TLS on port {port}"), read, format!("{sessions:?}"));
}

/// The one record of a mail in all servers; it must be at `server`.
fn only<'a>(
    proof: &mut Proof,
    what: &str,
    server: &str,
    accepted: &'a [(&'static str, Accepted)],
    mail: Option<&Submitted>,
) -> Option<&'a Accepted> {
    let message_id = &mail?.message_id;
    let found: Vec<_> =
        accepted.iter().filter(|(_, mail)| mail.message_id.as_ref() == Some(message_id)).collect();
    let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
    proof.same(format!("{what}: the servers that took it"), &vec![server], &names);
    found.first().map(|(_, mail)| mail)
}
