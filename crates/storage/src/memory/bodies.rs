//! Contents in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::id::BodyId;
use postroom_core::time::Timestamp;

use super::rows::{Body, Referred};
use super::store::MemoryStore;
use crate::bodies::Bodies;
use crate::error::{Error, ErrorKind, Result};

#[async_trait]
impl Bodies for MemoryStore {
    async fn stage(&self, now: Timestamp, id: BodyId, number: u32, piece: Bytes) -> Result<()> {
        let mut rows = self.rows();
        let new = || Body { begun_at: now, pieces: BTreeMap::new(), referred: Referred::No };
        let body = rows.bodies.entry(id).or_insert_with(new);
        let stored = body.pieces.entry(number).or_insert_with(|| piece.clone());
        if *stored == piece { Ok(()) } else { Err(Error::new(ErrorKind::Conflict, "stage a content")) }
    }

    async fn piece(&self, id: BodyId, number: u32) -> Result<Option<Bytes>> {
        Ok(self.rows().bodies.get(&id).and_then(|body| body.pieces.get(&number)).cloned())
    }

    async fn sweep(&self, before: Timestamp) -> Result<u64> {
        let mut rows = self.rows();
        let had = rows.bodies.len();
        rows.bodies.retain(|_, body| body.referred == Referred::Yes || body.begun_at >= before);
        Ok(u64::try_from(had - rows.bodies.len()).unwrap_or(u64::MAX))
    }
}
