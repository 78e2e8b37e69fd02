//! What only a store on a server can get wrong: dropped futures, lost connections, two stores, a schema of another release. What
//! every store has to keep is in the conformance suite. The tests use the server that `POSTROOM_TEST_POSTGRES` names.

mod completion;
pub(super) mod fixture;
mod hosts;
mod joined;
mod server;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use postroom_core::id::{BodyId, MailboxId, WorkerId};
use sqlx::{AssertSqlSafe, Connection};

use self::fixture::{
    accepted, check_whole, dropped_after, host, id, number, prepared, registered, schema, store,
};
use super::bodies;
use super::connection::{failed, say};
use super::schema as migrations;
use super::store::{PgOptions, PgStore};
use crate::bodies::Bodies;
use crate::clock::Clock;
use crate::error::ErrorKind;
use crate::queue::{ClaimMark, QueueDesk, QueueIntake, QueueWork};
use crate::registry::Mailboxes;
use crate::sql::migrate::Migration;

#[tokio::test]
async fn every_commit_is_synced_and_nobody_waits_for_ever() {
    let Some((store, _)) = store().await else { return };
    let mut tx = store.connections.write("ask", "BEGIN").await.unwrap();
    for (setting, want) in [
        ("synchronous_commit", "on"),
        ("transaction_isolation", "read committed"),
        ("lock_timeout", "10s"),
        ("statement_timeout", "1min"),
        ("idle_in_transaction_session_timeout", "5s"),
    ] {
        let sql = AssertSqlSafe(format!("SHOW {setting}"));
        let (value,): (String,) = sqlx::query_as(sql).fetch_one(&mut *tx).await.unwrap();
        assert_eq!(value, want, "{setting}");
    }
    tx.finish(Ok(())).await.unwrap();
}

/// PostgreSQL answers the commit of a transaction that failed with success. Would miss what a caller then takes for written.
#[tokio::test]
async fn a_commit_that_rolls_back_is_an_error() {
    let Some((store, _)) = store().await else { return };
    let mut tx = store.connections.write("fail", "BEGIN").await.unwrap();
    sqlx::query("INSERT INTO postroom_standard VALUES (1, 7)").execute(&mut *tx).await.unwrap_err();
    tx.finish(Ok(())).await.unwrap_err();
    store.reserve().await.unwrap();
}

