//! Reading a message as bytes: where its header ends, its fields, its first lines. No MIME structure.

use crate::encoded_word;

/// Splits after the empty line that ends the header (RFC 5322 section 2.1); a message without one is all header.
pub(crate) fn split_header(message: &[u8]) -> (&[u8], &[u8]) {
    if message.starts_with(b"\r\n") {
        return message.split_at(2);
    }
    match message.windows(4).position(|window| window == b"\r\n\r\n") {
        Some(at) => message.split_at(at + 4),
        None => (message, &[]),
    }
}

/// Every field of the header with its name and all of its bytes, folded lines and line ends included.
pub(crate) fn fields(message: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = split_header(message).0;
    std::iter::from_fn(move || {
        let mut end = 0;
        loop {
            let line =
                rest[end..].iter().position(|&byte| byte == b'\n').map_or(rest.len(), |at| end + at + 1);
            end = line;
            // RFC 5322 section 2.2.3: a line that begins with white space continues the field.
            if !matches!(rest.get(end), Some(b' ' | b'\t')) {
                break;
            }
        }
        let (field, after) = rest.split_at(end);
        rest = after;
        let colon = field.iter().position(|&byte| byte == b':')?;
        Some((field[..colon].trim_ascii(), field))
    })
}

/// The unfolded value of the first field with this name, compared without regard to case.
pub(crate) fn header(message: &[u8], name: &str) -> Option<String> {
    let (found, field) = fields(message).find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))?;
    let value = String::from_utf8_lossy(&field[found.len()..]).replace("\r\n", "");
    Some(value.trim_start_matches([' ', '\t']).trim_start_matches(':').trim().to_owned())
}

/// The subject, unfolded and with encoded words decoded.
pub(crate) fn subject(message: &[u8]) -> Option<String> {
    header(message, "Subject").map(|value| encoded_word::decode(&value))
}

/// The header and the first `lines` lines of the body (RFC 1939 section 7, TOP).
pub(crate) fn top(message: &[u8], lines: usize) -> &[u8] {
    let (header, body) = split_header(message);
    let taken: usize = body.split_inclusive(|&byte| byte == b'\n').take(lines).map(<[u8]>::len).sum();
    &message[..header.len() + taken]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL: &[u8] = b"Subject: a\r\n  folded: line\r\nX-Empty:\r\nTo : b@c.example\r\n\r\none\r\ntwo\r\n";

    #[test]
    fn a_folded_field_is_one_field_and_its_value_is_unfolded() {
        assert_eq!(fields(MAIL).count(), 3);
        assert_eq!(header(MAIL, "subject").as_deref(), Some("a  folded: line"));
        assert_eq!(header(MAIL, "x-empty").as_deref(), Some(""));
        assert_eq!(header(MAIL, "To").as_deref(), Some("b@c.example"));
        assert_eq!(header(MAIL, "one"), None);
    }

    #[test]
    fn top_takes_the_header_and_so_many_lines() {
        assert!(top(MAIL, 0).ends_with(b"\r\n\r\n"));
        assert!(top(MAIL, 1).ends_with(b"\r\n\r\none\r\n"));
        assert_eq!(top(MAIL, 99), MAIL);
        assert_eq!(split_header(b"\r\nbody"), (&b"\r\n"[..], &b"body"[..]));
    }
}
