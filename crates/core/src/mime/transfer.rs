//! Transfer encodings (RFC 2045 section 6), read leniently: what can be read of a broken part is kept. Charsets are in
//! `parse`.

use std::borrow::Cow;

/// The content of a part, and whether its encoding was broken somewhere.
pub(super) fn decode<'a>(encoding: &[u8], body: &'a [u8]) -> (Cow<'a, [u8]>, bool) {
    let encoding = encoding.trim_ascii();
    if encoding.eq_ignore_ascii_case(b"base64") {
        let (content, broken) = base64(body);
        (Cow::Owned(content), broken)
    } else if encoding.eq_ignore_ascii_case(b"quoted-printable") {
        let (content, broken) = quoted_printable(body);
        (Cow::Owned(content), broken)
    } else {
        (Cow::Borrowed(body), false)
    }
}

/// "All line breaks or other characters not found in Table 1 must be ignored by decoding software" (RFC 2045 section
/// 6.8). Padding ends a group, so that joined pieces are read as well.
fn base64(body: &[u8]) -> (Vec<u8>, bool) {
    let mut out = Vec::with_capacity(body.len() / 4 * 3);
    let (mut group, mut count, mut broken) = (0u32, 0u8, false);
    let mut flush = |group: u32, count: u8| {
        let [_, bytes @ ..] = (group << (6 * (4 - u32::from(count)))).to_be_bytes();
        // 2, 3 or 4 characters are 1, 2 or 3 bytes; a single one is none.
        out.extend_from_slice(&bytes[..usize::from(count.saturating_sub(1))]);
        count == 1
    };
    for &byte in body {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                broken |= flush(group, count);
                (group, count) = (0, 0);
                continue;
            }
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            _ => {
                broken = true;
                continue;
            }
        };
        group = group << 6 | u32::from(value);
        count += 1;
        if count == 4 {
            flush(group, count);
            (group, count) = (0, 0);
        }
    }
    broken |= flush(group, count);
    (out, broken)
}

/// RFC 2045 section 6.7. An `=` that begins neither an octet nor a soft line break stands for itself.
fn quoted_printable(body: &[u8]) -> (Vec<u8>, bool) {
    let mut out = Vec::with_capacity(body.len());
    let mut broken = false;
    let mut rest = body;
    while let Some(at) = rest.iter().position(|byte| *byte == b'=') {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        if let [high, low, after @ ..] = rest
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            out.push(high << 4 | low);
            rest = after;
            continue;
        }
        let blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r')).count();
        match rest.get(blank) {
            Some(b'\n') => rest = &rest[blank + 1..],
            None => rest = &[],
            Some(_) => {
                broken = true;
                out.push(b'=');
            }
        }
    }
    out.extend_from_slice(rest);
    (out, broken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn broken_encodings_lose_only_what_is_broken() {
        let check = |encoding: &str, body: &str, want: &str, broken: bool| {
            let (content, was_broken) = decode(encoding.as_bytes(), body.as_bytes());
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

    proptest! {
        #[test]
        fn base64_reads_what_an_encoder_writes(content: Vec<u8>) {
            let text = data_encoding::BASE64_MIME.encode(&content);
            prop_assert_eq!(decode(b"base64", text.as_bytes()), (Cow::Owned(content), false));
        }

        #[test]
        fn no_bytes_make_decoding_panic(body: Vec<u8>) {
            let _ = decode(b"base64", &body);
            let _ = decode(b"quoted-printable", &body);
        }
    }
}
