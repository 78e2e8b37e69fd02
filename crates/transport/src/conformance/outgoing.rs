//! The suite over [`OutgoingTransport`]. Numbers in the cases are the clauses of [`OutgoingTransport::carry`].

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::address::Address;
use postroom_core::failure::Failure;
use postroom_core::id::ClaimId;
use postroom_core::time::Timestamp;
use tokio::sync::{Notify, watch};

use crate::error::{ErrorKind, Stage};
use crate::outgoing::{Crossing, Job, Lane, OutgoingTransport, Receipt};
use crate::route::Route;

/// A mail as the server got it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Taken {
    /// The return path; empty for `<>`.
    pub mail_from: String,
    /// The accepted recipients, in order.
    pub recipients: Vec<String>,
    /// Its bytes, not stuffed.
    pub content: Bytes,
}

impl Taken {
    /// A mail as the server got it.
    #[must_use]
    pub fn new(mail_from: impl Into<String>, recipients: Vec<String>, content: Bytes) -> Self {
        Self { mail_from: mail_from.into(), recipients, content }
    }
}

/// An adapter with a server of its own that can be looked into.
pub trait OutgoingPeer: Send + Sync {
    /// The adapter.
    fn transport(&self) -> &dyn OutgoingTransport;

    /// The way to the server. Its mailbox number is not 0.
    fn route(&self) -> Route;

    /// Makes the server unreachable from now on, or gives a way to one that is.
    fn dead_route(&self) -> Route;

    /// Makes the server refuse a recipient for good, from now on.
    fn refuse(&self, recipient: &Address);

    /// Every mail that the server has accepted, in order.
    fn taken(&self) -> Vec<Taken>;

    /// How many connections the server has seen.
    fn connections(&self) -> usize;
}

/// Runs every case, each over a new peer.
///
/// # Panics
/// When a clause is broken.
pub async fn outgoing<P: OutgoingPeer>(make: impl AsyncFn() -> P) {
    a_mail_arrives_as_it_was_given(&make().await).await;
    a_dead_server_costs_no_job(&make().await).await;
    a_refused_recipient_does_not_stop_the_others(&make().await).await;
    nobody_is_asked_to_cross_when_all_recipients_are_refused(&make().await).await;
    no_dot_without_go(&make().await).await;
    a_job_behind_a_stop_is_given_back(&make().await).await;
    each_job_is_finished_once_with_a_result_for_each_recipient(&make().await).await;
    a_lane_may_wait_until_the_mail_in_hand_is_finished(&make().await).await;
    a_lane_that_had_no_job_while_one_was_in_hand_is_asked_again(&make().await).await;
    a_lane_without_jobs_ends_well(&make().await).await;
    a_dropped_connection_is_never_used_again(&make().await).await;
    a_parked_connection_that_was_closed_is_not_used_again(&make().await).await;
    a_probe_sends_nothing(&make().await).await;
}

/// What happened in a lane, in order.
#[derive(Debug, Clone)]
enum Event {
    /// With how many mails the server had at that moment.
    Asked(usize),
    Finished(ClaimId, Receipt),
}

/// A lane over given jobs, which notes what happens.
struct Script<'a> {
    peer: &'a dyn OutgoingPeer,
    jobs: Mutex<VecDeque<Job>>,
    crossing: Option<Crossing>,
    events: Mutex<Vec<Event>>,
    asked: Notify,
}

impl<'a> Script<'a> {
    /// With no answer to crossing it lets the transport wait for ever.
    fn new(peer: &'a dyn OutgoingPeer, jobs: Vec<Job>, crossing: Option<Crossing>) -> Self {
        let (jobs, events) = (Mutex::new(jobs.into()), Mutex::default());
        Self { peer, jobs, crossing, events, asked: Notify::new() }
    }

