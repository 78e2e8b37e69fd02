//! Dispatch: queued mail is claimed, marked and handed to its server, one lane for each connection. What a server said is
//! committed before anything else is done.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::budget::Limits;
use postroom_core::failure::Failure;
use postroom_core::governor::{Consequence, Limited};
use postroom_core::id::ClaimId;
use postroom_core::mailbox::Mailbox;
use postroom_core::queue::Event;
use postroom_core::schedule::Schedule;
use postroom_storage::{Attempt, ClaimMark, Claimed, QueueWork, RecipientResult};
use postroom_transport::{
    Crossing, Error as TransportError, ErrorKind as TransportKind, Job, Lane, Receipt, Reply, Stage,
};
use tokio::time::Instant;

use crate::error::said;
use crate::lanes::{Place, Signs};
use crate::postroom::random;
use crate::settling::{Settling, Verdict};
use crate::worker::{Holder, STORE_REST, Worker};

/// How many mails of a connection may be marked and not settled.
const MOST_UNSETTLED: usize = 4;

/// How long a connection waits for one more mail.
const LINGER: Duration = Duration::from_millis(100);

/// One connection's way to the queue.
struct QueueLane {
    worker: Arc<Worker>,
    /// The name that it claims under.
    holder: Holder,
    mailbox: Mailbox,
    signs: Arc<Signs>,
    place: Place,
    /// Whether it has had no mail.
    idle: AtomicBool,
    /// The claims in hand, with the time at which they were taken.
    claims: Mutex<HashMap<ClaimId, (Claimed, Instant)>>,
    settling: Settling,
}

/// Drives one connection of an outbox until nothing is due for it.
pub(crate) async fn dispatch(holder: Holder, mailbox: Mailbox, signs: Arc<Signs>) {
    let worker = Arc::clone(holder.worker());
    let Some(transport) = worker.postroom.ports.outgoing.clone() else { return };
    let (id, begun) = (mailbox.id, worker.postroom.now());
    let place = worker.lanes.enter(id);
    let route = match worker.postroom.route(&mailbox).await {
        Ok(Some(route)) if !signs.is_ending() => route,
        // The settings have changed: another lane begins by those of now.
        Ok(_) => return,
        Err(locked) => {
            return worker.fails_since(id, Some(begun), locked.failure(), locked.to_string()).await;
        }
    };
    let idle = AtomicBool::new(true);
    let lane = QueueLane {
        worker: Arc::clone(&worker),
        holder,
        mailbox,
        signs,
        place,
        idle,
        claims: Mutex::default(),
        settling: Settling::default(),
    };
    let carried = async {
        let carried = transport.carry(&route, &lane).await;
        lane.settling.close();
        carried
    };
    // What servers said is committed beside the talk, not in it.
    match tokio::join!(carried, lane.settling.settle(&worker, &lane.mailbox, begun)).0 {
        // The server is there and let the outbox in, and there was nothing to send any more.
        Ok(()) if lane.idle.load(Ordering::SeqCst) => worker.works(id).await,
        Ok(()) => {}
        Err(error) if error.kind() == TransportKind::Stopped => {}
        Err(error) if worker.postroom.asks_anew(&route, &error).await => {
            tracing::info!(target: "postroom", "outbox {id} asks for another access token: {}", said(&error));
            worker.postroom.ports.bell.notify_one();
        }
        Err(error) => {
            if lane.learns(&error) == Consequence::GoOn {
                // Who waits for a connection counts with the server as well.
                transport.close_parked(id).await;
                tracing::info!(target: "postroom", "outbox {id} goes on with fewer connections: {}", said(&error));
            } else {
                worker.fails_since(id, Some(begun), error.failure(), said(&error)).await;
            }
        }
    }
}

impl QueueLane {
    fn queue(&self) -> &dyn QueueWork {
        self.worker.postroom.store()
    }

    fn registered(&self) -> u32 {
        self.mailbox.settings.outbox().map_or(0, |outbox| outbox.max_connections())
    }

