//! The incoming transports of this crate against the suite of their port: the one in memory, and IMAP and POP3 against the
//! server of the testkit, in each kind of security and poorer in extensions.
#![cfg(all(feature = "conformance", feature = "imap", feature = "pop3"))]
#![expect(clippy::unwrap_used, reason = "what a test can't go on without")]

use postroom_core::credentials::Credentials;
use postroom_core::endpoint::{Authority, Endpoint, Host, Port, Tls};
use postroom_core::id::{MailboxId, Revision};
use postroom_testkit::{MailServer, MailServerBuilder, PartialFetch, Protocol as TestPort};
use postroom_transport::by_protocol::ByProtocol;
use postroom_transport::conformance::{Abilities, IncomingPeer, OnServer, incoming};
use postroom_transport::memory::MemoryIncoming;
use postroom_transport::{Error, ErrorKind, IncomingTransport, Protocol, Route, Stage};

const LOGIN: &str = "desk@acme.example";
const INBOX: &str = "INBOX";

fn route(protocol: Protocol, port: u16, tls: Tls) -> Route {
    let endpoint = Endpoint::new(Host::parse("127.0.0.1").unwrap(), Port::new(port.into()).unwrap());
    Route::new(MailboxId::new(1), Revision::new(1), protocol, endpoint, tls)
}

fn abilities(protocol: Protocol) -> Abilities {
    if protocol == Protocol::Pop3 { Abilities::inbox_only() } else { Abilities::all() }
}

struct InMemory(MemoryIncoming, Protocol);

impl IncomingPeer for InMemory {
    fn transport(&self) -> &dyn IncomingTransport {
        &self.0
    }

    fn route(&self) -> Route {
        route(self.1, 143, Tls::Implicit)
    }

    fn refused_route(&self) -> Route {
        self.0.fail(Error::new(ErrorKind::SignInRefused, Stage::SignIn));
        self.route()
    }

    fn abilities(&self) -> Abilities {
        abilities(self.1)
    }

    fn create_folder(&self, folder: &str) {
        self.0.create_folder(MailboxId::new(1), folder);
    }

    fn deliver(&self, folder: Option<&str>, content: &[u8]) {
        self.0.deliver(MailboxId::new(1), folder.unwrap_or(INBOX), content.to_vec());
    }

    fn take_away(&self, content: &[u8]) {
        let mails = self.0.mails(MailboxId::new(1), INBOX);
        let uid = mails.iter().find(|mail| mail.content == content).unwrap().uid;
        self.0.expunge(MailboxId::new(1), INBOX, uid);
    }

    fn kept(&self, folder: Option<&str>) -> Vec<OnServer> {
        let mails = self.0.mails(MailboxId::new(1), folder.unwrap_or(INBOX));
        mails.into_iter().map(|mail| OnServer::new(mail.content, mail.seen)).collect()
    }
}

struct OnTheWire {
    transport: ByProtocol,
    server: MailServer,
    protocol: Protocol,
    tls: Tls,
}

impl OnTheWire {
    fn with_password(&self, password: &str) -> Route {
        let port = match (self.protocol, self.tls) {
            (Protocol::Pop3, Tls::Implicit) => self.server.pop3s_port(),
            (Protocol::Pop3, _) => self.server.pop3_port(),
            (_, Tls::Implicit) => self.server.imaps_port(),
            _ => self.server.imap_port(),
        };
        let route = route(self.protocol, port, self.tls)
            .with_authority(Some(Authority::parse(self.server.ca_pem()).unwrap()))
            .with_credentials(Credentials::password(LOGIN, password.into()));
        if self.tls == Tls::None { route.with_danger_plaintext() } else { route }
    }
}

impl IncomingPeer for OnTheWire {
    fn transport(&self) -> &dyn IncomingTransport {
        &self.transport
    }

    fn route(&self) -> Route {
        self.with_password("s\u{e9}cret \"x\\")
    }

    fn refused_route(&self) -> Route {
        self.with_password("wrong")
    }

    fn abilities(&self) -> Abilities {
        abilities(self.protocol)
    }

    fn create_folder(&self, folder: &str) {
        self.server.create_folder(LOGIN, folder);
    }

