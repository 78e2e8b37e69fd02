//! A destination of many outboxes is down for a long time, and then it is back: how many of them knock in one moment. Time is virtual, the
//! store and the server are in memory.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use postroom::Options;
use postroom::core::address::Address;
use postroom::core::id::MailboxId;
use postroom::core::time::Timestamp;
use postroom::engine::{NoObserver, Work};
use postroom::storage::Clock;
use postroom::storage::memory::MemoryStore;
use postroom::transport::memory::MemoryOutgoing;
use postroom::transport::{Error, ErrorKind, Lane, OutgoingTransport, ProbeReport, Result, Route, Stage};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::house::{linked, morning, opened, submit};

const OUTBOXES: usize = 200;

/// Within which connections are counted together.
const WINDOW: u64 = 180;

struct VirtualClock(Instant);

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        morning() + self.0.elapsed()
    }
}

/// A server in memory that remembers when it was dialled.
struct Dialled {
    inner: MemoryOutgoing,
    at: Mutex<Vec<Instant>>,
}

#[async_trait]
impl OutgoingTransport for Dialled {
    async fn carry<'a>(&self, route: &Route, lane: &'a (dyn Lane + 'a)) -> Result<()> {
        self.at.lock().unwrap().push(Instant::now());
        self.inner.carry(route, lane).await
    }

    async fn probe(&self, route: &Route, senders: &[Address]) -> ProbeReport {
        self.inner.probe(route, senders).await
    }

    async fn close_parked(&self, mailbox: MailboxId) {
        self.inner.close_parked(mailbox).await;
    }

    async fn close_idle(&self) {
        self.inner.close_idle().await;
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

impl Dialled {
    /// The most connections of a window, and the mean of all windows, in this span from `begun` on.
    fn peak(&self, begun: Instant, windows: u64) -> (usize, f64) {
        let mut counts = vec![0usize; usize::try_from(windows).unwrap()];
        for at in self.at.lock().unwrap().iter() {
            let window = at.checked_duration_since(begun).map(|since| since.as_secs() / WINDOW);
            let window = window.and_then(|window| usize::try_from(window).ok());
            if let Some(count) = window.and_then(|window| counts.get_mut(window)) {
                *count += 1;
            }
        }
        let (all, most) = (counts.iter().sum::<usize>(), counts.iter().max().copied().unwrap_or_default());
        (most, f64::from(u32::try_from(all).unwrap()) / f64::from(u32::try_from(windows).unwrap()))
    }
}

// Two workers, 200 outboxes, which all fail in the same second at first. Would miss a herd within three minutes, which so few outboxes
// can't show.
#[tokio::test(start_paused = true)]
async fn a_destination_that_was_down_for_long_is_met_by_no_herd_when_it_is_back() {
    let clock = Arc::new(VirtualClock(Instant::now()));
    let store = Arc::new(MemoryStore::with_clock(clock));
    let server = Arc::new(Dialled { inner: MemoryOutgoing::new(), at: Mutex::default() });
    server.inner.fail(Error::new(ErrorKind::Unreachable, Stage::Tcp));
    let open = || {
        let observer = Arc::new(NoObserver::default());
        opened(store.clone(), server.clone(), observer, Options::default())
    };
    let (postroom, other) = (open(), open());
    for number in 0..OUTBOXES {
        let contract = format!("C{number}");
        linked(&postroom, &contract, 25, 2).await;
        submit(&postroom, &contract).await;
    }
    let _workers = JoinSet::from_iter([postroom, other].map(|worker| async move {
        worker.run_with(Work::all(), std::future::pending()).await.unwrap();
    }));
    // By then every rest is as long as it gets, and what failed together at first has come apart.
    tokio::time::sleep(Duration::from_secs(80 * 60)).await;
    let down = Instant::now();
    tokio::time::sleep(Duration::from_secs(10 * WINDOW)).await;
    let (peak, mean) = server.peak(down, 10);
    assert!(
        mean > 20.0 && f64::from(u32::try_from(peak).unwrap()) <= 2.0 * mean,
        "down: {peak}, mean {mean}"
    );
    server.inner.recover();
    let back = Instant::now();
    tokio::time::sleep(Duration::from_secs(5 * WINDOW)).await;
    let (peak, mean) = server.peak(back, 5);
    assert!(
        mean > 20.0 && f64::from(u32::try_from(peak).unwrap()) <= 2.0 * mean,
        "back: {peak}, mean {mean}"
    );
    // The longest rest is a quarter of an hour.
    assert_eq!(server.inner.carried().len(), OUTBOXES);
}