    /// What follows from an error: a server that limits is given fewer connections.
    fn learns(&self, error: &TransportError) -> Consequence {
        if error.kind() != TransportKind::Throttled {
            return Consequence::Rest;
        }
        let what = if error.stage() < Stage::MailFrom { Limited::Connections } else { Limited::Mail };
        self.worker.lanes.limited(self.mailbox.id, self.worker.postroom.now(), what)
    }

    fn take(&self, attempt: ClaimId) -> Option<(Claimed, Instant)> {
        self.claims.lock().ok()?.remove(&attempt)
    }

    /// The mark of a claim, if it is in hand and surely still held.
    fn live(&self, attempt: ClaimId) -> Option<ClaimMark> {
        let claims = self.claims.lock().ok()?;
        let (claimed, taken) = claims.get(&attempt)?;
        self.worker.holds(*taken).then_some(ClaimMark { id: claimed.id, claim: attempt })
    }

    /// The claimed mail as a job, or why it can't be one.
    async fn job(&self, claimed: &Claimed) -> Result<Job, (Event, String)> {
        // A worker that died over it spent an attempt and could not say so.
        if claimed.attempt > self.worker.postroom.ports.options.attempts {
            return Err((
                Event::Die,
                "every attempt is spent, the last one by a worker that died".to_owned(),
            ));
        }
        let owns = self
            .mailbox
            .settings
            .outbox()
            .is_some_and(|outbox| outbox.sender(claimed.sender.address()).is_some());
        if !owns {
            let why =
                format!("{} is no sender of outbox {} any more", claimed.sender.address(), self.mailbox.id);
            return Err((Event::Hold, format!("{why}; register it again, or cancel the mail")));
        }
        let limits = self.mailbox.settings.outbox().map(Limits::of).unwrap_or_default();
        if limits.never_fits(u64::try_from(claimed.recipients.len()).unwrap_or(u64::MAX)) {
            let most = limits.recipients_per_day.unwrap_or_default();
            let (recipients, outbox) = (claimed.recipients.len(), self.mailbox.id);
            let why =
                format!("it has {recipients} recipients, and outbox {outbox} may write to {most} a day");
            return Err((Event::Hold, format!("{why}; raise the limit and retry it, or send it in parts")));
        }
        let content = match &claimed.content {
            Some(content) => content.clone(),
            None => self.content(claimed).await.map_err(|error| (Event::Die, error.to_string()))?,
        };
        if u64::try_from(content.len()).ok() != Some(claimed.size) {
            return Err((
                Event::Die,
                "the content in the store is not whole; submit the mail again".to_owned(),
            ));
        }
        let recipients = claimed.recipients.iter().map(|(_, address)| address.clone()).collect();
        Ok(Job::new(claimed.claim, claimed.return_path.clone(), recipients, content))
    }

    /// The content of a mail, however long the store is away.
    async fn content(&self, claimed: &Claimed) -> postroom_storage::Result<Bytes> {
        const STAGE: &str = "read the mail";
        let read = async || {
            let read = self.worker.postroom.read_body(claimed.body, Some(claimed.size)).await;
            read.map_err(|error| match error.kind() {
                crate::ErrorKind::Store(kind) => postroom_storage::Error::new(kind.clone(), STAGE),
                _ => postroom_storage::Error::new(postroom_storage::ErrorKind::Unreadable, STAGE),
            })
        };
        self.worker.insist(read).await
    }

    /// Has all recipients of a claim settled in the same way.
    fn settle_all(&self, claimed: Claimed, event: Event, detail: &str) {
        let result =
            |(place, _): &(u32, _)| RecipientResult { recipient: *place, event, detail: detail.to_owned() };
        let results = claimed.recipients.iter().map(result).collect();
        let (due_at, attempt) = (self.worker.postroom.now(), Attempt::Spent);
        self.settling.add(Verdict { claimed, results, due_at, attempt, works: false, limit: None });
    }
}

