//! The one guarded stream that every session reads and writes through, plain or inside TLS. It bounds lines and time, and
//! is broken for good after any error, or when a future of it was dropped half-way. It knows no protocol.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use postroom_core::endpoint::Host;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;

use crate::error::{Error, ErrorKind, Result, Stage};
use crate::wire::tls;

/// How much is asked of the socket at once: little of a peer that says little, which keeps the memory of a process with
/// thousands of connections in one piece, and twice as much after each read that brought all that there was room for.
const LEAST_ROOM: usize = 1024;
const MOST_ROOM: usize = 64 * 1024;

/// How much room there is for what a silent peer may say: the first bytes of it, while thousands of connections wait for it.
#[cfg(feature = "imap")]
const FIRST_WORD: usize = 64;

enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// Taken by a handshake that did not end.
    Gone,
}

/// A connection to a server.
///
/// Every operation counts against the deadline that [`Stream::enter`] set, however many reads it takes: a peer that drips
/// one byte a second gains no time.
///
/// # Cancel safety
/// A dropped future leaves the stream broken: every later operation fails with [`ErrorKind::Disconnected`].
pub(crate) struct Stream {
    socket: Socket,
    buffer: BytesMut,
    stage: Stage,
    deadline: Instant,
    unwritten: usize,
    /// How much the next read asks for.
    room: usize,
    broken: bool,
}

