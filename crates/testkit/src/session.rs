//! One connection of any protocol: its wire, its place in the server's list, TLS and signing in. No commands.

use crate::{
    protocol::{Protocol, Service},
    sasl::Credentials,
    shared::Shared,
    wire::Wire,
};
use std::{io, sync::Arc};

pub(crate) struct Connection {
    pub(crate) wire: Wire,
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: u64,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) login: Option<String>,
    /// The access token that it signed in by.
    token: Option<String>,
}

impl Connection {
    /// Notes the connection, and completes TLS when the port begins with it.
    pub(crate) async fn open(
        mut wire: Wire,
        shared: Arc<Shared>,
        protocol: Protocol,
        port: u16,
    ) -> io::Result<Self> {
        let id = shared.open_session(protocol, port);
        let upgrade = match protocol.starts_with_tls() {
            true => wire.upgrade(&shared.acceptor).await,
            false => Ok(()),
        };
        // Made before `?`, so that a failed handshake also closes the record.
        let connection = Self { wire, shared, id, protocol, port, login: None, token: None };
        upgrade?;
        connection.note_tls();
        Ok(connection)
    }

    /// STARTTLS, after its positive reply was written.
    pub(crate) async fn start_tls(&mut self) -> io::Result<()> {
        self.wire.upgrade(&self.shared.acceptor).await?;
        self.note_tls();
        Ok(())
    }

    fn note_tls(&self) {
        if self.wire.is_tls() {
            self.shared.change(|store| store.session_mut(self.id).map(|session| session.tls = true));
        }
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.wire.is_tls()
    }

    pub(crate) fn offers(&self, capability: &str) -> bool {
        self.shared.settings.offers(self.service(), capability)
    }

    fn service(&self) -> Service {
        self.protocol.service()
    }

    pub(crate) fn offers_tls(&self) -> bool {
        !self.is_tls() && self.offers(if self.service() == Service::Pop3 { "STLS" } else { "STARTTLS" })
    }

    /// Passwords are taken inside TLS only, unless the test has asked for danger.
    pub(crate) fn may_sign_in(&self) -> bool {
        self.is_tls() || self.shared.settings.plaintext_auth
    }

    /// Whether the mechanism, which is for access tokens, is offered.
    pub(crate) fn offers_tokens(&self, mechanism: &str) -> bool {
        self.offers(mechanism) && self.shared.read(|store| store.takes_tokens)
    }

    /// Whether the access token that it signed in by is good no more.
    pub(crate) fn has_expired(&self) -> bool {
        let (Some(login), Some(token)) = (&self.login, &self.token) else { return false };
        !self.shared.read(|store| store.takes_token(login, token))
    }

    /// Compares the access token and notes the result.
    pub(crate) fn sign_in_by_token(&mut self, given: &Credentials) -> bool {
        let right = self.shared.read(|store| store.takes_token(&given.login, &given.password));
        self.note_sign_in(given, right);
        self.token = right.then(|| given.password.clone());
        right
    }

    /// Compares the password and notes the result.
    pub(crate) fn sign_in(&mut self, given: &Credentials) -> bool {
        let right = self.shared.read(|store| store.signs_in(&given.login, &given.password));
        self.note_sign_in(given, right);
        right
    }

    fn note_sign_in(&mut self, given: &Credentials, right: bool) {
        if right {
            self.login = Some(given.login.clone());
        }
        self.shared.change(|store| {
            let Some(session) = store.session_mut(self.id) else { return };
            match right {
                true => session.login = Some(given.login.clone()),
                false => session.refused_sign_ins += 1,
            }
        });
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.change(|store| {
            if let Some(login) = &self.login
                && let Some(account) = store.account_mut(login)
                && account.maildrop == Some(self.id)
            {
                account.maildrop = None;
            }
            if let Some(session) = store.session_mut(self.id) {
                session.open = false;
            }
        });
    }
}
