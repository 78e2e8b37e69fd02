//! What can go wrong between postroom and a mail server: the kind, the stage, the server's words, and what follows.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use postroom_core::failure::Failure;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The greatest length of a server's text in an error or a timeline, in characters.
pub const TEXT_LIMIT: usize = 500;

/// How far a conversation had come. The order is the order of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Stage {
    /// Settings are turned into a connection: certificates read, limits checked; nothing is sent.
    Prepare,
    /// The provider's token endpoint is asked for an access token.
    Token,
    /// The host name is resolved.
    Dns,
    /// The TCP connection is made.
    Tcp,
    /// The TLS handshake, or the STARTTLS that leads to it.
    Tls,
    /// The server's greeting and capabilities.
    Greeting,
    /// The sign-in.
    SignIn,
    /// A folder is listed or selected.
    Folder,
    /// MAIL FROM.
    MailFrom,
    /// RCPT TO.
    RcptTo,
    /// DATA, up to the final dot: the server has not got the mail.
    Data,
    /// After the final dot: the server may have got the mail.
    Dot,
    /// RSET.
    Reset,
    /// Mails are listed.
    List,
    /// A mail is fetched.
    Fetch,
    /// The server is told what to do with a mail.
    Settle,
    /// A change is waited for.
    Wait,
    /// The conversation is ended.
    Close,
}

impl Stage {
    /// The word in reports, JSON and rows.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Token => "token",
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Greeting => "greeting",
            Self::SignIn => "sign-in",
            Self::Folder => "folder",
            Self::MailFrom => "mail-from",
            Self::RcptTo => "rcpt-to",
            Self::Data => "data",
            Self::Dot => "dot",
            Self::Reset => "reset",
            Self::List => "list",
            Self::Fetch => "fetch",
            Self::Settle => "settle",
            Self::Wait => "wait",
            Self::Close => "close",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The host name does not resolve.
    Unresolved,
    /// Nobody accepts the connection.
    Unreachable,
    /// The server did not answer in time.
    TimedOut,
    /// The server closed the connection, or it broke.
    Disconnected,
    /// The TLS handshake failed for another reason than the certificate.
    TlsFailed,
    /// The certificate is not trusted, expired, or of another name.
    CertificateRefused,
    /// STARTTLS is required and the server does not offer it, or refused it.
    TlsUnavailable,
    /// Bytes arrived between the answer to STARTTLS and the handshake: somebody injects commands (CVE-2011-0411).
    Injected,
    /// The settings can't be used: an unreadable authority, a protocol that this transport does not speak, an account that its
    /// provider has closed for sending.
    Settings,
    /// Credentials would have travelled without TLS.
    PlaintextRefused,
    /// The server offers no sign-in method that we speak.
    NoSignInMethod,
    /// The server refused user or password.
    SignInRefused,
    /// The server can't sign anybody in at the moment.
    SignInUnavailable,
    /// The sign-in expired in the middle of the conversation.
    Reauthorise,
    /// There is no such folder.
    FolderMissing,
    /// The mailbox is locked by another session (POP3 `[IN-USE]`).
    InUse,
    /// The server refused for good (5xx, NO, -ERR).
    Refused,
    /// The server refused for now (4xx).
    Deferred,
    /// The server limits how much or how often (421, 4.3.2, a spent daily limit, `[LIMIT]`).
    Throttled,
    /// The mail is larger than the server or the mailbox allows.
    TooLarge,
    /// The mail needs an extension that the server lacks (SMTPUTF8, 8BITMIME).
    Unsupported,
    /// The mail is not there any more.
    Gone,
    /// The server broke the protocol, or its answer exceeds our bounds.
    Protocol,
    /// The lane said stop before the dot, or the connection ended before it was this mail's turn; nothing was handed over.
    Stopped,
    /// The connection was lost, or the answer was unreadable, after the final dot.
    Unanswered,
}

