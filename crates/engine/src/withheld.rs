//! Mails that their server does not give: refused, or the session ended over them. They are asked for last, each alone and ever more rarely,
//! so the others come. Each process finds out anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postroom_core::id::MailboxId;
use postroom_core::ledger::{Place, RemoteKey};
use postroom_core::time::Timestamp;

/// How many of one inbox are kept in mind. A server that gives fewer is in trouble itself.
const MOST: usize = 1000;

/// The second time it is asked for at the next look, then after so long, and twice as long each time.
const REST: Duration = Duration::from_secs(60);
const LONGEST_REST: Duration = Duration::from_secs(4 * 60 * 60);

/// How often its trouble is told.
const TELL: Duration = Duration::from_secs(60 * 60);

#[derive(Debug)]
struct Trouble {
    tries: u32,
    next_at: Timestamp,
    told_at: Timestamp,
    /// Why, as it was said last.
    error: String,
}

#[derive(Debug)]
struct Memory {
    place: Place,
    mails: BTreeMap<RemoteKey, Trouble>,
    /// Whether a session ended over one of several mails, and it is not known over which.
    is_one_by_one: bool,
}

/// What follows for a mail that was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is asked for again later; the trouble was told lately.
    Later,
    /// The same, and it is to be told.
    Tell,
    /// Too many are not given: it is no trouble of single mails.
    TooMany,
}

/// The mails that servers do not give, by inbox.
#[derive(Debug, Default)]
pub(crate) struct Withheld(Mutex<BTreeMap<MailboxId, Memory>>);

impl Withheld {
    fn boxes(&self) -> MutexGuard<'_, BTreeMap<MailboxId, Memory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is so of what is kept in mind. Asked for every mail, almost always of nothing.
    fn is(&self, place: &Place, so: impl FnOnce(&Memory) -> bool) -> bool {
        self.boxes().get(&place.mailbox).is_some_and(|one| one.place == *place && so(one))
    }

    fn change<R>(&self, place: &Place, change: impl FnOnce(&mut Memory) -> R) -> R {
        let mut boxes = self.boxes();
        let fresh = || Memory { place: place.clone(), mails: BTreeMap::new(), is_one_by_one: false };
        let one = boxes.entry(place.mailbox).or_insert_with(fresh);
        if one.place != *place {
            *one = fresh();
        }
        let answer = change(one);
        // Almost all inboxes have none.
        if one.mails.is_empty() && !one.is_one_by_one {
            boxes.remove(&place.mailbox);
        }
        answer
    }

    pub(crate) fn has(&self, place: &Place, key: &RemoteKey) -> bool {
        self.is(place, |one| one.mails.contains_key(key))
    }

    pub(crate) fn is_due(&self, place: &Place, key: &RemoteKey, now: Timestamp) -> bool {
        !self.is(place, |one| one.mails.get(key).is_some_and(|trouble| now < trouble.next_at))
    }

    /// The server did not give it.
    pub(crate) fn refused(&self, place: &Place, key: &RemoteKey, error: &str, now: Timestamp) -> Verdict {
        self.change(place, |one| {
            if one.mails.len() >= MOST && !one.mails.contains_key(key) {
                return Verdict::TooMany;
            }
            let fresh = Trouble { tries: 0, next_at: now, told_at: Timestamp::EPOCH, error: String::new() };
            let trouble = one.mails.entry(key.clone()).or_insert(fresh);
            error.clone_into(&mut trouble.error);
            trouble.tries += 1;
            let doubled = |tries: u32| REST.saturating_mul(1 << (tries - 2).min(10)).min(LONGEST_REST);
            trouble.next_at = if trouble.tries < 2 { now } else { now + doubled(trouble.tries) };
            // The first time it may be the way to the server.
            if trouble.tries < 2 || now < trouble.told_at + TELL {
                return Verdict::Later;
            }
            trouble.told_at = now;
            Verdict::Tell
        })
    }

    /// What the health of an inbox says of them: the first one that was asked for more than once, and why it was not given.
    pub(crate) fn trouble(&self, mailbox: MailboxId) -> Option<String> {
        let boxes = self.boxes();
        let mut mails = boxes.get(&mailbox)?.mails.iter();
        let (key, trouble) = mails.find(|(_, trouble)| trouble.tries > 1)?;
        Some(format!("mail {key} is not given: {}", trouble.error))
    }

    /// It came, or is gone.
    pub(crate) fn forget(&self, place: &Place, key: &RemoteKey) {
        self.change(place, |one| one.mails.remove(key));
    }

    /// A session ended over one of several mails: which one shows when each is asked for by itself.
    pub(crate) fn ask_one_by_one(&self, place: &Place) {
        self.change(place, |one| one.is_one_by_one = true);
    }

    pub(crate) fn is_one_by_one(&self, place: &Place) -> bool {
        self.is(place, |one| one.is_one_by_one)
    }

    /// A whole pass has shown these, and no session ended over an unknown one.
    pub(crate) fn passed(&self, place: &Place, shown: &BTreeSet<RemoteKey>) {
        self.change(place, |one| {
            one.is_one_by_one = false;
            one.mails.retain(|key, _| shown.contains(key));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Would miss a mail whose session ends each time it is asked for, and that is asked for all the time; and a log that is full of it.
    #[test]
    fn what_is_not_given_is_asked_for_ever_more_rarely_and_told_once_an_hour() {
        let withheld = Withheld::default();
        let place = Place { mailbox: MailboxId::new(1), folder: String::new(), epoch: 0 };
        let key = RemoteKey::Uid(1);
        let at = |minutes: u64| Timestamp::EPOCH + Duration::from_secs(60 * (minutes + 1000));
        for (asked, verdict, due) in [
            (0, Verdict::Later, 0),
            (0, Verdict::Tell, 1),
            (1, Verdict::Later, 3),
            (3, Verdict::Later, 7),
            (60, Verdict::Tell, 68),
        ] {
            assert_eq!(withheld.refused(&place, &key, "no", at(asked)), verdict, "{asked}");
            assert!(withheld.is_due(&place, &key, at(due)), "{due}");
            assert!(due == 0 || !withheld.is_due(&place, &key, at(due - 1)), "{due}");
        }
        withheld.passed(&place, &BTreeSet::from([key.clone()]));
        assert!(withheld.has(&place, &key));
        withheld.passed(&place, &BTreeSet::new());
        assert!(!withheld.has(&place, &key), "it is not shown any more");
    }

    /// Would miss a memory without a bound.
    #[test]
    fn a_server_that_gives_a_thousand_mails_not_is_in_trouble_itself() {
        let withheld = Withheld::default();
        let place = Place { mailbox: MailboxId::new(1), folder: String::new(), epoch: 0 };
        let now = Timestamp::EPOCH + REST;
        let refused = |uid| withheld.refused(&place, &RemoteKey::Uid(uid), "no", now);
        assert!((1..=1000).all(|uid| refused(uid) != Verdict::TooMany));
        assert_eq!(refused(1001), Verdict::TooMany);
        assert_ne!(refused(1), Verdict::TooMany);
    }
}
