//! A server that takes mail, in memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::address::Address;
use postroom_core::id::{ClaimId, MailboxId};
use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Result, Stage};
use crate::memory::failing::Failing;
use crate::outgoing::{Crossing, Job, Lane, OutgoingTransport, Receipt, Reply};
use crate::probe::ProbeReport;
use crate::route::Route;

/// A mail that the server in memory has taken.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Carried {
    /// By which outbox it came.
    pub mailbox: MailboxId,
    /// Under which claim.
    pub attempt: ClaimId,
    /// The return path; none for `<>`.
    pub mail_from: Option<Address>,
    /// Those that were not refused.
    pub recipients: Vec<Address>,
    /// As it was submitted.
    pub content: Bytes,
}

/// An [`OutgoingTransport`] that keeps the mails. Clones share what they keep.
#[derive(Debug, Clone, Default)]
pub struct MemoryOutgoing {
    state: Arc<Mutex<State>>,
    /// How many mails were taken.
    taken: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    carried: Vec<Carried>,
    refusals: Vec<(Address, Error)>,
    failing: Failing,
    connections: usize,
    closed: Vec<MailboxId>,
}

impl MemoryOutgoing {
    /// It takes every mail, until told otherwise.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The mails that were taken, in order. One whose reply was lost ([`ErrorKind::Unanswered`]) is among them.
    #[must_use]
    pub fn carried(&self) -> Vec<Carried> {
        self.state().carried.clone()
    }

    /// Waits until so many mails were taken in all, and returns all. It waits for ever when they do not come.
    ///
    /// Cancel safe.
    pub async fn wait_for(&self, count: usize) -> Vec<Carried> {
        // The sender lives in `self`, so the wait ends only well.
        let _ = self.taken.subscribe().wait_for(|&taken| taken >= count).await;
        self.carried()
    }

    /// Refuses this recipient with `error` from now on.
    pub fn refuse(&self, recipient: Address, error: Error) {
        self.state().refusals.push((recipient, error));
    }

    /// Fails once with `error`, at its stage: up to the sign-in it costs no job; from MAIL FROM to DATA it costs the job in
    /// hand; at the dot the lane was asked before, and the mail is kept when the kind is [`ErrorKind::Unanswered`].
    pub fn fail_once(&self, error: Error) {
        self.state().failing.once(error);
    }

    /// Fails with `error` until [`recover`](Self::recover).
    pub fn fail(&self, error: Error) {
        self.state().failing.lasting(Some(error));
    }

    /// Takes all refusals and failures back.
    pub fn recover(&self) {
        let mut state = self.state();
        state.failing.lasting(None);
        state.refusals.clear();
    }

    /// How many lanes have been connected.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state().connections
    }

    /// The mailboxes whose parked connections were to be closed, in order.
    #[must_use]
    pub fn closed(&self) -> Vec<MailboxId> {
        self.state().closed.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failure(&self, from: Stage, to: Stage) -> Option<Error> {
        self.state().failing.at(from, to)
    }

    /// The result for each recipient, and what ends the connection.
    async fn transact(&self, route: &Route, lane: &dyn Lane, job: &Job) -> (Receipt, Result<()>) {
        let all = |error: Error| (Receipt::all(job.recipients.len(), &error), ended(error));
        if let Some(error) = self.failure(Stage::MailFrom, Stage::Data) {
            return all(error);
        }
        let refusals: Vec<Option<Error>> = {
            let state = self.state();
            let of = |to: &Address| state.refusals.iter().find(|(refused, _)| refused == to);
            job.recipients.iter().map(|to| of(to).map(|(_, error)| error.clone())).collect()
        };
        let mut result = Ok(());
        let mut accepted = Err(Error::new(ErrorKind::Stopped, Stage::Data));
        if refusals.iter().any(Option::is_none) {
            accepted = match lane.about_to_cross(job.attempt).await {
                Crossing::Stop => accepted,
                Crossing::Go => self.cross(route, job, &refusals),
            };
            if let Err(error) = &accepted {
                result = ended(error.clone());
            }
        }
        let outcomes = refusals.into_iter().map(|refusal| refusal.map_or_else(|| accepted.clone(), Err));
        (Receipt::new(outcomes.collect()), result)
    }

    fn cross(&self, route: &Route, job: &Job, refusals: &[Option<Error>]) -> Result<Reply> {
        let failure = self.failure(Stage::Dot, Stage::Dot);
        if failure.as_ref().is_none_or(|error| error.kind() == ErrorKind::Unanswered) {
            let taken = job.recipients.iter().zip(refusals).filter(|(_, refusal)| refusal.is_none());
            let carried = Carried {
                mailbox: route.mailbox,
                attempt: job.attempt,
                mail_from: job.mail_from.clone(),
                recipients: taken.map(|(to, _)| to.clone()).collect(),
                content: job.content.clone(),
            };
            let mut state = self.state();
            state.carried.push(carried);
            self.taken.send_replace(state.carried.len());
        }
        failure.map_or_else(|| Ok(Reply::new(250, Some((2, 0, 0)), "kept in memory")), Err)
    }
}

/// Whether the connection ends with this error, as that of a real server would.
fn ended(error: Error) -> Result<()> {
    match error.kind() {
        ErrorKind::Refused | ErrorKind::Deferred | ErrorKind::TooLarge | ErrorKind::Unsupported => Ok(()),
        _ => Err(error),
    }
}

#[async_trait]
impl OutgoingTransport for MemoryOutgoing {
    async fn carry<'a>(&self, route: &Route, lane: &'a (dyn Lane + 'a)) -> Result<()> {
        if let Some(error) = self.failure(Stage::Prepare, Stage::SignIn) {
            return Err(error);
        }
        self.state().connections += 1;
        while let Some(job) = lane.next().await {
            let (receipt, result) = self.transact(route, lane, &job).await;
            lane.finished(job.attempt, receipt).await;
            result?;
        }
        Ok(())
    }

    async fn probe(&self, route: &Route, senders: &[Address]) -> ProbeReport {
        let mut report = ProbeReport::default();
        if let Some(error) = self.failure(Stage::Prepare, Stage::SignIn) {
            report.fail(error);
            return report;
        }
        for stage in [Stage::Dns, Stage::Tcp, Stage::Tls, Stage::Greeting] {
            report.pass(stage, "in memory");
        }
        if let Some(credentials) = &route.credentials {
            report.pass(Stage::SignIn, credentials.user());
        }
        for sender in senders {
            match self.failure(Stage::MailFrom, Stage::RcptTo) {
                Some(error) => report.fail(error),
                None => {
                    report.pass(Stage::MailFrom, sender.as_str());
                    report.pass(Stage::RcptTo, sender.as_str());
                }
            }
            report.pass(Stage::Reset, sender.as_str());
        }
        report
    }

    async fn close_parked(&self, mailbox: MailboxId) {
        self.state().closed.push(mailbox);
    }

    async fn close_idle(&self) {}

    async fn close(&self) {}
}
