//! A server's replies: read line by line, bounded, in any character set (RFC 5321 section 4.2, RFC 2034). What a refusal
//! means, `classify` knows.

use crate::error::{Error, Stage};
use crate::outgoing::Reply;
use crate::smtp::classify;
use crate::wire::sasl::Secrets;

/// The longest line of a reply, in bytes. RFC 5321 section 4.5.3.1.5 allows 512; servers exceed it.
pub(super) const LINE_LIMIT: usize = 4096;

/// The most lines of one reply.
const LINES_LIMIT: usize = 128;

/// A whole reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    code: u16,
    lines: Vec<String>,
}

/// A reply that is being read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    code: Option<u16>,
    lines: Vec<String>,
}

impl Reading {
    /// Takes the next line, and gives the answer when it was the last. The error says what is wrong with the line.
    pub(super) fn take(&mut self, line: &[u8]) -> Result<Option<Answer>, &'static str> {
        let (code, is_last, text) = split(line).ok_or("not a reply line")?;
        if *self.code.get_or_insert(code) != code {
            return Err("the codes of one reply differ");
        }
        if self.lines.len() == LINES_LIMIT {
            return Err("a reply has too many lines");
        }
        self.lines.push(text);
        Ok(is_last.then(|| Answer { code, lines: std::mem::take(&mut self.lines) }))
    }
}

/// Code, whether it is the last line, text.
fn split(line: &[u8]) -> Option<(u16, bool, String)> {
    let (code, rest) = line.split_at_checked(3)?;
    // Reply codes are 2yz to 5yz; SMTP has no 1yz.
    if !code.iter().all(u8::is_ascii_digit) || !(b'2'..=b'5').contains(&code[0]) {
        return None;
    }
    let code = code.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest {
        [] => Some((code, true, String::new())),
        [b' ', text @ ..] => Some((code, true, readable(text))),
        [b'-', text @ ..] => Some((code, false, readable(text))),
        _ => None,
    }
}

/// Any bytes as text: what is not UTF-8 is read as Latin-1. A reply counts by its code, whatever its text.
pub(super) fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
    }
}

impl Answer {
    pub(super) fn code(&self) -> u16 {
        self.code
    }

    /// The first digit of the code.
    pub(super) fn class(&self) -> u16 {
        self.code / 100
    }

    /// The texts of the lines, as they came.
    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// With texts that do not tell these.
    pub(super) fn without(mut self, secrets: &Secrets) -> Self {
        for line in &mut self.lines {
            *line = secrets.redacted(std::mem::take(line));
        }
        self
    }

    /// As the port shows it.
    pub(super) fn reply(&self) -> Reply {
        let enhanced = self.lines.iter().find_map(|line| self.enhanced(line)).map(|(enhanced, _)| enhanced);
        let texts: Vec<&str> = self
            .lines
            .iter()
            .map(|line| self.enhanced(line).map_or(line.as_str(), |(_, text)| text))
            .collect();
        Reply::new(self.code, enhanced, &texts.join(" "))
    }

