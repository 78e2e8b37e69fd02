//! What an outbox may send by its limits per minute and per day: what was taken, whether one more mail fits, and when it
//! does. Where it is kept, and who takes it, is the stores' matter.

use serde::{Deserialize, Serialize};

use crate::mailbox::Outbox;
use crate::time::Timestamp;

const SECOND: i64 = 1000;
const DAY: i64 = 24 * 60 * 60 * SECOND;

/// A limit of an outbox, or of automatic mail to a correspondent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Limit {
    /// Messages in any 60 seconds.
    PerMinute,
    /// Recipients on a day in UTC.
    RecipientsPerDay,
    /// Automatic mails to one correspondent in any hour.
    AutomaticPerHour,
    /// Automatic mails to one correspondent in any 24 hours.
    AutomaticPerDay,
}

impl Limit {
    /// Every limit.
    pub const ALL: &[Self] =
        &[Self::PerMinute, Self::RecipientsPerDay, Self::AutomaticPerHour, Self::AutomaticPerDay];

    /// `per-minute`, `recipients-per-day`, `automatic-per-hour` or `automatic-per-day`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::PerMinute => "per-minute",
            Self::RecipientsPerDay => "recipients-per-day",
            Self::AutomaticPerHour => "automatic-per-hour",
            Self::AutomaticPerDay => "automatic-per-day",
        }
    }

    /// The limit of this word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|limit| limit.word() == word)
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// What an outbox may send at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "the columns of a row")]
pub struct Limits {
    /// Messages in any 60 seconds.
    pub per_minute: Option<u32>,
    /// Recipients on a day in UTC.
    pub recipients_per_day: Option<u32>,
}

impl Limits {
    /// Those that an outbox registers.
    #[must_use]
    pub fn of(outbox: &Outbox) -> Self {
        Self { per_minute: outbox.per_minute(), recipients_per_day: outbox.recipients_per_day() }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a mail can never go: it alone has more recipients than a whole day allows.
    #[must_use]
    pub fn never_fits(&self, recipients: u64) -> bool {
        self.recipients_per_day.is_some_and(|most| recipients > u64::from(most))
    }
}

/// Until when an outbox waits, and for which limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "two columns of a row")]
pub struct Wait {
    /// The limit that is reached.
    pub limit: Limit,
    /// From then on the next mail fits, as far as was known.
    pub until: Timestamp,
}

/// What was taken of one limit, by slots of time: a slot and how much was taken in it, the oldest first.
///
/// A slot of a minute's limit is a second and counts until 60 whole seconds have passed behind it, so that no 60 seconds
/// ever see more than the limit, wherever they begin; a slot of a day's limit is that day. What stands in slots ahead of
/// `now` was taken by a clock that was set back since: a minute's ahead counts, more than that is forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Taken(Vec<(i64, u64)>);

/// The length of a limit's slots in milliseconds, and for how many slots one counts.
const fn slots(limit: Limit) -> (i64, i64) {
    match limit {
        Limit::PerMinute => (SECOND, 61),
        Limit::RecipientsPerDay => (DAY, 1),
        Limit::AutomaticPerHour => (SECOND, 3601),
        Limit::AutomaticPerDay => (SECOND, 86_401),
    }
}

impl Taken {
    fn counted(&self, limit: Limit, now: Timestamp) -> impl Iterator<Item = (i64, u64)> {
        let (length, slots) = slots(limit);
        let slot = now.as_millis().div_euclid(length);
        self.0.iter().copied().filter(move |(of, _)| (slot - slots + 1..slot + slots).contains(of))
    }

    /// How much of the limit is taken at `now`.
    #[must_use]
    pub fn used(&self, limit: Limit, now: Timestamp) -> u64 {
        self.counted(limit, now).fold(0, |sum, (_, much)| sum.saturating_add(much))
    }

    /// When `much` fits within `most`; none when it does now.
    fn fits_at(&self, limit: Limit, now: Timestamp, most: u64, much: u64) -> Option<Timestamp> {
        let mut used = self.used(limit, now);
        let fits = |used: u64| used.saturating_add(much) <= most;
        if fits(used) {
            return None;
        }
        let (length, slots) = slots(limit);
        // A limit that was lowered below `much` waits for all of it to be free.
        let mut at = now;
        for (slot, much) in self.counted(limit, now) {
            used = used.saturating_sub(much);
            at = Timestamp::from_millis(slot.saturating_add(slots).saturating_mul(length));
            if fits(used) {
                break;
            }
        }
        Some(at)
    }

    fn take(&mut self, limit: Limit, now: Timestamp, much: u64) {
        self.0 = self.counted(limit, now).collect();
        let slot = now.as_millis().div_euclid(slots(limit).0);
        match self.0.binary_search_by_key(&slot, |(of, _)| *of) {
            Ok(at) => self.0[at].1 = self.0[at].1.saturating_add(much),
            Err(at) => self.0.insert(at, (slot, much)),
        }
    }

