//! What can go wrong in a verb, as the host and the operator see it.

use std::fmt;
use std::sync::Arc;

use postroom_core::failure::Failure;
use postroom_core::resolve::Unresolved;
use postroom_core::suppression::Suppression;
use postroom_core::violation::{Invalid, Violations};
use postroom_storage::ErrorKind as StoreKind;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input breaks rules: all of them are named.
    Invalid(Violations),
    /// No outbox can be named.
    Unresolved(Unresolved),
    /// There is none with this id.
    NotFound,
    /// Recipients are on the contract's suppression list.
    Suppressed(Vec<Suppression>),
    /// A program is to answer a mail that a program wrote (RFC 3834 section 2).
    AnswersAutomatic {
        /// What shows it, as the ledger has it.
        sign: String,
    },
    /// The store refused, or can't be reached.
    Store(StoreKind),
    /// A key is needed to seal or open a secret, and none fits.
    Sealing,
    /// The host's directory could not answer.
    Directory,
    /// The system gives no randomness.
    Randomness,
}

/// An error of a verb. `Display` names the verb and the cause, never the source.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    stage: &'static str,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` while doing `stage`.
    #[must_use]
    pub fn new(kind: ErrorKind, stage: &'static str) -> Self {
        Self { kind, stage, source: None }
    }

    /// With its cause, for `source()` only.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// What was being done.
    #[must_use]
    pub fn stage(&self) -> &'static str {
        self.stage
    }

    /// A stable code for scripts and forms.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match &self.kind {
            ErrorKind::Invalid(_) => "invalid",
            ErrorKind::Unresolved(unresolved) => unresolved.code(),
            ErrorKind::Suppressed(_) | ErrorKind::Store(StoreKind::Suppressed(_)) => "suppressed",
            ErrorKind::AnswersAutomatic { .. } => "answers-automatic",
            ErrorKind::Store(StoreKind::Budget { .. }) => "budget",
            ErrorKind::NotFound | ErrorKind::Store(StoreKind::NotFound) => "not-found",
            ErrorKind::Sealing | ErrorKind::Store(StoreKind::Sealing) => "sealing",
            ErrorKind::Directory => "directory",
            ErrorKind::Randomness => "randomness",
            ErrorKind::Store(StoreKind::Conflict) => "conflict",
            ErrorKind::Store(StoreKind::InUse) => "in-use",
            ErrorKind::Store(StoreKind::StaleDecision) => "stale-decision",
            ErrorKind::Store(StoreKind::IdempotencyConflict { .. }) => "idempotency-conflict",
            ErrorKind::Store(StoreKind::LimitReached { .. }) => "limit-reached",
            ErrorKind::Store(StoreKind::NotPossible { .. }) => "not-possible",
            ErrorKind::Store(StoreKind::StaleClaim) => "stale-claim",
            ErrorKind::Store(StoreKind::ContentGone) => "content-gone",
            ErrorKind::Store(StoreKind::Schema) => "schema",
            ErrorKind::Store(StoreKind::UnfitConnection { .. }) => "unfit-connection",
            ErrorKind::Store(_) => "storage",
        }
    }

    /// Whether the input or a rule is the reason, rather than a store or a server.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match &self.kind {
            ErrorKind::Invalid(_)
            | ErrorKind::Unresolved(_)
            | ErrorKind::Suppressed(_)
            | ErrorKind::AnswersAutomatic { .. }
            | ErrorKind::NotFound
            | ErrorKind::Sealing => true,
            ErrorKind::Directory | ErrorKind::Randomness => false,
            ErrorKind::Store(kind) => !matches!(
                kind,
                StoreKind::Unavailable
                    | StoreKind::Full
                    | StoreKind::Unreadable
                    | StoreKind::Schema
                    | StoreKind::UnfitConnection { .. }
            ),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match &self.kind {
            ErrorKind::Invalid(_)
            | ErrorKind::Unresolved(_)
            | ErrorKind::Suppressed(_)
            | ErrorKind::AnswersAutomatic { .. }
            | ErrorKind::NotFound => Failure::GiveUp,
            ErrorKind::Store(kind) => postroom_storage::Error::new(kind.clone(), self.stage).failure(),
            ErrorKind::Sealing => Failure::Suspend,
            ErrorKind::Directory | ErrorKind::Randomness => Failure::RetryAfter(None),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ErrorKind::Invalid(violations) => violations.fmt(f),
            ErrorKind::Unresolved(unresolved) => unresolved.fmt(f),
            ErrorKind::Suppressed(entries) => {
                postroom_storage::Error::new(StoreKind::Suppressed(entries.clone()), self.stage).fmt(f)
            }
            ErrorKind::AnswersAutomatic { sign } => write!(
                f,
                "{}: a program wrote the mail that is answered ({sign}), and programs don't answer each other; a person may",
                self.stage
            ),
            ErrorKind::NotFound => write!(f, "{}: there is none with this id", self.stage),
            ErrorKind::Store(kind) => postroom_storage::Error::new(kind.clone(), self.stage).fmt(f),
            ErrorKind::Sealing => write!(
                f,
                "{}: a secret can't be sealed or opened; give the sealing key that was used for it",
                self.stage
            ),
            ErrorKind::Directory => write!(f, "{}: the host's directory could not answer", self.stage),
            ErrorKind::Randomness => write!(f, "{}: the system gives no randomness", self.stage),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}

impl From<postroom_storage::Error> for Error {
    fn from(error: postroom_storage::Error) -> Self {
        let kind = match error.kind() {
            StoreKind::Sealing => ErrorKind::Sealing,
            StoreKind::Suppressed(entries) => ErrorKind::Suppressed(entries.clone()),
            kind => ErrorKind::Store(kind.clone()),
        };
        Self::new(kind, error.stage()).with_source(error)
    }
}

impl From<Violations> for Error {
    fn from(violations: Violations) -> Self {
        Self::new(ErrorKind::Invalid(violations), "check the input")
    }
}

impl From<Unresolved> for Error {
    fn from(unresolved: Unresolved) -> Self {
        Self::new(ErrorKind::Unresolved(unresolved), "choose an outbox")
    }
}

/// A single value that breaks a rule, in a field of that rule's name.
impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        let field = invalid.rule().field;
        Violations::from(invalid.at(field)).into()
    }
}

/// An error for a timeline or a mailbox's health: what, where, the server's words, and what to do.
pub(crate) fn said(error: &postroom_transport::Error) -> String {
    format!("{error}; {}", error.remedy())
}
