//! Mail that is submitted within a host's own transaction.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use postroom_core::address::Address;
use postroom_core::id::{EventNumber, IdempotencyKey, Revision, WorkerId};
use postroom_core::message::{OnSuppressed, Submission};
use postroom_core::queue::Prepared;
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::fixture::{
    accepted, change, check_whole, dropped_after, host, id, number, prepared, registered, store, suppressed,
};
use crate::clock::Clock;
use crate::error::{ErrorKind, Result};
use crate::events::{EventSubject, Events};
use crate::queue::{ClaimMark, Enqueued, QueueIntake, QueueWork};
use crate::registry::{Links, Mailboxes, Scope, SecretWrite, Switch, Switches};
use crate::sql::postgres::store::PgStore;
use crate::suppressions::Suppressions;

/// A connection of the host, whose table stands beside those of the store.
async fn hosted(url: &str) -> PgConnection {
    let mut host = host(url).await;
    sqlx::query("CREATE TABLE ticket (mail uuid)").execute(&mut host).await.unwrap();
    host
}

async fn ticket(tx: &mut PgConnection, mail: &Prepared) {
    let insert = sqlx::query("INSERT INTO ticket (mail) VALUES ($1)").bind(mail.id.uuid());
    insert.execute(tx).await.unwrap();
}

async fn enqueue(store: &PgStore, tx: &mut PgConnection, mail: &Prepared) -> Result<Enqueued> {
    store.enqueue_in(tx, store.now(), mail, Bytes::from_static(b"x")).await
}

const MAILS: &str = "SELECT count(*) FROM postroom_queue_mail";
const TICKETS: &str = "SELECT count(*) FROM ticket";

#[tokio::test]
async fn a_rollback_leaves_nothing_and_a_commit_leaves_one() {
    let Some((store, url)) = store().await else { return };
    let outbox = registered(&store).await;
    let mut host = hosted(&url).await;
    for (commits, left) in [(false, 0), (true, 1)] {
        let mail = prepared(store.now(), &outbox);
        let mut tx = host.begin().await.unwrap();
        ticket(&mut tx, &mail).await;
        assert_eq!(enqueue(&store, &mut tx, &mail).await.unwrap(), Enqueued::New(mail.id));
        assert_eq!(enqueue(&store, &mut tx, &mail).await.unwrap(), Enqueued::Existing(mail.id));
        assert_eq!(number(&store, MAILS).await, 0, "it is seen before the commit");
        if commits {
            tx.commit().await.unwrap()
        } else {
            tx.rollback().await.unwrap()
        }
        assert_eq!((number(&store, MAILS).await, number(&store, TICKETS).await), (left, left));
        check_whole(&store).await;
    }
}

// Seen to fail without the look at the list. Would miss an entry that a transaction commits beside the host's.
#[tokio::test]
async fn a_mail_to_a_suppressed_address_is_refused_unless_it_says_that_it_goes_all_the_same() {
    let Some((store, url)) = store().await else { return };
    let outbox = registered(&store).await;
    let mut host = hosted(&url).await;
    let (first, mut second) = (prepared(store.now(), &outbox), prepared(store.now(), &outbox));
    let mut tx = host.begin().await.unwrap();
    ticket(&mut tx, &first).await;
    enqueue(&store, &mut tx, &first).await.unwrap();
    tx.commit().await.unwrap();
    store.suppress(&change(store.now()), &suppressed("a@b.example")).await.unwrap();
    let mut tx = host.begin().await.unwrap();
    ticket(&mut tx, &second).await;
    let refused = enqueue(&store, &mut tx, &second).await.unwrap_err();
    assert!(refused.to_string().contains("a@b.example (operator: left)"), "{refused}");
    // What was submitted before is that mail, and the refused one leaves the transaction as it was.
    assert_eq!(enqueue(&store, &mut tx, &first).await.unwrap(), Enqueued::Existing(first.id));
    second.on_suppressed = OnSuppressed::Send;
    enqueue(&store, &mut tx, &second).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!((number(&store, MAILS).await, number(&store, TICKETS).await), (2, 2));
    check_whole(&store).await;
}

