//! Clocks that are wrong: one of two workers is five minutes ahead, and the store's time jumps by an hour in the middle of the work.
//! Leases go by the store's clock; what ends early then costs attempts, never a mail and never a double.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use postroom::Postroom;
use postroom::core::queue::State;
use postroom::engine::NoObserver;
use postroom::storage::ManualClock;
use postroom_testkit::MailServer;
use tempfile::TempDir;

use crate::house::{PATIENCE, linked, opened, options, queue, smtp, sqlite, submit, work};
use crate::moments::{Act, Moment, Watched};

const MAILS: usize = 60;

/// A worker in the middle of whose work, now and then before a mark and after one, somebody looks for leases that have run out.
struct House {
    postroom: Postroom,
    /// Who looks.
    sweeper: Arc<OnceLock<Postroom>>,
    /// How often leases were ended early.
    ended: Arc<AtomicUsize>,
    clock: Arc<ManualClock>,
    server: MailServer,
    folder: TempDir,
}

impl House {
    /// The clock is moved on by so much before each look.
    async fn new(jump: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = MailServer::start().await.unwrap();
        let (store, clock) = sqlite(folder.path(), Duration::ZERO).await;
        let sweeper = Arc::new(OnceLock::<Postroom>::new());
        let (steps, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (clock_of, sweeper_of, ended_of) = (clock.clone(), sweeper.clone(), ended.clone());
        let act: Act = Arc::new(move |moment| {
            let look = matches!(moment, Moment::Invited | Moment::Marked)
                && steps.fetch_add(1, Ordering::SeqCst) % 7 == 3;
            let (clock, sweeper, ended) = (clock_of.clone(), sweeper_of.clone(), ended_of.clone());
            Box::pin(async move {
                if look {
                    clock.advance(jump);
                    let swept = sweeper.get().unwrap().expire().await.unwrap();
                    let all = usize::try_from(swept.released + swept.doubted).unwrap();
                    ended.fetch_add(all, Ordering::SeqCst);
                }
            })
        });
        let outgoing = Arc::new(Watched::new(smtp(PATIENCE), act));
        let postroom = opened(store, outgoing, Arc::new(NoObserver::default()), options());
        linked(&postroom, "ACME", server.smtp_port(), 3).await;
        for _ in 0..MAILS {
            submit(&postroom, "ACME").await;
        }
        Self { postroom, sweeper, ended, clock, server, folder }
    }

    async fn check_once(&self) {
        for item in queue(&self.postroom).await {
            assert_eq!(item.state, State::Accepted, "{item:?}");
            let arrived = self.server.find_accepted_by_message_id(&item.message_id).len();
            assert_eq!(arrived, 1, "{item:?}");
        }
        assert_eq!(self.server.accepted_count(), MAILS);
        let ended = self.ended.load(Ordering::SeqCst);
        assert!(ended > 5, "{ended} leases were ended early: the test shows nothing");
    }
}

// Seen to fail when a mark does not look at its claim: what the one ahead has taken away is sent by both.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_clock_is_five_minutes_ahead_doubles_nothing_and_loses_nothing() {
    let house = House::new(Duration::ZERO).await;
    let store = sqlite(house.folder.path(), Duration::from_secs(300)).await.0;
    let ahead = opened(store, Arc::new(smtp(PATIENCE)), Arc::new(NoObserver::default()), options());
    assert!(house.sweeper.set(ahead.clone()).is_ok());
    // It takes over what it has ended, while the one behind goes on.
    let takes_over = async {
        while house.ended.load(Ordering::SeqCst) <= 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        work(&ahead).await;
    };
    tokio::join!(work(&house.postroom), takes_over);
    work(&ahead).await;
    house.check_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_of_the_stores_clock_by_an_hour_doubles_nothing_loses_nothing_and_starts_no_storm() {
    let house = House::new(Duration::from_secs(3600)).await;
    assert!(house.sweeper.set(house.postroom.clone()).is_ok());
    work(&house.postroom).await;
    // What was put off meanwhile.
    house.clock.advance(Duration::from_secs(600));
    work(&house.postroom).await;
    house.check_once().await;
    // Each ended lease costs one connection at most.
    let (connections, ended) = (house.server.sessions().len(), house.ended.load(Ordering::SeqCst));
    assert!(connections <= MAILS + ended, "{connections} connections, {ended} leases ended early");
}
