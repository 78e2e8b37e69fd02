//! The handle of the store in a file: where the file is, how it is opened and closed.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postroom_core::time::Timestamp;
use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

use super::connection::Connections;
use super::schema;
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::sql::combine::Combiner;

/// How a file is opened.
#[derive(Clone)]
pub struct SqliteOptions {
    readers: usize,
    busy_timeout: Duration,
    clock: Option<Arc<dyn Clock>>,
}

impl SqliteOptions {
    /// Four reading connections, five seconds of patience with another process that writes, the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self { readers: 4, busy_timeout: Duration::from_secs(5), clock: None }
    }

    /// At most so many reading connections, at least one. Each is a thread of SQLite's driver while it is open.
    #[must_use]
    pub fn with_readers(mut self, readers: usize) -> Self {
        self.readers = readers;
        self
    }

    /// How long a write waits for another process that writes, before it fails as unavailable.
    #[must_use]
    pub fn with_busy_timeout(mut self, busy_timeout: Duration) -> Self {
        self.busy_timeout = busy_timeout;
        self
    }

    /// Another clock, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SqliteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteOptions")
            .field("readers", &self.readers)
            .field("busy_timeout", &self.busy_timeout)
            .finish_non_exhaustive()
    }
}

/// A store in an SQLite file. Its clones share their connections.
///
/// The file is in WAL mode with `synchronous=FULL`: what a method has written is on the medium when it returns. There is one
/// writing connection for each opened store, and one that copies the log into the file beside it once 8 MiB are written; several
/// processes may open the same file. No task is spawned; each connection has a thread of SQLite's driver.
///
/// Every method is one transaction and cancel safe: a dropped future leaves all of it or nothing. Submissions, claims, marks and
/// settlements that come at the same time share one commit.
#[derive(Clone)]
pub struct SqliteStore {
    pub(super) connections: Arc<Connections>,
    /// What submitters and dispatchers ask for at the same time.
    pub(super) queue: Arc<Combiner<Connections>>,
    clock: Arc<dyn Clock>,
}

impl SqliteStore {
    /// Opens `sqlite://FILE`, or a path, as [`SqliteOptions::new`] says. A file that is not there is made, readable by its
    /// owner only where the system knows that, and an older schema is migrated.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] for a file that can't be opened, [`ErrorKind::Schema`] for one that a newer release
    /// made.
    pub async fn open(location: &str) -> Result<Self> {
        Self::open_with(location, SqliteOptions::new()).await
    }

    /// As [`Self::open`], with options.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub async fn open_with(location: &str, options: SqliteOptions) -> Result<Self> {
        let store = Self::on(create(location)?, options);
        schema::migrate(&store.connections, schema::MIGRATIONS, store.now()).await?;
        Ok(store)
    }

    /// Opens a file whose schema is this release's. Nothing is made or migrated: for whoever deploys migrations apart.
    ///
    /// # Errors
    /// [`ErrorKind::Schema`] for any other schema, [`ErrorKind::Unavailable`] for a file that is not there.
    pub async fn connect(location: &str, options: SqliteOptions) -> Result<Self> {
        let store = Self::on(file(location)?, options);
        schema::check(&store.connections).await?;
        Ok(store)
    }

    /// Migrates a file, which is made where it is not there, to this release's schema. Gives how many migrations ran.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub async fn migrate(location: &str) -> Result<u64> {
        let store = Self::on(create(location)?, SqliteOptions::new());
        let ran = schema::migrate(&store.connections, schema::MIGRATIONS, store.now()).await?;
        store.close().await?;
        Ok(ran)
    }

    /// Closes the connections, once those in use are back. Every clone is closed with it and refuses to work.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`], [`ErrorKind::Full`]; what was written before is safe all the same.
    pub async fn close(&self) -> Result<()> {
        self.connections.close().await
    }

    fn on(path: &Path, options: SqliteOptions) -> Self {
        let connect = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(options.busy_timeout)
            // On macOS fsync does not reach the medium; elsewhere this changes nothing.
            .pragma("fullfsync", "1")
            .pragma("checkpoint_fullfsync", "1")
            // 16 MiB: the inner pages of a queue of a million mails.
            .pragma("cache_size", "-16384")
            // 16 MiB of log: from there on a commit copies what the connection beside the writer has left (`checkpoint`).
            .pragma("wal_autocheckpoint", "4096")
            // A schema that somebody tampered with calls no functions with side effects.
            .pragma("trusted_schema", "0")
            // What a statement would undo after a conflict is kept in memory: in a file, which is nowhere synced, it is a quarter of all
            // writes.
            .pragma("temp_store", "2")
            .disable_statement_logging();
        let clock = options.clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
        let connections = Arc::new(Connections::new(connect, options.readers));
        Self { queue: Arc::new(Combiner::new(Arc::clone(&connections))), connections, clock }
    }
}

impl Clock for SqliteStore {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}

fn unavailable(kind: std::io::ErrorKind, text: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, "open an SQLite file").with_source(std::io::Error::new(kind, text))
}

/// The file of a location.
fn file(location: &str) -> Result<&Path> {
    let path = location.strip_prefix("sqlite://").unwrap_or(location);
    if path.is_empty() || path.contains("://") || path.contains(":memory:") {
        // Each connection to memory is a database of its own.
        return Err(unavailable(std::io::ErrorKind::InvalidInput, "the location is no `sqlite://FILE`"));
    }
    Ok(Path::new(path))
}

/// The file of a location, made where it is not there. SQLite gives its companions, `-wal` and `-shm`, the same mode.
fn create(location: &str) -> Result<&Path> {
    let path = file(location)?;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(path),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(path),
        Err(error) => Err(Error::new(ErrorKind::Unavailable, "make an SQLite file").with_source(error)),
    }
}
