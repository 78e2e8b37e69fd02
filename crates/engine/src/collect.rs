//! Where the bytes of fetched mails are collected: hashed as they come, staged in the store piece by piece when a mail is larger
//! than one piece, and handed on some mails at a time to whoever stores them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use postroom_core::id::BodyId;
use postroom_core::ledger::RemoteKey;
use postroom_core::time::Timestamp;
use postroom_storage::{Bodies, BodyRef, PIECE, RawMail, Recognition};
use postroom_transport::{Error as TransportError, ErrorKind as TransportKind, Listed, MailSink};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::Sender;

use crate::error::{Error, Result};
use crate::postroom::{Postroom, random};

/// How much of a mail is kept for whoever sorts it: its header, and the parts a report of a bounce has. The handler gets the
/// whole.
const HEAD: usize = 1 << 20;

/// How many mails are handed on at once: a commit costs as much as storing some dozens of small mails.
const TOGETHER: usize = 250;

/// How many bytes of mails are handed on at once, or one mail more.
const TOGETHER_BYTES: usize = 2 << 20;

/// A mail that was fetched whole, or as far as its limit allows.
pub(crate) struct Collected {
    pub(crate) key: RemoteKey,
    /// When it arrived at its server, where that is known.
    pub(crate) arrived: Option<Timestamp>,
    /// Its first bytes: all of a mail of at most a MiB.
    pub(crate) head: Bytes,
    pub(crate) size: u64,
    pub(crate) sha256: [u8; 32],
    pub(crate) raw: RawMail,
    /// As which known mails it may be recognised; none when it is larger than the inbox takes.
    pub(crate) recognition: Recognition,
}

/// What comes from a folder, in this order.
pub(crate) enum Arrival {
    Mails(Vec<Collected>),
    /// Every mail up to this UID was handed on before.
    UpTo(u32),
}

/// The mail whose bytes come just now: the head and the piece that is not whole are here, what is whole lies in the store.
struct Arriving {
    key: RemoteKey,
    begun: Timestamp,
    head: BytesMut,
    piece: BytesMut,
    size: u64,
    hash: Sha256,
    staged: Option<(BodyId, u32)>,
}

impl Arriving {
    async fn stage(&mut self, bodies: &dyn Bodies, piece: Bytes) -> Result<()> {
        let (id, number) = match self.staged {
            Some(staged) => staged,
            None => (BodyId::new(self.begun, random()?), 0),
        };
        let room = HEAD - self.head.len();
        self.head.extend_from_slice(&piece[..piece.len().min(room)]);
        bodies.stage(self.begun, id, number, piece).await?;
        self.staged = Some((id, number + 1));
        Ok(())
    }

    async fn write(&mut self, bodies: &dyn Bodies, piece: &[u8]) -> Result<()> {
        self.hash.update(piece);
        self.size += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        self.piece.extend_from_slice(piece);
        // A mail of exactly one piece is stored with its row.
        while self.piece.len() > PIECE || (self.piece.len() == PIECE && self.staged.is_some()) {
            let whole = self.piece.split_to(PIECE).freeze();
            self.stage(bodies, whole).await?;
        }
        Ok(())
    }

    async fn end(
        mut self,
        bodies: &dyn Bodies,
        arrived: Option<Timestamp>,
        recognition: Recognition,
    ) -> Result<Collected> {
        let last = self.piece.split().freeze();
        if self.staged.is_some() && !last.is_empty() {
            self.stage(bodies, last.clone()).await?;
        }
        let sha256 = self.hash.finalize().into();
        let size = self.size;
        // A mail of one piece is its own head, without a copy.
        let (head, raw) = match self.staged {
            Some((id, _)) => (self.head.freeze(), RawMail::Staged(BodyRef { id, size, sha256 })),
            None => (last.clone(), RawMail::Whole(last)),
        };
        Ok(Collected { key: self.key, arrived, head, size, sha256, raw, recognition })
    }
}

