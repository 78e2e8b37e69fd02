//! What changes in a mail of the queue: claim, mark, settlement, sweep, a person's decision. States change through
//! [`State::on`] only, and each change comes with its timeline entry.

use std::collections::BTreeMap;

use postroom_core::id::{Actor, ClaimId, QueueId};
use postroom_core::message::OnDoubt;
use postroom_core::queue::{Event, Prepared, State};
use postroom_core::time::Timestamp;

use super::lease::Lease;
use crate::error::{Error, ErrorKind, Result};
use crate::queue::{Attempt, RecipientResult, Settled, Settlement, Sweep, TimelineEntry};
use crate::suppressions::{Outcome, RecipientReport};

/// What the timeline says of a doubt whose attempt told nothing: which recipients the server took is not known.
pub const UNREPORTED: &str = "the lease ran out after the mark";
const UNTOLD: &str = "the worker gave no result that fits its state";
/// What is said of a mail that can't be sent again, in place of its state.
pub const CONTENT_GONE: &str = "finished, whose content retention removed";
/// What the timeline says of a doubt by a recovery.
pub const RESTORED: &str = "the database was restored, and it may have been sent since the backup";

/// Whether an entry is the doubt of an attempt that told of it itself: the server had taken this recipient.
#[must_use]
pub fn is_reported(entry: &TimelineEntry) -> bool {
    let is_doubt = entry.what == Event::Doubt.word() && entry.state == Some(State::InDoubt);
    is_doubt && entry.actor.is_none() && ![UNREPORTED, UNTOLD].contains(&entry.detail.as_str())
}

/// What changes of one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "two columns of a row")]
pub struct RecipientRow {
    /// Its state.
    pub state: State,
    /// While it is in doubt, the claim that left the doubt: only that attempt's late answer settles it.
    pub doubted_by: Option<ClaimId>,
}

/// What changes of one mail. All times, attempts and claims are the mail's; states are its recipients'.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the columns of a row")]
pub struct QueueRow {
    /// When it was submitted.
    pub created_at: Timestamp,
    /// Not sent from here on.
    pub expires_at: Timestamp,
    /// When it is due, while a recipient is queued.
    pub due_at: Timestamp,
    /// What happens in doubt.
    pub on_doubt: OnDoubt,
    /// Attempts that were spent.
    pub attempts: u32,
    /// The claim, while a worker has it.
    pub lease: Option<Lease>,
    /// The recipients, by place.
    pub recipients: Vec<RecipientRow>,
}

impl QueueRow {
    /// A mail that is submitted, with its first timeline entry.
    #[must_use]
    pub fn enqueue(now: Timestamp, mail: &Prepared) -> (Self, TimelineEntry) {
        let state = if mail.resolution.held { State::Held } else { State::Queued };
        let recipients = vec![RecipientRow { state, doubted_by: None }; mail.recipients.len()];
        let row = Self {
            created_at: now,
            expires_at: mail.expires_at,
            due_at: mail.not_before.unwrap_or(now).max(now),
            on_doubt: mail.on_doubt,
            attempts: 0,
            lease: None,
            recipients,
        };
        let reasons: Vec<String> = mail.resolution.reasons.iter().map(ToString::to_string).collect();
        let (outbox, sender) = (mail.resolution.outbox, &mail.resolution.sender);
        let detail = format!("outbox {outbox} as {sender}: {}", reasons.join(", "));
        (row, TimelineEntry { detail, ..entry(now, None, state.word(), Some(state)) })
    }

    /// The least finished state of the recipients.
    #[must_use]
    pub fn state(&self) -> State {
        State::of_message(self.recipients.iter().map(|one| one.state)).unwrap_or(State::Dead)
    }

