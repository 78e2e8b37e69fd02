//! The port to servers that take mail: one connection is driven over many mails, which a lane hands over one by one.
// mockall repeats the parentheses of `&'a (dyn .. + 'a)` where the lint holds them for superfluous.
#![cfg_attr(feature = "mock", expect(unused_parens, reason = "in generated code"))]

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::address::Address;
use postroom_core::id::{ClaimId, MailboxId};

use crate::error::{Error, Result};
use crate::probe::ProbeReport;
use crate::route::Route;

/// One mail to hand over in one transaction.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Job {
    /// The claim under which it is sent, the fence of its results.
    pub attempt: ClaimId,
    /// The return path; none for the null path `<>`.
    pub mail_from: Option<Address>,
    /// At least one.
    pub recipients: Vec<Address>,
    /// The mail as RFC 5322 bytes with CRLF line ends, dots not stuffed.
    pub content: Bytes,
}

impl Job {
    /// A mail under a claim.
    #[must_use]
    pub fn new(
        attempt: ClaimId,
        mail_from: Option<Address>,
        recipients: Vec<Address>,
        content: Bytes,
    ) -> Self {
        Self { attempt, mail_from, recipients, content }
    }
}

/// A server's positive or negative reply to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reply {
    /// The reply code (RFC 5321 section 4.2).
    pub code: u16,
    /// The enhanced status code (RFC 3463), if the server sent one.
    pub enhanced: Option<(u8, u16, u16)>,
    /// The text of all lines, bounded, on one line.
    pub text: String,
}

impl Reply {
    /// A reply; the text is bounded.
    #[must_use]
    pub fn new(code: u16, enhanced: Option<(u8, u16, u16)>, text: &str) -> Self {
        Self { code, enhanced, text: crate::error::bounded(text) }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some((class, subject, detail)) = self.enhanced {
            write!(f, " {class}.{subject}.{detail}")?;
        }
        if !self.text.is_empty() {
            write!(f, " {}", self.text)?;
        }
        Ok(())
    }
}

/// How a job ended: for each of its recipients, in their order, the server's acceptance or the error.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Receipt {
    /// One for each recipient of the job, in the same order.
    pub outcomes: Vec<Result<Reply>>,
}

impl Receipt {
    /// A receipt with a result for each recipient.
    #[must_use]
    pub fn new(outcomes: Vec<Result<Reply>>) -> Self {
        Self { outcomes }
    }

    /// The same error for all `recipients`.
    #[must_use]
    pub fn all(recipients: usize, error: &Error) -> Self {
        Self { outcomes: vec![Err(error.clone()); recipients] }
    }
}

/// What the lane says before the final dot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third answer")]
pub enum Crossing {
    /// The mark is committed under the live claim: send the dot.
    Go,
    /// Close the connection without the dot.
    Stop,
}

/// Where a connection gets its mails from and reports to. Declared here, written by the engine.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Lane: Send + Sync {
    /// The next mail, or none when the connection is not needed any more. It may wait. A transport that pipelines asks
    /// for one mail ahead, as soon as the envelope of the mail in hand has left. None is then no last word: it is asked
    /// again when that mail is finished.
    ///
    /// At most one question is open. Its future is polled beside all other calls, so it may wait for what they do, and
    /// unless the future of `carry` is dropped it is not dropped before it has ended: a mail that it takes is not lost.
    async fn next(&self) -> Option<Job>;

    /// Asked once for each job, after the server's 354 and before the final dot.
    async fn about_to_cross(&self, attempt: ClaimId) -> Crossing;

    /// Told exactly once for each job that `next` gave, unless the future of `carry` is dropped.
    async fn finished(&self, attempt: ClaimId, receipt: Receipt);
}

/// The port to servers that take mail.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait OutgoingTransport: Send + Sync {
    /// Drives one connection over the mails of one lane.
    ///
    /// 1. The connection is made, or a parked one is taken, before the first job is asked for: a dead server costs no
    ///    job. A parked connection that turns out to be dead is replaced before it has cost one.
    /// 2. For each job one transaction: MAIL, each RCPT, DATA. A refused recipient does not stop the others. The envelope of
    ///    the next job may leave with the final dot; each job is finished before the lane is asked about the next one's dot.
    /// 3. No final dot without [`Crossing::Go`] for that job, which is asked for only when a recipient was accepted. After
    ///    [`Crossing::Stop`] the connection is closed and `carry` ends with [`crate::ErrorKind::Stopped`].
    /// 4. Each job is `finished` once, with a result for each recipient. What failed before the dot says so by its
    ///    stage; what failed after it is [`crate::ErrorKind::Unanswered`]. A job that was asked for ahead, when the
    ///    connection ends with the one before it, is [`crate::ErrorKind::Stopped`].
    /// 5. It ends well when the lane gives no more jobs; the connection may then be parked for the same mailbox and
    ///    revision.
    ///
    /// # Errors
    /// When no connection could be made, or it broke: after the job in hand, if any, was finished with the same error. An
    /// open question to the lane is waited for before.
    ///
    /// # Cancel safety
    /// When the future is dropped the connection is closed and never used again. A job in hand is then not finished:
    /// whoever dropped the future decides by the job's mark.
    async fn carry<'a>(&self, route: &Route, lane: &'a (dyn Lane + 'a)) -> Result<()>;

    /// Goes through all stages of a sending up to RCPT, for each of `senders`, to the sender itself, and takes it back
    /// (RSET). A refused sender does not stop the others. No mail is sent.
    async fn probe(&self, route: &Route, senders: &[Address]) -> ProbeReport;

    /// Closes the parked connections of a mailbox: its settings changed.
    async fn close_parked(&self, mailbox: MailboxId);

    /// Closes the parked connections that have waited for long enough. A worker calls it each few seconds.
    async fn close_idle(&self);

    /// Closes all parked connections.
    async fn close(&self);
}
