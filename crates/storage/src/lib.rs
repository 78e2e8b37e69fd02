//! The ports of postroom to its rows, and their adapters.
//!
//! - The ports: [`Mailboxes`], [`Links`], [`Switches`], [`HealthBook`], [`Audit`], [`Vault`] for the registry;
//!   [`QueueIntake`], [`QueueWork`], [`QueueDesk`], [`Budgets`], [`Suppressions`]; [`LedgerIntake`], [`LedgerWork`], [`LedgerDesk`]; [`Watches`]; [`Forgetting`];
//!   [`Bodies`];
//!   [`Events`]; [`Clock`]. A [`Store`] is all of them. Their documentation is the contract, clause by clause.
//! - [`memory`]: a store in memory, always compiled. The SQL stores come by features.
//! - [`transition`] and [`audit`]: what changes in a row, as pure functions that every store uses, also a host's own.
//! - `conformance`: the suite that every store passes, one test for each clause.
//! - [`keyring`]: sealing of secrets.
//!
//! Every statement takes `now` from the store's clock. Writes of workers are fenced by claims: what a worker says after
//! it lost its claim changes nothing, but for the late answer that settles its own doubt.
//!
//! ```
//! use postroom_core::id::{Actor, Revision};
//! use postroom_core::mailbox::{Mailbox, MailboxDraft, OutboxDraft, SettingsDraft, Status};
//! use postroom_storage::memory::MemoryStore;
//! use postroom_storage::{Change, Clock, Mailboxes, MailboxQuery, Switches};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let settings = MailboxDraft {
//!     description: "The company's relay".into(),
//!     server: "127.0.0.1".into(),
//!     port: Some(25),
//!     authority: None,
//!     max_message: None,
//!     danger_plaintext: false,
//!     settings: SettingsDraft::Outbox(OutboxDraft {
//!         tls: "none".into(),
//!         auth: "none".into(),
//!         senders: vec!["Service desk <desk@acme.example>".into()],
//!         ..OutboxDraft::default()
//!     }),
//! }
//! .check()?;
//! let store = MemoryStore::new();
//! let change = Change::new(store.now(), Actor::parse("ana")?);
//! let id = store.reserve().await?;
//! let (by, at) = (change.actor.clone(), change.now);
//! let relay = Mailbox::new(id, settings, Status::Active, Revision::new(1), by, at);
//! store.add(&change, &relay, None).await?;
//! store.set_standard(&change, Some(id)).await?;
//!
//! let query = MailboxQuery { server: Some("127.".into()), ..MailboxQuery::default() };
//! assert_eq!(store.search(&query).await?, [relay]);
//! assert!(store.uses(id).await?.standard);
//! # Ok(())
//! # })
//! # }
//! ```

pub mod audit;
mod bodies;
mod budgets;
mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod events;
mod forget;
pub mod keyring;
mod ledger;
pub mod memory;
mod queue;
mod registry;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
pub mod sql;
mod suppressions;
pub mod transition;
mod watches;

pub use bodies::*;
pub use budgets::*;
pub use clock::*;
pub use error::{Error, ErrorKind, Result};
pub use events::*;
pub use forget::*;
pub use ledger::*;
pub use queue::*;
pub use registry::*;
#[cfg(feature = "mysql")]
pub use sql::mysql::{MySqlOptions, MySqlStore};
#[cfg(feature = "postgres")]
pub use sql::postgres::{PgOptions, PgStore};
#[cfg(feature = "sqlite")]
pub use sql::sqlite::{SqliteOptions, SqliteStore};
/// The driver of the SQL stores, for hosts that put mail into the queue within their own transactions.
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
pub use sqlx;
pub use suppressions::*;
pub use watches::*;

/// Everything that the engine needs of a store. One store is all of it.
pub trait Store:
    Mailboxes
    + Links
    + Switches
    + HealthBook
    + Audit
    + Vault
    + Bodies
    + Events
    + Clock
    + QueueIntake
    + QueueWork
    + QueueDesk
    + Budgets
    + Suppressions
    + Forgetting
    + LedgerIntake
    + LedgerWork
    + LedgerDesk
    + Watches
{
}

impl<T> Store for T where
    T: Mailboxes
        + Links
        + Switches
        + HealthBook
        + Audit
        + Vault
        + Bodies
        + Events
        + Clock
        + QueueIntake
        + QueueWork
        + QueueDesk
        + Budgets
        + Suppressions
        + Forgetting
        + Forgetting
        + LedgerIntake
        + LedgerWork
        + LedgerDesk
        + Watches
{
}