    /// Whether every recipient's state is final: the mail leaves the hot rows, and no longer counts as queued.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.recipients.iter().all(|one| one.state.is_final())
    }

    /// Whether a recipient waits for a worker.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.lease.is_none() && self.recipients.iter().any(|one| one.state == State::Queued)
    }

    /// How many recipients wait for a worker.
    #[must_use]
    pub fn queued(&self) -> u64 {
        let queued = self.recipients.iter().filter(|one| one.state == State::Queued);
        u64::try_from(queued.count()).unwrap_or(u64::MAX)
    }

    /// Whether a worker may claim it at `now`, as far as the mail itself is concerned.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.due_at <= now && self.expires_at > now && self.is_waiting()
    }

    /// The earliest time after `now` at which it may become due, its lease or the mail itself runs out.
    #[must_use]
    pub fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        let open = self.recipients.iter().any(|one| one.state.on(Event::Expire).is_some());
        let lease = self.lease.map(|lease| lease.until);
        let due = self.is_waiting().then_some(self.due_at);
        let expiry = open.then_some(self.expires_at);
        [lease, due, expiry].into_iter().flatten().filter(|at| *at > now).min()
    }

    /// Claims all queued recipients of a mail that is due. Gives their places.
    pub fn claim(&mut self, now: Timestamp, lease: Lease) -> (Vec<u32>, TimelineEntry) {
        let claimed = self.move_all(Event::Claim);
        self.lease = Some(lease);
        let detail = format!("attempt {}", self.attempts.saturating_add(1));
        (claimed, TimelineEntry { detail, ..entry(now, None, Event::Claim.word(), Some(State::Claimed)) })
    }

    /// Ends a claimed mail whose row can't be read, so that it alone fails and not every claim of its outbox.
    pub fn bury(
        &mut self,
        now: Timestamp,
        id: QueueId,
        claim: ClaimId,
        places: &[u32],
    ) -> Vec<TimelineEntry> {
        let detail = "its row can't be read: it is damaged, or of a newer release".to_owned();
        let result = |recipient: &u32| RecipientResult {
            recipient: *recipient,
            event: Event::Die,
            detail: detail.clone(),
        };
        let results = places.iter().map(result).collect();
        self.settle(now, &Settlement { id, claim, results, due_at: now, attempt: Attempt::Spent }).1
    }

    /// Marks all recipients of a claim that is live at `now`; none for a claim that is not. Marking again what is
    /// marked changes nothing, so a mark whose commit has an unknown outcome can be repeated.
    pub fn mark(&mut self, now: Timestamp, claim: ClaimId) -> Option<Vec<TimelineEntry>> {
        self.lease.filter(|lease| lease.claim == claim && lease.is_live(now))?;
        let marked = self.move_all(Event::Mark);
        let told = (!marked.is_empty()).then(|| entry(now, None, Event::Mark.word(), Some(State::Crossing)));
        Some(told.into_iter().collect())
    }

    fn move_all(&mut self, event: Event) -> Vec<u32> {
        let mut moved = Vec::new();
        for (place, one) in (0..).zip(&mut self.recipients) {
            if let Some(state) = one.state.on(event) {
                one.state = state;
                moved.push(place);
            }
        }
        moved
    }

    /// Applies what became of a claim: see [`Settled`].
    ///
    /// A claimed recipient that has no result, or one that its state has no way for, is released before the mark and in
    /// doubt after it: never sent twice by mistake, never lost.
    pub fn settle(&mut self, now: Timestamp, settlement: &Settlement) -> (Settled, Vec<TimelineEntry>) {
        if self.lease.is_some_and(|lease| lease.claim == settlement.claim) {
            (Settled::Applied, self.apply(now, settlement))
        } else {
            self.answer_late(now, settlement)
        }
    }

    fn apply(&mut self, now: Timestamp, settlement: &Settlement) -> Vec<TimelineEntry> {
        let mut results: BTreeMap<u32, &RecipientResult> =
            settlement.results.iter().map(|result| (result.recipient, result)).collect();
        let mut log = Vec::new();
        let mut doubted = false;
        for (place, one) in (0..).zip(&mut self.recipients) {
            let without = match one.state {
                State::Claimed => Event::Release,
                State::Crossing => Event::Doubt,
                _ => continue,
            };
            let (event, detail) = match results.remove(&place) {
                Some(result) if ends_claim(one.state, result.event) => (result.event, result.detail.as_str()),
                Some(result) => {
                    log.push(told(now, result, "ignored", None));
                    (without, UNTOLD)
                }
                None => (without, UNTOLD),
            };
            doubted |= event == Event::Doubt;
            one.end(now, place, event, detail, settlement.claim, self.on_doubt, &mut log);
        }
        log.extend(results.into_values().map(|result| told(now, result, "ignored", None)));
        self.lease = None;
        self.due_at = settlement.due_at;
        // Whoever doubts has sent: the attempt counts, whatever the worker says.
        if doubted || settlement.attempt == Attempt::Spent {
            self.attempts = self.attempts.saturating_add(1);
        }
        log
    }

    fn answer_late(&mut self, now: Timestamp, settlement: &Settlement) -> (Settled, Vec<TimelineEntry>) {
        let mut settled = Settled::Ignored;
        let mut log = Vec::new();
        for result in &settlement.results {
            let event = match result.event {
                Event::Accept | Event::Refuse => Some(result.event),
                // A late 4xx proves that the server did not take it.
                Event::Defer => Some(Event::Retry),
                _ => None,
            };
            let place = usize::try_from(result.recipient).unwrap_or(usize::MAX);
            let doubted =
                self.recipients.get_mut(place).filter(|one| one.doubted_by == Some(settlement.claim));
            let Some((one, state)) = doubted.and_then(|one| {
                let state = one.state.on(event?)?;
                Some((one, state))
            }) else {
                log.push(told(now, result, "ignored", None));
                continue;
            };
            *one = RecipientRow { state, doubted_by: None };
            if state == State::Queued {
                self.due_at = settlement.due_at;
            }
            settled = Settled::Late;
            log.push(told(now, result, "late", Some(state)));
        }
        (settled, log)
    }

    /// Ends the claim if its lease ran out, and expires what waits if the mail's time ran out. A worker that died costs
    /// an attempt: a mail that kills its worker each time must come to an end.
    pub fn sweep(&mut self, now: Timestamp) -> (Sweep, Vec<TimelineEntry>) {
        let (mut sweep, mut log) = (Sweep::default(), Vec::new());
        self.end_lease(now, &mut sweep, &mut log);
        if self.expires_at <= now {
            for place in self.move_all(Event::Expire) {
                sweep.expired += 1;
                log.push(entry(now, Some(place), Event::Expire.word(), Some(State::Expired)));
            }
        }
        (sweep, log)
    }

    /// Ends the claim if its lease ran out.
    fn end_lease(&mut self, now: Timestamp, sweep: &mut Sweep, log: &mut Vec<TimelineEntry>) {
        if let Some(lease) = self.lease.filter(|lease| !lease.is_live(now)) {
            let mut doubted = false;
            for (place, one) in (0..).zip(&mut self.recipients) {
                let (event, detail) = match one.state {
                    State::Claimed => (Event::Release, "the lease ran out before the mark"),
                    State::Crossing => (Event::Doubt, UNREPORTED),
                    _ => continue,
                };
                doubted |= event == Event::Doubt;
                one.end(now, place, event, detail, lease.claim, self.on_doubt, log);
            }
            self.lease = None;
            self.due_at = now;
            self.attempts = self.attempts.saturating_add(1);
            *(if doubted { &mut sweep.doubted } else { &mut sweep.released }) += 1;
        }
    }

    /// Puts what waits in doubt, by a person's order after the database was restored, also what a dead worker had in hand.
    /// `claim` is one that no attempt ever had. None when a live worker has the mail.
    pub fn recover(&mut self, now: Timestamp, actor: &Actor, claim: ClaimId) -> Option<Vec<TimelineEntry>> {
        if self.lease.is_some_and(|lease| lease.is_live(now)) {
            return None;
        }
        let mut log = Vec::new();
        self.end_lease(now, &mut Sweep::default(), &mut log);
        for place in self.move_all(Event::Doubt) {
            if let Some(one) = usize::try_from(place).ok().and_then(|place| self.recipients.get_mut(place)) {
                one.doubted_by = Some(claim);
            }
            let (actor, detail) = (Some(actor.clone()), RESTORED.to_owned());
            let told = entry(now, Some(place), Event::Doubt.word(), Some(State::InDoubt));
            log.push(TimelineEntry { actor, detail, ..told });
        }
        Some(log)
    }

    /// Accepts what the attempt `claim` left in doubt, since the mail was found at the server.
    ///
    /// Nothing changes when somebody has settled that doubt meanwhile, and when the find proves nothing of this attempt: the
    /// server took the mail for another recipient, or may be taking it, or another attempt is in doubt as well, and it could be theirs.
    pub fn prove(&mut self, now: Timestamp, claim: ClaimId, detail: &str) -> Vec<TimelineEntry> {
        let doubts = self.recipients.iter().filter(|one| one.state == State::InDoubt);
        let is_alone = doubts.clone().count() > 0 && doubts.clone().all(|one| one.doubted_by == Some(claim));
        let is_taken =
            |one: &RecipientRow| matches!(one.state, State::Accepted | State::Bounced | State::Crossing);
        if !is_alone || self.recipients.iter().any(is_taken) {
            return Vec::new();
        }
        let mut log = Vec::new();
        for (place, one) in (0..).zip(&mut self.recipients) {
            if one.doubted_by == Some(claim)
                && let Some(state) = one.state.on(Event::Accept)
            {
                *one = RecipientRow { state, doubted_by: None };
                let told = entry(now, Some(place), Event::Accept.word(), Some(state));
                log.push(TimelineEntry { detail: detail.to_owned(), ..told });
            }
        }
        log
    }

    /// Applies a person's decision to every recipient whose state has that way. What is queued again is due at once; a
    /// retry counts attempts anew, and gives a mail whose time ran out as much time again.
    ///
    /// # Errors
    /// [`ErrorKind::NotPossible`] when a worker has the mail, no recipient has that way, or it is no person's event.
    pub fn decide(&mut self, now: Timestamp, actor: &Actor, event: Event) -> Result<Vec<TimelineEntry>> {
        let is_persons = matches!(
            event,
            Event::Retry | Event::Cancel | Event::Hold | Event::Unhold | Event::Accept | Event::Refuse
        );
        let refused = ErrorKind::NotPossible { state: self.state().word() };
        let moved = if is_persons && self.lease.is_none() { self.move_all(event) } else { Vec::new() };
        if moved.is_empty() {
            return Err(Error::new(refused, "decide on a mail"));
        }
        let mut log = Vec::new();
        for (place, one) in (0..).zip(&mut self.recipients) {
            if moved.contains(&place) {
                one.doubted_by = None;
                let actor = Some(actor.clone());
                log.push(TimelineEntry { actor, ..entry(now, Some(place), event.word(), Some(one.state)) });
            }
        }
        if matches!(event, Event::Retry | Event::Unhold) {
            self.due_at = now;
        }
        if event == Event::Retry {
            self.attempts = 0;
            if self.expires_at <= now {
                self.expires_at = now + self.expires_at.since(self.created_at);
            }
        }
        Ok(log)
    }
}

