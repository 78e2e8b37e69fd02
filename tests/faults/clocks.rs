//! Clocks that are wrong: one of two workers is five minutes ahead, and the store's time jumps by an hour in the middle of the work.
//! Leases go by the store's clock; what ends early then costs attempts, never a mail and never a double.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use postroom::Postroom;
use postroom::core::queue::State;
use postroom::engine::{NoObserver, Work};
use postroom_testkit::MailServer;

use crate::house::{PATIENCE, linked, opened, options, queue, smtp, sqlite, submit, work};
use crate::moments::{Moment, Watched};

const MAILS: usize = 60;

async fn check_once(postroom: &Postroom, server: &MailServer) {
    for item in queue(postroom).await {
        assert_eq!(item.state, State::Accepted, "{item:?}");
        let arrived = server.find_accepted_by_message_id(&item.message_id).len();
        assert_eq!(arrived, 1, "{item:?}");
    }
    assert_eq!(server.accepted_count(), MAILS);
}

// Seen to fail when a mark does not look at its claim: what the one ahead has taken away is sent by both.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_clock_is_five_minutes_ahead_doubles_nothing_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = MailServer::start().await.unwrap();
    let mut workers = Vec::new();
    for ahead in [0, 300] {
        let store = sqlite(folder.path(), Duration::from_secs(ahead)).await.0;
        workers.push(opened(store, Arc::new(smtp(PATIENCE)), Arc::new(NoObserver::default()), options()));
    }
    linked(&workers[0], "ACME", server.smtp_port(), 3).await;
    for _ in 0..MAILS {
        submit(&workers[0], "ACME").await;
    }
    tokio::join!(work(&workers[0]), work(&workers[1]));
    work(&workers[1]).await;
    check_once(&workers[1], &server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_of_the_stores_clock_by_an_hour_doubles_nothing_loses_nothing_and_starts_no_storm() {
    let folder = tempfile::tempdir().unwrap();
    let server = MailServer::start().await.unwrap();
    let (store, clock) = sqlite(folder.path(), Duration::ZERO).await;
    let steps = AtomicUsize::new(0);
    let act = Arc::new(move |moment| {
        // Now and then, before a mark and after one: the leases of all that is in hand have run out by then.
        if matches!(moment, Moment::Claimed | Moment::Marked)
            && steps.fetch_add(1, Ordering::SeqCst) % 17 == 5
        {
            clock.advance(Duration::from_secs(3600));
        }
        Box::pin(std::future::ready(())) as _
    });
    let outgoing = Arc::new(Watched::new(smtp(PATIENCE), act));
    let postroom = opened(store, outgoing, Arc::new(NoObserver::default()), options());
    linked(&postroom, "ACME", server.smtp_port(), 3).await;
    for _ in 0..MAILS {
        submit(&postroom, "ACME").await;
    }
    let run = postroom.run_with(Work::all().until_idle(), std::future::pending());
    tokio::time::timeout(PATIENCE, run).await.expect("the worker becomes idle").unwrap();
    check_once(&postroom, &server).await;
    let connections = server.sessions().len();
    assert!(connections <= MAILS, "{connections} connections for {MAILS} mails");
}