    fn events(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receipt(&self, attempt: ClaimId) -> Receipt {
        let events = self.events();
        let mut found = events.iter().filter_map(|event| match event {
            Event::Finished(of, receipt) if *of == attempt => Some(receipt.clone()),
            _ => None,
        });
        let receipt = found.next();
        assert!(found.next().is_none(), "clause 4: finished more than once");
        match receipt {
            Some(receipt) => receipt,
            None => panic!("clause 4: {attempt} was not finished"),
        }
    }

    fn left(&self) -> usize {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn asked(&self) -> usize {
        self.events().iter().filter(|event| matches!(event, Event::Asked(..))).count()
    }
}

#[async_trait]
impl Lane for Script<'_> {
    async fn next(&self) -> Option<Job> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    async fn about_to_cross(&self, _: ClaimId) -> Crossing {
        self.events().push(Event::Asked(self.peer.taken().len()));
        self.asked.notify_one();
        match self.crossing {
            Some(crossing) => crossing,
            None => std::future::pending().await,
        }
    }

    async fn finished(&self, attempt: ClaimId, receipt: Receipt) {
        self.events().push(Event::Finished(attempt, receipt));
    }
}

fn address(text: &str) -> Address {
    match Address::parse(text) {
        Ok(address) => address,
        Err(invalid) => panic!("{text}: {invalid}"),
    }
}

/// The `number`th job, to these local parts.
fn job(number: u8, recipients: &[&str]) -> Job {
    let attempt = ClaimId::new(Timestamp::from_millis(0), [number; 10]);
    let recipients = recipients.iter().map(|local| address(&format!("{local}@acme.example"))).collect();
    let content = format!("Subject: job {number}\r\n\r\n.a line with a dot\r\n..\r\n.\r\n{number}\r\n");
    Job::new(attempt, Some(address("desk@host.example")), recipients, content.into())
}

fn expected(job: &Job, recipients: &[&str]) -> Taken {
    let recipients = recipients.iter().map(|local| format!("{local}@acme.example")).collect();
    let mail_from = job.mail_from.as_ref().map(ToString::to_string).unwrap_or_default();
    Taken { mail_from, recipients, content: job.content.clone() }
}

async fn a_mail_arrives_as_it_was_given(peer: &dyn OutgoingPeer) {
    let first = job(1, &["ana", "rui"]);
    let bounce =
        Job::new(job(2, &[]).attempt, None, vec![address("ana@acme.example")], first.content.clone());
    let lane = Script::new(peer, vec![first.clone(), bounce.clone()], Some(Crossing::Go));
    let carried = peer.transport().carry(&peer.route(), &lane).await;
    assert!(carried.is_ok(), "clause 5: {carried:?}");
    assert_eq!(peer.taken(), [expected(&first, &["ana", "rui"]), expected(&bounce, &["ana"])], "clause 2");
    for job in [&first, &bounce] {
        let receipt = lane.receipt(job.attempt);
        assert_eq!(receipt.outcomes.len(), job.recipients.len(), "clause 4");
        assert!(receipt.outcomes.iter().all(Result::is_ok), "clause 4: {receipt:?}");
    }
    let asked: Vec<usize> = lane.events().iter().filter_map(Event::had).collect();
    assert_eq!(asked, [0, 1], "clause 3: asked before the dot, once for each job");
}

impl Event {
    fn had(&self) -> Option<usize> {
        match self {
            Self::Asked(had) => Some(*had),
            Self::Finished(..) => None,
        }
    }
}

async fn a_dead_server_costs_no_job(peer: &dyn OutgoingPeer) {
    let lane = Script::new(peer, vec![job(1, &["ana"])], Some(Crossing::Go));
    let carried = peer.transport().carry(&peer.dead_route(), &lane).await;
    assert!(carried.is_err_and(|error| error.stage() < Stage::MailFrom), "clause 1");
    let left = lane.jobs.lock().unwrap_or_else(PoisonError::into_inner).len();
    assert_eq!(left, 1, "clause 1");
}

async fn a_refused_recipient_does_not_stop_the_others(peer: &dyn OutgoingPeer) {
    peer.refuse(&address("gone@acme.example"));
    let mixed = job(1, &["ana", "gone", "rui"]);
    let lane = Script::new(peer, vec![mixed.clone()], Some(Crossing::Go));
    let carried = peer.transport().carry(&peer.route(), &lane).await;
    assert!(carried.is_ok(), "clause 5: {carried:?}");
    assert_eq!(peer.taken(), [expected(&mixed, &["ana", "rui"])], "clause 2");
    let outcomes = lane.receipt(mixed.attempt).outcomes;
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "clause 2: {outcomes:?}");
    let refusal = outcomes[1].as_ref().err().map(|error| (error.stage() < Stage::Dot, error.failure()));
    assert_eq!(refusal, Some((true, Failure::GiveUp)), "clause 4: {outcomes:?}");
}

async fn nobody_is_asked_to_cross_when_all_recipients_are_refused(peer: &dyn OutgoingPeer) {
    peer.refuse(&address("gone@acme.example"));
    peer.refuse(&address("lost@acme.example"));
    let (refused, good) = (job(1, &["gone", "lost"]), job(2, &["ana"]));
    let lane = Script::new(peer, vec![refused.clone(), good.clone()], Some(Crossing::Go));
    let carried = peer.transport().carry(&peer.route(), &lane).await;
    assert!(carried.is_ok(), "clause 5: {carried:?}");
    assert_eq!(lane.asked(), 1, "clause 3");
    assert_eq!(peer.taken(), [expected(&good, &["ana"])]);
    assert!(lane.receipt(refused.attempt).outcomes.iter().all(Result::is_err), "clause 4");
}

