//! What an operator does with the queue beyond a decision: another outbox, pruning, recovery, proof of a doubt.

use std::sync::Arc;

use bytes::Bytes;
use postroom_core::contract::Contract;
use postroom_core::id::{EventNumber, IdempotencyKey, MailboxId, QueueId};
use postroom_core::queue::{Basis, Event, Prepared, State};
use postroom_core::resolve::{Reason, Resolution};

use super::fixture::*;
use super::subject::Subject;
use crate::Store;
use crate::error::{ErrorKind, Result};
use crate::events::EventSubject;
use crate::queue::{
    Attempt, ClaimMark, Claimed, Doubt, Pruned, QueueDesk, QueueRecord, QueueWork, RecipientResult,
    Recovered, Rerouting, Settlement,
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
    let acme = Contract::new(contract_id("ACME"));
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

const DAY: i64 = 24 * 3600;

async fn prune(store: &Arc<dyn Store>, seconds: i64) -> Pruned {
    desk(store).prune(at(seconds), 100).await.expect("prune")
}

/// Mails 1 to 5 of a contract, accepted, refused, expired, cancelled and dead at second 0, and an unfinished one; their contents
/// are kept for 3 days, timelines for 40, dead letters for 60.
async fn finished(store: &Arc<dyn Store>, outbox: MailboxId) -> Vec<QueueId> {
    let mut acme = Contract::new(contract_id("ACME"));
    (acme.retention.bodies, acme.retention.timelines, acme.retention.dead) = (3, 40, 60);
    save_contract(store, &acme).await;
    let mut ids = Vec::new();
    for number in 1..=6 {
        let mut mail = prepared(store, number, "ACME").await;
        if number == 3 {
            mail.expires_at = at(0);
        }
        ids.push(submit(store, &mail).await);
        match number {
            1 => drop(sent(store, 0, outbox, &[Event::Accept]).await),
            2 => drop(sent(store, 0, outbox, &[Event::Refuse]).await),
            3 => drop(store.expire(at(0)).await.expect("expire")),
            4 => decide(store, 0, ids[3], Event::Cancel).await.expect("cancel"),
            5 => drop(sent(store, 0, outbox, &[Event::Refuse]).await),
            _ => decide(store, 0, ids[5], Event::Hold).await.expect("hold"),
        }
    }
    ids
}

/// Which of these mails are there: with their content, without, or not at all.
async fn left(store: &Arc<dyn Store>, ids: &[QueueId]) -> String {
    let mut left = String::new();
    for id in ids {
        left.push(match desk(store).show(*id).await.expect("show").map(|record| record.body) {
            Some(Some(body)) => {
                assert!(store.piece(body, 0).await.expect("piece").is_some(), "its content is there");
                'c'
            }
            Some(None) => 'r',
            None => '-',
        });
    }
    left
}

pub(super) async fn retention_removes_contents_and_then_mails_and_nothing_unfinished(subject: Subject) {
    let (store, [a, _]) = two(subject).await;
    let ids = finished(&store, a).await;
    let contents: Vec<_> = [show(&store, ids[0]).await.body, show(&store, ids[3]).await.body].into();
    assert_eq!(
        (prune(&store, 3 * DAY - 1).await, left(&store, &ids).await),
        (Pruned::default(), "cccccc".into())
    );
    let pruned = Pruned { bodies: 2, ..Pruned::default() };
    assert_eq!((prune(&store, 3 * DAY).await, left(&store, &ids).await), (pruned, "rccrcc".into()));
    for body in contents {
        let body = body.expect("it had a content");
        assert_eq!(store.piece(body, 0).await.expect("piece"), None, "the content itself is gone");
    }
    assert_eq!(prune(&store, 40 * DAY - 1).await, Pruned::default());
    let pruned = Pruned { mails: 2, ..Pruned::default() };
    assert_eq!((prune(&store, 40 * DAY).await, left(&store, &ids).await), (pruned, "-cc-cc".into()));
    let pruned = Pruned { mails: 3, ..Pruned::default() };
    assert_eq!((prune(&store, 60 * DAY).await, left(&store, &ids).await), (pruned, "-----c".into()));
    assert_eq!(
        (prune(&store, 9999 * DAY).await, left(&store, &ids).await),
        (Pruned::default(), "-----c".into())
    );
    // Whatever belonged to them is gone with them: the one that is left is whole.
    let message_ids: Vec<String> = (1..=6).map(|number| format!("<{number}@acme.example>")).collect();
    let known = store.sent_by_message_id(&message_ids).await.expect("sent_by_message_id");
    assert_eq!(known.iter().map(|mail| mail.id).collect::<Vec<_>>(), ids[5..]);
    assert_eq!(listed(&store).await, ids[5..]);
}

async fn listed(store: &Arc<dyn Store>) -> Vec<QueueId> {
    let all = desk(store).list(&Default::default()).await.expect("list");
    all.into_iter().map(|item| item.id).collect()
}

pub(super) async fn retention_is_the_contracts_and_begins_anew_with_a_retry(subject: Subject) {
    let (store, [a, _]) = two(subject).await;
    // A contract without a row keeps contents for 30 days, and byte by byte another contract is another one.
    let ids = finished(&store, a).await;
    let other = submit(&store, &prepared(&store, 7, "acme").await).await;
    sent(&store, 0, a, &[Event::Accept]).await;
    prune(&store, 3 * DAY).await;
    assert_eq!(left(&store, &[other]).await, "c");
    prune(&store, 30 * DAY).await;
    assert_eq!(left(&store, &[other]).await, "r");
    decide(&store, 30 * DAY, ids[1], Event::Retry).await.expect("its content is there");
    prune(&store, 70 * DAY).await;
    assert_eq!(left(&store, &ids[..3]).await, "-c-");
    assert_eq!(sent(&store, 30 * DAY, a, &[Event::Accept]).await.id, ids[1]);
    prune(&store, 33 * DAY - 1).await;
    assert_eq!(left(&store, &ids[1..2]).await, "c");
    prune(&store, 33 * DAY).await;
    assert_eq!(left(&store, &ids[1..2]).await, "r");
}

pub(super) async fn a_pruning_goes_in_bounded_batches_until_nothing_is_left(subject: Subject) {
    let (store, [a, _]) = two(subject).await;
    for number in 1..=5 {
        submit(&store, &prepared(&store, number, "ACME").await).await;
        sent(&store, 0, a, &[Event::Accept]).await;
    }
    let mut bodies = Vec::new();
    loop {
        let pruned = desk(&store).prune(at(30 * DAY), 2).await.expect("prune");
        if pruned == Pruned::default() {
            break;
        }
        bodies.push(pruned.bodies);
    }
    assert_eq!(bodies, [2, 2, 1]);
}

/// A key that is forgotten early lets a repeated submission be sent twice.
pub(super) async fn an_idempotency_key_lives_as_long_as_its_mail_and_at_least_30_days(subject: Subject) {
    let (store, [a, _]) = two(subject).await;
    let mut acme = Contract::new(contract_id("ACME"));
    (acme.retention.bodies, acme.retention.timelines, acme.retention.dead) = (1, 1, 1);
    save_contract(&store, &acme).await;
    let print = postroom_core::message::Submission::text(contract_id("ACME"), "one", "text").fingerprint();
    let key = IdempotencyKey::parse("order-7").expect("a key");
    let keyed = async |number| {
        let mail = prepared(&store, number, "ACME").await;
        Prepared { idempotency: Some((key.clone(), print.clone())), ..mail }
    };
    let first = submit(&store, &keyed(1).await).await;
    sent(&store, 0, a, &[Event::Accept]).await;
    prune(&store, 30 * DAY - 1).await;
    assert_eq!(left(&store, &[first]).await, "r");
    assert_eq!(submit(&store, &keyed(2).await).await, first);
    prune(&store, 30 * DAY).await;
    assert_eq!(left(&store, &[first]).await, "-");
    assert_eq!(submit(&store, &keyed(3).await).await, queue_id(3), "the key left with its mail");
}

pub(super) async fn events_leave_with_their_mail_and_their_numbers_are_not_given_again(subject: Subject) {
    let (store, [a, _]) = two(subject).await;
    let id = submit(&store, &prepared(&store, 1, "ACME").await).await;
    sent(&store, 0, a, &[Event::Accept]).await;
    store.record(at(0), a, &crate::registry::Sign::Suspended { error: "no".into() }).await.expect("record");
    let all = async || store.events(EventNumber::new(0), 100).await.expect("events");
    let before = all().await;
    assert_eq!(before.len(), 5);
    let pruned = prune(&store, 365 * DAY).await;
    assert_eq!((pruned.mails, pruned.events), (1, 1));
    assert_eq!(all().await, []);
    submit(&store, &prepared(&store, 2, "ACME").await).await;
    let after = all().await;
    assert!(after[0].number > before[4].number, "{after:?}");
    assert_ne!(after[0].subject, EventSubject::Queue(id));
}

pub(super) async fn what_has_lost_its_content_is_not_sent_again(subject: Subject) {
    let (store, [a, _]) = two(subject).await;
    let id = submit(&store, &prepared(&store, 1, "ACME").await).await;
    sent(&store, 0, a, &[Event::Accept]).await;
    // What bounced can be sent again while its content is there.
    prune(&store, 30 * DAY).await;
    assert_eq!(left(&store, &[id]).await, "r");
    assert!(matches!(kind(decide(&store, 30 * DAY, id, Event::Retry).await), ErrorKind::NotPossible { .. }));
    assert_eq!(states(&store, id).await, [State::Accepted]);
}

pub(super) async fn a_recovery_puts_what_was_unfinished_at_the_backup_in_doubt(subject: Subject) {
    let (store, [a, _]) = two(subject).await;
    let mut resend = to_many(prepared(&store, 1, "ACME").await, 2);
    resend.on_doubt = postroom_core::message::OnDoubt::Resend;
    let resend = submit(&store, &resend).await;
    let claimed = claim(&store, 0, a).await;
    mark(&store, 0, &claimed).await;
    let dead = submit(&store, &prepared(&store, 2, "ACME").await).await;
    claim(&store, 0, a).await;
    let done = submit(&store, &prepared(&store, 3, "ACME").await).await;
    sent(&store, 0, a, &[Event::Accept]).await;
    let [queued, held] = [4, 5].map(|number| (number, &store));
    let queued = submit(queued.1, &prepared(&store, queued.0, "ACME").await).await;
    let held = submit(held.1, &prepared(&store, held.0, "ACME").await).await;
    decide(&store, 0, held, Event::Hold).await.expect("hold");
    let new = prepared(&store, 6, "ACME").await;
    let new = store.enqueue(at(3601), &new, content(&new)).await.expect("enqueue").id();
    let recover = async |seconds, since| desk(&store).recover(at(seconds), &actor(), at(since)).await;
    // A worker that is alive has two of them.
    let busy = recover(29, 3600).await.expect("recover");
    assert_eq!(busy, Recovered { doubted: 2, busy: 2 });
    let recovered = recover(3600, 3600).await.expect("recover");
    assert_eq!(recovered, Recovered { doubted: 2, busy: 0 });
    assert_eq!(recover(3600, 3600).await.expect("recover"), Recovered::default());
    for id in [resend, dead, queued, held] {
        assert!(states(&store, id).await.iter().all(|state| *state == State::InDoubt));
        let told = show(&store, id).await.timeline.pop().expect("a timeline");
        assert_eq!((told.what.as_str(), &told.actor), ("doubt", &Some(actor())), "{told:?}");
        assert!(told.detail.contains("restored"), "{told:?}");
    }
    assert_eq!(
        (states(&store, done).await, states(&store, new).await),
        (vec![State::Accepted], vec![State::Queued])
    );
    let work: &dyn QueueWork = &*store;
    assert_eq!(
        work.claim(at(4000), a, 9, worker(2), at(9999)).await.expect("claim").len(),
        1,
        "only the new one"
    );
    // A person decides.
    decide(&store, 4000, held, Event::Retry).await.expect("retry");
    assert_eq!(states(&store, held).await, [State::Queued]);
    decide(&store, 4000, queued, Event::Accept).await.expect("accept");
}

async fn doubts(store: &Arc<dyn Store>) -> Vec<Doubt> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = desk(store).doubts(after.as_ref(), 1).await.expect("doubts");
        let Some(last) = page.last() else { return all };
        after = Some(last.id);
        all.extend(page);
    }
}

