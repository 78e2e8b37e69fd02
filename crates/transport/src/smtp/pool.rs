//! Where sessions wait between two lanes of the same mailbox and revision. It opens nothing and spawns nothing: what is too
//! old goes when somebody next comes by, or asks for it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postroom_core::id::{MailboxId, Revision};
use tokio::time::Instant;

use crate::smtp::session::Session;

/// How long a session may wait. Servers give up after 5 min (RFC 5321 section 4.5.3.2.7).
const IDLE: Duration = Duration::from_secs(60);

/// How many sessions may wait in all, and for one mailbox.
const MOST: (usize, usize) = (64, 4);

#[derive(Debug, Default)]
pub(super) struct Pool {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    parked: Vec<Parked>,
    /// How often sessions were taken away. Who began before the last time parks nothing.
    clearings: u64,
}

#[derive(Debug)]
struct Parked {
    mailbox: MailboxId,
    revision: Revision,
    since: Instant,
    session: Session,
}

/// The right to park what is connected from now on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Permit(u64);

impl Pool {
    pub(super) fn permit(&self) -> Permit {
        Permit(self.lock().clearings)
    }

    /// The session of this mailbox and revision that waits the shortest. Those of the mailbox's other revisions are closed: they
    /// would count with the server beside those that are opened now.
    pub(super) fn take(&self, mailbox: MailboxId, revision: Revision) -> Option<Session> {
        let mut inner = self.lock();
        inner.sweep();
        inner.parked.retain(|one| one.mailbox != mailbox || one.revision == revision);
        let at = inner.parked.iter().rposition(|one| one.mailbox == mailbox && one.revision == revision)?;
        Some(inner.parked.remove(at).session)
    }

    /// Lets a session wait; the one that waits longest makes room. It is given back when it may not wait.
    pub(super) fn park(
        &self,
        permit: Permit,
        mailbox: MailboxId,
        revision: Revision,
        mut session: Session,
    ) -> Option<Session> {
        let mut inner = self.lock();
        inner.sweep();
        // Probes of unsaved settings have no mailbox of their own.
        if permit.0 != inner.clearings || mailbox.number() == 0 || session.is_aged() {
            return Some(session);
        }
        let is_own = |one: &Parked| one.mailbox == mailbox;
        let too_many_own = inner.parked.iter().filter(|one| is_own(one)).count() >= MOST.1;
        let displaced = match too_many_own {
            true => inner.parked.iter().position(is_own),
            false => (inner.parked.len() >= MOST.0).then_some(0),
        };
        let out = displaced.map(|at| inner.parked.remove(at).session);
        session.rest();
        inner.parked.push(Parked { mailbox, revision, since: Instant::now(), session });
        out
    }

    /// Takes away what waits, of one mailbox or of all.
    pub(super) fn clear(&self, mailbox: Option<MailboxId>) -> Vec<Session> {
        let mut inner = self.lock();
        inner.clearings += 1;
        let parked = std::mem::take(&mut inner.parked);
        let (out, kept): (Vec<_>, Vec<_>) =
            parked.into_iter().partition(|one| mailbox.is_none_or(|mailbox| one.mailbox == mailbox));
        inner.parked = kept;
        out.into_iter().map(|one| one.session).collect()
    }

    /// Takes away what has waited, or lived, for too long.
    pub(super) fn take_idle(&self) -> Vec<Session> {
        self.lock().parked.extract_if(.., |one| one.is_idle()).map(|one| one.session).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parked {
    /// Whether it has waited, or lived, for too long.
    fn is_idle(&self) -> bool {
        self.since.elapsed() >= IDLE || self.session.is_aged()
    }
}

impl Inner {
    fn sweep(&mut self) {
        self.parked.retain(|one| !one.is_idle());
    }
}
