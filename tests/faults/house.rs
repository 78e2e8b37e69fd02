//! A postroom for the tests of faults: one outbox, one contract, a store and a way to the server that the test chooses, and a clock that
//! it moves.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postroom::core::address::Address;
use postroom::core::contract::Contract;
use postroom::core::id::{Actor, ContractId};
use postroom::core::mailbox::{InboxDraft, Mailbox, MailboxDraft, OutboxDraft, SettingsDraft, Status};
use postroom::core::message::Submission;
use postroom::core::secret::{SecretChange, SecretString};
use postroom::core::time::Timestamp;
use postroom::engine::{Observer, Submitted, Work};
use postroom::storage::keyring::aead::AeadKeyring;
use postroom::storage::sql::sqlite::{SqliteOptions, SqliteStore};
use postroom::storage::{ManualClock, QueueDesk, QueueQuery, QueueRecord, Store};
use postroom::transport::OutgoingTransport;
use postroom::transport::smtp::{SmtpTransport, Timeouts};
use postroom::{Options, Postroom};
use postroom_testkit::MailServer;

/// Long enough for a loaded machine; no test waits for it but to fail.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// When every test begins.
pub(crate) fn morning() -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000)
}

pub(crate) fn actor() -> Actor {
    Actor::parse("test").unwrap()
}

pub(crate) fn contract(id: &str) -> ContractId {
    ContractId::parse(id).unwrap()
}

/// The file of a folder, by a clock that begins so long after the morning.
pub(crate) async fn sqlite(folder: &Path, after: Duration) -> (Arc<SqliteStore>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(morning() + after));
    let url = format!("sqlite://{}", folder.join("queue.db").display());
    let store = SqliteStore::open_with(&url, SqliteOptions::new().with_clock(clock.clone())).await.unwrap();
    (Arc::new(store), clock)
}

/// SMTP that waits for nothing longer than this.
pub(crate) fn smtp(most: Duration) -> SmtpTransport {
    SmtpTransport::new().with_timeouts(Timeouts::default().at_most(most))
}

/// The keys of every postroom here.
pub(crate) fn keys() -> Arc<AeadKeyring> {
    Arc::new(AeadKeyring::parse("k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap())
}

/// A postroom that sends.
pub(crate) fn opened(
    store: Arc<dyn Store>,
    outgoing: Arc<dyn OutgoingTransport>,
    observer: Arc<dyn Observer>,
    options: Options,
) -> Postroom {
    Postroom::builder(store)
        .with_keyring(keys())
        .with_outgoing(outgoing)
        .with_observer(observer)
        .with_options(options)
        .build()
}

/// Options that look at the queue more often than they would.
pub(crate) fn options() -> Options {
    Options { look: Duration::from_millis(50), ..Options::default() }
}

/// Registers an outbox of the server at this port, without sign-in, and links a contract to it.
pub(crate) async fn linked(postroom: &Postroom, id: &str, port: u16, connections: u32) -> Mailbox {
    let form = OutboxDraft {
        tls: "none".to_owned(),
        auth: "none".to_owned(),
        senders: vec!["desk@acme.example".to_owned()],
        max_connections: Some(connections),
        ..OutboxDraft::default()
    };
    let draft = MailboxDraft {
        description: id.to_owned(),
        server: "127.0.0.1".to_owned(),
        port: Some(port.into()),
        authority: None,
        max_message: None,
        danger_plaintext: false,
        settings: SettingsDraft::Outbox(form),
    };
    let outbox = postroom.register(&actor(), &draft, SecretChange::Keep, Status::Active).await.unwrap();
    let linked = Contract::new(contract(id)).with_outbox(outbox.id, None);
    postroom.save_contract(&actor(), &linked).await.unwrap();
    outbox
}

/// Registers this user's inbox at the server, whose mail counts from the first on. What becomes of it at the server, `after` says.
pub(crate) async fn inbox(postroom: &Postroom, server: &MailServer, user: &str, after: &str) -> Mailbox {
    inbox_by("imaps", postroom, server, user, after).await
}

/// As [`inbox`], by this provider's protocol.
pub(crate) async fn inbox_by(
    provider: &str,
    postroom: &Postroom,
    server: &MailServer,
    user: &str,
    after: &str,
) -> Mailbox {
    let port = if provider == "pop3s" { server.pop3s_port() } else { server.imaps_port() };
    let form = InboxDraft {
        provider: provider.to_owned(),
        user: user.to_owned(),
        baseline: Some("all".to_owned()),
        after: Some(after.to_owned()),
        ..InboxDraft::default()
    };
    let draft = MailboxDraft {
        port: Some(port.into()),
        authority: Some(server.ca_pem().to_owned()),
        ..MailboxDraft::new("Desk", "localhost", SettingsDraft::Inbox(form))
    };
    let password = SecretChange::Set(SecretString::from("secret"));
    postroom.register(&actor(), &draft, password, Status::Active).await.unwrap()
}

pub(crate) fn mail(id: &str, to: &[&str]) -> Submission {
    let mail = Submission::text(contract(id), "subject", "text");
    to.iter().fold(mail, |mail, to| mail.with_to(Address::parse(to).unwrap()))
}

pub(crate) async fn submit(postroom: &Postroom, id: &str) -> Submitted {
    postroom.submit(&mail(id, &["ana@customer.example"])).await.unwrap()
}

/// Works until nothing is due at the present time.
pub(crate) async fn work(postroom: &Postroom) {
    let run = postroom.run_with(Work::all().until_idle(), std::future::pending());
    tokio::time::timeout(PATIENCE, run).await.expect("the worker becomes idle").unwrap();
}

pub(crate) async fn show(postroom: &Postroom, mail: &Submitted) -> QueueRecord {
    let desk: &dyn QueueDesk = postroom.store();
    desk.show(mail.id).await.unwrap().unwrap()
}

/// Every mail, oldest first.
pub(crate) async fn queue(postroom: &Postroom) -> Vec<postroom::storage::QueueItem> {
    looks(postroom).await.unwrap()
}

/// As [`queue`], where the store may not answer.
pub(crate) async fn looks(
    postroom: &Postroom,
) -> postroom::storage::Result<Vec<postroom::storage::QueueItem>> {
    let desk: &dyn QueueDesk = postroom.store();
    desk.list(&QueueQuery::default()).await
}
