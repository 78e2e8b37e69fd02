//! What an observer is told: the live hint of what a worker of this process just did, after it was committed.

use std::fmt;
use std::time::Duration;

use postroom_core::id::{ContractId, LedgerId, MailboxId, QueueId};
use postroom_core::ledger;
use postroom_core::queue;

/// Something that happened and is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A mail was put into the queue.
    Queued {
        /// The mail.
        id: QueueId,
        /// The outbox.
        outbox: MailboxId,
    },
    /// Something happened to recipients of a mail.
    Sent {
        /// The mail.
        id: QueueId,
        /// The outbox.
        outbox: MailboxId,
        /// What happened, to each recipient of the attempt.
        results: Vec<queue::Event>,
    },
    /// A received mail was stored.
    Stored {
        /// The mail.
        id: LedgerId,
        /// The inbox.
        mailbox: MailboxId,
        /// The contract.
        contract: Option<ContractId>,
        /// The state that it was stored in.
        state: ledger::State,
    },
    /// The handler answered.
    Handled {
        /// The mail.
        id: LedgerId,
        /// What follows.
        event: ledger::Event,
    },
    /// The handler was given a mail and has not answered for so long. Its claim is renewed, and nothing else of the mailbox is handed over
    /// meanwhile. Told after ten minutes, and after each ten more.
    Unanswered {
        /// The mail.
        id: LedgerId,
        /// The inbox.
        mailbox: MailboxId,
        /// Since when it was not answered.
        since: Duration,
    },
    /// A mailbox failed.
    Failed {
        /// The mailbox.
        mailbox: MailboxId,
        /// Whether a person has to act.
        suspended: bool,
        /// Stage, cause and remedy.
        error: String,
    },
    /// The server of an inbox does not give a mail, or ends the session over it. The others are read, and it is asked for again, ever more
    /// rarely. Told once an hour for each mail at most.
    Withheld {
        /// The inbox.
        mailbox: MailboxId,
        /// The mail's key.
        key: ledger::RemoteKey,
        /// Stage, cause and remedy.
        error: String,
    },
    /// The store failed; the worker waits and tries again.
    StoreFailed {
        /// What it was doing and what went wrong.
        error: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queued { id, outbox } => write!(f, "mail {id} queued for outbox {outbox}"),
            Self::Sent { id, outbox, results } => {
                write!(f, "mail {id} by outbox {outbox}:")?;
                results.iter().try_for_each(|event| write!(f, " {event}"))
            }
            Self::Stored { id, mailbox, contract, state } => {
                write!(f, "mail {id} of inbox {mailbox} stored as {state}")?;
                contract.as_ref().map_or(Ok(()), |contract| write!(f, " for contract {contract}"))
            }
            Self::Handled { id, event } => write!(f, "mail {id}: {event}"),
            Self::Unanswered { id, mailbox, since } => {
                let minutes = since.as_secs() / 60;
                write!(f, "mail {id} of inbox {mailbox}: the handler has not answered for {minutes} min")
            }
            Self::Failed { mailbox, suspended, error } => {
                write!(f, "mailbox {mailbox} {}: {error}", if *suspended { "suspended" } else { "failed" })
            }
            Self::Withheld { mailbox, key, error } => {
                write!(f, "the server of inbox {mailbox} does not give mail {key}: {error}")
            }
            Self::StoreFailed { error } => write!(f, "the store failed: {error}"),
        }
    }
}
