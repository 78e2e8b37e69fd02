//! What an operator does with the queue beyond a decision: another outbox, pruning, recovery, proof of a doubt.

use std::sync::Arc;

use bytes::Bytes;
use postroom_core::id::{MailboxId, QueueId};
use postroom_core::queue::{Basis, Event, Prepared, State};
use postroom_core::resolve::{Reason, Resolution};

use super::fixture::*;
use super::subject::Subject;
use crate::Store;
use crate::error::{ErrorKind, Result};
use crate::queue::{
    Attempt, ClaimMark, Claimed, QueueDesk, QueueRecord, QueueWork, RecipientResult, Rerouting, Settlement,
};

fn desk(store: &Arc<dyn Store>) -> &dyn QueueDesk {
    &**store
}

/// A store with two outboxes, the first being Standard.
async fn two(subject: Subject) -> (Arc<dyn Store>, [MailboxId; 2]) {
    let store = subject.store;
    let outboxes = [add(&store, outbox("a.example")).await, add(&store, outbox("b.example")).await];
    store.set_standard(&change(), Some(outboxes[0])).await.expect("set_standard");
    (store, outboxes)
}

async fn submit(store: &Arc<dyn Store>, mail: &Prepared) -> QueueId {
    enqueue(store, mail).await.expect("enqueue").id()
}

async fn show(store: &Arc<dyn Store>, id: QueueId) -> QueueRecord {
    desk(store).show(id).await.expect("show").expect("a mail")
}

async fn states(store: &Arc<dyn Store>, id: QueueId) -> Vec<State> {
    show(store, id).await.recipients.iter().map(|one| one.state).collect()
}

async fn decide(store: &Arc<dyn Store>, seconds: i64, id: QueueId, event: Event) -> Result<()> {
    desk(store).decide(at(seconds), &actor(), id, event).await
}

async fn claim(store: &Arc<dyn Store>, seconds: i64, outbox: MailboxId) -> Claimed {
    let work: &dyn QueueWork = &**store;
    let until = at(seconds + 30);
    let claimed = work.claim(at(seconds), outbox, 1, worker(1), until).await.expect("claim");
    claimed.into_iter().next().expect("a due mail")
}

async fn mark(store: &Arc<dyn Store>, seconds: i64, claimed: &Claimed) {
    let marks = [ClaimMark { id: claimed.id, claim: claimed.claim }];
    assert_eq!(store.mark(at(seconds), &marks).await.expect("mark"), [true]);
}

async fn settle(store: &Arc<dyn Store>, seconds: i64, claimed: &Claimed, events: &[Event]) {
    let result = |((recipient, _), event): (&(u32, _), &Event)| RecipientResult {
        recipient: *recipient,
        event: *event,
        detail: "the server said so".to_owned(),
    };
    let settlement = Settlement {
        id: claimed.id,
        claim: claimed.claim,
        results: claimed.recipients.iter().zip(events).map(result).collect(),
        due_at: at(seconds),
        attempt: Attempt::Spent,
    };
    store.settle(at(seconds), &[settlement]).await.expect("settle");
}

/// Sends a mail with these results at `seconds`.
async fn sent(store: &Arc<dyn Store>, seconds: i64, outbox: MailboxId, events: &[Event]) -> Claimed {
    let claimed = claim(store, seconds, outbox).await;
    mark(store, seconds, &claimed).await;
    settle(store, seconds, &claimed, events).await;
    claimed
}

async fn rerouting(store: &Arc<dyn Store>, id: QueueId, to: MailboxId) -> Rerouting {
    let record = show(store, id).await;
    let mailbox = store.mailbox(to).await.expect("mailbox").expect("an outbox");
    let sender = mailbox.settings.outbox().expect("an outbox").senders()[1].clone();
    let from = record.item.outbox;
    let contract = store.contract(&record.item.contract).await.expect("contract");
    let resolution = Resolution::rerouted(to, mailbox.revision, sender.clone(), from, Reason::Contract);
    Rerouting {
        id,
        from,
        rewritten: record.body.expect("a content"),
        basis: Basis::new(mailbox.revision, contract.map(|contract| contract.revision), None),
        return_path: sender.address().clone(),
        resolution,
    }
}

async fn reroute(store: &Arc<dyn Store>, rerouting: &Rerouting) -> Result<()> {
    desk(store).reroute(at(5), &actor(), rerouting, Bytes::from_static(b"From: b\r\n\r\nnew\r\n")).await
}

