//! The customers' side of the journey. On one machine a customer's mail is handed to the contract's server as his own server would,
//! in plain SMTP, and what he gets is read from the servers' records. On real servers he has mailboxes, and a postroom of his own
//! is his mail program.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::select_all;
use postroom::Postroom;
use postroom::core::address::NamedAddress;
use postroom::core::id::{ContractId, LedgerId};
use postroom::core::mail::Mail;
use postroom::core::message::Submission;
use postroom::core::mime::{Composition, compose, parse};
use postroom::core::time::Timestamp;
use postroom::engine::{Answer, Delivery, MessageHandler};
use postroom_testkit::{Accepted, MailServer, Protocol};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::Outcome;
use crate::loopback::Servers;

/// A mail as a customer writes it.
#[derive(Debug)]
pub(crate) struct Letter<'a> {
    pub(crate) contract: &'a ContractId,
    pub(crate) from: &'a NamedAddress,
    pub(crate) to: NamedAddress,
    pub(crate) subject: String,
    pub(crate) text: &'a str,
    /// What it answers.
    pub(crate) parent: Option<&'a Got>,
}

/// A mail that a customer got.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) mail: Mail,
    /// Its number in the customer's own postroom, on real servers.
    ledger: Option<LedgerId>,
}

/// How the customers write and read.
#[derive(Debug)]
pub(crate) enum Customers {
    Loopback(Arc<Servers>),
    Real(Correspondents),
}

impl Customers {
    /// Sends a letter; gives its Message-ID.
    pub(crate) async fn write(&self, letter: &Letter<'_>, now: Timestamp) -> Outcome<String> {
        match self {
            Self::Loopback(servers) => {
                let domain = letter.from.address().domain();
                let message_id = format!("<{}.{}@{}>", now.as_millis(), letter.contract, domain.as_str());
                hand_over(servers.of(letter.contract.as_str()), letter, &message_id, now).await?;
                Ok(message_id)
            }
            Self::Real(correspondents) => {
                let mut mail = Submission::text(letter.contract.clone(), letter.subject.clone(), letter.text)
                    .with_to(letter.to.clone());
                mail.in_reply_to = letter.parent.and_then(|parent| parent.ledger);
                Ok(correspondents.postroom.submit(&mail).await?.message_id)
            }
        }
    }

    /// Waits for a mail to a customer that answers `message_id`.
    pub(crate) async fn read(
        &self,
        customer: &NamedAddress,
        message_id: &str,
        within: Duration,
    ) -> Option<Got> {
        let answers = |mail: &Mail| mail.in_reply_to.iter().any(|id| id == message_id);
        match self {
            Self::Loopback(servers) => {
                let address = customer.address().as_str();
                let find = |server: &MailServer| {
                    let to_him = |mail: &Accepted| mail.recipients.iter().any(|to| to == address);
                    let mails = server.accepted().into_iter().filter(to_him);
                    mails.map(|mail| parse(mail.bytes)).find(answers)
                };
                let waits = servers.all().map(|(_, server)| Box::pin(server.wait_for(within, find)));
                let (found, ..) = select_all(waits).await;
                found.map(|mail| Got { mail, ledger: None })
            }
            Self::Real(correspondents) => {
                let mut changes = correspondents.read.changed.subscribe();
                let search = async {
                    loop {
                        let found = correspondents.read.all().into_iter().find(|got| answers(&got.mail));
                        if let Some(got) = found {
                            return got;
                        }
                        let _ = changes.changed().await;
                    }
                };
                tokio::time::timeout(within, search).await.ok()
            }
        }
    }
}

/// Hands a letter to a server, as the customer's own server does.
async fn hand_over(
    server: &MailServer,
    letter: &Letter<'_>,
    message_id: &str,
    now: Timestamp,
) -> Outcome<()> {
    let parent = letter.parent.map(|got| &got.mail);
    let composition = Composition {
        from: letter.from.clone(),
        reply_to: None,
        to: vec![letter.to.clone()],
        cc: Vec::new(),
        subject: letter.subject.clone(),
        text: Some(letter.text.to_owned()),
        html: None,
        attachments: Vec::new(),
        headers: Vec::new(),
        message_id: message_id.to_owned(),
        in_reply_to: parent.and_then(|mail| mail.message_id.clone()),
        references: parent
            .into_iter()
            .flat_map(|mail| mail.references.iter().chain(&mail.message_id).cloned())
            .collect(),
    };
    let mail = String::from_utf8(compose(&composition, now, [0; 32])?)?;
    let mut stream = BufReader::new(TcpStream::connect(server.address(Protocol::Smtp)).await?);
    expect(&mut stream, "220").await?;
    for (command, code) in [
        (format!("EHLO {}", letter.from.address().domain().as_str()), "250"),
        (format!("MAIL FROM:<{}>", letter.from.address()), "250"),
        (format!("RCPT TO:<{}>", letter.to.address()), "250"),
        ("DATA".to_owned(), "354"),
        // RFC 5321 section 4.5.2: a dot that begins a line is doubled.
        (format!("{}\r\n.", mail.replace("\r\n.", "\r\n..").trim_end()), "250"),
        ("QUIT".to_owned(), "221"),
    ] {
        stream.write_all(format!("{command}\r\n").as_bytes()).await?;
        expect(&mut stream, code).await?;
    }
    Ok(())
}

/// Reads a reply of one or more lines (RFC 5321 section 4.2.1).
async fn expect(stream: &mut BufReader<TcpStream>, code: &str) -> Outcome<()> {
    let mut line = String::new();
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        if line.as_bytes().get(3) != Some(&b'-') {
            break;
        }
    }
    if line.starts_with(code) {
        Ok(())
    } else {
        Err(format!("{code} expected, and the server said {line:?}").into())
    }
}

/// The customers' mail program on real servers.
#[derive(Debug)]
pub(crate) struct Correspondents {
    pub(crate) postroom: Postroom,
    pub(crate) read: Arc<Pigeonhole>,
}

/// What the customers got.
#[derive(Debug, Default)]
pub(crate) struct Pigeonhole {
    got: Mutex<Vec<Got>>,
    changed: watch::Sender<()>,
}

impl Pigeonhole {
    fn all(&self) -> Vec<Got> {
        self.got.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Puts what arrives into the pigeonhole.
#[derive(Debug)]
pub(crate) struct Sorter(pub(crate) Arc<Pigeonhole>);

#[async_trait]
impl MessageHandler for Sorter {
    async fn handle(&self, delivery: Delivery) -> Answer {
        let got = Got { mail: delivery.mail, ledger: Some(delivery.id) };
        self.0.got.lock().unwrap_or_else(PoisonError::into_inner).push(got);
        self.0.changed.send_replace(());
        Answer::Done
    }
}
