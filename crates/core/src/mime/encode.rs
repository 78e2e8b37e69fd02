//! Header values in 7 bits: encoded words (RFC 2047), lists of addresses and of Message-IDs, folded. A local part that is
//! not ASCII stays as it is: it needs SMTPUTF8 anyway (RFC 6532).

use data_encoding::BASE64;

use crate::address::NamedAddress;

/// Lines are folded before this column where there is a blank (RFC 5322 section 2.1.1).
const COLUMN: usize = 78;
/// Longer words can't be folded: the hard limit is 998.
const WORD_LIMIT: usize = 900;
/// Bytes in an encoded word: `=?utf-8?b?` and `?=` and 4/3 of it stay below 75 characters (RFC 2047 section 2).
const CHUNK: usize = 45;

/// Unstructured text without control characters, folded, to stand after a field name of `name` bytes.
pub(super) fn unstructured(name: usize, text: &str) -> String {
    let text = text.trim();
    // What looks like an encoded word would be decoded by the reader, though nobody encoded it.
    let needs_words = !text.is_ascii()
        || text.contains("=?")
        || text.contains(&" ".repeat(COLUMN))
        || text.split(' ').any(|word| word.len() > WORD_LIMIT);
    if needs_words {
        return encoded_words(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut column = name + 2;
    for (index, word) in text.split(' ').enumerate() {
        if index > 0 {
            // Only before a word, so that no line is blank.
            let fold = column + 1 + word.len() > COLUMN && !word.is_empty();
            out.push_str(if fold { "\r\n " } else { " " });
            column = if fold { 1 } else { column + 1 };
        }
        out.push_str(word);
        column += word.len();
    }
    out
}

fn encoded_words(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let chunk = crate::text::cut(rest, CHUNK);
        rest = &rest[chunk.len()..];
        if !out.is_empty() {
            // Blanks between encoded words are not shown (RFC 2047 section 6.2).
            out.push_str("\r\n ");
        }
        out.push_str("=?utf-8?b?");
        out.push_str(&BASE64.encode(chunk.as_bytes()));
        out.push_str("?=");
    }
    out
}

/// One address per line.
pub(super) fn addresses(all: &[NamedAddress]) -> String {
    all.iter().map(named).collect::<Vec<_>>().join(",\r\n ")
}

fn named(address: &NamedAddress) -> String {
    match address.name() {
        None => address.address().to_string(),
        // Its text form is a quoted string (RFC 5322 section 3.2.4).
        Some(name) if name.is_ascii() && !name.contains("=?") => address.to_string(),
        Some(name) => format!("{}\r\n <{}>", encoded_words(name), address.address()),
    }
}

/// One Message-ID per line.
pub(super) fn ids<'a>(all: impl IntoIterator<Item = &'a str>) -> String {
    all.into_iter().collect::<Vec<_>>().join("\r\n ")
}
