//! What the engine knows of a box that helps to recognise mail whose server gave it another key. The bytes are compared by the store.

use std::collections::HashSet;

use postroom_core::ledger::RemoteKey;
use postroom_transport::{IncomingSession, Result};

/// Every key that the box shows now, asked for in windows of so many. Better none than some: a mail whose key is missing here may pass its row on to its copy.
pub(crate) async fn shown(session: &mut dyn IncomingSession, limit: usize) -> Result<HashSet<RemoteKey>> {
    let mut shown = HashSet::new();
    let mut after: Option<RemoteKey> = None;
    loop {
        let window = session.list(after.as_ref(), limit).await?;
        let is_last = window.len() < limit;
        after = window.last().map(|listed| listed.key.clone());
        shown.extend(window.into_iter().map(|listed| listed.key));
        if is_last {
            return Ok(shown);
        }
    }
}

/// Whether a server gives UIDs again, against RFC 9051 section 2.3.1.1, as after a backup was restored: it says that `uid_next` is the next
/// one, though mail up to `frontier` was there, and shows no mail from there on. Some servers say a UIDNEXT that is too low, or none:
/// what they show, or say, is no sign of that.
pub(crate) async fn is_set_back(
    session: &mut dyn IncomingSession,
    uid_next: Option<u32>,
    frontier: u32,
) -> Result<bool> {
    let Some(last) = uid_next.and_then(|next| next.checked_sub(1)).filter(|last| *last < frontier) else {
        return Ok(false);
    };
    let last = (last > 0).then_some(RemoteKey::Uid(last));
    Ok(session.list(last.as_ref(), 1).await?.is_empty())
}
