//! The ports of postroom to mail servers, and their adapters: [`OutgoingTransport`] drives one connection over the mails of
//! a [`Lane`], [`IncomingTransport`] opens [`IncomingSession`]s. [`memory`] has both for tests, always compiled; SMTP, IMAP
//! and POP3 are features. Nothing is decided here about retries: an [`Error`] says what it means, the engine acts.
//!
//! Features: `smtp`, `imap`, `pop3` are the adapters; `oauth` is the HTTP client for access tokens; `mock` has mockall mocks of every port; `conformance` has the suite
//! that an adapter of one's own can run.
//!
//! ```
//! use std::sync::Mutex;
//! use async_trait::async_trait;
//! use postroom_core::{address::Address, id::{ClaimId, MailboxId, Revision}, time::Timestamp};
//! use postroom_core::endpoint::{Endpoint, Host, Port, Tls};
//! use postroom_transport::memory::MemoryOutgoing;
//! use postroom_transport::{Crossing, Job, Lane, OutgoingTransport, Protocol, Receipt, Route};
//!
//! /// A lane of one mail. The engine's lanes claim rows of the queue.
//! struct Once(Mutex<Option<Job>>);
//!
//! #[async_trait]
//! impl Lane for Once {
//!     async fn next(&self) -> Option<Job> {
//!         self.0.lock().expect("no panic while it is held").take()
//!     }
//!     async fn about_to_cross(&self, _: ClaimId) -> Crossing {
//!         Crossing::Go // A queue commits its mark first.
//!     }
//!     async fn finished(&self, _: ClaimId, receipt: Receipt) {
//!         assert!(receipt.outcomes[0].is_ok());
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let endpoint = Endpoint::new(Host::parse("mail.acme.example")?, Port::new(465)?);
//! let route = Route::new(MailboxId::new(1), Revision::new(1), Protocol::Smtp, endpoint, Tls::Implicit);
//! let to = vec![Address::parse("ana@acme.example")?];
//! let content = "Subject: Hello\r\n\r\nHow are you?\r\n";
//! let job = Job::new(ClaimId::new(Timestamp::from_millis(0), [7; 10]), None, to, content.into());
//!
//! let transport = MemoryOutgoing::new(); // Or `smtp::SmtpTransport::new()`.
//! transport.carry(&route, &Once(Mutex::new(Some(job)))).await?;
//! assert_eq!(transport.carried()[0].content, content);
//! # Ok(())
//! # }
//! ```

#[cfg(any(feature = "imap", feature = "pop3"))]
pub mod by_protocol;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
#[cfg(feature = "imap")]
pub mod imap;
mod incoming;
pub mod memory;
pub mod oauth;
mod outgoing;
#[cfg(feature = "pop3")]
pub mod pop3;
mod probe;
mod route;
#[cfg(feature = "smtp")]
pub mod smtp;
#[cfg(any(feature = "imap", feature = "pop3"))]
mod timeouts;
#[cfg(feature = "wire")]
mod wire;

pub use error::{Error, ErrorKind, Result, Stage, TEXT_LIMIT};
pub use incoming::*;
pub use outgoing::*;
pub use probe::{Outcome, ProbeReport};
pub use route::{Protocol, Route};
#[cfg(any(feature = "imap", feature = "pop3"))]
pub use timeouts::IncomingTimeouts;
