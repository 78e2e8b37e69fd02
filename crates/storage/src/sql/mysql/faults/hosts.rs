//! Mail that is submitted within a host's own transaction.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use postroom_core::address::Address;
use postroom_core::id::{EventNumber, IdempotencyKey, Revision, WorkerId};
use postroom_core::message::{OnSuppressed, Submission};
use postroom_core::queue::Prepared;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection};

use super::fixture::{
    accepted, change, check_whole, dropped_after, host, id, number, prepared, registered, store, suppressed,
};
use crate::clock::Clock;
use crate::error::{ErrorKind, Result};
use crate::events::{EventSubject, Events};
use crate::queue::{ClaimMark, Enqueued, QueueIntake, QueueWork};
use crate::registry::{Links, Mailboxes, Scope, SecretWrite, Switch, Switches};
use crate::sql::mysql::store::MySqlStore;
use crate::suppressions::Suppressions;

/// A connection of the host, whose table stands beside those of the store.
async fn hosted(url: &str) -> MySqlConnection {
    let mut host = host(url).await;
    sqlx::query("CREATE TABLE ticket (mail BINARY(16)) ENGINE=InnoDB").execute(&mut host).await.unwrap();
    host
}

async fn ticket(tx: &mut MySqlConnection, mail: &Prepared) {
    let insert = sqlx::query("INSERT INTO ticket (mail) VALUES (?)").bind(mail.id.uuid());
    insert.execute(tx).await.unwrap();
}

async fn enqueue(store: &MySqlStore, tx: &mut MySqlConnection, mail: &Prepared) -> Result<Enqueued> {
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
    // One that the database refuses, behind the row of its key. Would miss a key without a mail.
    let mut illegal = prepared(store.now(), &outbox);
    illegal.message_id = (0..400).map(|_| id().simple().to_string()).collect();
    let print = Submission::text(illegal.contract.clone(), "faults", "x")
        .with_to(Address::parse("a@b.example").unwrap());
    illegal.idempotency = Some((IdempotencyKey::parse("ticket 1").unwrap(), print.fingerprint()));
    let error = enqueue(&store, &mut tx, &illegal).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unreadable);
    enqueue(&store, &mut tx, &good).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(number(&store, "SELECT count(*) FROM postroom_queue_key").await, 0);
    assert_eq!(number(&store, "SELECT count(*) FROM postroom_body").await, 1);
    assert_eq!((number(&store, MAILS).await, number(&store, TICKETS).await), (1, 1));
    assert_eq!(number(&store, "SELECT CAST(sum(submitted) AS SIGNED) FROM postroom_queue_tally").await, 1);
}

