//! An in-process mail server for the tests of hosts that embed postroom: SMTP, IMAP and POP3 on loopback, with TLS by a
//! throw-away authority, and a scripted peer for what no decent server does. No code of postroom itself is used here.
//!
//! ```
//! use postroom_testkit::{MailServer, Protocol};
//! use std::time::Duration;
//! use tokio::{io::{AsyncReadExt, AsyncWriteExt}, net::TcpStream};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let server = MailServer::builder().account("ana@acme.example", "secret").start().await?;
//!
//! // Whatever the host does to send; here, a client of a few lines.
//! let mut client = TcpStream::connect(server.address(Protocol::Smtp)).await?;
//! let mut reply = [0; 1024];
//! for step in [
//!     "EHLO host.example",
//!     "MAIL FROM:<rui@other.example>",
//!     "RCPT TO:<ana@acme.example>",
//!     "DATA",
//!     "Subject: Hello\r\n\r\nHow are you?\r\n.",
//! ] {
//!     client.read(&mut reply).await?;
//!     client.write_all(format!("{step}\r\n").as_bytes()).await?;
//! }
//!
//! let mail = server.expect_accepted_by_subject("Hello", Duration::from_secs(10)).await;
//! assert_eq!(mail.recipients, ["ana@acme.example"]);
//! assert_eq!(server.messages("ana@acme.example", "INBOX")[0].bytes, mail.bytes);
//!
//! // And the other way: a mail that the host will find by IMAP or POP3.
//! server.deliver("ana@acme.example", "Subject: An answer\r\n\r\nFine.\r\n");
//! # Ok(())
//! # }
//! ```

mod accepted;
mod assertion;
mod builder;
mod encoded_word;
mod fault;
mod folder;
mod hostile;
mod imap;
mod mailboxes;
mod message;
mod pop3;
mod protocol;
mod refusal;
mod sasl;
pub mod script;
mod server;
mod session;
mod shared;
mod smtp;
mod store;
mod tls;
mod token;
mod utf7;
mod wire;

pub use accepted::Accepted;
pub use builder::MailServerBuilder;
pub use fault::{Fault, Step};
pub use folder::Stored;
pub use hostile::HostileMail;
pub use protocol::Protocol;
pub use refusal::Refusal;
pub use server::MailServer;
pub use shared::{PartialFetch, Relay};
pub use store::Session;
pub use tls::{Authority, Certificate};
pub use token::TokenEndpoint;
