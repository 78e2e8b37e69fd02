//! The README's example: a host embeds postroom, sends a mail and gets one. A server in this process stands in for a real one; a
//! test of the facade compares this file with the README.

#![expect(clippy::print_stdout, reason = "a program that tells what it does")]

use std::sync::Arc;

use postroom::core::address::Address;
use postroom::core::id::{Actor, ContractId};
use postroom::core::{contract::Contract, mailbox::Status, message::Submission, secret::SecretChange};
use postroom::storage::keyring::aead::{AeadKeyring, Key};
use postroom::storage::memory::MemoryStore;
use postroom::transport::{by_protocol::ByProtocol, smtp::SmtpTransport};
use postroom::{Answer, Delivery, MessageHandler, Postroom, Work};
use serde_json::{from_value, json};

struct Tickets;

#[async_trait::async_trait]
impl MessageHandler for Tickets {
    async fn handle(&self, delivery: Delivery) -> Answer {
        println!("{:?} got {:?}", delivery.contract, delivery.mail.subject); // Here a host opens its ticket.
        Answer::Done
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Stands in for a real server.
    let server =
        postroom_testkit::MailServer::builder().account("desk@acme.example", "secret").start().await?;
    server.deliver("desk@acme.example", "Subject: Help\r\n\r\nThe printer is on fire.\r\n");
    // To keep it: SqliteStore::open("sqlite://postroom.db").await?, and the key of `postroom key generate`.
    let postroom = Postroom::builder(Arc::new(MemoryStore::new()))
        .with_keyring(Arc::new(AeadKeyring::new(Key::generate("1")?)))
        .with_outgoing(Arc::new(SmtpTransport::new()))
        .with_incoming(Arc::new(ByProtocol::new()))
        .with_handler(Arc::new(Tickets))
        .build();

    let (admin, password) = (Actor::parse("admin")?, || SecretChange::Set("secret".into()));
    let form = json!({ "kind": "outbox", "description": "Acme's outbox", "server": "localhost",
        "port": server.smtp_port(), "authority": server.ca_pem(), "tls": "starttls", "auth": "password",
        "user": "desk@acme.example", "senders": ["Acme Desk <desk@acme.example>"] });
    let outbox = postroom.register(&admin, &from_value(form)?, password(), Status::Active).await?;
    let form = json!({ "kind": "inbox", "description": "Acme's inbox", "server": "localhost",
        "port": server.imap_port(), "authority": server.ca_pem(), "provider": "imap",
        "user": "desk@acme.example", "baseline": "all" });
    let inbox = postroom.register(&admin, &from_value(form)?, password(), Status::Active).await?;
    let acme = Contract::new(ContractId::parse("ACME")?).with_outbox(outbox.id, None).with_inbox(inbox.id);
    postroom.save_contract(&admin, &acme).await?;

    let to = Address::parse("ana@acme.example")?;
    let mail = Submission::text(acme.id, "Hello", "Your request is open.").with_to(to);
    let sent = postroom.submit(&mail).await?; // Queued for good, with its reasons.
    println!("{} goes by outbox {} as {}: {:?}", sent.message_id, sent.outbox, sent.sender, sent.reasons);
    postroom.run_with(Work::all().until_idle(), std::future::pending()).await?; // A service: run(shutdown).
    assert_eq!(server.find_accepted_by_message_id(&sent.message_id).len(), 1);
    Ok(())
}
