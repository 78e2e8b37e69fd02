//! The content of a mail on its way into DATA: what can't travel is refused here, what can is dot-stuffed. One mail in is
//! one mail out, also at a server that takes a bare line feed for a line end.

use crate::error::{Error, ErrorKind, Result, Stage};

/// The longest line, in bytes without its CRLF (RFC 5321 section 4.5.3.1.6).
const LINE_LIMIT: usize = 998;

/// What content asks of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Needs {
    /// Bytes above 127 in the header fields: SMTPUTF8 (RFC 6532 section 3).
    pub(super) smtputf8: bool,
    /// Bytes above 127 anywhere: 8BITMIME (RFC 6152).
    pub(super) eight_bit: bool,
    /// Its size as SIZE counts it, a missing CRLF at its end added (RFC 1870 section 5).
    pub(super) size: u64,
}

/// Looks through the content once.
///
/// # Errors
/// [`ErrorKind::Unsupported`] at [`Stage::Prepare`] for a bare CR or LF, a NUL, or a line that is too long: servers differ
/// in what they make of it, which is how one mail is smuggled inside another.
pub(super) fn examine(content: &[u8]) -> Result<Needs> {
    let refuse = |why: &str| Err(Error::new(ErrorKind::Unsupported, Stage::Prepare).with_reply(why));
    let mut needs = Needs { smtputf8: false, eight_bit: false, size: length(content) };
    let mut in_header = true;
    let mut rest = content;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n' | b'\0')).unwrap_or(rest.len());
        let (line, tail) = rest.split_at(end);
        rest = match tail {
            [] => tail,
            [b'\r', b'\n', next @ ..] => next,
            [b'\0', ..] => return refuse("5.6.0 the mail has a NUL byte"),
            _ => return refuse("5.6.0 the mail has a line end that is not CRLF"),
        };
        if line.len() > LINE_LIMIT {
            return refuse("5.6.0 the mail has a line of more than 998 bytes");
        }
        in_header &= !line.is_empty();
        if !line.is_ascii() {
            needs.eight_bit = true;
            needs.smtputf8 |= in_header;
        }
    }
    Ok(needs)
}

fn length(content: &[u8]) -> u64 {
    let missing = if is_ended(content) { 0 } else { 2 };
    u64::try_from(content.len()).unwrap_or(u64::MAX).saturating_add(missing)
}

fn is_ended(content: &[u8]) -> bool {
    content.is_empty() || content.ends_with(b"\r\n")
}

/// How much content is stuffed and written at once. A usual mail is one piece, its dot included.
const PIECE: usize = 64 * 1024;

/// The length of what ends the content at most: CRLF, dot, CRLF.
pub(super) const END: usize = 5;

/// The examined content as it travels, in pieces; the final dot ends the last one.
#[derive(Debug)]
pub(super) struct Stuffed<'a> {
    rest: Option<&'a [u8]>,
    is_ended: bool,
    at_line_start: bool,
}

impl<'a> Stuffed<'a> {
    pub(super) fn new(content: &'a [u8]) -> Self {
        Self { rest: Some(content), is_ended: is_ended(content), at_line_start: true }
    }
}

