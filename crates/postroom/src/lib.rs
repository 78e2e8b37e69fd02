//! E-mail boxes for an application with many clients: a registry of inboxes and outboxes, the rule that picks the outbox of every
//! mail and says why, a sending queue, a receiving ledger. This crate is the facade, what a host adds to its `Cargo.toml`; the
//! rooms behind it are [`core`], [`engine`], [`storage`] and [`transport`], and [`manual`] explains them.
//!
//! A host registers mailboxes and links them to its contracts; it submits mail, and a [`MessageHandler`] of its own gets what
//! arrives. [`Postroom::run`] is the one future that does the work between; nothing runs behind the host's back.
//!
//! Here everything is in memory; with SQLite and SMTP it is the same code:
//!
//! ```
//! use std::sync::Arc;
//! use postroom::core::address::Address;
//! use postroom::core::id::{Actor, ContractId};
//! use postroom::core::mailbox::{MailboxDraft, OutboxDraft, SettingsDraft, Status};
//! use postroom::core::message::Submission;
//! use postroom::core::secret::SecretChange;
//! use postroom::storage::keyring::aead::{AeadKeyring, Key};
//! use postroom::storage::memory::MemoryStore;
//! use postroom::transport::memory::MemoryOutgoing;
//! use postroom::{Postroom, Work};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let servers = MemoryOutgoing::new();
//! let postroom = Postroom::builder(Arc::new(MemoryStore::new()))
//!     .with_keyring(Arc::new(AeadKeyring::new(Key::generate("2026")?)))
//!     .with_outgoing(Arc::new(servers.clone()))
//!     .build();
//!
//! let admin = Actor::parse("admin")?;
//! let form = MailboxDraft::new("Support", "127.0.0.1", SettingsDraft::Outbox(OutboxDraft {
//!     tls: "none".into(),
//!     auth: "none".into(),
//!     senders: vec!["Support <support@acme.example>".into()],
//!     ..OutboxDraft::default()
//! }));
//! let outbox = postroom.register(&admin, &form, SecretChange::Keep, Status::Active).await?;
//! postroom.set_standard(&admin, Some(outbox.id)).await?;
//!
//! let acme = ContractId::parse("ACME")?;
//! let decision = postroom.explain(&acme, None, None).await?;
//! assert_eq!(decision.reasons[0].to_string(), "standard"); // Nothing links ACME to an outbox of its own.
//!
//! let mail = Submission::text(acme, "Hello", "Your request is open.").with_to(Address::parse("ana@customer.example")?);
//! postroom.submit(&mail).await?;
//! postroom.run_with(Work::all().until_idle(), std::future::pending()).await?;
//! assert_eq!(servers.carried()[0].mailbox, outbox.id);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! | feature | what it adds | default |
//! |---|---|---|
//! | `smtp` | `transport::smtp`: sending | yes |
//! | `imap` | `transport::imap`: receiving | yes |
//! | `pop3` | `transport::pop3`: receiving | yes |
//! | `mysql` | `storage::sql::mysql`: rows in MariaDB | no |
//! | `postgres` | `storage::sql::postgres`: rows in PostgreSQL | no |
//! | `sqlite` | `storage::sql::sqlite`: rows in a file | yes |
//! | `aead` | `storage::keyring::aead`: secrets sealed at rest | yes |
//! | `conformance` | the suites that a host's own store or transport passes | no |
//! | `mock` | mockall mocks of every port | no |
//!
//! Features only add names: none changes what another does, and any of them go together.

pub mod manual;

pub use postroom_core as core;
pub use postroom_engine as engine;
pub use postroom_storage as storage;
pub use postroom_transport as transport;

pub use postroom_engine::{
    Answer, Builder, Delivery, Error, ErrorKind, Event, MessageHandler, Observer, Options, Postroom, Result,
    Submitted, Work,
};

/// The README's example, compiled and run.
#[cfg(all(doctest, feature = "aead", feature = "imap", feature = "smtp"))]
#[doc = include_str!("../../../README.md")]
struct Readme;
