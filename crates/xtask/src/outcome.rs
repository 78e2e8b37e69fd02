//! What every task comes back with. Nothing here knows a task.

/// A result, or why a task could not be done, in words for whoever called it.
pub(crate) type Outcome<T> = Result<T, String>;
