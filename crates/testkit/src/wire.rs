//! One connection as bytes: strict lines, literals, the dot of RFC 5321, and the switch to TLS. No protocol's meaning.

use bytes::{Buf, BytesMut};
use std::{io, mem};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// More than any client needs for a command line without literals.
pub(crate) const LINE_LIMIT: usize = 64 * 1024;

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Gone,
}

/// What came before the final dot.
pub(crate) enum Content {
    Whole(Vec<u8>),
    TooLarge,
}

/// What ends a line that a client sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LineEnd {
    #[default]
    Crlf,
    /// Also a bare LF, as old servers do.
    BareLf,
}

pub(crate) struct Wire {
    stream: Stream,
    input: BytesMut,
    line_end: LineEnd,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream: Stream::Plain(stream), input: BytesMut::new(), line_end: LineEnd::Crlf }
    }

    pub(crate) fn end_lines_at(&mut self, line_end: LineEnd) {
        self.line_end = line_end;
    }

    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Begins TLS as the server.
    pub(crate) async fn upgrade(&mut self, acceptor: &TlsAcceptor) -> io::Result<()> {
        // RFC 3207 section 4.2: what the client sent before the handshake is not to be trusted.
        self.input.clear();
        let Stream::Plain(stream) = mem::replace(&mut self.stream, Stream::Gone) else {
            return Err(io::Error::other("TLS has begun already"));
        };
        self.stream = Stream::Tls(Box::new(acceptor.accept(stream).await?));
        Ok(())
    }

    /// Reads more; the end of the stream is an error. Cancel safe.
    async fn fill(&mut self) -> io::Result<()> {
        self.input.reserve(4096);
        let read = match &mut self.stream {
            Stream::Plain(stream) => stream.read_buf(&mut self.input).await?,
            Stream::Tls(stream) => stream.read_buf(&mut self.input).await?,
            Stream::Gone => 0,
        };
        if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// The bytes before the next line end, whatever they are. `InvalidData` when there are more than `limit`. Cancel safe.
    pub(crate) async fn read_to_line_end(&mut self, limit: usize) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            let ends = |at: usize| at > 0 && self.input[at - 1] == b'\r' || self.line_end == LineEnd::BareLf;
            let mut line_feeds = (searched..self.input.len()).filter(|&at| self.input[at] == b'\n');
            if let Some(at) = line_feeds.find(|&at| ends(at)) {
                let mut line = self.input.split_to(at).to_vec();
                self.input.advance(1);
                if line.ends_with(b"\r") {
                    line.pop();
                }
                return Ok(line);
            }
            searched = self.input.len();
            if searched > limit {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"));
            }
            self.fill().await?;
        }
    }

    /// A command line without its CRLF. `InvalidData` for a bare CR, a bare LF or a NUL inside it. Cancel safe.
    pub(crate) async fn read_line(&mut self) -> io::Result<Vec<u8>> {
        let line = self.read_to_line_end(LINE_LIMIT).await?;
        if line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the line holds a bare CR, a bare LF or a NUL",
            ));
        }
        Ok(line)
    }

    /// Exactly `length` bytes.
    pub(crate) async fn read_bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.input.len() < length {
            self.fill().await?;
        }
        Ok(self.input.split_to(length).to_vec())
    }

    /// The content up to the line that is a dot, with stuffed dots removed (RFC 5321 section 4.5.2).
    ///
    /// Unless the test has asked for danger, only CRLF ends a line: a dot between bare newlines is content, so that a smuggled mail is never taken as one.
    pub(crate) async fn read_content(&mut self, limit: usize) -> io::Result<Content> {
        let mut content = Vec::new();
        let mut large = false;
        loop {
            // Twice the limit is room for one endless line to be swallowed and refused rather than cut off.
            let line = self.read_to_line_end(limit.saturating_mul(2).max(LINE_LIMIT)).await?;
            if line == b"." {
                return Ok(if large { Content::TooLarge } else { Content::Whole(content) });
            }
            let text = line.strip_prefix(b".").unwrap_or(&line);
            large |= content.len() + text.len() + 2 > limit;
            if !large {
                content.extend_from_slice(text);
                content.extend_from_slice(b"\r\n");
            }
        }
    }

    /// The one place where bytes leave.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes).await,
            Stream::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
            Stream::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Says that nothing more will be sent, with TLS's own farewell where TLS is on.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.shutdown().await,
            Stream::Tls(stream) => stream.shutdown().await,
            Stream::Gone => Ok(()),
        }
    }

    /// What was received and not read yet.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.input
    }

    /// Swallows what the client still sends, until it ends the stream.
    pub(crate) async fn drain(&mut self) {
        loop {
            self.input.clear();
            if self.fill().await.is_err() {
                return;
            }
        }
    }
}