impl Stream {
    /// A stream over a connection in plain text.
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self {
            socket: Socket::Plain(tcp),
            buffer: BytesMut::new(),
            stage: Stage::Tcp,
            deadline: Instant::now(),
            unwritten: 0,
            room: LEAST_ROOM,
            broken: false,
        }
    }

    /// From now on errors are of this stage, and everything must be done within `time`. Called again for each command,
    /// and for each piece of what may rightly take long.
    pub(crate) fn enter(&mut self, stage: Stage, time: Duration) {
        self.stage = stage;
        self.deadline = Instant::now() + time;
    }

    /// The stage that was entered last.
    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// Whether bytes travel inside TLS.
    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self.socket, Socket::Tls(_))
    }

    /// Whether nothing can be read or written any more.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// How many bytes of the last write had surely not left when it failed.
    pub(crate) fn unwritten(&self) -> usize {
        self.unwritten
    }

    /// Breaks the stream, and gives the error of this kind at the current stage.
    pub(crate) fn fail(&mut self, kind: ErrorKind) -> Error {
        self.broken = true;
        Error::new(kind, self.stage)
    }

    /// The next line without its line end; a bare LF ends one too.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] when it is longer than `limit` bytes.
    pub(crate) async fn read_line(&mut self, limit: usize) -> Result<Bytes> {
        self.usable()?;
        let mut scanned = 0;
        loop {
            let end = self.buffer[scanned..].iter().position(|&byte| byte == b'\n').map(|at| scanned + at);
            scanned = self.buffer.len();
            if end.unwrap_or(scanned) > limit {
                return Err(self.fail(ErrorKind::Protocol).with_reply("a line exceeds the limit"));
            }
            if let Some(end) = end {
                let mut line = self.buffer.split_to(end);
                self.buffer.advance(1);
                if line.last() == Some(&b'\r') {
                    line.truncate(end - 1);
                }
                return Ok(line.freeze());
            }
            self.fill().await?;
        }
    }

    /// Shows `take` at least one byte, for contents that are taken piece by piece; what it says it took is gone.
    #[cfg(any(test, feature = "pop3"))]
    pub(crate) async fn read_by(&mut self, take: impl FnOnce(&[u8]) -> usize) -> Result<()> {
        self.usable()?;
        if self.buffer.is_empty() {
            self.fill().await?;
        }
        let taken = take(&self.buffer);
        self.buffer.advance(taken.min(self.buffer.len()));
        Ok(())
    }

    /// Whether something has arrived that was not read.
    #[cfg(feature = "pop3")]
    pub(crate) fn has_more(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Exactly `length` bytes. Memory follows what arrives, not what was announced; the caller bounds `length`.
    pub(crate) async fn read_exact(&mut self, length: usize) -> Result<Bytes> {
        self.usable()?;
        while self.buffer.len() < length {
            self.fill().await?;
        }
        Ok(self.buffer.split_to(length).freeze())
    }

    /// Whether anything arrives before the deadline. Unlike with every other read, its passing breaks nothing.
    #[cfg(feature = "imap")]
    pub(crate) async fn arrives(&mut self) -> Result<bool> {
        self.usable()?;
        if !self.buffer.is_empty() {
            return Ok(true);
        }
        match self.fill_by(FIRST_WORD).await {
            // Reading from a socket into a buffer loses nothing when it is given up.
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                self.broken = false;
                Ok(false)
            }
            filled => filled.map(|()| true),
        }
    }

    /// Writes and flushes everything.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.usable()?;
        self.broken = true;
        self.unwritten = bytes.len();
        let (socket, unwritten) = (&mut self.socket, &mut self.unwritten);
        let written = timeout_at(self.deadline, async {
            while *unwritten > 0 {
                *unwritten -= match socket.write(&bytes[bytes.len() - *unwritten..]).await? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    some => some,
                };
            }
            socket.flush().await
        });
        match written.await {
            Ok(Ok(())) => {
                self.broken = false;
                Ok(())
            }
            Ok(Err(error)) => Err(self.fail(ErrorKind::Disconnected).with_source(error)),
            Err(_) => Err(self.fail(ErrorKind::TimedOut)),
        }
    }

    /// Begins TLS. All that is known from before must be forgotten by the caller (RFC 3207 section 4.2).
    ///
    /// # Errors
    /// [`ErrorKind::Injected`] when something was received that was not asked for; those of the handshake.
    pub(crate) async fn start_tls(&mut self, config: Arc<ClientConfig>, host: &Host) -> Result<()> {
        self.usable()?;
        self.broken = true;
        // Whatever came in the clear behind the server's consent would later pass for an answer inside TLS (CVE-2011-0411).
        if !self.buffer.is_empty() {
            return Err(self.fail(ErrorKind::Injected));
        }
        let Socket::Plain(tcp) = std::mem::replace(&mut self.socket, Socket::Gone) else {
            return Err(self.fail(ErrorKind::Protocol));
        };
        self.buffer = BytesMut::new();
        let tls = match timeout_at(self.deadline, tls::handshake(config, host, tcp)).await {
            Ok(tls) => tls?,
            Err(_) => return Err(self.fail(ErrorKind::TimedOut)),
        };
        self.socket = Socket::Tls(Box::new(tls));
        self.broken = false;
        Ok(())
    }

    /// What the handshake agreed on; none in plain text.
    pub(crate) fn tls_summary(&self) -> Option<String> {
        match &self.socket {
            Socket::Tls(tls) => Some(tls::summary(tls)),
            Socket::Plain(_) | Socket::Gone => None,
        }
    }

    /// Whether the peer has neither closed nor said anything unasked. What it said can be read; when it closed, the stream
    /// is broken. It does not wait.
    pub(crate) fn is_quiet(&mut self) -> bool {
        if self.broken || !self.buffer.is_empty() {
            return false;
        }
        // One poll. It also takes in what TLS says for itself, such as session tickets. A read that is dropped while it
        // waits has taken nothing.
        self.buffer.reserve(self.room);
        match self.socket.read_buf(&mut self.buffer).now_or_never() {
            None => true,
            Some(read) => {
                self.broken = !matches!(read, Ok(1..));
                false
            }
        }
    }

    /// This end's address.
    pub(crate) fn local_ip(&self) -> Option<IpAddr> {
        let tcp = match &self.socket {
            Socket::Plain(tcp) => tcp,
            Socket::Tls(tls) => tls.get_ref().0,
            Socket::Gone => return None,
        };
        tcp.local_addr().ok().map(|address| address.ip())
    }

    /// Gives the buffer's memory back, for a connection that will be idle.
    pub(crate) fn free_buffer(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// From now on the peer will say little, such as nothing for half an hour.
    #[cfg(feature = "imap")]
    pub(crate) fn expect_little(&mut self) {
        self.room = LEAST_ROOM;
    }

    /// Ends the connection politely: close_notify and FIN. Nothing can be done with the stream afterwards.
    pub(crate) async fn shutdown(&mut self) {
        self.broken = true;
        // The peer may be gone already, which is as good.
        let _ = timeout_at(self.deadline, self.socket.shutdown()).await;
    }

    fn usable(&mut self) -> Result<()> {
        if self.broken { Err(self.fail(ErrorKind::Disconnected)) } else { Ok(()) }
    }

    async fn fill(&mut self) -> Result<()> {
        self.fill_by(self.room).await
    }

    /// Reads once, with room for so many bytes at least.
    async fn fill_by(&mut self, room: usize) -> Result<()> {
        // A future that is dropped in the await below leaves it so.
        self.broken = true;
        self.buffer.reserve(room);
        match timeout_at(self.deadline, self.socket.read_buf(&mut self.buffer)).await {
            Ok(Ok(0)) => Err(self.fail(ErrorKind::Disconnected)),
            Ok(Ok(length)) => {
                self.broken = false;
                if length >= self.room {
                    self.room = MOST_ROOM.min(self.room * 2);
                }
                Ok(())
            }
            Ok(Err(error)) => Err(self.fail(ErrorKind::Disconnected).with_source(error)),
            Err(_) => Err(self.fail(ErrorKind::TimedOut)),
        }
    }
}

