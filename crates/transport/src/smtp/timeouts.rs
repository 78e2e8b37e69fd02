//! How long an SMTP client waits for what (RFC 5321 section 4.5.3.2).

use std::time::Duration;

use crate::wire::dial::DialTimeouts;

/// The time for each step. Each is for a whole reply: a server that drips single bytes gains nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// Resolving the name. Default 20 s.
    pub dns: Duration,
    /// Connecting, over all addresses. Default 60 s.
    pub tcp: Duration,
    /// The TLS handshake. Default 60 s.
    pub tls: Duration,
    /// The greeting, and EHLO, HELO and STARTTLS. Default 5 min.
    pub greeting: Duration,
    /// Each step of the sign-in. Default 2 min.
    pub sign_in: Duration,
    /// MAIL. Default 5 min.
    pub mail: Duration,
    /// Each RCPT. Default 5 min.
    pub rcpt: Duration,
    /// DATA, until 354. Default 2 min.
    pub data: Duration,
    /// Writing the content, besides what its size takes at 8 KiB a second. Default 3 min.
    pub block: Duration,
    /// The answer to the final dot. Default 10 min.
    pub dot: Duration,
    /// RSET and QUIT. Default 20 s: nothing is lost when they fail.
    pub quit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self {
            dns: Duration::from_secs(20),
            tcp: minutes(1),
            tls: minutes(1),
            greeting: minutes(5),
            sign_in: minutes(2),
            mail: minutes(5),
            rcpt: minutes(5),
            data: minutes(2),
            block: minutes(3),
            dot: minutes(10),
            quit: Duration::from_secs(20),
        }
    }
}

impl Timeouts {
    /// The same, none longer than `most`.
    #[must_use]
    pub fn at_most(self, most: Duration) -> Self {
        Self {
            dns: self.dns.min(most),
            tcp: self.tcp.min(most),
            tls: self.tls.min(most),
            greeting: self.greeting.min(most),
            sign_in: self.sign_in.min(most),
            mail: self.mail.min(most),
            rcpt: self.rcpt.min(most),
            data: self.data.min(most),
            block: self.block.min(most),
            dot: self.dot.min(most),
            quit: self.quit.min(most),
        }
    }

    pub(super) fn dial(&self) -> DialTimeouts {
        DialTimeouts { dns: self.dns, tcp: self.tcp, tls: self.tls }
    }

    /// The time to write content of this length: bounded, and enough for a slow line.
    pub(super) fn content(&self, length: usize) -> Duration {
        self.block + Duration::from_secs(u64::try_from(length / 8192).unwrap_or(u64::MAX))
    }
}