/// No foreign key leads from a piece to its content. Would miss a piece that is taken for stored, of a content that a sweep
/// is about to remove.
#[tokio::test]
async fn a_piece_that_comes_while_its_content_is_swept_away_is_refused() {
    let Some((store, _)) = store().await else { return };
    let (id, now) = (BodyId::from_uuid(id()), store.now());
    store.stage(now, id, 0, Bytes::from_static(b"x")).await.unwrap();
    let mut sweep = store.connections.write("sweep", "BEGIN").await.unwrap();
    let orphans = AssertSqlSafe(bodies::ORPHANS.replace("$1", "9223372036854775807"));
    sqlx::raw_sql(orphans).execute(&mut *sweep).await.unwrap();
    // The sweep goes on when the other waits for it.
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
        AND query LIKE 'INSERT INTO postroom_body_piece%'";
    let sweep = async {
        for _ in 0..2000 {
            if number(&store, waits).await > 0 {
                break;
            }
        }
        let removal = "DELETE FROM postroom_body_piece; DELETE FROM postroom_body";
        sqlx::raw_sql(removal).execute(&mut *sweep).await.unwrap();
        sweep.finish(Ok(())).await.unwrap();
    };
    let (staged, ()) = tokio::join!(store.stage(now, id, 1, Bytes::from_static(b"y")), sweep);
    assert_eq!(staged.unwrap_err().kind(), &ErrorKind::NotFound);
    assert_eq!(number(&store, "SELECT count(*) FROM postroom_body_piece").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_future_leaves_all_of_a_transaction_or_nothing() {
    let Some((store, _)) = store().await else { return };
    let outbox = registered(&store).await;
    let (mut cut, mut done) = (0, 0);
    for polls in 0..80 {
        let now = store.now();
        let mail = prepared(now, &outbox);
        let enqueue = store.enqueue(now, &mail, Bytes::from_static(b"x"));
        match dropped_after(enqueue, polls % 16).await {
            Some(result) => {
                result.unwrap();
                done += 1;
            }
            None => cut += 1,
        }
        let (worker, until) = (WorkerId::from_uuid(id()), now + Duration::from_secs(30));
        let claim = store.claim(now, outbox.id, 3, worker, until);
        if let Some(claimed) = dropped_after(claim, (polls * 7) % 24).await {
            let settled: Vec<_> = claimed.unwrap().iter().map(|one| accepted(one, now)).collect();
            let marks: Vec<_> =
                settled.iter().map(|one| ClaimMark { id: one.id, claim: one.claim }).collect();
            store.mark(now, &marks).await.unwrap();
            dropped_after(store.settle(now, &settled), (polls * 3) % 24).await.map(Result::unwrap);
        }
        // Whoever comes next finds no transaction open.
        check_whole(&store).await;
    }
    assert!(cut > 10 && done > 10, "{cut} cut, {done} done: the drops miss the transaction");
}

/// Would miss a claim without `FOR UPDATE SKIP LOCKED`: two workers then read the same row as free.
#[tokio::test(flavor = "multi_thread")]
async fn stores_of_several_processes_claim_each_mail_once() {
    let Some((one, url)) = store().await else { return };
    let other = PgStore::open(&url).await.unwrap();
    let outbox = registered(&one).await;
    let mails: Vec<_> = (0..120).map(|_| prepared(one.now(), &outbox)).collect();
    for (turn, mail) in mails.iter().enumerate() {
        let store = if turn % 2 == 0 { &one } else { &other };
        store.enqueue(store.now(), mail, Bytes::from_static(b"x")).await.unwrap();
    }
    let now = one.now() + Duration::from_secs(1);
    let work = |store: PgStore, outbox: MailboxId| async move {
        let mut ids = Vec::new();
        // Not only until one claim is empty: others may have had in their hands for a moment what was due.
        while !store.due_outboxes(now, 1).await.unwrap().is_empty() {
            let worker = WorkerId::from_uuid(id());
            let claimed = store.claim(now, outbox, 7, worker, now + Duration::from_secs(30)).await.unwrap();
            assert!(claimed.len() <= 7);
            let marks: Vec<_> =
                claimed.iter().map(|one| ClaimMark { id: one.id, claim: one.claim }).collect();
            assert_eq!(store.mark(now, &marks).await.unwrap(), vec![true; marks.len()]);
            ids.extend(claimed.iter().map(|one| one.id));
        }
        ids
    };
    let (a, b, c, d) = tokio::join!(
        work(one.clone(), outbox.id),
        work(other.clone(), outbox.id),
        work(one.clone(), outbox.id),
        work(other.clone(), outbox.id)
    );
    let all = [a, b, c, d].concat();
    assert_eq!(all.len(), 120);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 120);
    assert_eq!(other.open_claims().await.unwrap(), 120);
    check_whole(&one).await;
}

/// Would miss a change that overwrites another's: settlements, sweeps and people at the same mails from two processes, in opposite
/// orders, which is also how deadlocks are made.
#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_same_mails_by_several_processes_follow_each_other() {
    let Some((one, url)) = store().await else { return };
    let other = PgStore::open(&url).await.unwrap();
    let outbox = registered(&one).await;
    let actor = postroom_core::id::Actor::parse("ana").unwrap();
    for round in 0..12u32 {
        let now = one.now() + Duration::from_secs(1);
        for _ in 0..8 {
            one.enqueue(now, &prepared(now, &outbox), Bytes::from_static(b"x")).await.unwrap();
        }
        let (worker, until) = (WorkerId::from_uuid(id()), now + Duration::from_secs(5));
        let claimed = one.claim(now, outbox.id, 8, worker, until).await.unwrap();
        let marks: Vec<_> = claimed.iter().map(|one| ClaimMark { id: one.id, claim: one.claim }).collect();
        one.mark(now, &marks).await.unwrap();
        let settled: Vec<_> = claimed.iter().map(|one| accepted(one, now)).collect();
        let backwards: Vec<_> = settled.iter().rev().cloned().collect();
        let late = until + Duration::from_secs(u64::from(round % 2));
        let people = async {
            for mail in &claimed {
                let event = postroom_core::queue::Event::Accept;
                // Refused, or of effect on a doubt: either is right.
                let _ = other.decide(late, &actor, mail.id, event).await;
            }
        };
        let (first, second, swept, ()) = tokio::join!(
            one.settle(now, &settled),
            other.settle(now, &backwards),
            other.expire(late),
            people
        );
        first.unwrap();
        second.unwrap();
        swept.unwrap();
        for mail in &claimed {
            let record = one.show(mail.id).await.unwrap().unwrap();
            // A doubt is left only where the sweep came last of all, and then no answer was.
            assert_eq!(record.item.state, postroom_core::queue::State::Accepted, "{record:?}");
            let accepts = record
                .timeline
                .iter()
                .filter(|entry| entry.state == Some(postroom_core::queue::State::Accepted));
            assert_eq!(accepts.count(), 2, "each of two recipients once: {record:?}");
        }
        check_whole(&one).await;
    }
}