/// An error on the way to or from a mail server.
///
/// `Display` gives kind and stage and the server's words, bounded and redacted; it never prints the source.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    stage: Stage,
    reply: Option<String>,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` at `stage`.
    #[must_use]
    pub fn new(kind: ErrorKind, stage: Stage) -> Self {
        Self { kind, stage, reply: None, retry_after: None, source: None }
    }

    /// With the server's words; control characters are replaced and the text is cut at [`TEXT_LIMIT`].
    #[must_use]
    pub fn with_reply(mut self, text: &str) -> Self {
        self.reply = Some(bounded(text));
        self
    }

    /// With the time that the server asked for.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// With its cause, for `source()` only.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// How far the conversation had come.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The server's words, if it said any.
    #[must_use]
    pub fn reply(&self) -> Option<&str> {
        self.reply.as_deref()
    }

    /// What to do about it.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self.kind {
            ErrorKind::Unresolved
            | ErrorKind::Unreachable
            | ErrorKind::TimedOut
            | ErrorKind::Disconnected
            | ErrorKind::TlsFailed
            | ErrorKind::SignInUnavailable
            | ErrorKind::Reauthorise
            | ErrorKind::InUse
            | ErrorKind::Deferred
            | ErrorKind::Throttled
            | ErrorKind::Protocol
            | ErrorKind::Stopped => Failure::RetryAfter(self.retry_after),
            ErrorKind::CertificateRefused
            | ErrorKind::TlsUnavailable
            | ErrorKind::Injected
            | ErrorKind::Settings
            | ErrorKind::PlaintextRefused
            | ErrorKind::NoSignInMethod
            | ErrorKind::SignInRefused => Failure::Suspend,
            // The folder that is read; one that mail is put into is missed by nothing but that.
            ErrorKind::FolderMissing if self.stage != Stage::Settle => Failure::Suspend,
            // A final refusal of the greeting, of EHLO or of the sign-in is about the mailbox, not about a mail.
            ErrorKind::Refused if self.stage < Stage::MailFrom => Failure::Suspend,
            ErrorKind::Refused
            | ErrorKind::TooLarge
            | ErrorKind::Unsupported
            | ErrorKind::Gone
            | ErrorKind::FolderMissing => Failure::GiveUp,
            ErrorKind::Unanswered => Failure::Doubt,
        }
    }

    /// What an operator can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self.kind {
            // Of a folder that mail is moved or copied into.
            ErrorKind::FolderMissing if self.stage == Stage::Settle => {
                "create the folder, or name another one by --after or --sent-copy; mail is read and sent all the same"
            }
            ErrorKind::Refused | ErrorKind::TooLarge | ErrorKind::Unsupported
                if self.stage == Stage::Settle =>
            {
                "read the server's words; mend it there, or have mail left or kept elsewhere by --after or --sent-copy; \
                 mail is read and sent all the same"
            }
            ErrorKind::Refused | ErrorKind::Unsupported if self.stage == Stage::Fetch => {
                "read the server's words; the mail is asked for again, and other mail is read; if it stays, move it \
                 out of the folder"
            }
            ErrorKind::TooLarge if self.stage == Stage::Fetch => {
                "nothing, if the mail is not wanted: it is a dead letter, and other mail is read; else raise the \
                 box's --max-message before such mail comes"
            }
            ErrorKind::SignInRefused if self.stage == Stage::Token => {
                "have the mailbox's owner consent anew and store the new refresh token, or correct client and secret; then \
                 enable the box again"
            }
            ErrorKind::Settings if self.stage == Stage::Token => {
                "correct token endpoint, client or scope of the box; then enable it again"
            }
            ErrorKind::Unresolved => "check the server's name and this machine's DNS",
            ErrorKind::Unreachable => "check server and port, and that no firewall is in between",
            ErrorKind::TimedOut => {
                "check server, port and security; a wrong kind of TLS also looks like silence"
            }
            ErrorKind::Disconnected => "try again later; if it stays, check port and security",
            ErrorKind::TlsFailed => {
                "check that the port expects TLS the way the box is registered: from the first byte, or by STARTTLS"
            }
            ErrorKind::CertificateRefused => {
                "use the name that the certificate is for, or register the authority that signed it"
            }
            ErrorKind::TlsUnavailable => {
                "register the box with TLS from the first byte, or have the server offer STARTTLS"
            }
            ErrorKind::Injected => {
                "do not use this connection: something between here and the server adds commands"
            }
            ErrorKind::Settings => {
                "correct the settings of the box, or its account at the provider; then enable it again"
            }
            ErrorKind::PlaintextRefused => "use TLS; only in a closed test network set the dangerous opt-in",
            ErrorKind::NoSignInMethod => {
                "have the server offer PLAIN or LOGIN for a password, OAUTHBEARER or XOAUTH2 for OAuth2"
            }
            ErrorKind::SignInRefused => {
                "check user and password, or which user consented to OAuth2; then enable the box again"
            }
            ErrorKind::SignInUnavailable => "nothing: it is tried again by itself",
            ErrorKind::Reauthorise => "nothing: the box signs in again",
            ErrorKind::FolderMissing => {
                "check the folder's name, or create it; the probe lists the folders that exist"
            }
            ErrorKind::InUse => "close the other program that reads this box",
            ErrorKind::Refused => "read the server's words; correct the mail or the address and retry it",
            ErrorKind::Deferred | ErrorKind::Throttled => "nothing: it is tried again by itself",
            ErrorKind::TooLarge => "send smaller attachments, or links",
            ErrorKind::Unsupported => "send it by an outbox whose server has the extension",
            ErrorKind::Gone => "nothing: the mail was taken away by another program",
            ErrorKind::Protocol => "try again later; if it stays, report the server's words",
            ErrorKind::Stopped => {
                "nothing: another worker has the mail, its connection ended before its turn, or the system is stopping"
            }
            ErrorKind::Unanswered => "find out whether it arrived, then settle it as accepted or refused",
        }
    }

    /// The kind in words.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self.kind {
            ErrorKind::Unresolved => "the host name does not resolve",
            ErrorKind::Unreachable => "nobody accepts the connection",
            ErrorKind::TimedOut => "the server did not answer in time",
            ErrorKind::Disconnected => "the connection was closed",
            ErrorKind::TlsFailed => "the TLS handshake failed",
            ErrorKind::CertificateRefused => "the server's certificate is not trusted for this name",
            ErrorKind::TlsUnavailable => "the server does not offer STARTTLS",
            ErrorKind::Injected => "bytes were injected before the TLS handshake",
            ErrorKind::Settings => "the settings can't be used",
            ErrorKind::PlaintextRefused => "the password would travel without TLS",
            ErrorKind::NoSignInMethod => "the server offers no sign-in method that we speak",
            ErrorKind::SignInRefused if self.stage == Stage::Token => {
                "the provider refused to give an access token"
            }
            ErrorKind::SignInRefused => "user, password or token were refused",
            ErrorKind::SignInUnavailable => "the server can't sign anybody in at the moment",
            ErrorKind::Reauthorise => "the sign-in expired",
            ErrorKind::FolderMissing => "there is no such folder",
            ErrorKind::InUse => "the mailbox is locked by another session",
            ErrorKind::Refused => "the server refused",
            ErrorKind::Deferred => "the server refused for now",
            ErrorKind::Throttled => "the server limits how much or how often",
            ErrorKind::TooLarge => "the mail is too large",
            ErrorKind::Unsupported => "the mail needs an extension that the server lacks",
            ErrorKind::Gone => "the mail is not there any more",
            ErrorKind::Protocol => "the server broke the protocol",
            ErrorKind::Stopped => "it was stopped before the final dot",
            ErrorKind::Unanswered => {
                "the connection was lost after the final dot: the mail may have been accepted"
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at {})", self.cause(), self.stage)?;
        match &self.reply {
            Some(reply) => write!(f, ": {reply}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}

/// A server's text made fit for logs and rows: one line, no control characters, at most [`TEXT_LIMIT`] characters.
#[must_use]
pub(crate) fn bounded(text: &str) -> String {
    let mut out: String =
        text.trim().chars().take(TEXT_LIMIT).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.trim().chars().nth(TEXT_LIMIT).is_some() {
        out.push('\u{2026}');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail with one remedy for each kind: who reads a box was told to send smaller attachments.
    #[test]
    fn the_remedy_fits_the_direction() {
        let check = |kind, stage, want: &str, not: &str| {
            let remedy = Error::new(kind, stage).remedy();
            assert!(remedy.contains(want) && !remedy.contains(not), "{kind:?} at {stage}: {remedy}");
        };
        for kind in
            [ErrorKind::FolderMissing, ErrorKind::Refused, ErrorKind::TooLarge, ErrorKind::Unsupported]
        {
            check(kind, Stage::Settle, "--after", "retry");
        }
        check(ErrorKind::TooLarge, Stage::Fetch, "--max-message", "attachments");
        check(ErrorKind::TooLarge, Stage::Data, "attachments", "--max-message");
        for kind in [ErrorKind::Refused, ErrorKind::Unsupported] {
            check(kind, Stage::Fetch, "other mail is read", "retry");
        }
        check(ErrorKind::Refused, Stage::RcptTo, "retry", "is read");
        check(ErrorKind::FolderMissing, Stage::Folder, "probe", "--after");
    }

    #[test]
    fn a_folder_that_mail_is_put_into_suspends_nobody() {
        assert_eq!(Error::new(ErrorKind::FolderMissing, Stage::Settle).failure(), Failure::GiveUp);
        assert_eq!(Error::new(ErrorKind::FolderMissing, Stage::Folder).failure(), Failure::Suspend);
    }
}
