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

/// A mail that was fetched whole, or as far as its limit allows.
pub(crate) struct Collected {
    pub(crate) bytes: BytesMut,
    pub(crate) sha256: [u8; 32],
    pub(crate) raw: RawMail,
}

pub(crate) struct Collector<'a> {
    bodies: &'a dyn Bodies,
    now: Timestamp,
    bytes: BytesMut,
    hash: Sha256,
    staged: Option<(BodyId, u32)>,
    failure: Option<Error>,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(store: &'a dyn Store, now: Timestamp) -> Self {
        let bodies: &dyn Bodies = store;
        Self { bodies, now, bytes: BytesMut::new(), hash: Sha256::new(), staged: None, failure: None }
    }

    /// Why the last write failed: the store's fault, not the server's.
    pub(crate) fn failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// Stages the pieces that are whole, and the rest too when the mail is at its end.
    async fn stage(&mut self, end: bool) -> Result<()> {
        if self.bytes.len() <= PIECE && self.staged.is_none() {
            return Ok(());
        }
        let (id, mut number) = match self.staged {
            Some(staged) => staged,
            None => (BodyId::new(self.now, random()?), 0),
        };
        loop {
            let start = usize::try_from(number).unwrap_or(usize::MAX).saturating_mul(PIECE);
            let rest = self.bytes.len().saturating_sub(start);
            if rest < PIECE && !(end && rest > 0) {
                break;
            }
            let piece = Bytes::copy_from_slice(&self.bytes[start..start + rest.min(PIECE)]);
            self.bodies.stage(self.now, id, number, piece).await?;
            number += 1;
        }
        self.staged = Some((id, number));
        Ok(())
    }

    pub(crate) async fn finish(mut self) -> Result<Collected> {
        self.stage(true).await?;
        let sha256 = self.hash.finalize().into();
        let size = u64::try_from(self.bytes.len()).unwrap_or(u64::MAX);
        let raw = match self.staged {
            Some((id, _)) => RawMail::Staged(BodyRef { id, size, sha256 }),
            None => RawMail::Whole(Bytes::copy_from_slice(&self.bytes)),
        };
        Ok(Collected { bytes: self.bytes, sha256, raw })
    }
}

#[async_trait]
impl BodySink for Collector<'_> {
    async fn write(&mut self, piece: Bytes) -> std::io::Result<()> {
        self.hash.update(&piece);
        self.bytes.extend_from_slice(&piece);
        self.stage(false).await.map_err(|error| {
            self.failure = Some(error);
            std::io::Error::other("the store failed")
        })
    }
}