#[async_trait]
impl Lane for QueueLane {
    async fn next(&self) -> Option<Job> {
        // A transport may ask ahead, with a mail in hand: if there is none for it now, another lane serves what comes later.
        let hungry = self.claims.lock().is_ok_and(|claims| claims.is_empty());
        if hungry {
            self.signs.hungers();
        } else {
            self.signs.eats();
        }
        while !self.worker.is_stopping() {
            if self.signs.is_ending() || self.place.is_too_many(self.registered()) {
                return None;
            }
            let mut rung = pin!(self.worker.postroom.ports.mail.notified());
            rung.as_mut().enable();
            let taken = Instant::now();
            let now = self.worker.postroom.now();
            let claimed =
                self.queue().claim(now, self.mailbox.id, 1, self.holder.id, self.worker.until(now)).await;
            let claimed = match claimed {
                Ok(claimed) => claimed.into_iter().next(),
                Err(error) => {
                    self.worker.store_failed(&error);
                    return None;
                }
            };
            self.worker.store_works();
            let Some(claimed) = claimed else {
                // With a mail in hand it has to go on; else what comes in a moment is spared the way to a connection.
                let lingers = async {
                    tokio::select! {
                        () = rung => true,
                        () = self.worker.rest(LINGER) => false,
                    }
                };
                if hungry && lingers.await {
                    continue;
                }
                return None;
            };
            // There may be more: another lane is opened while this one sends.
            self.idle.store(false, Ordering::SeqCst);
            self.signs.eats();
            self.worker.postroom.ports.bell.notify_one();
            match self.job(&claimed).await {
                Ok(job) => {
                    self.claims.lock().ok()?.insert(claimed.claim, (claimed, taken));
                    return Some(job);
                }
                Err((event, detail)) => self.settle_all(claimed, event, &detail),
            }
        }
        None
    }

    async fn about_to_cross(&self, attempt: ClaimId) -> Crossing {
        // Promise P1: no further dot while so many are marked and not settled.
        self.settling.fewer_than(MOST_UNSETTLED).await;
        let (mut wait, most) = STORE_REST;
        // A mark whose commit has an unknown outcome can be repeated, for as long as the claim is surely held.
        while let Some(mark) = self.live(attempt) {
            match self.queue().mark(self.worker.postroom.now(), &[mark]).await.as_deref() {
                Ok([true]) => return Crossing::Go,
                Ok(_) => break,
                Err(error) => {
                    self.worker.store_failed(error);
                    if !matches!(error.failure(), Failure::RetryAfter(_)) {
                        break;
                    }
                    self.worker.rest(wait).await;
                    if self.worker.is_stopping() {
                        break;
                    }
                    wait = (wait * 2).min(most);
                }
            }
        }
        Crossing::Stop
    }

    async fn finished(&self, attempt: ClaimId, receipt: Receipt) {
        let Some((claimed, _)) = self.take(attempt) else { return };
        let now = self.worker.postroom.now();
        let spent = receipt.outcomes.iter().any(|outcome| outcome.as_ref().map_or_else(costs, |_| true));
        let hint = receipt.outcomes.iter().find_map(|outcome| {
            match outcome.as_ref().map_err(TransportError::failure) {
                Err(Failure::RetryAfter(hint)) => hint,
                _ => None,
            }
        });
        let due_at = match (spent, random().map(u64::from_be_bytes)) {
            (true, seed) => Schedule::default().next(claimed.attempt, now, hint, seed.unwrap_or_default()),
            (false, _) => now + hint.unwrap_or_default(),
        };
        let last = claimed.attempt >= self.worker.postroom.ports.options.attempts;
        let results = claimed.recipients.iter().zip(&receipt.outcomes);
        let results = results
            .map(|((place, _), outcome)| {
                let (event, detail) = verdict(outcome, spent && last);
                RecipientResult { recipient: *place, event, detail }
            })
            .collect();
        let answered = receipt.outcomes.iter().any(|outcome| match outcome {
            Ok(_) => true,
            Err(error) => matches!(
                error.kind(),
                TransportKind::Refused | TransportKind::Deferred | TransportKind::TooLarge
            ),
        });
        if receipt.outcomes.iter().any(Result::is_ok) {
            self.worker.lanes.succeeded(claimed.outbox, now, self.registered());
        }
        let mut errors = receipt.outcomes.into_iter().filter_map(Result::err);
        let limit = errors.find(limits);
        if let Some(error) = &limit {
            self.learns(error);
        }
        let attempt = if spent { Attempt::Spent } else { Attempt::Free };
        self.settling.add(Verdict { claimed, results, due_at, attempt, works: answered, limit });
    }
}

