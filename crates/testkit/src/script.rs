//! A scripted peer: plays one side of a written dialogue to the first client that connects, and says whether the client
//! kept to it. For what no decent server does; for what decent servers do there is [`MailServer`](crate::MailServer).
//!
//! # Dialogue files
//! Plain text, one step a line. `S` is the scripted server, `C` the client under test.
//!
//! | line | meaning |
//! |---|---|
//! | `S: text` | send the text and CRLF |
//! | `S<< bytes` | send exactly these bytes, no CRLF added; escapes `\r` `\n` `\t` `\0` `\\` `\xHH` |
//! | `S-REPEAT n bytes` | as `S<<`, `n` times over; a client that leaves meanwhile has played the dialogue to its end |
//! | `C: text` | the client's next line is exactly this text and CRLF |
//! | `C~ text` | the client's next line begins with this text |
//! | `C-DATA` | swallow lines up to and with the one that is a dot, and record them as they were sent |
//! | `C-BYTES n` | swallow exactly `n` bytes, such as a literal, and record them |
//! | `TLS` | the TLS handshake, now, with the throw-away certificate for `localhost` and `127.0.0.1` |
//! | `CLOSE` | close the connection properly; only as the last step |
//! | `CUT` | drop the connection, inside TLS without its farewell; only as the last step |
//! | `STALL` | keep the connection open and silent; only as the last step |
//! | `# text` | a comment; empty lines are passed over too |
//!
//! A dialogue without `CLOSE`, `CUT` or `STALL` ends when the client closes the connection: a further word is a difference.
//! `<tag>` at the start of a client's line stands for whatever word the client puts there, and `<tag>` in a server's line
//! for the last such word, because IMAP leaves tags to the client. `<tag-1>` is the one before it, and so on.
//!
//! TLS before anything else is TLS from the first byte. Bytes that the client has sent before a `TLS` step and that no step
//! has read are dropped, as a server must (RFC 3207 section 4.2).

mod dialogue;
mod play;

pub use play::{Difference, Played};

use crate::tls::{Authority, Certificate};
use dialogue::Dialogue;
use play::Record;
use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::timeout};

/// A server that plays one dialogue to one client; the format is in the documentation of [the module](self).
///
/// ```
/// use postroom_testkit::script::ScriptedServer;
/// use std::time::Duration;
/// use tokio::{io::{AsyncReadExt, AsyncWriteExt}, net::TcpStream};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let server = ScriptedServer::start("S: +OK ready\nC: QUIT\nS: +OK bye\nCLOSE\n").await?;
/// let mut client = TcpStream::connect(server.address()).await?;
/// client.write_all(b"QUIT\r\n").await?;
/// let mut said = String::new();
/// client.read_to_string(&mut said).await?;
/// assert_eq!(said, "+OK ready\r\n+OK bye\r\n");
/// server.expect_played(Duration::from_secs(10)).await;
/// # Ok(())
/// # }
/// ```
pub struct ScriptedServer {
    address: SocketAddr,
    authority: Authority,
    record: watch::Receiver<Record>,
    task: JoinSet<()>,
}

impl ScriptedServer {
    /// Listens on a port of `127.0.0.1` for the one client.
    ///
    /// # Errors
    /// `InvalidInput` with the line's number when the dialogue can't be read; otherwise when no port can be bound.
    pub async fn start(script: &str) -> io::Result<Self> {
        let dialogue = Dialogue::parse(script)?;
        let authority = Authority::new();
        let acceptor = authority.acceptor(Certificate::Trusted)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (sender, record) = watch::channel(Record::default());
        let mut task = JoinSet::new();
        task.spawn(play::perform(listener, dialogue, acceptor, sender));
        Ok(Self { address, authority, record, task })
    }

    /// Where the client has to connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port of [`address`](Self::address).
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The certificate of the authority that the `TLS` step needs the client to trust, in PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.authority.pem()
    }

    /// Waits until the dialogue was played to its end or the client has left it, then ends the connection.
    ///
    /// # Errors
    /// The first difference between the dialogue and the client, which may be that time was up.
    pub async fn finish(mut self, within: Duration) -> Result<Played, Difference> {
        // An error is the end of the task without a result, which the record then tells as unfinished.
        let _ = timeout(within, self.record.wait_for(|record| record.outcome.is_some())).await;
        self.task.shutdown().await;
        self.record.borrow().result(within)
    }

    /// As [`finish`](Self::finish).
    ///
    /// # Panics
    /// When the dialogue was not played as it is written: with the line, what was expected, what came, and all that the
    /// client had said.
    pub async fn expect_played(self, within: Duration) -> Played {
        match self.finish(within).await {
            Ok(played) => played,
            Err(difference) => panic!("{difference}"),
        }
    }
}

impl fmt::Debug for ScriptedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedServer").field("address", &self.address).finish_non_exhaustive()
    }
}
