//! The connections to one database, a few. A transaction whose future is dropped takes its connection with it, so nothing half done is ever found by whoever comes
//! next. No table is known here.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postroom_core::time::Timestamp;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{Semaphore, SemaphorePermit};

pub(super) use super::failed::failed;
use super::failed::unavailable;
use crate::clock::SampledClock;
use crate::error::{Error, ErrorKind, Result};
use crate::sql::answers::Answers;

/// How long it may take to reach the server.
const CONNECT: Duration = Duration::from_secs(10);

/// What every session of the store has.
///
/// - What does not fit is refused, never cut.
/// - At READ COMMITTED no gap between rows is locked, and each statement sees what is committed when it begins.
/// - Nobody waits for ever: not for a lock, not for a statement, and a transaction whose process stopped in its middle is soon ended by
///   the server, so that its locks hold up nobody.
/// - Each statement was written for one order of its tables and one index: nothing is turned into another form that walks over them.
///   A part in brackets stays apart: merged with what is around it, 10.11 fails to find its columns when it is executed again.
/// - What is parked is not closed by the server for a week.
const SESSION: &str = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', autocommit = 1,
    tx_isolation = 'READ-COMMITTED', tx_read_only = 0, foreign_key_checks = 1, unique_checks = 1, check_constraint_checks = 1,
    innodb_lock_wait_timeout = 10, max_statement_time = 60, idle_transaction_timeout = 5, wait_timeout = 604800,
    sql_select_limit = DEFAULT, join_cache_level = 0,
    optimizer_switch = 'derived_merge=off,exists_to_in=off,materialization=off,semijoin=off,in_to_exists=on', max_recursive_iterations = 1000000, NAMES utf8mb4 COLLATE utf8mb4_nopad_bin";

/// The time in milliseconds, and what the server is and promises: its name, its version, and whether a commit is on the medium when it
/// returns. Where there is a binary log, it decides after a crash which commits are kept.
const SAMPLE: &str =
    "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000, VERSION(), DATABASE(),
    @@GLOBAL.innodb_flush_log_at_trx_commit IN (1, 3) AND (@@GLOBAL.log_bin = 0 OR @@GLOBAL.sync_binlog = 1)";

/// What is said of a server that may forget commits.
pub(super) const FORGETFUL: &str = "its server does not sync each commit: set innodb_flush_log_at_trx_commit = 1, and sync_binlog = 1 where it has a binary log";

/// Runs statements without parameters.
pub(super) async fn say(
    connection: &mut MySqlConnection,
    sql: &'static str,
    stage: &'static str,
) -> Result<()> {
    sqlx::raw_sql(sql).execute(connection).await.map(drop).map_err(failed(stage))
}

/// The connections of one store.
///
/// This is no `sqlx::Pool`: a pool spawns tasks behind the host, and gives a connection whose future was dropped to the next.
pub(super) struct Connections {
    options: MySqlConnectOptions,
    parked: Mutex<Vec<MySqlConnection>>,
    permits: Semaphore,
    clock: Option<Arc<SampledClock>>,
    closed: AtomicBool,
    /// Of the bells.
    pub(super) answers: Answers,
}

impl Connections {
    /// The connections to `options`, at most `most`. Each is opened when it is first needed.
    /// The time of the database goes to `clock`.
    pub(super) fn new(options: MySqlConnectOptions, most: usize, clock: Option<Arc<SampledClock>>) -> Self {
        Self {
            options,
            parked: Mutex::default(),
            permits: Semaphore::new(most.max(1)),
            clock,
            closed: AtomicBool::new(false),
            answers: Answers::default(),
        }
    }

    /// Begins a transaction of its own.
    ///
    /// Cancel safe: a dropped future or transaction leaves nothing behind.
    pub(super) async fn write(&self, stage: &'static str) -> Result<Pooled<'_>> {
        self.begin(stage, "START TRANSACTION READ WRITE").await
    }

    /// A connection for one statement that reads.
    pub(super) async fn read(&self, stage: &'static str) -> Result<Pooled<'_>> {
        let permit = self.permits.acquire().await.map_err(|_| unavailable(stage))?;
        self.check_open(stage)?;
        let parked = self.parked().pop();
        let mut connection = match parked {
            Some(connection) => connection,
            None => self.open(stage).await?,
        };
        if self.clock.as_ref().is_some_and(|clock| clock.is_due()) {
            self.sample(&mut connection, stage).await?;
        }
        Ok(Pooled { home: self, connection: Some(connection), in_transaction: false, stage, _permit: permit })
    }

    /// A connection for several statements that read the same state.
    pub(super) async fn snapshot(&self, stage: &'static str) -> Result<Pooled<'_>> {
        let begin = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
            START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";
        self.begin(stage, begin).await
    }

    async fn begin(&self, stage: &'static str, begin: &'static str) -> Result<Pooled<'_>> {
        let mut pooled = self.read(stage).await?;
        if say(&mut pooled, begin, stage).await.is_err() {
            // The server was started again, say: what was parked before is of no use any more.
            self.doubt();
            pooled.connection = Some(self.open(stage).await?);
            say(&mut pooled, begin, stage).await?;
        }
        pooled.in_transaction = true;
        Ok(pooled)
    }

    /// A new connection, which is in no transaction.
    async fn open(&self, stage: &'static str) -> Result<MySqlConnection> {
        let late = |_| unavailable(stage);
        let connected = tokio::time::timeout(CONNECT, self.options.connect()).await.map_err(late)?;
        let mut connection = connected.map_err(failed(stage))?;
        self.sample(&mut connection, stage).await?;
        say(&mut connection, SESSION, stage).await?;
        Ok(connection)
    }

    /// Looks at the time of the database, and whether the server is still one that the store can use.
    async fn sample(&self, connection: &mut MySqlConnection, stage: &'static str) -> Result<()> {
        let row = sqlx::query_as(SAMPLE).fetch_one(connection).await;
        let (millis, version, database, is_durable): (i64, String, Option<String>, bool) =
            row.map_err(failed(stage))?;
        let unfit = |why| Err(Error::new(ErrorKind::UnfitConnection { why }, stage));
        if !is_fit(&version) {
            return unfit("its server is no MariaDB, or one that is older than 10.6");
        }
        if !is_durable {
            return unfit(FORGETFUL);
        }
        if database.is_none() {
            return unfit("its location names no database");
        }
        if let Some(clock) = &self.clock {
            clock.take(Timestamp::from_millis(millis));
        }
        Ok(())
    }

    /// Closes every connection that is idle; those in use are closed when they are given back. Later calls are refused.
    pub(super) async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::SeqCst);
        self.permits.close();
        let idle: Vec<_> = self.parked().drain(..).collect();
        for connection in idle {
            connection.close().await.map_err(failed("close"))?;
        }
        Ok(())
    }

