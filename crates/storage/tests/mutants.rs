//! The suite can fail: stores with one known fault each, and the case that catches it. The faults stand in a wrapper of the
//! store in memory.
#![cfg(feature = "conformance")]

#[path = "mutants/fault.rs"]
mod fault;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::address::Address;
use postroom_core::contract::Contract;
use postroom_core::id::{
    Actor, BodyId, ClaimId, ContractId, EventNumber, LedgerId, MailboxId, QueueId, Revision, StepKey,
    WorkerId,
};
use postroom_core::ledger::{Place, RemoteKey};
use postroom_core::mailbox::Mailbox;
use postroom_core::queue::{Event, Prepared};
use postroom_core::step::Step;
use postroom_core::suppression::Suppression;
use postroom_core::time::Timestamp;
use postroom_storage::conformance::{Subject, cases, check};
use postroom_storage::keyring::{Binding, Sealed};
use postroom_storage::memory::MemoryStore;
use postroom_storage::*;

use fault::{CASES, Fault};

struct Mutant {
    inner: MemoryStore,
    fault: Fault,
    claims: Mutex<BTreeMap<QueueId, Claimed>>,
}

impl Mutant {
    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn last_claim(&self, id: QueueId) -> Option<ClaimId> {
        self.claims.lock().expect("no panic under the lock").get(&id).map(|claimed| claimed.claim)
    }
}

/// Hands methods through to the inner store.
macro_rules! through {
    ($port:ident: $(fn $name:ident $(<$life:lifetime>)? ($($arg:ident: $of:ty),*) -> $gives:ty;)* $(; $($own:tt)*)?) => {
        #[async_trait]
        impl $port for Mutant {
            $(async fn $name $(<$life>)? (&self, $($arg: $of),*) -> Result<$gives> {
                $port::$name(&self.inner, $($arg),*).await
            })*
            $($($own)*)?
        }
    };
}

through! { Mailboxes:
    fn reserve() -> MailboxId;
    fn add(change: &Change, mailbox: &Mailbox, secret: Option<Sealed>) -> ();
    fn mailbox(id: MailboxId) -> Option<Mailbox>;
    fn secret(id: MailboxId) -> Option<Sealed>;
    fn uses(id: MailboxId) -> Uses;
    fn remove(change: &Change, id: MailboxId, replacement: Option<MailboxId>) -> ();
    ;
    async fn save(&self, change: &Change, mailbox: &Mailbox, secret: SecretWrite) -> Result<Revision> {
        let mut mailbox = mailbox.clone();
        if self.is(Fault::SavesStale)
            && let Some(stored) = self.inner.mailbox(mailbox.id).await?
        {
            mailbox.revision = stored.revision;
        }
        self.inner.save(change, &mailbox, secret).await
    }

    async fn search(&self, query: &MailboxQuery) -> Result<Vec<Mailbox>> {
        let mut found = self.inner.search(query).await?;
        if let Some(after) = query.after.as_ref().filter(|_| self.is(Fault::RepeatsRows) && !found.is_empty()) {
            found.insert(0, self.inner.mailbox(after.id).await?.expect("it was on the last page"));
            found.truncate(found.len() - 1);
        }
        Ok(found)
    }
}

through! { Links:
    fn save_contract(change: &Change, contract: &Contract) -> Revision;
    fn contracts<'a>(after: Option<&'a ContractId>, limit: u32) -> Vec<Contract>;
    fn contracts_of(inbox: MailboxId) -> Vec<Contract>;
    fn step(key: &StepKey) -> Option<Step>;
    fn save_step(change: &Change, step: &Step) -> Revision;
    fn steps<'a>(after: Option<&'a StepKey>, limit: u32) -> Vec<Step>;
    ;
    async fn contract(&self, id: &ContractId) -> Result<Option<Contract>> {
        let all = self.inner.contracts(None, u32::MAX).await?;
        let same = |contract: &Contract| match self.fault {
            Fault::IgnoresCase => contract.id.as_str().eq_ignore_ascii_case(id.as_str()),
            _ => contract.id == *id,
        };
        Ok(all.into_iter().find(same))
    }
}

through! { Switches:
    fn standard() -> Option<MailboxId>;
    fn set_standard(change: &Change, outbox: Option<MailboxId>) -> ();
    fn paused() -> Vec<Scope>;
    fn set_switch(change: &Change, scope: &Scope, to: Switch) -> ();
}

through! { HealthBook:
    fn health(mailbox: MailboxId) -> Health;
    fn all_health() -> Vec<Health>;
    fn record(now: Timestamp, mailbox: MailboxId, sign: &Sign) -> ();
    fn clear(now: Timestamp, mailbox: MailboxId) -> ();
    ;
    async fn probe(
        &self,
        now: Timestamp,
        mailbox: MailboxId,
        worker: WorkerId,
        until: Timestamp,
    ) -> Result<bool> {
        let probes = self.inner.probe(now, mailbox, worker, until).await?;
        Ok(probes || self.is(Fault::AllProbe))
    }
}

