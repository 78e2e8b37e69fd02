//! The connections to one database, a few. A transaction whose future is dropped takes its connection with it, so nothing half done is ever found by whoever comes
//! next. No table is known here.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postroom_core::time::Timestamp;
use sqlx::postgres::{PgConnectOptions, PgConnection};
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
/// - A commit is on the medium when it returns, whatever the server's default is.
/// - Nobody waits for ever: not for a lock, not for a statement, and a transaction whose process stopped in its middle is soon ended by
///   the server, so that its locks hold up nobody.
/// - Each statement was written for one index, and each is planned once: tables that were never analysed, or were when they were
///   empty, must not lead to a plan that walks over them.
const SESSION: &str = "SET synchronous_commit = on;
    SET lock_timeout = '10s'; SET statement_timeout = '60s'; SET idle_in_transaction_session_timeout = '5s';
    SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off;
    SET plan_cache_mode = force_generic_plan; SET jit = off; SET max_parallel_workers_per_gather = 0;
    SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
    SET enable_material = off";

const SAMPLE: &str =
    "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint, current_setting('server_encoding')";

/// PostgreSQL answers a COMMIT of a transaction that failed with success, and rolls back; any other statement fails then.
const COMMIT: &str = "SELECT; COMMIT";

/// Runs statements without parameters.
pub(super) async fn say(connection: &mut PgConnection, sql: &'static str, stage: &'static str) -> Result<()> {
    sqlx::raw_sql(sql).execute(connection).await.map(drop).map_err(failed(stage))
}

/// The connections of one store.
///
/// This is no `sqlx::Pool`: a pool spawns tasks behind the host, and gives a connection whose future was dropped to the next.
pub(super) struct Connections {
    options: PgConnectOptions,
    parked: Mutex<Vec<PgConnection>>,
    permits: Semaphore,
    clock: Option<Arc<SampledClock>>,
    closed: AtomicBool,
    /// Of the bells.
    pub(super) answers: Answers,
}

impl Connections {
    /// The connections to `options`, at most `most`. Each is opened when it is first needed.
    /// The time of the database goes to `clock`.
    pub(super) fn new(options: PgConnectOptions, most: usize, clock: Option<Arc<SampledClock>>) -> Self {
        Self {
            options,
            parked: Mutex::default(),
            permits: Semaphore::new(most.max(1)),
            clock,
            closed: AtomicBool::new(false),
            answers: Answers::default(),
        }
    }

    /// Begins a transaction of its own, by statements that do so.
    ///
    /// Cancel safe: a dropped future or transaction leaves nothing behind.
    pub(super) async fn write(&self, stage: &'static str, begin: &'static str) -> Result<Pooled<'_>> {
        self.begin(stage, begin, COMMIT).await
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
        Ok(Pooled { home: self, connection: Some(connection), end: None, stage, _permit: permit })
    }

    /// A connection for several statements that read the same state.
    pub(super) async fn snapshot(&self, stage: &'static str) -> Result<Pooled<'_>> {
        self.begin(stage, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "COMMIT").await
    }

    async fn begin(&self, stage: &'static str, begin: &'static str, end: &'static str) -> Result<Pooled<'_>> {
        let mut pooled = self.read(stage).await?;
        if say(&mut pooled, begin, stage).await.is_err() {
            // The server was started again, say: what was parked before is of no use any more.
            self.doubt();
            pooled.connection = Some(self.open(stage).await?);
            say(&mut pooled, begin, stage).await?;
        }
        pooled.end = Some(end);
        Ok(pooled)
    }

    /// A new connection, which is in no transaction.
    async fn open(&self, stage: &'static str) -> Result<PgConnection> {
        let late = |_| unavailable(stage);
        let connected = tokio::time::timeout(CONNECT, self.options.connect()).await.map_err(late)?;
        let mut connection = connected.map_err(failed(stage))?;
        say(&mut connection, SESSION, stage).await?;
        self.sample(&mut connection, stage).await?;
        Ok(connection)
    }

    /// Looks at the time of the database.
    async fn sample(&self, connection: &mut PgConnection, stage: &'static str) -> Result<()> {
        let row = sqlx::query_as(SAMPLE).fetch_one(connection).await;
        let (millis, encoding): (i64, String) = row.map_err(failed(stage))?;
        if encoding != "UTF8" {
            let why = "its database has another encoding than UTF8";
            return Err(Error::new(ErrorKind::UnfitConnection { why }, stage));
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

    fn parked(&self) -> std::sync::MutexGuard<'_, Vec<PgConnection>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_open(&self, stage: &'static str) -> Result<()> {
        if self.closed.load(Ordering::SeqCst) { Err(unavailable(stage)) } else { Ok(()) }
    }
}

/// A connection with at most one transaction on it. Dropped before [`Pooled::finish`] it is closed: PostgreSQL rolls back what was
/// not committed when the connection closes.
pub(super) struct Pooled<'a> {
    home: &'a Connections,
    connection: Option<PgConnection>,
    /// How its transaction ends when all went well; none when it has none.
    end: Option<&'static str>,
    stage: &'static str,
    _permit: SemaphorePermit<'a>,
}

impl Pooled<'_> {
    /// Commits what succeeded, rolls back what failed, and gives the connection back. One whose statement failed outside of a
    /// transaction, or whose transaction can't be ended, is not used again, nor are those that were parked before.
    pub(super) async fn finish<T>(mut self, result: Result<T>) -> Result<T> {
        let stage = self.stage;
        let end = match (self.end, &result) {
            (Some(end), Ok(_)) => Some(end),
            (Some(_), Err(_)) => Some("ROLLBACK"),
            (None, Ok(_)) => None,
            (None, Err(error)) => {
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
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("only `finish`, which consumes the guard, takes its connection")
    }
}

impl DerefMut for Pooled<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("only `finish`, which consumes the guard, takes its connection")
    }
}

/// How many times a call is begun again because others were in its way.
pub(super) const TRIES: u32 = 5;

/// Runs a body in a transaction of its own, and again where a deadlock or the like ended it: `write!(connections, stage, |tx| ..)`, or
/// `write!(connections, stage, begin, |tx| ..)` for one that other statements begin.
macro_rules! write {
    ($connections:expr, $stage:expr, |$tx:ident| $body:expr) => {
        $crate::sql::postgres::connection::write!($connections, $stage, "BEGIN", |$tx| $body)
    };
    ($connections:expr, $stage:expr, $begin:expr, |$tx:ident| $body:expr) => {{
        let mut tries = 0;
        loop {
            let mut guard = $connections.write($stage, $begin).await?;
            let done = {
                let $tx: &mut sqlx::postgres::PgConnection = &mut guard;
                async { $body }.await
            };
            match guard.finish(done).await {
                Err(error)
                    if $crate::sql::postgres::failed::is_contended(&error)
                        && tries < $crate::sql::postgres::connection::TRIES =>
                {
                    tries += 1;
                }
                done => break done,
            }
        }
    }};
}
pub(super) use write;
