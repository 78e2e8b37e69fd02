//! Rows and statements that the tests of this store are made of.

use std::future::Future;
use std::path::Path;
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
use uuid::Uuid;

use crate::clock::Clock;
use crate::queue::{Attempt, RecipientResult, Settlement};
use crate::registry::{Change, Links, Mailboxes};
use crate::sql::sqlite::lanes;
use crate::sql::sqlite::store::SqliteStore;

pub(super) fn id() -> Uuid {
    let mut random = [0; 16];
    getrandom::fill(&mut random).unwrap();
    Uuid::from_bytes(random)
}

pub(super) fn change(now: Timestamp) -> Change {
    Change::new(now, Actor::parse("test").unwrap())
}

pub(super) async fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(&format!("sqlite://{}", folder.join("faults.db").display())).await.unwrap()
}

/// A registered outbox with the contract that sends by it.
pub(super) async fn registered(store: &SqliteStore) -> Mailbox {
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

pub(super) fn prepared(now: Timestamp, outbox: &Mailbox) -> Prepared {
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
pub(super) async fn number(store: &SqliteStore, sql: &'static str) -> i64 {
    let mut read = store.connections.read("ask").await.unwrap();
    let row: (i64,) = sqlx::query_as(sql).fetch_one(&mut *read).await.unwrap();
    read.finish(Ok(row.0)).await.unwrap()
}

/// Every mail is there with all its parts, or not at all; and the lanes say what the queue says.
pub(super) async fn check_whole(store: &SqliteStore) {
    for sql in [
        "SELECT count(*) FROM pragma_foreign_key_check",
        "SELECT count(*) FROM postroom_queue_mail m
            WHERE (m.state IS NULL) <> EXISTS (SELECT 1 FROM postroom_queue_open o WHERE o.mail = m.id)",
        "SELECT count(*) FROM postroom_queue_mail m
            WHERE 2 <> (SELECT count(*) FROM postroom_queue_recipient r WHERE r.mail = m.id)",
        "SELECT count(*) FROM postroom_queue_mail m WHERE NOT EXISTS (
            SELECT 1 FROM postroom_event t WHERE t.mail = m.id AND t.what = 'queued')",
        "SELECT count(*) FROM postroom_body b
            WHERE NOT EXISTS (SELECT 1 FROM postroom_body_piece p WHERE p.body = b.id)
                OR NOT EXISTS (SELECT 1 FROM postroom_queue_mail m WHERE m.body = b.id)",
        "SELECT count(*) FROM postroom_queue_recipient r JOIN postroom_queue_open o ON o.mail = r.mail
            WHERE (r.state IN ('claimed', 'crossing')) <> (o.claim IS NOT NULL)",
    ] {
        assert_eq!(number(store, sql).await, 0, "{sql}");
    }
    let mut tx = store.connections.write("compare the lanes").await.unwrap();
    let all = "SELECT json_group_array(id) FROM postroom_mailbox";
    let (all,): (String,) = sqlx::query_as(all).fetch_one(&mut *tx).await.unwrap();
    let stale = sqlx::query(lanes::REFRESH).bind(all).execute(&mut *tx).await.unwrap().rows_affected();
    tx.finish(Ok(())).await.unwrap();
    assert_eq!(stale, 0, "lanes that do not follow from the queue");
}

/// Drops calls after so many polls. How many a call needs differs from machine to machine and with its load, so it is learnt: as
/// many calls are cut as are done.
#[derive(Debug, Default)]
pub(super) struct Drops {
    /// The most polls that a call gets: more after one that was cut, fewer after one that was done.
    most: usize,
    /// What the number of polls is drawn from: a number that walked with the rounds could walk with `most`.
    seed: u64,
    cut: usize,
    done: usize,
}

impl Drops {
    /// Drops a call in the middle, or gives what it gave.
    pub(super) async fn drop_in<F: Future>(&mut self, call: F) -> Option<F::Output> {
        // The constants are Knuth's, for MMIX.
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let polls = usize::try_from(self.seed >> 33).unwrap() % (self.most + 1);
        let output = dropped_after(call, polls).await;
        if output.is_some() {
            self.done += 1;
            self.most = self.most.saturating_sub(1);
        } else {
            self.cut += 1;
            self.most += 1;
        }
        output
    }

    /// Fails where the drops missed the calls.
    pub(super) fn check(&self, least: usize) {
        assert!(self.cut >= least && self.done >= least, "{self:?}: the drops miss the calls");
    }
}

/// Polls a future at most `polls` times and drops it.
async fn dropped_after<F: Future>(future: F, polls: usize) -> Option<F::Output> {
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
