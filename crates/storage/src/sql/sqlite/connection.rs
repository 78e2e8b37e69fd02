//! The connections to one file: one that writes, a few that read. A transaction whose future is dropped takes its
//! connection with it, so nothing half done is ever found by whoever comes next. How calls share a commit is in the file
//! `group`. No table is known here.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{MutexGuard, Semaphore, SemaphorePermit};

pub(super) use super::failed::failed;
use super::failed::unavailable;
use super::group::{Committing, Home, Outcome, Seat};
use crate::error::{Error, Result};

/// The right to write. It holds the commit that is on its way, also when whoever began it was dropped.
type Turn<'a> = MutexGuard<'a, Option<Committing>>;

/// The connections of one store.
///
/// This is no `sqlx::Pool`: a pool spawns tasks behind the host, and sqlx 0.9 counts the depth of a transaction apart from
/// SQLite, which rolls back by itself when the disk is full; such a connection would refuse every later `BEGIN`.
pub(super) struct Connections {
    options: SqliteConnectOptions,
    /// Writers come one after the other, in the order in which they asked.
    turns: tokio::sync::Mutex<Option<Committing>>,
    home: Arc<Home>,
    readers: Mutex<Vec<SqliteConnection>>,
    permits: Semaphore,
    closed: AtomicBool,
}

impl Connections {
    /// The connections to `options`, at most `readers` of them for reading. Each is opened when it is first needed.
    pub(super) fn new(options: SqliteConnectOptions, readers: usize) -> Self {
        Self {
            options,
            turns: tokio::sync::Mutex::new(None),
            home: Arc::default(),
            readers: Mutex::default(),
            permits: Semaphore::new(readers.max(1)),
            closed: AtomicBool::new(false),
        }
    }

    /// The file that they are to.
    pub(super) fn file(&self) -> &Path {
        self.options.get_filename()
    }

    /// Begins a transaction of its own, the one that may write; others wait for their turn.
    ///
    /// Cancel safe: a dropped future or transaction leaves nothing behind.
    pub(super) async fn write(&self, stage: &'static str) -> Result<Write<'_>> {
        let mut turn = self.turn().await;
        self.check_open(stage)?;
        self.commit_open(&mut turn).await;
        let mut connection = self.writer(stage).await?;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await.map_err(failed(stage))?;
        Ok(Write { connection: Some(connection), home: &self.home, stage, _turn: turn })
    }

    /// Begins a call that may share its commit with others that come at the same time. It has to be begun again for as
    /// long as [`Joint::finish`] gives nothing.
    ///
    /// Cancel safe: a dropped future or call leaves all of it or nothing.
    pub(super) async fn join(&self, stage: &'static str) -> Result<Joint<'_>> {
        let turn = self.turn().await;
        self.check_open(stage)?;
        let (connection, seat, begin) = match self.home.join() {
            Some((connection, seat)) => (connection, seat, Begin::Savepoint),
            None => (self.writer(stage).await?, Home::found(&self.home), Begin::Transaction),
        };
        let mut joint =
            Joint { connection: Some(connection), seat, begin, connections: self, stage, turn: Some(turn) };
        let sql = match begin {
            Begin::Transaction => "BEGIN IMMEDIATE",
            Begin::Savepoint => "SAVEPOINT postroom_call",
        };
        sqlx::query(sql).execute(&mut *joint).await.map_err(failed(stage))?;
        Ok(joint)
    }

    /// Waits for the right to write.
    async fn turn(&self) -> Turn<'_> {
        let mut turn = self.turns.lock().await;
        drive(&mut turn).await;
        turn
    }

    /// Commits the transaction that others have left open for whoever comes.
    async fn commit_open(&self, turn: &mut Turn<'_>) {
        **turn = Home::commit(&self.home);
        drive(turn).await;
    }

    /// The connection that writes, between two transactions.
    async fn writer(&self, stage: &'static str) -> Result<SqliteConnection> {
        match self.home.take() {
            Some(connection) => Ok(connection),
            None => self.options.connect().await.map_err(failed(stage)),
        }
    }

    /// What became of a group. Each of its calls waits here for its turn as well, behind those that waited already: these
    /// have joined when the first of the group has its turn again, and commits.
    async fn outcome(&self, seat: &Seat) -> Outcome {
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

    /// A connection for one statement that reads.
    pub(super) async fn read(&self, stage: &'static str) -> Result<Read<'_>> {
        let permit = self.permits.acquire().await.map_err(|_| unavailable(stage))?;
        self.check_open(stage)?;
        let parked = self.parked().pop();
        let connection = match parked {
            Some(connection) => connection,
            None => {
                // A reader that could write would be a second writer.
                let options = self.options.clone().pragma("query_only", "1");
                options.connect().await.map_err(failed(stage))?
            }
        };
        Ok(Read { home: self, connection: Some(connection), snapshot: None, stage, _permit: permit })
    }

    /// A connection for several statements that read the same state.
    pub(super) async fn snapshot(&self, stage: &'static str) -> Result<Read<'_>> {
        let mut read = self.read(stage).await?;
        sqlx::query("BEGIN").execute(&mut *read).await.map_err(failed(stage))?;
        read.snapshot = Some("COMMIT");
        Ok(read)
    }

    /// Closes every connection, once those in use are back. Later calls are refused.
    pub(super) async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::SeqCst);
        self.permits.close();
        let parked: Vec<_> = self.parked().drain(..).collect();
        let mut turn = self.turn().await;
        self.commit_open(&mut turn).await;
        for connection in parked.into_iter().chain(self.home.take()) {
            connection.close().await.map_err(failed("close"))?;
        }
        Ok(())
    }

    fn parked(&self) -> std::sync::MutexGuard<'_, Vec<SqliteConnection>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_open(&self, stage: &'static str) -> Result<()> {
        if self.closed.load(Ordering::SeqCst) { Err(unavailable(stage)) } else { Ok(()) }
    }
}

/// Sees a commit through that was begun, by whomever.
async fn drive(turn: &mut Turn<'_>) {
    if let Some(committing) = turn.as_mut() {
        committing.await;
        **turn = None;
    }
}

/// The transaction that writes. Dropped before [`Write::finish`] it takes its connection with it: SQLite rolls back what
/// was not committed when the connection closes.
pub(super) struct Write<'a> {
    connection: Option<SqliteConnection>,
    home: &'a Home,
    stage: &'static str,
    _turn: Turn<'a>,
}

