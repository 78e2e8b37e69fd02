//! What a POP3 server can say: the status line with its response code (RFC 1939 section 3, RFC 2449 section 8), the lines of
//! a listing, and the dots of a mail. Nothing is read from the stream here.

use crate::error::{Error, ErrorKind, Stage};

/// A status line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) is_ok: bool,
    /// The response code in upper case, without its brackets.
    pub(super) code: Option<String>,
    pub(super) text: String,
}

impl Reply {
    /// Reads `+OK` or `-ERR` with what follows.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let line = String::from_utf8_lossy(line);
        let (word, text) = line.split_once(' ').unwrap_or((&line, ""));
        let is_ok = match word.trim_end().to_ascii_uppercase().as_str() {
            "+OK" => true,
            "-ERR" => false,
            _ => return None,
        };
        let text = text.trim();
        let code = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        Some(Self {
            is_ok,
            code: code.map(|(code, _)| code.trim().to_ascii_uppercase()),
            text: text.to_owned(),
        })
    }

    /// What a refusal means at this stage.
    pub(super) fn error(&self, stage: Stage) -> Error {
        let signing_in = stage <= Stage::SignIn;
        let kind = match self.code.as_deref() {
            Some("IN-USE") => ErrorKind::InUse,
            Some("LOGIN-DELAY") => ErrorKind::Throttled,
            // RFC 3206: the credentials are wrong, or hold no more, or the system has a problem.
            Some("AUTH") if signing_in => ErrorKind::SignInRefused,
            Some("AUTH") => ErrorKind::Reauthorise,
            Some("SYS/TEMP") if signing_in => ErrorKind::SignInUnavailable,
            Some("SYS/TEMP") => ErrorKind::Deferred,
            Some("SYS/PERM") => ErrorKind::Refused,
            // The words of RFC 1939 section 5, from servers that know no codes.
            _ if signing_in && self.text.to_ascii_lowercase().contains("already locked") => ErrorKind::InUse,
            _ if stage == Stage::SignIn => ErrorKind::SignInRefused,
            _ => ErrorKind::Refused,
        };
        Error::new(kind, stage).with_reply(&self.text)
    }
}

/// A line of a listing: a mail's number and what is said of it.
pub(super) fn numbered(line: &[u8]) -> Option<(u32, &str)> {
    let (number, rest) = std::str::from_utf8(line).ok()?.trim_ascii().split_once(' ')?;
    let number = number.parse().ok().filter(|number| *number > 0)?;
    Some((number, rest.trim_ascii()))
}

/// Takes the dots out of a mail (RFC 1939 section 3) and finds its end. A line ends by CRLF and by nothing else, so that no
/// bare LF in a mail can end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unstuff {
    LineStart,
    Text,
    /// CR was read.
    Cr,
    /// A dot was read at the start of a line: stuffed, or the end.
    Dot,
    /// A dot and CR were.
    DotCr,
    /// The end was.
    Ended,
}

