//! What goes back to an IMAP client: untagged data gathered in order, and the verdict that the tag is put on.

/// The end of a command; the text may begin with a response code in brackets.
#[derive(Debug)]
pub(crate) enum Verdict {
    Ok(String),
    No(String),
    Bad(String),
    /// The server ends the session.
    Bye(String),
}

impl Verdict {
    pub(crate) fn ok(text: impl Into<String>) -> Self {
        Self::Ok(text.into())
    }

    pub(crate) fn no(text: impl Into<String>) -> Self {
        Self::No(text.into())
    }

    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self::Bad(text.into())
    }
}

/// A response code in front, when there is one.
pub(crate) fn with_code(code: Option<String>, text: &str) -> Verdict {
    Verdict::ok(code.map_or_else(|| text.to_owned(), |code| format!("{code} {text}")))
}

/// Untagged responses in the order in which they will be sent.
#[derive(Debug, Default)]
pub(crate) struct Untagged(Vec<u8>);

impl Untagged {
    pub(crate) fn line(&mut self, text: &str) {
        self.0.extend_from_slice(format!("* {text}\r\n").as_bytes());
    }

    /// One response that may hold literals; its end of line is added.
    pub(crate) fn raw(&mut self, response: &[u8]) {
        self.0.extend_from_slice(b"* ");
        self.0.extend_from_slice(response);
        self.0.extend_from_slice(b"\r\n");
    }

    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// A quoted string (RFC 3501 section 9); for text without CR, LF and NUL.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// UIDs as a sequence set, with runs as ranges.
pub(crate) fn uid_set(uids: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &uid in uids {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(uid) => *last = uid,
            _ => ranges.push((uid, uid)),
        }
    }
    let parts: Vec<_> = ranges
        .into_iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}:{last}") })
        .collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_uids_become_ranges_and_order_is_kept() {
        assert_eq!(uid_set(&[1, 2, 3, 7, 9, 10]), "1:3,7,9:10");
        assert_eq!(uid_set(&[5, 4]), "5,4");
        assert_eq!(uid_set(&[u32::MAX]), "4294967295");
    }
}
