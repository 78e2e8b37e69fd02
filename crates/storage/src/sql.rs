//! The SQL stores. What they share is in `rows`, `migrate` and the rooms of calls that share a commit, `group` and `joint`; each
//! database has its room below, with SQL of its own.

mod group;
mod joint;
mod migrate;
#[cfg(feature = "postgres")]
pub mod postgres;
mod rows;
#[cfg(feature = "sqlite")]
pub mod sqlite;