impl QueueRow {
    /// Tells what a report says of a recipient. Gives whether its state changed: what was accepted and came back is bounced, and so is
    /// what was in doubt, since whoever sends it back has had it.
    pub fn report(&mut self, now: Timestamp, report: &RecipientReport, log: &mut Vec<TimelineEntry>) -> bool {
        let place = report.recipient;
        let index = usize::try_from(place).unwrap_or(usize::MAX);
        let Some(one) = self.recipients.get_mut(index) else { return false };
        let told = |what: &str, state| TimelineEntry {
            detail: report.detail.clone(),
            ..entry(now, Some(place), what, state)
        };
        let taken = if one.state == State::InDoubt { one.state.on(Event::Accept) } else { Some(one.state) };
        let bounced =
            taken.filter(|_| report.outcome == Outcome::Bounced).and_then(|state| state.on(Event::Bounce));
        let Some(state) = bounced else {
            // The same report once more says nothing new.
            if one.state != State::Bounced {
                log.push(told("report", None));
            }
            return false;
        };
        if one.state == State::InDoubt {
            log.push(told(Event::Accept.word(), taken));
        }
        *one = RecipientRow { state, doubted_by: None };
        log.push(told(Event::Bounce.word(), Some(state)));
        true
    }

    /// Tells that another outbox sends it. No state changes: what the new outbox takes over is what no server had.
    ///
    /// # Errors
    /// [`ErrorKind::NotPossible`] with the first state that says that a server has it or may have it.
    pub fn reroute(&self, now: Timestamp, actor: &Actor, detail: String) -> Result<TimelineEntry> {
        let is_bound = |state: &State| {
            matches!(
                state,
                State::Claimed | State::Crossing | State::InDoubt | State::Accepted | State::Bounced
            )
        };
        if let Some(state) = self.recipients.iter().map(|one| one.state).find(is_bound) {
            return Err(Error::new(ErrorKind::NotPossible { state: state.word() }, "reroute a mail"));
        }
        let actor = Some(actor.clone());
        Ok(TimelineEntry { detail, actor, ..entry(now, None, "reroute", None) })
    }
}