    /// The enhanced code that begins a line, and what follows it. One of another class than the reply's does not count
    /// (RFC 2034 section 4).
    fn enhanced<'a>(&self, line: &'a str) -> Option<((u8, u16, u16), &'a str)> {
        let (word, text) = line.split_once(' ').unwrap_or((line, ""));
        let mut parts = word.split('.');
        let (class, subject, detail) = (parts.next()?, parts.next()?, parts.next()?);
        let number = |part: &str| (part.len() <= 3).then(|| part.parse().ok()).flatten();
        let class: u8 = class.parse().ok().filter(|&class| u16::from(class) == self.class())?;
        let enhanced = (class, number(subject)?, number(detail)?);
        parts.next().is_none().then_some((enhanced, text))
    }

    /// The error that a reply is which is not the wanted one.
    pub(super) fn error(&self, stage: Stage) -> Error {
        classify::error(&self.reply(), stage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use postroom_core::failure::Failure;
    use proptest::prelude::*;

    fn read(lines: &[&[u8]]) -> Result<Answer, &'static str> {
        let mut reading = Reading::default();
        for (at, line) in lines.iter().enumerate() {
            if let Some(answer) = reading.take(line)? {
                assert_eq!(at + 1, lines.len(), "a line was left over");
                return Ok(answer);
            }
        }
        Err("not ended")
    }

    #[test]
    fn replies_are_read_as_servers_write_them() {
        let check = |lines: &[&[u8]], want: &str| {
            let got = read(lines).map_or_else(|error| error.to_owned(), |answer| answer.reply().to_string());
            assert_eq!(got, want);
        };
        check(&[b"250 2.1.0 Ok"], "250 2.1.0 Ok");
        check(&[b"250"], "250");
        check(&[b"250 "], "250");
        check(&[b"550-5.1.1 No such", b"550 5.1.1 user"], "550 5.1.1 No such user");
        check(&[b"550-No such", b"550 user"], "550 No such user");
        check(&[b"250 mensagem aceita em S\xe3o Paulo"], "250 mensagem aceita em São Paulo");
        check(&[b"450 5.1.1 of another class"], "450 5.1.1 of another class");
        check(&[b"250 2.0.0.1 no enhanced code"], "250 2.0.0.1 no enhanced code");
        check(&[b"250-a", b"550 b"], "the codes of one reply differ");
        for bad in
            [&b""[..], b"25", b"2500", b"150 a", b"650 a", b"2x0 a", b"250\ta", b"+OK", b"* OK", b" 250 a"]
        {
            check(&[bad], "not a reply line");
        }
        let many = vec![&b"250-x"[..]; LINES_LIMIT + 1];
        check(&many, "a reply has too many lines");
    }

    #[test]
    fn refusals_are_sorted_by_code_enhanced_code_and_stage() {
        let check = |line: &str, stage, kind| {
            let error = read(&[line.as_bytes()]).expect("a reply").error(stage);
            assert_eq!(error.kind(), kind, "{line} at {stage}");
        };
        check("421 4.3.0 closing", Stage::RcptTo, ErrorKind::Throttled);
        check("451 4.3.2 later", Stage::MailFrom, ErrorKind::Throttled);
        check("450 4.7.28 flood", Stage::Dot, ErrorKind::Throttled);
        // An enhanced code of another class than the basic code does not count: the basic code wins.
        check("450 5.4.5 congested", Stage::Dot, ErrorKind::Deferred);
        check("550 4.3.4 too big", Stage::Dot, ErrorKind::Refused);
        check("451 4.7.1 greylisted", Stage::RcptTo, ErrorKind::Deferred);
        check("452 too many", Stage::RcptTo, ErrorKind::Deferred);
        check("552 too many recipients", Stage::RcptTo, ErrorKind::Deferred);
        check("552 5.5.3 too many recipients", Stage::RcptTo, ErrorKind::Deferred);
        check("552 5.2.2 full", Stage::RcptTo, ErrorKind::Refused);
        check("552 too big", Stage::Dot, ErrorKind::TooLarge);
        check("552 5.3.4 too big", Stage::MailFrom, ErrorKind::TooLarge);
        check("550 5.2.3 too big for him", Stage::RcptTo, ErrorKind::TooLarge);
        check("550 5.1.1 unknown", Stage::RcptTo, ErrorKind::Refused);
        check("354 what", Stage::MailFrom, ErrorKind::Protocol);
        let suspended = read(&[b"554 go away"]).expect("a reply").error(Stage::Greeting);
        assert_eq!(suspended.failure(), Failure::Suspend);
    }

    proptest! {
        /// It would miss what only a longer reply shows; the bounds are tested above.
        #[test]
        fn any_lines_are_read_without_a_panic_and_kept_within_bounds(
            lines in prop::collection::vec(
                prop_oneof![any::<Vec<u8>>(), "[2-5][0-9]{2}[ -][0-9.]{0,12} ?.{0,20}".prop_map(String::into_bytes)],
                0..200,
            )
        ) {
            let mut reading = Reading::default();
            for line in &lines {
                match reading.take(line) {
                    Ok(Some(answer)) => {
                        prop_assert!(answer.lines().len() <= LINES_LIMIT);
                        prop_assert!(answer.reply().text.chars().count() <= crate::TEXT_LIMIT + 1);
                        let _ = answer.error(Stage::Dot).to_string();
                        reading = Reading::default();
                    }
                    Ok(None) => {}
                    Err(_) => break,
                }
            }
            prop_assert!(reading.lines.len() <= LINES_LIMIT);
        }
    }
}
