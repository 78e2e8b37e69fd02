//! Submission within the host's own transaction: a ticket and the mail that tells of it are committed together, or neither of them
//! is. The host's table stands in postroom's file, beside the tables that begin with `postroom_`.

#![expect(clippy::print_stdout, reason = "a program that tells what it does")]

use std::error::Error;
use std::sync::Arc;

use postroom::core::address::Address;
use postroom::core::id::{Actor, ContractId, IdempotencyKey};
use postroom::core::mailbox::{MailboxDraft, OutboxDraft, SettingsDraft, Status};
use postroom::core::message::Submission;
use postroom::core::secret::SecretChange;
use postroom::storage::keyring::aead::{AeadKeyring, Key};
use postroom::storage::sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteSynchronous};
use postroom::storage::sqlx::{self, ConnectOptions, Connection};
use postroom::storage::{Clock, ErrorKind, SqliteStore};
use postroom::transport::smtp::SmtpTransport;
use postroom::{Postroom, Work};
use postroom_testkit::MailServer;

/// What the host does with a ticket and its mail.
#[derive(Clone, Copy)]
enum Decision {
    Keep,
    ThrowAway,
}

/// Opens a ticket and queues its mail, both or neither.
async fn open_ticket(
    host: &mut SqliteConnection,
    store: &SqliteStore,
    postroom: &Postroom,
    number: i64,
    decision: Decision,
) -> Result<(), Box<dyn Error>> {
    let mail =
        Submission::text(ContractId::parse("ACME")?, format!("Ticket {number}"), "Your ticket is open.")
            .with_to(Address::parse("ana@customer.example")?)
            .with_idempotency_key(IdempotencyKey::parse(&format!("ticket-{number}"))?);
    loop {
        // Before the transaction: while that is open nobody else writes to the file.
        let (prepared, content) = postroom.prepare(&mail).await?;
        let mut tx = host.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("INSERT INTO ticket (number) VALUES (?)").bind(number).execute(&mut *tx).await?;
        match store.enqueue_in(&mut tx, store.now(), &prepared, content).await {
            Ok(_) => {}
            // Somebody changed the contract or its outbox since: both are done again.
            Err(error) if *error.kind() == ErrorKind::StaleDecision => {
                tx.rollback().await?;
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        match decision {
            Decision::ThrowAway => tx.rollback().await?,
            Decision::Keep => {
                tx.commit().await?;
                // A worker would find it within a second anyway.
                postroom.wake();
            }
        }
        return Ok(());
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = MailServer::start().await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("desk.db");
    let store = SqliteStore::open(&file.display().to_string()).await?;
    let postroom = Postroom::builder(Arc::new(store.clone()))
        .with_keyring(Arc::new(AeadKeyring::new(Key::generate("1")?)))
        .with_outgoing(Arc::new(SmtpTransport::new()))
        .build();
    let admin = Actor::parse("admin")?;
    let form = SettingsDraft::Outbox(OutboxDraft {
        tls: "none".to_owned(),
        auth: "none".to_owned(),
        senders: vec!["Desk <desk@acme.example>".to_owned()],
        ..OutboxDraft::default()
    });
    let form = MailboxDraft {
        port: Some(server.smtp_port().into()),
        ..MailboxDraft::new("Relay", "127.0.0.1", form)
    };
    let outbox = postroom.register(&admin, &form, SecretChange::Keep, Status::Active).await?;
    postroom.set_standard(&admin, Some(outbox.id)).await?;

    let options = SqliteConnectOptions::new().filename(&file).synchronous(SqliteSynchronous::Full);
    let mut host = options.connect().await?;
    sqlx::query("CREATE TABLE ticket (number INTEGER PRIMARY KEY)").execute(&mut host).await?;
    open_ticket(&mut host, &store, &postroom, 1, Decision::ThrowAway).await?;
    open_ticket(&mut host, &store, &postroom, 2, Decision::Keep).await?;

    postroom.run_with(Work::all().until_idle(), std::future::pending()).await?;
    let tickets: Vec<(i64,)> = sqlx::query_as("SELECT number FROM ticket").fetch_all(&mut host).await?;
    let taken = server.accepted();
    println!("tickets {tickets:?}, mails sent {}", taken.len());
    assert_eq!(tickets, [(2,)], "the first was rolled back");
    assert_eq!(taken.len(), 1, "its mail as well");
    Ok(())
}
