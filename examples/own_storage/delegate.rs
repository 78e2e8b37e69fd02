//! The ports that the host does not keep itself: each call goes to the store below. Nothing is decided here.

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
use postroom::core::queue::{Event, Prepared};
use postroom::core::step::Step;
use postroom::core::suppression::Suppression;
use postroom::core::time::Timestamp;
use postroom::storage::keyring::Sealed;
use postroom::storage::{
    Audit, AuditEntry, Bodies, BudgetOwner, BudgetView, Budgets, Change, ClaimMark, Claimed, ClaimedMail,
    Clock, Committing, Contact, Doubt, Enqueued, EventRecord, Events, Forgetting, Forgotten, HandlerResult,
    Health, HealthBook, LedgerDesk, LedgerIntake, LedgerItem, LedgerPruned, LedgerQuery, LedgerRecord,
    LedgerWork, LeftOut, Links, MailboxQuery, Mailboxes, Portion, Pruned, QueueDesk, QueueIntake, QueueItem,
    QueueQuery, QueueRecord, QueueWork, Reached, Reading, Received, RecipientReport, Recovered, Release,
    Renewal, Rerouting, Result, Scope, SecretWrite, SentMail, Settled, Settlement, Sign, Stored,
    SuppressionQuery, Suppressions, Sweep, Switch, Switches, Told, Unsettled, Uses, Waiting, Watch,
    WatchLease, Watches,
};

use crate::OwnStore;

macro_rules! delegated {
    ($($port:ident { $(fn $name:ident $(<$life:lifetime>)? ($($argument:ident: $type:ty),*) -> $gives:ty;)+ })+) => {$(
        #[async_trait]
        impl $port for OwnStore {
            $(async fn $name$(<$life>)?(&self, $($argument: $type),*) -> Result<$gives> {
                $port::$name(&self.rest, $($argument),*).await
            })+
        }
    )+};
}

impl Clock for OwnStore {
    fn now(&self) -> Timestamp {
        self.rest.now()
    }
}