impl RecipientRow {
    /// Ends a recipient's part of a claim. A doubt that the mail itself resolves by sending again does so here.
    #[expect(clippy::too_many_arguments, reason = "one place for what settlement and sweep share")]
    fn end(
        &mut self,
        now: Timestamp,
        place: u32,
        event: Event,
        detail: &str,
        claim: ClaimId,
        on_doubt: OnDoubt,
        log: &mut Vec<TimelineEntry>,
    ) {
        let Some(state) = self.state.on(event) else { return };
        let doubted_by = (state == State::InDoubt).then_some(claim);
        *self = Self { state, doubted_by };
        log.push(TimelineEntry {
            detail: detail.to_owned(),
            ..entry(now, Some(place), event.word(), Some(state))
        });
        if on_doubt == OnDoubt::Resend
            && state == State::InDoubt
            && let Some(state) = state.on(Event::Retry)
        {
            *self = Self { state, doubted_by: None };
            let detail = "the mail says that a duplicate is better than a loss".to_owned();
            log.push(TimelineEntry { detail, ..entry(now, Some(place), Event::Retry.word(), Some(state)) });
        }
    }
}

/// Whether an event takes a recipient out of its worker's hands: a settlement that marks or claims is none.
fn ends_claim(state: State, event: Event) -> bool {
    state.on(event).is_some_and(|after| !matches!(after, State::Claimed | State::Crossing))
}

fn entry(at: Timestamp, recipient: Option<u32>, what: &str, state: Option<State>) -> TimelineEntry {
    TimelineEntry { at, recipient, what: what.to_owned(), state, detail: String::new(), actor: None }
}

fn told(now: Timestamp, result: &RecipientResult, what: &str, state: Option<State>) -> TimelineEntry {
    let detail = format!("{}: {}", result.event, result.detail);
    TimelineEntry { detail, ..entry(now, Some(result.recipient), what, state) }
}
