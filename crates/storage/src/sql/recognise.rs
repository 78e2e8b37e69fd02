//! Which of the mails that have the bytes of a received one is that mail, under the key that it had before. How they are found, each store
//! says: so many at a time, for a box may have 10,000 equal mails.

use std::collections::HashMap;

use postroom_core::id::LedgerId;
use postroom_core::ledger::Place;
use uuid::Uuid;

use super::rows::{small, text};
use crate::error::Result;
use crate::ledger::Received;

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
    /// Where the search for a mail goes on; the first time before all.
    pub(super) fn behind(&mut self, mail: &'a Received) -> &mut Behind {
        self.0.entry((&mail.place, mail.sha256, mail.size)).or_insert((-1, 0))
    }
}

/// What the timeline says of a mail that is recognised, and the mail; none when it is none of the page.
pub(super) fn renumbered(
    mail: &Received,
    page: &[Same],
    behind: &mut Behind,
) -> Result<Option<(LedgerId, String)>> {
    for (id, epoch, key, is_settled, number) in page {
        *behind = (*epoch, *number);
        if mail.is_known_as(small(*epoch)?, &text(key)?, *is_settled) {
            let detail = format!("{key} of {epoch} is {} of {}", mail.key, mail.place.epoch);
            return Ok(Some((LedgerId::from_uuid(*id), detail)));
        }
    }
    Ok(None)
}
