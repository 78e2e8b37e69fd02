//! The clauses of forgetting a contract.

use std::sync::Arc;

use postroom_core::id::{IdempotencyKey, LedgerId, MailboxId, QueueId, RecordId};
use postroom_core::ledger::{Event as Received, Place, RemoteKey, State as LedgerState};
use postroom_core::message::Submission;
use postroom_core::queue::{Event, State};
use postroom_core::suppression::{Cause, Suppression};

use super::fixture::{
    actor, add, address, at, change, contract_id, enqueue, inbox, kind, ledger_id, outbox, place, prepared,
    queue_id, received, save_contract, store_one, worker,
};
use super::queue::{claim_one, mark, settle, settlement, submit};
use super::subject::Subject;
use crate::Store;
use crate::error::ErrorKind;
use crate::forget::{FORGOTTEN_RECIPIENT, Forgotten, Waiting};
use crate::ledger::{HandlerResult, LedgerDesk, LedgerWork, Stored};
use crate::queue::{Enqueued, KEYS_KEPT, QueueDesk};
use crate::registry::Change;
use crate::suppressions::SuppressionQuery;

async fn boxes(subject: Subject) -> (Arc<dyn Store>, MailboxId, Place) {
    let store = subject.store;
    let out = add(&store, outbox("mx.acme.example")).await;
    store.set_standard(&change(), Some(out)).await.expect("set_standard");
    let place = place(add(&store, inbox("imap.acme.example")).await, 7);
    (store, out, place)
}

/// A mail of a contract with record and key, which a server took at second 2.
async fn sent(store: &Arc<dyn Store>, outbox: MailboxId, number: u32, contract: &str) -> QueueId {
    let mut mail = prepared(store, number, contract).await;
    mail.record = Some(RecordId::parse("order 7").expect("a record"));
    mail.in_reply_to = Some(ledger_id(number));
    let print = Submission::text(contract_id(contract), "order", "text").fingerprint();
    mail.idempotency = Some((IdempotencyKey::parse(&format!("order-{number}")).expect("a key"), print));
    submit(store, &mail).await;
    let claimed = claim_one(store, 0, outbox).await;
    assert!(mark(store, 1, mail.id, claimed.claim).await);
    settle(store, 2, &settlement(&claimed, 60, &[Event::Accept])).await;
    mail.id
}

/// A received mail that was handled.
async fn handled(store: &Arc<dyn Store>, place: &Place, number: u32, contract: &str) -> LedgerId {
    let mut mail = received(number, place, number, &format!("bytes {number}"));
    (mail.contract, mail.record) = (Some(contract_id(contract)), RecordId::parse("order 7").ok());
    store_one(store, at(0), &mail).await.expect("store");
    let claimed = LedgerWork::claim(&**store, at(0), 1, worker(1), at(30)).await.expect("claim");
    let result = HandlerResult {
        id: mail.id,
        claim: claimed[0].claim,
        event: Received::Handle,
        due_at: at(0),
        detail: "ticket 9 of Ana".to_owned(),
    };
    assert!(store.finish(at(1), &result).await.expect("finish"));
    mail.id
}

async fn suppress(store: &Arc<dyn Store>, contract: &str, to: &str) {
    let entry = Suppression {
        contract: contract_id(contract),
        address: address(to),
        cause: Cause::Operator,
        detail: "left".to_owned(),
        mail: None,
        added_at: at(0),
        expires_at: None,
    };
    store.suppress(&change(), &entry).await.expect("suppress");
}

async fn step(store: &Arc<dyn Store>, seconds: i64, after: Option<QueueId>, limit: u32) -> Forgotten {
    let change = Change::new(at(seconds), actor());
    store.forget(&change, &contract_id("ACME"), after.as_ref(), limit).await.expect("forget")
}

/// Forgets ACME to the end. Gives how much of what was removed.
async fn forget(store: &Arc<dyn Store>, seconds: i64) -> (u64, u64, u64) {
    let (mut after, mut total) = (None, (0, 0, 0));
    loop {
        let forgotten = step(store, seconds, after, 2).await;
        if forgotten.is_end() {
            return total;
        }
        after = forgotten.last.or(after);
        total.0 += forgotten.sent;
        total.1 += forgotten.received;
        total.2 += forgotten.suppressions;
    }
}

