//! The ports that the server listens on, and the three services behind them. Nothing of the protocols themselves.

use std::fmt;

/// A port of [`MailServer`](crate::MailServer): a protocol, and whether TLS starts with the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// SMTP in the clear, offering STARTTLS.
    Smtp,
    /// SMTP inside TLS from the first byte (RFC 8314).
    Smtps,
    /// IMAP in the clear, offering STARTTLS.
    Imap,
    /// IMAP inside TLS from the first byte (RFC 8314).
    Imaps,
    /// POP3 in the clear, offering STLS.
    Pop3,
    /// POP3 inside TLS from the first byte (RFC 8314).
    Pop3s,
}

/// What answers on a port, whichever way TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    Smtp,
    Imap,
    Pop3,
}

impl Protocol {
    /// Every port, in the order in which they are listed here.
    pub const ALL: [Self; 6] = [Self::Smtp, Self::Smtps, Self::Imap, Self::Imaps, Self::Pop3, Self::Pop3s];

    pub(crate) fn service(self) -> Service {
        match self {
            Self::Smtp | Self::Smtps => Service::Smtp,
            Self::Imap | Self::Imaps => Service::Imap,
            Self::Pop3 | Self::Pop3s => Service::Pop3,
        }
    }

    pub(crate) fn starts_with_tls(self) -> bool {
        matches!(self, Self::Smtps | Self::Imaps | Self::Pop3s)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Smtp => "smtp",
            Self::Smtps => "smtps",
            Self::Imap => "imap",
            Self::Imaps => "imaps",
            Self::Pop3 => "pop3",
            Self::Pop3s => "pop3s",
        })
    }
}
