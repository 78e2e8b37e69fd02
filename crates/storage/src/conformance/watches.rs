//! The clauses of who reads which inbox: leases, shares, and watchers that die or wake.

use std::sync::Arc;
use std::time::Duration;

use postroom_core::id::MailboxId;
use postroom_core::mailbox::Status;

use super::fixture::{add, at, change, inbox, mailbox, outbox, worker};
use super::subject::Subject;
use crate::Store;
use crate::registry::{SecretWrite, Sign};
use crate::watches::{Held, Portion, Reading, Release, Renewal, Watch, WatchLease, Watches, Way};

/// Inboxes that may be read.
async fn inboxes(store: &Arc<dyn Store>, count: u32) -> Vec<MailboxId> {
    let mut ids = Vec::new();
    for number in 0..count {
        ids.push(add(store, inbox(&format!("mx{number}.acme.example"))).await);
    }
    ids
}

fn watches(store: &Arc<dyn Store>) -> &dyn Watches {
    &**store
}

/// Watcher `by` takes at second `seconds` for ten seconds.
async fn take(store: &Arc<dyn Store>, seconds: i64, by: u8, limit: u32) -> Vec<WatchLease> {
    let until = at(seconds + 10);
    watches(store).take(at(seconds), worker(by), limit, Portion::Share, until).await.expect("take")
}

async fn take_ids(store: &Arc<dyn Store>, seconds: i64, by: u8, limit: u32) -> Vec<MailboxId> {
    take(store, seconds, by, limit).await.iter().map(|lease| lease.mailbox).collect()
}

async fn renew(store: &Arc<dyn Store>, seconds: i64, by: u8, readings: &[Reading]) -> Option<Renewal> {
    watches(store).renew(at(seconds), worker(by), at(seconds + 10), readings).await.expect("renew")
}

fn held(renewal: Option<Renewal>) -> Vec<MailboxId> {
    renewal.expect("alive").held.iter().map(|held| held.lease.mailbox).collect()
}

async fn watch(store: &Arc<dyn Store>, seconds: i64, of: MailboxId) -> Watch {
    let found = watches(store).watches(at(seconds), Some(of)).await.expect("watches");
    found.into_iter().next().expect("it was taken once")
}

fn given_back(leases: &[WatchLease]) -> Vec<Release> {
    leases.iter().map(|lease| Release { lease: *lease, due_at: None }).collect()
}

pub(super) async fn an_inbox_is_taken_by_one_watcher(subject: Subject) {
    let store = subject.store;
    let ids = inboxes(&store, 4).await;
    assert_eq!(take_ids(&store, 0, 1, 1).await, ids[..1], "no more than asked for");
    let (one, two) = tokio::join!(take_ids(&store, 1, 2, 10), take_ids(&store, 1, 3, 10));
    let mut all = [ids[..1].to_vec(), one, two, take_ids(&store, 2, 1, 10).await].concat();
    all.sort();
    assert_eq!(all, ids, "each inbox once");
}

pub(super) async fn only_what_may_be_read_is_taken(subject: Subject) {
    let store = subject.store;
    let ids = inboxes(&store, 4).await;
    add(&store, outbox("mx.acme.example")).await;
    let mut disabled = store.mailbox(ids[1]).await.expect("mailbox").expect("there");
    disabled.status = Status::Disabled;
    store.save(&change(), &disabled, SecretWrite::Keep).await.expect("save");
    let suspended = Sign::Suspended { error: "refused".to_owned() };
    store.record(at(0), ids[2], &suspended).await.expect("record");
    let rests = Sign::Failure { error: "away".to_owned(), wait: Duration::from_secs(5) };
    store.record(at(0), ids[3], &rests).await.expect("record");
    assert_eq!(take_ids(&store, 4, 1, 10).await, [ids[0]]);
    assert_eq!(take_ids(&store, 5, 1, 10).await, [ids[3]], "its rest is over");
    store.clear(at(6), ids[2]).await.expect("clear");
    assert_eq!(take_ids(&store, 6, 1, 10).await, [ids[2]]);
}