async fn listed(store: &Arc<dyn Store>) -> Vec<String> {
    let all = store.suppressions(at(9), &SuppressionQuery::default()).await.expect("suppressions");
    all.into_iter().map(|entry| format!("{} {}", entry.contract, entry.address)).collect()
}

pub(super) async fn of_a_forgotten_contract_keys_are_left_and_nothing_else(subject: Subject) {
    let (store, out, place) = boxes(subject).await;
    let (id, answer) = (sent(&store, out, 1, "ACME").await, handled(&store, &place, 1, "ACME").await);
    suppress(&store, "ACME", "ana@client.example").await;
    let body =
        QueueDesk::show(&*store, id).await.expect("show").and_then(|mail| mail.body).expect("a content");
    let bytes = LedgerDesk::show(&*store, answer).await.expect("show").and_then(|mail| mail.body);
    let bytes = bytes.expect("its bytes");
    assert_eq!(forget(&store, 10).await, (1, 1, 1));
    for content in [body, bytes] {
        assert_eq!(store.piece(content, 0).await.expect("piece"), None);
    }
    let mail = QueueDesk::show(&*store, id).await.expect("show").expect("its key is young");
    let item = &mail.item;
    assert_eq!((item.subject.as_str(), item.message_id.as_str()), ("", ""));
    assert_eq!((&item.record, item.in_reply_to, mail.body, mail.timeline.len()), (&None, None, None, 0));
    assert_eq!((item.state, item.outbox, item.created_at), (State::Accepted, out, at(0)));
    let recipients: Vec<_> = mail.recipients.iter().map(|one| one.recipient.address.as_str()).collect();
    assert_eq!((recipients, mail.recipients[0].state), (vec![FORGOTTEN_RECIPIENT], State::Accepted));
    let known = store.sent_by_message_id(&["<1@acme.example>".to_owned()]).await.expect("sent_by_message_id");
    assert_eq!(known, []);
    let mail = LedgerDesk::show(&*store, answer).await.expect("show").expect("its key stays");
    let item = &mail.item;
    assert_eq!((item.sender.as_str(), item.subject.as_str()), ("", ""));
    assert_eq!((&item.record, &item.message_id, mail.body, mail.timeline.len()), (&None, &None, None, 0));
    assert_eq!((item.state, &item.key), (LedgerState::Handled, &RemoteKey::Uid(1)));
    assert_eq!(listed(&store).await, Vec::<String>::new());
    let told = store.events(postroom_core::id::EventNumber::new(0), 100).await.expect("events");
    assert_eq!(told, []);
    // Once more finds nothing, until the key of the sent mail is old enough.
    assert_eq!(forget(&store, 11).await, (0, 0, 0));
    let month = i64::try_from(KEYS_KEPT.as_secs()).expect("30 days");
    assert_eq!(forget(&store, month + 1).await, (0, 0, 0));
    assert_eq!(forget(&store, month + 2).await, (1, 0, 0));
    assert_eq!(QueueDesk::show(&*store, id).await.expect("show"), None);
}

/// A key that left with the content would let the host's repetition be sent, and the server's mail be handed over, a second time.
pub(super) async fn a_forgotten_mail_is_neither_sent_nor_handed_over_again(subject: Subject) {
    let (store, out, place) = boxes(subject).await;
    let (id, answer) = (sent(&store, out, 1, "ACME").await, handled(&store, &place, 1, "ACME").await);
    forget(&store, 10).await;
    let mut again = prepared(&store, 2, "ACME").await;
    let print = Submission::text(contract_id("ACME"), "order", "text").fingerprint();
    again.idempotency = Some((IdempotencyKey::parse("order-1").expect("a key"), print));
    assert_eq!(enqueue(&store, &again).await.expect("the same mail"), Enqueued::Existing(id));
    again.idempotency = None;
    again.id = queue_id(1);
    assert_eq!(enqueue(&store, &again).await.expect("the same mail"), Enqueued::Existing(id));
    assert!(store.unknown(&place, &[RemoteKey::Uid(1)]).await.expect("unknown").is_empty());
    let renumbered = Place { epoch: 8, ..place.clone() };
    let shown_again = received(3, &renumbered, 51, "bytes 1");
    assert_eq!(store_one(&store, at(11), &shown_again).await.expect("store"), Stored::Recognised(answer));
    // Nobody can have it sent or handled again: there is nothing to send or handle.
    assert!(matches!(
        kind(store.decide(at(12), &actor(), id, Event::Retry).await),
        ErrorKind::NotPossible { .. }
    ));
    assert_eq!(kind(store.replay(at(12), &actor(), answer).await), ErrorKind::ContentGone);
}

