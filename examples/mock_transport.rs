//! How a host tests what it builds on postroom: mockall mocks where a test says what is called, working transports in memory where
//! a test looks at what was sent. The host's own code is `remind`; each test is also run by `main`.

#![cfg_attr(not(test), expect(clippy::print_stdout, reason = "a program that tells what it does"))]

use std::sync::Arc;

use postroom::core::address::Address;
use postroom::core::contract::Contract;
use postroom::core::id::{Actor, ContractId, MailboxId};
use postroom::core::mailbox::{InboxDraft, MailboxDraft, OutboxDraft, SettingsDraft, Status};
use postroom::core::message::Submission;
use postroom::core::queue::State;
use postroom::core::secret::SecretChange;
use postroom::engine::{Builder, MockMessageHandler, Submitted};
use postroom::storage::keyring::aead::{AeadKeyring, Key};
use postroom::storage::memory::MemoryStore;
use postroom::storage::{HealthBook, QueueDesk};
use postroom::transport::memory::{MemoryIncoming, MemoryOutgoing};
use postroom::transport::{Error, ErrorKind, MockOutgoingTransport, Stage};
use postroom::{Answer, Postroom, Work};

/// The host's own code, under test.
async fn remind(
    postroom: &Postroom,
    contract: &Contract,
    to: &str,
) -> Result<Submitted, Box<dyn std::error::Error>> {
    let mail = Submission::text(contract.id.clone(), "A reminder", "Your request waits for you.");
    Ok(postroom.submit(&mail.with_to(Address::parse(to)?)).await?)
}

/// A postroom in memory with one contract, its outbox and its inbox.
async fn acme(builder: Builder) -> (Postroom, Contract, MailboxId) {
    let keyring = Arc::new(AeadKeyring::new(Key::generate("1").expect("the system gives randomness")));
    let postroom = builder.with_keyring(keyring).build();
    let host = Actor::parse("test").expect("an actor");
    let outbox = SettingsDraft::Outbox(OutboxDraft {
        tls: "none".to_owned(),
        auth: "none".to_owned(),
        senders: vec!["Acme <desk@acme.example>".to_owned()],
        ..OutboxDraft::default()
    });
    let inbox = SettingsDraft::Inbox(InboxDraft {
        provider: "imaps".to_owned(),
        user: "desk".to_owned(),
        baseline: Some("all".to_owned()),
        ..InboxDraft::default()
    });
    let add = async |form, secret| {
        let form = MailboxDraft::new("Acme", "mail.acme.example", form);
        postroom.register(&host, &form, secret, Status::Active).await.expect("a valid form").id
    };
    let outbox = add(outbox, SecretChange::Keep).await;
    let inbox = add(inbox, SecretChange::Set("secret".into())).await;
    let contract =
        Contract::new(ContractId::parse("ACME").expect("an id")).with_outbox(outbox, None).with_inbox(inbox);
    postroom.save_contract(&host, &contract).await.expect("its boxes exist");
    (postroom, contract, inbox)
}

async fn work(postroom: &Postroom) {
    postroom
        .run_with(Work::all().until_idle(), std::future::pending())
        .await
        .expect("the store in memory works");
}

#[cfg_attr(test, tokio::test)]
async fn a_reminder_leaves_by_the_outbox_of_its_contract() {
    let servers = MemoryOutgoing::new();
    let store = Arc::new(MemoryStore::new());
    let (postroom, contract, _) =
        acme(Postroom::builder(store).with_outgoing(Arc::new(servers.clone()))).await;
    let sent = remind(&postroom, &contract, "ana@customer.example").await.expect("it is submitted");
    work(&postroom).await;
    let carried = servers.carried();
    assert_eq!(carried.len(), 1);
    assert_eq!(carried[0].mailbox, sent.outbox);
    assert_eq!(carried[0].recipients[0].as_str(), "ana@customer.example");
}

#[cfg_attr(test, tokio::test)]
async fn a_refused_sign_in_stops_the_outbox_and_loses_nothing() {
    let mut transport = MockOutgoingTransport::new();
    let refused = Error::new(ErrorKind::SignInRefused, Stage::SignIn).with_reply("535 5.7.8 wrong password");
    // Once: an outbox that a person has to mend is not tried again.
    transport.expect_carry().times(1).returning(move |_, _| Err(refused.clone()));
    transport.expect_close().returning(|| ());
    let store = Arc::new(MemoryStore::new());
    let (postroom, contract, _) = acme(Postroom::builder(store).with_outgoing(Arc::new(transport))).await;
    let sent = remind(&postroom, &contract, "ana@customer.example").await.expect("it is submitted");
    work(&postroom).await;
    let record = QueueDesk::show(postroom.store(), sent.id).await.expect("a store").expect("the mail");
    assert_eq!(record.item.state, State::Queued);
    let health = HealthBook::health(postroom.store(), sent.outbox).await.expect("a store");
    assert!(health.suspended, "{health:?}");
}

#[cfg_attr(test, tokio::test)]
async fn a_mail_is_handed_to_the_handler_once() {
    let mut handler = MockMessageHandler::new();
    handler
        .expect_handle()
        .times(1)
        .withf(|delivery| delivery.mail.subject == "Help" && delivery.contract.is_some())
        .returning(|_| Answer::Done);
    let boxes = MemoryIncoming::new();
    let builder = Postroom::builder(Arc::new(MemoryStore::new()));
    let builder = builder.with_incoming(Arc::new(boxes.clone())).with_handler(Arc::new(handler));
    let (postroom, _, inbox) = acme(builder).await;
    boxes.deliver(inbox, "INBOX", "From: ana@customer.example\r\nSubject: Help\r\n\r\nPlease.\r\n");
    work(&postroom).await;
    work(&postroom).await;
}

#[cfg(not(test))]
#[tokio::main]
async fn main() {
    a_reminder_leaves_by_the_outbox_of_its_contract().await;
    a_refused_sign_in_stops_the_outbox_and_loses_nothing().await;
    a_mail_is_handed_to_the_handler_once().await;
    println!("3 tests of a host passed");
}
