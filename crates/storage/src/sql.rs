//! The SQL stores. What they share is in `rows` and `migrate`; each database has its room below, with SQL of its own.

mod migrate;
mod rows;
#[cfg(feature = "sqlite")]
pub mod sqlite;
