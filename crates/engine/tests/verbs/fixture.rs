//! A postroom over memory: two outboxes, an inbox, two contracts, and a handler that records what it gets.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use postroom_core::address::Address;
use postroom_core::contract::Contract;
use postroom_core::id::{Actor, ContractId, MailboxId};
use postroom_core::mailbox::{InboxDraft, Mailbox, MailboxDraft, OutboxDraft, SettingsDraft, Status};
use postroom_core::message::Submission;
use postroom_core::secret::{SecretChange, SecretString};
use postroom_core::time::Timestamp;
use postroom_engine::{Answer, Delivery, MessageHandler, Options, Postroom, Submitted, Work};
use postroom_storage::keyring::{Binding, Keyring, Sealed};
use postroom_storage::memory::MemoryStore;
use postroom_storage::{LedgerDesk, LedgerItem, LedgerQuery, ManualClock, QueueDesk, QueueRecord};
use postroom_transport::OutgoingTransport;
use postroom_transport::memory::{MemoryIncoming, MemoryOutgoing};
use zeroize::Zeroizing;

/// Records what it gets, and answers as it was told, else done.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) got: Mutex<Vec<Delivery>>,
    pub(crate) answers: Mutex<VecDeque<Option<Answer>>>,
}

impl Host {
    /// The next answers; none is a panic.
    pub(crate) fn will_say(&self, answers: impl IntoIterator<Item = Option<Answer>>) {
        self.answers.lock().unwrap().extend(answers);
    }

    pub(crate) fn subjects(&self) -> Vec<String> {
        self.got.lock().unwrap().iter().map(|delivery| delivery.mail.subject.clone()).collect()
    }
}

#[async_trait]
impl MessageHandler for Host {
    async fn handle(&self, delivery: Delivery) -> Answer {
        self.got.lock().unwrap().push(delivery);
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or(Some(Answer::Done));
        answer.expect("the handler was told to panic")
    }
}

/// Seals by a label that names row and field: what is moved fails to open. The cipher is tested where it lives.
pub(crate) struct LabelKeyring;

fn label(binding: &Binding) -> Vec<u8> {
    format!("{}/{}:", binding.owner, binding.field).into_bytes()
}

impl Keyring for LabelKeyring {
    fn seal(&self, binding: &Binding, plain: &[u8]) -> postroom_storage::Result<Sealed> {
        Ok(Sealed::from_bytes([&label(binding), plain].concat()))
    }

    fn open(&self, binding: &Binding, sealed: &Sealed) -> postroom_storage::Result<Zeroizing<Vec<u8>>> {
        let moved = || postroom_storage::Error::new(postroom_storage::ErrorKind::Sealing, "open a secret");
        let plain = sealed.as_bytes().strip_prefix(label(binding).as_slice()).ok_or_else(moved)?;
        Ok(Zeroizing::new(plain.to_vec()))
    }
}

pub(crate) struct House {
    pub(crate) postroom: Postroom,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) keyring: Arc<LabelKeyring>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) outgoing: Arc<MemoryOutgoing>,
    pub(crate) incoming: Arc<MemoryIncoming>,
    pub(crate) host: Arc<Host>,
    /// The standard outbox, without sign-in.
    pub(crate) standard: Mailbox,
    /// Acme's own outbox, with sign-in.
    pub(crate) own: Mailbox,
    /// The inbox of Acme.
    pub(crate) inbox: Mailbox,
}

pub(crate) fn actor() -> Actor {
    Actor::parse("test").unwrap()
}

pub(crate) fn contract(id: &str) -> ContractId {
    ContractId::parse(id).unwrap()
}

pub(crate) fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

pub(crate) fn password() -> SecretChange {
    SecretChange::Set(SecretString::from("s3cret-canary"))
}

pub(crate) fn outbox(server: &str, sender: &str, user: Option<&str>) -> MailboxDraft {
    let (tls, auth) = if user.is_some() { ("starttls", "password") } else { ("none", "none") };
    draft(
        server,
        SettingsDraft::Outbox(OutboxDraft {
            tls: tls.to_owned(),
            auth: auth.to_owned(),
            user: user.map(ToOwned::to_owned),
            senders: vec![sender.to_owned(), format!("other-{sender}")],
            ..OutboxDraft::default()
        }),
    )
}

pub(crate) fn inbox(server: &str, form: InboxDraft) -> MailboxDraft {
    let form = InboxDraft { user: "u".to_owned(), ..form };
    draft(server, SettingsDraft::Inbox(form))
}