/// Collects the mails of a folder.
pub(crate) struct Collector<'a> {
    postroom: &'a Postroom,
    arrivals: Sender<Arrival>,
    arrived: BTreeMap<RemoteKey, Option<Timestamp>>,
    recognition: Recognition,
    arriving: Option<Arriving>,
    batch: Vec<Collected>,
    failure: Option<Error>,
    refused: Vec<(RemoteKey, TransportError)>,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(postroom: &'a Postroom, arrivals: Sender<Arrival>) -> Self {
        Self {
            postroom,
            arrivals,
            arrived: BTreeMap::new(),
            recognition: Recognition::OtherEpoch,
            arriving: None,
            batch: Vec::new(),
            failure: None,
            refused: Vec::new(),
        }
    }

    /// What is about to be asked for.
    pub(crate) fn expect(&mut self, mails: &[Listed]) {
        self.arrived = mails.iter().map(|listed| (listed.key.clone(), listed.arrived)).collect();
    }

    /// What the box shows, without epochs, once there is mail that is not known.
    pub(crate) fn shows(&mut self, keys: Arc<HashSet<RemoteKey>>) {
        self.recognition = Recognition::NotShown(keys);
    }

    pub(crate) fn knows_box(&self) -> bool {
        matches!(self.recognition, Recognition::NotShown(_))
    }

    /// Why the last write failed: the store's fault, not the server's.
    pub(crate) fn failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// What the server did not give since the last call, and why; not what it says is gone.
    pub(crate) fn take_refused(&mut self) -> Vec<(RemoteKey, TransportError)> {
        std::mem::take(&mut self.refused)
    }

    /// The mail that was to come next; none where it may have been any of several.
    pub(crate) fn awaited(&self) -> Option<RemoteKey> {
        let only = || if self.arrived.len() == 1 { self.arrived.keys().next() } else { None };
        self.arriving.as_ref().map(|arriving| &arriving.key).or_else(only).cloned()
    }

    /// Hands on what was collected. Gives whether somebody is there to store it.
    pub(crate) async fn flush(&mut self) -> bool {
        let batch = std::mem::take(&mut self.batch);
        batch.is_empty() || self.hand_on(Arrival::Mails(batch)).await
    }

    /// Hands on that every mail up to this one was handed on.
    pub(crate) async fn reached(&mut self, uid: u32) -> bool {
        self.flush().await && self.hand_on(Arrival::UpTo(uid)).await
    }

    async fn hand_on(&self, arrival: Arrival) -> bool {
        self.arrivals.send(arrival).await.is_ok()
    }

    fn stored(&mut self, result: Result<()>) -> std::io::Result<()> {
        result.map_err(|error| {
            self.failure = Some(error);
            std::io::Error::other("the store failed")
        })
    }

    fn is_full(&self) -> bool {
        let bytes: usize = self.batch.iter().map(|mail| mail.head.len()).sum();
        self.batch.len() >= TOGETHER || bytes >= TOGETHER_BYTES
    }
}

#[async_trait]
impl MailSink for Collector<'_> {
    async fn begin(&mut self, key: &RemoteKey) -> std::io::Result<()> {
        self.arriving = Some(Arriving {
            key: key.clone(),
            begun: self.postroom.now(),
            head: BytesMut::new(),
            piece: BytesMut::new(),
            size: 0,
            hash: Sha256::new(),
            staged: None,
        });
        Ok(())
    }

    async fn write(&mut self, piece: Bytes) -> std::io::Result<()> {
        let Some(arriving) = &mut self.arriving else { return Ok(()) };
        let written = arriving.write(self.postroom.store(), &piece).await;
        self.stored(written)
    }

    async fn end(&mut self, result: std::result::Result<(), TransportError>) -> std::io::Result<()> {
        let Some(arriving) = self.arriving.take() else { return Ok(()) };
        let arrived = self.arrived.remove(&arriving.key).flatten();
        let recognition = match result {
            Ok(()) => self.recognition.clone(),
            Err(error) => match error.kind() {
                TransportKind::TooLarge => Recognition::None,
                // Somebody took it away between the listing and the fetch: there is nothing to lose.
                TransportKind::Gone => return Ok(()),
                _ => {
                    self.refused.push((arriving.key, error));
                    return Ok(());
                }
            },
        };
        match arriving.end(self.postroom.store(), arrived, recognition).await {
            Ok(mail) => self.batch.push(mail),
            Err(error) => return self.stored(Err(error)),
        }
        if self.is_full() && !self.flush().await {
            return Err(std::io::Error::other("nobody stores what comes"));
        }
        Ok(())
    }
}