#[tokio::test]
async fn a_refused_mail_leaves_the_transaction_as_it_was() {
    let Some((store, url)) = store().await else { return };
    let outbox = registered(&store).await;
    let mut host = hosted(&url).await;
    let (good, mut stale) = (prepared(store.now(), &outbox), prepared(store.now(), &outbox));
    stale.basis.contract = Some(Revision::new(9));
    let mut tx = host.begin().await.unwrap();
    ticket(&mut tx, &good).await;
    let error = enqueue(&store, &mut tx, &stale).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::StaleDecision);
    enqueue(&store, &mut tx, &good).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!((number(&store, MAILS).await, number(&store, TICKETS).await), (1, 1));
    assert_eq!(number(&store, "SELECT sum(submitted)::bigint FROM postroom_queue_tally").await, 1);
}

/// Would miss half a mail that the host commits with its own rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_future_leaves_a_whole_mail_or_none_and_the_rest_of_the_transaction() {
    let Some((store, url)) = store().await else { return };
    let outbox = registered(&store).await;
    let mut old = hosted(&url).await;
    let (mut cut, mut done, mut before) = (0, 0, 0);
    for round in 0..120u32 {
        // A statement that is new to its connection is prepared first.
        let mut new = host(&url).await;
        let (host, polls) = if round % 2 == 0 { (&mut new, round / 2) } else { (&mut old, round / 2 % 9) };
        let mail = prepared(store.now(), &outbox);
        let mut tx = host.begin().await.unwrap();
        ticket(&mut tx, &mail).await;
        let enqueued = dropped_after(enqueue(&store, &mut tx, &mail), usize::try_from(polls).unwrap()).await;
        ticket(&mut tx, &mail).await;
        tx.commit().await.unwrap();
        let mails = number(&store, MAILS).await;
        assert!(mails == before + 1 || enqueued.is_none() && mails == before, "{mails} after {before}");
        match enqueued {
            Some(enqueued) => {
                enqueued.unwrap();
                done += 1;
            }
            None => cut += 1,
        }
        before = mails;
        // The host's own rows are there, whatever became of the mail.
        assert_eq!(number(&store, TICKETS).await, 2 * (i64::from(round) + 1));
        check_whole(&store).await;
    }
    assert!(cut > 10 && done > 10 && before > done, "{cut} cut, {done} done, {before} there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_parallel_transactions_with_one_key_leave_one_mail() {
    let Some((store, url)) = store().await else { return };
    let outbox = registered(&store).await;
    let contract = prepared(store.now(), &outbox).contract;
    let to = Address::parse("a@b.example").unwrap();
    let print = Submission::text(contract, "faults", "x").with_to(to).fingerprint();
    // At most so many at once: a server takes no hundred connections of one test beside those of the others.
    let places = tokio::sync::Semaphore::new(20);
    let submit = async |by_host: bool| {
        let mut mail = prepared(store.now(), &outbox);
        mail.idempotency = Some((IdempotencyKey::parse("ticket 1").unwrap(), print.clone()));
        if !by_host {
            return store.enqueue(store.now(), &mail, Bytes::from_static(b"x")).await.unwrap();
        }
        let _place = places.acquire().await.unwrap();
        let mut host = host(&url).await;
        let mut tx = host.begin().await.unwrap();
        let enqueued = enqueue(&store, &mut tx, &mail).await.unwrap();
        tx.commit().await.unwrap();
        enqueued
    };
    let done = join_all((0..100).map(|turn| submit(turn % 4 > 0))).await;
    assert_eq!(done.iter().filter(|done| matches!(done, Enqueued::New(_))).count(), 1);
    assert!(done.iter().all(|other| other.id() == done[0].id()));
    assert_eq!(number(&store, MAILS).await, 1);
    check_whole(&store).await;
}

/// Would miss a second mail, or an error of the database, where two say the same at once without a key.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_mail_twice_at_once_is_one_mail() {
    let Some((store, url)) = store().await else { return };
    let outbox = registered(&store).await;
    for _ in 0..20 {
        let mail = prepared(store.now(), &outbox);
        let submit = async || {
            let mut host = host(&url).await;
            let mut tx = host.begin().await.unwrap();
            let enqueued = enqueue(&store, &mut tx, &mail).await.unwrap();
            tx.commit().await.unwrap();
            enqueued
        };
        let (one, other, third) = tokio::join!(submit(), submit(), submit());
        let new = [one, other, third].iter().filter(|done| matches!(done, Enqueued::New(_))).count();
        assert_eq!(new, 1);
    }
    assert_eq!(number(&store, MAILS).await, 20);
    check_whole(&store).await;
}

