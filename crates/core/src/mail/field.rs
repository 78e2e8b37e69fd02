//! Header fields as they stand in the bytes (RFC 5322 section 2.2), found without being read. Reading a field as text or as
//! addresses is in `mime`.

use memchr::memchr;

/// Fields of a mail beyond are not shown.
pub(crate) const FIELDS_LIMIT: usize = 10_000;
/// "Each line of characters MUST be no more than 998 characters" (RFC 5322 section 2.1.1): a name fits in one.
const NAME_LIMIT: usize = 998;

/// One header field, as it stands in the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderField<'a> {
    name: &'a str,
    value: &'a [u8],
}

impl<'a> HeaderField<'a> {
    /// Its name, in the case as given: printable ASCII, at most 998 bytes.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Whether it has this name, in any case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// What stands behind the colon, with blanks, folds and the last line break: any bytes.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.value
    }
}

/// The fields of the header with which bytes begin. Lines that are no field are skipped.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    ended: bool,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, ended: false }
    }

    /// How many bytes are not read yet.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = HeaderField<'a>;

    fn next(&mut self) -> Option<HeaderField<'a>> {
        while !self.ended && !self.rest.is_empty() {
            let mut end = line_length(self.rest);
            let line = &self.rest[..end];
            if is_blank(line) {
                self.rest = &self.rest[end..];
                self.ended = true;
                break;
            }
            while matches!(self.rest.get(end), Some(b' ' | b'\t')) {
                end += line_length(&self.rest[end..]);
            }
            let whole;
            (whole, self.rest) = self.rest.split_at(end);
            // Some programs write blanks before the colon (RFC 5322 section 4.5).
            let Some(colon) = memchr(b':', line) else { continue };
            let name = line[..colon].trim_ascii_end();
            if (1..=NAME_LIMIT).contains(&name.len())
                && name.iter().all(u8::is_ascii_graphic)
                && let Ok(name) = std::str::from_utf8(name)
            {
                return Some(HeaderField { name, value: &whole[colon + 1..] });
            }
        }
        None
    }
}

/// Whether a line ends a header.
pub(crate) fn is_blank(line: &[u8]) -> bool {
    matches!(line, b"\n" | b"\r\n" | b"\r")
}

/// The length of the first line, its line feed included.
pub(crate) fn line_length(bytes: &[u8]) -> usize {
    memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1)
}
