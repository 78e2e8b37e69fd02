//! The sequence of events: what stands in it, how it is read, and that it follows the changes.

use std::sync::Arc;

use postroom_core::id::{EventNumber, LedgerId, QueueId};
use postroom_core::ledger::RemoteKey;
use postroom_core::queue::{Event, State};

use super::fixture::*;
use super::subject::Subject;
use crate::Store;
use crate::error::ErrorKind;
use crate::events::{EventRecord, EventSubject};
use crate::queue::QueueDesk;
use crate::registry::Sign;

/// All events, read by pages of two as a reader in another process would.
pub(super) async fn all(store: &Arc<dyn Store>) -> Vec<EventRecord> {
    let mut read: Vec<EventRecord> = Vec::new();
    loop {
        let after = read.last().map_or(EventNumber::new(0), |event| event.number);
        let page = store.events(after, 2).await.expect("events");
        assert!(page.len() <= 2, "{page:?}");
        if page.is_empty() {
            return read;
        }
        assert!(page[0].number > after && page.is_sorted_by_key(|event| event.number), "{page:?}");
        read.extend(page);
    }
}

/// What was told of a subject.
fn whats(events: &[EventRecord], subject: EventSubject) -> Vec<&str> {
    events.iter().filter(|event| event.subject == subject).map(|event| event.what.as_str()).collect()
}

async fn decide(store: &Arc<dyn Store>, id: QueueId, event: Event) -> crate::Result<()> {
    let desk: &dyn QueueDesk = &**store;
    desk.decide(at(1), &actor(), id, event).await
}

async fn mails(store: &Arc<dyn Store>, count: u32) -> Vec<QueueId> {
    let outbox = add(store, outbox("smtp.example")).await;
    store.set_standard(&change(), Some(outbox)).await.expect("set_standard");
    let mut ids = Vec::new();
    for number in 1..=count {
        let mail = prepared(store, number, "ACME").await;
        ids.push(enqueue(store, &mail).await.expect("enqueue").id());
    }
    ids
}

pub(super) async fn the_timeline_of_a_mail_is_its_events(subject: Subject) {
    let store = subject.store;
    let ids = mails(&store, 2).await;
    decide(&store, ids[0], Event::Hold).await.expect("hold");
    decide(&store, ids[1], Event::Cancel).await.expect("cancel");
    decide(&store, ids[0], Event::Unhold).await.expect("unhold");
    let events = all(&store).await;
    let order: Vec<_> = events.iter().map(|event| (event.subject, event.what.as_str())).collect();
    let [first, second] = [ids[0], ids[1]].map(EventSubject::Queue);
    assert_eq!(
        order,
        [(first, "queued"), (second, "queued"), (first, "hold"), (second, "cancel"), (first, "unhold")]
    );
    let desk: &dyn QueueDesk = &*store;
    for id in ids {
        let shown = desk.show(id).await.expect("show").expect("a mail");
        let its: Vec<_> = events.iter().filter(|event| event.subject == EventSubject::Queue(id)).collect();
        assert_eq!(its.len(), shown.timeline.len());
        for (event, entry) in its.into_iter().zip(&shown.timeline) {
            assert_eq!(
                (event.at, event.recipient, &event.what, &event.detail, &event.actor),
                (entry.at, entry.recipient, &entry.what, &entry.detail, &entry.actor)
            );
            assert_eq!(event.state, entry.state.map(|state| state.to_string()));
            assert_eq!(
                (&event.contract, event.mailbox),
                (&Some(contract_id("ACME")), Some(shown.item.outbox))
            );
        }
    }
}

/// Misses a change that is told before it is made, or told though it was refused.
pub(super) async fn an_event_is_there_if_and_only_if_its_change_is(subject: Subject) {
    let store = subject.store;
    let ids = mails(&store, 1).await;
    let before = all(&store).await;
    assert_eq!(before.len(), 1);
    assert!(matches!(kind(decide(&store, ids[0], Event::Retry).await), ErrorKind::NotPossible { .. }));
    let mut stale = prepared(&store, 2, "ACME").await;
    stale.basis.outbox = postroom_core::id::Revision::new(99);
    assert_eq!(kind(enqueue(&store, &stale).await), ErrorKind::StaleDecision);
    let again = prepared(&store, 1, "ACME").await;
    enqueue(&store, &again).await.expect("it is there");
    assert_eq!(all(&store).await, before, "nothing changed");
    decide(&store, ids[0], Event::Cancel).await.expect("cancel");
    let after = all(&store).await;
    assert_eq!(after.len(), 2);
    assert_eq!(after[1].state.as_deref(), Some(State::Cancelled.word()));
    assert_eq!(after[1].actor, Some(actor()));
}

