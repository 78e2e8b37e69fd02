//! The store in memory passes the suite.
#![cfg(feature = "conformance")]

use std::sync::Arc;

use postroom_storage::conformance::Subject;
use postroom_storage::memory::MemoryStore;

async fn subject() -> Subject {
    Subject::new(Arc::new(MemoryStore::new()))
}

postroom_storage::conformance_tests!(subject);
