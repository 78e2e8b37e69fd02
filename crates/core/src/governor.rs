//! How many connections an outbox gets: fewer when its server says that they are too many, step by step more when it goes
//! well, never more than are registered, and so many that other outboxes find one free. And how long a mailbox rests that fails.

use std::time::Duration;

use crate::time::Timestamp;

/// One more connection is tried when it went well for so long.
pub const RAISE: Duration = Duration::from_secs(60);

/// Within so long after a cut no further one is made: the other connections of that time hear the same.
pub const SETTLE: Duration = Duration::from_secs(10);

/// How long a mailbox rests after its first failure, at most; doubled with each further one.
pub const FIRST_REST: Duration = Duration::from_secs(5);

/// How long a mailbox rests at most.
pub const LONGEST_REST: Duration = Duration::from_secs(15 * 60);

/// What a server that limits means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the two things that can be limited")]
pub enum Limited {
    /// It took no further connection while others were open.
    Connections,
    /// It took no further mail, or not this often.
    Mail,
}

/// What follows from a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the two ways to go on")]
pub enum Consequence {
    /// The other connections go on.
    GoOn,
    /// The outbox rests.
    Rest,
}

/// What one process has learned of one outbox. It begins with all connections that are registered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Governor {
    /// Learned; none for as many as are registered.
    most: Option<u32>,
    /// When it was changed last.
    changed: Option<Timestamp>,
    /// When it was cut last.
    cut: Option<Timestamp>,
}

impl Governor {
    /// One that has learned nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many connections the outbox may have at once; `registered` is never exceeded.
    #[must_use]
    pub fn connections(&self, registered: u32) -> u32 {
        self.most.map_or(registered, |most| most.min(registered))
    }

    /// The server limits; `open` connections were there, the one that heard it included. Half of them stay, at least one.
    pub fn limited(&mut self, now: Timestamp, limited: Limited, open: u32) -> Consequence {
        if self.cut.is_none_or(|cut| now.since(cut) >= SETTLE) {
            let open = self.most.map_or(open, |most| most.min(open));
            self.most = Some((open / 2).max(1));
            (self.changed, self.cut) = (Some(now), Some(now));
        }
        match limited {
            Limited::Connections if open > 1 => Consequence::GoOn,
            _ => Consequence::Rest,
        }
    }

    /// The server took a mail. After [`RAISE`] without a cut or a step, one connection more is tried, up to `registered`.
    pub fn succeeded(&mut self, now: Timestamp, registered: u32) {
        let Some(most) = self.most else { return };
        if self.changed.is_some_and(|changed| now.since(changed) < RAISE) {
            return;
        }
        self.changed = Some(now);
        self.most = Some(most.saturating_add(1)).filter(|most| *most < registered);
    }
}

/// Whether an outbox that has `own` connections of `most` may open one more while `free` are left for all outboxes. The first is
/// always granted; a further one only while at least as many are free as it has. So no outbox has much more than half,
/// and one that comes later finds something.
#[must_use]
pub fn may_open(own: usize, most: usize, free: usize) -> bool {
    free > 0 && own < most && own <= free
}

/// How long a mailbox rests that failed `failures` times in a row before: doubled each time, half of it by `seed`, so that what
/// failed together does not come back together. What the server asked for is added to by a fifth at most, and never undercut.
#[must_use]
pub fn rest(failures: u32, asked: Option<Duration>, seed: u64) -> Duration {
    let span = FIRST_REST.saturating_mul(2_u32.saturating_pow(failures.min(16))).min(LONGEST_REST);
    let own = span / 2 + part(span / 2, seed);
    let asked = asked.map_or(Duration::ZERO, |asked| asked + part(asked / 5, seed));
    own.max(asked)
}

