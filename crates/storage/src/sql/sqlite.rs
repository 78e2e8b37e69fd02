//! The store in an SQLite file, for one process with its workers and any number of command-line calls beside it. The
//! schema is in `migrations/sqlite`; what is not SQLite's own is in the folder above.

mod audit;
mod bodies;
mod budgets;
mod checkpoint;
mod connection;
mod correspondents;
mod events;
mod failed;
#[cfg(test)]
mod faults;
mod forget;
mod health;
mod host;
mod lanes;
mod ledger;
mod links;
mod mailboxes;
#[cfg(test)]
mod plans;
mod queue;
mod schema;
mod script;
mod store;
mod suppressions;
mod switches;
mod watches;

pub use store::{SqliteOptions, SqliteStore};
