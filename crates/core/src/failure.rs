//! The four answers to "and now?" after something went wrong on the way to or from a mail server.

use std::time::Duration;

/// What to do after a failure (see the manual, "Sending").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "every caller must decide on each of the four")]
pub enum Failure {
    /// This mail or recipient can never succeed as it is: a real 5xx.
    GiveUp,
    /// It may succeed later: a 4xx, the network, a limit. The server may have said when.
    RetryAfter(Option<Duration>),
    /// No mail of this mailbox can succeed before a person acts: sign-in, certificate, configuration. Costs no attempt.
    Suspend,
    /// The connection was lost after the final dot and before the reply: the mail may have been accepted.
    Doubt,
}
