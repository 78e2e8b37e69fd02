//! Header fields of a host's own: which names it may use, and which are postroom's.

use crate::rules;
use crate::violation::{Invalid, shown};

const NAME_LIMIT: usize = 76;
const VALUE_LIMIT: usize = 4000;

/// Fields that postroom sets, or that only the servers on the way may set.
const OWN: &[&str] = &[
    "bcc",
    "cc",
    "date",
    "delivered-to",
    "dkim-signature",
    "envelope-to",
    "from",
    "in-reply-to",
    "message-id",
    "mime-version",
    "received",
    "references",
    "reply-to",
    "return-path",
    "sender",
    "subject",
    "to",
    "x-original-to",
];

/// Whether a host may add this header field.
///
/// # Errors
/// [`rules::HEADER`] when the name is none (RFC 5322 section 2.2) or is postroom's, and when the value has control
/// characters, which could begin a field of their own, or is too long.
pub(crate) fn check_header(name: &str, value: &str) -> Result<(), Invalid> {
    let lower = name.to_ascii_lowercase();
    let is_name = (1..=NAME_LIMIT).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    let is_own = OWN.binary_search(&lower.as_str()).is_ok()
        || lower.starts_with("content-")
        || lower.starts_with("resent-");
    if !is_name || is_own || value.len() > VALUE_LIMIT || value.chars().any(char::is_control) {
        return Err(Invalid::new(&rules::HEADER).with("name", shown(name)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_can_add_its_own_fields_and_none_of_ours() {
        assert!(OWN.is_sorted());
        assert!(check_header("X-Ticket", "7, São Paulo").is_ok());
        assert!(check_header("Auto-Submitted", "auto-generated").is_ok());
        for (name, value) in [
            ("BCC", "x@y"),
            ("Content-Type", "text/html"),
            ("Resent-To", "x@y"),
            ("X Y", "a"),
            ("X:Y", "a"),
            ("X\r\nBcc", "a"),
            ("", "a"),
            ("Ü", "a"),
            ("X-A", "a\r\nBcc: x@y"),
            ("X-A", "a\nBcc: x@y"),
            ("X-A", "a\0"),
        ] {
            assert!(check_header(name, value).is_err(), "{name:?}: {value:?}");
        }
        assert!(check_header("X-A", &"a".repeat(VALUE_LIMIT + 1)).is_err());
    }
}
