//! The server as a test holds it: its ports, its tasks, its record. What is in its folders is in `mailboxes`,
//! what waits and asserts in `assertion`.

use crate::{
    accepted::Accepted,
    fault::Fault,
    imap, pop3,
    protocol::{Protocol, Service},
    refusal::Refusal,
    session::Connection,
    shared::Shared,
    smtp,
    store::Session,
    tls::Authority,
    wire::Wire,
};
use std::{
    collections::BTreeMap,
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};
use tokio::{net::TcpListener, task::JoinSet};

/// An in-process mail server on `127.0.0.1`, with SMTP, IMAP and POP3, each in the clear and inside TLS.
///
/// Made by [`MailServer::start`] or [`MailServer::builder`], inside a tokio runtime, on which it is served: a test
/// whose client blocks needs a runtime of several threads. Its tasks end when it is dropped.
/// Methods that name an account or folder panic when there is no such thing: a test that asks is wrong.
pub struct MailServer {
    pub(crate) shared: Arc<Shared>,
    authority: Authority,
    ports: BTreeMap<Protocol, u16>,
    tasks: JoinSet<()>,
}

impl MailServer {
    pub(crate) async fn serve(shared: Shared, authority: Authority) -> io::Result<Self> {
        let shared = Arc::new(shared);
        let (mut ports, mut tasks) = (BTreeMap::new(), JoinSet::new());
        for protocol in Protocol::ALL {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let port = listener.local_addr()?.port();
            ports.insert(protocol, port);
            tasks.spawn(accept(listener, Arc::clone(&shared), protocol, port));
        }
        Ok(Self { shared, authority, ports, tasks })
    }

    /// Ends every session and listener, and returns when they have ended. Dropping does the same without waiting.
    pub async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }

    /// The certificate of the server's authority in PEM: what a client must trust for `localhost` and `127.0.0.1`.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.authority.pem()
    }

    /// The port of a protocol on `127.0.0.1`.
    #[must_use]
    pub fn port(&self, protocol: Protocol) -> u16 {
        self.ports.get(&protocol).copied().expect("every protocol has a listener")
    }

    /// The address of a protocol's port.
    #[must_use]
    pub fn address(&self, protocol: Protocol) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port(protocol)).into()
    }

    /// Shorthand for the port of [`Protocol::Smtp`].
    #[must_use]
    pub fn smtp_port(&self) -> u16 {
        self.port(Protocol::Smtp)
    }

    /// Shorthand for the port of [`Protocol::Smtps`].
    #[must_use]
    pub fn smtps_port(&self) -> u16 {
        self.port(Protocol::Smtps)
    }

    /// Shorthand for the port of [`Protocol::Imap`].
    #[must_use]
    pub fn imap_port(&self) -> u16 {
        self.port(Protocol::Imap)
    }

    /// Shorthand for the port of [`Protocol::Imaps`].
    #[must_use]
    pub fn imaps_port(&self) -> u16 {
        self.port(Protocol::Imaps)
    }

    /// Shorthand for the port of [`Protocol::Pop3`].
    #[must_use]
    pub fn pop3_port(&self) -> u16 {
        self.port(Protocol::Pop3)
    }

    /// Shorthand for the port of [`Protocol::Pop3s`].
    #[must_use]
    pub fn pop3s_port(&self) -> u16 {
        self.port(Protocol::Pop3s)
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Every mail that was accepted by SMTP, in order; nothing is ever removed.
    #[must_use]
    pub fn accepted(&self) -> Vec<Accepted> {
        self.shared.read(|store| store.accepted.clone())
    }

    /// How many mails were accepted by SMTP so far.
    #[must_use]
    pub fn accepted_count(&self) -> usize {
        self.shared.read(|store| store.accepted.len())
    }

    /// The accepted mails that had recipients outside the server's accounts.
    #[must_use]
    pub fn outside(&self) -> Vec<Accepted> {
        let mut accepted = self.accepted();
        accepted.retain(|accepted| !accepted.outside.is_empty());
        accepted
    }

    /// Every connection that was ever accepted, in order.
    #[must_use]
    pub fn sessions(&self) -> Vec<Session> {
        self.shared.read(|store| store.sessions.clone())
    }

    /// Makes an access token good for an account; from the first one on, OAUTHBEARER and XOAUTH2 are offered.
    pub fn add_token(&self, login: &str, token: &str) {
        self.shared.change(|store| {
            store.takes_tokens = true;
            if let Some(account) = store.account_mut(login) {
                account.tokens.insert(token.to_owned());
            }
        });
    }

    /// Makes all access tokens of an account good no more. IMAP sessions that signed in by one end with their next command, and SMTP
    /// sessions are told 530 at their next mail.
    pub fn expire_tokens(&self, login: &str) {
        self.shared.change(|store| store.account_mut(login).map(|account| account.tokens.clear()));
    }

    /// Makes the SMTP side refuse; see [`Refusal`]. Refusals add up, the first that fits is used.
    pub fn refuse(&self, refusal: Refusal) {
        self.shared.change(|store| store.refusals.add(refusal));
    }

    /// Shorthand for [`Refusal::recipient`] without a limit.
    pub fn refuse_recipient(&self, address: &str, code: u16, text: &str) {
        self.refuse(Refusal::recipient(address, code, text));
    }

    /// Makes the SMTP side break off, fall silent or slow down; see [`Fault`]. Faults add up, the first that fits is used.
    pub fn fault(&self, fault: Fault) {
        self.shared.change(|store| store.faults.add(fault));
    }

    /// Takes all faults back. A session that has fallen silent stays so.
    pub fn fault_nothing(&self) {
        self.shared.change(|store| store.faults.clear());
    }

    /// Takes all refusals back.
    pub fn refuse_nothing(&self) {
        self.shared.change(|store| store.refusals.clear());
    }
}

impl fmt::Debug for MailServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailServer").field("ports", &self.ports).finish_non_exhaustive()
    }
}

/// One listener with its sessions, which end with it.
async fn accept(listener: TcpListener, shared: Arc<Shared>, protocol: Protocol, port: u16) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A connection that is gone before it was accepted is no reason to stop listening.
                let Ok((stream, _)) = accepted else { continue };
                // Dialogues are short writes that wait for each other (RFC 9293 section 3.7.4).
                let _ = stream.set_nodelay(true);
                sessions.spawn(converse(Wire::new(stream), Arc::clone(&shared), protocol, port));
            }
            Some(_) = sessions.join_next() => {}
        }
    }
}

/// A session's end is its client's business: an error here is a client that went away or broke the protocol.
async fn converse(wire: Wire, shared: Arc<Shared>, protocol: Protocol, port: u16) {
    let Ok(connection) = Connection::open(wire, shared, protocol, port).await else { return };
    let _ = match protocol.service() {
        Service::Smtp => smtp::serve(connection).await,
        Service::Imap => imap::serve(connection).await,
        Service::Pop3 => pop3::serve(connection).await,
    };
}
