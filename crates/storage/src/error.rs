//! What can go wrong between postroom and its rows.

use std::fmt;
use std::sync::Arc;

use postroom_core::failure::Failure;
use postroom_core::id::QueueId;
use postroom_core::suppression::Suppression;
use postroom_core::time::Timestamp;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Addresses that an error names.
const SHOWN: usize = 10;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The store can't be reached, or broke off in the middle.
    Unavailable,
    /// The store is full, or the medium failed.
    Full,
    /// There is no such row.
    NotFound,
    /// The row was changed by somebody else since it was read.
    Conflict,
    /// The mailbox is in use and can't be removed without a replacement.
    InUse,
    /// Outbox, contract or step changed between the decision and the insert.
    StaleDecision,
    /// The idempotency key was used for another mail.
    IdempotencyConflict {
        /// The mail that has the key.
        existing: QueueId,
        /// The first field that differs.
        field: String,
    },
    /// A limit of the contract is reached: `boxes`, `queued` or `per-day`.
    LimitReached {
        /// Which one.
        limit: &'static str,
        /// How much it allows.
        most: u64,
    },
    /// A correspondent had as much automatic mail as one gets ([`postroom_core::automatic::ALLOWANCES`]).
    Budget {
        /// Whose budget is spent.
        correspondent: String,
        /// How much it allows.
        most: u32,
        /// In which time: `hour`, `day`.
        within: &'static str,
        /// From then on the next one fits.
        again: Timestamp,
    },
    /// Recipients are on the contract's suppression list.
    Suppressed(Vec<Suppression>),
    /// The state of the row has no such way.
    NotPossible {
        /// The state that it is in.
        state: &'static str,
    },
    /// The claim is not the row's any more: its lease ran out and another worker has it, or a person decided.
    StaleClaim,
    /// The bytes are not kept any more, or were never fetched.
    ContentGone,
    /// The host's connection is none on which a mail can be put into the queue.
    UnfitConnection {
        /// What is wrong with it.
        why: &'static str,
    },
    /// A row can't be read: it was written by a newer release, or damaged.
    Unreadable,
    /// The schema was made by a newer release, or a migration was interrupted.
    Schema,
    /// A secret can't be sealed or opened: no key, another key, or a row that was tampered with.
    Sealing,
}

/// An error between postroom and its rows. `Display` says what was done and what went wrong, never the source.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    stage: &'static str,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` while doing `stage` (`"claim"`).
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

    /// What to do about it.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self.kind {
            ErrorKind::Unavailable | ErrorKind::Full | ErrorKind::StaleDecision => Failure::RetryAfter(None),
            ErrorKind::NotFound
            | ErrorKind::Conflict
            | ErrorKind::InUse
            | ErrorKind::IdempotencyConflict { .. }
            | ErrorKind::LimitReached { .. }
            | ErrorKind::Budget { .. }
            | ErrorKind::Suppressed(_)
            | ErrorKind::NotPossible { .. }
            | ErrorKind::StaleClaim
            | ErrorKind::ContentGone
            | ErrorKind::UnfitConnection { .. } => Failure::GiveUp,
            ErrorKind::Unreadable | ErrorKind::Schema | ErrorKind::Sealing => Failure::Suspend,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.stage)?;
        match &self.kind {
            ErrorKind::Unavailable => f.write_str("the store can't be reached"),
            ErrorKind::Full => f.write_str("the store is full or its medium failed"),
            ErrorKind::NotFound => f.write_str("there is no such row"),
            ErrorKind::Conflict => f.write_str("it was changed by somebody else; read it again"),
            ErrorKind::InUse => f.write_str("it is in use; name a replacement"),
            ErrorKind::StaleDecision => {
                f.write_str("outbox, contract or step changed since the decision; decide again")
            }
            ErrorKind::IdempotencyConflict { existing, field } => {
                write!(f, "the idempotency key belongs to mail {existing}, whose {field} differs")
            }
            ErrorKind::LimitReached { limit, most } => {
                write!(f, "the contract's limit {limit}={most} is reached")
            }
            ErrorKind::Budget { correspondent, most, within, again } => write!(
                f,
                "{correspondent} had {most} automatic mails within one {within}, which is what a correspondent gets; the \
                 next one fits at {again}, and what a person writes is not counted"
            ),
            ErrorKind::Suppressed(entries) => {
                f.write_str("the contract sends no more to")?;
                for (index, entry) in entries.iter().take(SHOWN).enumerate() {
                    let Suppression { address, cause, detail, .. } = entry;
                    write!(f, "{} {address} ({cause}: {detail})", if index == 0 { "" } else { "," })?;
                }
                if let Some(more) = entries.len().checked_sub(SHOWN).filter(|more| *more > 0) {
                    write!(f, " and {more} more")?;
                }
                f.write_str("; leave them out, allow them, or say that this mail goes all the same")
            }
            ErrorKind::NotPossible { state } => write!(f, "not possible in the state {state}"),
            ErrorKind::StaleClaim => f.write_str(
                "the claim is not the mail's any more: it ran out and another worker has the mail, or a person decided; roll back",
            ),
            ErrorKind::ContentGone => {
                f.write_str("its bytes are not kept: retention removed them, or the baseline left it out")
            }
            ErrorKind::UnfitConnection { why } => write!(f, "the connection is not fit for it: {why}"),
            ErrorKind::Unreadable => f.write_str("a row can't be read; it is damaged or of a newer release"),
            ErrorKind::Schema => {
                f.write_str("the schema is not this release's; run `postroom migrate`, or a newer release")
            }
            ErrorKind::Sealing => {
                f.write_str("a secret can't be sealed or opened with the keys that are given")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}