async fn prove(store: &Arc<dyn Store>, doubt: &Doubt) -> bool {
    let claim = doubt.recipients[0].1;
    desk(store).prove(at(9), doubt.id, claim, "found").await.expect("prove")
}

pub(super) async fn a_mail_that_was_found_is_accepted_as_the_attempt_that_left_the_doubt(subject: Subject) {
    let (store, [a, _]) = two(subject).await;
    let mail = to_many(prepared(&store, 1, "ACME").await, 3);
    let id = submit(&store, &mail).await;
    let claimed = sent(&store, 1, a, &[Event::Doubt, Event::Refuse, Event::Doubt]).await;
    let other = submit(&store, &prepared(&store, 2, "ACME").await).await;
    sent(&store, 1, a, &[Event::Doubt]).await;
    let found = doubts(&store).await;
    assert_eq!(found.iter().map(|doubt| doubt.id).collect::<Vec<_>>(), [id, other]);
    let want = Doubt {
        id,
        outbox: a,
        message_id: "<1@acme.example>".to_owned(),
        recipients: vec![(0, claimed.claim), (2, claimed.claim)],
    };
    assert_eq!(found[0], want);
    assert!(prove(&store, &found[0]).await);
    assert_eq!(states(&store, id).await, [State::Accepted, State::Refused, State::Accepted]);
    let told = show(&store, id).await.timeline.pop().expect("a timeline");
    assert_eq!((told.what.as_str(), told.detail.as_str(), told.actor), ("accept", "found", None));
    assert_eq!(states(&store, other).await, [State::InDoubt]);
    assert_eq!(doubts(&store).await, found[1..]);
    assert!(!prove(&store, &found[0]).await, "it is settled");
    let kind = kind(desk(&store).prove(at(9), queue_id(99), claimed.claim, "found").await);
    assert_eq!(kind, ErrorKind::NotFound);
}

