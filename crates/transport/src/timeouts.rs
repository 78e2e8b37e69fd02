//! How long the steps of a conversation with a server that keeps mail may take. The waiting for new mail has its own time,
//! which the caller gives.

use std::time::Duration;

/// How long each step may take, however many reads it is made of: a server that drips bytes gains no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct IncomingTimeouts {
    /// The resolution of the name; 10 s unless set.
    pub dns: Duration,
    /// The connection, over all addresses of the name; 20 s unless set.
    pub tcp: Duration,
    /// The TLS handshake; 20 s unless set.
    pub tls: Duration,
    /// From the connection to the server's greeting; 60 s unless set.
    pub greeting: Duration,
    /// One command with its whole answer; 120 s unless set.
    pub command: Duration,
    /// One piece of a mail of at most 256 KiB; 120 s unless set.
    pub piece: Duration,
    /// The farewell; 10 s unless set.
    pub close: Duration,
}

impl IncomingTimeouts {
    /// The same time for every step.
    #[must_use]
    pub const fn all(time: Duration) -> Self {
        Self { dns: time, tcp: time, tls: time, greeting: time, command: time, piece: time, close: time }
    }
}

impl Default for IncomingTimeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            dns: seconds(10),
            tcp: seconds(20),
            tls: seconds(20),
            greeting: seconds(60),
            command: seconds(120),
            piece: seconds(120),
            close: seconds(10),
        }
    }
}