#[tokio::test]
async fn a_connection_without_a_transaction_and_another_schema_are_refused() {
    let Some((store, url)) = store().await else { return };
    let outbox = registered(&store).await;
    let mut host = host(&url).await;
    let error = enqueue(&store, &mut host, &prepared(store.now(), &outbox)).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::UnfitConnection { .. }), "{error:?}");
    let mut tx = host.begin().await.unwrap();
    sqlx::query("SET LOCAL search_path = pg_catalog").execute(&mut *tx).await.unwrap();
    let error = enqueue(&store, &mut tx, &prepared(store.now(), &outbox)).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Schema);
    // The transaction goes on.
    sqlx::query("SELECT 1").execute(&mut *tx).await.unwrap();
    tx.rollback().await.unwrap();
    let mut tx = host.begin().await.unwrap();
    let sql = "INSERT INTO postroom_migration SELECT 99, name, checksum, 0 FROM postroom_migration WHERE version = 1";
    sqlx::query(sql).execute(&mut *tx).await.unwrap();
    let error = enqueue(&store, &mut tx, &prepared(store.now(), &outbox)).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Schema);
}

/// Would miss a mail that is lost with the power though the host's commit returned.
#[tokio::test]
async fn the_hosts_commit_is_synced_whatever_its_session_says() {
    let Some((store, url)) = store().await else { return };
    let outbox = registered(&store).await;
    let mut host = host(&url).await;
    sqlx::query("SET synchronous_commit = off").execute(&mut host).await.unwrap();
    let mut stale = prepared(store.now(), &outbox);
    stale.basis.contract = Some(Revision::new(9));
    for refused in [false, true] {
        let mut tx = host.begin().await.unwrap();
        if refused {
            enqueue(&store, &mut tx, &stale).await.unwrap_err();
        }
        enqueue(&store, &mut tx, &prepared(store.now(), &outbox)).await.unwrap();
        let shown = sqlx::query_as("SHOW synchronous_commit").fetch_one(&mut *tx).await;
        let (shown,): (String,) = shown.unwrap();
        assert_eq!(shown, "on");
        tx.commit().await.unwrap();
    }
}

/// Would miss a change of the registry that slips in between the decision and the host's commit.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_mail_was_decided_by_can_not_change_before_the_host_commits() {
    let Some((store, url)) = store().await else { return };
    let outbox = registered(&store).await;
    let mut host = host(&url).await;
    let change = change(store.now());
    let contract = store.contract(&prepared(store.now(), &outbox).contract).await.unwrap().unwrap();
    // One at a time: changes of the registry wait for each other, too. The one that is refused comes first.
    let changes = async |place: usize| match place {
        0 => store.remove(&change, outbox.id, None).await.map(|()| None),
        1 => store.save_contract(&change, &contract).await.map(Some),
        _ => store.save(&change, &outbox, SecretWrite::Keep).await.map(Some),
    };
    for place in 0..3 {
        let mut mail = prepared(store.now(), &outbox);
        // The contract was saved by the change before the last.
        mail.basis.contract = Some(Revision::new(if place < 2 { 1 } else { 2 }));
        let mut tx = host.begin().await.unwrap();
        enqueue(&store, &mut tx, &mail).await.unwrap();
        let mut changing = std::pin::pin!(changes(place));
        tokio::select! {
            changed = &mut changing => panic!("{place}: {changed:?}"),
            () = tokio::time::sleep(Duration::from_millis(300)) => {}
        }
        tx.commit().await.unwrap();
        match changing.await {
            // The mail that was on its way counts.
            Err(error) => assert_eq!((place, error.kind()), (0, &ErrorKind::InUse)),
            Ok(revision) => assert_eq!(revision, Some(Revision::new(2))),
        }
    }
}

/// Would miss a mail that is sent though its contract was paused before it was committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_meets_the_mail_of_a_transaction_that_is_still_open() {
    let Some((store, url)) = store().await else { return };
    let outbox = registered(&store).await;
    let mut host = host(&url).await;
    let mut tx = host.begin().await.unwrap();
    let mail = prepared(store.now(), &outbox);
    enqueue(&store, &mut tx, &mail).await.unwrap();
    let (change, scope) = (change(store.now()), Scope::Contract(mail.contract.clone()));
    let pause = store.set_switch(&change, &scope, Switch::Paused);
    let commit = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        tx.commit().await.unwrap();
    };
    let (paused, ()) = tokio::join!(pause, commit);
    paused.unwrap();
    assert_eq!(number(&store, "SELECT count(*) FROM postroom_queue_open WHERE paused").await, 1);
    check_whole(&store).await;
}