async fn no_dot_without_go(peer: &dyn OutgoingPeer) {
    let stopped = job(1, &["ana", "rui"]);
    let lane = Script::new(peer, vec![stopped.clone()], Some(Crossing::Stop));
    let carried = peer.transport().carry(&peer.route(), &lane).await;
    assert!(
        carried.is_err_and(|error| error.kind() == ErrorKind::Stopped),
        "the connection ends with the stop"
    );
    let outcomes = lane.receipt(stopped.attempt).outcomes;
    assert_eq!(outcomes.len(), 2, "clause 4");
    for outcome in &outcomes {
        let error = outcome.as_ref().err().map(|error| (error.kind(), error.stage() < Stage::Dot));
        assert_eq!(error, Some((ErrorKind::Stopped, true)), "clause 3: {outcomes:?}");
    }
    // Another mail is taken behind it: had the first left late, it would stand before.
    let after = job(2, &["ana"]);
    let lane = Script::new(peer, vec![after.clone()], Some(Crossing::Go));
    let carried = peer.transport().carry(&peer.route(), &lane).await;
    assert!(carried.is_ok(), "clause 5: {carried:?}");
    assert_eq!(peer.taken(), [expected(&after, &["ana"])], "clause 3");
}

async fn a_job_behind_a_stop_is_given_back(peer: &dyn OutgoingPeer) {
    let (stopped, behind) = (job(1, &["ana"]), job(2, &["rui", "eva"]));
    let lane = Script::new(peer, vec![stopped.clone(), behind.clone()], Some(Crossing::Stop));
    let carried = peer.transport().carry(&peer.route(), &lane).await;
    assert!(carried.is_err_and(|error| error.kind() == ErrorKind::Stopped), "clause 3");
    assert_eq!(lane.asked(), 1, "clause 3: the connection is closed");
    // A transport that asks ahead has taken it; another has not.
    if lane.left() == 0 {
        let outcomes = lane.receipt(behind.attempt).outcomes;
        assert_eq!(outcomes.len(), 2, "clause 4");
        for outcome in &outcomes {
            let error = outcome.as_ref().err().map(|error| (error.kind(), error.stage() < Stage::Dot));
            assert_eq!(error, Some((ErrorKind::Stopped, true)), "clause 4: {outcomes:?}");
        }
    }
    assert_eq!(peer.taken(), [], "clause 3");
}

/// A lane of two jobs. With the first in hand it waits until that is finished, or says that there is none.
struct Halting<'a> {
    script: Script<'a>,
    waits: bool,
    in_hand: watch::Sender<bool>,
}

impl<'a> Halting<'a> {
    fn new(peer: &'a dyn OutgoingPeer, waits: bool) -> Self {
        let jobs = vec![job(1, &["ana"]), job(2, &["rui"])];
        let script = Script::new(peer, jobs, Some(Crossing::Go));
        Self { script, waits, in_hand: watch::Sender::new(false) }
    }

    async fn is_carried(&self) {
        let peer = self.script.peer;
        let carried = peer.transport().carry(&peer.route(), self).await;
        assert!(carried.is_ok(), "clause 5: {carried:?}");
        assert_eq!(peer.taken().len(), 2, "Lane::next");
        for number in 1..=2 {
            assert!(self.script.receipt(job(number, &[]).attempt).outcomes[0].is_ok(), "clause 4");
        }
    }
}

#[async_trait]
impl Lane for Halting<'_> {
    async fn next(&self) -> Option<Job> {
        if *self.in_hand.borrow() {
            if !self.waits {
                return None;
            }
            // The sender is in `self`: it can't end otherwise.
            let _ = self.in_hand.subscribe().wait_for(|in_hand| !in_hand).await;
        }
        let next = self.script.next().await;
        self.in_hand.send_replace(next.is_some());
        next
    }

    async fn about_to_cross(&self, attempt: ClaimId) -> Crossing {
        self.script.about_to_cross(attempt).await
    }

    async fn finished(&self, attempt: ClaimId, receipt: Receipt) {
        self.script.finished(attempt, receipt).await;
        self.in_hand.send_replace(false);
    }
}

