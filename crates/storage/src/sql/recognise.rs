//! Which of the mails that have the bytes of a received one is that mail, under the key that it had before. How they are found, each store
//! says: so many at a time, for a box may have 10,000 equal mails.

use std::collections::HashMap;

use postroom_core::id::LedgerId;
use postroom_core::ledger::{Place, RemoteKey};
use postroom_core::time::Timestamp;
use uuid::Uuid;

use super::rows::{big, small, text};
use crate::error::Result;
use crate::ledger::{Received, Recognition, Stored, TWINS};

/// How many equal mails one statement looks at.
pub(super) const PAGE: usize = 500;

/// How many rows at most, as a statement takes it.
pub(super) fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

/// A mail of the same bytes: its id, epoch and key, whether its server was told, and its number.
pub(super) type Same = (Uuid, i64, String, bool, i64);

/// A mail of the same bytes, epoch and arrival, whose server was not told to take it away: its id and key.
pub(super) type Twin = (Uuid, String);

/// Behind which of the equal mails the next page begins: epoch and number.
pub(super) type Behind = (i64, i64);

/// How far the equal mails were looked at in one transaction: those before are none of the mails that follow in it either.
#[derive(Default)]
pub(super) struct Passed<'a>(HashMap<(&'a Place, [u8; 32], u64), Behind>);

impl<'a> Passed<'a> {
    /// The search for the mail that this one is, from where it has come to; the first time from before all.
    pub(super) fn search(&mut self, mail: &'a Received) -> Search<'a, '_> {
        let behind = self.0.entry((&mail.place, mail.sha256, mail.size)).or_insert((-1, 0));
        Search { mail, behind, is_over: mail.recognition == Recognition::None, found: Found::Nothing }
    }
}

/// A search, page by page.
pub(super) struct Search<'a, 'p> {
    mail: &'a Received,
    behind: &'p mut Behind,
    is_over: bool,
    found: Found,
}

/// What a search finds.
pub(super) enum Found {
    Nothing,
    /// The mail that it is, and what the timeline says of it.
    Known(LedgerId, String),
    /// Which it is the box must say.
    Undecided(Stored),
}

impl Search<'_, '_> {
    /// Behind which of the equal mails at most [`PAGE`] are to be looked at; none when there is nothing more to look for.
    pub(super) fn next(&self) -> Option<Behind> {
        (!self.is_over).then_some(*self.behind)
    }

    /// Looks at such a page.
    pub(super) fn look(&mut self, page: &[Same]) -> Result<()> {
        for (id, epoch, key, is_settled, number) in page {
            *self.behind = (*epoch, *number);
            if self.mail.is_known_as(small(*epoch)?, &text(key)?, *is_settled) {
                self.found = self.known(*id, key, *epoch);
                break;
            }
        }
        self.is_over = !matches!(self.found, Found::Nothing) || page.len() < PAGE;
        Ok(())
    }

    /// When it arrived, if its twins are to be looked at: it is none of another epoch.
    pub(super) fn arrived(&self) -> Option<Timestamp> {
        let asks = matches!(self.mail.recognition, Recognition::OtherEpoch | Recognition::Gone(_));
        self.mail.arrived.filter(|_| asks && matches!(self.found, Found::Nothing))
    }

    /// Looks at its twins.
    pub(super) fn compare(&mut self, twins: &[Twin]) -> Result<()> {
        let keys = twins.iter().take(TWINS).map(|(_, key)| text(key)).collect::<Result<Vec<RemoteKey>>>()?;
        self.found = match &self.mail.recognition {
            Recognition::Gone(gone) => match keys.iter().zip(twins).find(|(key, _)| gone.contains(key)) {
                Some((_, (id, key))) => self.known(*id, key, big(self.mail.place.epoch)),
                None => Found::Nothing,
            },
            _ if keys.is_empty() => Found::Nothing,
            _ => Found::Undecided(Stored::Undecided(keys)),
        };
        Ok(())
    }

    fn known(&self, id: Uuid, key: &str, epoch: i64) -> Found {
        let mail = self.mail;
        let detail = format!("{key} of {epoch} is {} of {}", mail.key, mail.place.epoch);
        Found::Known(LedgerId::from_uuid(id), detail)
    }

    pub(super) fn found(self) -> Found {
        self.found
    }
}