impl Iterator for Stuffed<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let (piece, rest) = {
            let content = self.rest?;
            content.split_at(PIECE.min(content.len()))
        };
        let mut out = Vec::with_capacity(piece.len() + piece.len() / 64 + END);
        for line in piece.split_inclusive(|&byte| byte == b'\n') {
            // RFC 5321 section 4.5.2
            if self.at_line_start && line[0] == b'.' {
                out.push(b'.');
            }
            out.extend_from_slice(line);
            self.at_line_start = line.ends_with(b"\n");
        }
        self.rest = (!rest.is_empty()).then_some(rest);
        if rest.is_empty() {
            out.extend_from_slice(if self.is_ended { b".\r\n" } else { b"\r\n.\r\n" });
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn content_that_servers_read_differently_is_refused() {
        let check = |content: &[u8], word: &str| {
            let error = examine(content).expect_err("refused");
            assert_eq!((error.kind(), error.stage()), (ErrorKind::Unsupported, Stage::Prepare));
            assert!(error.reply().is_some_and(|reply| reply.contains(word)), "{error}");
            assert_eq!(error.failure(), postroom_core::failure::Failure::GiveUp);
        };
        for smuggled in [
            &b"a\n.\r\nb\r\n"[..],
            b"a\r\n.\n",
            b"a\r.\r\n",
            b"a\r\r\n.\r\n",
            b"a\n",
            b"a\r",
            b"\r",
            b"\n",
            b"a\r\n.\r.\r\n",
        ] {
            check(smuggled, "CRLF");
        }
        check(b"a\0b\r\n", "NUL");
        check(&[b'a'; 999], "998");
        assert!(examine(&[b'a'; 998]).is_ok());
    }

    #[test]
    fn the_needs_of_content_are_seen() {
        let check = |content: &str, smtputf8, eight_bit, size| {
            assert_eq!(
                examine(content.as_bytes()).ok(),
                Some(Needs { smtputf8, eight_bit, size }),
                "{content:?}"
            );
        };
        check("", false, false, 0);
        check("Subject: a\r\n\r\nb\r\n", false, false, 17);
        check("Subject: a\r\n\r\nb", false, false, 17);
        check("Subject: a\r\n\r\n\u{e3}\r\n", false, true, 18);
        check("Subject: \u{e3}\r\n\r\nb\r\n", true, true, 18);
    }

    /// What a server makes of it (RFC 5321 section 4.5.2): the mail, and what is left behind the dot.
    fn unstuffed(wire: &[u8]) -> Option<(Vec<u8>, &[u8])> {
        let mut mail = Vec::new();
        let mut rest = wire;
        loop {
            let end = rest.windows(2).position(|two| two == b"\r\n")? + 2;
            let (line, tail) = rest.split_at(end);
            rest = tail;
            match line {
                b".\r\n" => return Some((mail, rest)),
                [b'.', stuffed @ ..] => mail.extend_from_slice(stuffed),
                _ => mail.extend_from_slice(line),
            }
        }
    }

    fn check_stuffing(content: &[u8]) {
        let wire = Stuffed::new(content).collect::<Vec<_>>().concat();
        let mut expected = content.to_vec();
        if !is_ended(content) {
            expected.extend_from_slice(b"\r\n");
        }
        assert_eq!(unstuffed(&wire), Some((expected, &b""[..])));
        // A server that also takes bare line feeds for line ends sees one end of data, at the end.
        let ends = |mark: &[u8]| wire.windows(mark.len()).filter(|window| *window == mark).count();
        assert_eq!(ends(b"\r\n.\r\n") + usize::from(wire.starts_with(b".\r\n")), 1);
        assert_eq!(ends(b"\n.\n") + ends(b"\r.\r") + ends(b"\n.\r\n") - ends(b"\r\n.\r\n"), 0);
    }

    #[test]
    fn a_dot_at_the_border_of_two_pieces_is_stuffed() {
        for shift in 0..16 {
            let mut content = vec![b'a'; PIECE - 12 + shift];
            for at in (900..content.len() - 8).step_by(900) {
                content[at..at + 2].copy_from_slice(b"\r\n");
            }
            content.extend_from_slice(b"\r\n.\r\n..b\r\n");
            assert!(examine(&content).is_ok());
            check_stuffing(&content);
        }
    }

    proptest! {
        #[test]
        fn whatever_passes_the_examination_arrives_as_it_was_and_as_one_mail(
            parts in prop::collection::vec(
                prop_oneof![Just("\r\n"), Just("."), Just(".."), Just("\n"), Just("\r"), Just("a"), Just("\r\n.\r\n")], 0..40,
            )
        ) {
            let content = parts.concat().into_bytes();
            if examine(&content).is_ok() {
                check_stuffing(&content);
            }
        }
    }
}