through! { Forgetting:
    fn forget<'a>(change: &Change, contract: &ContractId, after: Option<&'a QueueId>, limit: u32) -> Forgotten;
    fn waiting(contract: &ContractId) -> Waiting;
}

through! { Budgets:
    fn budget(now: Timestamp, owner: &BudgetOwner) -> BudgetView;
}

through! { Audit:
    fn entries<'a>(subject: Option<&'a str>, after: EventNumber, limit: u32) -> Vec<AuditEntry>;
}

through! { Events: ;
    async fn events(&self, after: EventNumber, limit: u32) -> Result<Vec<EventRecord>> {
        let mut events = self.inner.events(after, limit).await?;
        if self.is(Fault::SkipsEvents) && events.len() > 1 {
            events.remove(0);
        }
        Ok(events)
    }
}

through! { Vault:
    fn put_if_absent(binding: &Binding, sealed: Sealed) -> Sealed;
    fn values(owner: &str) -> Vec<(Binding, Sealed)>;
    ;
    async fn replace(&self, binding: &Binding, from: &Sealed, to: Option<Sealed>) -> Result<bool> {
        let replaced = self.inner.replace(binding, from, to.clone()).await?;
        if replaced || !self.is(Fault::ReplacesBlindly) {
            return Ok(replaced);
        }
        for (_, there) in self.inner.values(&binding.owner).await? {
            self.inner.replace(binding, &there, to.clone()).await?;
        }
        Ok(true)
    }
}

through! { Bodies:
    fn stage(now: Timestamp, id: BodyId, number: u32, piece: Bytes) -> ();
    fn piece(id: BodyId, number: u32) -> Option<Bytes>;
    ;
    async fn sweep(&self, before: Timestamp) -> Result<u64> {
        let all = Timestamp::from_millis(i64::MAX);
        self.inner.sweep(if self.is(Fault::SweepsAll) { all } else { before }).await
    }
}

impl Clock for Mutant {
    fn now(&self) -> Timestamp {
        self.inner.now()
    }
}

through! { Suppressions:
    fn suppressions(now: Timestamp, query: &SuppressionQuery) -> Vec<Suppression>;
    fn suppress(change: &Change, entry: &Suppression) -> ();
    fn unsuppress(change: &Change, contract: &ContractId, address: &Address) -> bool;
    ;
    async fn report(&self, now: Timestamp, id: QueueId, reports: &[RecipientReport]) -> Result<bool> {
        for entry in reports.iter().filter_map(|report| report.suppression.as_ref()) {
            if self.is(Fault::OverridesOperators) {
                let change = Change::new(now, Actor::parse("bounce").expect("actor"));
                self.inner.suppress(&change, entry).await?;
            }
        }
        self.inner.report(now, id, reports).await
    }

    async fn suppressed(&self, now: Timestamp, contract: &ContractId, addresses: &[Address]) -> Result<Vec<Suppression>> {
        let dawn = Timestamp::from_millis(0);
        let now = if self.is(Fault::SuppressesForEver) { dawn } else { now };
        self.inner.suppressed(now, contract, addresses).await
    }
}

through! { QueueIntake:
    fn sent_by_message_id(message_ids: &[String]) -> Vec<SentMail>;
    fn sent_to(contract: &ContractId, recipient: &Address, since: Timestamp) -> Vec<SentMail>;
    ;
    async fn enqueue(&self, now: Timestamp, mail: &Prepared, content: Bytes) -> Result<Enqueued> {
        let mut mail = mail.clone();
        mail.automatic = mail.automatic.filter(|_| !self.is(Fault::CountsNoAnswers));
        mail.idempotency = mail.idempotency.filter(|_| !self.is(Fault::ForgetsKeys));
        self.inner.enqueue(now, &mail, content).await
    }
}