async fn a_lane_may_wait_until_the_mail_in_hand_is_finished(peer: &dyn OutgoingPeer) {
    Halting::new(peer, true).is_carried().await;
}

async fn a_lane_that_had_no_job_while_one_was_in_hand_is_asked_again(peer: &dyn OutgoingPeer) {
    Halting::new(peer, false).is_carried().await;
}

async fn each_job_is_finished_once_with_a_result_for_each_recipient(peer: &dyn OutgoingPeer) {
    peer.refuse(&address("gone@acme.example"));
    let jobs: Vec<Job> = (1..=20)
        .map(|number| match number % 3 {
            0 => job(number, &["gone"]),
            1 => job(number, &["ana", "gone"]),
            _ => job(number, &["ana", "rui", "eva"]),
        })
        .collect();
    let lane = Script::new(peer, jobs.clone(), Some(Crossing::Go));
    let carried = peer.transport().carry(&peer.route(), &lane).await;
    assert!(carried.is_ok(), "clause 5: {carried:?}");
    for job in &jobs {
        let outcomes = lane.receipt(job.attempt).outcomes;
        let accepted: Vec<bool> = outcomes.iter().map(Result::is_ok).collect();
        let expected: Vec<bool> = job.recipients.iter().map(|to| to.local() != "gone").collect();
        assert_eq!(accepted, expected, "clause 4: {outcomes:?}");
    }
    // One connection has one mail in hand: each is finished before the next is crossed.
    let events = lane.events();
    let mut open = 0;
    for event in events.iter() {
        match event {
            Event::Asked(..) => open += 1,
            Event::Finished(..) => open = 0,
        }
        assert!(open <= 1, "clause 3: {events:?}");
    }
}

async fn a_lane_without_jobs_ends_well(peer: &dyn OutgoingPeer) {
    let lane = Script::new(peer, Vec::new(), Some(Crossing::Go));
    let carried = peer.transport().carry(&peer.route(), &lane).await;
    assert!(carried.is_ok(), "clause 5: {carried:?}");
    assert_eq!(peer.taken(), []);
    peer.transport().close().await;
}

async fn a_dropped_connection_is_never_used_again(peer: &dyn OutgoingPeer) {
    let dropped = job(1, &["ana"]);
    let waiting = Script::new(peer, vec![dropped.clone()], None);
    let route = peer.route();
    tokio::select! {
        _ = peer.transport().carry(&route, &waiting) => panic!("it can't end without an answer"),
        () = waiting.asked.notified() => {}
    }
    let before = peer.connections();
    let next = job(2, &["rui"]);
    let lane = Script::new(peer, vec![next.clone()], Some(Crossing::Go));
    let carried = peer.transport().carry(&route, &lane).await;
    assert!(carried.is_ok(), "cancel safety: {carried:?}");
    assert!(peer.connections() > before, "cancel safety: the dropped connection was used again");
    assert_eq!(peer.taken(), [expected(&next, &["rui"])], "cancel safety");
    let finished = waiting.events().iter().any(|event| matches!(event, Event::Finished(..)));
    assert!(!finished, "cancel safety: a dropped future can finish nothing");
}

async fn a_parked_connection_that_was_closed_is_not_used_again(peer: &dyn OutgoingPeer) {
    let route = peer.route();
    let lane = Script::new(peer, vec![job(1, &["ana"])], Some(Crossing::Go));
    let carried = peer.transport().carry(&route, &lane).await;
    assert!(carried.is_ok(), "{carried:?}");
    let before = peer.connections();
    peer.transport().close_parked(route.mailbox).await;
    let lane = Script::new(peer, vec![job(2, &["ana"])], Some(Crossing::Go));
    let carried = peer.transport().carry(&route, &lane).await;
    assert!(carried.is_ok(), "{carried:?}");
    assert!(peer.connections() > before, "close_parked: the connection was used again");
}

async fn a_probe_sends_nothing(peer: &dyn OutgoingPeer) {
    let senders = [address("desk@host.example"), address("other@host.example")];
    let report = peer.transport().probe(&peer.route(), &senders).await;
    assert!(report.passed(), "probe: {report:?}");
    let of = |stage| report.stages().iter().filter(|(one, _)| *one == stage).count();
    assert_eq!((of(Stage::MailFrom), of(Stage::RcptTo)), (2, 2), "probe: {report:?}");
    let report = peer.transport().probe(&peer.dead_route(), &senders).await;
    assert!(report.failure().is_some_and(|error| error.stage() < Stage::MailFrom), "probe: {report:?}");
    assert_eq!(peer.taken(), [], "probe");
}
