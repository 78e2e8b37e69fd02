//! Rows and statements that the tests of this store are made of.

use std::future::Future;
use std::io::Write;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use postroom_core::contract::Contract;
use postroom_core::id::{Actor, ContractId, QueueId, Revision};
use postroom_core::mailbox::{Mailbox, MailboxDraft, OutboxDraft, SettingsDraft, Status};
use postroom_core::message::{OnDoubt, OnSuppressed, Priority};
use postroom_core::queue::{Basis, Event, Prepared, Recipient, Role};
use postroom_core::resolve::{Question, WhenUnavailable, resolve};
use postroom_core::suppression::{Cause, Suppression};
use postroom_core::time::Timestamp;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection};
use uuid::Uuid;

use crate::clock::Clock;
use crate::queue::{Attempt, RecipientResult, Settlement};
use crate::registry::{Change, Links, Mailboxes};
use crate::sql::mysql::lanes;
use crate::sql::mysql::store::MySqlStore;

pub(super) fn id() -> Uuid {
    let mut random = [0; 16];
    getrandom::fill(&mut random).unwrap();
    Uuid::from_bytes(random)
}

pub(super) fn change(now: Timestamp) -> Change {
    Change::new(now, Actor::parse("test").unwrap())
}

/// A new database, as the URL that leads to it; none where there is no server.
pub(in crate::sql::mysql) async fn database() -> Option<String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static SKIPPED: Once = Once::new();
    let Ok(server) = std::env::var("POSTROOM_TEST_MYSQL") else {
        let text =
            b"no MariaDB: POSTROOM_TEST_MYSQL is not set, and the fault tests of its store are skipped\n";
        // Past the capture of tests that pass.
        SKIPPED.call_once(|| drop(std::io::stderr().write_all(text)));
        return None;
    };
    let name = format!("fault_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    Some(new_database(&server, &name).await)
}

/// A new database of this name, as the URL that leads to it.
pub(super) async fn new_database(server: &str, name: &str) -> String {
    let mut connection = MySqlConnection::connect(server).await.expect("the server of the tests");
    let sql = format!("DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name} CHARACTER SET latin1");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let (server, _) = server.rsplit_once('/').expect("a URL that ends with a database");
    format!("{server}/{name}")
}

/// A store in a new database, with its URL.
pub(in crate::sql::mysql) async fn store() -> Option<(MySqlStore, String)> {
    let url = database().await?;
    Some((MySqlStore::open(&url).await.unwrap(), url))
}

/// A connection of a host, with the driver's own settings but for the level.
pub(super) async fn host(url: &str) -> MySqlConnection {
    let mut host = MySqlConnection::connect(url).await.unwrap();
    let sql = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
    sqlx::raw_sql(sql).execute(&mut host).await.unwrap();
    host
}

/// A registered outbox with the contract that sends by it.
pub(in crate::sql::mysql) async fn registered(store: &MySqlStore) -> Mailbox {
    let draft = MailboxDraft {
        description: "out".to_owned(),
        server: "mail.acme.example".to_owned(),
        port: None,
        authority: None,
        max_message: None,
        danger_plaintext: false,
        settings: SettingsDraft::Outbox(OutboxDraft {
            tls: "none".to_owned(),
            auth: "none".to_owned(),
            senders: vec!["desk@acme.example".to_owned()],
            ..OutboxDraft::default()
        }),
    };
    let change = change(store.now());
    let (id, settings) = (store.reserve().await.unwrap(), draft.check().unwrap());
    let (actor, revision) = (change.actor.clone(), Revision::new(1));
    let outbox = Mailbox::new(id, settings, Status::Active, revision, actor, change.now);
    store.add(&change, &outbox, None).await.unwrap();
    let contract = Contract::new(ContractId::parse("ACME").unwrap()).with_outbox(id, None);
    store.save_contract(&change, &contract).await.unwrap();
    outbox
}

pub(in crate::sql::mysql) fn prepared(now: Timestamp, outbox: &Mailbox) -> Prepared {
    let contract = Contract::new(ContractId::parse("ACME").unwrap()).with_outbox(outbox.id, None);
    let mailbox = |_| Some(outbox);
    let question = Question {
        contract: Some(&contract),
        step: None,
        standard: None,
        sender: None,
        when_unavailable: WhenUnavailable::Refuse,
        mailbox: &mailbox,
    };
    let id = QueueId::from_uuid(id());
    Prepared {
        id,
        contract: contract.id.clone(),
        step: None,
        resolution: resolve(&question).unwrap(),
        basis: Basis::new(outbox.revision, Some(Revision::new(1)), None),
        message_id: format!("<{id}@acme.example>"),
        subject: "faults".to_owned(),
        return_path: None,
        recipients: ["a@b.example", "c@d.example"]
            .map(|to| Recipient::new(to.parse().unwrap(), Role::To))
            .into(),
        raw: false,
        record: None,
        in_reply_to: None,
        priority: Priority::Normal,
        not_before: None,
        expires_at: now + Duration::from_secs(3600),
        on_doubt: OnDoubt::Hold,
        on_suppressed: OnSuppressed::Refuse,
        automatic: None,
        idempotency: None,
    }
}

