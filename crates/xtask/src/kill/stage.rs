//! What every round needs, whatever it does to its workers.

use std::path::PathBuf;

use tokio::runtime::Runtime;

use crate::peers::Database;

/// Where a round is played.
#[derive(Debug)]
pub(super) struct Stage {
    /// Serves the recording server.
    pub(super) runtime: Runtime,
    /// The built `postroom`.
    pub(super) binary: PathBuf,
    /// The server that has the queues, if they are not in files.
    pub(super) database: Option<Database>,
    pub(super) mails: u32,
    pub(super) kills: u32,
}
