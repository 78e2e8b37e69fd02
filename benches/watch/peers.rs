//! Others that watch the same boxes of the same server: async-imap in IDLE, which keeps nothing, and a task that owns a socket and no
//! more, which is what tokio and rustls cost by themselves.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use async_imap::Client as ImapClient;
use async_imap::extensions::idle::IdleResponse;
use futures_util::TryStreamExt;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use super::server::{PASSWORD, Server, age, login};

/// How many sign in at the same time.
const AT_ONCE: usize = 20;

/// Longer than any run.
const LONG: Duration = Duration::from_secs(60 * 60);

/// A connection, in the clear or not.
trait Socket: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug> Socket for T {}

/// What the tasks of a peer share.
pub(crate) struct Peer {
    address: SocketAddr,
    tls: Option<TlsConnector>,
    turns: Semaphore,
    idle: AtomicUsize,
    ages: Sender<Duration>,
}

impl Peer {
    pub(crate) fn new(server: &Server, tls: bool, ages: Sender<Duration>) -> Arc<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, server.ports[usize::from(tls)]));
        let tls = tls.then(|| connector(&server.authority));
        Arc::new(Self { address, tls, turns: Semaphore::new(AT_ONCE), idle: AtomicUsize::new(0), ages })
    }

    /// How many wait for news.
    pub(crate) fn idle(&self) -> usize {
        self.idle.load(Ordering::SeqCst)
    }

    fn idles(&self) {
        self.idle.fetch_add(1, Ordering::SeqCst);
    }
}

fn connector(authority: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let own = CertificateDer::from_pem_slice(authority.as_bytes()).expect("a certificate");
    roots.add(own).expect("an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// One box of async-imap: what comes is fetched, its age is told, and nothing is kept.
pub(crate) async fn async_imap(peer: Arc<Peer>, number: usize) {
    match &peer.tls {
        // Each in a box of its own: else the smaller one would have the size of the larger.
        Some(tls) => Box::pin(in_idle(&peer, number, Box::pin(encrypted(&peer, tls)))).await,
        None => Box::pin(in_idle(&peer, number, Box::pin(connected(&peer)))).await,
    }
}

async fn connected(peer: &Peer) -> TcpStream {
    let socket = TcpStream::connect(peer.address).await.expect("a connection");
    socket.set_nodelay(true).expect("a socket");
    socket
}

async fn encrypted(peer: &Peer, tls: &TlsConnector) -> tokio_rustls::client::TlsStream<TcpStream> {
    let name = ServerName::from(peer.address.ip());
    tls.connect(name, connected(peer).await).await.expect("TLS")
}

async fn in_idle<S: Socket>(peer: &Peer, number: usize, socket: impl Future<Output = S>) {
    let turn = peer.turns.acquire().await.expect("it is never closed");
    let mut session = Box::pin(async {
        let mut client = ImapClient::new(socket.await);
        client.read_response().await.expect("a readable greeting");
        let signed_in = client.login(login(number), PASSWORD).await.map_err(|(error, _)| error);
        let mut session = signed_in.expect("a sign-in");
        session.examine("INBOX").await.expect("an inbox");
        session
    })
    .await;
    drop(turn);
    let mut first = true;
    loop {
        let mut idle = session.idle();
        idle.init().await.expect("a continuation");
        if std::mem::take(&mut first) {
            peer.idles();
        }
        let heard = idle.wait_with_timeout(LONG).0.await.expect("news");
        session = idle.done().await.expect("an end of IDLE");
        if matches!(heard, IdleResponse::NewData(_)) {
            let raw = Box::pin(async {
                let newest = session.fetch("*", "BODY.PEEK[]").await.expect("an answer");
                let newest: Vec<_> = newest.try_collect().await.expect("a readable answer");
                newest.iter().find_map(|one| one.body().map(<[u8]>::to_vec)).expect("a mail")
            });
            let _ = peer.ages.send(age(&raw.await));
        }
    }
}

/// A task that owns a socket, has read the greeting, and waits.
pub(crate) async fn task(peer: Arc<Peer>) {
    match &peer.tls {
        Some(tls) => Box::pin(silent(&peer, Box::pin(encrypted(&peer, tls)))).await,
        None => Box::pin(silent(&peer, Box::pin(connected(&peer)))).await,
    }
}

async fn silent<S: Socket>(peer: &Peer, socket: impl Future<Output = S>) {
    let turn = peer.turns.acquire().await.expect("it is never closed");
    let mut socket = socket.await;
    let mut greeting = vec![0; 1024];
    assert!(socket.read(&mut greeting).await.expect("a greeting") > 0);
    drop((turn, greeting));
    peer.idles();
    let _ = socket.read(&mut [0; 1]).await;
}