/// An entry of ACME's suppression list.
pub(super) fn suppressed(to: &str) -> Suppression {
    Suppression {
        contract: ContractId::parse("ACME").unwrap(),
        address: to.parse().unwrap(),
        cause: Cause::Operator,
        detail: "left".to_owned(),
        mail: None,
        added_at: Timestamp::from_millis(0),
        expires_at: None,
    }
}

pub(super) fn accepted(claimed: &crate::queue::Claimed, now: Timestamp) -> Settlement {
    let accept = |place| RecipientResult { recipient: place, event: Event::Accept, detail: String::new() };
    let results = claimed.recipients.iter().map(|(place, _)| accept(*place)).collect();
    Settlement { id: claimed.id, claim: claimed.claim, results, due_at: now, attempt: Attempt::Spent }
}

/// Asks for the one number that a statement gives.
pub(super) async fn number(store: &MySqlStore, sql: &'static str) -> i64 {
    let mut read = store.connections.read("ask").await.unwrap();
    let row: (i64,) = sqlx::query_as(sql).fetch_one(&mut *read).await.unwrap();
    read.finish(Ok(row.0)).await.unwrap()
}

/// Every mail is there with all its parts, or not at all; and the lanes say what the queue says where no bell rings. All is read
/// from one state: what a dropped future had sent to the server may still be committed there.
pub(super) async fn check_whole(store: &MySqlStore) {
    loop {
        lanes::answer(&store.connections).await.unwrap();
        let mut read = store.connections.snapshot("check").await.unwrap();
        let bells = sqlx::query_as("SELECT count(*) FROM postroom_queue_bell").fetch_one(&mut *read).await;
        let (bells,): (i64,) = bells.unwrap();
        if bells == 0 {
            check_state(&mut read).await;
        }
        read.finish(Ok(())).await.unwrap();
        if bells == 0 {
            return;
        }
    }
}

async fn check_state(read: &mut MySqlConnection) {
    for sql in [
        "SELECT count(*) FROM postroom_queue_mail m
            WHERE (m.state IS NULL) <> EXISTS (SELECT 1 FROM postroom_queue_open o WHERE o.mail = m.id)",
        "SELECT count(*) FROM postroom_queue_mail m
            WHERE 2 <> (SELECT count(*) FROM postroom_queue_recipient r WHERE r.mail = m.id)",
        "SELECT count(*) FROM postroom_queue_mail m WHERE NOT EXISTS (
            SELECT 1 FROM postroom_event e WHERE e.mail = m.id AND e.what = 'queued')",
        "SELECT count(*) FROM postroom_body b
            WHERE b.staged_at IS NULL AND (NOT EXISTS (SELECT 1 FROM postroom_body_piece p WHERE p.body = b.id)
                OR NOT EXISTS (SELECT 1 FROM postroom_queue_mail m WHERE m.body = b.id))",
        "SELECT count(*) FROM postroom_queue_recipient r JOIN postroom_queue_open o ON o.mail = r.mail
            WHERE (r.state IN ('claimed', 'crossing')) <> (o.claim IS NOT NULL)",
        "SELECT count(*) FROM (SELECT outbox, contract, priority FROM postroom_queue_open UNION
                SELECT outbox, contract, priority FROM postroom_queue_line) q
            LEFT JOIN postroom_queue_line l USING (outbox, contract, priority)
            WHERE NOT l.due_at <=> (SELECT min(o.due_at) FROM postroom_queue_open o
                WHERE o.outbox = q.outbox AND o.contract = q.contract AND o.priority = q.priority
                    AND NOT o.paused AND o.claim IS NULL AND o.state = 'queued')",
        "SELECT count(*) FROM postroom_mailbox m LEFT JOIN postroom_queue_lane l ON l.outbox = m.id
            WHERE m.kind = 'outbox' AND NOT l.due_at <=> (
                SELECT min(i.ready_at) FROM postroom_queue_line i WHERE i.outbox = m.id)",
    ] {
        let (bad,): (i64,) = sqlx::query_as(sql).fetch_one(&mut *read).await.unwrap();
        assert_eq!(bad, 0, "{sql}");
    }
}

/// Polls a future at most `polls` times and drops it.
pub(super) async fn dropped_after<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut polled = 0;
    std::future::poll_fn(move |context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if polled == polls => Poll::Ready(None),
        Poll::Pending => {
            polled += 1;
            Poll::Pending
        }
    })
    .await
}
