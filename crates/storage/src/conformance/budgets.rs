//! The clauses of limits per minute and per day, and of trying a mailbox that failed.

use std::sync::Arc;
use std::time::Duration;

use postroom_core::budget::{Limit, Wait};
use postroom_core::id::MailboxId;
use postroom_core::mailbox::{MailboxSettings, SettingsDraft};
use postroom_core::queue::Event;

use super::fixture::{add, at, change, outbox_draft, prepared, to_many, worker};
use super::queue::{claim_at, claim_one, mark, next_due, settle, settlement, submit, submit_all};
use super::subject::Subject;
use crate::Store;
use crate::budgets::{BudgetOwner, BudgetView, Budgets, Used};
use crate::queue::{Attempt, Claimed, Settled, Settlement};
use crate::registry::{SecretWrite, Sign};

/// Noon to midnight, in seconds.
const MIDNIGHT: i64 = 12 * 3600;

fn limited(per_minute: Option<u32>, recipients_per_day: Option<u32>) -> MailboxSettings {
    let mut draft = outbox_draft("mx.acme.example");
    if let SettingsDraft::Outbox(outbox) = &mut draft.settings {
        (outbox.per_minute, outbox.recipients_per_day) = (per_minute, recipients_per_day);
    }
    draft.check().expect("valid settings")
}

async fn with_limits(
    subject: Subject,
    per_minute: Option<u32>,
    recipients_per_day: Option<u32>,
) -> (Arc<dyn Store>, MailboxId) {
    let store = subject.store;
    let id = add(&store, limited(per_minute, recipients_per_day)).await;
    store.set_standard(&change(), Some(id)).await.expect("set_standard");
    (store, id)
}

async fn view(store: &Arc<dyn Store>, seconds: i64, outbox: MailboxId) -> BudgetView {
    let budgets: &dyn Budgets = &**store;
    budgets.budget(at(seconds), &BudgetOwner::Outbox(outbox)).await.expect("budget")
}

async fn due(store: &Arc<dyn Store>, seconds: i64) -> Vec<MailboxId> {
    store.due_outboxes(at(seconds), 10).await.expect("due_outboxes")
}

async fn count(store: &Arc<dyn Store>, seconds: i64, outbox: MailboxId, limit: u32) -> usize {
    claim_at(store, seconds, outbox, limit, 1).await.len()
}

fn free(claimed: &Claimed, events: &[Event]) -> Settlement {
    Settlement { attempt: Attempt::Free, ..settlement(claimed, 0, events) }
}

pub(super) async fn no_minute_sees_more_messages_than_the_limit(subject: Subject) {
    let (store, outbox) = with_limits(subject, Some(3), None).await;
    submit_all(&store, 1, "AAAAAAAA", |_| {}).await;
    assert_eq!(count(&store, 1, outbox, 2).await, 2);
    assert_eq!(count(&store, 30, outbox, 5).await, 1, "fewer than asked for");
    assert_eq!(count(&store, 60, outbox, 5).await, 0, "also across the minutes of the clock");
    assert_eq!(count(&store, 62, outbox, 5).await, 2, "the first two are a minute ago");
    assert_eq!(count(&store, 90, outbox, 5).await, 0);
    assert_eq!(count(&store, 91, outbox, 5).await, 1);
}

pub(super) async fn a_day_in_utc_sees_no_more_recipients_than_the_limit(subject: Subject) {
    let (store, outbox) = with_limits(subject, None, Some(10)).await;
    for (number, recipients) in [(1, 4), (2, 4), (3, 4), (4, 1)] {
        submit(&store, &to_many(prepared(&store, number, "ACME").await, recipients)).await;
    }
    assert_eq!(count(&store, 1, outbox, 10).await, 2, "the third does not fit, and nothing passes it");
    assert_eq!(count(&store, MIDNIGHT - 1, outbox, 10).await, 0);
    assert_eq!(count(&store, MIDNIGHT, outbox, 10).await, 2);
}

pub(super) async fn workers_share_one_budget(subject: Subject) {
    let (store, outbox) = with_limits(subject, Some(5), None).await;
    submit_all(&store, 1, "AAAAABBBBBCCCCC", |_| {}).await;
    let (a, b, c) = tokio::join!(
        claim_at(&store, 1, outbox, 4, 1),
        claim_at(&store, 1, outbox, 4, 2),
        claim_at(&store, 1, outbox, 4, 3),
    );
    assert_eq!(a.len() + b.len() + c.len(), 5, "whoever claims");
}

