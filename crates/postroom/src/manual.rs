//! The manual: how the house is built and why, in pages that the code is checked against where a test can do it.

/// The rooms, the files, the rules of the house.
#[doc = include_str!("../manual/architecture.md")]
pub mod architecture {}

/// The way of one sent and of one received mail through the code.
#[doc = include_str!("../manual/journeys.md")]
pub mod journeys {}

/// The states of a sent mail, drawn.
#[doc = include_str!("../manual/queue.md")]
pub mod queue {}

/// The columns for hosts that put mail into the queue by statements of their own.
#[doc = include_str!("../manual/rows.md")]
pub mod rows {}

/// The states of a received mail, drawn.
#[doc = include_str!("../manual/ledger.md")]
pub mod ledger {}

/// Mailboxes that sign in by access tokens.
#[doc = include_str!("../manual/oauth.md")]
pub mod oauth {}

/// What the replies of SMTP servers mean, row by row, with the source of each.
#[doc = include_str!("../manual/replies.md")]
pub mod replies {}

/// What can go wrong while mail is sent, and the test behind each row.
#[doc = include_str!("../manual/faults.md")]
pub mod faults {}

/// What is promised, and which of it holds today.
#[doc = include_str!("../manual/promises.md")]
pub mod promises {}

/// Every default, and where it stands.
#[doc = include_str!("../manual/defaults.md")]
pub mod defaults {}

/// What a sent mail costs on each store, where its time goes, and what the limit is.
#[doc = include_str!("../manual/performance.md")]
pub mod performance {}

/// Who could do harm, and what stands in his way.
#[doc = include_str!("../manual/threats.md")]
pub mod threats {}

/// What the IMAP adapter is built on, and what was tried before.
#[doc = include_str!("../manual/imap-base.md")]
pub mod imap_base {}
