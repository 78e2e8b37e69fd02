//! A file that goes with a submitted mail. Files of received mail are in `mail`.

use crate::rules;
use crate::violation::{Invalid, shown};

/// A file that goes with a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a form that hosts fill by literal")]
pub struct Attachment {
    /// The file's name, without a path.
    pub name: String,
    /// `type/subtype`.
    pub media_type: String,
    /// The bytes.
    pub content: Vec<u8>,
    /// The Content-ID that the HTML refers to as `cid:..`, without angle brackets; none for an ordinary attachment.
    pub content_id: Option<String>,
}

impl Attachment {
    /// Checks name, media type and Content-ID.
    ///
    /// # Errors
    /// [`rules::ATTACHMENT`].
    pub fn check(&self) -> Result<(), Invalid> {
        let invalid = |what: &str| Err(Invalid::new(&rules::ATTACHMENT).with("value", shown(what)));
        let name = &self.name;
        if !(1..=255).contains(&name.len()) || name.chars().any(|c| c.is_control() || c == '/' || c == '\\') {
            return invalid(name);
        }
        match self.media_type.split_once('/') {
            Some((kind, subtype))
                if is_token(kind) && is_token(subtype) && !kind.eq_ignore_ascii_case("multipart") => {}
            _ => return invalid(&self.media_type),
        }
        match &self.content_id {
            Some(id) if !is_content_id(id) => invalid(id),
            _ => Ok(()),
        }
    }
}

/// RFC 6838 section 4.2.
fn is_token(text: &str) -> bool {
    (1..=127).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
}

fn is_content_id(text: &str) -> bool {
    (1..=200).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'<' && byte != b'>')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_types_and_ids_that_could_break_out_of_their_header_are_refused() {
        let check = |name: &str, media_type: &str, id: Option<&str>| {
            let (name, media_type) = (name.to_owned(), media_type.to_owned());
            let content_id = id.map(ToOwned::to_owned);
            Attachment { name, media_type, content: Vec::new(), content_id }.check().is_ok()
        };
        assert!(check("relatório \"1\".pdf", "application/vnd.x+json", Some("a@b")));
        assert!(!check("", "text/plain", None));
        assert!(!check("a\r\nBcc: x", "text/plain", None));
        assert!(!check("../a", "text/plain", None));
        assert!(!check("a", "text", None));
        assert!(!check("a", "text/plain; name=x", None));
        assert!(!check("a", "text/plain\r\nBcc: x", None));
        assert!(!check("a", "multipart/mixed", None));
        assert!(!check("a", "text/plain", Some("a>\r\nBcc: x")));
        assert!(!check("a", "text/plain", Some("")));
    }
}