pub(super) async fn a_reader_goes_on_behind_what_it_has_read(subject: Subject) {
    let store = subject.store;
    let ids = mails(&store, 3).await;
    let read = store.events(EventNumber::new(0), 2).await.expect("events");
    let mark = read[1].number;
    assert_eq!(store.events(EventNumber::new(0), 2).await.expect("events"), read, "again, after a crash");
    let rest = store.events(mark, 100).await.expect("events");
    assert_eq!(rest.iter().map(|event| event.subject).collect::<Vec<_>>(), [EventSubject::Queue(ids[2])]);
    assert_eq!(store.events(rest[0].number, 100).await.expect("events"), []);
    decide(&store, ids[0], Event::Cancel).await.expect("cancel");
    let new = store.events(rest[0].number, 100).await.expect("events");
    assert_eq!(new.iter().map(|event| event.what.as_str()).collect::<Vec<_>>(), ["cancel"]);
}

pub(super) async fn received_mail_has_events_and_what_a_baseline_leaves_out_has_none(subject: Subject) {
    let store = subject.store;
    let inbox = add(&store, inbox("imap.example")).await;
    let place = place(inbox, 1);
    let left_out = left_out(&store, &place, at(0), vec![RemoteKey::Uid(1)]).await;
    assert!(store.skip(at(0), &place, &left_out).await.expect("skip"));
    let mail = received(2, &place, 2, "one");
    store_one(&store, at(1), &mail).await.expect("store");
    store.settled(at(2), &[mail.id], crate::ledger::Told::Keep).await.expect("settled");
    let events = all(&store).await;
    let its = EventSubject::Ledger(LedgerId::from_uuid(mail.id.uuid()));
    assert_eq!(whats(&events, its), ["stored", "settled"]);
    assert_eq!(events.len(), 2);
    assert_eq!((events[0].mailbox, &events[0].contract), (Some(inbox), &mail.contract));
    assert_eq!(events[0].state.as_deref(), Some("stored"));
}

pub(super) async fn a_mailbox_is_an_event_when_it_takes_a_turn(subject: Subject) {
    let store = subject.store;
    let id = add(&store, outbox("smtp.example")).await;
    let wait = std::time::Duration::from_secs(5);
    let failure = Sign::Failure { error: "no route".to_owned(), wait };
    let suspended = Sign::Suspended { error: "sign-in refused".to_owned() };
    for (seconds, sign) in
        [&Sign::Success, &failure, &failure, &suspended, &suspended].into_iter().enumerate()
    {
        store.record(at(i64::try_from(seconds).expect("few")), id, sign).await.expect("record");
    }
    store.clear(at(9), id).await.expect("clear");
    store.record(at(10), id, &failure).await.expect("record");
    store.record(at(11), id, &Sign::Success).await.expect("record");
    let events = all(&store).await;
    assert_eq!(
        whats(&events, EventSubject::Mailbox(id)),
        ["failing", "suspended", "works", "failing", "works"]
    );
    assert_eq!((events[1].at, events[1].detail.as_str()), (at(3), "sign-in refused"));
    assert_eq!((events[2].at, events[2].mailbox), (at(9), Some(id)));
}

pub(super) async fn the_numbers_go_on_after_a_reopening(subject: Subject) {
    let ids = mails(&subject.store, 2).await;
    let before = all(&subject.store).await;
    let store = subject.restarted().await;
    assert_eq!(all(&store).await, before);
    decide(&store, ids[0], Event::Cancel).await.expect("cancel");
    let after = all(&store).await;
    assert!(after[2].number > before[1].number, "{after:?}");
}
