//! Sending once: a host that does not know whether its first try got through submits again with the same idempotency key. One mail
//! is sent; other content under the same key is refused, and the refusal names what differs.

#![expect(clippy::print_stdout, reason = "a program that tells what it does")]

use std::error::Error;
use std::sync::Arc;

use postroom::core::address::Address;
use postroom::core::id::{Actor, ContractId, IdempotencyKey};
use postroom::core::mailbox::{MailboxDraft, OutboxDraft, SettingsDraft, Status};
use postroom::core::message::Submission;
use postroom::core::queue::State;
use postroom::core::secret::SecretChange;
use postroom::storage::QueueDesk;
use postroom::storage::keyring::aead::{AeadKeyring, Key};
use postroom::storage::memory::MemoryStore;
use postroom::transport::smtp::SmtpTransport;
use postroom::{Postroom, Work};
use postroom_testkit::MailServer;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = MailServer::start().await?;
    let postroom = Postroom::builder(Arc::new(MemoryStore::new()))
        .with_keyring(Arc::new(AeadKeyring::new(Key::generate("1")?)))
        .with_outgoing(Arc::new(SmtpTransport::new()))
        .build();

    let host = Actor::parse("host")?;
    let form = SettingsDraft::Outbox(OutboxDraft {
        tls: "none".to_owned(),
        auth: "none".to_owned(),
        senders: vec!["Billing <billing@acme.example>".to_owned()],
        ..OutboxDraft::default()
    });
    let form = MailboxDraft {
        port: Some(server.smtp_port().into()),
        ..MailboxDraft::new("Relay", "127.0.0.1", form)
    };
    let outbox = postroom.register(&host, &form, SecretChange::Keep, Status::Active).await?;
    postroom.set_standard(&host, Some(outbox.id)).await?;

    let invoice = |total: &str| -> Result<Submission, Box<dyn Error>> {
        let text = format!("The total of invoice 7 is {total}.");
        Ok(Submission::text(ContractId::parse("ACME")?, "Invoice 7", text)
            .with_to(Address::parse("ana@customer.example")?)
            .with_idempotency_key(IdempotencyKey::parse("invoice-7")?))
    };
    let first = postroom.submit(&invoice("10 EUR")?).await?;
    let again = postroom.submit(&invoice("10 EUR")?).await?;
    println!("first {}, again {} (there before: {})", first.id, again.id, again.existing);
    assert!(
        !first.existing && again.existing && first.id == again.id,
        "the same key and content are one mail"
    );

    let other = postroom
        .submit(&invoice("1,000 EUR")?)
        .await
        .expect_err("other content under the same key is refused");
    println!("other content: {other}");
    assert_eq!(other.code(), "idempotency-conflict");

    postroom.run_with(Work::all().until_idle(), std::future::pending()).await?;
    let taken = server.accepted();
    assert_eq!(taken.len(), 1, "the server took one mail: {taken:?}");
    let record = QueueDesk::show(postroom.store(), first.id).await?.ok_or("the mail is in the queue")?;
    assert_eq!(record.item.state, State::Accepted);
    for entry in record.timeline {
        println!("{}  {:<8} {}", entry.at, entry.what, entry.detail);
    }
    Ok(())
}