/// Would miss a find that settles what a person, a late answer or a newer attempt has settled, or what it does not prove.
pub(super) async fn a_find_that_proves_nothing_of_the_attempt_changes_nothing(subject: Subject) {
    let (store, [a, _]) = two(subject).await;
    let refused = async |doubt: &Doubt| {
        let before = show(&store, doubt.id).await;
        assert!(!prove(&store, doubt).await);
        assert_eq!(show(&store, doubt.id).await, before);
    };
    // A person has it sent again: the doubt of the next attempt is another one.
    let id = submit(&store, &prepared(&store, 1, "ACME").await).await;
    sent(&store, 1, a, &[Event::Doubt]).await;
    let old = doubts(&store).await.remove(0);
    decide(&store, 2, id, Event::Retry).await.expect("retry");
    refused(&old).await;
    sent(&store, 2, a, &[Event::Doubt]).await;
    refused(&old).await;
    let new = doubts(&store).await.remove(0);
    decide(&store, 2, id, Event::Refuse).await.expect("refuse");
    refused(&new).await;
    // The server took the mail for another recipient: what is found may be that.
    let id = submit(&store, &to_many(prepared(&store, 2, "ACME").await, 2)).await;
    sent(&store, 3, a, &[Event::Accept, Event::Defer]).await;
    sent(&store, 3, a, &[Event::Doubt]).await;
    refused(&doubts(&store).await.remove(0)).await;
    assert_eq!(states(&store, id).await, [State::Accepted, State::InDoubt]);
    decide(&store, 3, id, Event::Refuse).await.expect("refuse");
    // Two attempts are in doubt: it may be either.
    let id = submit(&store, &to_many(prepared(&store, 3, "ACME").await, 2)).await;
    sent(&store, 4, a, &[Event::Doubt, Event::Defer]).await;
    let first = show(&store, id).await;
    assert_eq!(first.item.state, State::Queued);
    sent(&store, 4, a, &[Event::Doubt]).await;
    refused(&doubts(&store).await.remove(0)).await;
}
