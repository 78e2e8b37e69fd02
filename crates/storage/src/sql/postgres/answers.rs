//! What one call answers for others that wait: how often the bells were answered in this process. How they are, is in `lanes`.

use std::sync::atomic::AtomicU64;

/// How often the bells were answered. What asks while others wait for an answer waits for the next one with them.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// How many were begun.
    pub(super) begun: AtomicU64,
    /// The last that was given, and whether there were bells; held while one is.
    pub(super) given: tokio::sync::Mutex<(u64, bool)>,
}