delegated! {
    Mailboxes {
        fn reserve() -> MailboxId;
        fn add(change: &Change, mailbox: &Mailbox, secret: Option<Sealed>) -> ();
        fn save(change: &Change, mailbox: &Mailbox, secret: SecretWrite) -> Revision;
        fn mailbox(id: MailboxId) -> Option<Mailbox>;
        fn search(query: &MailboxQuery) -> Vec<Mailbox>;
        fn secret(id: MailboxId) -> Option<Sealed>;
        fn uses(id: MailboxId) -> Uses;
        fn remove(change: &Change, id: MailboxId, replacement: Option<MailboxId>) -> ();
    }
    Links {
        fn contract(id: &ContractId) -> Option<Contract>;
        fn save_contract(change: &Change, contract: &Contract) -> Revision;
        fn contracts<'a>(after: Option<&'a ContractId>, limit: u32) -> Vec<Contract>;
        fn contracts_of(inbox: MailboxId) -> Vec<Contract>;
        fn step(key: &StepKey) -> Option<Step>;
        fn save_step(change: &Change, step: &Step) -> Revision;
        fn steps<'a>(after: Option<&'a StepKey>, limit: u32) -> Vec<Step>;
    }
    Switches {
        fn standard() -> Option<MailboxId>;
        fn set_standard(change: &Change, outbox: Option<MailboxId>) -> ();
        fn paused() -> Vec<Scope>;
        fn set_switch(change: &Change, scope: &Scope, to: Switch) -> ();
    }
    HealthBook {
        fn health(mailbox: MailboxId) -> Health;
        fn all_health() -> Vec<Health>;
        fn record(now: Timestamp, mailbox: MailboxId, sign: &Sign) -> ();
        fn probe(now: Timestamp, mailbox: MailboxId, worker: WorkerId, until: Timestamp) -> bool;
        fn clear(now: Timestamp, mailbox: MailboxId) -> ();
    }
    Budgets {
        fn budget(now: Timestamp, owner: &BudgetOwner) -> BudgetView;
    }
    Suppressions {
        fn report(now: Timestamp, id: QueueId, reports: &[RecipientReport]) -> bool;
        fn suppressed(now: Timestamp, contract: &ContractId, addresses: &[Address]) -> Vec<Suppression>;
        fn suppressions(now: Timestamp, query: &SuppressionQuery) -> Vec<Suppression>;
        fn suppress(change: &Change, entry: &Suppression) -> ();
        fn unsuppress(change: &Change, contract: &ContractId, address: &Address) -> bool;
    }
    Forgetting {
        fn forget<'a>(change: &Change, contract: &ContractId, after: Option<&'a QueueId>, limit: u32) -> Forgotten;
        fn waiting(contract: &ContractId) -> Waiting;
    }
    Audit {
        fn entries<'a>(subject: Option<&'a str>, after: EventNumber, limit: u32) -> Vec<AuditEntry>;
    }
    Events {
        fn events(after: EventNumber, limit: u32) -> Vec<EventRecord>;
    }
    Bodies {
        fn stage(now: Timestamp, id: BodyId, number: u32, piece: Bytes) -> ();
        fn piece(id: BodyId, number: u32) -> Option<Bytes>;
        fn sweep(before: Timestamp) -> u64;
    }
    QueueIntake {
        fn enqueue(now: Timestamp, mail: &Prepared, content: Bytes) -> Enqueued;
        fn sent_by_message_id(message_ids: &[String]) -> Vec<SentMail>;
        fn sent_to(contract: &ContractId, recipient: &Address, since: Timestamp) -> Vec<SentMail>;
    }
    QueueWork {
        fn due_outboxes(now: Timestamp, limit: u32) -> Vec<MailboxId>;
        fn claim(now: Timestamp, outbox: MailboxId, limit: u32, worker: WorkerId, until: Timestamp) -> Vec<Claimed>;
        fn mark(now: Timestamp, claims: &[ClaimMark]) -> Vec<bool>;
        fn settle(now: Timestamp, settlements: &[Settlement]) -> Vec<Settled>;
        fn renew(now: Timestamp, worker: WorkerId, until: Timestamp) -> u64;
        fn expire(now: Timestamp) -> Sweep;
        fn next_due(now: Timestamp) -> Option<Timestamp>;
        fn open_claims() -> u64;
    }
    QueueDesk {
        fn list(query: &QueueQuery) -> Vec<QueueItem>;
        fn show(id: QueueId) -> Option<QueueRecord>;
        fn decide(now: Timestamp, actor: &Actor, id: QueueId, event: Event) -> ();
        fn reroute(now: Timestamp, actor: &Actor, rerouting: &Rerouting, content: Bytes) -> ();
        fn prune(now: Timestamp, limit: u32) -> Pruned;
        fn recover(now: Timestamp, actor: &Actor, since: Timestamp) -> Recovered;
        fn doubts<'a>(after: Option<&'a QueueId>, limit: u32) -> Vec<Doubt>;
        fn prove(now: Timestamp, id: QueueId, claim: ClaimId, detail: &str) -> bool;
    }
    LedgerIntake {
        fn latest(place: &Place) -> Place;
        fn contact(place: &Place) -> Contact;
        fn advance(place: &Place, reached: Reached) -> ();
        fn unknown(place: &Place, keys: &[RemoteKey]) -> Vec<RemoteKey>;
        fn skip(now: Timestamp, place: &Place, left_out: &LeftOut) -> bool;
        fn store(now: Timestamp, mails: &[Received]) -> Vec<Stored>;
        fn unsettled(now: Timestamp, place: &Place, limit: u32) -> Vec<Unsettled>;
        fn settled(now: Timestamp, ids: &[LedgerId], told: Told) -> ();
    }
    LedgerWork {
        fn claim(now: Timestamp, limit: u32, worker: WorkerId, until: Timestamp) -> Vec<ClaimedMail>;
        fn finish(now: Timestamp, result: &HandlerResult) -> bool;
        fn completed(claim: &Committing) -> bool;
        fn renew(now: Timestamp, worker: WorkerId, until: Timestamp) -> u64;
        fn next_due(now: Timestamp) -> Option<Timestamp>;
        fn open_claims() -> u64;
    }
    LedgerDesk {
        fn list(query: &LedgerQuery) -> Vec<LedgerItem>;
        fn show(id: LedgerId) -> Option<LedgerRecord>;
        fn replay(now: Timestamp, actor: &Actor, id: LedgerId) -> ();
        fn route(now: Timestamp, actor: &Actor, id: LedgerId, contract: &ContractId) -> ();
        fn ignore(now: Timestamp, actor: &Actor, id: LedgerId) -> ();
        fn prune(now: Timestamp, limit: u32) -> LedgerPruned;
    }
    Watches {
        fn take(now: Timestamp, watcher: WorkerId, limit: u32, portion: Portion, until: Timestamp) -> Vec<WatchLease>;
        fn renew(now: Timestamp, watcher: WorkerId, until: Timestamp, readings: &[Reading]) -> Option<Renewal>;
        fn release(watcher: WorkerId, leases: &[Release]) -> ();
        fn leave(watcher: WorkerId) -> ();
        fn watches(now: Timestamp, mailbox: Option<MailboxId>) -> Vec<Watch>;
    }
}
