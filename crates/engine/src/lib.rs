//! The verbs of postroom over the ports of `postroom-storage` and `postroom-transport`: register, probe, submit, dispatch,
//! fetch, handle, maintain. A [`Postroom`] is the handle that a host holds; [`Postroom::run`] is the one future that does
//! the work. Nothing here names a protocol or a database.
//!
//! ```
//! use std::sync::Arc;
//! use postroom_core::address::Address;
//! use postroom_core::id::{Actor, ContractId};
//! use postroom_core::mailbox::{MailboxDraft, OutboxDraft, SettingsDraft, Status};
//! use postroom_core::{message::Submission, secret::SecretChange};
//! use postroom_engine::{Postroom, Work};
//! use postroom_storage::memory::MemoryStore;
//! use postroom_transport::memory::MemoryOutgoing;
//! # use postroom_storage::{Result, keyring::{Binding, Keyring, Sealed}};
//! # struct Keys;
//! # impl Keyring for Keys {
//! #     fn seal(&self, _: &Binding, plain: &[u8]) -> Result<Sealed> { Ok(Sealed::from_bytes(plain.to_vec())) }
//! #     fn open(&self, _: &Binding, sealed: &Sealed) -> Result<zeroize::Zeroizing<Vec<u8>>> { Ok(sealed.as_bytes().to_vec().into()) }
//! # }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
//! # let keys = Keys;
//! let servers = Arc::new(MemoryOutgoing::new()); // Or `smtp::SmtpTransport::new()`.
//! let postroom = Postroom::builder(Arc::new(MemoryStore::new()))
//!     .with_keyring(Arc::new(keys)) // Such as `keyring::aead::AeadKeyring`.
//!     .with_outgoing(servers.clone())
//!     .build();
//!
//! let host = Actor::parse("host")?;
//! let outbox = MailboxDraft {
//!     description: "Support".to_owned(),
//!     server: "127.0.0.1".to_owned(),
//!     port: None,
//!     authority: None,
//!     max_message: None,
//!     danger_plaintext: false,
//!     settings: SettingsDraft::Outbox(OutboxDraft {
//!         tls: "none".to_owned(),
//!         auth: "none".to_owned(),
//!         senders: vec!["Support <support@acme.example>".to_owned()],
//!         ..OutboxDraft::default()
//!     }),
//! };
//! let outbox = postroom.register(&host, &outbox, SecretChange::Keep, Status::Active).await?;
//! postroom.set_standard(&host, Some(outbox.id)).await?;
//!
//! let mail = Submission::text(ContractId::parse("ACME")?, "Hello", "Your request is open.")
//!     .with_to(Address::parse("ana@customer.example")?);
//! let sent = postroom.submit(&mail).await?;
//! assert_eq!(sent.reasons[0].to_string(), "standard");
//!
//! postroom.run_with(Work::all().until_idle(), std::future::pending()).await?;
//! assert_eq!(servers.carried().len(), 1);
//! # Ok(())
//! # }
//! ```

mod ask;
mod bounce;
mod charge;
mod collect;
mod copies;
mod dispatch;
mod empty_lists;
mod error;
mod event;
mod explain;
mod fetch;
mod forget;
mod handle;
mod handler;
mod intake;
mod lanes;
mod links;
mod maintain;
mod pace;
mod postroom;
mod probe;
mod prove;
mod recognise;
mod register;
mod release;
mod reroute;
mod run;
mod sent_copy;
mod settling;
mod sort;
mod submit;
mod suppress;
mod unlock;
mod watch;
mod withheld;
mod worker;

pub use error::{Error, ErrorKind, Result};
pub use event::Event;
pub use forget::ForgottenContract;
pub use handler::*;
pub use pace::Pacing;
pub use postroom::{Builder, Options, Postroom};
pub use run::Work;
pub use submit::Submitted;
