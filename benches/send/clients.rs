//! The clients: each sends the same mail many times over so many connections, and panics when one mail is not taken.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lettre::transport::smtp::PoolConfig;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use mail_send::SmtpClientBuilder;
use mail_send::smtp::message::Message;
use postroom_core::address::Address;
use postroom_core::endpoint::{Endpoint, Host, Port, Tls};
use postroom_core::id::{ClaimId, MailboxId, Revision};
use postroom_core::time::Timestamp;
use postroom_transport::smtp::SmtpTransport;
use postroom_transport::{Crossing, Job, Lane, OutgoingTransport, Protocol, Receipt, Route};
use tokio::task::JoinSet;

const FROM: &str = "desk@host.example";
const TO: &str = "ana@acme.example";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    Postroom,
    Lettre,
    MailSend,
}

impl Client {
    pub(crate) const ALL: [Self; 3] = [Self::Postroom, Self::Lettre, Self::MailSend];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postroom => "postroom",
            Self::Lettre => "lettre pool",
            Self::MailSend => "mail-send",
        }
    }

    /// Sends so many mails, connecting included.
    pub(crate) async fn send(self, address: SocketAddr, connections: u32, mails: u32, size: usize) {
        let work = Arc::new(Work { left: AtomicU32::new(mails), content: content(size) });
        let mut tasks = JoinSet::new();
        let transport = Arc::new(SmtpTransport::new());
        let pool = pool(address, connections);
        for _ in 0..connections {
            let (work, transport, pool) = (Arc::clone(&work), Arc::clone(&transport), pool.clone());
            tasks.spawn(async move {
                match self {
                    Self::Postroom => by_postroom(&work, &transport, address).await,
                    Self::Lettre => by_lettre(&work, &pool).await,
                    Self::MailSend => by_mail_send(&work, address).await,
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.expect("every mail is taken");
        }
        transport.close().await;
    }
}

struct Work {
    left: AtomicU32,
    content: Bytes,
}

impl Work {
    /// Whether there is one more mail to send.
    fn take(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

fn content(size: usize) -> Bytes {
    let mut content = b"From: desk@host.example\r\nTo: ana@acme.example\r\nSubject: Hello\r\n\
        Date: Thu, 01 Jan 2026 00:00:00 +0000\r\nMessage-ID: <1@host.example>\r\nMIME-Version: 1.0\r\n\
        Content-Type: text/plain; charset=utf-8\r\n\r\n"
        .to_vec();
    let whole = content.len() + size;
    while content.len() < whole {
        content.extend_from_slice(
            b"Your request was received and will be answered in the order of arrival, soon.\r\n",
        );
    }
    content.into()
}

/// One connection's share of the work. Unlike an engine's lane it commits nothing.
struct Share<'a> {
    work: &'a Work,
    from: Address,
    to: Address,
}

#[async_trait]
impl Lane for Share<'_> {
    async fn next(&self) -> Option<Job> {
        let attempt = ClaimId::new(Timestamp::from_millis(0), [0; 10]);
        let job = || {
            let (from, to) = (self.from.clone(), self.to.clone());
            Job::new(attempt, Some(from), vec![to], self.work.content.clone())
        };
        self.work.take().then(job)
    }

    async fn about_to_cross(&self, _: ClaimId) -> Crossing {
        Crossing::Go
    }

    async fn finished(&self, _: ClaimId, receipt: Receipt) {
        for outcome in receipt.outcomes {
            outcome.expect("taken");
        }
    }
}

async fn by_postroom(work: &Work, transport: &SmtpTransport, address: SocketAddr) {
    let host = Host::parse(&address.ip().to_string()).expect("an address");
    let port = Port::new(address.port().into()).expect("a port");
    let (mailbox, revision) = (MailboxId::new(1), Revision::new(1));
    let route = Route::new(mailbox, revision, Protocol::Smtp, Endpoint::new(host, port), Tls::None);
    let parse = |text| Address::parse(text).expect("an address");
    let lane = Share { work, from: parse(FROM), to: parse(TO) };
    transport.carry(&route, &lane).await.expect("the connection holds");
}

type Pool = AsyncSmtpTransport<Tokio1Executor>;

fn pool(address: SocketAddr, connections: u32) -> Pool {
    Pool::builder_dangerous(address.ip().to_string())
        .port(address.port())
        .pool_config(PoolConfig::new().max_size(connections))
        .timeout(Some(Duration::from_secs(60)))
        .build()
}

async fn by_lettre(work: &Work, pool: &Pool) {
    let parse = |text: &str| text.parse().expect("an address");
    let envelope = lettre::address::Envelope::new(Some(parse(FROM)), vec![parse(TO)]).expect("a recipient");
    while work.take() {
        pool.send_raw(&envelope, &work.content).await.expect("taken");
    }
}

async fn by_mail_send(work: &Work, address: SocketAddr) {
    let builder = SmtpClientBuilder::new(address.ip().to_string(), address.port()).expect("TLS is there");
    let builder = builder.implicit_tls(false).helo_host("app.host.example");
    let mut client = builder.connect_plain().await.expect("a connection");
    while work.take() {
        client.send(Message::new(FROM, [TO], &work.content[..])).await.expect("taken");
    }
    client.quit().await.expect("it ends well");
}
