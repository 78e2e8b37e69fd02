//! How sending is shared and bounded: over connections, outboxes and contracts, by limits, by servers that limit, and by servers
//! that are down. In virtual time: tokio's clock is paused and the store's clock follows it.

use std::collections::BTreeSet;
use std::time::Duration;

use postroom_core::id::MailboxId;
use postroom_core::queue::State;
use postroom_core::time::Timestamp;
use postroom_storage::{BudgetOwner, Budgets};
use tokio::time::sleep;

use crate::town::{Form, MINUTE, Place};

#[tokio::test(start_paused = true)]
async fn a_backlog_of_one_contract_does_not_hold_up_another_on_the_same_outbox() {
    let place = Place::new(1, Form(1, None, None), 1, 64).await;
    for _ in 0..100 {
        place.submit("Many", "many", 1).await;
    }
    for _ in 0..5 {
        place.submit("Few", "few", 1).await;
    }
    place.work(3 * MINUTE).await;
    let subjects = place.subjects();
    // By due time alone the few would be the last of all.
    let last = subjects.iter().rposition(|subject| subject == "few").unwrap();
    assert!(last <= 10 && subjects.len() == 105, "{last} of {}", subjects.len());
}

#[tokio::test(start_paused = true)]
async fn a_worker_with_nothing_to_do_has_parked_connections_closed_in_time() {
    let place = Place::new(1, Form(1, None, None), 1, 64).await;
    place.work(MINUTE).await;
    let swept = place.town.seen().swept.clone();
    assert!(swept.windows(2).all(|two| two[1] - two[0] <= Duration::from_secs(5)), "{swept:?}");
    assert!(*swept.last().unwrap() >= Duration::from_secs(55), "{swept:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_leaves_connections_to_others() {
    let place = Place::new(3, Form(100, None, None), 1, 8).await;
    place.town.silent.lock().unwrap().insert(place.outboxes[0]);
    for _ in 0..100 {
        place.submit("C0", "hangs", 1).await;
    }
    place.work(MINUTE).await;
    let of = |id| place.town.seen().open[&id].1;
    assert!((2..8).contains(&of(place.outboxes[0])), "{}", of(place.outboxes[0]));
    for contract in ["C1", "C2"] {
        for _ in 0..10 {
            place.submit(contract, "goes", 1).await;
        }
    }
    place.work(MINUTE).await;
    assert_eq!(place.subjects().iter().filter(|subject| *subject == "goes").count(), 20);
    assert!(place.town.seen().most <= 8, "{}", place.town.seen().most);
}

#[tokio::test(start_paused = true)]
async fn an_outbox_that_has_connections_gives_way_to_one_that_has_none() {
    let place = Place::new(4, Form(5, None, None), 1, 2).await;
    for contract in ["C0", "C1", "C2"] {
        for _ in 0..200 {
            place.submit(contract, "backlog", 1).await;
        }
    }
    place.work(10 * Duration::from_secs(1)).await;
    let begun = place.town.seen().taken.len();
    assert!(begun > 0);
    place.submit("C3", "late", 1).await;
    place.work(MINUTE).await;
    // Would miss two backlogs that keep both connections for minutes.
    assert!(place.subjects().iter().any(|subject| subject == "late"));
    let by: BTreeSet<MailboxId> = place.town.seen().taken.iter().map(|(_, by, _)| *by).collect();
    assert_eq!(by.len(), 4, "every outbox has its turn");
    assert!(place.town.seen().most <= 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_fewer_connections_gets_fewer_and_costs_no_attempt_and_no_rest() {
    let place = Place::new(1, Form(8, None, None), 1, 64).await;
    let set = |room| *place.town.room.lock().unwrap() = room;
    set(3);
    *place.town.pace.lock().unwrap() = Duration::from_secs(10);
    let mut mails = Vec::new();
    for _ in 0..400 {
        mails.push(place.submit("C0", "mail", 1).await);
    }
    place.work(10 * MINUTE).await;
    let refused = place.town.seen().refused;
    let taken = place.town.seen().taken.len();
    let between = (Duration::from_secs(30), Duration::from_secs(60));
    let calm = place.town.seen().taken.iter().filter(|(at, ..)| *at > between.0 && *at < between.1).count();
    // Would miss a third connection that goes on although there are to be two: nine mails.
    assert!(calm <= 7, "{calm}");
    // One try a minute to have one more; a lane that is opened anew each second would be refused 600 times.
    assert!((1..=15).contains(&refused), "{refused}");
    // Three connections that take a mail in ten seconds, or nearly three: no rest of the outbox in between.
    assert!(taken > 120, "{taken}");
    let first = place.show(&mails[0]).await;
    assert_eq!((first.item.state, first.item.attempts), (State::Accepted, 1));
    let health = place.workers[0].store().health(place.outboxes[0]).await.unwrap();
    assert_eq!(health.failures, 0);
    // The server has room again: what is registered comes back, and is never exceeded.
    set(usize::MAX);
    place.work(12 * MINUTE).await;
    assert_eq!(place.town.seen().open[&place.outboxes[0]].1, 8);
    assert_eq!(place.town.seen().taken.len(), 400);
    for mail in &mails {
        assert_eq!(place.show(mail).await.item.attempts, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_is_down_for_hours_sees_no_herd_and_costs_no_attempt() {
    let place = Place::new(60, Form(5, None, None), 2, 1000).await;
    *place.town.down.lock().unwrap() = true;
    let mut mails = Vec::new();
    for outbox in 0..60 {
        mails.push(place.submit(&format!("C{outbox}"), "mail", 1).await);
    }
    // That it is down each worker may find out by itself.
    place.work(MINUTE).await;
    place.town.seen().open.clear();
    place.work(119 * MINUTE).await;
    {
        let seen = place.town.seen();
        // One lane of one worker at a time, though both see the same time.
        assert!(seen.open.values().all(|(_, most)| *most == 1), "{:?}", seen.open);
        // In windows of five minutes, once the rests have grown to their longest.
        let mut windows = [0; 24];
        for (at, _) in &seen.connects {
            windows[usize::try_from(at.as_secs() / 300).unwrap().min(23)] += 1;
        }
        let grown = &windows[6..];
        let mean = grown.iter().sum::<usize>() / grown.len();
        let peak = grown.iter().max().copied().unwrap();
        assert!(peak <= 2 * mean, "peak {peak}, mean {mean}: {windows:?}");
        assert!((15..=42).contains(&mean), "each outbox once in 7.5 to 15 minutes: {mean}");
    }
    for mail in &mails {
        let record = place.show(mail).await;
        assert_eq!((record.item.state, record.item.attempts), (State::Queued, 0));
    }
    *place.town.down.lock().unwrap() = false;
    place.work(20 * MINUTE).await;
    for mail in &mails {
        assert_eq!(place.show(mail).await.item.state, State::Accepted);
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_success_of_one_lane_opens_the_others_again() {
    let place = Place::new(1, Form(5, None, None), 2, 64).await;
    for _ in 0..400 {
        place.submit("C0", "mail", 1).await;
    }
    let breaks_down = async {
        sleep(Duration::from_secs(20)).await;
        assert!(place.town.seen().open[&place.outboxes[0]].0 > 3, "they run side by side");
        *place.town.down.lock().unwrap() = true;
    };
    tokio::join!(place.work(Duration::from_secs(80)), breaks_down);
    // Ten lanes broke, by one outage: it counts once, not once for each.
    let health = place.workers[0].store().health(place.outboxes[0]).await.unwrap();
    assert!((1..=7).contains(&health.failures), "{}", health.failures);
    let (before, taken) = {
        let mut seen = place.town.seen();
        seen.open.clear();
        (seen.connects.len(), seen.taken.len())
    };
    *place.town.down.lock().unwrap() = false;
    place.work(10 * MINUTE).await;
    let seen = place.town.seen();
    assert_eq!(seen.taken.len(), 400);
    // The second one connects when the first mail has been taken, not before.
    let first = seen.taken[taken].0;
    let early = seen.connects[before..].iter().filter(|(at, _)| *at < first).count();
    assert_eq!(early, 1);
    assert!(seen.open[&place.outboxes[0]].1 > 3);
}

#[tokio::test(start_paused = true)]
async fn limits_per_minute_and_per_day_are_kept_by_all_workers_together() {
    let place = Place::new(1, Form(5, Some(10), Some(55)), 3, 64).await;
    let mut mails = Vec::new();
    for _ in 0..60 {
        mails.push(place.submit("C0", "mail", 1).await);
    }
    place.work(4 * MINUTE).await;
    {
        let seen = place.town.seen();
        let times: Vec<Duration> = seen.taken.iter().map(|(at, ..)| *at).collect();
        for window in times.windows(11) {
            // A mail counts when it is claimed, which is a second before it is taken.
            assert!(window[10] - window[0] >= MINUTE - Duration::from_secs(2), "{window:?}");
        }
        assert!((30..=40).contains(&times.len()), "the limit is used as well: {}", times.len());
    }
    place.work(20 * MINUTE).await;
    assert_eq!(place.town.seen().taken.len(), 55, "until midnight");
    let store = place.workers[0].store();
    let owner = BudgetOwner::Outbox(place.outboxes[0]);
    let view = Budgets::budget(store, store.now(), &owner).await.unwrap();
    let until = view.waits.unwrap().until;
    assert_eq!(until, Timestamp::parse("2026-11-23T00:00:00Z").unwrap());
    let waiting = place.show(&mails[59]).await;
    assert_eq!((waiting.item.state, waiting.item.attempts), (State::Queued, 0));
    // No lane is opened in vain while it waits.
    let before = place.town.seen().connects.len();
    place.work(10 * MINUTE).await;
    assert_eq!(place.town.seen().connects.len(), before);
    place.work(until.since(store.now()) + MINUTE).await;
    assert_eq!(place.town.seen().taken.len(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_mail_to_more_than_a_day_allows_is_held_and_says_why() {
    let place = Place::new(1, Form(5, None, Some(3)), 1, 64).await;
    let mail = place.submit("C0", "too many", 4).await;
    place.submit("C0", "few", 3).await;
    place.work(MINUTE).await;
    let record = place.show(&mail).await;
    assert_eq!(record.item.state, State::Held);
    let why = &record.timeline.last().unwrap().detail;
    assert!(why.contains("4 recipients") && why.contains("3 a day"), "{why}");
    assert_eq!(place.subjects(), ["few"]);
}
