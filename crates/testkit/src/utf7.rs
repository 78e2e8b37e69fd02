//! Folder names on the IMAP wire: the modified UTF-7 of RFC 3501 section 5.1.3. Nothing about folders themselves.

use data_encoding::{Encoding, Specification};
use std::sync::LazyLock;

// RFC 3501 section 5.1.3: base64 with "," instead of "/", and no padding.
static BASE64: LazyLock<Encoding> = LazyLock::new(|| {
    let mut alphabet = Specification::new();
    alphabet.symbols.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,");
    alphabet.encoding().expect("the alphabet has 64 different characters")
});

/// A folder name as it goes over the wire.
pub(crate) fn encode(name: &str) -> String {
    let mut wire = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let printable = |c: char| matches!(c, ' '..='~');
        let run = rest.find(|c| printable(c) != printable(first)).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(run);
        if printable(first) {
            wire.push_str(&piece.replace('&', "&-"));
        } else {
            let units: Vec<u8> = piece.encode_utf16().flat_map(u16::to_be_bytes).collect();
            wire.push('&');
            wire.push_str(&BASE64.encode(&units));
            wire.push('-');
        }
        rest = after;
    }
    wire
}

/// The name that the wire form stands for; none when it is not modified UTF-7.
pub(crate) fn decode(wire: &[u8]) -> Option<String> {
    let mut rest = std::str::from_utf8(wire).ok().filter(|text| text.is_ascii())?;
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
        if !odd.is_empty() {
            return None;
        }
        name.push_str(
            &String::from_utf16(&units.iter().map(|&unit| u16::from_be_bytes(unit)).collect::<Vec<_>>())
                .ok()?,
        );
    }
    name.push_str(rest);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_wire_forms_of_the_standard() {
        for (name, wire) in [
            ("INBOX", "INBOX"),
            ("Suporte/Clientes São Paulo", "Suporte/Clientes S&AOM-o Paulo"),
            ("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
            ("a&b", "a&-b"),
            ("\u{1f4ee}", "&2D3c7g-"),
        ] {
            assert_eq!(encode(name), wire);
            assert_eq!(decode(wire.as_bytes()).as_deref(), Some(name));
        }
    }

    #[test]
    fn what_is_not_modified_utf7_is_no_name() {
        for wire in [&b"&AOM"[..], b"&A-", b"S\xc3\xa3o", b"&2D0-", b"&\xff-", b"&AOM/-"] {
            assert_eq!(decode(wire), None, "{wire:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_name_survives_the_wire(name: String) {
            proptest::prop_assert_eq!(decode(encode(&name).as_bytes()), Some(name));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(wire: Vec<u8>) {
            let _ = decode(&wire);
        }
    }
}
