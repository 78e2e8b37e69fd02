//! The question for the next mail, which is asked while the server answers to the mail in hand, and the envelope that leaves
//! behind the final dot (RFC 2920 section 3.1).

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use postroom_core::id::ClaimId;

use crate::error::{Error, ErrorKind, Stage};
use crate::outgoing::{Crossing, Job, Lane, Receipt};
use crate::smtp::envelope::Envelope;
use crate::smtp::session::Extensions;

type Question<'a> = Pin<Box<dyn Future<Output = Option<Job>> + Send + 'a>>;

/// A lane that may be asked ahead.
///
/// A question is never dropped while it is open: it may just be taking a mail, which nobody would know of then. Nor is it
/// left alone, for it may hold what the lane's other answers wait for. So whatever is awaited is awaited beside it.
pub(super) struct Ahead<'a> {
    lane: &'a dyn Lane,
    question: Option<Question<'a>>,
    found: Option<Next>,
}

/// The mail that comes next.
pub(super) struct Next {
    pub(super) job: Job,
    /// Its envelope, if it has left behind the last final dot.
    pub(super) sent: Option<Envelope>,
}

impl<'a> Ahead<'a> {
    pub(super) fn new(lane: &'a dyn Lane) -> Self {
        Self { lane, question: None, found: None }
    }

    /// Begins to ask for the next mail, if it is not known.
    pub(super) fn ask(&mut self) {
        if self.found.is_none() && self.question.is_none() {
            self.question = Some(self.lane.next());
        }
    }

    /// Does `work`, the open question beside it.
    pub(super) async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        if self.question.is_none() {
            return work.await;
        }
        let mut work = pin!(work);
        poll_fn(|context| {
            if let Some(question) = &mut self.question
                && let Poll::Ready(answer) = question.as_mut().poll(context)
            {
                self.question = None;
                self.found = answer.map(|job| Next { job, sent: None });
            }
            work.as_mut().poll(context)
        })
        .await
    }

    /// The envelope of the next mail, to be written behind the final dot: when the mail is known by now, and its commands may
    /// leave in one write. From here on it counts as sent, unless the session ends.
    pub(super) fn envelope(&mut self, offers: &Extensions) -> Option<String> {
        let next = self.found.as_mut().filter(|_| offers.pipelining)?;
        // What can't be sent is said when it is its turn.
        let envelope = Envelope::new(&next.job, offers).ok().filter(Envelope::is_one_write)?;
        let lines = envelope.lines(&next.job, envelope.commands());
        next.sent = Some(envelope);
        Some(lines)
    }

    /// Whether the envelope of the next mail has left.
    pub(super) fn is_sent(&self) -> bool {
        self.found.as_ref().is_some_and(|next| next.sent.is_some())
    }

    /// The next mail, none being in hand.
    pub(super) async fn next(&mut self) -> Option<Next> {
        if let Some(question) = self.question.take() {
            self.found = question.await.map(|job| Next { job, sent: None });
        }
        match self.found.take() {
            Some(next) => Some(next),
            // That there was none while a mail was in hand says nothing of now.
            None => self.lane.next().await.map(|job| Next { job, sent: None }),
        }
    }

    pub(super) async fn about_to_cross(&mut self, attempt: ClaimId) -> Crossing {
        let lane = self.lane;
        self.beside(lane.about_to_cross(attempt)).await
    }

    pub(super) async fn finished(&mut self, attempt: ClaimId, receipt: Receipt) {
        let lane = self.lane;
        self.beside(lane.finished(attempt, receipt)).await;
    }

    /// Finishes a mail that was taken ahead, the connection having ended with `cause` before it was its turn.
    pub(super) async fn give_back(mut self, cause: &Error) {
        let found = match self.question.take() {
            Some(question) => question.await,
            None => self.found.take().map(|next| next.job),
        };
        if let Some(job) = found {
            let error = Error::new(ErrorKind::Stopped, Stage::MailFrom).with_source(cause.clone());
            self.lane.finished(job.attempt, Receipt::all(job.recipients.len(), &error)).await;
        }
    }
}
