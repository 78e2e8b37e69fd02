//! What every session of one server shares: the settings, the store behind its lock, and the news that it changed.

use crate::{
    protocol::{Protocol, Service},
    store::{Session, Store},
    wire::LineEnd,
};
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// For whom the SMTP side takes mail to addresses that are no account of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Relay {
    /// For everybody; such mail is listed by [`MailServer::outside`](crate::MailServer::outside).
    #[default]
    Anyone,
    /// For sessions that have signed in.
    SignedIn,
    /// For nobody: 550 after RCPT.
    Nobody,
}

/// What the IMAP side makes of a FETCH that asks for a part of a body, as by `BODY[]<0.1000>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartialFetch {
    /// Gives that part.
    #[default]
    Served,
    /// Gives all of it, and says so, as servers do that know no parts.
    Whole,
    /// Gives all of it, and says that it is the part.
    WholeAsPart,
}

/// Fixed when the server starts.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) require_sign_in: bool,
    pub(crate) plaintext_auth: bool,
    pub(crate) smtp_line_end: LineEnd,
    pub(crate) relay: Relay,
    pub(crate) size_limit: usize,
    pub(crate) partial_fetch: PartialFetch,
    pub(crate) withheld: BTreeSet<(Service, String)>,
}

impl Settings {
    /// Whether a capability was not taken away from this service.
    pub(crate) fn offers(&self, service: Service, capability: &str) -> bool {
        !self.withheld.contains(&(service, capability.to_owned()))
    }
}

pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) acceptor: TlsAcceptor,
    store: Mutex<Store>,
    changed: watch::Sender<u64>,
}

impl Shared {
    pub(crate) fn new(settings: Settings, acceptor: TlsAcceptor, store: Store) -> Self {
        Self { settings, acceptor, store: Mutex::new(store), changed: watch::Sender::new(0) }
    }

    pub(crate) fn read<R>(&self, look: impl FnOnce(&Store) -> R) -> R {
        look(&self.store.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the store, then wakes everybody who waits for a change.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut Store) -> R) -> R {
        let result = change(&mut self.store.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_modify(|version| *version += 1);
        result
    }

    /// Marks the present as seen; `changed()` on it returns after the next change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The wall clock of the pretended server: for INTERNALDATE only, never to measure.
    #[expect(
        clippy::disallowed_methods,
        reason = "the in-process server has a wall clock of its own, as a real one"
    )]
    pub(crate) fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    /// Notes a new connection and returns its number.
    pub(crate) fn open_session(&self, protocol: Protocol, port: u16) -> u64 {
        self.change(|store| {
            let id = store.sessions.last().map_or(1, |last| last.id + 1);
            store.sessions.push(Session {
                id,
                protocol,
                port,
                login: None,
                refused_sign_ins: 0,
                tls: false,
                open: true,
            });
            id
        })
    }
}
