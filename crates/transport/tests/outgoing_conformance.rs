//! The outgoing transports of this crate against the suite of their port: the one in memory, and SMTP against the server of
//! the testkit in each kind of security.
#![cfg(all(feature = "conformance", feature = "smtp"))]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use postroom_core::address::Address;
use postroom_core::credentials::Credentials;
use postroom_core::endpoint::{Authority, Endpoint, Host, Port, Tls};
use postroom_core::id::{MailboxId, Revision};
use postroom_testkit::{MailServer, MailServerBuilder, Relay};
use postroom_transport::conformance::{OutgoingPeer, Taken, outgoing};
use postroom_transport::memory::MemoryOutgoing;
use postroom_transport::smtp::SmtpTransport;
use postroom_transport::{Error, ErrorKind, OutgoingTransport, Protocol, Route, Stage};

fn route(port: u16, tls: Tls) -> Route {
    let endpoint = Endpoint::new(Host::parse("127.0.0.1").unwrap(), Port::new(port.into()).unwrap());
    Route::new(MailboxId::new(1), Revision::new(1), Protocol::Smtp, endpoint, tls)
}

struct InMemory(MemoryOutgoing);

impl OutgoingPeer for InMemory {
    fn transport(&self) -> &dyn OutgoingTransport {
        &self.0
    }

    fn route(&self) -> Route {
        route(25, Tls::None)
    }

    fn dead_route(&self) -> Route {
        self.0.fail(Error::new(ErrorKind::Unreachable, Stage::Tcp));
        self.route()
    }

    fn refuse(&self, recipient: &Address) {
        self.0.refuse(recipient.clone(), Error::new(ErrorKind::Refused, Stage::RcptTo));
    }

    fn taken(&self) -> Vec<Taken> {
        let taken = |one: postroom_transport::memory::Carried| {
            let from = one.mail_from.map(|from| from.to_string()).unwrap_or_default();
            Taken::new(from, one.recipients.iter().map(ToString::to_string).collect(), one.content)
        };
        self.0.carried().into_iter().map(taken).collect()
    }

    fn connections(&self) -> usize {
        self.0.connections()
    }
}

struct OnTheWire {
    transport: SmtpTransport,
    server: MailServer,
    tls: Tls,
}

impl OutgoingPeer for OnTheWire {
    fn transport(&self) -> &dyn OutgoingTransport {
        &self.transport
    }

    fn route(&self) -> Route {
        let port = match self.tls {
            Tls::Implicit => self.server.smtps_port(),
            Tls::StartTls | Tls::None => self.server.smtp_port(),
        };
        let route = route(port, self.tls);
        if self.tls == Tls::None {
            return route;
        }
        route
            .with_authority(Some(Authority::parse(self.server.ca_pem()).unwrap()))
            .with_credentials(Credentials::password("desk@host.example", "secret".into()))
    }

    fn dead_route(&self) -> Route {
        // Bound and closed again: nobody listens there.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        route(listener.local_addr().unwrap().port(), self.tls)
    }

    fn refuse(&self, recipient: &Address) {
        self.server.refuse_recipient(recipient.as_str(), 550, "5.1.1 no such user");
    }

    fn taken(&self) -> Vec<Taken> {
        self.server
            .accepted()
            .into_iter()
            .map(|one| Taken::new(one.mail_from, one.recipients, one.bytes))
            .collect()
    }

    fn connections(&self) -> usize {
        self.server.sessions().len()
    }
}

async fn on_the_wire(tls: Tls, builder: MailServerBuilder) -> OnTheWire {
    let builder = builder.account("desk@host.example", "secret").relay(Relay::Anyone);
    let server = builder.start().await.unwrap();
    OnTheWire { transport: SmtpTransport::new(), server, tls }
}

#[tokio::test]
async fn the_transport_in_memory_passes_the_suite() {
    outgoing(async || InMemory(MemoryOutgoing::new())).await;
}

#[tokio::test]
async fn smtp_in_plain_text_passes_the_suite() {
    outgoing(async || on_the_wire(Tls::None, MailServer::builder()).await).await;
}

#[tokio::test]
async fn smtp_with_starttls_and_sign_in_passes_the_suite() {
    outgoing(async || on_the_wire(Tls::StartTls, MailServer::builder().require_sign_in()).await).await;
}

#[tokio::test]
async fn smtp_with_tls_from_the_first_byte_passes_the_suite() {
    outgoing(async || on_the_wire(Tls::Implicit, MailServer::builder().require_sign_in()).await).await;
}

#[tokio::test]
async fn smtp_without_pipelining_passes_the_suite() {
    let poorer = || {
        let smtp = postroom_testkit::Protocol::Smtp;
        MailServer::builder().without(smtp, "PIPELINING").without(smtp, "ENHANCEDSTATUSCODES")
    };
    outgoing(async || on_the_wire(Tls::None, poorer()).await).await;
}