impl Unstuff {
    /// Reads on: what belongs to the mail is appended to `mail`. Gives how many bytes were read; all but at the end.
    pub(super) fn read(&mut self, bytes: &[u8], mail: &mut Vec<u8>) -> usize {
        let mut at = 0;
        while at < bytes.len() && *self != Self::Ended {
            if *self == Self::Text {
                let run = bytes[at..].iter().position(|byte| *byte == b'\r').unwrap_or(bytes.len() - at);
                mail.extend_from_slice(&bytes[at..at + run]);
                at += run;
            }
            let Some(&byte) = bytes.get(at) else { break };
            at += 1;
            *self = match (*self, byte) {
                (Self::LineStart, b'.') => Self::Dot,
                (Self::Dot, b'\r') => Self::DotCr,
                (Self::DotCr, b'\n') => Self::Ended,
                (state, byte) => {
                    if state == Self::DotCr {
                        mail.push(b'\r');
                    }
                    mail.push(byte);
                    match byte {
                        b'\r' => Self::Cr,
                        b'\n' if matches!(state, Self::Cr) => Self::LineStart,
                        _ => Self::Text,
                    }
                }
            };
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_refused_sign_in_a_lock_and_a_server_in_trouble_are_told_apart() {
        for (line, stage, want) in [
            ("-ERR [IN-USE] locked", Stage::SignIn, ErrorKind::InUse),
            ("-ERR [in-use] locked", Stage::SignIn, ErrorKind::InUse),
            ("-ERR maildrop already locked", Stage::SignIn, ErrorKind::InUse),
            ("-ERR [LOGIN-DELAY] wait", Stage::SignIn, ErrorKind::Throttled),
            ("-ERR [AUTH] no", Stage::SignIn, ErrorKind::SignInRefused),
            ("-ERR invalid password", Stage::SignIn, ErrorKind::SignInRefused),
            ("-ERR [AUTH] expired", Stage::Fetch, ErrorKind::Reauthorise),
            ("-ERR", Stage::SignIn, ErrorKind::SignInRefused),
            ("-ERR [SYS/TEMP] later", Stage::SignIn, ErrorKind::SignInUnavailable),
            ("-ERR [SYS/TEMP] later", Stage::Fetch, ErrorKind::Deferred),
            ("-ERR [SYS/PERM] never", Stage::SignIn, ErrorKind::Refused),
            ("-ERR no such message", Stage::Fetch, ErrorKind::Refused),
        ] {
            let reply = Reply::parse(line.as_bytes()).expect("a reply");
            assert_eq!(reply.error(stage).kind(), want, "{line}");
        }
    }

    #[test]
    fn what_is_neither_ok_nor_err_is_no_reply() {
        for line in ["", "+", "+OKAY", "250 ok", " +OK", "-ER", "* OK"] {
            assert_eq!(Reply::parse(line.as_bytes()), None, "{line}");
        }
        assert!(Reply::parse(b"+ok").expect("a reply").is_ok);
        assert!(Reply::parse(b"+OK caf\xe9").expect("a reply").is_ok);
    }

    #[test]
    fn lines_of_a_listing_have_a_number_and_a_word() {
        assert_eq!(numbered(b"1 abc"), Some((1, "abc")));
        assert_eq!(numbered(b" 12   abc  "), Some((12, "abc")));
        for line in [&b"1"[..], b"", b"0 a", b"-1 a", b"x a", b"99999999999 a", b"1 \xff"] {
            assert_eq!(numbered(line), None, "{}", line.escape_ascii());
        }
    }

    fn unstuff(pieces: &[&[u8]]) -> (Vec<u8>, Unstuff) {
        let (mut state, mut mail) = (Unstuff::LineStart, Vec::new());
        for piece in pieces {
            state.read(piece, &mut mail);
        }
        (mail, state)
    }

    #[test]
    fn dots_are_taken_out_and_only_a_dot_alone_between_crlf_ends_a_mail() {
        for (wire, mail) in [
            (&b".\r\n"[..], &b""[..]),
            (b"a\r\n.\r\n", b"a\r\n"),
            (b"..\r\n...\r\n.\r\n", b".\r\n..\r\n"),
            (b"a.\r\n.\r\n", b"a.\r\n"),
            (b"a\n.\n.\r\nb\r\n.\r\n", b"a\n.\n.\r\nb\r\n"),
            (b".a\r\n.\r\n", b"a\r\n"),
            (b".\rx\r\n.\r\n", b"\rx\r\n"),
            (b"a\r.\r\n\r\r\n.\r\n", b"a\r.\r\n\r\r\n"),
        ] {
            assert_eq!(unstuff(&[wire]), (mail.to_vec(), Unstuff::Ended), "{}", wire.escape_ascii());
            assert_ne!(unstuff(&[&wire[..wire.len() - 1]]).1, Unstuff::Ended, "{}", wire.escape_ascii());
        }
        assert_eq!(Unstuff::LineStart.read(b"a\r\n.\r\nmore", &mut Vec::new()), 6);
    }

    proptest! {
        #[test]
        fn every_mail_survives_however_it_is_cut(
            mail in "[a.\r\n]{0,40}", cuts in proptest::collection::vec(0_usize..80, 0..5)
        ) {
            let mail = format!("{mail}\r\n");
            let mut wire = String::new();
            for line in mail.split_inclusive("\r\n") {
                wire.push_str(if line.starts_with('.') { "." } else { "" });
                wire.push_str(line);
            }
            wire.push_str(".\r\n");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(wire.len())).collect();
            cuts.extend([0, wire.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &wire.as_bytes()[cut[0]..cut[1]]).collect();
            prop_assert_eq!(unstuff(&pieces), (mail.into_bytes(), Unstuff::Ended));
        }

        #[test]
        fn no_bytes_make_a_mail_grow(bytes: Vec<u8>) {
            let mut mail = Vec::new();
            let read = Unstuff::LineStart.read(&bytes, &mut mail);
            prop_assert!(read <= bytes.len() && mail.len() <= read);
        }
    }
}
