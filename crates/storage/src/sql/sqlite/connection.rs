//! The connections to one file: one that writes, a few that read. A transaction whose future is dropped takes its
//! connection with it, so nothing half done is ever found by whoever comes next. No table is known here.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{MutexGuard, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep};

use super::checkpoint::Copier;
pub(super) use super::failed::failed;
use super::failed::{is_busy, unavailable};
use super::script::Script;
use crate::error::Result;

/// The statement that a script of [`Connections::turn`] begins with.
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";

/// Commits, and asks how long the log is by now. NOOP copies nothing; an SQLite before 3.51 would copy at each commit.
const COMMIT: &str = "COMMIT;\nPRAGMA wal_checkpoint(NOOP)";

/// Between two transactions: the connection that writes, and the one that copies what was written.
#[derive(Default)]
struct Writer {
    connection: Option<SqliteConnection>,
    copier: Copier,
}

/// For how long a connection is asked for that SQLite refuses since the file is locked, and how often.
const PATIENCE: Duration = Duration::from_secs(5);
const REST: Duration = Duration::from_millis(50);

/// A new connection. Of two that turn a new file to a log of its own at the same moment, one is told at once that the file is locked, whatever its busy
/// timeout: waiting with its lock in hand, it would keep the other from it (<https://www.sqlite.org/c3ref/busy_handler.html>).
async fn connect(options: &SqliteConnectOptions) -> sqlx::Result<SqliteConnection> {
    let begun = Instant::now();
    loop {
        match options.connect().await {
            Err(error) if is_busy(&error) && begun.elapsed() < PATIENCE => {}
            connected => return connected,
        }
        sleep(REST).await;
    }
}

/// The connections of one store.
///
/// This is no `sqlx::Pool`: a pool spawns tasks behind the host, and sqlx 0.9 counts the depth of a transaction apart from
/// SQLite, which rolls back by itself when the disk is full; such a connection would refuse every later `BEGIN`.
pub(super) struct Connections {
    options: SqliteConnectOptions,
    /// Writers come one after the other, in the order in which they asked.
    writer: tokio::sync::Mutex<Writer>,
    readers: Mutex<Vec<SqliteConnection>>,
    permits: Semaphore,
    closed: AtomicBool,
}

impl Connections {
    /// The connections to `options`, at most `readers` of them for reading. Each is opened when it is first needed.
    pub(super) fn new(options: SqliteConnectOptions, readers: usize) -> Self {
        Self {
            options,
            writer: tokio::sync::Mutex::default(),
            readers: Mutex::default(),
            permits: Semaphore::new(readers.max(1)),
            closed: AtomicBool::new(false),
        }
    }

    /// The file that they are to.
    pub(super) fn file(&self) -> &Path {
        self.options.get_filename()
    }

    /// Begins the transaction that may write; others wait for their turn.
    ///
    /// Cancel safe: a dropped future or transaction leaves nothing behind.
    pub(super) async fn write(&self, stage: &'static str) -> Result<Write<'_>> {
        let mut write = self.turn(stage).await?;
        sqlx::query(BEGIN).execute(&mut *write).await.map_err(failed(stage))?;
        Ok(write)
    }

    /// The connection that writes, for who begins by a script; others wait for their turn.
    ///
    /// Cancel safe: a dropped future or turn leaves nothing behind.
    pub(super) async fn turn(&self, stage: &'static str) -> Result<Write<'_>> {
        let mut turn = self.writer.lock().await;
        self.check_open(stage)?;
        let connection = match turn.connection.take() {
            Some(connection) => connection,
            None => connect(&self.options).await.map_err(failed(stage))?,
        };
        Ok(Write { home: self, connection: Some(connection), stage, turn })
    }

    /// A connection for one statement that reads.
    pub(super) async fn read(&self, stage: &'static str) -> Result<Read<'_>> {
        let permit = self.permits.acquire().await.map_err(|_| unavailable(stage))?;
        self.check_open(stage)?;
        let parked = self.parked().pop();
        let connection = match parked {
            Some(connection) => connection,
            None => {
                // A reader that could write would be a second writer. What it does not keep the system's cache has, once for all
                // readers: with the writer's room each, a registry of 10,000 mailboxes would be in memory five times.
                let options = self.options.clone().pragma("query_only", "1").pragma("cache_size", "-4096");
                connect(&options).await.map_err(failed(stage))?
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
        let Writer { connection, copier } = std::mem::take(&mut *self.writer.lock().await);
        copier.close().await.map_err(failed("close"))?;
        for connection in parked.into_iter().chain(connection) {
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

/// The transaction that writes. Dropped before [`Write::finish`] it takes its connection with it: SQLite rolls back what
/// was not committed when the connection closes.
pub(super) struct Write<'a> {
    home: &'a Connections,
    connection: Option<SqliteConnection>,
    stage: &'static str,
    turn: MutexGuard<'a, Writer>,
}

impl Write<'_> {
    /// Commits what succeeded, rolls back what failed.
    pub(super) async fn finish<T>(self, result: Result<T>) -> Result<T> {
        self.finish_by(result.map(|value| (value, Script::default()))).await
    }

    /// Commits what succeeded, with its last statements; rolls back what failed.
    pub(super) async fn finish_by<T>(mut self, result: Result<(T, Script)>) -> Result<T> {
        let (stage, options) = (self.stage, &self.home.options);
        let mut connection = self.connection.take().ok_or_else(|| unavailable(stage))?;
        let done = match result {
            Ok((value, mut script)) => {
                script.then(COMMIT);
                script.log(&mut connection, stage).await.map(|log| (value, log))
            }
            Err(error) => Err(error),
        };
        match done {
            Ok((_, log)) => self.turn.copier.follow(options, &mut connection, log).await,
            // One that does not roll back is not used again: SQLite may have ended the transaction by itself.
            Err(error) if sqlx::query("ROLLBACK").execute(&mut connection).await.is_err() => {
                return Err(error);
            }
            Err(_) => {}
        }
        self.turn.connection = Some(connection);
        done.map(|(value, _)| value)
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

derefs!(Write, Read);
