//! The port to contents: mail in rows of pieces. A content is staged in short transactions and becomes real when a queue
//! or ledger row refers to it; what nobody refers to is swept away.

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::id::BodyId;
use postroom_core::time::Timestamp;

use crate::error::Result;

/// The greatest piece, in bytes.
pub const PIECE: usize = 256 * 1024;

/// A content that was staged piece by piece.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what identifies a content")]
pub struct BodyRef {
    /// Its id.
    pub id: BodyId,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of it.
    pub sha256: [u8; 32],
}

/// Contents in pieces of at most [`PIECE`] bytes.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Bodies: Send + Sync {
    /// Adds piece `number` (from 0) to a staged content. Repeatable with the same bytes.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Conflict`] when the piece is there with other bytes: what was written never changes.
    async fn stage(&self, now: Timestamp, id: BodyId, number: u32, piece: Bytes) -> Result<()>;

    /// Piece `number` of a content, or none behind the last one.
    async fn piece(&self, id: BodyId, number: u32) -> Result<Option<Bytes>>;

    /// Removes staged contents that nobody refers to and that were begun before `before`. Gives how many.
    async fn sweep(&self, before: Timestamp) -> Result<u64>;
}