/// Whether a failure is about this mail and so costs it an attempt; a limit, a stop, a lost sign-in, or what only a person
/// can mend is not.
fn costs(error: &TransportError) -> bool {
    !matches!(
        error.kind(),
        TransportKind::Throttled
            | TransportKind::Stopped
            | TransportKind::Reauthorise
            | TransportKind::SignInUnavailable
    ) && error.failure() != Failure::Suspend
        && (error.stage() >= Stage::MailFrom || error.failure() == Failure::GiveUp)
}

/// Whether a failure of one mail says that the whole outbox should rest.
fn limits(error: &TransportError) -> bool {
    error.kind() == TransportKind::Throttled || error.failure() == Failure::Suspend
}

/// What an outcome does to its recipient, and what the timeline says.
fn verdict(outcome: &Result<Reply, TransportError>, last: bool) -> (Event, String) {
    match outcome {
        Ok(reply) => (Event::Accept, reply.to_string()),
        Err(error) => {
            let event = match error.failure() {
                Failure::GiveUp => Event::Refuse,
                Failure::RetryAfter(_) if error.kind() == TransportKind::Stopped => Event::Release,
                Failure::RetryAfter(_) if last => Event::Die,
                Failure::RetryAfter(_) | Failure::Suspend => Event::Defer,
                Failure::Doubt => Event::Doubt,
            };
            (event, said(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_one_consequence_for_its_recipient() {
        let check = |kind, stage, last, want| {
            let outcome = Err(TransportError::new(kind, stage).with_reply("550 5.1.1 no such user"));
            let (event, detail) = verdict(&outcome, last);
            assert_eq!(event, want, "{kind:?} at {stage}");
            assert!(detail.contains("no such user") && detail.contains(';'), "{detail}");
        };
        check(TransportKind::Refused, Stage::RcptTo, false, Event::Refuse);
        check(TransportKind::Deferred, Stage::RcptTo, false, Event::Defer);
        check(TransportKind::Deferred, Stage::Dot, true, Event::Die);
        check(TransportKind::Unanswered, Stage::Dot, true, Event::Doubt);
        check(TransportKind::Disconnected, Stage::Data, false, Event::Defer);
        check(TransportKind::Stopped, Stage::Data, true, Event::Release);
        assert_eq!(
            verdict(&Ok(Reply::new(250, Some((2, 0, 0)), "ok")), true),
            (Event::Accept, "250 2.0.0 ok".into())
        );
    }

    #[test]
    fn limits_and_stops_cost_a_mail_no_attempt() {
        for (kind, stage, want) in [
            (TransportKind::Throttled, Stage::MailFrom, false),
            (TransportKind::Stopped, Stage::Data, false),
            (TransportKind::SignInRefused, Stage::MailFrom, false),
            (TransportKind::Settings, Stage::Dot, false),
            (TransportKind::Disconnected, Stage::Greeting, false),
            (TransportKind::Disconnected, Stage::Data, true),
            (TransportKind::Deferred, Stage::RcptTo, true),
            (TransportKind::TooLarge, Stage::Prepare, true),
            (TransportKind::Unanswered, Stage::Dot, true),
        ] {
            assert_eq!(costs(&TransportError::new(kind, stage)), want, "{kind:?}");
        }
    }
}
