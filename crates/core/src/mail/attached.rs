//! A file that came with a mail: what was said of it, and its content, which stays where it came, in the bytes of the mail,
//! until somebody asks for it. Reading an attached mail is in `mime`.

use std::io::{self, Read};

use bytes::Bytes;
use serde::Serialize;

use crate::transfer::{Decoder, Encoding, decode};

/// A file that came with a mail. Its content is held as it was sent, as a piece of the mail's bytes: a copy of an attachment
/// costs no copy of its content, and as long as one is held, so are the bytes of the whole mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Attached {
    /// A name that is fit for a file: no path, no control or direction characters, at most 200 bytes, unlike every other
    /// of the same mail.
    pub name: String,
    /// The name as it was sent, shortened to 1000 bytes; none was given if it is empty.
    pub original_name: String,
    /// `type/subtype`, in lower case, as it was sent: nothing says that the content is of it.
    pub media_type: String,
    /// The Content-ID by which HTML refers to it, without angle brackets.
    pub content_id: Option<String>,
    /// Whether it is meant to be shown in its place rather than offered as a file.
    pub inline: bool,
    /// The size of the content, decoded, in bytes.
    pub size: usize,
    #[serde(skip)]
    pub(crate) encoded: Bytes,
    #[serde(skip)]
    pub(crate) encoding: Encoding,
}

impl Attached {
    /// The whole content, decoded. One that was sent as it is costs no memory, one in base64 or quoted-printable costs its
    /// size: a large one is better read in pieces ([`Attached::reader`]).
    #[must_use]
    pub fn content(&self) -> Bytes {
        self.beginning(usize::MAX)
    }

    /// The first bytes of the content, decoded: at most `limit`.
    #[must_use]
    pub fn beginning(&self, limit: usize) -> Bytes {
        if self.encoding == Encoding::Plain {
            return self.encoded.slice(..self.encoded.len().min(limit));
        }
        decode(self.encoding, &self.encoded, limit).content.into_owned().into()
    }

    /// The content, decoded while it is read, in constant memory.
    #[must_use]
    pub fn reader(&self) -> ContentReader {
        ContentReader {
            encoded: self.encoded.clone(),
            decoder: Decoder::new(self.encoding),
            piece: Vec::new(),
            read: 0,
        }
    }

    /// Whether it is a mail (RFC 2046 section 5.2.1, RFC 6532 section 3.7).
    #[must_use]
    pub fn is_mail(&self) -> bool {
        matches!(self.media_type.as_str(), "message/rfc822" | "message/global")
    }

    /// Whether it is Outlook's container of files (TNEF, `winmail.dat`), which is not opened.
    #[must_use]
    pub fn is_tnef(&self) -> bool {
        matches!(self.media_type.as_str(), "application/ms-tnef" | "application/vnd.ms-tnef")
            || self.name.eq_ignore_ascii_case("winmail.dat")
    }
}

/// How much is decoded at once.
const PIECE: usize = 8 << 10;

/// Reads the content of an attachment, decoded. Reading never fails: what is broken in it is left out, as in
/// [`Attached::content`].
#[derive(Debug, Clone)]
pub struct ContentReader {
    encoded: Bytes,
    decoder: Decoder,
    piece: Vec<u8>,
    read: usize,
}

impl Read for ContentReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        // A piece of a hostile encoding may say nothing, which would look like the end.
        while self.read == self.piece.len() && !self.encoded.is_empty() {
            self.piece.clear();
            self.read = 0;
            let mut rest = &self.encoded[..];
            self.decoder.fill(&mut rest, &mut self.piece, PIECE);
            let left = rest.len();
            let _ = self.encoded.split_to(self.encoded.len() - left);
        }
        let ready = &self.piece[self.read..];
        let count = ready.len().min(out.len());
        out[..count].copy_from_slice(&ready[..count]);
        self.read += count;
        Ok(count)
    }
}
