//! Submission within the host's own transaction: a ticket and the mail that tells of it are committed together, or neither of them
//! is. The host's table stands in postroom's file, beside the tables that begin with `postroom_`. And the other way round: an answer
//! that comes in becomes a note in the transaction that completes it in the ledger.

#![expect(clippy::print_stdout, reason = "a program that tells what it does")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use postroom::core::address::Address;
use postroom::core::contract::Contract;
use postroom::core::id::{Actor, ContractId, IdempotencyKey};
use postroom::core::ledger::State;
use postroom::core::mailbox::{InboxDraft, MailboxDraft, OutboxDraft, SettingsDraft, Status};
use postroom::core::message::Submission;
use postroom::core::secret::SecretChange;
use postroom::storage::keyring::aead::{AeadKeyring, Key};
use postroom::storage::sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteSynchronous};
use postroom::storage::sqlx::{self, ConnectOptions, Connection};
use postroom::storage::{Clock, ErrorKind, LedgerDesk, LedgerQuery, SqliteStore};
use postroom::transport::by_protocol::ByProtocol;
use postroom::transport::smtp::SmtpTransport;
use postroom::{Answer, Delivery, MessageHandler, Postroom, Work};
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

/// Makes notes of what comes in: the note and the ledger's row are one transaction.
struct Notes {
    store: SqliteStore,
    options: SqliteConnectOptions,
    has_failed: AtomicBool,
}

impl Notes {
    async fn note(&self, delivery: &Delivery) -> Result<(), Box<dyn Error>> {
        let mut host = self.options.connect().await?;
        let mut tx = host.begin_with("BEGIN IMMEDIATE").await?;
        let note = sqlx::query("INSERT INTO note (subject) VALUES (?)").bind(&delivery.mail.subject);
        note.execute(&mut *tx).await?;
        self.store.complete_in(&mut tx, self.store.now(), &delivery.claim()).await?;
        if !self.has_failed.swap(true, Ordering::SeqCst) {
            // The first time something goes wrong in the last moment: the note and the row are undone together.
            tx.rollback().await?;
        } else {
            tx.commit().await?;
        }
        Ok(())
    }
}

#[async_trait]
impl MessageHandler for Notes {
    async fn handle(&self, delivery: Delivery) -> Answer {
        match self.note(&delivery).await {
            // Believed only if it stands there.
            Ok(()) => Answer::Committed,
            Err(error) => Answer::Retry { after: Some(Duration::from_secs(1)), reason: error.to_string() },
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = MailServer::builder().account("desk@acme.example", "secret").start().await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("desk.db");
    let store = SqliteStore::open(&file.display().to_string()).await?;
    let options = SqliteConnectOptions::new().filename(&file).synchronous(SqliteSynchronous::Full);
    let notes = Notes { store: store.clone(), options: options.clone(), has_failed: AtomicBool::new(false) };
    let postroom = Postroom::builder(Arc::new(store.clone()))
        .with_keyring(Arc::new(AeadKeyring::new(Key::generate("1")?)))
        .with_outgoing(Arc::new(SmtpTransport::new()))
        .with_incoming(Arc::new(ByProtocol::new()))
        .with_handler(Arc::new(notes))
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
    receive(&mut host, &server, &postroom).await
}

/// An answer comes in.
async fn receive(
    host: &mut SqliteConnection,
    server: &MailServer,
    postroom: &Postroom,
) -> Result<(), Box<dyn Error>> {
    sqlx::query("CREATE TABLE note (subject TEXT)").execute(&mut *host).await?;
    let admin = Actor::parse("admin")?;
    let form = SettingsDraft::Inbox(InboxDraft {
        provider: "imaps".to_owned(),
        user: "desk@acme.example".to_owned(),
        baseline: Some("all".to_owned()),
        ..InboxDraft::default()
    });
    let form = MailboxDraft {
        port: Some(server.imaps_port().into()),
        authority: Some(server.ca_pem().to_owned()),
        ..MailboxDraft::new("Desk", "localhost", form)
    };
    let inbox = postroom.register(&admin, &form, SecretChange::Set("secret".into()), Status::Active).await?;
    let contract = Contract::new(ContractId::parse("ACME")?).with_inbox(inbox.id);
    postroom.save_contract(&admin, &contract).await?;
    server.deliver(
        "desk@acme.example",
        "From: ana@customer.example\r\nSubject: Thank you\r\n\r\nIt works.\r\n",
    );
    loop {
        postroom.run_with(Work::all().until_idle(), std::future::pending()).await?;
        let notes: Vec<(String,)> = sqlx::query_as("SELECT subject FROM note").fetch_all(&mut *host).await?;
        let mail = LedgerDesk::list(postroom.store(), &LedgerQuery::default()).await?.remove(0);
        println!("notes {notes:?}, the mail is {}", mail.state);
        // Never one without the other.
        assert_eq!(notes.len(), usize::from(mail.state == State::Handled));
        if mail.state == State::Handled {
            return Ok(());
        }
        let desk: &dyn LedgerDesk = postroom.store();
        // Instead of waiting until it is due again: a person drops it and has it handled anew.
        desk.ignore(postroom.now(), &admin, mail.id).await?;
        desk.replay(postroom.now(), &admin, mail.id).await?;
        postroom.wake();
    }
}
