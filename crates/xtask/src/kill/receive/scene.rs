//! What every round of receiving needs, and what rounds differ in.

use std::path::PathBuf;

use crate::peers::{Database, Incoming, IncomingProtocol};

use super::relay::Relay;

/// Where rounds of receiving are played.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) server: Incoming,
    pub(crate) protocol: IncomingProtocol,
    /// The way from postroom to the server.
    pub(crate) relay: Relay,
    pub(crate) numbers: Numbers,
    pub(crate) company: Company,
    pub(crate) plant: Option<Plant>,
    /// The built `postroom`.
    pub(crate) binary: PathBuf,
    /// The server that has the ledger, if it is not in a file.
    pub(crate) database: Option<Database>,
    pub(crate) mails: u32,
    pub(crate) kills: u32,
}

/// Whether all mails of the box get other numbers in the middle of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numbers {
    Change,
    Stay,
}

/// Who works beside the workers that are killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Company {
    None,
    /// A worker that lives through the round.
    Second,
}

/// What a round breaks on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Plant {
    /// A mail is taken out of the box before it could be fetched, and nobody says so.
    Loss,
    /// A mail is put into the box a second time.
    Double,
}

/// What becomes of a mail at its server once it is safe.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Take {
    Leave,
    Mark,
    Delete,
    Move,
}
