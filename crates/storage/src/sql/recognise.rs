//! Which of the mails that have the bytes of a received one is that mail, under the key that it had before. How they are found, each store
//! says.

use postroom_core::id::LedgerId;
use uuid::Uuid;

use super::rows::text;
use crate::ledger::Received;

/// A mail of the same bytes: its id, epoch and key.
pub(super) type Same = (Uuid, i64, String);

/// The first of them that the box does not show besides, and what its timeline says of it; none when the mail is another one.
pub(super) fn renumbered(mail: &Received, same: Vec<Same>) -> Option<(LedgerId, String)> {
    let is_shown =
        |key: &str| mail.shown.as_ref().is_some_and(|shown| text(key).is_ok_and(|key| shown.contains(&key)));
    let (id, epoch, key) = same.into_iter().find(|(_, _, key)| !is_shown(key))?;
    Some((LedgerId::from_uuid(id), format!("{key} of {epoch} is {} of {}", mail.key, mail.place.epoch)))
}
