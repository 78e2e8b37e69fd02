//! The record of a mail that the server took responsibility for. Which session it came by, and how to read it.

use crate::{message, protocol::Protocol};
use bytes::Bytes;
use std::fmt;
use tokio::time::Instant;

/// One SMTP transaction that was answered 250 after the dot. The list of them is only ever appended to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Accepted {
    /// The connection that it came by, see [`MailServer::sessions`](crate::MailServer::sessions).
    pub session: u64,
    /// The port's protocol: [`Protocol::Smtp`] or [`Protocol::Smtps`].
    pub protocol: Protocol,
    /// The port that the client had dialled.
    pub port: u16,
    /// Who was signed in.
    pub login: Option<String>,
    /// Whether the connection was inside TLS.
    pub tls: bool,
    /// The reverse path without its angle brackets; empty for a bounce.
    pub mail_from: String,
    /// The recipients that were accepted, in the order of their RCPT commands.
    pub recipients: Vec<String>,
    /// Those of `recipients` that no account receives: the server would have relayed to them.
    pub outside: Vec<String>,
    /// The content as it was before dot-stuffing. The server adds no trace header.
    pub bytes: Bytes,
    /// The value of the Message-ID field, angle brackets included.
    pub message_id: Option<String>,
    /// When the server took it, by tokio's clock.
    pub at: Instant,
}

impl Accepted {
    /// The unfolded value of the first header field with this name; encoded words are left as they are.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        message::header(&self.bytes, name)
    }

    /// The subject with encoded words decoded (RFC 2047).
    #[must_use]
    pub fn subject(&self) -> Option<String> {
        message::subject(&self.bytes)
    }
}

impl fmt::Display for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "session {} on {}:{}{}, signed in as {}, from <{}> to {:?}, {} bytes, {}, subject {:?}",
            self.session,
            self.protocol,
            self.port,
            if self.tls { " with TLS" } else { "" },
            self.login.as_deref().unwrap_or("nobody"),
            self.mail_from,
            self.recipients,
            self.bytes.len(),
            self.message_id.as_deref().unwrap_or("no Message-ID"),
            self.subject().unwrap_or_default(),
        )
    }
}