pub(super) async fn what_a_dead_watcher_had_is_taken_by_others_under_a_higher_fence(subject: Subject) {
    let store = subject.store;
    let ids = inboxes(&store, 2).await;
    let first = take(&store, 0, 1, 10).await;
    assert_eq!(take(&store, 9, 2, 10).await, [], "it is alive");
    assert_eq!(watch(&store, 9, ids[0]).await.watcher, Some(worker(1)));
    assert_eq!(watch(&store, 10, ids[0]).await.watcher, None);
    let second = take(&store, 10, 2, 10).await;
    assert_eq!(second.iter().map(|lease| lease.mailbox).collect::<Vec<_>>(), ids);
    assert!(first.iter().zip(&second).all(|(first, second)| first.fence < second.fence));
}

pub(super) async fn a_watcher_that_wakes_after_its_lease_changes_nothing(subject: Subject) {
    let store = subject.store;
    let ids = inboxes(&store, 1).await;
    let first = take(&store, 0, 1, 10).await[0];
    assert!(renew(&store, 9, 1, &[]).await.is_some());
    assert!(renew(&store, 18, 1, &[]).await.is_some(), "the first renewal counted");
    assert_eq!(renew(&store, 28, 1, &[]).await, None);
    let second = take(&store, 28, 2, 10).await[0];
    let before = watch(&store, 29, ids[0]).await;
    let read = |lease| Reading { lease, read_at: at(29), way: Way::Idle };
    assert_eq!(renew(&store, 29, 1, &[read(first)]).await, None);
    watches(&store).release(worker(1), &given_back(&[first, second])).await.expect("release");
    watches(&store).leave(worker(1)).await.expect("leave");
    // Under a live name, but with a lease of before.
    renew(&store, 29, 2, &[read(first)]).await.expect("alive");
    watches(&store).release(worker(2), &given_back(&[first])).await.expect("release");
    let after = watch(&store, 29, ids[0]).await;
    assert_eq!((after.watcher, after.read_at), (before.watcher, before.read_at));
    // Who was dead has nothing, also of what nobody else took.
    assert_eq!(take(&store, 40, 2, 0).await, []);
    assert_eq!(held(renew(&store, 41, 2, &[]).await), []);
}

pub(super) async fn watchers_have_equal_shares_whoever_comes_or_goes(subject: Subject) {
    let store = subject.store;
    let ids = inboxes(&store, 5).await;
    let first = take(&store, 0, 1, 10).await;
    assert_eq!(first.len(), 5, "the only one has all");
    assert_eq!(take(&store, 1, 2, 10).await, [], "there is nothing yet");
    let renewal = renew(&store, 2, 1, &[]).await.expect("alive");
    assert_eq!((renewal.share, renewal.held.len()), (3, 5));
    watches(&store).release(worker(1), &given_back(&first[3..])).await.expect("release");
    assert_eq!(take(&store, 3, 1, 10).await, [], "it has its share");
    assert_eq!(take_ids(&store, 3, 2, 10).await, ids[3..]);
    // A watcher that ends leaves all at once.
    watches(&store).leave(worker(1)).await.expect("leave");
    assert_eq!(renew(&store, 4, 2, &[]).await.expect("alive").share, 5);
    assert_eq!(take_ids(&store, 4, 2, 10).await, ids[..3]);
}

// A run that ends by itself must read what dead watchers hold no leases of, but count for: it can't wait for its share to grow.
pub(super) async fn who_takes_all_takes_beyond_its_share_and_nothing_that_another_has(subject: Subject) {
    let store = subject.store;
    let ids = inboxes(&store, 5).await;
    assert_eq!(take_ids(&store, 0, 1, 1).await, ids[..1]);
    assert_eq!(take(&store, 0, 2, 0).await, [], "it says that it is alive, and has nothing");
    let all = watches(&store).take(at(1), worker(3), 10, Portion::All, at(11)).await.expect("take");
    assert_eq!(all.iter().map(|lease| lease.mailbox).collect::<Vec<_>>(), ids[1..]);
    assert_eq!(take(&store, 2, 2, 10).await, [], "nothing is left");
    watches(&store).release(worker(3), &given_back(&all)).await.expect("release");
    let some = watches(&store).take(at(3), worker(3), 3, Portion::All, at(13)).await.expect("take");
    assert_eq!(some.len(), 3, "no more than asked for");
}

