//! Text of a charset that a stranger names, in bounds. A wrong or missing name is the rule rather than the exception: names
//! are read as the Encoding Standard (WHATWG) reads them, so that ISO-8859-1 is windows-1252 and GB2312 is GBK. The charsets
//! that only old mail has are read by the parsing crate, in `parse`.

use std::borrow::Cow;

use encoding_rs::{CoderResult, Encoding, REPLACEMENT, UTF_8, WINDOWS_1252};

/// What was read as text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) text: String,
    /// Whether characters could not be read; each is U+FFFD.
    pub(super) broken: bool,
    /// Whether it was cut at the limit.
    pub(super) cut: bool,
}

/// At most `limit` bytes of text. The content comes back where the charset is not known here.
pub(super) fn decode<'a>(
    content: Cow<'a, [u8]>,
    charset: Option<&str>,
    limit: usize,
) -> Result<Text, Cow<'a, [u8]>> {
    let label = charset.map(str::trim).filter(|label| !label.is_empty());
    let named = match label {
        // US-ASCII, or nothing (RFC 2045 section 5.2), is what programs say that do not know.
        None => None,
        Some(label) if label.eq_ignore_ascii_case("us-ascii") || label.eq_ignore_ascii_case("ascii") => None,
        Some(label) => match Encoding::for_label(label.as_bytes()) {
            Some(found) if found != REPLACEMENT => Some(found),
            _ => return Err(content),
        },
    };
    let content = match (named.is_none_or(|named| named == UTF_8), content) {
        // What is UTF-8 need not be copied.
        (true, Cow::Owned(bytes)) => match String::from_utf8(bytes) {
            Ok(text) if !text.starts_with('\u{feff}') => return Ok(cut(text, limit)),
            Ok(text) => Cow::Owned(text.into_bytes()),
            Err(error) => Cow::Owned(error.into_bytes()),
        },
        (_, content) => content,
    };
    let found = match named {
        Some(named) => named,
        None if std::str::from_utf8(&content).is_ok() => UTF_8,
        None => WINDOWS_1252,
    };
    Ok(read(&content, found, limit))
}

/// UTF-8 as far as it is: for charsets that nobody knows. ASCII is in nearly all of them.
pub(super) fn lossy(content: &[u8], limit: usize) -> Text {
    let mut text = String::with_capacity(content.len().min(limit));
    for chunk in content.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push('\u{fffd}');
        }
        if text.len() > limit {
            break;
        }
    }
    Text { broken: true, ..cut(text, limit) }
}

fn read(content: &[u8], charset: &'static Encoding, limit: usize) -> Text {
    let mut decoder = charset.new_decoder_with_bom_removal();
    // The decoder may want room for a character more than it writes.
    let room = limit.saturating_add(16);
    let whole = decoder.max_utf8_buffer_length(content.len()).unwrap_or(room);
    let mut text = String::with_capacity(whole.min(room));
    let (result, _, broken) = decoder.decode_to_string(content, &mut text, true);
    let mut text = cut(text, limit);
    text.broken = broken;
    text.cut |= result == CoderResult::OutputFull;
    text
}

fn cut(mut text: String, limit: usize) -> Text {
    let end = text.floor_char_boundary(limit);
    let cut = end < text.len();
    text.truncate(end);
    Text { text, broken: false, cut }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_or_missing_name_is_read_as_what_programs_mean() {
        let check = |charset: Option<&str>, content: &[u8], want: &str, broken: bool| {
            let read = decode(Cow::Borrowed(content), charset, 100).expect("known");
            assert_eq!((read.text.as_str(), read.broken, read.cut), (want, broken, false), "{charset:?}");
            assert_eq!(decode(Cow::Owned(content.to_vec()), charset, 100), Ok(read), "{charset:?}, owned");
        };
        // 0x80 to 0x9F are control characters in ISO-8859-1; nobody means them.
        check(Some("iso-8859-1"), b"\x93caf\xe9\x94 \x80", "“café” €", false);
        check(Some(" Latin1 "), b"\xe9", "é", false);
        check(None, b"caf\xe9", "café", false);
        check(Some("us-ascii"), b"caf\xe9", "café", false);
        check(Some("us-ascii"), "café".as_bytes(), "café", false);
        check(Some(""), "café".as_bytes(), "café", false);
        check(Some("utf8"), "\u{feff}café".as_bytes(), "café", false);
        check(Some("utf-8"), b"caf\xe9", "caf\u{fffd}", true);
        check(Some("gb2312"), b"\x80\xc4\xe3", "€你", false);
        check(Some("shift_jis"), b"\x87\x40", "①", false);
        check(Some("ks_c_5601-1987"), b"\xb0\xa1", "가", false);
        check(Some("iso-2022-jp"), b"\x1b$B$\"\x1b(B", "あ", false);
        check(Some("utf-16le"), b"a\0\xe9\0", "aé", false);
        for unknown in ["x-nobody", "iso-2022-kr", "utf-7"] {
            assert!(decode(Cow::Borrowed(b"x"), Some(unknown), 100).is_err(), "{unknown}");
        }
    }

    #[test]
    fn text_ends_at_the_limit_and_not_in_a_character() {
        for (charset, content) in [("utf-8", "é".as_bytes()), ("iso-8859-1", b"\xe9"), ("koi8-r", b"\xc1")] {
            let content = content.repeat(100);
            for limit in 0..40 {
                let read = decode(Cow::Borrowed(&content), Some(charset), limit).expect("known");
                assert!(
                    read.cut && read.text.len() <= limit && read.text.len() + 2 > limit,
                    "{charset}, {limit}"
                );
            }
        }
        assert!(lossy(b"\xff\xffab", 100).text.ends_with("ab"));
    }
}
