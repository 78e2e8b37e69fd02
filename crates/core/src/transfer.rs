//! Transfer encodings (RFC 2045 section 6), read leniently and in pieces: what can be read of a broken part is kept, and no
//! content need be in memory twice. Charsets are in `mime/charset`.

use std::borrow::Cow;

/// How the content of a part is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Encoding {
    /// As it is: 7bit, 8bit, binary, and what nobody knows.
    #[default]
    Plain,
    Base64,
    QuotedPrintable,
}

impl Encoding {
    /// By the value of Content-Transfer-Encoding.
    pub(crate) fn of(value: &[u8]) -> Self {
        let value = value.trim_ascii();
        if value.eq_ignore_ascii_case(b"base64") {
            Self::Base64
        } else if value.eq_ignore_ascii_case(b"quoted-printable") {
            Self::QuotedPrintable
        } else {
            Self::Plain
        }
    }
}

/// What was read of a content.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decoded<'a> {
    pub(crate) content: Cow<'a, [u8]>,
    /// Whether its encoding was broken somewhere.
    pub(crate) broken: bool,
    /// Whether more follows beyond the limit.
    pub(crate) more: bool,
}

/// At most so many bytes of a content.
pub(crate) fn decode(encoding: Encoding, body: &[u8], limit: usize) -> Decoded<'_> {
    if encoding == Encoding::Plain {
        let content = &body[..body.len().min(limit)];
        return Decoded { content: Cow::Borrowed(content), broken: false, more: body.len() > limit };
    }
    let expected = if encoding == Encoding::Base64 { body.len() / 4 * 3 + 3 } else { body.len() };
    let mut out = Vec::with_capacity(expected.min(limit.saturating_add(3)));
    let mut decoder = Decoder::new(encoding);
    let mut rest = body;
    decoder.fill(&mut rest, &mut out, limit);
    let more = out.len() > limit || !rest.is_empty();
    out.truncate(limit);
    Decoded { content: Cow::Owned(out), broken: decoder.broken, more }
}

/// The size of a content, and whether its encoding is broken somewhere, in constant memory.
pub(crate) fn measure(encoding: Encoding, body: &[u8]) -> (usize, bool) {
    const PIECE: usize = 16 << 10;
    if encoding == Encoding::Plain {
        return (body.len(), false);
    }
    let mut decoder = Decoder::new(encoding);
    let (mut rest, mut size) = (body, 0);
    let mut piece = Vec::with_capacity(PIECE + 3);
    while !rest.is_empty() {
        piece.clear();
        decoder.fill(&mut rest, &mut piece, PIECE);
        size += piece.len();
    }
    (size, decoder.broken)
}

/// What a byte is in base64: its six bits, or one of these.
const PAD: u8 = 64;
const BLANK: u8 = 65;
const ALIEN: u8 = 66;

const BASE64: [u8; 256] = {
    let mut table = [ALIEN; 256];
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut value = 0;
    while value < 64 {
        table[alphabet[value as usize] as usize] = value;
        value += 1;
    }
    table[b'=' as usize] = PAD;
    table[b' ' as usize] = BLANK;
    table[b'\t' as usize] = BLANK;
    table[b'\r' as usize] = BLANK;
    table[b'\n' as usize] = BLANK;
    table
};