/// Would miss half a mail that the host commits with its own rows. The connection is to be closed then; a host that commits all the
/// same gets no half of it, where the driver still speaks with the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_future_leaves_a_whole_mail_or_none() {
    let Some((store, url)) = store().await else { return };
    let outbox = registered(&store).await;
    let mut first = hosted(&url).await;
    let (mut cut, mut committed, mut done, mut before) = (0, 0, 0, (0, 0));
    for round in 0..120usize {
        let mut host = host(&url).await;
        if round % 2 == 0 {
            // A statement that is new to its connection is prepared first.
            let mut tx = host.begin().await.unwrap();
            enqueue(&store, &mut tx, &prepared(store.now(), &outbox)).await.unwrap();
            tx.rollback().await.unwrap();
        }
        sqlx::raw_sql("START TRANSACTION").execute(&mut host).await.unwrap();
        let mail = prepared(store.now(), &outbox);
        ticket(&mut host, &mail).await;
        let enqueued = dropped_after(enqueue(&store, &mut host, &mail), round / 2 % 45).await;
        let commit = async { sqlx::raw_sql("COMMIT").execute(&mut host).await };
        let commit = tokio::time::timeout(Duration::from_millis(500), commit).await;
        drop(host);
        if commit.is_ok_and(|commit| commit.is_ok()) {
            committed += i32::from(enqueued.is_none());
        }
        // What the server still has of the session holds rows.
        let wait = "SELECT count(*) FROM postroom_lock LOCK IN SHARE MODE";
        sqlx::query(wait).fetch_one(&mut first).await.unwrap();
        let counts = (number(&store, MAILS).await, number(&store, TICKETS).await);
        let (mails, tickets) = (counts.0 - before.0, counts.1 - before.1);
        // All of the mail with the host's row, or nothing of it; never the mail alone.
        assert!(mails <= tickets && (0..=1).contains(&tickets), "{mails} {tickets} {enqueued:?}");
        match enqueued {
            Some(enqueued) => {
                enqueued.unwrap();
                assert_eq!(mails, 1);
                done += 1;
            }
            None => cut += 1,
        }
        before = counts;
        check_whole(&store).await;
    }
    assert!(cut > 10 && done > 10 && committed > 10, "{cut} cut, {committed} of them committed, {done} done");
    // The contents that dropped futures left are swept away.
    crate::bodies::Bodies::sweep(&store, store.now() + Duration::from_secs(1)).await.unwrap();
    let orphans = "SELECT count(*) FROM postroom_body b
        WHERE NOT EXISTS (SELECT 1 FROM postroom_queue_mail m WHERE m.body = b.id)";
    assert_eq!(number(&store, orphans).await, 0);
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
    sqlx::raw_sql("USE information_schema").execute(&mut *tx).await.unwrap();
    let error = enqueue(&store, &mut tx, &prepared(store.now(), &outbox)).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Schema);
    // The transaction goes on.
    sqlx::query("SELECT 1").execute(&mut *tx).await.unwrap();
    tx.rollback().await.unwrap();
    let (_, database) = url.rsplit_once('/').unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("USE {database}"))).execute(&mut host).await.unwrap();
    let mut tx = host.begin().await.unwrap();
    let sql = "INSERT INTO postroom_migration SELECT 99, name, checksum, steps, 0 FROM postroom_migration WHERE version = 1";
    sqlx::query(sql).execute(&mut *tx).await.unwrap();
    let error = enqueue(&store, &mut tx, &prepared(store.now(), &outbox)).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Schema);
}

