//! A postroom on a SQLite file beside mail servers on loopback.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use postroom::core::address::Address;
use postroom::core::contract::Contract;
use postroom::core::id::{Actor, ContractId, MailboxId};
use postroom::core::mailbox::{InboxDraft, Mailbox, MailboxDraft, OutboxDraft, SettingsDraft, Status};
use postroom::core::message::Submission;
use postroom::core::secret::{SecretChange, SecretString};
use postroom::engine::{Answer, Delivery, MessageHandler, Submitted, Work};
use postroom::storage::keyring::aead::AeadKeyring;
use postroom::storage::sql::sqlite::SqliteStore;
use postroom::storage::{LedgerDesk, LedgerItem, LedgerQuery, QueueDesk, QueueItem, QueueQuery, QueueRecord};
use postroom::transport::by_protocol::ByProtocol;
use postroom::transport::smtp::SmtpTransport;
use postroom::{Options, Postroom};
use postroom_testkit::MailServer;

pub(crate) const PASSWORD: &str = "s3cret-canary";

/// Records what it is handed.
#[derive(Default)]
pub(crate) struct Tickets(pub(crate) Mutex<Vec<Delivery>>);

#[async_trait]
impl MessageHandler for Tickets {
    async fn handle(&self, delivery: Delivery) -> Answer {
        self.0.lock().unwrap().push(delivery);
        Answer::Done
    }
}

impl Tickets {
    pub(crate) fn subjects(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|delivery| delivery.mail.subject.clone()).collect()
    }
}

pub(crate) struct Desk {
    pub(crate) postroom: Postroom,
    pub(crate) tickets: Arc<Tickets>,
}

pub(crate) fn actor() -> Actor {
    Actor::parse("journey").unwrap()
}

pub(crate) fn contract(id: &str) -> ContractId {
    ContractId::parse(id).unwrap()
}

pub(crate) fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// A server with the account `desk@acme.example`, that takes mail of anybody for anybody.
pub(crate) async fn server() -> MailServer {
    MailServer::builder().account("desk@acme.example", PASSWORD).start().await.unwrap()
}

/// The form of an outbox of `server` that signs in as the desk.
pub(crate) fn outbox(server: &MailServer, tls: &str) -> MailboxDraft {
    let port = if tls == "implicit" { server.smtps_port() } else { server.smtp_port() };
    draft(
        server,
        port,
        SettingsDraft::Outbox(OutboxDraft {
            tls: tls.to_owned(),
            auth: if tls == "none" { "none" } else { "password" }.to_owned(),
            user: (tls != "none").then(|| "desk@acme.example".to_owned()),
            senders: vec!["Desk <desk@acme.example>".to_owned()],
            ..OutboxDraft::default()
        }),
    )
}

/// The form of an inbox of `server` for the desk.
pub(crate) fn inbox(server: &MailServer, provider: &str) -> MailboxDraft {
    let port = match provider {
        "imap" => server.imap_port(),
        "imaps" => server.imaps_port(),
        "pop3" => server.pop3_port(),
        _ => server.pop3s_port(),
    };
    let form = InboxDraft {
        provider: provider.to_owned(),
        user: "desk@acme.example".to_owned(),
        baseline: Some("all".to_owned()),
        ..InboxDraft::default()
    };
    draft(server, port, SettingsDraft::Inbox(form))
}

fn draft(server: &MailServer, port: u16, settings: SettingsDraft) -> MailboxDraft {
    MailboxDraft {
        description: "Desk".to_owned(),
        server: "localhost".to_owned(),
        port: Some(port.into()),
        authority: Some(server.ca_pem().to_owned()),
        max_message: None,
        danger_plaintext: false,
        settings,
    }
}

impl Desk {
    /// Opens the file, with the keys of every other desk on it.
    pub(crate) async fn open(folder: &Path) -> Self {
        let options = Options { lease: Duration::from_secs(2), ..Options::default() };
        let store =
            SqliteStore::open(&format!("sqlite://{}", folder.join("desk.db").display())).await.unwrap();
        let keys =
            AeadKeyring::parse(&format!("k1:{}", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")).unwrap();
        let tickets = Arc::new(Tickets::default());
        let postroom = Postroom::builder(Arc::new(store))
            .with_keyring(Arc::new(keys))
            .with_outgoing(Arc::new(SmtpTransport::new()))
            .with_incoming(Arc::new(ByProtocol::new()))
            .with_handler(tickets.clone())
            .with_options(options)
            .build();
        Self { postroom, tickets }
    }

    pub(crate) async fn register(&self, draft: &MailboxDraft) -> Mailbox {
        let signs_in = match &draft.settings {
            SettingsDraft::Inbox(_) => true,
            SettingsDraft::Outbox(outbox) => outbox.auth == "password",
        };
        let secret =
            if signs_in { SecretChange::Set(SecretString::from(PASSWORD)) } else { SecretChange::Keep };
        self.postroom.register(&actor(), draft, secret, Status::Active).await.unwrap()
    }

    /// Links a contract to an outbox and inboxes.
    pub(crate) async fn link(&self, id: &str, outbox: Option<MailboxId>, inboxes: &[MailboxId]) {
        let mut linked = Contract::new(contract(id));
        if let Some(outbox) = outbox {
            linked = linked.with_outbox(outbox, None);
        }
        linked.inboxes.extend(inboxes);
        self.postroom.save_contract(&actor(), &linked).await.unwrap();
    }

    pub(crate) async fn submit(&self, from: &str, to: &str, subject: &str) -> Submitted {
        let mail = Submission::text(contract(from), subject, "text").with_to(address(to));
        self.postroom.submit(&mail).await.unwrap()
    }

    /// Works until nothing is due.
    pub(crate) async fn work(&self) {
        let run = self.postroom.run_with(Work::all().until_idle(), std::future::pending());
        tokio::time::timeout(Duration::from_secs(60), run).await.expect("the worker becomes idle").unwrap();
    }

    pub(crate) async fn show(&self, mail: &Submitted) -> QueueRecord {
        let desk: &dyn QueueDesk = self.postroom.store();
        desk.show(mail.id).await.unwrap().unwrap()
    }

    pub(crate) async fn queue(&self) -> Vec<QueueItem> {
        let desk: &dyn QueueDesk = self.postroom.store();
        desk.list(&QueueQuery::default()).await.unwrap()
    }

    pub(crate) async fn ledger(&self) -> Vec<LedgerItem> {
        let desk: &dyn LedgerDesk = self.postroom.store();
        desk.list(&LedgerQuery::default()).await.unwrap()
    }
}
