//! What the engine knows of a box that helps to recognise mail whose server gave it another key. The bytes are compared by the store.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use postroom_core::ledger::RemoteKey;
use postroom_storage::{Received, Recognition, Stored};
use postroom_transport::{IncomingSession, Result};

/// So many mails wait until the box was asked for their twins; the others are read once more.
const WAITING: usize = 100;

/// How many mails one question looks at: the one that is asked for is the first of them, or is not there.
const NEAR: usize = 16;

/// Mails that are not stored yet: which they are the box must say.
#[derive(Default)]
pub(crate) struct Undecided {
    mails: Vec<Received>,
    twins: BTreeSet<RemoteKey>,
}

impl Undecided {
    pub(crate) fn is_empty(&self) -> bool {
        self.mails.is_empty()
    }

    /// Keeps a mail, if that is what became of it.
    pub(crate) fn add(&mut self, mail: Received, stored: Stored) {
        if let Stored::Undecided(twins) = stored
            && self.mails.len() < WAITING
        {
            self.mails.push(mail);
            self.twins.extend(twins);
        }
    }

    pub(crate) fn extend(&mut self, more: Self) {
        let room = WAITING - self.mails.len();
        self.mails.extend(more.mails.into_iter().take(room));
        self.twins.extend(more.twins);
    }

    /// Asks the box for the twins; gives the mails as they can be stored. Where the box does not answer, nothing is decided.
    pub(crate) async fn ask(self, session: &mut dyn IncomingSession) -> Result<Vec<Received>> {
        let mut gone = HashSet::new();
        for key in self.twins {
            let RemoteKey::Uid(uid) = key else { continue };
            let before = (uid > 1).then(|| RemoteKey::Uid(uid - 1));
            let found = session.list(before.as_ref(), NEAR).await?;
            if found.iter().all(|listed| listed.key != key) {
                gone.insert(key);
            }
        }
        let gone = Arc::new(gone);
        let decided = |mail| Received { recognition: Recognition::Gone(gone.clone()), ..mail };
        Ok(self.mails.into_iter().map(decided).collect())
    }
}

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