#[tokio::test]
async fn a_row_that_can_not_be_read_fails_alone() {
    let Some((store, _)) = store().await else { return };
    let outbox = registered(&store).await;
    let now = store.now();
    let (poison, good) = (prepared(now, &outbox), prepared(now, &outbox));
    store.enqueue(now, &poison, Bytes::from_static(b"poison")).await.unwrap();
    let mut write = store.connections.write("damage a row", "BEGIN").await.unwrap();
    let damage = "UPDATE postroom_queue_recipient SET address = 'no address'";
    let damaged = sqlx::query(damage).execute(&mut *write).await.map(|_| ()).map_err(failed("damage a row"));
    write.finish(damaged).await.unwrap();
    store.enqueue(now, &good, Bytes::from_static(b"good")).await.unwrap();
    let worker = WorkerId::from_uuid(id());
    let claimed = store.claim(now, outbox.id, 10, worker, now + Duration::from_secs(30)).await.unwrap();
    // Would miss a claim that fails as a whole, for ever.
    assert_eq!(claimed.iter().map(|mail| mail.id).collect::<Vec<_>>(), [good.id]);
    assert_eq!(number(&store, "SELECT count(*) FROM postroom_queue_mail WHERE state = 'dead'").await, 1);
    assert_eq!(number(&store, "SELECT count(*) FROM postroom_queue_open").await, 1);
}

/// Would miss words of a server that can't be stored, so that its mail is never settled.
#[tokio::test]
async fn a_nul_in_a_servers_words_is_replaced() {
    let Some((store, _)) = store().await else { return };
    let outbox = registered(&store).await;
    let now = store.now();
    store.enqueue(now, &prepared(now, &outbox), Bytes::from_static(b"\0x")).await.unwrap();
    let worker = WorkerId::from_uuid(id());
    let claimed = store.claim(now, outbox.id, 1, worker, now + Duration::from_secs(30)).await.unwrap();
    let mut settlement = accepted(&claimed[0], now);
    for result in &mut settlement.results {
        (result.event, result.detail) = (postroom_core::queue::Event::Refuse, "550 \0 no".to_owned());
    }
    store.settle(now, &[settlement]).await.unwrap();
    let record = store.show(claimed[0].id).await.unwrap().unwrap();
    assert!(record.timeline.iter().any(|entry| entry.detail == "550 \u{fffd} no"), "{record:?}");
}

#[tokio::test]
async fn another_schema_is_refused_and_an_interrupted_migration_goes_on() {
    let Some(url) = schema().await else { return };
    let kind = |result: crate::error::Result<PgStore>| result.unwrap_err().kind().clone();
    assert_eq!(kind(PgStore::connect(&url, PgOptions::new()).await), ErrorKind::Schema);
    let mut admin = host(&url).await;
    // The last one was interrupted.
    let store = PgStore::open(&url).await.unwrap();
    store.close().await.unwrap();
    say(
        &mut admin,
        "ALTER TABLE postroom_ledger_mail DROP COLUMN kept;
            DELETE FROM postroom_migration WHERE version = 10",
        "interrupt",
    )
    .await
    .unwrap();
    assert_eq!(kind(PgStore::connect(&url, PgOptions::new()).await), ErrorKind::Schema);
    assert_eq!(PgStore::migrate(&url).await.unwrap(), 1);
    assert_eq!(PgStore::migrate(&url).await.unwrap(), 0);
    PgStore::connect(&url, PgOptions::new()).await.unwrap();
    let sql = "INSERT INTO postroom_migration SELECT 99, name, checksum, 0 FROM postroom_migration WHERE version = 1";
    sqlx::query(sql).execute(&mut admin).await.unwrap();
    assert_eq!(kind(PgStore::connect(&url, PgOptions::new()).await), ErrorKind::Schema);
    assert_eq!(kind(PgStore::open(&url).await), ErrorKind::Schema);
    // A search path that leads nowhere.
    let nowhere = url.replace("search_path]=", "search_path]=no_such_");
    assert_eq!(kind(PgStore::open(&nowhere).await), ErrorKind::Schema);
}

