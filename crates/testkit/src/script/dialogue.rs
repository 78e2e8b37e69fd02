//! Reading a dialogue file into steps. Playing them is in the sibling `play`.

use std::io;

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Send(Vec<u8>),
    Repeat(usize, Vec<u8>),
    Expect(String),
    ExpectPrefix(String),
    Data,
    Bytes(usize),
    Tls,
    Close,
    Cut,
    Stall,
}

/// A step, where it stands in the file (from 1), and its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) line: usize,
    pub(crate) text: String,
    pub(crate) action: Action,
}

#[derive(Clone, Debug)]
pub(crate) struct Dialogue {
    pub(crate) steps: Vec<Step>,
    /// The number of lines, which stands for the end.
    pub(crate) lines: usize,
}

impl Dialogue {
    pub(crate) fn parse(script: &str) -> io::Result<Self> {
        let mut steps: Vec<Step> = Vec::new();
        for (at, text) in script.lines().enumerate() {
            if text.trim().is_empty() || text.starts_with('#') {
                continue;
            }
            let line = at + 1;
            let wrong = |why: &str| {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("line {line} of the dialogue: {why}: {text:?}"),
                )
            };
            if let Some(last) = steps.last()
                && matches!(last.action, Action::Close | Action::Cut | Action::Stall)
            {
                return Err(wrong("nothing can follow CLOSE, CUT or STALL"));
            }
            let action = action(text).ok_or_else(|| wrong("not a step"))?;
            steps.push(Step { line, text: text.to_owned(), action });
        }
        Ok(Self { steps, lines: script.lines().count() })
    }
}

fn action(text: &str) -> Option<Action> {
    // A space belongs to the mark; a mark without one is followed by nothing.
    let after = |mark: &str| {
        let rest = text.strip_prefix(mark)?;
        if rest.is_empty() { Some("") } else { rest.strip_prefix(' ') }
    };
    match text.trim_end() {
        "C-DATA" => return Some(Action::Data),
        "TLS" => return Some(Action::Tls),
        "CLOSE" => return Some(Action::Close),
        "CUT" => return Some(Action::Cut),
        "STALL" => return Some(Action::Stall),
        _ => {}
    }
    if let Some(text) = after("S:") {
        return Some(Action::Send(format!("{text}\r\n").into_bytes()));
    }
    if let Some(text) = after("S<<") {
        return unescape(text).map(Action::Send);
    }
    if let Some(rest) = after("S-REPEAT") {
        let (times, text) = rest.split_once(' ')?;
        return Some(Action::Repeat(times.parse().ok()?, unescape(text)?));
    }
    if let Some(text) = after("C:") {
        return Some(Action::Expect(text.to_owned()));
    }
    if let Some(text) = after("C~") {
        return Some(Action::ExpectPrefix(text.to_owned()));
    }
    after("C-BYTES")?.trim_end().parse().ok().map(Action::Bytes)
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let mut chars = escaped.chars();
        bytes.push(match chars.next()? {
            'r' => b'\r',
            'n' => b'\n',
            't' => b'\t',
            '0' => 0,
            '\\' => b'\\',
            'x' => {
                let digits =
                    chars.as_str().get(..2).filter(|digits| digits.bytes().all(|d| d.is_ascii_hexdigit()))?;
                chars = chars.as_str().get(2..)?.chars();
                u8::from_str_radix(digits, 16).ok()?
            }
            _ => return None,
        });
        rest = chars.as_str();
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line_is_read() {
        let dialogue = Dialogue::parse(
            "# greeting\nS: 220 hi\nS:\nS<< a\\r\\n\\x00\\\\\n\nS-REPEAT 3 ab\\n\nC: EHLO  x \nC~ MAIL\nC-DATA\nC-BYTES 12\nTLS\nSTALL\n",
        );
        let steps = dialogue.unwrap().steps;
        let actions: Vec<_> = steps.iter().map(|step| step.action.clone()).collect();
        assert_eq!(
            actions,
            [
                Action::Send(b"220 hi\r\n".to_vec()),
                Action::Send(b"\r\n".to_vec()),
                Action::Send(b"a\r\n\0\\".to_vec()),
                Action::Repeat(3, b"ab\n".to_vec()),
                Action::Expect("EHLO  x ".into()),
                Action::ExpectPrefix("MAIL".into()),
                Action::Data,
                Action::Bytes(12),
                Action::Tls,
                Action::Stall,
            ]
        );
        assert_eq!((steps[0].line, steps[3].line), (2, 6));
    }

    #[test]
    fn a_line_that_is_no_step_is_named() {
        for script in [
            "S: a\nX: b",
            "S: a\nS<< \\q",
            "S: a\nS<< \\x1",
            "S: a\nS:b",
            "CUT\nC: a",
            "\nC-BYTES x",
            "\nS-REPEAT 3",
        ] {
            let error = Dialogue::parse(script).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().starts_with("line 2 "), "{error}");
        }
    }
}