through! { QueueWork:
    fn due_outboxes(now: Timestamp, limit: u32) -> Vec<MailboxId>;
    fn next_due(now: Timestamp) -> Option<Timestamp>;
    fn open_claims() -> u64;
    ;
    async fn claim(
        &self,
        now: Timestamp,
        outbox: MailboxId,
        limit: u32,
        worker: WorkerId,
        until: Timestamp,
    ) -> Result<Vec<Claimed>> {
        let in_order = self.is(Fault::ServesInOrder);
        let asked = if in_order { 1000 } else { limit };
        let mut claimed = QueueWork::claim(&self.inner, now, outbox, asked, worker, until).await?;
        if in_order {
            claimed.sort_by_key(|one| one.id);
            let too_many = claimed.split_off(claimed.len().min(usize::try_from(limit).expect("small")));
            let given_back = too_many.iter().map(|one| Settlement {
                id: one.id,
                claim: one.claim,
                results: Vec::new(),
                due_at: one.created_at,
                attempt: Attempt::Free,
            });
            self.inner.settle(now, &given_back.collect::<Vec<_>>()).await?;
        }
        let mut claims = self.claims.lock().expect("no panic under the lock");
        if self.is(Fault::ClaimsTwice) && !claimed.is_empty() {
            claimed.extend(claims.values().next().cloned());
        }
        claims.extend(claimed.iter().map(|one| (one.id, one.clone())));
        Ok(claimed)
    }

    async fn mark(&self, now: Timestamp, claims: &[ClaimMark]) -> Result<Vec<bool>> {
        let dawn = Timestamp::from_millis(0);
        self.inner.mark(if self.is(Fault::MarksDeadClaims) { dawn } else { now }, claims).await
    }

    async fn settle(&self, now: Timestamp, settlements: &[Settlement]) -> Result<Vec<Settled>> {
        let mut settlements = settlements.to_vec();
        for settlement in settlements.iter_mut().filter(|_| self.is(Fault::SettlesWithoutFence)) {
            settlement.claim = self.last_claim(settlement.id).unwrap_or(settlement.claim);
        }
        let budget = settlements.iter_mut().filter(|_| self.is(Fault::KeepsBudget));
        budget.for_each(|settlement| settlement.attempt = Attempt::Spent);
        self.inner.settle(now, &settlements).await
    }

    async fn renew(&self, now: Timestamp, worker: WorkerId, until: Timestamp) -> Result<u64> {
        let dawn = Timestamp::from_millis(0);
        let now = if self.is(Fault::RenewsDeadClaims) { dawn } else { now };
        QueueWork::renew(&self.inner, now, worker, until).await
    }

    async fn expire(&self, now: Timestamp) -> Result<Sweep> {
        if self.is(Fault::NeverExpires) { Ok(Sweep::default()) } else { self.inner.expire(now).await }
    }
}

through! { QueueDesk:
    fn list(query: &QueueQuery) -> Vec<QueueItem>;
    fn show(id: QueueId) -> Option<QueueRecord>;
    fn decide(now: Timestamp, actor: &Actor, id: QueueId, event: Event) -> ();
    fn reroute(now: Timestamp, actor: &Actor, rerouting: &Rerouting, content: Bytes) -> ();
    fn prune(now: Timestamp, limit: u32) -> Pruned;
    fn recover(now: Timestamp, actor: &Actor, since: Timestamp) -> Recovered;
    fn doubts<'a>(after: Option<&'a QueueId>, limit: u32) -> Vec<Doubt>;
    fn prove(now: Timestamp, id: QueueId, claim: ClaimId, detail: &str) -> bool;
}

through! { LedgerIntake:
    fn unsettled(now: Timestamp, place: &Place, limit: u32) -> Vec<Unsettled>;
    ;
    async fn advance(&self, place: &Place, reached: Reached) -> Result<()> {
        self.inner.advance(place, reached).await?;
        match reached {
            Reached::UpTo(_) if self.is(Fault::KnownHalfway) => {
                self.inner.advance(place, Reached::Whole(Timestamp::from_millis(1))).await
            }
            _ => Ok(()),
        }
    }

    async fn skip(&self, now: Timestamp, place: &Place, left_out: &LeftOut) -> Result<bool> {
        let mut left_out = left_out.clone();
        if self.is(Fault::SkipsByOldSettings)
            && let Some(mailbox) = self.inner.mailbox(place.mailbox).await?
        {
            left_out.revision = mailbox.revision;
        }
        if self.is(Fault::ForgetsDates) {
            left_out.has_undated = false;
        }
        if self.is(Fault::ForgetsHowFarBack) {
            left_out.until = Timestamp::EPOCH;
        }
        self.inner.skip(now, place, &left_out).await
    }

    async fn unknown(&self, place: &Place, keys: &[RemoteKey]) -> Result<Vec<RemoteKey>> {
        let mut place = place.clone();
        if self.is(Fault::IgnoresEpoch) && place.epoch > 0 {
            place.epoch = 7;
        }
        self.inner.unknown(&place, keys).await
    }

    async fn latest(&self, place: &Place) -> Result<Place> {
        if self.is(Fault::OneEpochForEver) {
            return Ok(place.clone());
        }
        self.inner.latest(place).await
    }

    async fn contact(&self, place: &Place) -> Result<Contact> {
        match self.inner.contact(place).await? {
            Contact::Renumbered { .. } if self.is(Fault::FrontierOfOneEpoch) => {
                Ok(Contact::Known { frontier: 0 })
            }
            contact => Ok(contact),
        }
    }

    async fn settled(&self, now: Timestamp, ids: &[LedgerId], told: Told) -> Result<()> {
        let told = if self.is(Fault::ForgetsWhatItTold) { Told::Keep } else { told };
        self.inner.settled(now, ids, told).await
    }

    async fn store(&self, now: Timestamp, mails: &[Received]) -> Result<Vec<Stored>> {
        let mut mails = mails.to_vec();
        for mail in &mut mails {
            self.fault.spoil(mail);
        }
        if !self.is(Fault::StoresSome) {
            return self.inner.store(now, &mails).await;
        }
        let mut stored = Vec::new();
        for mail in mails {
            stored.extend(self.inner.store(now, &[mail]).await?);
        }
        Ok(stored)
    }
}

