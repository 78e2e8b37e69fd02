//! How a server is set up before it starts. What can change while it runs is on the server itself.

use crate::{
    protocol::Protocol,
    server::MailServer,
    shared::{PartialFetch, Relay, Settings, Shared},
    store::Store,
    tls::{Authority, Certificate},
    wire::LineEnd,
};
use std::{collections::BTreeSet, io};

/// Settings of a [`MailServer`], from [`MailServer::builder`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `start` is awaited"]
pub struct MailServerBuilder {
    store: Store,
    settings: Settings,
    authority: Option<Authority>,
    certificate: Certificate,
}

impl MailServer {
    /// A server without accounts that accepts and records all mail. For more, use [`MailServer::builder`].
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> io::Result<Self> {
        Self::builder().start().await
    }

    /// Begins to set a server up.
    pub fn builder() -> MailServerBuilder {
        MailServerBuilder {
            store: Store::default(),
            settings: Settings {
                require_sign_in: false,
                plaintext_auth: false,
                smtp_line_end: LineEnd::default(),
                relay: Relay::default(),
                size_limit: 32 * 1024 * 1024,
                partial_fetch: PartialFetch::default(),
                withheld: BTreeSet::new(),
            },
            authority: None,
            certificate: Certificate::default(),
        }
    }
}

impl MailServerBuilder {
    /// Adds an account with an INBOX. The login is also the address that it receives, in any case, with any `+detail`.
    pub fn account(mut self, login: &str, password: &str) -> Self {
        self.store.add_account(login, password);
        self
    }

    /// Lets an account receive another address, or with `*@domain` whatever no other account of the domain receives.
    pub fn alias(mut self, address: &str, login: &str) -> Self {
        self.store.add_alias(address, login);
        self
    }

    /// Refuses MAIL FROM with 530 before sign-in.
    pub fn require_sign_in(mut self) -> Self {
        self.settings.require_sign_in = true;
        self
    }

    /// For whom mail to other addresses than the accounts' is taken.
    pub fn relay(mut self, relay: Relay) -> Self {
        self.settings.relay = relay;
        self
    }

    /// The largest mail in bytes, announced by SIZE, also the largest IMAP literal; 32 MiB unless set.
    pub fn size_limit(mut self, bytes: usize) -> Self {
        self.settings.size_limit = bytes;
        self
    }

    /// What the IMAP side makes of a FETCH that asks for a part of a body.
    pub fn partial_fetch(mut self, partial_fetch: PartialFetch) -> Self {
        self.settings.partial_fetch = partial_fetch;
        self
    }

    /// Neither offers nor serves a capability on the ports of this protocol, to act as a poorer server.
    ///
    /// SMTP: `PIPELINING`, `8BITMIME`, `ENHANCEDSTATUSCODES`, `SIZE`, `STARTTLS`, `AUTH`, and the
    /// mechanisms `PLAIN`, `LOGIN`. IMAP: `LITERAL+`, `SASL-IR`, `ID`, `NAMESPACE`, `IDLE`, `UIDPLUS`, `MOVE`, `UNSELECT`,
    /// `STARTTLS`, `AUTH=PLAIN`, `AUTH=LOGIN`, `LOGIN` (the command). POP3: `TOP`, `UIDL`, `STLS`, `USER`, `SASL`.
    pub fn without(mut self, protocol: Protocol, capability: &str) -> Self {
        self.settings.withheld.insert((protocol.service(), capability.to_owned()));
        self
    }

    /// Takes passwords without TLS as well, and offers to.
    pub fn danger_plaintext_auth(mut self) -> Self {
        self.settings.plaintext_auth = true;
        self
    }

    /// Lets the SMTP side take a bare LF for a line's end, as old servers do, so that a client that can be made to smuggle
    /// a mail inside another is found out: two mails arrive.
    pub fn danger_bare_newlines(mut self) -> Self {
        self.settings.smtp_line_end = LineEnd::BareLf;
        self
    }

    /// Uses this authority instead of a new one, so that several servers can be trusted at once.
    pub fn authority(mut self, authority: &Authority) -> Self {
        self.authority = Some(authority.clone());
        self
    }

    /// What is shown to clients that begin TLS.
    pub fn certificate(mut self, certificate: Certificate) -> Self {
        self.certificate = certificate;
        self
    }

    /// Binds the ports and begins to serve.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(self) -> io::Result<MailServer> {
        let authority = self.authority.unwrap_or_default();
        let acceptor = authority.acceptor(self.certificate)?;
        MailServer::serve(Shared::new(self.settings, acceptor, self.store), authority).await
    }
}
