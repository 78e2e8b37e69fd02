//! The store in memory: every port over maps under one lock, with the same rules as the SQL stores. Nothing survives the
//! process; hosts' tests and the engine's own run over it.

mod bodies;
mod desk;
mod events;
mod forget;
mod ledger;
mod queue;
mod registry;
mod retention;
mod rows;
mod store;
mod suppressions;
mod watches;

pub use store::MemoryStore;