/// The value of a hexadecimal digit. "Uppercase letters must be used" (RFC 2045 section 6.7); not all programs do.
const HEX: [u8; 256] = {
    let mut table = [ALIEN; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789ABCDEF"[value as usize] as usize] = value;
        table[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    table
};

/// Reads one content piece by piece.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Decoder {
    encoding: Encoding,
    /// The bits of a base64 group that is not whole, and how many characters it has.
    group: u32,
    count: u8,
    broken: bool,
}

impl Decoder {
    pub(crate) fn new(encoding: Encoding) -> Self {
        Self { encoding, ..Self::default() }
    }

    /// Appends what `rest` says to `out` until it has `most` bytes, at most two more, or `rest`, the end of the body, is
    /// used up.
    pub(crate) fn fill(&mut self, rest: &mut &[u8], out: &mut Vec<u8>, most: usize) {
        match self.encoding {
            Encoding::Plain => {
                let (now, later) = rest.split_at(rest.len().min(most.saturating_sub(out.len())));
                out.extend_from_slice(now);
                *rest = later;
            }
            Encoding::Base64 => self.base64(rest, out, most),
            Encoding::QuotedPrintable => self.quoted_printable(rest, out, most),
        }
    }

    /// "All line breaks or other characters not found in Table 1 must be ignored by decoding software" (RFC 2045 section
    /// 6.8). Padding ends a group, so that joined pieces are read as well.
    fn base64(&mut self, rest: &mut &[u8], out: &mut Vec<u8>, most: usize) {
        let value = |byte: u8| BASE64[usize::from(byte)];
        while out.len() < most {
            if self.count == 0
                && let [a, b, c, d, later @ ..] = *rest
            {
                let values = [value(*a), value(*b), value(*c), value(*d)];
                if values.iter().all(|value| *value < PAD) {
                    let bits = values.iter().fold(0, |bits, value| bits << 6 | u32::from(*value));
                    let [_, bytes @ ..] = bits.to_be_bytes();
                    out.extend_from_slice(&bytes);
                    *rest = later;
                    continue;
                }
            }
            if rest.is_empty() {
                break;
            }
            // One by one up to where the next group may be whole.
            let (single, later) = rest.split_at(rest.len().min(4));
            for (at, byte) in single.iter().enumerate() {
                match value(*byte) {
                    PAD if self.count == 0 => {}
                    PAD => self.flush(out),
                    BLANK => {}
                    ALIEN => self.broken = true,
                    bits => {
                        self.group = self.group << 6 | u32::from(bits);
                        self.count += 1;
                        if self.count == 4 {
                            self.flush(out);
                        }
                    }
                }
                if out.len() >= most {
                    *rest = &rest[at + 1..];
                    return if rest.is_empty() {
                        self.flush(out)
                    };
                }
            }
            *rest = later;
        }
        if rest.is_empty() {
            self.flush(out);
        }
    }

    /// Ends a group: 2, 3 or 4 characters are 1, 2 or 3 bytes; a single one is none.
    fn flush(&mut self, out: &mut Vec<u8>) {
        let [_, bytes @ ..] = (self.group << (6 * (4 - u32::from(self.count)))).to_be_bytes();
        out.extend_from_slice(&bytes[..usize::from(self.count.saturating_sub(1))]);
        self.broken |= self.count == 1;
        (self.group, self.count) = (0, 0);
    }

    /// RFC 2045 section 6.7. An `=` that begins neither an octet nor a soft line break stands for itself.
    fn quoted_printable(&mut self, rest: &mut &[u8], out: &mut Vec<u8>, most: usize) {
        while out.len() < most && !rest.is_empty() {
            let window = &rest[..rest.len().min(most - out.len())];
            let plain = match window {
                [b'=', ..] => 0,
                _ => memchr::memchr(b'=', window).unwrap_or(window.len()),
            };
            out.extend_from_slice(&window[..plain]);
            *rest = &rest[plain..];
            if plain == window.len() {
                continue;
            }
            // Of signs in a row only the last can begin something.
            let signs = window[plain..].iter().take_while(|byte| **byte == b'=').count();
            if signs > 1 {
                self.broken = true;
                out.extend_from_slice(&rest[..signs - 1]);
                *rest = &rest[signs - 1..];
                continue;
            }
            let after = &rest[1..];
            if let [high, low, later @ ..] = after {
                let (high, low) = (HEX[usize::from(*high)], HEX[usize::from(*low)]);
                if high < ALIEN && low < ALIEN {
                    out.push(high << 4 | low);
                    *rest = later;
                    continue;
                }
            }
            let blank = after.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r')).count();
            match after.get(blank) {
                Some(b'\n') => *rest = &after[blank + 1..],
                None => *rest = &[],
                Some(_) => {
                    self.broken = true;
                    out.push(b'=');
                    *rest = after;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(encoding: &[u8], body: &[u8]) -> (Vec<u8>, bool) {
        let Decoded { content, broken, more } = decode(Encoding::of(encoding), body, usize::MAX);
        assert!(!more);
        (content.into_owned(), broken)
    }

    #[test]
    fn broken_encodings_lose_only_what_is_broken() {
        let check = |encoding: &str, body: &str, want: &str, broken: bool| {
            let (content, was_broken) = all(encoding.as_bytes(), body.as_bytes());
            assert_eq!((String::from_utf8_lossy(&content).as_ref(), was_broken), (want, broken), "{body:?}");
        };
        check("base64", "aGVs\r\nbG8=", "hello", false);
        check(" BASE64 ", "aGVs*bG8", "hello", true);
        check("base64", "aGVsbG8=aGVsbG8=", "hellohello", false);
        check("base64", "aGVsbG8gd", "hello ", true);
        check("base64", "", "", false);
        check("quoted-printable", "a=3D=\r\nb=C3=A9", "a=bé", false);
        check("quoted-printable", "a= \t\r\nb", "ab", false);
        check("quoted-printable", "100 = 1=zz=", "100 = 1=zz", true);
        check("8bit", "a=3D", "a=3D", false);
        check("x-unknown", "a=3D", "a=3D", false);
    }

    #[test]
    fn a_limit_is_kept_to_the_byte_and_the_rest_is_said() {
        for (encoding, body) in [("base64", "aGVsbG8="), ("quoted-printable", "h=65l=6Co"), ("7bit", "hello")]
        {
            for limit in 0..7 {
                let read = decode(Encoding::of(encoding.as_bytes()), body.as_bytes(), limit);
                assert_eq!(read.content, &b"hello"[..limit.min(5)], "{encoding}, {limit}");
                // Padding alone may be what is left.
                assert!(read.more || limit >= 5, "{encoding}, {limit}");
            }
        }
    }

    proptest! {
        #[test]
        fn base64_reads_what_an_encoder_writes(content: Vec<u8>) {
            let text = data_encoding::BASE64_MIME.encode(&content);
            prop_assert_eq!(all(b"base64", text.as_bytes()), (content, false));
        }

        /// Pieces of any size say what the whole says: would miss a group or an octet that a piece's end cuts.
        #[test]
        fn pieces_of_any_size_are_the_whole(
            body in proptest::collection::vec(proptest::sample::select(b"AZaz09+/= \r\n\t=4=".to_vec()), 0..80),
            size in 1_usize..9,
            encoding in proptest::sample::select(vec!["base64", "quoted-printable", "binary"]),
        ) {
            let encoding = Encoding::of(encoding.as_bytes());
            let whole = decode(encoding, &body, usize::MAX);
            let mut decoder = Decoder::new(encoding);
            let (mut rest, mut pieces) = (&body[..], Vec::new());
            while !rest.is_empty() {
                let mut piece = Vec::new();
                decoder.fill(&mut rest, &mut piece, size);
                prop_assert!(piece.len() <= size + 2);
                pieces.extend(piece);
            }
            prop_assert_eq!(&pieces[..], &whole.content[..]);
            prop_assert_eq!((decoder.broken, whole.content.len()), (whole.broken, measure(encoding, &body).0));
        }

        #[test]
        fn no_bytes_make_decoding_panic(body: Vec<u8>) {
            let _ = all(b"base64", &body);
            let _ = all(b"quoted-printable", &body);
        }
    }
}
