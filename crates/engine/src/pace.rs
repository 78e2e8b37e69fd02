//! Pacing: how fast connections to servers that keep mail are opened, over all and for each host, so that neither a restart nor
//! the end of an outage is a storm. Who may be read at all is not decided here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

/// How fast connections are opened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "settings that hosts fill by literal with `..Pacing::default()`"
)]
pub struct Pacing {
    /// Connections in a second, to all hosts together. Default 20, at least 1.
    pub per_second: u32,
    /// Connections in a second to one host. Default 10, at least 1.
    pub per_host: u32,
    /// Connections to one host that are being opened at once, up to the sign-in. Default 2, at least 1.
    pub opening: u32,
    /// Sessions with one host at once, of this process; the other inboxes there wait for their turn, and those that have it poll.
    /// Default none: as many as there are inboxes.
    pub sessions: Option<u32>,
}

impl Default for Pacing {
    fn default() -> Self {
        Self { per_second: 20, per_host: 10, opening: 2, sessions: None }
    }
}

/// The least distance between two connections. Whoever waits for his turn has it before those who came later; a dropped wait gives
/// it to the next.
#[derive(Debug)]
struct Gate {
    next: tokio::sync::Mutex<Instant>,
    distance: Duration,
}

impl Gate {
    fn new(per_second: u32) -> Self {
        let distance = Duration::from_secs(1) / per_second.max(1);
        Self { next: tokio::sync::Mutex::new(Instant::now()), distance }
    }

    async fn pass(&self) {
        let mut next = self.next.lock().await;
        let now = Instant::now();
        if *next > now {
            sleep_until(*next).await;
        }
        // From when it was its turn: a timer that is late costs no speed.
        *next = (*next).max(now) + self.distance;
    }
}

#[derive(Debug)]
struct Host {
    gate: Gate,
    opening: Arc<Semaphore>,
    sessions: Option<Arc<Semaphore>>,
    most: usize,
}

/// The connections of this process.
#[derive(Debug)]
pub(crate) struct Pace {
    pacing: Pacing,
    all: Gate,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

/// The right to have a session with a host, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    _permit: Option<OwnedSemaphorePermit>,
    host: Arc<Host>,
}

impl Seat {
    /// Whether others wait for a session with the host, or soon will: then nobody stays longer than he reads.
    pub(crate) fn is_wanted(&self) -> bool {
        let free = |sessions: &Arc<Semaphore>| sessions.available_permits();
        self.host.sessions.as_ref().is_some_and(|sessions| free(sessions) * 4 <= self.host.most)
    }
}

/// The right to open a connection, until it is open.
#[derive(Debug)]
pub(crate) struct Opening {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Pace {
    pub(crate) fn new(pacing: Pacing) -> Self {
        let all = Gate::new(pacing.per_second);
        Self { pacing, all, hosts: Mutex::default() }
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || {
            let count = |number: u32| usize::try_from(number.max(1)).unwrap_or(Semaphore::MAX_PERMITS);
            let most = self.pacing.sessions.map_or(0, count);
            Arc::new(Host {
                gate: Gate::new(self.pacing.per_host),
                opening: Arc::new(Semaphore::new(count(self.pacing.opening))),
                sessions: self.pacing.sessions.map(|_| Arc::new(Semaphore::new(most))),
                most,
            })
        };
        Arc::clone(hosts.entry(name.to_ascii_lowercase()).or_insert_with(made))
    }

    /// Waits for the turn to connect to a host. A host that is slow holds up nobody else: what waits for it does not wait in the
    /// common queue.
    ///
    /// Cancel safe: a dropped wait takes nothing.
    pub(crate) async fn enter(&self, host: &str) -> (Seat, Opening) {
        let host = self.host(host);
        // Neither semaphore is ever closed: an error would be no permit, and no wait.
        let seat = match &host.sessions {
            Some(sessions) => Arc::clone(sessions).acquire_owned().await.ok(),
            None => None,
        };
        let opening = Arc::clone(&host.opening).acquire_owned().await.ok();
        host.gate.pass().await;
        self.all.pass().await;
        (Seat { _permit: seat, host }, Opening { _permit: opening })
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    /// When each of so many connections was opened, over hosts that take `handshake` each.
    async fn opened(count: usize, hosts: usize, pacing: Pacing, handshake: Duration) -> Vec<Duration> {
        let pace = Arc::new(Pace::new(pacing));
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let pace = Arc::clone(&pace);
            tasks.spawn(async move {
                let (_seat, opening) = pace.enter(&format!("mx{}.acme.example", number % hosts)).await;
                let at = begun.elapsed();
                tokio::time::sleep(handshake).await;
                drop(opening);
                at
            });
        }
        tasks.join_all().await
    }

    /// The most in any second, and the mean of a second.
    fn peak_and_mean(times: &[Duration]) -> (usize, usize) {
        let last = times.iter().max().map_or(1, |last| usize::try_from(last.as_secs()).unwrap_or(0) + 1);
        let mut seconds = vec![0; last];
        times.iter().for_each(|at| seconds[usize::try_from(at.as_secs()).unwrap_or(0)] += 1);
        (seconds.into_iter().max().unwrap_or_default(), times.len() / last)
    }

    /// Would miss a gate that lets all of those pass that waited for it (10,000 in the first second).
    #[tokio::test(start_paused = true)]
    async fn a_restart_with_many_boxes_is_no_storm() {
        for hosts in [1, 3, 50] {
            let times = opened(10_000, hosts, Pacing::default(), Duration::from_millis(100)).await;
            let (peak, mean) = peak_and_mean(&times);
            assert!(peak <= 2 * mean && peak <= 21, "{hosts} hosts: peak {peak}, mean {mean}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_host_gets_no_more_than_its_part_and_a_slow_one_holds_up_nobody() {
        let times = opened(100, 1, Pacing::default(), Duration::ZERO).await;
        assert!(peak_and_mean(&times).0 <= 11);
        // Two at once, each for ten seconds: the others of that host wait, and one of another host does not.
        let pace = Arc::new(Pace::new(Pacing::default()));
        let mut stuck = JoinSet::new();
        for _ in 0..50 {
            let pace = Arc::clone(&pace);
            stuck.spawn(async move {
                let entered = pace.enter("slow.example").await;
                std::future::pending::<()>().await;
                drop(entered);
            });
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        let begun = Instant::now();
        pace.enter("fast.example").await;
        assert!(begun.elapsed() < Duration::from_secs(1));
        assert!(tokio::time::timeout(Duration::from_secs(60), pace.enter("SLOW.example")).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn where_sessions_are_bounded_the_next_waits_until_one_ends() {
        let pace = Pace::new(Pacing { sessions: Some(2), ..Pacing::default() });
        let first = pace.enter("mx.example").await;
        assert!(!first.0.is_wanted());
        let second = pace.enter("mx.example").await;
        assert!(second.0.is_wanted());
        drop((first.1, second.1));
        assert!(tokio::time::timeout(Duration::from_secs(60), pace.enter("mx.example")).await.is_err());
        drop(first.0);
        assert!(tokio::time::timeout(Duration::from_secs(60), pace.enter("mx.example")).await.is_ok());
    }
}
