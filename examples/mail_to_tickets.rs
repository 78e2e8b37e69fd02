//! Receiving: mail of an IMAP box becomes tickets. One mail is poison: it becomes a dead letter that a person can replay, and the mail
//! behind it goes on. A second run stores and hands over nothing again.

#![expect(clippy::print_stdout, reason = "a program that tells what it does")]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use postroom::core::contract::Contract;
use postroom::core::id::{Actor, ContractId, LedgerId};
use postroom::core::ledger::State;
use postroom::core::mailbox::{InboxDraft, MailboxDraft, SettingsDraft, Status};
use postroom::core::secret::SecretChange;
use postroom::storage::keyring::aead::{AeadKeyring, Key};
use postroom::storage::memory::MemoryStore;
use postroom::storage::{LedgerDesk, LedgerQuery};
use postroom::transport::by_protocol::ByProtocol;
use postroom::{Answer, Delivery, MessageHandler, Postroom, Work};
use postroom_testkit::MailServer;

/// The tickets, by the mail that opened them: a mail that is handed over twice opens one.
#[derive(Debug, Default)]
struct Tickets(Mutex<BTreeMap<LedgerId, String>>);

#[async_trait]
impl MessageHandler for Tickets {
    async fn handle(&self, delivery: Delivery) -> Answer {
        let (subject, files) = (&delivery.mail.subject, &delivery.mail.attachments);
        println!(
            "call {}: {subject:?} for {:?}, because of: {}; it says {:?}",
            delivery.attempt,
            delivery.contract,
            delivery.reasons.join(", "),
            delivery.mail.reply().unwrap_or_default()
        );
        if let Some(file) = files.iter().find(|file| file.name.ends_with(".exe")) {
            return Answer::Refuse(format!("{} is a program", file.name));
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(delivery.id, subject.clone());
        Answer::Done
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = MailServer::builder().account("help@acme.example", "secret").start().await?;
    let tickets = Arc::new(Tickets::default());
    let postroom = Postroom::builder(Arc::new(MemoryStore::new()))
        .with_keyring(Arc::new(AeadKeyring::new(Key::generate("1")?)))
        .with_incoming(Arc::new(ByProtocol::new()))
        .with_handler(Arc::clone(&tickets) as _)
        .build();

    let host = Actor::parse("host")?;
    let form = SettingsDraft::Inbox(InboxDraft {
        provider: "imaps".to_owned(),
        user: "help@acme.example".to_owned(),
        after: Some("seen".to_owned()),
        baseline: Some("all".to_owned()),
        ..InboxDraft::default()
    });
    let form = MailboxDraft {
        port: Some(server.imaps_port().into()),
        authority: Some(server.ca_pem().to_owned()),
        ..MailboxDraft::new("Acme's help", "localhost", form)
    };
    let inbox = postroom.register(&host, &form, SecretChange::Set("secret".into()), Status::Active).await?;
    let contract = Contract::new(ContractId::parse("ACME")?).with_inbox(inbox.id);
    postroom.save_contract(&host, &contract).await?;

    let mail = |subject: &str, rest: &str| {
        format!("From: Ana <ana@customer.example>\r\nTo: help@acme.example\r\nSubject: {subject}\r\n{rest}")
    };
    let program = "Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=\"fix.exe\"\r\n\r\nMZ\r\n";
    server.deliver("help@acme.example", mail("The printer is on fire", "\r\nPlease help.\r\n"));
    server.deliver("help@acme.example", mail("Run this", program));
    server.deliver("help@acme.example", mail("No paper", "\r\nAgain.\r\n"));

    let round = || postroom.run_with(Work::all().until_idle(), std::future::pending());
    round().await?;
    let opened: Vec<String> =
        tickets.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
    assert_eq!(opened, ["The printer is on fire", "No paper"], "the poison holds up nobody");
    let seen = server.messages("help@acme.example", "INBOX");
    assert!(
        seen.iter().all(|mail| mail.flags.contains("\\Seen")),
        "each is safe, so each is marked as read: {seen:?}"
    );

    let dead = LedgerQuery { state: Some(State::Dead), ..LedgerQuery::default() };
    let dead = LedgerDesk::list(postroom.store(), &dead).await?;
    assert_eq!(dead.len(), 1);
    let record = LedgerDesk::show(postroom.store(), dead[0].id).await?.ok_or("the dead letter is there")?;
    assert!(record.body.is_some(), "with its bytes");
    println!(
        "dead: {:?}, {}",
        record.item.subject,
        record
            .timeline
            .iter()
            .find(|entry| entry.state == Some(State::Dead))
            .map_or("", |entry| &entry.detail)
    );

    round().await?;
    let all = LedgerDesk::list(postroom.store(), &LedgerQuery::default()).await?;
    assert_eq!(all.len(), 3, "nothing is stored twice");
    assert_eq!(record.attempts, 1, "and nothing is handed over twice");
    println!("{} mails in the ledger, {} tickets, {} dead letter", all.len(), opened.len(), dead.len());
    Ok(())
}
