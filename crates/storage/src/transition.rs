//! What changes in a row and what is written beside it, as pure functions: every store, also a host's own, reads its
//! rows into these, applies the change, and writes them back in one transaction. No I/O, no clock.

pub mod lease;
pub mod ledger;
pub mod place;
pub mod queue;
pub mod registry;
