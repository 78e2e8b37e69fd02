//! A proxy before a server, for what only a network does to a connection: it ends in the very reply that counts, its packets vanish while
//! both ends stay open, or nobody listens any more. What the bytes mean is nobody's business here.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What becomes of connections.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Network {
    /// Every byte arrives.
    Whole,
    /// Of the requests that contain these bytes, each n-th arrives and is answered, and the connection ends in place of the answer.
    CutsAnswer(&'static [u8], usize),
    /// The next request that contains these bytes vanishes, and so does all that comes after it on its connection, in both directions: also
    /// that an end has closed. Later connections are whole.
    Swallows(&'static [u8]),
}

struct State {
    network: Mutex<Network>,
    /// How many requests had the bytes.
    seen: AtomicUsize,
    /// How many connections were cut, or swallowed.
    struck: AtomicUsize,
}

/// What becomes of one request.
enum Fate {
    Passes,
    /// It arrives, and its answer doesn't.
    Unanswered,
    Vanishes,
}

impl State {
    fn fate(&self, request: &[u8]) -> Fate {
        let has = |bytes: &[u8]| request.windows(bytes.len()).any(|window| window == bytes);
        let mut network = self.network.lock().unwrap();
        match *network {
            Network::CutsAnswer(bytes, each) if has(bytes) => {
                match (self.seen.fetch_add(1, Ordering::SeqCst) + 1) % each {
                    0 => Fate::Unanswered,
                    _ => Fate::Passes,
                }
            }
            Network::Swallows(bytes) if has(bytes) => {
                *network = Network::Whole;
                Fate::Vanishes
            }
            _ => Fate::Passes,
        }
    }

    async fn carry(&self, mut client: TcpStream, mut server: TcpStream) -> std::io::Result<()> {
        let (mut up, mut down) = ([0; 16 * 1024], [0; 16 * 1024]);
        let mut unanswered = false;
        loop {
            tokio::select! {
                read = client.read(&mut up) => {
                    let request = &up[..read?];
                    match self.fate(request) {
                        _ if request.is_empty() => return Ok(()),
                        Fate::Passes => {}
                        Fate::Unanswered => unanswered = true,
                        Fate::Vanishes => {
                            self.struck.fetch_add(1, Ordering::SeqCst);
                            std::future::pending::<()>().await;
                        }
                    }
                    server.write_all(request).await?;
                }
                read = server.read(&mut down) => {
                    let answer = &down[..read?];
                    if unanswered {
                        self.struck.fetch_add(1, Ordering::SeqCst);
                        return Ok(());
                    }
                    if answer.is_empty() {
                        return Ok(());
                    }
                    client.write_all(answer).await?;
                }
            }
        }
    }
}

/// A proxy on a loopback port of its own.
pub(crate) struct Proxy {
    address: SocketAddr,
    server: SocketAddr,
    state: Arc<State>,
    /// What listens, with every connection; none while nobody does.
    listening: Option<JoinSet<()>>,
}

impl Proxy {
    /// Before this server, with a network that is whole.
    pub(crate) async fn before(server: SocketAddr) -> Self {
        let state = State {
            network: Mutex::new(Network::Whole),
            seen: AtomicUsize::new(0),
            struck: AtomicUsize::new(0),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut proxy = Self { address, server, state: Arc::new(state), listening: None };
        proxy.listen_on(listener);
        proxy
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn becomes(&self, network: Network) {
        *self.state.network.lock().unwrap() = network;
    }

    /// How many connections were cut, or swallowed.
    pub(crate) fn struck(&self) -> usize {
        self.state.struck.load(Ordering::SeqCst)
    }

    /// Ends every connection, and refuses new ones.
    pub(crate) async fn leave(&mut self) {
        if let Some(mut listening) = self.listening.take() {
            listening.shutdown().await;
        }
    }

    /// Takes connections again.
    pub(crate) async fn come_back(&mut self) {
        self.listen_on(TcpListener::bind(self.address).await.unwrap());
    }

    fn listen_on(&mut self, listener: TcpListener) {
        let (state, server) = (Arc::clone(&self.state), self.server);
        self.listening = Some(JoinSet::from_iter([async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let state = Arc::clone(&state);
                connections.spawn(async move {
                    // An end that breaks off is what the proxy is for.
                    if let Ok(server) = TcpStream::connect(server).await {
                        let _ = state.carry(client, server).await;
                    }
                });
            }
        }]));
    }
}
