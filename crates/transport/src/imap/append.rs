//! A mail that is put into a folder. The server asks for it before it is sent; what becomes of a connection that breaks in
//! between nobody knows, so whoever repeats it may find two copies.

use bytes::Bytes;

use super::conversation::Conversation;
use super::folder::{encode, quoted};
use crate::error::Result;

/// How much is written within the time of one command.
const PIECE: usize = 256 * 1024;

/// APPEND (RFC 3501 section 6.3.11), marked as read.
pub(super) async fn append(talk: &mut Conversation, folder: &str, content: &Bytes) -> Result<()> {
    let command = format!("APPEND {} (\\Seen) {{{}}}", quoted(&encode(folder)), content.len());
    let tag = talk.send(&command).await?;
    let completion = match talk.continuation(&tag).await? {
        Some(refused) => refused,
        None => {
            for piece in content.chunks(PIECE).chain([&b"\r\n"[..]]) {
                talk.enter(talk.stage(), talk.timeouts.command);
                talk.stream.write(piece).await?;
            }
            talk.completion(&tag, &mut |_| Ok(())).await?
        }
    };
    completion.accepted(talk.stage())
}
