//! One server that mail is fetched from, alone, whichever it is. What is fetched, and how, is the business of the callers.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::authority;
use super::courier::Courier;
use super::cyrus::{ADMINISTRATOR, Cyrus};
use super::dovecot::{Dovecot, PASSWORD};
use super::place::Place;
use crate::outcome::Outcome;
use crate::packages::{self, Program};

/// Which server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// The installed one.
    #[default]
    Dovecot,
    /// Few extensions.
    Courier,
    /// Nearly every extension.
    Cyrus,
}

/// How it is spoken to, with TLS on demand or from the first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protocol {
    #[default]
    Imap,
    Imaps,
    Pop3,
    Pop3s,
}

/// How the mails of a box get new numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renumbering {
    /// The server has lost them; it gives new ones by itself.
    Done,
    /// The server can't lose them: the box has to be deleted by this administrator and filled again.
    ByRestoring(&'static str),
}

/// The server, running until this is dropped.
#[derive(Debug)]
pub(crate) struct Incoming {
    server: Server,
    place: Place,
}

#[derive(Debug)]
enum Server {
    Dovecot(Dovecot),
    Courier(Courier),
    Cyrus(Cyrus),
}

impl Incoming {
    /// The password of every user.
    pub(crate) const PASSWORD: &'static str = PASSWORD;

    /// Start it and wait until it accepts connections.
    pub(crate) fn start(kind: Kind) -> Outcome<Self> {
        match kind {
            Kind::Dovecot => {
                packages::installed("dovecot-imapd")?;
                packages::installed("dovecot-pop3d")?;
            }
            Kind::Courier => Program::Courier.download()?,
            Kind::Cyrus => Program::Cyrus.download()?,
        }
        let place = Place::new()?;
        authority::make(&place)?;
        let server = match kind {
            Kind::Dovecot => Server::Dovecot(Dovecot::start(&place)?),
            Kind::Courier => Server::Courier(Courier::start(&place)?),
            Kind::Cyrus => Server::Cyrus(Cyrus::start(&place)?),
        };
        Ok(Self { server, place })
    }

    /// Where a protocol is spoken.
    pub(crate) fn address(&self, protocol: Protocol) -> SocketAddr {
        let [imap, imaps, pop3, pop3s] = match &self.server {
            Server::Dovecot(server) => server.incoming(),
            Server::Courier(server) => server.addresses,
            Server::Cyrus(server) => server.addresses,
        };
        match protocol {
            Protocol::Imap => imap,
            Protocol::Imaps => imaps,
            Protocol::Pop3 => pop3,
            Protocol::Pop3s => pop3s,
        }
    }

    /// The authority that signed its certificate, a PEM file.
    pub(crate) fn authority(&self) -> PathBuf {
        self.place.file(authority::TRUSTED)
    }

    /// How a folder beside INBOX is called there.
    pub(crate) fn folder(&self, name: &str) -> String {
        match &self.server {
            Server::Courier(_) => format!("INBOX.{name}"),
            Server::Dovecot(_) | Server::Cyrus(_) => name.to_owned(),
        }
    }

    /// Give the mails in a user's INBOX other UIDs under another UIDVALIDITY, and other UIDLs. Nobody may be signed in.
    pub(crate) fn renumber(&self, user: &str) -> Outcome<Renumbering> {
        match &self.server {
            Server::Dovecot(server) => server.renumber(user).map(|()| Renumbering::Done),
            Server::Courier(server) => server.renumber(user).map(|()| Renumbering::Done),
            // The number is in the index and in the list of boxes, and without an index it repairs nothing.
            Server::Cyrus(_) => Ok(Renumbering::ByRestoring(ADMINISTRATOR)),
        }
    }
}
