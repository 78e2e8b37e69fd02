//! A store between the engine and a real one: it fails where a test says so, and it can be one of the naive twins that the tests must
//! catch. What the tests do with it is in their own files.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use postroom::core::address::Address;
use postroom::core::contract::Contract;
use postroom::core::id::{
    Actor, BodyId, ClaimId, ContractId, EventNumber, LedgerId, MailboxId, QueueId, Revision, StepKey,
    WorkerId,
};
use postroom::core::ledger::{Place, RemoteKey};
use postroom::core::mailbox::Mailbox;
use postroom::core::message::OnDoubt;
use postroom::core::queue::{Event, Prepared};
use postroom::core::step::Step;
use postroom::core::suppression::Suppression;
use postroom::core::time::Timestamp;
use postroom::storage::keyring::{Binding, Sealed};
use postroom::storage::*;

/// What is known to be wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Twin {
    /// Nothing.
    None,
    /// A mark is committed together with the result, not before the dot.
    MarksLate,
    /// A result is committed when the worker next looks for work, not before it goes on.
    SettlesLate,
    /// Whatever is in doubt is sent again.
    ResendsDoubts,
    /// Received mail is stored when it is recorded that its server was told, not before.
    TellsFirst,
}

impl Twin {
    pub(crate) const ALL: [Self; 5] =
        [Self::None, Self::MarksLate, Self::SettlesLate, Self::ResendsDoubts, Self::TellsFirst];
}

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// It arrives, and its answer too.
    Whole,
    /// It does not arrive: the store can't be reached.
    Cut,
    /// It does not arrive: the medium is full.
    Full,
    /// It does not arrive: one row is damaged.
    Damaged,
    /// It arrives and its answer is lost, as when a connection breaks during COMMIT.
    AnswerLost,
}

type Rule = Box<dyn Fn(&str) -> Wire + Send + Sync>;

pub(crate) struct Wired {
    inner: Arc<dyn Store>,
    twin: Twin,
    /// For a call, as `QueueWork::claim`.
    rule: Rule,
    calls: Mutex<BTreeMap<String, usize>>,
    late_marks: Mutex<Vec<ClaimMark>>,
    late_results: Mutex<Vec<Settlement>>,
    late_mails: Mutex<Vec<Received>>,
}

impl Wired {
    pub(crate) fn twin(inner: Arc<dyn Store>, twin: Twin) -> Self {
        Self::twin_ruled(inner, twin, |_| Wire::Whole)
    }

    pub(crate) fn twin_ruled(
        inner: Arc<dyn Store>,
        twin: Twin,
        rule: impl Fn(&str) -> Wire + Send + Sync + 'static,
    ) -> Self {
        Self { twin, ..Self::ruled(inner, rule) }
    }

    pub(crate) fn ruled(inner: Arc<dyn Store>, rule: impl Fn(&str) -> Wire + Send + Sync + 'static) -> Self {
        let (calls, rule) = (Mutex::default(), Box::new(rule));
        let (late_marks, late_results, late_mails) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { inner, twin: Twin::None, rule, calls, late_marks, late_results, late_mails }
    }

    /// How often something was called, whatever became of it.
    pub(crate) fn calls(&self, call: &str) -> usize {
        self.calls.lock().unwrap().get(call).copied().unwrap_or_default()
    }

    /// How often anything was called.
    pub(crate) fn all_calls(&self) -> usize {
        self.calls.lock().unwrap().values().sum()
    }

    async fn wire<T>(&self, call: &'static str, answer: impl Future<Output = Result<T>>) -> Result<T> {
        *self.calls.lock().unwrap().entry(call.to_owned()).or_default() += 1;
        match (self.rule)(call) {
            Wire::Whole => answer.await,
            Wire::Cut => Err(Error::new(ErrorKind::Unavailable, call)),
            Wire::Full => Err(Error::new(ErrorKind::Full, call)),
            Wire::Damaged => Err(Error::new(ErrorKind::Unreadable, call)),
            Wire::AnswerLost => answer.await.and(Err(Error::new(ErrorKind::Unavailable, call))),
        }
    }
}

