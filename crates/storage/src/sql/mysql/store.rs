//! The handle of the store in MariaDB: where the database is, how it is opened and closed.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use postroom_core::time::Timestamp;
use sqlx::ConnectOptions;
use sqlx::mysql::MySqlConnectOptions;

use super::connection::Connections;
use super::schema;
use crate::clock::{Clock, SampledClock};
use crate::error::{Error, ErrorKind, Result};
use crate::sql::combine::Combiner;

/// How a database is opened.
#[derive(Clone)]
pub struct MySqlOptions {
    connections: usize,
    clock: Option<Arc<dyn Clock>>,
}

impl MySqlOptions {
    /// Ten connections; the database's clock.
    #[must_use]
    pub fn new() -> Self {
        Self { connections: 10, clock: None }
    }

    /// At most so many connections, at least one. They are opened as they are needed.
    #[must_use]
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Another clock, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }
}

impl Default for MySqlOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MySqlOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlOptions").field("connections", &self.connections).finish_non_exhaustive()
    }
}

/// A store in MariaDB 10.6 or newer (tested with 10.11; MySQL is refused). Its clones share their connections; any number of processes
/// may open the same database, on one server: of a cluster whose nodes are written to independently (Galera) use one.
///
/// Its tables, whose names begin with `postroom_`, stand in the database that the location names. Their collation compares byte by byte,
/// whatever the database's is. Sessions keep prepared statements and settings, so a pooler between has to pool by session.
///
/// What a method has written is on the medium when it returns: a server that does not sync each commit
/// (`innodb_flush_log_at_trx_commit = 1`, `sync_binlog = 1` where it has a binary log) is refused. All sessions are at READ COMMITTED.
/// No task is spawned; a connection is opened when it is first needed.
///
/// The store's time is the database's, which is looked at when a connection is opened and about each minute; between, and when
/// the database's goes back, it goes on by this machine's monotonic clock.
///
/// Every method is one transaction and cancel safe: a dropped future leaves all of it or nothing. Submissions that come at the
/// same time share one commit, and so do claims, marks and settlements.
#[derive(Clone)]
pub struct MySqlStore {
    pub(super) connections: Arc<Connections>,
    /// What submitters ask for at the same time.
    pub(super) intake: Arc<Combiner<Connections>>,
    /// What dispatchers ask for at the same time: submissions do not hold it up.
    pub(super) work: Arc<Combiner<Connections>>,
    clock: Arc<dyn Clock>,
}

impl MySqlStore {
    /// Opens `mysql://USER:PASSWORD@HOST/DATABASE` as [`MySqlOptions::new`] says. An older schema is migrated; an empty one is
    /// filled.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] for a database that can't be reached or a location that is no such URL,
    /// [`ErrorKind::Schema`] for one that a newer release made or that is not there, [`ErrorKind::UnfitConnection`] for a server that
    /// is no MariaDB of 10.6 or newer, or does not sync each commit. No error holds the location.
    pub async fn open(location: &str) -> Result<Self> {
        Self::open_with(location, MySqlOptions::new()).await
    }

    /// As [`Self::open`], with options.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub async fn open_with(location: &str, options: MySqlOptions) -> Result<Self> {
        let store = Self::on(location, options)?;
        store.migrated().await?;
        Ok(store)
    }

    /// Opens a database whose schema is this release's. Nothing is made or migrated: for whoever deploys migrations apart.
    ///
    /// # Errors
    /// [`ErrorKind::Schema`] for any other schema; else as for [`Self::open`].
    pub async fn connect(location: &str, options: MySqlOptions) -> Result<Self> {
        let store = Self::on(location, options)?;
        schema::check(&store.connections).await?;
        Ok(store)
    }

    /// Migrates a database to this release's schema. Gives how many migrations ran.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub async fn migrate(location: &str) -> Result<u64> {
        let store = Self::on(location, MySqlOptions::new())?;
        let ran = store.migrated().await?;
        store.close().await?;
        Ok(ran)
    }

    /// Closes the connections; those in use are closed when they are given back. Every clone is closed with it and refuses to work.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]; what was written before is safe all the same.
    pub async fn close(&self) -> Result<()> {
        self.connections.close().await
    }

    async fn migrated(&self) -> Result<u64> {
        // The first connection brings the database's time.
        self.connections.read("open a database").await?.finish(Ok(())).await?;
        schema::migrate(&self.connections, schema::MIGRATIONS, self.now()).await
    }

    fn on(location: &str, options: MySqlOptions) -> Result<Self> {
        // The session's settings are the store's own.
        let connect = parsed(location)?.statement_cache_capacity(256).disable_statement_logging();
        let connect = connect.pipes_as_concat(false).no_engine_substitution(false).timezone(None::<String>);
        let sampled = Arc::new(SampledClock::new());
        let (clock, sampled): (Arc<dyn Clock>, _) = match options.clock {
            Some(clock) => (clock, None),
            None => (Arc::clone(&sampled) as Arc<dyn Clock>, Some(sampled)),
        };
        let connections = Arc::new(Connections::new(connect, options.connections, sampled));
        let combiner = || Arc::new(Combiner::new(Arc::clone(&connections)));
        Ok(Self { intake: combiner(), work: combiner(), connections, clock })
    }
}

/// What a location says. An error is told without it: it may hold a password.
fn parsed(location: &str) -> Result<MySqlConnectOptions> {
    let refused = || {
        let text = "the location is no `mysql://USER:PASSWORD@HOST/DATABASE`";
        let error = std::io::Error::new(std::io::ErrorKind::InvalidInput, text);
        Error::new(ErrorKind::Unavailable, "open a database").with_source(error)
    };
    let scheme = location.split_once("://").map(|(scheme, _)| scheme);
    if !matches!(scheme, Some("mysql" | "mariadb")) {
        return Err(refused());
    }
    MySqlConnectOptions::from_str(location).map_err(|_| refused())
}

impl Clock for MySqlStore {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

impl fmt::Debug for MySqlStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlStore").finish_non_exhaustive()
    }
}
