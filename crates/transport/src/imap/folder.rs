//! Folder names on the wire: modified UTF-7 (RFC 3501 section 5.1.3) in a quoted string. Which folders there are is not
//! known here.

use std::sync::LazyLock;

use data_encoding::{Encoding, Specification};

// RFC 3501 section 5.1.3: base64 with "," in place of "/", not padded.
static BASE64: LazyLock<Encoding> = LazyLock::new(|| {
    let mut alphabet = Specification::new();
    alphabet.symbols.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,");
    alphabet.encoding().expect("the alphabet has 64 different characters")
});

/// A name as it goes over the wire. Controls are shifted too, so that no name can end a line.
pub(super) fn encode(name: &str) -> String {
    let plain = |c: char| matches!(c, ' '..='~');
    let mut wire = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| plain(c) != plain(first)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        rest = after;
        if plain(first) {
            wire.push_str(&run.replace('&', "&-"));
        } else {
            let units: Vec<u8> = run.encode_utf16().flat_map(u16::to_be_bytes).collect();
            wire.push('&');
            BASE64.encode_append(&units, &mut wire);
            wire.push('-');
        }
    }
    wire
}

/// The name that a wire form stands for; none unless `encode` gives the same form back, because a folder that we could not
/// name to the server must not look as if we could.
pub(super) fn decode(wire: &[u8]) -> Option<String> {
    let mut rest = std::str::from_utf8(wire).ok()?;
    let mut name = String::with_capacity(rest.len());
    while let Some((plain, shifted)) = rest.split_once('&') {
        name.push_str(plain);
        let (code, after) = shifted.split_once('-')?;
        rest = after;
        if code.is_empty() {
            name.push('&');
            continue;
        }
        let bytes = BASE64.decode(code.as_bytes()).ok()?;
        let (units, odd) = bytes.as_chunks::<2>();
        let units: Vec<u16> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
        name.push_str(&String::from_utf16(&units).ok().filter(|_| odd.is_empty())?);
    }
    name.push_str(rest);
    (encode(&name).as_bytes() == wire).then_some(name)
}

/// A quoted string (RFC 3501 section 4.3) of text that has neither controls nor 8-bit characters.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_have_the_forms_of_the_standard() {
        for (name, wire) in [
            ("INBOX", "INBOX"),
            ("Suporte/Clientes São Paulo", "Suporte/Clientes S&AOM-o Paulo"),
            ("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
            ("a&b", "a&-b"),
            ("\u{1f4ee}", "&2D3c7g-"),
            ("", ""),
        ] {
            assert_eq!(encode(name), wire);
            assert_eq!(decode(wire.as_bytes()).as_deref(), Some(name));
        }
    }

    #[test]
    fn a_hostile_or_roundabout_form_is_no_name() {
        // Unended, odd, half a surrogate pair, 8-bit, "/" of plain base64, a letter that needs no shift, a shift after a shift.
        for wire in [
            &b"&AOM"[..],
            b"&A-",
            b"&2D0-",
            b"&\xff-",
            b"S\xc3\xa3o",
            b"&AOM/-",
            b"&AGE-",
            b"&AOM-&AOM-",
            b"&",
        ] {
            assert_eq!(decode(wire), None, "{}", wire.escape_ascii());
        }
    }

    #[test]
    fn a_quoted_name_stays_one_string_on_one_line() {
        assert_eq!(quoted(&encode("a\"b\\c")), r#""a\"b\\c""#);
        let hostile = quoted(&encode("a\r\nA2 DELETE INBOX\0"));
        assert!(hostile.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{hostile}");
    }

    proptest! {
        #[test]
        fn every_name_survives_the_wire(name: String) {
            prop_assert_eq!(decode(encode(&name).as_bytes()), Some(name));
        }

        #[test]
        fn every_wire_form_that_decodes_is_the_one_that_is_sent(wire in "[&A-Za-z0-9+,/ -]{0,24}") {
            if let Some(name) = decode(wire.as_bytes()) {
                prop_assert_eq!(encode(&name), wire);
            }
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(wire: Vec<u8>) {
            let _ = decode(&wire);
        }
    }
}
