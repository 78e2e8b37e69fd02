//! A transport that tells a test at which moment of a mail it is, and waits for what the test does then: the process ends, the worker is
//! told to stop. Two wrappers over the ports and a relay before the server; the library knows nothing of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use postroom::core::address::Address;
use postroom::core::endpoint::{Host, Port};
use postroom::core::id::{ClaimId, MailboxId};
use postroom::engine::{Event, Observer};
use postroom::transport::smtp::SmtpTransport;
use postroom::transport::{Crossing, Job, Lane, OutgoingTransport, ProbeReport, Receipt, Result, Route};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A moment in the life of one mail, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// The connection stands; no mail was asked for.
    Connected,
    /// The mail was claimed.
    Claimed,
    /// MAIL has left.
    Mail,
    /// RCPT has left.
    Rcpt,
    /// 354 was read, the mark is not asked for.
    Invited,
    /// The mark is committed.
    Marked,
    /// All has left but the dot.
    BeforeDot,
    /// The dot has left.
    DotSent,
    /// The reply to the dot was read, nothing of it is committed.
    Answered,
    /// The result is committed.
    Settled,
}

impl Moment {
    pub(crate) const ALL: [Self; 10] = [
        Self::Connected,
        Self::Claimed,
        Self::Mail,
        Self::Rcpt,
        Self::Invited,
        Self::Marked,
        Self::BeforeDot,
        Self::DotSent,
        Self::Answered,
        Self::Settled,
    ];

    /// The moment or the twin of this name.
    pub(crate) fn named<T: Copy + std::fmt::Debug>(all: &[T], name: &str) -> T {
        *all.iter().find(|one| format!("{one:?}") == name).unwrap()
    }
}

/// What the test does at each moment.
pub(crate) type Act = Arc<dyn Fn(Moment) -> BoxFuture<'static, ()> + Send + Sync>;

/// SMTP by a relay on loopback, which leads to the server that the route names.
pub(crate) struct Watched {
    inner: SmtpTransport,
    act: Act,
    relays: Mutex<JoinSet<()>>,
}

impl Watched {
    pub(crate) fn new(inner: SmtpTransport, act: Act) -> Self {
        Self { inner, act, relays: Mutex::default() }
    }

    /// Begins a relay to the server of a route, for one connection after the other.
    async fn relayed(&self, route: &Route) -> Route {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut relayed = route.clone();
        relayed.endpoint.port = Port::new(listener.local_addr().unwrap().port().into()).unwrap();
        relayed.endpoint.host = Host::parse("127.0.0.1").unwrap();
        let (act, port) = (Arc::clone(&self.act), route.endpoint.port.number());
        self.relays.lock().unwrap().spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                relay(client, TcpStream::connect(("127.0.0.1", port)).await.unwrap(), &act).await;
            }
        });
        relayed
    }
}

/// Hands on what both say until one of them ends. What the client says goes line by line.
async fn relay(client: TcpStream, server: TcpStream, act: &Act) {
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (act, mut lines) = (Arc::clone(act), BufReader::new(from_client));
    let said = async move {
        let (mut line, mut is_content) = (Vec::new(), false);
        while lines.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
            let ends = is_content && line == b".\r\n";
            if ends {
                act(Moment::BeforeDot).await;
            }
            if to_server.write_all(&line).await.is_err() {
                return;
            }
            match (&line[..], is_content) {
                (b".\r\n", true) => act(Moment::DotSent).await,
                (b"DATA\r\n", false) => {}
                (_, true) => {}
                (line, false) if line.starts_with(b"MAIL ") => act(Moment::Mail).await,
                (line, false) if line.starts_with(b"RCPT ") => act(Moment::Rcpt).await,
                _ => {}
            }
            is_content = line == b"DATA\r\n" || is_content && !ends;
            line.clear();
        }
        let _ = to_server.shutdown().await;
    };
    let answered = async move {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::join!(said, answered);
}

struct WatchedLane<'a> {
    inner: &'a dyn Lane,
    act: &'a Act,
    connected: AtomicBool,
}

#[async_trait]
impl Lane for WatchedLane<'_> {
    async fn next(&self) -> Option<Job> {
        if !self.connected.swap(true, Ordering::SeqCst) {
            (self.act)(Moment::Connected).await;
        }
        let job = self.inner.next().await?;
        (self.act)(Moment::Claimed).await;
        Some(job)
    }

    async fn about_to_cross(&self, attempt: ClaimId) -> Crossing {
        (self.act)(Moment::Invited).await;
        let crossing = self.inner.about_to_cross(attempt).await;
        if crossing == Crossing::Go {
            (self.act)(Moment::Marked).await;
        }
        crossing
    }

    async fn finished(&self, attempt: ClaimId, receipt: Receipt) {
        (self.act)(Moment::Answered).await;
        self.inner.finished(attempt, receipt).await;
    }
}

/// Is told what is committed.
pub(crate) struct Told(pub(crate) Act);

impl Observer for Told {
    fn observe(&self, event: &Event) {
        if matches!(event, Event::Sent { .. }) {
            // What a test does at a moment, it does at once.
            let _ = (self.0)(Moment::Settled).now_or_never();
        }
    }
}

#[async_trait]
impl OutgoingTransport for Watched {
    async fn carry<'a>(&self, route: &Route, lane: &'a (dyn Lane + 'a)) -> Result<()> {
        let lane = WatchedLane { inner: lane, act: &self.act, connected: AtomicBool::new(false) };
        self.inner.carry(&self.relayed(route).await, &lane).await
    }

    async fn probe(&self, route: &Route, senders: &[Address]) -> ProbeReport {
        self.inner.probe(route, senders).await
    }

    async fn close_parked(&self, mailbox: MailboxId) {
        self.inner.close_parked(mailbox).await;
    }

    async fn close_idle(&self) {
        self.inner.close_idle().await;
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
