//! Calls that share one commit. The first begins a transaction, does its work, and leaves it open for those that waited
//! meanwhile; each works in a savepoint of its own; the first to have its turn again commits for all. Whoever is dropped
//! leaves that to the others, and the last of a group takes an open transaction with it. Who has the turn is decided in `joint`.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::error::Error;

/// A connection on which calls can share a transaction.
pub(super) trait Shared: Send + 'static {
    /// Begins a transaction that may write.
    const BEGIN: &'static str;
    /// Ends it so that what was written is on the medium, or fails.
    const COMMIT: &'static str;

    /// Runs statements without parameters.
    fn say(
        &mut self,
        sql: &'static str,
        stage: &'static str,
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

/// A commit on its way. It belongs to no caller: one that is dropped leaves it to the next, so its outcome is never unknown to
/// a call that still waits for it.
pub(super) type Committing = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How a group ended.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// All that succeeded in it is on the medium.
    Committed,
    /// The database refused the commit, or nobody knows whether it did.
    Failed(Error),
    /// One of its calls took the transaction with it before the commit: nothing of it is there.
    Broken,
}

struct Group {
    outcome: watch::Sender<Option<Outcome>>,
    /// The calls that wait for the outcome; changed under the lock of [`Home`].
    seats: AtomicUsize,
}

/// Where the writing connection is while nobody works with it.
pub(super) struct Home<C>(Mutex<Parked<C>>);

struct Parked<C> {
    connection: Option<C>,
    /// Whose transaction is open on it.
    group: Option<Arc<Group>>,
}

impl<C> Default for Home<C> {
    fn default() -> Self {
        Self(Mutex::new(Parked { connection: None, group: None }))
    }
}

impl<C: Shared> Home<C> {
    /// Takes the connection, which is in no transaction.
    pub(super) fn take(&self) -> Option<C> {
        self.parked().connection.take()
    }

    /// Gives the connection back, in no transaction.
    pub(super) fn park(&self, connection: C) {
        self.parked().connection = Some(connection);
    }

    /// A group with one call.
    pub(super) fn found(home: &Arc<Self>) -> Seat<C> {
        let group = Group { outcome: watch::Sender::new(None), seats: AtomicUsize::new(1) };
        Seat { home: Arc::clone(home), group: Arc::new(group) }
    }

    /// Takes the connection with the transaction that is open on it, and a seat in its group.
    pub(super) fn join(self: &Arc<Self>) -> Option<(C, Seat<C>)> {
        let mut parked = self.parked();
        let group = parked.group.take()?;
        group.seats.fetch_add(1, Ordering::Relaxed);
        let seat = Seat { home: Arc::clone(self), group };
        Some((parked.connection.take()?, seat))
    }

    /// The commit of the transaction that is open.
    pub(super) fn commit(home: &Arc<Self>) -> Option<Committing> {
        let (mut connection, group) = {
            let mut parked = home.parked();
            let group = parked.group.take()?;
            (parked.connection.take()?, group)
        };
        let home = Arc::clone(home);
        Some(Box::pin(async move {
            let outcome = match connection.say(C::COMMIT, "commit").await {
                Ok(()) => {
                    home.park(connection);
                    Outcome::Committed
                }
                Err(error) => Outcome::Failed(error),
            };
            group.outcome.send_replace(Some(outcome));
        }))
    }
}

impl<C> Home<C> {
    fn parked(&self) -> MutexGuard<'_, Parked<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call's place in a group.
pub(super) struct Seat<C> {
    home: Arc<Home<C>>,
    group: Arc<Group>,
}

impl<C> Seat<C> {
    /// Leaves the connection, with the transaction of the group open on it, to whoever has the next turn.
    pub(super) fn leave_open(&self, connection: C) {
        let mut parked = self.home.parked();
        parked.connection = Some(connection);
        parked.group = Some(Arc::clone(&self.group));
    }

    /// Tells the group that its transaction is gone.
    pub(super) fn break_up(&self) {
        self.group.outcome.send_replace(Some(Outcome::Broken));
    }

    /// How the group ended, if it has.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        self.group.outcome.borrow().clone()
    }

    /// Waits until the group has ended.
    pub(super) async fn ended(&self) {
        let mut outcome = self.group.outcome.subscribe();
        // The sender is the group's, which this seat keeps.
        let _ = outcome.wait_for(Option::is_some).await;
    }
}

impl<C> Drop for Seat<C> {
    fn drop(&mut self) {
        let mut parked = self.home.parked();
        let last = self.group.seats.fetch_sub(1, Ordering::Relaxed) == 1;
        if last && parked.group.as_ref().is_some_and(|group| Arc::ptr_eq(group, &self.group)) {
            // Nobody waits for it any more: an open transaction would keep other processes from writing.
            let gone = (parked.connection.take(), parked.group.take());
            drop(parked);
            drop(gone);
        }
    }
}