/// Between nothing and `span`, by `seed`.
fn part(span: Duration, seed: u64) -> Duration {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(seed % millis.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000) + Duration::from_secs(seconds)
    }

    #[test]
    fn connections_halve_once_for_what_was_open_and_come_back_one_by_one() {
        let mut governor = Governor::new();
        assert_eq!(governor.connections(10), 10);
        assert_eq!(governor.limited(at(0), Limited::Connections, 9), Consequence::GoOn);
        assert_eq!(governor.connections(10), 4);
        // The other connections of that moment hear the same: would miss a fall to one.
        assert_eq!(governor.limited(at(1), Limited::Connections, 8), Consequence::GoOn);
        assert_eq!(governor.connections(10), 4);
        assert_eq!(governor.limited(at(20), Limited::Mail, 4), Consequence::Rest);
        assert_eq!(governor.connections(10), 2);
        let mut seen = Vec::new();
        for second in 20..600 {
            governor.succeeded(at(second), 10);
            seen.push(governor.connections(10));
        }
        assert_eq!((seen[59], seen[60], seen[120]), (2, 3, 4), "one more a minute");
        assert!(seen.windows(2).all(|pair| pair[1] == pair[0] || pair[1] == pair[0] + 1));
        assert_eq!(seen.last(), Some(&10));
        assert_eq!(governor.most, None);
    }

    #[test]
    fn one_connection_more_that_is_too_many_is_cut_at_once() {
        let mut governor = Governor::new();
        governor.limited(at(0), Limited::Connections, 4);
        governor.succeeded(at(60), 8);
        assert_eq!(governor.connections(8), 3);
        // Would miss a step that counts as a cut: a new connection would be refused each second for as long as it settles.
        governor.limited(at(61), Limited::Connections, 3);
        assert_eq!(governor.connections(8), 1);
    }

    #[test]
    fn the_only_connection_rests_and_stays_one() {
        let mut governor = Governor::new();
        assert_eq!(governor.limited(at(0), Limited::Connections, 1), Consequence::Rest);
        assert_eq!(governor.connections(5), 1);
    }

    #[test]
    fn one_greedy_outbox_leaves_half_and_many_leave_something_for_one_that_comes_later() {
        // All at once, one lane after the other.
        let fill = |outboxes: usize, most: usize| {
            let mut own = vec![0; outboxes];
            loop {
                let before = own.clone();
                for at in 0..outboxes {
                    let free = 64 - own.iter().sum::<usize>();
                    own[at] += usize::from(may_open(own[at], most, free));
                }
                if own == before {
                    return own;
                }
            }
        };
        assert_eq!(fill(1, 100), [33]);
        assert_eq!(fill(1, 5), [5]);
        for outboxes in 2..=16 {
            let own = fill(outboxes, 100);
            let (least, most) = (own.iter().min().expect("some"), own.iter().max().expect("some"));
            assert!(*least > 0 && most - least <= 1 && own.iter().sum::<usize>() < 64, "{own:?}");
        }
        assert!(!may_open(0, 5, 0) && !may_open(5, 5, 60));
    }

    #[test]
    fn a_rest_doubles_up_to_a_quarter_of_an_hour_and_half_of_it_is_by_chance() {
        let range = |failures| (rest(failures, None, 0).as_millis(), rest(failures, None, 2500).as_millis());
        assert_eq!(range(0), (2500, 5000));
        let shortest: Vec<u64> =
            [1, 2, 7, 8, u32::MAX].into_iter().map(|n| rest(n, None, 0).as_secs()).collect();
        assert_eq!(shortest, [5, 10, 320, 450, 450]);
        assert_eq!(rest(0, Some(Duration::from_secs(600)), 0), Duration::from_secs(600));
    }

    proptest! {
        #[test]
        fn a_governor_stays_between_one_and_what_is_registered(
            acts in proptest::collection::vec((any::<bool>(), 0u64..100, 1u32..20), 0..100), registered in 1u32..20,
        ) {
            let (mut governor, mut now) = (Governor::new(), 0);
            for (good, wait, open) in acts {
                now += wait;
                if good { governor.succeeded(at(now), registered) } else {
                    governor.limited(at(now), Limited::Connections, open.min(registered));
                }
                prop_assert!((1..=registered).contains(&governor.connections(registered)));
            }
        }

        #[test]
        fn a_rest_is_never_longer_than_it_may_be_nor_shorter_than_asked(n: u32, asked in proptest::option::of(0u64..90_000), seed: u64) {
            let asked = asked.map(Duration::from_secs);
            let rest = rest(n, asked, seed);
            prop_assert!(rest >= FIRST_REST / 2 && rest >= asked.unwrap_or_default());
            prop_assert!(rest <= LONGEST_REST.max(asked.unwrap_or_default() * 6 / 5));
        }
    }
}