pub(super) async fn what_waits_is_left_and_counted_and_other_mail_is_not_touched(subject: Subject) {
    let (store, out, place) = boxes(subject).await;
    save_contract(&store, &postroom_core::contract::Contract::new(contract_id("ACME"))).await;
    let others = [sent(&store, out, 1, "acme").await, sent(&store, out, 2, "ACME ").await];
    let other = handled(&store, &place, 1, "acme").await;
    suppress(&store, "acme", "ana@client.example").await;
    let queued = prepared(&store, 3, "ACME").await;
    submit(&store, &queued).await;
    store_one(&store, at(0), &received(2, &place, 2, "bytes 2")).await.expect("store");
    let mut triage = received(3, &place, 3, "bytes 3");
    (triage.state, triage.contract) = (LedgerState::Triage, None);
    store_one(&store, at(0), &triage).await.expect("store");
    let waiting = async || store.waiting(&contract_id("ACME")).await.expect("waiting");
    assert_eq!(waiting().await, Waiting { queued: 1, received: 1 });
    assert_eq!(forget(&store, 10).await, (0, 0, 0));
    for id in others.into_iter().chain([queued.id]) {
        let mail = QueueDesk::show(&*store, id).await.expect("show").expect("it is there");
        assert!(
            mail.body.is_some() && !mail.timeline.is_empty() && !mail.item.subject.is_empty(),
            "{mail:?}"
        );
    }
    for id in [other, ledger_id(2), ledger_id(3)] {
        let mail = LedgerDesk::show(&*store, id).await.expect("show").expect("it is there");
        assert!(mail.body.is_some() && !mail.timeline.is_empty() && !mail.item.sender.is_empty(), "{mail:?}");
    }
    assert_eq!(listed(&store).await, ["acme ana@client.example"]);
    // Once it is finished it can be forgotten; the contract itself stays.
    store.decide(at(10), &actor(), queued.id, Event::Cancel).await.expect("cancel");
    store.ignore(at(10), &actor(), ledger_id(2)).await.expect("ignore");
    assert_eq!((waiting().await, forget(&store, 11).await), (Waiting::default(), (1, 1, 0)));
    assert!(store.contract(&contract_id("ACME")).await.expect("contract").is_some());
}

/// Without the bound, a contract's million mails would be one transaction that everybody waits for.
pub(super) async fn a_forgetting_takes_few_at_a_time_and_each_time_is_audited(subject: Subject) {
    let (store, out, place) = boxes(subject).await;
    for number in 1..=3 {
        sent(&store, out, number, "ACME").await;
        handled(&store, &place, number, "ACME").await;
        suppress(&store, "ACME", &format!("{number}@client.example")).await;
    }
    let first = step(&store, 10, None, 2).await;
    let counts = |sent, received, suppressions, last| Forgotten { sent, received, suppressions, last };
    assert_eq!(first, counts(2, 2, 2, Some(queue_id(2))));
    // As after a kill: from the beginning again.
    assert_eq!(step(&store, 11, None, 2).await, counts(0, 1, 1, Some(queue_id(2))));
    assert_eq!(step(&store, 12, Some(queue_id(2)), 2).await, counts(1, 0, 0, Some(queue_id(3))));
    assert!(step(&store, 13, Some(queue_id(3)), 2).await.is_end());
    let entries = store.entries(Some("contract/ACME"), postroom_core::id::EventNumber::new(0), 100).await;
    let told: Vec<_> = entries.expect("entries").into_iter().map(|one| (one.action, one.changes)).collect();
    let entry = |sent: u64, received: u64, suppressions: u64| {
        let changes = serde_json::json!({ "sent": sent, "received": received, "suppressions": suppressions });
        ("forget".to_owned(), changes)
    };
    assert_eq!(told, [entry(2, 2, 2), entry(0, 1, 1), entry(1, 0, 0)]);
}