/// Two releases at work on one schema: a newer one adds a column and an index while this one has statements prepared. What runs goes on;
/// what starts is refused with a reason. Would miss a migration that changes what is there: such a one is not made, and no test here can
/// know it.
#[tokio::test(flavor = "multi_thread")]
async fn a_release_at_work_goes_on_beside_a_newer_one_and_is_not_started_again() {
    let Some((store, url)) = store().await else { return };
    let newer = PgStore::connect(&url, PgOptions::new()).await.unwrap();
    let outbox = registered(&store).await;
    let now = store.now();
    store.enqueue(now, &prepared(now, &outbox), Bytes::from_static(b"before")).await.unwrap();
    let next = Migration {
        version: migrations::MIGRATIONS.last().unwrap().version + 1,
        name: "next",
        sql: "ALTER TABLE postroom_queue_mail ADD COLUMN next_release bigint;\n\
            CREATE INDEX postroom_next_release ON postroom_queue_mail (next_release);\n",
    };
    let known = [migrations::MIGRATIONS, &[next]].concat();
    assert_eq!(migrations::migrate(&newer.connections, &known, now).await.unwrap(), 1);
    store.enqueue(now, &prepared(now, &outbox), Bytes::from_static(b"after")).await.unwrap();
    let worker = WorkerId::from_uuid(id());
    let claimed = store.claim(now, outbox.id, 5, worker, now + Duration::from_secs(30)).await.unwrap();
    let marks: Vec<_> = claimed.iter().map(|one| ClaimMark { id: one.id, claim: one.claim }).collect();
    assert_eq!(store.mark(now, &marks).await.unwrap(), [true, true]);
    let settled: Vec<_> = claimed.iter().map(|one| accepted(one, now)).collect();
    store.settle(now, &settled).await.unwrap();
    check_whole(&store).await;
    for started in [PgStore::connect(&url, PgOptions::new()).await, PgStore::open(&url).await] {
        let refused = started.unwrap_err();
        assert_eq!(refused.kind(), &ErrorKind::Schema);
        assert!(refused.to_string().contains("newer release"), "{refused}");
    }
    assert_eq!(migrations::migrate(&newer.connections, &known, now).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_openings_of_a_new_schema_migrate_it_once() {
    let Some(url) = schema().await else { return };
    let (one, two, three) = tokio::join!(PgStore::open(&url), PgStore::open(&url), PgStore::open(&url));
    let ran = i64::try_from(migrations::MIGRATIONS.len()).unwrap();
    for store in [one, two, three] {
        assert_eq!(number(&store.unwrap(), "SELECT count(*) FROM postroom_migration").await, ran);
    }
}

#[tokio::test]
async fn a_closed_store_refuses_to_work() {
    let Some((store, _)) = store().await else { return };
    let clone = store.clone();
    store.reserve().await.unwrap();
    store.close().await.unwrap();
    assert_eq!(clone.reserve().await.unwrap_err().kind(), &ErrorKind::Unavailable);
    assert_eq!(clone.open_claims().await.unwrap_err().kind(), &ErrorKind::Unavailable);
}

#[tokio::test]
async fn the_time_is_the_databases() {
    let Some((store, url)) = store().await else { return };
    let mut asked = host(&url).await;
    let before = store.now().as_millis();
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let (theirs,): (i64,) = sqlx::query_as(sql).fetch_one(&mut asked).await.unwrap();
    let after = store.now().as_millis();
    // Both clocks are this machine's here; a store that shows its own would differ where they are not. The sample is as old as the
    // answer was under way.
    assert!((before - 200..=after + 200).contains(&theirs), "{before} {theirs} {after}");
    asked.close().await.unwrap();
}

#[tokio::test]
async fn a_location_that_is_none_is_refused_and_never_told() {
    for location in [
        "",
        "postgres:",
        "sqlite://x.db",
        "mysql://root:hunter2@localhost/x",
        "postgres://desk:hunter2@[/x",
        "postgres://desk:hunter2@127.0.0.1:99999/x",
        "postgres://desk:hunter2@127.0.0.1:1/x",
        "postgres://desk:hunter2@no-such-host.invalid/x",
        "postgres://desk:hunter2@127.0.0.1/x?sslmode=hunter2",
    ] {
        let error = PgStore::open(location).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Unavailable, "{location}");
        let told = format!("{error} {error:?}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}