fn draft(server: &str, settings: SettingsDraft) -> MailboxDraft {
    MailboxDraft {
        description: format!("box at {server}"),
        server: server.to_owned(),
        port: None,
        authority: None,
        max_message: Some(1 << 20),
        danger_plaintext: false,
        settings,
    }
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::with_options(Options::default()).await
    }

    pub(crate) async fn with_options(options: Options) -> Self {
        let form = InboxDraft {
            provider: "imaps".to_owned(),
            baseline: Some("all".to_owned()),
            after: Some("seen".to_owned()),
            refused_extensions: vec!["exe".to_owned()],
            ..InboxDraft::default()
        };
        Self::with_inbox(options, form).await
    }

    pub(crate) async fn with_inbox(options: Options, form: InboxDraft) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::parse("2026-11-22T10:00:00Z").unwrap()));
        let store = Arc::new(MemoryStore::with_clock(clock.clone()));
        let (outgoing, incoming) = (Arc::new(MemoryOutgoing::new()), Arc::new(MemoryIncoming::new()));
        let host = Arc::new(Host::default());
        let keyring = Arc::new(LabelKeyring);
        let postroom = Postroom::builder(store.clone())
            .with_keyring(keyring.clone())
            .with_outgoing(outgoing.clone())
            .with_incoming(incoming.clone())
            .with_handler(host.clone())
            .with_options(options)
            .build();
        let standard = outbox("smtp.standard.example", "desk@standard.example", None);
        let standard =
            postroom.register(&actor(), &standard, SecretChange::Keep, Status::Active).await.unwrap();
        let own = outbox("smtp.acme.example", "support@acme.example", Some("u"));
        let own = postroom.register(&actor(), &own, password(), Status::Active).await.unwrap();
        let inbox = inbox("imap.acme.example", form);
        let inbox = postroom.register(&actor(), &inbox, password(), Status::Active).await.unwrap();
        postroom.set_standard(&actor(), Some(standard.id)).await.unwrap();
        let acme = Contract::new(contract("ACME")).with_outbox(own.id, None).with_inbox(inbox.id);
        postroom.save_contract(&actor(), &acme).await.unwrap();
        incoming.create_folder(inbox.id, "INBOX");
        Self { postroom, store, keyring, clock, outgoing, incoming, host, standard, own, inbox }
    }

    /// A second worker over the same store, with another way to servers.
    pub(crate) fn with_outgoing(&self, outgoing: Arc<dyn OutgoingTransport>) -> Postroom {
        Postroom::builder(self.store.clone())
            .with_keyring(self.keyring.clone())
            .with_outgoing(outgoing)
            .build()
    }

    pub(crate) async fn submit(&self, from: &str, to: &[&str]) -> Submitted {
        let mail = Submission::text(contract(from), format!("to {}", to.join(", ")), "text");
        let mail = to.iter().fold(mail, |mail, to| mail.with_to(address(to)));
        self.postroom.submit(&mail).await.unwrap()
    }

    pub(crate) async fn show(&self, mail: &Submitted) -> QueueRecord {
        let desk: &dyn QueueDesk = self.postroom.store();
        desk.show(mail.id).await.unwrap().unwrap()
    }

    pub(crate) async fn state(&self, mail: &Submitted) -> String {
        self.show(mail).await.item.state.to_string()
    }

    /// Runs a worker until nothing is due. It must come to an end by itself.
    pub(crate) async fn work(&self) {
        self.run(Work::all().until_idle()).await;
    }

    pub(crate) async fn run(&self, work: Work) {
        let run = self.postroom.run_with(work, std::future::pending());
        tokio::time::timeout(Duration::from_secs(20), run).await.expect("the worker becomes idle").unwrap();
    }

    /// Every row of the ledger.
    pub(crate) async fn ledger(&self) -> Vec<LedgerItem> {
        let desk: &dyn LedgerDesk = self.postroom.store();
        desk.list(&LedgerQuery::default()).await.unwrap()
    }

    /// A mail from a customer in the inbox.
    pub(crate) fn arrives(&self, from: &str, subject: &str, more: &str) -> u32 {
        let mail = format!(
            "From: {from}\r\nTo: support@acme.example\r\nSubject: {subject}\r\nMessage-ID: <{subject}@customer.example>\r\n\
             {more}\r\nHello {subject}\r\n"
        );
        self.deliver(self.inbox.id, mail)
    }

    pub(crate) fn deliver(&self, inbox: MailboxId, mail: String) -> u32 {
        self.incoming.deliver(inbox, "INBOX", mail)
    }
}