/// Would miss a session that does not see what was committed since it began, that cuts what is too long, or that spoils letters.
#[tokio::test]
async fn a_session_of_another_kind_is_refused_with_the_remedy() {
    let Some((store, url)) = store().await else { return };
    let outbox = registered(&store).await;
    for (setting, remedy) in [
        ("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ", "READ COMMITTED"),
        ("SET SESSION sql_mode = ''", "sql_mode"),
        ("SET SESSION sql_mode = 'ANSI_QUOTES,STRICT_ALL_TABLES'", "sql_mode"),
        ("SET SESSION foreign_key_checks = 0", "foreign keys"),
        ("SET NAMES latin1", "utf8mb4"),
    ] {
        let mut host = host(&url).await;
        sqlx::raw_sql(setting).execute(&mut host).await.unwrap();
        let mut tx = host.begin().await.unwrap();
        let error = enqueue(&store, &mut tx, &prepared(store.now(), &outbox)).await.unwrap_err();
        let ErrorKind::UnfitConnection { why } = error.kind() else { panic!("{setting}: {error:?}") };
        assert!(why.contains(remedy), "{why}");
        tx.commit().await.unwrap();
    }
    assert_eq!(number(&store, MAILS).await, 0);
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

/// The other way round. Would miss a mail that is sent though its contract was paused: it does not see the pause that is about to be
/// committed, and the pause did not see it.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_waits_for_a_pause_that_is_not_yet_committed() {
    let Some((store, url)) = store().await else { return };
    let outbox = registered(&store).await;
    let mail = prepared(store.now(), &outbox);
    let (change, scope) = (change(store.now()), Scope::Contract(mail.contract.clone()));
    let mut pausing = store.connections.write("pause").await.unwrap();
    let paused = crate::sql::mysql::switches::set_switch_in(&mut pausing, &change, &scope, Switch::Paused);
    paused.await.unwrap();
    let mut host = host(&url).await;
    let mut tx = host.begin().await.unwrap();
    let mut submitting = std::pin::pin!(async {
        enqueue(&store, &mut tx, &mail).await.unwrap();
        tx.commit().await.unwrap();
    });
    tokio::select! {
        () = &mut submitting => panic!("it saw no pause"),
        () = tokio::time::sleep(Duration::from_millis(300)) => {}
    }
    pausing.finish(Ok(())).await.unwrap();
    submitting.await;
    assert_eq!(number(&store, "SELECT count(*) FROM postroom_queue_open WHERE paused").await, 1);
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

/// Places are drawn in another order than transactions commit. Would miss an event whose number is less than that of one which a
/// reader is done with: the host's is written first and comes last.
#[tokio::test]
async fn an_event_that_is_committed_late_has_a_greater_number_than_all_that_were_read() {
    let Some((store, url)) = store().await else { return };
    let outbox = registered(&store).await;
    let read = async |after: i64| {
        let events = store.events(EventNumber::new(after), 100).await.unwrap();
        events.into_iter().map(|event| (event.subject, event.number.number())).collect::<Vec<_>>()
    };
    let mail = || prepared(store.now(), &outbox);
    let (early, slow, late) = (mail(), mail(), mail());
    store.enqueue(store.now(), &early, Bytes::from_static(b"x")).await.unwrap();
    let mut host = host(&url).await;
    let mut tx = host.begin().await.unwrap();
    enqueue(&store, &mut tx, &slow).await.unwrap();
    store.enqueue(store.now(), &late, Bytes::from_static(b"x")).await.unwrap();
    let [first, second, third] = [&early, &slow, &late].map(|mail| EventSubject::Queue(mail.id));
    // It holds up nobody.
    assert_eq!(read(0).await, [(first, 1), (third, 2)]);
    tx.commit().await.unwrap();
    assert_eq!(read(2).await, [(second, 3)]);
    assert_eq!(read(0).await, [(first, 1), (third, 2), (second, 3)]);
    // Of its own timeline it is the first all the same.
    assert_eq!(number(&store, "SELECT count(*) FROM postroom_event WHERE place <> number").await, 2);
}

/// Would miss an event that a reader never sees, because its number came behind his back: several write, hosts' transactions take their
/// time, two read and give numbers.
#[tokio::test(flavor = "multi_thread")]
async fn readers_see_each_event_once_while_others_write() {
    let Some((store, url)) = store().await else { return };
    let outbox = registered(&store).await;
    let other = MySqlStore::connect(&url, crate::MySqlOptions::new()).await.unwrap();
    let writers = AtomicU32::new(6);
    let write = async |slow: bool| {
        let mut host = host(&url).await;
        for turn in 0..25u64 {
            let mut tx = host.begin().await.unwrap();
            enqueue(&store, &mut tx, &prepared(store.now(), &outbox)).await.unwrap();
            if slow {
                tokio::time::sleep(Duration::from_millis(turn % 7)).await;
            }
            tx.commit().await.unwrap();
        }
        writers.fetch_sub(1, Ordering::SeqCst);
    };
    let read = async |store: &MySqlStore| {
        let (mut seen, mut last) = (BTreeSet::new(), 0);
        loop {
            let is_over = writers.load(Ordering::SeqCst) == 0;
            let events = store.events(EventNumber::new(last), 10).await.unwrap();
            if is_over && events.is_empty() {
                return seen;
            }
            for event in events {
                assert!(event.number.number() > last);
                last = event.number.number();
                let EventSubject::Queue(id) = event.subject else { panic!("{event:?}") };
                assert!(seen.insert(id), "{id} twice");
            }
        }
    };
    let writing = join_all((0..6).map(|turn| write(turn % 2 == 0)));
    let (_, one, two) = tokio::join!(writing, read(&store), read(&other));
    assert_eq!((one.len(), two.len()), (150, 150));
}