    fn give_back(&mut self, limit: Limit, taken_at: Timestamp, much: u64) {
        let slot = taken_at.as_millis().div_euclid(slots(limit).0);
        if let Some((_, taken)) = self.0.iter_mut().find(|(of, _)| *of == slot) {
            *taken = taken.saturating_sub(much);
        }
        self.0.retain(|(_, taken)| *taken > 0);
    }
}

/// What was taken of all limits of an outbox.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "two columns of a row")]
pub struct Budget {
    /// Messages, by second.
    pub minute: Taken,
    /// Recipients, by day.
    pub day: Taken,
}

impl Budget {
    /// Takes a mail with so many recipients out of the budget; nothing is taken when it does not fit.
    ///
    /// A mail that never fits ([`Limits::never_fits`]) takes nothing: it is not to be sent, and whoever has it says so.
    ///
    /// # Errors
    /// For which limit to wait, and until when.
    pub fn take(&mut self, limits: Limits, now: Timestamp, recipients: u64) -> Result<(), Wait> {
        if limits.never_fits(recipients) {
            return Ok(());
        }
        if let Some(wait) = self.wait(limits, now, recipients) {
            return Err(wait);
        }
        if limits.per_minute.is_some() {
            self.minute.take(Limit::PerMinute, now, 1);
        }
        if limits.recipients_per_day.is_some() {
            self.day.take(Limit::RecipientsPerDay, now, recipients);
        }
        Ok(())
    }

    /// For which limit a mail with so many recipients has to wait, the longest wait; none when it fits.
    #[must_use]
    pub fn wait(&self, limits: Limits, now: Timestamp, recipients: u64) -> Option<Wait> {
        let wait = |limit, taken: &Taken, most: Option<u32>, much| {
            let until = taken.fits_at(limit, now, u64::from(most?), much)?;
            Some(Wait { limit, until })
        };
        let minute = wait(Limit::PerMinute, &self.minute, limits.per_minute, 1);
        let day = wait(Limit::RecipientsPerDay, &self.day, limits.recipients_per_day, recipients);
        minute.into_iter().chain(day).max_by_key(|wait| wait.until)
    }

    /// Gives back what a mail took that was not sent after all.
    pub fn give_back(&mut self, taken_at: Timestamp, recipients: u64) {
        self.minute.give_back(Limit::PerMinute, taken_at, 1);
        self.day.give_back(Limit::RecipientsPerDay, taken_at, recipients);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { per_minute: Some(3), recipients_per_day: None };
    const DAILY: Limits = Limits { per_minute: None, recipients_per_day: Some(10) };

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_800_014_400_000 + millis)
    }

    #[test]
    fn a_mail_too_many_waits_until_the_oldest_one_is_a_minute_ago() {
        let mut budget = Budget::default();
        for millis in [500, 700, 30_000] {
            assert_eq!(budget.take(LIMITS, at(millis), 9), Ok(()));
        }
        let wait = Wait { limit: Limit::PerMinute, until: at(61_000) };
        assert_eq!(budget.take(LIMITS, at(30_001), 1), Err(wait));
        assert_eq!(budget.take(LIMITS, at(60_999), 1), Err(wait));
        assert_eq!(budget.take(LIMITS, at(61_000), 1), Ok(()));
        assert_eq!(budget.minute.used(Limit::PerMinute, at(61_000)), 2);
    }

    #[test]
    fn a_day_in_utc_begins_anew_and_one_mail_counts_by_its_recipients() {
        let mut budget = Budget::default();
        let midnight = Timestamp::parse("2027-01-16T00:00:00Z").expect("a time");
        assert_eq!(budget.take(DAILY, at(0), 8), Ok(()));
        let wait = Wait { limit: Limit::RecipientsPerDay, until: midnight };
        assert_eq!(budget.take(DAILY, at(1), 3), Err(wait));
        assert_eq!(budget.take(DAILY, at(2), 2), Ok(()));
        assert_eq!(budget.wait(DAILY, at(3), 1), Some(wait));
        assert_eq!(budget.take(DAILY, midnight, 10), Ok(()));
    }

    #[test]
    fn a_mail_that_no_day_allows_takes_nothing() {
        let mut budget = Budget::default();
        assert_eq!(budget.take(DAILY, at(0), 11), Ok(()));
        assert_eq!(budget, Budget::default());
    }

    #[test]
    fn what_is_given_back_is_free_again_once() {
        let mut budget = Budget::default();
        let both = Limits { per_minute: Some(1), recipients_per_day: Some(10) };
        assert_eq!(budget.take(both, at(0), 10), Ok(()));
        assert!(budget.take(both, at(10), 1).is_err());
        budget.give_back(at(0), 10);
        budget.give_back(at(0), 10);
        assert_eq!(budget, Budget::default());
    }

    #[test]
    fn a_clock_that_was_set_back_by_an_hour_blocks_for_a_minute_at_most() {
        let mut budget = Budget::default();
        for _ in 0..3 {
            assert_eq!(budget.take(LIMITS, at(3_600_000), 1), Ok(()));
        }
        assert_eq!(budget.take(LIMITS, at(0), 1), Ok(()));
    }

    proptest! {
        /// The bound itself: whatever the times of the claims, no 60 seconds see more than the limit, and a wait that was named
        /// is neither too short nor in vain.
        #[test]
        fn no_sixty_seconds_see_more_than_the_limit(steps in proptest::collection::vec(0i64..20_000, 1..200)) {
            let (mut budget, mut now, mut sent) = (Budget::default(), 0, Vec::new());
            for step in steps {
                now += step;
                match budget.take(LIMITS, at(now), 1) {
                    Ok(()) => sent.push(now),
                    Err(wait) => {
                        prop_assert!(wait.until > at(now));
                        prop_assert!(budget.wait(LIMITS, wait.until, 1).is_none());
                    }
                }
            }
            for window in sent.windows(4) {
                prop_assert!(window[3] - window[0] >= 60_000, "{window:?}");
            }
        }
    }
}
