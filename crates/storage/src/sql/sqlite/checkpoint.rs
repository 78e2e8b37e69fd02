//! Checkpoints: committed pages are copied from the log into the file by a connection of its own, while the writer goes on. In SQLite's
//! own way, a checkpoint within a commit (<https://www.sqlite.org/wal.html#ckpt>), whoever writes next waits until 16 MiB are copied
//! and synced. That remains for what this does not come to.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use super::script::Log;

/// From how many pages on the log is copied: half of what SQLite leaves in it.
const LONG: i64 = 2048;

/// So few are left to the writer: the log begins anew only when nothing is left, and while another connection copies, more is written.
const FEW: i64 = 128;

/// Waits for nobody who reads or writes.
const COPY: &str = "PRAGMA wal_checkpoint(PASSIVE)";

type Copying = Pin<Box<dyn Future<Output = sqlx::Result<SqliteConnection>> + Send>>;

/// The connection that copies, once it was needed.
#[derive(Default)]
pub(super) enum Copier {
    #[default]
    None,
    Idle(SqliteConnection),
    /// The connection's thread is at work, whether this is polled or not.
    Busy(Copying),
}

impl Copier {
    /// Sees to the log after a commit of `writer`, which was told its length. A failure is none of the commit's: it is tried anew after
    /// the next one.
    pub(super) async fn follow(
        &mut self,
        options: &SqliteConnectOptions,
        writer: &mut SqliteConnection,
        log: Log,
    ) {
        if log.pages < LONG || log.pages == log.copied {
            return;
        }
        let connection = match std::mem::take(self) {
            Self::None => None,
            Self::Idle(connection) => Some(connection),
            // What was copied meanwhile the next commit is told.
            Self::Busy(copying) => return *self = Self::now(copying),
        };
        if log.pages - log.copied <= FEW {
            let _ = sqlx::query(COPY).execute(writer).await;
            return *self = connection.map_or(Self::None, Self::Idle);
        }
        let connection = match connection {
            Some(connection) => connection,
            None => match options.clone().pragma("cache_size", "-64").connect().await {
                Ok(connection) => connection,
                Err(_) => return,
            },
        };
        *self = Self::now(Box::pin(copy(connection)));
    }

    /// Looks how far it is; nobody is woken for that. The first look sets its thread to work.
    fn now(mut copying: Copying) -> Self {
        match copying.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Self::Busy(copying),
            Poll::Ready(copied) => copied.map_or(Self::None, Self::Idle),
        }
    }

    /// Closes it, once it has copied what it is at.
    pub(super) async fn close(self) -> sqlx::Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Idle(connection) => connection.close().await,
            Self::Busy(copying) => copying.await?.close().await,
        }
    }
}

async fn copy(mut connection: SqliteConnection) -> sqlx::Result<SqliteConnection> {
    sqlx::query(COPY).execute(&mut connection).await?;
    Ok(connection)
}
