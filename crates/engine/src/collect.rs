//! Where the bytes of a fetched mail are collected: hashed as they come, and staged in the store piece by piece when the
//! mail is larger than one piece.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use postroom_core::id::BodyId;
use postroom_core::time::Timestamp;
use postroom_storage::{Bodies, BodyRef, PIECE, RawMail, Store};
use postroom_transport::BodySink;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::postroom::random;

/// How much of a mail is kept for whoever sorts it: its header, and the parts a report of a bounce has. The handler gets the
/// whole.
const HEAD: usize = 1 << 20;

/// A mail that was fetched whole, or as far as its limit allows.
pub(crate) struct Collected {
    /// Its first bytes: all of a mail of at most a MiB.
    pub(crate) head: Bytes,
    pub(crate) size: u64,
    pub(crate) sha256: [u8; 32],
    pub(crate) raw: RawMail,
}

/// Keeps the head and the piece that is not whole; what is whole lies in the store.
pub(crate) struct Collector<'a> {
    bodies: &'a dyn Bodies,
    now: Timestamp,
    head: BytesMut,
    piece: BytesMut,
    size: u64,
    hash: Sha256,
    staged: Option<(BodyId, u32)>,
    failure: Option<Error>,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(store: &'a dyn Store, now: Timestamp) -> Self {
        let bodies: &dyn Bodies = store;
        Self {
            bodies,
            now,
            head: BytesMut::new(),
            piece: BytesMut::new(),
            size: 0,
            hash: Sha256::new(),
            staged: None,
            failure: None,
        }
    }

    /// Why the last write failed: the store's fault, not the server's.
    pub(crate) fn failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    async fn stage(&mut self, piece: Bytes) -> Result<()> {
        let (id, number) = match self.staged {
            Some(staged) => staged,
            None => (BodyId::new(self.now, random()?), 0),
        };
        let room = HEAD - self.head.len();
        self.head.extend_from_slice(&piece[..piece.len().min(room)]);
        self.bodies.stage(self.now, id, number, piece).await?;
        self.staged = Some((id, number + 1));
        Ok(())
    }

    pub(crate) async fn finish(mut self) -> Result<Collected> {
        let last = self.piece.split().freeze();
        if self.staged.is_some() && !last.is_empty() {
            self.stage(last.clone()).await?;
        }
        let sha256 = self.hash.finalize().into();
        let size = self.size;
        // A mail of one piece is its own head, without a copy.
        let (head, raw) = match self.staged {
            Some((id, _)) => (self.head.freeze(), RawMail::Staged(BodyRef { id, size, sha256 })),
            None => (last.clone(), RawMail::Whole(last)),
        };
        Ok(Collected { head, size, sha256, raw })
    }
}

#[async_trait]
impl BodySink for Collector<'_> {
    async fn write(&mut self, piece: Bytes) -> std::io::Result<()> {
        self.hash.update(&piece);
        self.size += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        self.piece.extend_from_slice(&piece);
        // A mail of exactly one piece is stored with its row.
        while self.piece.len() > PIECE || (self.piece.len() == PIECE && self.staged.is_some()) {
            let whole = self.piece.split_to(PIECE).freeze();
            self.stage(whole).await.map_err(|error| {
                self.failure = Some(error);
                std::io::Error::other("the store failed")
            })?;
        }
        Ok(())
    }
}
