//! The right to write on a connection, one call after the other, and calls that share a commit there. What a group is and where
//! its connection waits is in `group`; how a connection is opened is the database's room.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};

use super::group::{Committing, Home, Outcome, Seat, Shared};
use crate::error::{Error, Result};

/// The right to write. It holds the commit that is on its way, also when whoever began it was dropped.
pub(super) type Turn<'a> = MutexGuard<'a, Option<Committing>>;

/// One writing connection. Writers come one after the other, in the order in which they asked.
pub(super) struct Writer<C> {
    turns: Mutex<Option<Committing>>,
    home: Arc<Home<C>>,
}

impl<C> Default for Writer<C> {
    fn default() -> Self {
        Self { turns: Mutex::new(None), home: Arc::default() }
    }
}

impl<C: Shared> Writer<C> {
    /// Waits for the right to write.
    pub(super) async fn turn(&self) -> Turn<'_> {
        let mut turn = self.turns.lock().await;
        drive(&mut turn).await;
        turn
    }

    /// Commits the transaction that others have left open for whoever comes.
    pub(super) async fn commit_open(&self, turn: &mut Turn<'_>) {
        **turn = Home::commit(&self.home);
        drive(turn).await;
    }

    /// Takes the connection, which is in no transaction; none when there is none yet.
    pub(super) fn take(&self) -> Option<C> {
        self.home.take()
    }

    /// Gives the connection back, in no transaction.
    pub(super) fn park(&self, connection: C) {
        self.home.park(connection);
    }

    /// Begins a call that may share its commit with others that come at the same time, on a connection that `open` opens when
    /// there is none. It has to be begun again for as long as [`Joint::finish`] gives nothing.
    ///
    /// Cancel safe: a dropped future or call leaves all of it or nothing.
    pub(super) async fn join<'a>(
        &'a self,
        turn: Turn<'a>,
        stage: &'static str,
        open: impl Future<Output = Result<C>> + Send,
    ) -> Result<Joint<'a, C>> {
        let (connection, seat, begin) = match self.home.join() {
            Some((connection, seat)) => (connection, seat, Begin::Savepoint),
            None => {
                let connection = match self.home.take() {
                    Some(connection) => connection,
                    None => open.await?,
                };
                (connection, Home::found(&self.home), Begin::Transaction)
            }
        };
        let mut joint =
            Joint { connection: Some(connection), seat, begin, writer: self, stage, turn: Some(turn) };
        let sql = match begin {
            Begin::Transaction => C::BEGIN,
            Begin::Savepoint => "SAVEPOINT postroom_call",
        };
        joint.say(sql, stage).await?;
        Ok(joint)
    }

    /// What became of a group. Each of its calls waits here for its turn as well, behind those that waited already: these
    /// have joined when the first of the group has its turn again, and commits.
    async fn outcome(&self, seat: &Seat<C>) -> Outcome {
        tokio::select! {
            biased;
            () = seat.ended() => {}
            mut turn = self.turn() => {
                if seat.outcome().is_none() {
                    self.commit_open(&mut turn).await;
                }
            }
        }
        seat.outcome().expect("a group that is not open any more has ended")
    }
}

/// Sees a commit through that was begun, by whomever.
async fn drive(turn: &mut Turn<'_>) {
    if let Some(committing) = turn.as_mut() {
        committing.await;
        **turn = None;
    }
}

/// How a call of a group begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// It is the first.
    Transaction,
    /// In the transaction of others, which its failure leaves as it was.
    Savepoint,
}

/// A call that shares its commit. Dropped before [`Joint::finish`] it takes the connection with it; the others of its group
/// begin again.
pub(super) struct Joint<'a, C> {
    connection: Option<C>,
    seat: Seat<C>,
    begin: Begin,
    writer: &'a Writer<C>,
    stage: &'static str,
    turn: Option<Turn<'a>>,
}

impl<C: Shared> Joint<'_, C> {
    /// Waits until what succeeded is committed; what failed is undone and leaves the others as they are. Gives nothing when
    /// another call of the group took the transaction with it: this call has then changed nothing, and is to begin again.
    pub(super) async fn finish<T>(mut self, result: Result<T>) -> Option<Result<T>> {
        let stage = self.stage;
        let alone = self.begin == Begin::Transaction && result.is_err();
        let end = match (self.begin, &result) {
            (Begin::Transaction, Ok(_)) => None,
            (Begin::Transaction, Err(_)) => Some("ROLLBACK"),
            (Begin::Savepoint, Ok(_)) => Some("RELEASE postroom_call"),
            (Begin::Savepoint, Err(_)) => Some("ROLLBACK TO postroom_call; RELEASE postroom_call"),
        };
        if let Some(end) = end
            && let Err(error) = self.say(end, stage).await
        {
            // The transaction is gone: the group breaks when this call is dropped here.
            return Some(result.and(Err(error)));
        }
        let connection = self.connection.take()?;
        if alone {
            self.writer.park(connection);
            return Some(result);
        }
        self.seat.leave_open(connection);
        self.turn = None;
        match self.writer.outcome(&self.seat).await {
            Outcome::Committed => Some(result),
            Outcome::Failed(error) => {
                Some(result.and(Err(Error::new(error.kind().clone(), stage).with_source(error))))
            }
            Outcome::Broken => None,
        }
    }
}

impl<C> Drop for Joint<'_, C> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            // The database rolls back when the connection closes; whoever begins again waits for that.
            drop(connection);
            self.seat.break_up();
        }
    }
}

impl<C> Deref for Joint<'_, C> {
    type Target = C;

    fn deref(&self) -> &C {
        self.connection.as_ref().expect("only `finish`, which consumes the guard, takes its connection")
    }
}

impl<C> DerefMut for Joint<'_, C> {
    fn deref_mut(&mut self) -> &mut C {
        self.connection.as_mut().expect("only `finish`, which consumes the guard, takes its connection")
    }
}
