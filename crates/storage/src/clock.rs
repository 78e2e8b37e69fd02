//! The time of a store: every statement takes its `now` from here, so that a jump of a machine's clock moves nothing and
//! tests can set it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use postroom_core::time::Timestamp;

/// The clock of a store.
#[cfg_attr(feature = "mock", mockall::automock)]
pub trait Clock: Send + Sync {
    /// The store's time. It never goes back within one process.
    fn now(&self) -> Timestamp;
}

/// The machine's clock, looked at once: from then on it advances by the monotonic clock, so no jump of the wall clock
/// ends a lease or a mail early.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    begun_at: Timestamp,
    begun: Instant,
}

impl SystemClock {
    /// Looks at the machine's clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one room where the machine's clocks are read")]
    pub fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { begun_at: Timestamp::from_millis(0) + since, begun: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.begun_at + self.begun.elapsed()
    }
}

/// A clock that a test sets.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `start` until it is told otherwise.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self(AtomicI64::new(start.as_millis()))
    }

    /// Shows `to`, unless it shows a later time already.
    pub fn set(&self, to: Timestamp) {
        self.0.fetch_max(to.as_millis(), Ordering::SeqCst);
    }

    /// Goes on by `span`.
    pub fn advance(&self, span: Duration) {
        self.0.fetch_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}