pub(super) async fn a_rerouted_mail_goes_by_its_new_outbox_with_its_new_content(subject: Subject) {
    let (store, [a, b]) = two(subject).await;
    let mail = prepared(&store, 1, "ACME").await;
    let id = submit(&store, &mail).await;
    let old = show(&store, id).await;
    reroute(&store, &rerouting(&store, id, b).await).await.expect("reroute");
    let new = show(&store, id).await;
    assert_eq!((new.item.outbox, new.item.state), (b, State::Queued));
    assert_eq!(new.item.sender.address().as_str(), "news@acme.example");
    assert_eq!(new.item.reasons, [Reason::Rerouted { from: a }, Reason::Contract]);
    assert_eq!((&new.item.message_id, &new.recipients), (&old.item.message_id, &old.recipients));
    let told = new.timeline.last().expect("a timeline");
    assert_eq!((told.what.as_str(), told.state, &told.actor), ("reroute", None, &Some(actor())));
    for part in [format!("outbox {b} as"), format!("before outbox {a} as"), "news@".into(), "desk@".into()] {
        assert!(told.detail.contains(&part), "{part}: {told:?}");
    }
    let piece = async |body| store.piece(body, 0).await.expect("piece");
    assert_eq!(piece(old.body.expect("a content")).await, None, "the old content is gone");
    assert_eq!(piece(new.body.expect("a content")).await.as_deref(), Some(&b"From: b\r\n\r\nnew\r\n"[..]));
    let work: &dyn QueueWork = &*store;
    assert_eq!(work.due_outboxes(at(5), 9).await.expect("due_outboxes"), [b]);
    assert_eq!(work.claim(at(5), a, 9, worker(1), at(9)).await.expect("claim"), []);
    let claimed = claim(&store, 5, b).await;
    assert_eq!((claimed.outbox, claimed.body), (b, new.body.expect("a content")));
    assert_eq!(claimed.sender, new.item.sender);
    assert_eq!(claimed.return_path, Some(address("news@acme.example")));
    assert_eq!(claimed.size, 16);
}

pub(super) async fn a_mail_that_a_server_has_or_may_have_is_not_rerouted(subject: Subject) {
    let (store, [a, b]) = two(subject).await;
    let refused = async |id, state| {
        let before = show(&store, id).await;
        let kind = kind(reroute(&store, &rerouting(&store, id, b).await).await);
        assert_eq!(kind, ErrorKind::NotPossible { state });
        assert_eq!(show(&store, id).await, before, "{state}");
    };
    let mail = to_many(prepared(&store, 1, "ACME").await, 2);
    let id = submit(&store, &mail).await;
    let claimed = claim(&store, 0, a).await;
    refused(id, "claimed").await;
    mark(&store, 0, &claimed).await;
    refused(id, "crossing").await;
    settle(&store, 0, &claimed, &[Event::Accept, Event::Refuse]).await;
    refused(id, "accepted").await;
    let id = submit(&store, &prepared(&store, 2, "ACME").await).await;
    sent(&store, 1, a, &[Event::Doubt]).await;
    refused(id, "in-doubt").await;
    let mut raw = prepared(&store, 3, "ACME").await;
    raw.raw = true;
    let id = submit(&store, &raw).await;
    refused(id, "raw").await;
}

pub(super) async fn what_waits_or_failed_is_rerouted_in_the_state_that_it_is_in(subject: Subject) {
    let (store, [a, b]) = two(subject).await;
    for (number, event, state) in [
        (1, Event::Hold, State::Held),
        (2, Event::Cancel, State::Cancelled),
        (3, Event::Refuse, State::Refused),
        (4, Event::Die, State::Dead),
    ] {
        let id = submit(&store, &prepared(&store, number, "ACME").await).await;
        if matches!(event, Event::Hold | Event::Cancel) {
            decide(&store, 1, id, event).await.expect("decide");
        } else {
            let claimed = claim(&store, 1, a).await;
            settle(&store, 1, &claimed, &[event]).await;
        }
        reroute(&store, &rerouting(&store, id, b).await).await.expect("reroute");
        assert_eq!(states(&store, id).await, [state]);
        let (event, ways) = match state {
            State::Held => (Event::Unhold, true),
            State::Cancelled => (Event::Retry, false),
            _ => (Event::Retry, true),
        };
        assert_eq!(decide(&store, 6, id, event).await.is_ok(), ways);
        if ways {
            assert_eq!(claim(&store, 6, b).await.id, id);
        }
    }
}

/// Misses a mail that two operators reroute at once, and a link that is gone when the mail is written.
pub(super) async fn a_reroute_by_what_has_changed_is_refused(subject: Subject) {
    let (store, [a, b]) = two(subject).await;
    let id = submit(&store, &prepared(&store, 1, "ACME").await).await;
    let first = rerouting(&store, id, b).await;
    reroute(&store, &first).await.expect("reroute");
    assert_eq!(kind(reroute(&store, &first).await), ErrorKind::Conflict);
    let mut stale = rerouting(&store, id, a).await;
    stale.basis.outbox = postroom_core::id::Revision::new(9);
    assert_eq!(kind(reroute(&store, &stale).await), ErrorKind::StaleDecision);
    let mut standard = rerouting(&store, id, a).await;
    standard.resolution.reasons = vec![Reason::Standard];
    store.set_standard(&change(), Some(b)).await.expect("set_standard");
    assert_eq!(kind(reroute(&store, &standard).await), ErrorKind::StaleDecision);
    let contract = rerouting(&store, id, a).await;
    let acme = postroom_core::contract::Contract::new(contract_id("ACME"));
    save_contract(&store, &acme).await;
    assert_eq!(kind(reroute(&store, &contract).await), ErrorKind::StaleDecision);
    let gone = Rerouting { id: queue_id(99), ..contract };
    assert_eq!(kind(reroute(&store, &gone).await), ErrorKind::NotFound);
    assert_eq!(show(&store, id).await.item.outbox, b);
}

/// A mail with the null path answers nobody: another outbox must not make it bounce to itself.
pub(super) async fn a_rerouted_mail_keeps_the_null_path(subject: Subject) {
    let (store, [_, b]) = two(subject).await;
    let mut mail = prepared(&store, 1, "ACME").await;
    mail.return_path = None;
    let id = submit(&store, &mail).await;
    reroute(&store, &rerouting(&store, id, b).await).await.expect("reroute");
    assert_eq!(claim(&store, 5, b).await.return_path, None);
}
