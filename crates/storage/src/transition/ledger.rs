//! What changes in a mail of the ledger: claim, result of the handler, a person's decision. States change through
//! [`State::on`] only, and each change comes with its timeline entry.

use postroom_core::id::{Actor, BodyId, ClaimId, ContractId};
use postroom_core::ledger::{Event, State};
use postroom_core::time::Timestamp;

use super::lease::Lease;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::{Committing, HandlerResult, LedgerEntry, Received};

/// What changes of a received mail.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the columns of a row")]
pub struct LedgerRow {
    /// Its state.
    pub state: State,
    /// The contract.
    pub contract: Option<ContractId>,
    /// Why.
    pub reasons: Vec<String>,
    /// Calls of the handler that were begun since it was stored or replayed.
    pub attempts: u32,
    /// When it is due, while it is stored.
    pub due_at: Timestamp,
    /// The claim, while a worker has it; a lease that ran out stays until the row is claimed again.
    pub lease: Option<Lease>,
    /// The bytes; none for what was never fetched, or once retention removed them.
    pub body: Option<BodyId>,
    /// When its state became final.
    pub finished_at: Option<Timestamp>,
    /// The claim under which that was; none where a person or a rule did it.
    pub finished_by: Option<ClaimId>,
}

impl LedgerRow {
    /// The row of a mail that is stored at `now`.
    #[must_use]
    pub fn received(now: Timestamp, mail: &Received, body: Option<BodyId>) -> Self {
        Self {
            state: mail.state,
            contract: mail.contract.clone(),
            reasons: mail.reasons.clone(),
            attempts: 0,
            due_at: now,
            lease: None,
            // What the baseline left out has nothing that could be kept or removed.
            finished_at: body.filter(|_| mail.state.is_final()).map(|_| now),
            body,
            finished_by: None,
        }
    }

    /// Whether a worker may claim it at `now`, as far as the mail itself is concerned.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        let is_free = self.lease.is_none_or(|lease| !lease.is_live(now));
        self.state == State::Stored && self.body.is_some() && self.due_at <= now && is_free
    }

    /// The earliest time after `now` at which it may become due or its lease runs out.
    #[must_use]
    pub fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        let at = self.lease.map_or(self.due_at, |lease| lease.until);
        (self.state == State::Stored && at > now).then_some(at)
    }

    /// Claims it. Gives which call this is, from 1: a call counts when it begins, so a mail that kills its handler's
    /// process each time comes to an end.
    pub fn claim(&mut self, lease: Lease) -> u32 {
        self.attempts = self.attempts.saturating_add(1);
        self.lease = Some(lease);
        self.attempts
    }

    /// Applies a handler's result, if its claim is the row's.
    ///
    /// # Errors
    /// [`ErrorKind::NotPossible`] for an event that is no handler's.
    pub fn finish(&mut self, now: Timestamp, result: &HandlerResult) -> Result<Option<LedgerEntry>> {
        if self.lease.is_none_or(|lease| lease.claim != result.claim) {
            return Ok(None);
        }
        let mut entry = self.go(now, result.event, "finish a received mail")?;
        self.finished_by = self.finished_at.map(|_| result.claim);
        entry.detail.clone_from(&result.detail);
        if result.event == Event::Defer {
            self.due_at = result.due_at;
            entry.state = None;
        }
        Ok(Some(entry))
    }

    /// Records within the host's transaction that it was handled. None when that stands there already, under the same claim.
    ///
    /// # Errors
    /// [`ErrorKind::StaleClaim`] when the claim is not the row's.
    pub fn complete(&mut self, now: Timestamp, claim: &Committing) -> Result<Option<LedgerEntry>> {
        if self.is_completed(claim.claim) {
            return Ok(None);
        }
        let result = HandlerResult {
            id: claim.id,
            claim: claim.claim,
            event: Event::Handle,
            due_at: now,
            detail: "in the host's transaction".to_owned(),
        };
        let entry = self.finish(now, &result)?;
        entry
            .map(Some)
            .ok_or_else(|| Error::new(ErrorKind::StaleClaim, "complete a received mail with the host"))
    }

    /// Whether it was handled under this claim.
    #[must_use]
    pub fn is_completed(&self, claim: ClaimId) -> bool {
        self.state == State::Handled && self.finished_by == Some(claim)
    }

    /// Has it handled again, with attempts counted anew.
    ///
    /// # Errors
    /// [`ErrorKind::NotPossible`] in a state that has no such way, [`ErrorKind::ContentGone`] without its bytes.
    pub fn replay(&mut self, now: Timestamp, actor: &Actor) -> Result<LedgerEntry> {
        const STAGE: &str = "replay a received mail";
        if self.body.is_none() {
            // In a state that has no such way, that is what there is to say.
            let kind = match self.state.on(Event::Replay) {
                Some(_) => ErrorKind::ContentGone,
                None => ErrorKind::NotPossible { state: self.state.word() },
            };
            return Err(Error::new(kind, STAGE));
        }
        let entry = self.go(now, Event::Replay, STAGE)?;
        Ok(LedgerEntry { actor: Some(actor.clone()), ..entry })
    }

    /// Gives it a contract.
    ///
    /// # Errors
    /// [`ErrorKind::NotPossible`] in a state that has no such way.
    pub fn route(&mut self, now: Timestamp, actor: &Actor, contract: &ContractId) -> Result<LedgerEntry> {
        let entry = self.go(now, Event::Route, "route a received mail")?;
        self.contract = Some(contract.clone());
        self.reasons.push("routed".to_owned());
        Ok(LedgerEntry { actor: Some(actor.clone()), detail: format!("contract {contract}"), ..entry })
    }

    /// Drops it: a person says that it is not wanted.
    ///
    /// # Errors
    /// [`ErrorKind::NotPossible`] in a state that has no such way.
    pub fn ignore(&mut self, now: Timestamp, actor: &Actor) -> Result<LedgerEntry> {
        let entry = self.go(now, Event::Ignore, "ignore a received mail")?;
        Ok(LedgerEntry { actor: Some(actor.clone()), ..entry })
    }

    fn go(&mut self, now: Timestamp, event: Event, stage: &'static str) -> Result<LedgerEntry> {
        let refused = || Error::new(ErrorKind::NotPossible { state: self.state.word() }, stage);
        let state = self.state.on(event).ok_or_else(refused)?;
        self.state = state;
        self.lease = None;
        self.finished_at = state.is_final().then_some(now);
        self.finished_by = None;
        if matches!(event, Event::Replay | Event::Route) {
            self.attempts = 0;
            self.due_at = now;
        }
        Ok(LedgerEntry::new(now, event.word(), Some(state), String::new()))
    }
}