through! { LedgerWork:
    fn claim(now: Timestamp, limit: u32, worker: WorkerId, until: Timestamp) -> Vec<ClaimedMail>;
    fn finish(now: Timestamp, result: &HandlerResult) -> bool;
    fn renew(now: Timestamp, worker: WorkerId, until: Timestamp) -> u64;
    fn next_due(now: Timestamp) -> Option<Timestamp>;
    fn open_claims() -> u64;
    ;
    async fn completed(&self, claim: &Committing) -> Result<bool> {
        if self.is(Fault::BelievesCommits) { Ok(true) } else { self.inner.completed(claim).await }
    }
}

through! { LedgerDesk:
    fn list(query: &LedgerQuery) -> Vec<LedgerItem>;
    fn show(id: LedgerId) -> Option<LedgerRecord>;
    fn replay(now: Timestamp, actor: &Actor, id: LedgerId) -> ();
    fn route(now: Timestamp, actor: &Actor, id: LedgerId, contract: &ContractId) -> ();
    fn ignore(now: Timestamp, actor: &Actor, id: LedgerId) -> ();
    ;
    async fn prune(&self, now: Timestamp, limit: u32) -> Result<LedgerPruned> {
        let day = std::time::Duration::from_secs(24 * 60 * 60);
        let now = if self.is(Fault::PrunesEarly) { now + day } else { now };
        LedgerDesk::prune(&self.inner, now, limit).await
    }
}

through! { Watches:
    fn release(watcher: WorkerId, leases: &[Release]) -> ();
    fn leave(watcher: WorkerId) -> ();
    fn watches(now: Timestamp, mailbox: Option<MailboxId>) -> Vec<Watch>;
    ;
    async fn take(
        &self,
        now: Timestamp,
        watcher: WorkerId,
        limit: u32,
        portion: Portion,
        until: Timestamp,
    ) -> Result<Vec<WatchLease>> {
        if self.is(Fault::StealsInboxes) {
            for one in self.inner.watches(now, None).await? {
                if let Some(other) = one.watcher.filter(|other| *other != watcher) {
                    self.inner.leave(other).await?;
                }
            }
        }
        let portion = if self.is(Fault::KeepsToShares) { Portion::Share } else { portion };
        self.inner.take(now, watcher, limit, portion, until).await
    }

    async fn renew(
        &self,
        now: Timestamp,
        watcher: WorkerId,
        until: Timestamp,
        readings: &[Reading],
    ) -> Result<Option<Renewal>> {
        let dawn = Timestamp::from_millis(0);
        let asked = if self.is(Fault::RevivesWatchers) { dawn } else { now };
        let mut renewal = Watches::renew(&self.inner, asked, watcher, until, readings).await?;
        for renewal in renewal.iter_mut().filter(|_| self.is(Fault::HoardsInboxes)) {
            renewal.share = u32::MAX;
        }
        Ok(renewal)
    }
}

fn passes(fault: Fault, case: &str) -> bool {
    let subject = async || {
        Subject::new(Arc::new(Mutant { inner: MemoryStore::new(), fault, claims: Mutex::default() }))
    };
    catch_unwind(AssertUnwindSafe(|| check(&cases(), case, subject))).is_ok()
}

/// One fault at a time: `catches(FAULT, CASE)` holds when the case fails with the fault and passes without it.
fn catches(fault: Fault, case: &str) {
    assert!(passes(Fault::None, case), "{case} fails over a store without a fault");
    assert!(!passes(fault, case), "{case} does not notice {fault:?}");
}

#[test]
fn each_faulty_store_is_caught_by_the_case_that_is_named_after_its_clause() {
    for (fault, case) in CASES {
        catches(*fault, case);
    }
}

#[test]
fn the_wrapper_without_a_fault_passes_the_whole_suite() {
    for case in cases() {
        assert!(passes(Fault::None, case.name()), "{}", case.name());
    }
}