/// Would miss a mail whose lane was brought up to date by somebody who did not see it yet, and submissions of others that wait for
/// a host's transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_stays_open_holds_up_nobody_and_its_mail_is_found_after_the_commit() {
    let Some((store, url)) = store().await else { return };
    let outbox = registered(&store).await;
    let mut host = host(&url).await;
    let mut tx = host.begin().await.unwrap();
    let late = prepared(store.now(), &outbox);
    enqueue(&store, &mut tx, &late).await.unwrap();
    let now = store.now() + Duration::from_secs(1);
    let worker = WorkerId::from_uuid(id());
    for _ in 0..3 {
        let mail = prepared(store.now(), &outbox);
        store.enqueue(store.now(), &mail, Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(store.due_outboxes(now, 10).await.unwrap(), [outbox.id]);
        let claimed = store.claim(now, outbox.id, 10, worker, now + Duration::from_secs(30)).await.unwrap();
        assert_eq!(claimed.iter().map(|one| one.id).collect::<Vec<_>>(), [mail.id]);
        let marks: Vec<_> = claimed.iter().map(|one| ClaimMark { id: one.id, claim: one.claim }).collect();
        assert_eq!(store.mark(now, &marks).await.unwrap(), [true]);
        let settled: Vec<_> = claimed.iter().map(|one| accepted(one, now)).collect();
        store.settle(now, &settled).await.unwrap();
        assert_eq!(store.due_outboxes(now, 10).await.unwrap(), []);
    }
    tx.commit().await.unwrap();
    assert_eq!(store.due_outboxes(now, 10).await.unwrap(), [outbox.id]);
    check_whole(&store).await;
}

/// Would miss two that take the last place of a contract together.
#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_a_contract_hold_for_transactions_that_are_open_at_the_same_time() {
    let Some((store, url)) = store().await else { return };
    let outbox = registered(&store).await;
    let mut contract = store.contract(&prepared(store.now(), &outbox).contract).await.unwrap().unwrap();
    (contract.limits.queued, contract.limits.per_day) = (Some(7), Some(5));
    let revision = store.save_contract(&change(store.now()), &contract).await.unwrap();
    let submit = async || {
        let mut host = host(&url).await;
        let mut tx = host.begin().await.unwrap();
        let mut mail = prepared(store.now(), &outbox);
        mail.basis.contract = Some(revision);
        let done = enqueue(&store, &mut tx, &mail).await;
        tx.commit().await.unwrap();
        done
    };
    let done = join_all((0..16).map(|_| submit())).await;
    assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 5, "{done:?}");
    assert_eq!(number(&store, MAILS).await, 5);
}

/// Numbers are drawn in another order than transactions commit. Would miss an event whose number is less than that of one which a
/// reader is done with: the host's is drawn first and comes last.
#[tokio::test]
async fn no_event_is_given_before_those_with_smaller_numbers_are_committed_or_gone() {
    let Some((store, url)) = store().await else { return };
    let outbox = registered(&store).await;
    let read = async || {
        let events = store.events(EventNumber::new(0), 100).await.unwrap();
        events.into_iter().map(|event| event.subject).collect::<Vec<_>>()
    };
    let mail = || prepared(store.now(), &outbox);
    let (early, slow, late, last) = (mail(), mail(), mail(), mail());
    store.enqueue(store.now(), &early, Bytes::from_static(b"x")).await.unwrap();
    let [first, second, third, fourth] =
        [&early, &slow, &late, &last].map(|mail| EventSubject::Queue(mail.id));
    let mut host = host(&url).await;
    for commits in [false, true] {
        let mut tx = host.begin().await.unwrap();
        enqueue(&store, &mut tx, &slow).await.unwrap();
        let (after, known) = if commits { (&last, vec![first, third]) } else { (&late, vec![first]) };
        store.enqueue(store.now(), after, Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(read().await, known);
        if commits {
            tx.commit().await.unwrap();
            assert_eq!(read().await, [first, third, second, fourth]);
        } else {
            tx.rollback().await.unwrap();
            assert_eq!(read().await, [first, third]);
        }
    }
}
