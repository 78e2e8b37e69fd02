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