pub(super) async fn an_outbox_out_of_budget_is_due_when_it_has_some_again(subject: Subject) {
    let (store, outbox) = with_limits(subject, Some(2), Some(3)).await;
    submit_all(&store, 1, "AAAA", |_| {}).await;
    assert_eq!(due(&store, 10).await, [outbox]);
    assert_eq!(count(&store, 10, outbox, 2).await, 2);
    // The claim that took the last of it says so: nobody asks in vain.
    assert_eq!(due(&store, 10).await, []);
    let until = at(71);
    assert_eq!(view(&store, 10, outbox).await.waits, Some(Wait { limit: Limit::PerMinute, until }));
    // The claims' leases end at 40.
    assert_eq!(next_due(&store, 41).await, Some(until), "a worker sleeps until then");
    assert_eq!((due(&store, 70).await, due(&store, 71).await), (vec![], vec![outbox]));
    assert_eq!(count(&store, 71, outbox, 2).await, 1);
    let until = at(MIDNIGHT);
    let limit = |limit, most, used| Used { limit, most, used };
    let want = BudgetView {
        limits: vec![limit(Limit::PerMinute, 2, 1), limit(Limit::RecipientsPerDay, 3, 3)],
        waits: Some(Wait { limit: Limit::RecipientsPerDay, until }),
    };
    assert_eq!(view(&store, 72, outbox).await, want);
    assert_eq!(next_due(&store, 102).await, Some(until));
    assert_eq!((due(&store, MIDNIGHT - 1).await, due(&store, MIDNIGHT).await), (vec![], vec![outbox]));
    assert_eq!(view(&store, MIDNIGHT, outbox).await.waits, None);
}

pub(super) async fn what_was_not_sent_is_given_back(subject: Subject) {
    let (store, outbox) = with_limits(subject, Some(1), Some(2)).await;
    submit(&store, &to_many(prepared(&store, 1, "ACME").await, 2)).await;
    for (second, event) in (1..).zip([Event::Release, Event::Defer, Event::Hold]) {
        let claimed = claim_one(&store, second, outbox).await;
        assert_eq!(due(&store, second).await, []);
        assert_eq!(settle(&store, second, &free(&claimed, &[event; 2])).await, Settled::Applied);
        let view = view(&store, second, outbox).await;
        assert_eq!((view.limits[0].used, view.limits[1].used, view.waits), (0, 0, None), "{event}");
        // A settlement that comes twice gives back once.
        assert_eq!(settle(&store, second, &free(&claimed, &[event; 2])).await, Settled::Ignored);
    }
}

pub(super) async fn what_was_sent_or_has_an_unknown_end_is_not_given_back(subject: Subject) {
    let (store, outbox) = with_limits(subject, Some(10), None).await;
    submit_all(&store, 1, "ABCD", |_| {}).await;
    for event in [Event::Accept, Event::Doubt] {
        let claimed = claim_one(&store, 1, outbox).await;
        assert!(mark(&store, 1, claimed.id, claimed.claim).await);
        settle(&store, 2, &free(&claimed, &[event])).await;
    }
    let claimed = claim_one(&store, 1, outbox).await;
    settle(&store, 2, &settlement(&claimed, 100, &[Event::Defer])).await;
    claim_one(&store, 1, outbox).await;
    // The worker of the last one died: what it had is lost.
    store.expire(at(40)).await.expect("expire");
    assert_eq!(view(&store, 40, outbox).await.limits[0].used, 4);
}

pub(super) async fn a_raised_limit_counts_at_once_and_an_outbox_without_one_has_nothing_to_show(
    subject: Subject,
) {
    let (store, outbox) = with_limits(subject, Some(1), None).await;
    submit_all(&store, 1, "AAA", |_| {}).await;
    assert_eq!(count(&store, 1, outbox, 5).await, 1);
    let save = async |per_minute| {
        let mut mailbox = store.mailbox(outbox).await.expect("mailbox").expect("it is registered");
        mailbox.settings = limited(per_minute, None);
        store.save(&change(), &mailbox, SecretWrite::Keep).await.expect("save");
    };
    save(Some(2)).await;
    assert_eq!(due(&store, 2).await, [outbox]);
    assert_eq!(count(&store, 2, outbox, 5).await, 1, "what was taken before counts");
    save(None).await;
    assert_eq!(count(&store, 2, outbox, 5).await, 1);
    assert_eq!(view(&store, 2, outbox).await, BudgetView::default());
    assert_eq!(view(&store, 2, MailboxId::new(99)).await, BudgetView::default());
}