/// Hands methods through to the inner store, by the wire.
macro_rules! through {
    ($port:ident: $(fn $name:ident $(<$life:lifetime>)? ($($arg:ident: $of:ty),*) -> $gives:ty;)* $(; $($own:tt)*)?) => {
        #[async_trait]
        impl $port for Wired {
            $(async fn $name $(<$life>)? (&self, $($arg: $of),*) -> Result<$gives> {
                self.wire(concat!(stringify!($port), "::", stringify!($name)), $port::$name(&*self.inner, $($arg),*)).await
            })*
            $($($own)*)?
        }
    };
}

through! { Mailboxes:
    fn reserve() -> MailboxId;
    fn add(change: &Change, mailbox: &Mailbox, secret: Option<Sealed>) -> ();
    fn save(change: &Change, mailbox: &Mailbox, secret: SecretWrite) -> Revision;
    fn mailbox(id: MailboxId) -> Option<Mailbox>;
    fn search(query: &MailboxQuery) -> Vec<Mailbox>;
    fn secret(id: MailboxId) -> Option<Sealed>;
    fn uses(id: MailboxId) -> Uses;
    fn remove(change: &Change, id: MailboxId, replacement: Option<MailboxId>) -> ();
}

through! { Links:
    fn save_contract(change: &Change, contract: &Contract) -> Revision;
    fn contract(id: &ContractId) -> Option<Contract>;
    fn contracts<'a>(after: Option<&'a ContractId>, limit: u32) -> Vec<Contract>;
    fn contracts_of(inbox: MailboxId) -> Vec<Contract>;
    fn step(key: &StepKey) -> Option<Step>;
    fn save_step(change: &Change, step: &Step) -> Revision;
    fn steps<'a>(after: Option<&'a StepKey>, limit: u32) -> Vec<Step>;
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
    fn probe(now: Timestamp, mailbox: MailboxId, worker: WorkerId, until: Timestamp) -> bool;
}