    fn deliver(&self, folder: Option<&str>, content: &[u8]) {
        self.server.deliver_to_folder(LOGIN, folder.unwrap_or(INBOX), content.to_vec());
    }

    fn take_away(&self, content: &[u8]) {
        let mails = self.server.messages(LOGIN, INBOX);
        let uid = mails.iter().find(|mail| mail.bytes == content).unwrap().uid;
        self.server.expunge(LOGIN, INBOX, uid);
    }

    fn kept(&self, folder: Option<&str>) -> Vec<OnServer> {
        let mails = self.server.messages(LOGIN, folder.unwrap_or(INBOX)).into_iter();
        mails.map(|mail| OnServer::new(mail.bytes, mail.flags.contains("\\Seen"))).collect()
    }
}

async fn check(protocol: Protocol, tls: Tls, builder: impl Fn() -> MailServerBuilder) {
    incoming(async || {
        let server = builder().account(LOGIN, "s\u{e9}cret \"x\\").start().await.unwrap();
        OnTheWire { transport: ByProtocol::new(), server, protocol, tls }
    })
    .await;
}

#[tokio::test]
async fn the_transport_in_memory_passes_the_suite() {
    for protocol in [Protocol::Imap, Protocol::Pop3] {
        incoming(async || InMemory(MemoryIncoming::new(), protocol)).await;
    }
}

#[tokio::test]
async fn imap_with_starttls_passes_the_suite() {
    check(Protocol::Imap, Tls::StartTls, MailServer::builder).await;
}

#[tokio::test]
async fn imap_with_tls_from_the_first_byte_passes_the_suite() {
    check(Protocol::Imap, Tls::Implicit, MailServer::builder).await;
}

#[tokio::test]
async fn imap_in_plain_text_passes_the_suite() {
    check(Protocol::Imap, Tls::None, || MailServer::builder().danger_plaintext_auth()).await;
}

#[tokio::test]
async fn imap_without_extensions_passes_the_suite() {
    check(Protocol::Imap, Tls::Implicit, || {
        let without = |builder: MailServerBuilder, name| builder.without(TestPort::Imap, name);
        ["LITERAL+", "SASL-IR", "ID", "NAMESPACE", "IDLE", "UIDPLUS", "MOVE", "UNSELECT"]
            .into_iter()
            .fold(MailServer::builder(), without)
    })
    .await;
}

#[tokio::test]
async fn imap_with_nothing_but_the_login_command_passes_the_suite() {
    check(Protocol::Imap, Tls::Implicit, || {
        let imap = TestPort::Imap;
        MailServer::builder().without(imap, "AUTH=PLAIN").without(imap, "AUTH=LOGIN")
    })
    .await;
}

#[tokio::test]
async fn imap_with_sasl_login_passes_the_suite() {
    check(Protocol::Imap, Tls::Implicit, || {
        let imap = TestPort::Imap;
        MailServer::builder().without(imap, "AUTH=PLAIN").without(imap, "LOGIN")
    })
    .await;
}

#[tokio::test]
async fn imap_without_pieces_passes_the_suite() {
    for parts in [PartialFetch::Whole, PartialFetch::WholeAsPart] {
        check(Protocol::Imap, Tls::Implicit, || MailServer::builder().partial_fetch(parts)).await;
    }
}

#[tokio::test]
async fn pop3_with_stls_passes_the_suite() {
    check(Protocol::Pop3, Tls::StartTls, MailServer::builder).await;
}

#[tokio::test]
async fn pop3_with_tls_from_the_first_byte_passes_the_suite() {
    check(Protocol::Pop3, Tls::Implicit, MailServer::builder).await;
}

#[tokio::test]
async fn pop3_without_sasl_passes_the_suite() {
    check(Protocol::Pop3, Tls::Implicit, || MailServer::builder().without(TestPort::Pop3, "SASL")).await;
}

#[tokio::test]
async fn pop3_without_unique_ids_passes_the_suite() {
    check(Protocol::Pop3, Tls::None, || {
        MailServer::builder().without(TestPort::Pop3, "UIDL").danger_plaintext_auth()
    })
    .await;
}
