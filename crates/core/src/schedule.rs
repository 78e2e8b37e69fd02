//! When a mail that could not be sent for now is tried again, and when it is given up. Which failures are tried again is
//! said by [`crate::failure::Failure`].

use std::time::Duration;

use crate::time::Timestamp;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// After this time a mail that names no expiry of its own is given up: RFC 5321 section 4.5.4.1 asks for at least four
/// to five days.
pub const EXPIRY: Duration = Duration::from_secs(5 * 24 * HOUR);

/// The longest wait that a server can ask for.
pub const HINT_LIMIT: Duration = Duration::from_secs(24 * HOUR);

/// A wait grows by jitter of at most one part in this many, so that the mails of one failure don't come back at once.
const JITTER_PART: u32 = 5;

/// The waits between the attempts to send one mail.
///
/// RFC 5321 section 4.5.4.1 asks for 30 minutes or more between tries and allows a quicker start; the default waits 1, 5
/// and 15 minutes first, since greylisting is the most frequent reason, then 30 minutes, 1, 2 and 4 hours, and every 4
/// hours from there on.
///
/// ```
/// use std::time::Duration;
/// use postroom_core::{schedule::Schedule, time::Timestamp};
///
/// let now = Timestamp::from_millis(0);
/// let next = Schedule::default().next(1, now, None, 7);
/// assert!((60..=72).contains(&next.since(now).as_secs()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    first: Duration,
    rest: Vec<Duration>,
}

impl Default for Schedule {
    fn default() -> Self {
        let rest = [5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR];
        Self::new(Duration::from_secs(MINUTE), rest.into_iter().map(Duration::from_secs))
    }
}

impl Schedule {
    /// Waits `first` after the first failed attempt, then each of `rest`; the last wait repeats.
    #[must_use]
    pub fn new(first: Duration, rest: impl IntoIterator<Item = Duration>) -> Self {
        Self { first, rest: rest.into_iter().collect() }
    }

    /// When to try again after `attempt` attempts have failed (1 after the first): the wait of the schedule, or the
    /// server's own `hint` where that is longer (at most [`HINT_LIMIT`]), and jitter from `seed` of at most a fifth.
    #[must_use]
    pub fn next(&self, attempt: u32, now: Timestamp, hint: Option<Duration>, seed: u64) -> Timestamp {
        let index = usize::try_from(attempt).unwrap_or(usize::MAX);
        let planned = match index.checked_sub(2) {
            None => self.first,
            Some(index) => *self.rest.get(index).or(self.rest.last()).unwrap_or(&self.first),
        };
        let wait = planned.max(hint.unwrap_or_default().min(HINT_LIMIT));
        let most = u64::try_from((wait / JITTER_PART).as_millis()).unwrap_or(u64::MAX);
        now + wait + Duration::from_millis(seed % most.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_starts_quickly_and_then_waits_four_hours_for_ever() {
        let now = Timestamp::from_millis(0);
        let wait = |attempt| Schedule::default().next(attempt, now, None, 0).since(now).as_secs();
        let waits: Vec<u64> = (0..=9).map(wait).collect();
        assert_eq!(waits, [60, 60, 300, 900, 1800, 3600, 7200, 14_400, 14_400, 14_400]);
        assert_eq!(wait(u32::MAX), 14_400);
    }

    #[test]
    fn a_server_can_ask_for_a_longer_wait_within_a_day_and_never_for_a_shorter_one() {
        let now = Timestamp::from_millis(0);
        let wait = |secs| Schedule::default().next(2, now, Some(Duration::from_secs(secs)), 0).since(now);
        assert_eq!(wait(1).as_secs(), 300);
        assert_eq!(wait(1000).as_secs(), 1000);
        assert_eq!(wait(u64::MAX), HINT_LIMIT);
    }

    #[test]
    fn the_default_tries_often_enough_within_the_expiry() {
        let mut now = Timestamp::from_millis(0);
        let end = now + EXPIRY;
        let mut attempts = 0;
        while now < end {
            attempts += 1;
            now = Schedule::default().next(attempts, now, None, u64::MAX);
        }
        assert!((28..=40).contains(&attempts), "{attempts}");
    }

    proptest! {
        #[test]
        fn jitter_only_adds_and_at_most_a_fifth(attempt in 0u32..50, hint in proptest::option::of(0u64..200_000), seed: u64) {
            let now = Timestamp::from_millis(1_700_000_000_000);
            let hint = hint.map(Duration::from_secs);
            let plain = Schedule::default().next(attempt, now, hint, 0).since(now);
            let jittered = Schedule::default().next(attempt, now, hint, seed).since(now);
            prop_assert!(jittered >= plain && jittered <= plain + plain / JITTER_PART);
        }
    }
}