through! { Suppressions:
    fn report(now: Timestamp, id: QueueId, reports: &[RecipientReport]) -> bool;
    fn suppressed(now: Timestamp, contract: &ContractId, addresses: &[Address]) -> Vec<Suppression>;
    fn suppressions(now: Timestamp, query: &SuppressionQuery) -> Vec<Suppression>;
    fn suppress(change: &Change, entry: &Suppression) -> ();
    fn unsuppress(change: &Change, contract: &ContractId, address: &Address) -> bool;
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

through! { Events:
    fn events(after: EventNumber, limit: u32) -> Vec<EventRecord>;
}

through! { Vault:
    fn put_if_absent(binding: &Binding, sealed: Sealed) -> Sealed;
    fn replace(binding: &Binding, from: &Sealed, to: Option<Sealed>) -> bool;
    fn values(owner: &str) -> Vec<(Binding, Sealed)>;
}

through! { Bodies:
    fn stage(now: Timestamp, id: BodyId, number: u32, piece: Bytes) -> ();
    fn piece(id: BodyId, number: u32) -> Option<Bytes>;
    fn sweep(before: Timestamp) -> u64;
}

impl Clock for Wired {
    fn now(&self) -> Timestamp {
        self.inner.now()
    }
}

through! { QueueIntake:
    fn sent_by_message_id(message_ids: &[String]) -> Vec<SentMail>;
    fn sent_to(contract: &ContractId, recipient: &Address, since: Timestamp) -> Vec<SentMail>;
    ;
    async fn enqueue(&self, now: Timestamp, mail: &Prepared, content: Bytes) -> Result<Enqueued> {
        let mut mail = mail.clone();
        if self.twin == Twin::ResendsDoubts {
            mail.on_doubt = OnDoubt::Resend;
        }
        self.wire("QueueIntake::enqueue", self.inner.enqueue(now, &mail, content)).await
    }
}

through! { QueueWork:
    fn claim(now: Timestamp, outbox: MailboxId, limit: u32, worker: WorkerId, until: Timestamp) -> Vec<Claimed>;
    fn renew(now: Timestamp, worker: WorkerId, until: Timestamp) -> u64;
    fn expire(now: Timestamp) -> Sweep;
    fn next_due(now: Timestamp) -> Option<Timestamp>;
    fn open_claims() -> u64;
    ;
    async fn due_outboxes(&self, now: Timestamp, limit: u32) -> Result<Vec<MailboxId>> {
        let late = std::mem::take(&mut *self.late_results.lock().unwrap());
        self.inner.settle(now, &late).await?;
        self.wire("QueueWork::due_outboxes", self.inner.due_outboxes(now, limit)).await
    }

    async fn mark(&self, now: Timestamp, claims: &[ClaimMark]) -> Result<Vec<bool>> {
        if self.twin == Twin::MarksLate {
            self.late_marks.lock().unwrap().extend(claims.iter().cloned());
            return Ok(vec![true; claims.len()]);
        }
        self.wire("QueueWork::mark", self.inner.mark(now, claims)).await
    }

    async fn settle(&self, now: Timestamp, settlements: &[Settlement]) -> Result<Vec<Settled>> {
        if self.twin == Twin::SettlesLate {
            self.late_results.lock().unwrap().extend(settlements.iter().cloned());
            return Ok(vec![Settled::Applied; settlements.len()]);
        }
        let late = std::mem::take(&mut *self.late_marks.lock().unwrap());
        self.inner.mark(now, &late).await?;
        self.wire("QueueWork::settle", self.inner.settle(now, settlements)).await
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
    fn latest(place: &Place) -> Place;
    fn contact(place: &Place) -> Contact;
    fn unknown(place: &Place, keys: &[RemoteKey]) -> Vec<RemoteKey>;
    fn skip(now: Timestamp, place: &Place, left_out: &LeftOut) -> bool;
    fn advance(place: &Place, reached: Reached) -> ();
    ;
    async fn store(&self, now: Timestamp, mails: &[Received]) -> Result<Vec<Stored>> {
        if self.twin == Twin::TellsFirst {
            self.late_mails.lock().unwrap().extend_from_slice(mails);
            return Ok(mails.iter().map(|mail| Stored::New(mail.id)).collect());
        }
        self.wire("LedgerIntake::store", self.inner.store(now, mails)).await
    }

    async fn unsettled(&self, now: Timestamp, place: &Place, limit: u32) -> Result<Vec<Unsettled>> {
        let mut due = self.wire("LedgerIntake::unsettled", self.inner.unsettled(now, place, limit)).await?;
        let late = self.late_mails.lock().unwrap();
        due.extend(late.iter().map(|mail| Unsettled { id: mail.id, key: mail.key.clone() }));
        Ok(due)
    }

    async fn settled(&self, now: Timestamp, ids: &[LedgerId], told: Told) -> Result<()> {
        let late = std::mem::take(&mut *self.late_mails.lock().unwrap());
        self.wire("LedgerIntake::settled", async {
            self.inner.store(now, &late).await?;
            self.inner.settled(now, ids, told).await
        })
        .await
    }
}

through! { LedgerWork:
    fn claim(now: Timestamp, limit: u32, worker: WorkerId, until: Timestamp) -> Vec<ClaimedMail>;
    fn finish(now: Timestamp, result: &HandlerResult) -> bool;
    fn completed(claim: &Committing) -> bool;
    fn renew(now: Timestamp, worker: WorkerId, until: Timestamp) -> u64;
    fn next_due(now: Timestamp) -> Option<Timestamp>;
    fn open_claims() -> u64;
}

through! { LedgerDesk:
    fn list(query: &LedgerQuery) -> Vec<LedgerItem>;
    fn show(id: LedgerId) -> Option<LedgerRecord>;
    fn replay(now: Timestamp, actor: &Actor, id: LedgerId) -> ();
    fn route(now: Timestamp, actor: &Actor, id: LedgerId, contract: &ContractId) -> ();
    fn ignore(now: Timestamp, actor: &Actor, id: LedgerId) -> ();
    fn prune(now: Timestamp, limit: u32) -> LedgerPruned;
}

through! { Watches:
    fn take(now: Timestamp, watcher: WorkerId, limit: u32, portion: Portion, until: Timestamp) -> Vec<WatchLease>;
    fn renew(now: Timestamp, watcher: WorkerId, until: Timestamp, readings: &[Reading]) -> Option<Renewal>;
    fn release(watcher: WorkerId, leases: &[Release]) -> ();
    fn leave(watcher: WorkerId) -> ();
    fn watches(now: Timestamp, mailbox: Option<MailboxId>) -> Vec<Watch>;
}