pub(super) async fn a_renewal_tells_what_is_still_to_be_read_and_by_which_settings(subject: Subject) {
    let store = subject.store;
    let ids = inboxes(&store, 4).await;
    take(&store, 0, 1, 10).await;
    let before = renew(&store, 1, 1, &[]).await.expect("alive");
    assert_eq!(before.held.len(), 4);
    let stored = store.mailbox(ids[0]).await.expect("mailbox").expect("there");
    let revision = store.save(&change(), &stored, SecretWrite::Keep).await.expect("save");
    let mut disabled = store.mailbox(ids[1]).await.expect("mailbox").expect("there");
    disabled.status = Status::Disabled;
    store.save(&change(), &disabled, SecretWrite::Keep).await.expect("save");
    let suspended = Sign::Suspended { error: "refused".to_owned() };
    store.record(at(1), ids[2], &suspended).await.expect("record");
    store.remove(&change(), ids[3], None).await.expect("remove");
    let after = renew(&store, 2, 1, &[]).await.expect("alive");
    assert_eq!(after.held, [Held { revision, ..before.held[0] }]);
    assert_ne!(before.held[0].revision, revision);
    assert_eq!(watches(&store).watches(at(2), Some(ids[3])).await.expect("watches"), []);
}

pub(super) async fn readings_are_shown_and_what_was_not_read_for_longest_comes_first(subject: Subject) {
    let store = subject.store;
    let ids = inboxes(&store, 3).await;
    let leases = take(&store, 0, 1, 10).await;
    let seen = watch(&store, 1, ids[0]).await;
    let want = Watch {
        mailbox: ids[0],
        watcher: Some(worker(1)),
        until: Some(at(10)),
        way: None,
        read_at: None,
        due_at: None,
    };
    assert_eq!(seen, want);
    let read = |n: usize, seconds, way| Reading { lease: leases[n], read_at: at(seconds), way };
    let readings = [read(0, 3, Way::Idle), read(1, 2, Way::Poll)];
    renew(&store, 3, 1, &readings).await.expect("alive");
    let want = Watch { until: Some(at(13)), way: Some(Way::Idle), read_at: Some(at(3)), ..want };
    assert_eq!(watch(&store, 3, ids[0]).await, want);
    let all = watches(&store).watches(at(3), None).await.expect("watches");
    assert_eq!(all.iter().map(|one| one.mailbox).collect::<Vec<_>>(), ids);
    assert_eq!(all[1].way, Some(Way::Poll));
    // Given back until later.
    let later = [Release { lease: leases[2], due_at: Some(at(8)) }];
    watches(&store).release(worker(1), &later).await.expect("release");
    assert_eq!(watch(&store, 4, ids[2]).await.due_at, Some(at(8)));
    assert_eq!(take(&store, 7, 1, 10).await, []);
    assert_eq!(take_ids(&store, 8, 1, 10).await, [ids[2]]);
    watches(&store).leave(worker(1)).await.expect("leave");
    assert_eq!(take_ids(&store, 9, 1, 10).await, [ids[2], ids[1], ids[0]]);
}

pub(super) async fn who_watches_survives_a_reopening(subject: Subject) {
    let Subject { store, reopen } = subject;
    let id = mailbox(store.reserve().await.expect("reserve"), inbox("mx.acme.example"));
    store.add(&change(), &id, None).await.expect("add");
    let lease = take(&store, 0, 1, 10).await[0];
    let reading = Reading { lease, read_at: at(1), way: Way::Poll };
    renew(&store, 1, 1, &[reading]).await.expect("alive");
    let before = watch(&store, 2, id.id).await;
    let store = Subject { store, reopen }.restarted().await;
    assert_eq!(watch(&store, 2, id.id).await, before);
    assert_eq!(take(&store, 2, 2, 10).await, [], "it is still the first one's");
}
