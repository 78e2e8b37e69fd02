//! The protocols of an inbox, as the registration form names them, and the ports that go with each protocol.

use crate::endpoint::Tls;
use crate::rules;
use crate::text::text_form;
use crate::violation::{Invalid, shown};

/// How an inbox is read. Its security follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "a closed set: the form shows exactly these")]
pub enum Provider {
    /// IMAP with STARTTLS required (RFC 3501, 2595).
    Imap,
    /// IMAP with TLS from the first byte (RFC 8314).
    Imaps,
    /// POP3 with STLS required (RFC 1939, 2595).
    Pop3,
    /// POP3 with TLS from the first byte (RFC 8314).
    Pop3s,
}

impl Provider {
    /// Every provider.
    pub const ALL: &'static [Self] = &[Self::Imap, Self::Imaps, Self::Pop3, Self::Pop3s];

    /// Reads the word in any case; `pop` and `pops` are understood too.
    ///
    /// # Errors
    /// [`rules::PROVIDER`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        match text.trim().to_ascii_lowercase().as_str() {
            "imap" => Ok(Self::Imap),
            "imaps" => Ok(Self::Imaps),
            "pop3" | "pop" => Ok(Self::Pop3),
            "pop3s" | "pops" => Ok(Self::Pop3s),
            _ => Err(Invalid::new(&rules::PROVIDER).with("value", shown(text))),
        }
    }

    /// The word that stands for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Imap => "imap",
            Self::Imaps => "imaps",
            Self::Pop3 => "pop3",
            Self::Pop3s => "pop3s",
        }
    }

    /// The security that follows from the provider, when plain text was not opted into.
    #[must_use]
    pub const fn tls(self) -> Tls {
        match self {
            Self::Imap | Self::Pop3 => Tls::StartTls,
            Self::Imaps | Self::Pop3s => Tls::Implicit,
        }
    }

    /// The registered port (RFC 8314 section 7).
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Imap => 143,
            Self::Imaps => 993,
            Self::Pop3 => 110,
            Self::Pop3s => 995,
        }
    }

    /// Whether the protocol has folders.
    #[must_use]
    pub const fn has_folders(self) -> bool {
        matches!(self, Self::Imap | Self::Imaps)
    }
}

impl std::fmt::Display for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

text_form!(Provider);

/// The usual port of an outbox: 465 with TLS from the first byte, 587 with STARTTLS (RFC 8314, 6409), 25 in plain text.
#[must_use]
pub const fn default_outbox_port(tls: Tls) -> u16 {
    match tls {
        Tls::None => 25,
        Tls::StartTls => 587,
        Tls::Implicit => 465,
    }
}