pub(super) async fn a_mail_that_no_day_allows_is_claimed_and_takes_nothing(subject: Subject) {
    let (store, outbox) = with_limits(subject, Some(1), Some(3)).await;
    submit(&store, &to_many(prepared(&store, 1, "ACME").await, 4)).await;
    let claimed = claim_one(&store, 1, outbox).await;
    assert_eq!(claimed.recipients.len(), 4);
    assert_eq!(view(&store, 1, outbox).await.limits[1].used, 0);
}

pub(super) async fn a_budget_survives_a_reopening(subject: Subject) {
    let Subject { store, reopen } = subject;
    let (store, outbox) = with_limits(Subject { store, reopen: None }, Some(1), Some(10)).await;
    submit_all(&store, 1, "AA", |_| {}).await;
    assert_eq!(count(&store, 1, outbox, 5).await, 1);
    let before = view(&store, 2, outbox).await;
    let store = Subject { store, reopen }.restarted().await;
    assert_eq!(view(&store, 2, outbox).await, before);
    assert_eq!((count(&store, 2, outbox, 5).await, count(&store, 62, outbox, 5).await), (0, 1));
}

/// An outbox with two mails whose server failed at second 0 and rests until second 10.
async fn failed(subject: Subject) -> (Arc<dyn Store>, MailboxId) {
    let (store, outbox) = with_limits(subject, None, None).await;
    submit_all(&store, 1, "AB", |_| {}).await;
    let sign = Sign::Failure { error: "refused".to_owned(), wait: Duration::from_secs(10) };
    store.record(at(0), outbox, &sign).await.expect("record");
    (store, outbox)
}

async fn probe(store: &Arc<dyn Store>, seconds: i64, outbox: MailboxId, by: u8, until: i64) -> bool {
    store.probe(at(seconds), outbox, worker(by), at(until)).await.expect("probe")
}

pub(super) async fn one_worker_tries_a_mailbox_that_failed(subject: Subject) {
    let (store, outbox) = failed(subject).await;
    assert!(!probe(&store, 9, outbox, 1, 70).await, "it rests");
    assert!(probe(&store, 10, outbox, 1, 70).await);
    assert!(!probe(&store, 10, outbox, 2, 70).await, "another worker tries it");
    // The others see an outbox that rests; who tries it may claim.
    assert_eq!(due(&store, 11).await, []);
    assert_eq!(claim_at(&store, 11, outbox, 1, 2).await, []);
    assert_eq!(claim_at(&store, 11, outbox, 1, 1).await.len(), 1);
    // It fails again: the right is used up.
    let sign = Sign::Failure { error: "refused".to_owned(), wait: Duration::from_secs(20) };
    store.record(at(12), outbox, &sign).await.expect("record");
    assert_eq!(claim_at(&store, 13, outbox, 1, 1).await, []);
    assert!(probe(&store, 32, outbox, 2, 70).await);
    store.record(at(33), outbox, &Sign::Success).await.expect("record");
    assert_eq!(claim_at(&store, 33, outbox, 1, 3).await.len(), 1, "it works: everybody may");
    assert!(probe(&store, 34, outbox, 1, 70).await && probe(&store, 34, outbox, 2, 70).await);
    store.record(at(35), outbox, &Sign::Suspended { error: "refused".to_owned() }).await.expect("record");
    assert!(!probe(&store, 1000, outbox, 1, 2000).await, "a suspended one is tried by nobody");
    store.clear(at(1000), outbox).await.expect("clear");
    assert!(probe(&store, 1000, outbox, 1, 2000).await);
}

pub(super) async fn a_probe_that_nobody_ends_is_over_in_time(subject: Subject) {
    let (store, outbox) = failed(subject).await;
    assert!(probe(&store, 10, outbox, 1, 70).await);
    assert_eq!((due(&store, 69).await, due(&store, 70).await), (vec![], vec![outbox]));
    assert_eq!(next_due(&store, 11).await, Some(at(70)));
    assert!(probe(&store, 70, outbox, 2, 130).await);
    assert_eq!(claim_at(&store, 71, outbox, 1, 1).await, [], "the right is the second worker's");
}