/// The buffer may hold mail, so it is not shown.
impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("encrypted", &self.is_encrypted())
            .field("stage", &self.stage)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

impl Socket {
    async fn read_buf(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read_buf(into).await,
            Self::Tls(tls) => tls.read_buf(into).await,
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes).await,
            Self::Tls(tls) => tls.write(bytes).await,
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush().await,
            Self::Tls(tls) => tls.flush().await,
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.shutdown().await,
            Self::Tls(tls) => tls.shutdown().await,
            Self::Gone => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    const LONG: Duration = Duration::from_secs(20);

    async fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let mut stream = Stream::new(near.expect("a connection"));
        stream.enter(Stage::Greeting, LONG);
        (stream, far.expect("a connection").0)
    }

    #[tokio::test]
    async fn lines_literals_and_pieces_are_read_one_behind_the_other() {
        let (mut stream, mut far) = pair().await;
        far.write_all(b"a line\r\nbare\n\r\nliteralrest").await.expect("written");
        assert_eq!(stream.read_line(20).await.expect("a line"), "a line");
        assert_eq!(stream.read_line(20).await.expect("a line"), "bare");
        assert_eq!(stream.read_line(20).await.expect("a line"), "");
        assert_eq!(stream.read_exact(7).await.expect("a literal"), "literal");
        let mut pieces = Vec::new();
        for most in [2, 20] {
            let take = |bytes: &[u8]| {
                let length = most.min(bytes.len());
                pieces.push(bytes[..length].to_vec());
                length
            };
            stream.read_by(take).await.expect("a piece");
        }
        assert_eq!(pieces, [b"re", b"st"]);
        assert!(stream.is_quiet());
    }

    #[tokio::test]
    async fn a_long_line_breaks_the_stream_and_is_not_collected() {
        let (mut stream, mut far) = pair().await;
        far.write_all(&[b'x'; 5000]).await.expect("written");
        let error = stream.read_line(100).await.expect_err("too long");
        assert_eq!((error.kind(), error.stage()), (ErrorKind::Protocol, Stage::Greeting));
        assert!(stream.buffer.len() <= 100 + LEAST_ROOM);
        let error = stream.write(b"more").await.expect_err("broken");
        assert_eq!(error.kind(), ErrorKind::Disconnected);
    }

    /// It would miss a future that is dropped between two operations: there it holds nothing half-done.
    #[tokio::test]
    async fn a_dropped_read_breaks_the_stream() {
        let (mut stream, mut far) = pair().await;
        far.write_all(b"half a li").await.expect("written");
        assert!(timeout(Duration::from_millis(50), stream.read_line(100)).await.is_err());
        far.write_all(b"ne\r\n").await.expect("written");
        assert!(stream.is_broken());
        assert_eq!(stream.read_line(100).await.expect_err("broken").kind(), ErrorKind::Disconnected);
    }

    #[tokio::test]
    async fn a_dropped_write_breaks_the_stream_and_tells_what_had_not_left() {
        let (mut stream, _far) = pair().await;
        let large = vec![b'x'; 32 * 1024 * 1024];
        assert!(timeout(Duration::from_millis(50), stream.write(&large)).await.is_err());
        assert!(stream.is_broken() && stream.unwritten() > 0);
    }

    #[tokio::test]
    async fn an_end_of_the_stream_is_an_error_and_not_quiet() {
        let (mut stream, far) = pair().await;
        drop(far);
        let error = stream.read_line(100).await.expect_err("ended");
        assert_eq!(error.kind(), ErrorKind::Disconnected);
        assert!(stream.is_broken() && !stream.is_quiet());
    }

    #[tokio::test]
    async fn what_was_said_unasked_can_still_be_read() {
        let (mut stream, mut far) = pair().await;
        far.write_all(b"421 bye\r\n").await.expect("written");
        while stream.is_quiet() {
            tokio::task::yield_now().await;
        }
        assert_eq!(stream.read_line(100).await.expect("a line"), "421 bye");
    }
}
