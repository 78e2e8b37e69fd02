//! The SQL stores. What they share is in `rows`, `migrate`, `admit`, `answers`, `combine`, `forget` and `recognise`; each database has its room below, with SQL of its own.

mod admit;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod answers;
mod combine;
mod forget;
mod migrate;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "postgres")]
pub mod postgres;
mod recognise;
mod rows;
#[cfg(feature = "sqlite")]
pub mod sqlite;
