//! What is tested and how a case is run.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::Store;

/// Opens the store again from the medium that it was on, after the first handle was dropped.
pub type Reopen = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = Arc<dyn Store>> + Send>> + Send>;

/// An empty store, and what can be done with it besides its ports.
#[expect(clippy::exhaustive_structs, reason = "taken apart by every case")]
pub struct Subject {
    /// The store.
    pub store: Arc<dyn Store>,
    /// How it is opened again; none for a store that has no medium.
    pub reopen: Option<Reopen>,
}

impl Subject {
    /// An empty store without a medium. Times are given to it by the cases; its clock is not looked at.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, reopen: None }
    }

    /// With a way to open it again: then what was committed must be there.
    #[must_use]
    pub fn with_reopen(mut self, reopen: Reopen) -> Self {
        self.reopen = Some(reopen);
        self
    }

    /// The store after a restart, or the same one where there is no medium.
    pub(super) async fn restarted(self) -> Arc<dyn Store> {
        match self.reopen {
            Some(reopen) => {
                drop(self.store);
                reopen().await
            }
            None => self.store,
        }
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("reopens", &self.reopen.is_some()).finish_non_exhaustive()
    }
}

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One clause of the ports.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    name: &'static str,
    run: fn(Subject) -> Running,
}

impl Case {
    pub(super) fn new(name: &'static str, run: fn(Subject) -> Running) -> Self {
        Self { name, run }
    }

    /// The clause: `queue::an_expired_claim_is_taken_by_the_next_worker`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs it over an empty store.
    ///
    /// # Panics
    /// When the store breaks the clause.
    pub async fn run(&self, subject: Subject) {
        (self.run)(subject).await;
    }
}

/// Runs one case on a runtime of its own. Without a subject it is skipped: `subject` may give an `Option` where the store needs a
/// server that is not always there.
///
/// # Panics
/// When the store breaks the clause, or there is no such case.
pub fn check<F>(cases: &[Case], name: &str, subject: impl FnOnce() -> F)
where
    F: Future<Output: Into<Option<Subject>>>,
{
    let case = cases.iter().find(|case| case.name == name).expect("the macro lists the cases");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be built");
    runtime.block_on(async {
        if let Some(subject) = subject().await.into() {
            case.run(subject).await;
        }
    });
}
