//! How long a durable submission takes on SQLite, one after the other and by ten submitters at once, whose calls share commits. The
//! file is in the system's folder for temporary files: on a medium without a real fsync the two differ less.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use postroom_core::contract::Contract;
use postroom_core::id::{Actor, ContractId, QueueId, Revision};
use postroom_core::mailbox::{Mailbox, MailboxDraft, OutboxDraft, SettingsDraft, Status};
use postroom_core::message::{OnDoubt, OnSuppressed, Priority};
use postroom_core::queue::{Basis, Prepared, Recipient, Role};
use postroom_core::resolve::{Question, WhenUnavailable, resolve};
use postroom_storage::{Change, Clock, Links, Mailboxes, QueueIntake, SqliteStore};
use tokio::runtime::Runtime;

const MAILS: u64 = 100;

/// A store with an outbox, the contract that sends by it, and a mail that is resolved.
async fn opened(file: &str) -> (SqliteStore, Prepared) {
    let store = SqliteStore::open(file).await.expect("a store");
    let change = Change::new(store.now(), Actor::parse("bench").expect("an actor"));
    let form = SettingsDraft::Outbox(OutboxDraft {
        tls: "none".to_owned(),
        auth: "none".to_owned(),
        senders: vec!["desk@acme.example".to_owned()],
        ..OutboxDraft::default()
    });
    let settings = MailboxDraft::new("out", "127.0.0.1", form).check().expect("a valid form");
    let id = store.reserve().await.expect("an id");
    let outbox =
        Mailbox::new(id, settings, Status::Active, Revision::new(1), change.actor.clone(), change.now);
    store.add(&change, &outbox, None).await.expect("an outbox");
    let contract = Contract::new(ContractId::parse("ACME").expect("an id")).with_outbox(id, None);
    let revision = store.save_contract(&change, &contract).await.expect("a contract");
    let question = Question {
        contract: Some(&contract),
        step: None,
        standard: None,
        sender: None,
        when_unavailable: WhenUnavailable::Refuse,
        mailbox: &|_| Some(&outbox),
    };
    let mail = Prepared {
        id: QueueId::new(store.now(), [0; 10]),
        contract: contract.id.clone(),
        step: None,
        resolution: resolve(&question).expect("an outbox"),
        basis: Basis::new(outbox.revision, Some(revision), None),
        message_id: String::new(),
        subject: "A mail of four KiB".to_owned(),
        return_path: None,
        recipients: vec![Recipient::new("ana@customer.example".parse().expect("an address"), Role::To)],
        raw: false,
        record: None,
        in_reply_to: None,
        priority: Priority::Normal,
        not_before: None,
        expires_at: store.now() + Duration::from_secs(3600),
        on_doubt: OnDoubt::Hold,
        on_suppressed: OnSuppressed::Refuse,
        automatic: None,
        idempotency: None,
    };
    (store, mail)
}

/// Submits all mails by so many submitters, each one after the other.
async fn submit(store: &SqliteStore, mail: &Prepared, submitters: u64, made: &AtomicU64) {
    let content = Bytes::from(vec![b'x'; 4096]);
    let one = async || {
        for _ in 0..MAILS / submitters {
            let number = made.fetch_add(1, Ordering::Relaxed);
            let mut random = [0; 10];
            random[2..].copy_from_slice(&number.to_be_bytes());
            let (id, message_id) = (QueueId::new(store.now(), random), format!("<{number}@acme.example>"));
            let mail = Prepared { id, message_id, ..mail.clone() };
            store.enqueue(store.now(), &mail, content.clone()).await.expect("a queued mail");
        }
    };
    join_all((0..submitters).map(|_| one())).await;
}

fn submitters(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("queue.db").display().to_string();
    let (store, mail) = runtime.block_on(opened(&file));
    let made = AtomicU64::new(0);
    let mut group = criterion.benchmark_group("enqueue");
    group.sample_size(10).throughput(Throughput::Elements(MAILS));
    for submitters in [1, 10] {
        group.bench_function(BenchmarkId::new("sqlite", submitters), |bencher| {
            bencher.iter(|| runtime.block_on(submit(&store, &mail, submitters, &made)));
        });
    }
    group.finish();
}

criterion_group!(benches, submitters);
criterion_main!(benches);
