//! Reading one command: lines and literals until the grammar is content. What the command means comes later.

use crate::session::Connection;
use imap_codec::{
    CommandCodec,
    decode::{CommandDecodeError, Decoder},
    imap_types::core::LiteralMode,
};
use std::io;

/// What was read.
pub(crate) enum Frame {
    /// The bytes of a command that the grammar knows.
    Command(Vec<u8>),
    /// The tagged answer to something else.
    Refused(String),
    /// As `Refused`, but what follows on the wire can't be told apart any more.
    Fatal(String),
}

/// Reads a command, asking for its literals (RFC 3501 section 7.5, RFC 7888).
pub(crate) async fn command(connection: &mut Connection) -> io::Result<Frame> {
    let mut frame = Vec::new();
    loop {
        let line = connection.wire.read_line().await?;
        frame.extend_from_slice(&line);
        frame.extend_from_slice(b"\r\n");
        let (tag, length, mode) = match CommandCodec::new().decode(&frame) {
            Ok(_) => return Ok(Frame::Command(frame)),
            Err(CommandDecodeError::LiteralFound { tag, length, mode }) => (tag, length, mode),
            Err(_) => {
                let refusal = format!("{} BAD not a command that this server knows", tag_of(&frame));
                // The literal is on its way already, and it may look like commands.
                let desynchronised = line.ends_with(b"+}");
                return Ok(if desynchronised { Frame::Fatal(refusal) } else { Frame::Refused(refusal) });
            }
        };
        let tag = tag.as_ref();
        if mode == LiteralMode::NonSync && !connection.offers("LITERAL+") {
            return Ok(Frame::Fatal(format!("{tag} BAD LITERAL+ is not offered")));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > connection.shared.settings.size_limit {
            let refusal = format!("{tag} NO [TOOBIG] the literal is too large");
            return Ok(match mode {
                LiteralMode::Sync => Frame::Refused(refusal),
                LiteralMode::NonSync => Frame::Fatal(refusal),
            });
        }
        if mode == LiteralMode::Sync {
            connection.wire.write(b"+ go on\r\n").await?;
        }
        frame.extend(connection.wire.read_bytes(length).await?);
    }
}

/// The first word if it can be a tag, else the star of an untagged BAD.
fn tag_of(frame: &[u8]) -> &str {
    let word = frame.split(|&byte| matches!(byte, b' ' | b'\r')).next().unwrap_or_default();
    let allowed = |byte: &u8| byte.is_ascii_graphic() && !b"(){%*\"\\+".contains(byte);
    match std::str::from_utf8(word) {
        Ok(tag) if !tag.is_empty() && word.iter().all(allowed) => tag,
        _ => "*",
    }
}
