//! The words and decisions of postroom: mailboxes, contracts and steps, which outbox sends, which contract receives, the
//! form of a mail, and the states of queue and ledger. No I/O, no clock, no randomness: every function takes what it needs
//! and gives the same for the same, so `now` and `seed` are arguments.
//!
//! | what | modules |
//! |---|---|
//! | small words | [`id`], [`time`], [`address`], [`endpoint`], [`provider`], [`failure`] |
//! | rules on input | [`rules`], [`violation`] |
//! | secrets | [`secret`], [`credentials`] |
//! | the registry | [`mailbox`], [`contract`], [`step`], [`template`] |
//! | sending | [`message`], [`resolve`], [`queue`], [`schedule`], [`budget`], [`governor`] |
//! | receiving | [`mail`], [`reply`], [`thread`], [`sort`], [`ledger`] |
//! | the form on the wire | [`mime`] |
//!
//! Values are valid by construction: forms such as [`mailbox::MailboxDraft`] become settings by one check, which reports
//! every violation at once.
//!
//! # Example
//!
//! Which outbox sends a mail of the contract `acme`, as whom, and why:
//!
//! ```
//! use postroom_core::contract::Contract;
//! use postroom_core::id::{Actor, ContractId, MailboxId, Revision};
//! use postroom_core::mailbox::{Mailbox, MailboxDraft, OutboxDraft, Status};
//! use postroom_core::resolve::{Question, Reason, WhenUnavailable, resolve};
//! use postroom_core::time::Timestamp;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let form = OutboxDraft {
//!     tls: "starttls".into(),
//!     auth: "none".into(),
//!     senders: vec!["Acme Support <support@acme.example>".into()],
//!     ..OutboxDraft::default()
//! };
//! let form = MailboxDraft::new("Acme's outbox", "mail.acme.example", form);
//! let (id, settings) = (MailboxId::new(7), form.check()?);
//! let (changed_by, changed_at) = (Actor::parse("ana")?, Timestamp::from_millis(0));
//! let outbox = Mailbox::new(id, settings, Status::Active, Revision::new(1), changed_by, changed_at);
//! let contract = Contract::new(ContractId::parse("acme")?).with_outbox(id, None);
//!
//! let resolution = resolve(&Question {
//!     contract: Some(&contract),
//!     step: None,
//!     standard: None,
//!     sender: None,
//!     when_unavailable: WhenUnavailable::Refuse,
//!     mailbox: &|wanted| (wanted == outbox.id).then_some(&outbox),
//! })?;
//! assert_eq!(resolution.outbox, id);
//! assert_eq!(resolution.sender.to_string(), "\"Acme Support\" <support@acme.example>");
//! assert_eq!(resolution.reasons, [Reason::Contract, Reason::SenderDefault]);
//! # Ok(())
//! # }
//! ```

mod attachment;
mod header;
mod text;
mod transfer;

pub mod address;
pub mod automatic;
pub mod bounce;
pub mod budget;
pub mod contract;
pub mod credentials;
pub mod endpoint;
pub mod failure;
pub mod governor;
pub mod id;
pub mod ledger;
pub mod mail;
pub mod mailbox;
pub mod message;
pub mod mime;
pub mod provider;
pub mod queue;
pub mod reply;
pub mod reroute;
pub mod resolve;
pub mod rules;
pub mod schedule;
pub mod secret;
pub mod sort;
pub mod step;
pub mod suppression;
pub mod template;
pub mod thread;
pub mod time;
pub mod violation;
