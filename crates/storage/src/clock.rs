//! The time of a store: every statement takes its `now` from here, so that a jump of a machine's clock moves nothing and
//! tests can set it.

use std::sync::atomic::{AtomicI64, Ordering};
#[cfg(any(feature = "mysql", feature = "postgres"))]
use std::sync::{Mutex, MutexGuard, PoisonError};
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

/// The clock of a database that several machines share: its time is sampled now and then, and goes on by the monotonic clock of
/// this machine between.
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(crate) struct SampledClock(Mutex<Sample>);

/// The last sample.
#[cfg(any(feature = "mysql", feature = "postgres"))]
#[derive(Clone, Copy)]
struct Sample {
    /// What this clock showed when the sample was taken.
    shown: Timestamp,
    taken: Instant,
    /// How far it was ahead of the database.
    ahead: Duration,
    /// Whether the database was asked at all.
    is_real: bool,
}

#[cfg(any(feature = "mysql", feature = "postgres"))]
impl Sample {
    /// The time so long after the sample. A clock that is ahead runs at half speed until it is not: it never goes back, and it
    /// never stands still.
    fn after(&self, elapsed: Duration) -> Timestamp {
        self.shown + elapsed.saturating_sub((elapsed / 2).min(self.ahead))
    }

    /// The sample that follows when the database shows `theirs`.
    fn followed_by(&self, theirs: Timestamp, taken: Instant) -> Self {
        let ours = self.after(taken.saturating_duration_since(self.taken));
        let shown = if self.is_real { ours.max(theirs) } else { theirs };
        Self { shown, taken, ahead: shown.since(theirs), is_real: true }
    }
}

#[cfg(any(feature = "mysql", feature = "postgres"))]
impl SampledClock {
    /// How long a sample is good for.
    const GOOD_FOR: Duration = Duration::from_secs(60);

    /// A clock whose database was not asked yet: it shows the machine's time.
    pub(crate) fn new() -> Self {
        let machine = SystemClock::new();
        let (shown, taken, ahead) = (machine.begun_at, machine.begun, Duration::ZERO);
        Self(Mutex::new(Sample { shown, taken, ahead, is_real: false }))
    }

    /// Whether the database is to be asked again.
    pub(crate) fn is_due(&self) -> bool {
        let sample = *self.sample();
        !sample.is_real || sample.taken.elapsed() >= Self::GOOD_FOR
    }

    /// Takes over what the database shows in this moment.
    #[expect(clippy::disallowed_methods, reason = "the one room where the machine's clocks are read")]
    pub(crate) fn take(&self, theirs: Timestamp) {
        let mut sample = self.sample();
        *sample = sample.followed_by(theirs, Instant::now());
    }

    fn sample(&self) -> MutexGuard<'_, Sample> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(any(feature = "mysql", feature = "postgres"))]
impl Clock for SampledClock {
    fn now(&self) -> Timestamp {
        let sample = *self.sample();
        sample.after(sample.taken.elapsed())
    }
}

#[cfg(all(test, any(feature = "mysql", feature = "postgres")))]
mod tests {
    use super::*;

    #[test]
    fn a_sampled_clock_follows_the_database_and_never_goes_back() {
        let (at, second) = (Timestamp::from_millis, Duration::from_secs(1));
        let begun = SystemClock::new().begun;
        let first = Sample { shown: at(90_000), taken: begun, ahead: Duration::ZERO, is_real: false };
        // The first sample is the database's, also when the machine was ahead of it.
        let first = first.followed_by(at(5_000), begun);
        assert_eq!(first.after(second), at(6_000));
        // The database is ahead: its time is ours at once.
        let jumped = first.followed_by(at(3_600_000), begun + second);
        assert_eq!(jumped.after(second), at(3_601_000));
        // It went back by four seconds: we run at half speed until it has caught up after eight. The mutant that takes the
        // sample as it is would show an earlier time here.
        let back = jumped.followed_by(at(3_597_000), begun + second * 2);
        assert_eq!(back.after(Duration::ZERO), at(3_601_000));
        assert_eq!(back.after(second * 2), at(3_602_000));
        assert_eq!(back.after(second * 8), at(3_605_000));
        assert_eq!(back.after(second * 100), at(3_697_000));
    }
}
