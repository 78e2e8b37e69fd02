//! The outgoing port over SMTP: one connection driven over the mails of a lane, and the probe.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use postroom_core::address::Address;
use postroom_core::id::MailboxId;

use crate::error::{Error, ErrorKind, Result, Stage};
use crate::outgoing::{Lane, OutgoingTransport, Receipt};
use crate::probe::ProbeReport;
use crate::route::{Protocol, Route};
use crate::smtp::ahead::{Ahead, Next};
use crate::smtp::pool::Pool;
use crate::smtp::session::Session;
use crate::smtp::timeouts::Timeouts;
use crate::smtp::transaction::{rehearse, transact};
use crate::wire::tls::Trust;

/// Somebody looks at a probe: it waits for no step longer than this.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends by SMTP (RFC 5321) with STARTTLS (RFC 3207) or TLS from the first byte (RFC 8314), AUTH PLAIN and LOGIN
/// (RFC 4954), PIPELINING (RFC 2920), SIZE (RFC 1870), 8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531) and enhanced status codes
/// (RFC 2034).
///
/// It parks the connections of finished lanes, for a minute, and spawns no task. Content with a bare CR or LF, a NUL or a line of more
/// than 998 bytes is refused before MAIL. Its methods need a tokio runtime with time and net; making one does not.
#[derive(Debug, Default)]
pub struct SmtpTransport {
    timeouts: Timeouts,
    trust: Trust,
    pool: Pool,
}

impl SmtpTransport {
    /// With the times of RFC 5321.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With these times.
    #[must_use]
    pub fn with_timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    async fn connect(&self, route: &Route) -> Result<Session> {
        Session::open(route, &self.trust, self.timeouts, &mut ProbeReport::default()).await
    }

    /// A parked session that still answers, or a new one.
    async fn ready(&self, route: &Route) -> Result<Session> {
        while let Some(mut parked) = self.pool.take(route.mailbox, route.revision) {
            if parked.is_quiet() && parked.reset().await.is_ok() {
                return Ok(parked);
            }
        }
        self.connect(route).await
    }

    /// Hands one job over. A session that died while it waited for the job is replaced once, as long as the server has
    /// said nothing about the mail.
    async fn hand_over(
        &self,
        route: &Route,
        lane: &mut Ahead<'_>,
        session: &mut Option<Session>,
        Next { job, sent }: &mut Next,
    ) -> (Receipt, Result<()>) {
        let sent = sent.take();
        let is_sent = sent.is_some();
        if !is_sent && let Some(aged) = session.take_if(|session| session.is_aged()) {
            lane.beside(aged.quit()).await;
        }
        if let Some(mut waited) = session.take().filter(|session| !session.is_ended())
            && (is_sent || waited.is_quiet())
        {
            let mut handed = transact(&mut waited, job, sent, lane).await;
            // A server may hold a transaction for open whose content it has refused: its word is about the order of the
            // commands, not about the mail.
            let out_of_turn = |error: &Error| {
                error.stage() == Stage::MailFrom
                    && error.reply().is_some_and(|reply| reply.starts_with("503"))
            };
            if is_sent
                && handed.1.as_ref().is_err_and(out_of_turn)
                && lane.beside(waited.reset()).await.is_ok()
            {
                handed = transact(&mut waited, job, None, lane).await;
            }
            let died =
                |error: &Error| error.kind() == ErrorKind::Disconnected && error.stage() == Stage::MailFrom;
            if !handed.1.as_ref().is_err_and(died) {
                *session = Some(waited);
                return handed;
            }
        }
        match lane.beside(self.connect(route)).await {
            Ok(mut fresh) => {
                let handed = transact(&mut fresh, job, None, lane).await;
                *session = Some(fresh);
                handed
            }
            Err(error) => (Receipt::all(job.recipients.len(), &error), Err(error)),
        }
    }
}

#[async_trait]
impl OutgoingTransport for SmtpTransport {
    async fn carry<'a>(&self, route: &Route, lane: &'a (dyn Lane + 'a)) -> Result<()> {
        if route.protocol != Protocol::Smtp {
            let error = Error::new(ErrorKind::Settings, Stage::Prepare);
            return Err(error.with_reply("this transport speaks SMTP only"));
        }
        let permit = self.pool.permit();
        // The session is this future's own: when it is dropped, the connection is closed and nobody uses it again.
        let mut session = Some(self.ready(route).await?);
        let mut lane = Ahead::new(lane);
        while let Some(mut next) = lane.next().await {
            let (receipt, result) = self.hand_over(route, &mut lane, &mut session, &mut next).await;
            lane.finished(next.job.attempt, receipt).await;
            let usable = session.as_mut().filter(|session| !session.is_ended());
            match (usable, result) {
                // The reply to the dot has ended the transaction (RFC 5321 section 4.1.1.4), and the next one has begun.
                (Some(_), _) if lane.is_sent() => {}
                (Some(session), _) if session.in_transaction => {
                    // One that refuses RSET has ended, and is replaced when the next job comes.
                    let _ = lane.beside(session.reset()).await;
                }
                (Some(_), _) | (None, Ok(())) => {}
                (None, Err(error)) => {
                    lane.give_back(&error).await;
                    return Err(error);
                }
            }
        }
        if let Some(mut session) = session
            && session.is_quiet()
            && let Some(superfluous) = self.pool.park(permit, route.mailbox, route.revision, session)
        {
            superfluous.quit().await;
        }
        Ok(())
    }

    async fn probe(&self, route: &Route, senders: &[Address]) -> ProbeReport {
        let mut report = ProbeReport::default();
        let timeouts = self.timeouts.at_most(PATIENCE);
        let mut session = match Session::open(route, &self.trust, timeouts, &mut report).await {
            Ok(session) => session,
            Err(error) => {
                report.fail(error);
                return report;
            }
        };
        for sender in senders {
            match rehearse(&mut session, sender).await {
                Ok(()) => {
                    report.pass(Stage::MailFrom, sender.as_str());
                    report.pass(Stage::RcptTo, sender.as_str());
                }
                Err(error) => {
                    if error.stage() == Stage::RcptTo {
                        report.pass(Stage::MailFrom, sender.as_str());
                    }
                    report.fail(error);
                }
            }
            if session.is_ended() {
                return report;
            }
            match session.reset().await {
                Ok(()) => report.pass(Stage::Reset, sender.as_str()),
                Err(error) => {
                    report.fail(error);
                    return report;
                }
            }
        }
        session.quit().await;
        report
    }

    async fn close_parked(&self, mailbox: MailboxId) {
        join_all(self.pool.clear(Some(mailbox)).into_iter().map(Session::quit)).await;
    }

    async fn close_idle(&self) {
        join_all(self.pool.take_idle().into_iter().map(Session::quit)).await;
    }

    async fn close(&self) {
        join_all(self.pool.clear(None).into_iter().map(Session::quit)).await;
    }
}