    /// Drops what is parked: one connection was lost, and the others may be.
    pub(super) fn doubt(&self) {
        self.parked().clear();
    }

    fn parked(&self) -> std::sync::MutexGuard<'_, Vec<MySqlConnection>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_open(&self, stage: &'static str) -> Result<()> {
        if self.closed.load(Ordering::SeqCst) { Err(unavailable(stage)) } else { Ok(()) }
    }
}

/// Whether a server of this version knows what the statements are made of: `JSON_TABLE` and `SKIP LOCKED`, since 10.6, and blocks of
/// statements, which MySQL has not.
fn is_fit(version: &str) -> bool {
    let version = version.strip_prefix("5.5.5-").unwrap_or(version);
    let mut numbers = version.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    version.contains("MariaDB") && (numbers.next(), numbers.next()) >= (Some(10), Some(6))
}

/// A connection with at most one transaction on it. Dropped before [`Pooled::finish`] it is closed: MariaDB rolls back what was
/// not committed when the connection closes.
pub(super) struct Pooled<'a> {
    home: &'a Connections,
    connection: Option<MySqlConnection>,
    in_transaction: bool,
    stage: &'static str,
    _permit: SemaphorePermit<'a>,
}

impl Pooled<'_> {
    /// Commits what succeeded, rolls back what failed, and gives the connection back. One whose statement failed outside of a
    /// transaction, or whose transaction can't be ended, is not used again, nor are those that were parked before.
    pub(super) async fn finish<T>(mut self, result: Result<T>) -> Result<T> {
        let stage = self.stage;
        let end = match (self.in_transaction, &result) {
            (true, Ok(_)) => Some("COMMIT"),
            (true, Err(_)) => Some("ROLLBACK"),
            (false, Ok(_)) => None,
            (false, Err(error)) => {
                if error.kind() == &ErrorKind::Unavailable {
                    self.home.doubt();
                }
                return result;
            }
        };
        if let Some(end) = end
            && let Err(error) = say(&mut self, end, stage).await
        {
            self.home.doubt();
            return result.and(Err(error));
        }
        if !self.home.closed.load(Ordering::SeqCst)
            && let Some(connection) = self.connection.take()
        {
            self.home.parked().push(connection);
        }
        result
    }
}

impl Deref for Pooled<'_> {
    type Target = MySqlConnection;

    fn deref(&self) -> &MySqlConnection {
        self.connection.as_ref().expect("only `finish`, which consumes the guard, takes its connection")
    }
}

impl DerefMut for Pooled<'_> {
    fn deref_mut(&mut self) -> &mut MySqlConnection {
        self.connection.as_mut().expect("only `finish`, which consumes the guard, takes its connection")
    }
}

/// How many times a call is begun again because others were in its way.
pub(super) const TRIES: u32 = 10;

/// Runs a body in a transaction of its own, and again where a deadlock or the like ended it: `write!(connections, stage, |tx| ..)`.
macro_rules! write {
    ($connections:expr, $stage:expr, |$tx:ident| $body:expr) => {{
        let mut tries = 0;
        loop {
            let mut guard = $connections.write($stage).await?;
            let done = {
                let $tx: &mut sqlx::mysql::MySqlConnection = &mut guard;
                async { $body }.await
            };
            match guard.finish(done).await {
                Err(error)
                    if $crate::sql::mysql::failed::is_contended(&error)
                        && tries < $crate::sql::mysql::connection::TRIES =>
                {
                    tries += 1;
                }
                done => break done,
            }
        }
    }};
}
pub(super) use write;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_lack_what_the_statements_need_are_told_by_their_version() {
        for (version, fit) in [
            ("10.11.19-MariaDB-0+deb12u1", true),
            ("5.5.5-10.6.4-MariaDB", true),
            ("11.4.2-MariaDB", true),
            ("10.5.23-MariaDB", false),
            ("8.4.0", false),
            ("", false),
        ] {
            assert_eq!(is_fit(version), fit, "{version}");
        }
    }
}
