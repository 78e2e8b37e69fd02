//! Decoding the encoded words of RFC 2047 in a header value, UTF-8 and Latin-1 only. Written apart from postroom's own
//! reader, so that a test compares two opinions.

use data_encoding::BASE64;

/// The value with its encoded words decoded; what can't be decoded stays as it is.
pub(crate) fn decode(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    let mut after_word = false;
    while let Some(start) = rest.find("=?") {
        let (plain, candidate) = rest.split_at(start);
        let Some((decoded, length)) = word(candidate) else {
            text.push_str(plain);
            text.push_str("=?");
            (rest, after_word) = (&candidate[2..], false);
            continue;
        };
        // RFC 2047 section 6.2: white space between two encoded words is not there.
        if !(after_word && plain.trim().is_empty()) {
            text.push_str(plain);
        }
        text.push_str(&decoded);
        (rest, after_word) = (&candidate[length..], true);
    }
    text.push_str(rest);
    text
}

/// Decodes the encoded word at the start; also its length.
fn word(candidate: &str) -> Option<(String, usize)> {
    let mut parts = candidate.strip_prefix("=?")?.splitn(3, '?');
    let (charset, encoding, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let (encoded, _) = rest.split_once("?=")?;
    let bytes = match encoding {
        "B" | "b" => BASE64.decode(encoded.as_bytes()).ok()?,
        "Q" | "q" => quoted(encoded)?,
        _ => return None,
    };
    // RFC 2231 section 5: a language may follow the charset.
    let charset = charset.split('*').next().unwrap_or_default();
    let decoded = match charset.to_ascii_lowercase().as_str() {
        "utf-8" | "us-ascii" => String::from_utf8(bytes).ok()?,
        "iso-8859-1" => bytes.into_iter().map(char::from).collect(),
        _ => return None,
    };
    Some((decoded, candidate.len() - rest.len() + encoded.len() + 2))
}

fn quoted(encoded: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'_' => b' ',
            b'=' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_words_are_decoded_and_what_only_looks_like_one_stays() {
        for (value, text) in [
            ("plain", "plain"),
            ("=?utf-8?q?S=C3=A3o?=", "São"),
            ("Re: =?UTF-8?B?U8Ojbw==?= Paulo", "Re: São Paulo"),
            ("=?utf-8?Q?S=C3=A3o?= =?utf-8?Q?_Paulo?= end", "São Paulo end"),
            ("=?iso-8859-1*pt?q?S=E3o_x?=", "São x"),
            ("=?utf-8?q?=FF?=", "=?utf-8?q?=FF?="),
            ("a =? b ?= =?utf-8?x?a?=", "a =? b ?= =?utf-8?x?a?="),
            ("=?utf-8?q?S=C3", "=?utf-8?q?S=C3"),
        ] {
            assert_eq!(decode(value), text, "{value}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_value_makes_the_decoder_panic(value in "(=\\?|\\?=|utf-8|q|B|\\?|=|\\PC)*") {
            let _ = decode(&value);
        }
    }
}
