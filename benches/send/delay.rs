//! A way to the server that takes its time: what either side says arrives later by the same span, in order, at any rate.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// How much is taken at once, in bytes.
const PIECE: usize = 64 * 1024;

/// Listens on loopback, in a thread of its own until the process ends, and gives the address.
pub(crate) fn start(server: SocketAddr, each_way: Duration) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    listener.set_nonblocking(true).expect("tokio needs it so");
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(serve(listener, server, each_way));
    });
    address
}

#[expect(clippy::disallowed_methods, reason = "the tasks live as long as their connections")]
async fn serve(listener: std::net::TcpListener, server: SocketAddr, each_way: Duration) {
    let listener = TcpListener::from_std(listener).expect("it listens");
    loop {
        let (client, _) = listener.accept().await.expect("a connection");
        let server = TcpStream::connect(server).await.expect("the server is there");
        client.set_nodelay(true).expect("a live connection");
        server.set_nodelay(true).expect("a live connection");
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::spawn(delayed(from_client, to_server, each_way));
        tokio::spawn(delayed(from_server, to_client, each_way));
    }
}

/// Copies until one side has enough.
async fn delayed(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, delay: Duration) {
    let (sender, mut due) = mpsc::unbounded_channel::<(Instant, Bytes)>();
    let read = async move {
        // What came in one piece goes on in one piece: the server would answer to each by itself, and wait between.
        let mut buffer = BytesMut::with_capacity(PIECE);
        while matches!(from.read_buf(&mut buffer).await, Ok(1..)) {
            if sender.send((Instant::now() + delay, buffer.split().freeze())).is_err() {
                break;
            }
            buffer.reserve(PIECE);
        }
    };
    let write = async move {
        while let Some((at, bytes)) = due.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}
