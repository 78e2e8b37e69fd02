//! Which of the mails that have the bytes of a received one is that mail, under the key that it had before. How they are found, each store
//! says: so many at a time, for a box may have 10,000 equal mails.

use std::collections::HashMap;

use postroom_core::id::LedgerId;
use postroom_core::ledger::Place;
use uuid::Uuid;

use super::rows::{small, text};
use crate::error::Result;
use crate::ledger::{Received, Recognition};

/// How many equal mails one statement looks at.
pub(super) const PAGE: usize = 500;

/// A mail of the same bytes: its id, epoch and key, whether its server was told, and its number.
pub(super) type Same = (Uuid, i64, String, bool, i64);

/// Behind which of the equal mails the next page begins: epoch and number.
pub(super) type Behind = (i64, i64);

/// How far the equal mails were looked at in one transaction: those before are none of the mails that follow in it either.
#[derive(Default)]
pub(super) struct Passed<'a>(HashMap<(&'a Place, [u8; 32], u64), Behind>);

impl<'a> Passed<'a> {
    /// The search for the mail that this one is, from where it has come to; the first time from before all.
    pub(super) fn search(&mut self, mail: &'a Received) -> Search<'a, '_> {
        let behind = self.0.entry((&mail.place, mail.sha256, mail.size)).or_insert((-1, 0));
        Search { mail, behind, is_over: mail.recognition == Recognition::None, found: None }
    }
}

/// A search, page by page.
pub(super) struct Search<'a, 'p> {
    mail: &'a Received,
    behind: &'p mut Behind,
    is_over: bool,
    /// The mail that it is, and what the timeline says of it.
    pub(super) found: Option<(LedgerId, String)>,
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
            let mail = self.mail;
            if mail.is_known_as(small(*epoch)?, &text(key)?, *is_settled) {
                let detail = format!("{key} of {epoch} is {} of {}", mail.key, mail.place.epoch);
                self.found = Some((LedgerId::from_uuid(*id), detail));
                break;
            }
        }
        self.is_over = self.found.is_some() || page.len() < PAGE;
        Ok(())
    }
}
