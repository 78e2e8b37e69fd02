//! The store in PostgreSQL 15 or newer, for any number of processes that share queue and mailboxes. The schema is in
//! `migrations/postgres`; what is not PostgreSQL's own is in the folder above.

mod audit;
mod bodies;
mod budgets;
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
mod locks;
mod mailboxes;
mod plain;
#[cfg(test)]
mod plans;
mod queue;
mod schema;
mod store;
mod suppressions;
mod switches;
mod watches;

pub use store::{PgOptions, PgStore};
