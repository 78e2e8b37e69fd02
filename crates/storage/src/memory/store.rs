//! The handle of the store in memory: its rows and its clock.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use postroom_core::time::Timestamp;

use super::rows::Rows;
use crate::clock::{Clock, SystemClock};

/// A store in memory. Its clones share their rows. No method waits, so none is affected by a dropped future.
#[derive(Clone)]
pub struct MemoryStore {
    rows: Arc<Mutex<Rows>>,
    clock: Arc<dyn Clock>,
}

impl MemoryStore {
    /// An empty store that goes by the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock::new()))
    }

    /// An empty store that goes by this clock.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { rows: Arc::default(), clock }
    }

    /// The rows. Every method is one transaction: it checks first and changes afterwards, under one lock.
    pub(super) fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for MemoryStore {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}