impl Write<'_> {
    /// Commits what succeeded, rolls back what failed.
    pub(super) async fn finish<T>(mut self, result: Result<T>) -> Result<T> {
        let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let stage = self.stage;
        match sqlx::query(end).execute(&mut *self).await {
            Ok(_) => {
                self.connection.take().into_iter().for_each(|connection| self.home.park(connection));
                result
            }
            // The connection is not used again: it may be in a transaction, or SQLite has ended that by itself.
            Err(error) => result.and(Err(failed(stage)(error))),
        }
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
pub(super) struct Joint<'a> {
    connection: Option<SqliteConnection>,
    seat: Seat,
    begin: Begin,
    connections: &'a Connections,
    stage: &'static str,
    turn: Option<Turn<'a>>,
}

impl Joint<'_> {
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
            && let Err(error) = sqlx::raw_sql(end).execute(&mut *self).await
        {
            // SQLite has ended the transaction by itself: the group breaks when this call is dropped here.
            return Some(result.and(Err(failed(stage)(error))));
        }
        let connection = self.connection.take()?;
        if alone {
            self.connections.home.park(connection);
            return Some(result);
        }
        self.seat.leave_open(connection);
        self.turn = None;
        match self.connections.outcome(&self.seat).await {
            Outcome::Committed => Some(result),
            Outcome::Failed(error) => {
                Some(result.and(Err(Error::new(error.kind().clone(), stage).with_source(error))))
            }
            Outcome::Broken => None,
        }
    }
}

impl Drop for Joint<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            // SQLite rolls back when the connection closes; whoever begins again waits for that.
            drop(connection);
            self.seat.break_up();
        }
    }
}

/// A connection that reads.
pub(super) struct Read<'a> {
    home: &'a Connections,
    connection: Option<SqliteConnection>,
    snapshot: Option<&'static str>,
    stage: &'static str,
    _permit: SemaphorePermit<'a>,
}

impl Read<'_> {
    /// Gives the connection back. One whose statement failed, or whose future was dropped, is not used again.
    pub(super) async fn finish<T>(mut self, result: Result<T>) -> Result<T> {
        let value = result?;
        if let Some(end) = self.snapshot {
            let stage = self.stage;
            sqlx::query(end).execute(&mut *self).await.map_err(failed(stage))?;
        }
        if !self.home.closed.load(Ordering::SeqCst)
            && let Some(connection) = self.connection.take()
        {
            self.home.parked().push(connection);
        }
        Ok(value)
    }
}

macro_rules! derefs {
    ($($name:ident),+) => {$(
        impl Deref for $name<'_> {
            type Target = SqliteConnection;

            fn deref(&self) -> &SqliteConnection {
                self.connection.as_ref().expect("only `finish`, which consumes the guard, takes its connection")
            }
        }

        impl DerefMut for $name<'_> {
            fn deref_mut(&mut self) -> &mut SqliteConnection {
                self.connection.as_mut().expect("only `finish`, which consumes the guard, takes its connection")
            }
        }
    )+};
}

derefs!(Write, Joint, Read);
