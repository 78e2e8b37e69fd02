//! The outer structure of a mail, found in bounded time before anything is decoded: header fields, and the leaves of
//! nested multiparts. Boundaries count only as whole lines (RFC 2046 section 5.1.1). Nothing is decoded here, and an
//! attached mail is one leaf: its inside is not scanned.

use crate::mail::Problem;

/// Multiparts nested more deeply are not opened.
const DEPTH_LIMIT: usize = 16;
/// Parts beyond are not read.
const PARTS_LIMIT: usize = 1000;
/// RFC 2046 allows 70 characters; some programs write more.
const BOUNDARY_LIMIT: usize = 200;
/// Fields beyond make a mail suspicious; known ones are read all the same.
const FIELDS_LIMIT: usize = 10_000;
/// Known fields that are read.
const KNOWN_LIMIT: usize = 500;

/// One header field (RFC 5322 section 2.2).
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    /// The name, in the case as given.
    pub(super) name: &'a [u8],
    /// What stands after the colon, folds and last line break included.
    pub(super) value: &'a [u8],
}

impl Field<'_> {
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The fields of the header with which `bytes` begin. Lines that are no field are skipped.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    ended: bool,
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, ended: false }
    }

    /// How many bytes are not read yet.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// What follows the header, once every field was read.
    pub(super) fn body(mut self) -> &'a [u8] {
        while self.next().is_some() {}
        self.rest
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        while !self.ended && !self.rest.is_empty() {
            let mut end = line_length(self.rest);
            let line = &self.rest[..end];
            if matches!(line, b"\n" | b"\r\n" | b"\r") {
                self.rest = &self.rest[end..];
                self.ended = true;
                break;
            }
            while matches!(self.rest.get(end), Some(b' ' | b'\t')) {
                end += line_length(&self.rest[end..]);
            }
            let whole;
            (whole, self.rest) = self.rest.split_at(end);
            if let Some(colon) = line.iter().position(|byte| *byte == b':') {
                let name = line[..colon].trim_ascii_end();
                if !name.is_empty() && name.iter().all(u8::is_ascii_graphic) {
                    return Some(Field { name, value: &whole[colon + 1..] });
                }
            }
        }
        None
    }
}

/// The length of the first line, its line feed included.
fn line_length(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1)
}

/// The fields among `bytes`' header that `known` wants, and the body.
pub(super) fn known_fields<'a>(
    bytes: &'a [u8],
    known: impl Fn(&Field<'a>) -> bool,
    note: &mut impl FnMut(Problem),
) -> (Vec<Field<'a>>, &'a [u8]) {
    let mut kept = Vec::new();
    let mut fields = Fields::new(bytes);
    let mut count = 0;
    for field in fields.by_ref() {
        count += 1;
        if known(&field) {
            if kept.len() == KNOWN_LIMIT {
                note(Problem::TooManyHeaders);
                break;
            }
            kept.push(field);
        }
    }
    if count > FIELDS_LIMIT {
        note(Problem::TooManyHeaders);
    }
    (kept, fields.body())
}

/// What the fields of a part say about its inside.
pub(super) enum Kind {
    /// Parts between lines of this boundary.
    Multipart {
        boundary: Vec<u8>,
        /// Whether they are forms of the same content.
        alternative: bool,
    },
    /// Content.
    Leaf,
}

/// A part that is no multipart.
#[derive(Debug)]
pub(super) struct Leaf<'a> {
    pub(super) fields: Vec<Field<'a>>,
    pub(super) body: &'a [u8],
    /// Which multipart/alternative it is in, if any.
    pub(super) alternative: Option<usize>,
}

struct Open<'a> {
    bytes: &'a [u8],
    depth: usize,
    alternative: Option<usize>,
}

/// The leaves of a mail in their order.
pub(super) fn leaves<'a>(
    bytes: &'a [u8],
    known: impl Fn(&Field<'a>) -> bool,
    kind: impl Fn(&[Field<'a>]) -> Kind,
    note: &mut impl FnMut(Problem),
) -> Vec<Leaf<'a>> {
    let mut leaves = Vec::new();
    let mut alternatives = 0;
    let mut parts = 0;
    let mut waiting = vec![Open { bytes, depth: 0, alternative: None }];
    while let Some(Open { bytes, depth, alternative }) = waiting.pop() {
        let (fields, body) = known_fields(bytes, &known, note);
        match kind(&fields) {
            Kind::Multipart { .. } if depth == DEPTH_LIMIT => note(Problem::TooDeep),
            Kind::Multipart { boundary, alternative: forms } if boundary.len() <= BOUNDARY_LIMIT => {
                let alternative = if forms {
                    alternatives += 1;
                    Some(alternatives)
                } else {
                    alternative
                };
                let (found, problem) = split(body, &boundary, PARTS_LIMIT - parts);
                problem.into_iter().for_each(&mut *note);
                parts += found.len();
                // The last of the waiting is taken next: it must be the first part.
                let open = |bytes| Open { bytes, depth: depth + 1, alternative };
                waiting.extend(found.into_iter().rev().map(open));
            }
            Kind::Multipart { .. } | Kind::Leaf => leaves.push(Leaf { fields, body, alternative }),
        }
    }
    leaves
}

/// At most so many parts between the boundary lines, without the line break that belongs to the boundary.
fn split<'a>(body: &'a [u8], boundary: &[u8], most: usize) -> (Vec<&'a [u8]>, Option<Problem>) {
    let mut parts = Vec::new();
    let mut start = None;
    let mut at = 0;
    while at < body.len() {
        let line_start = at;
        let line = &body[at..at + line_length(&body[at..])];
        at += line.len();
        let after = line.strip_prefix(b"--").and_then(|line| line.strip_prefix(boundary));
        let (Some(b"") | Some(b"--")) = after.map(<[u8]>::trim_ascii_end) else { continue };
        if let Some(start) = start {
            if parts.len() == most {
                return (parts, Some(Problem::TooManyParts));
            }
            parts.push(without_line_break(&body[start..line_start]));
        }
        start = Some(at);
        if after.is_some_and(|rest| rest.starts_with(b"--")) {
            return (parts, None);
        }
    }
    // The end of the bytes is the end of an open part.
    if let Some(last) = start.filter(|start| *start < body.len() && parts.len() < most) {
        parts.push(&body[last..]);
    }
    (parts, Some(Problem::Unclosed))
}

fn without_line_break(part: &[u8]) -> &[u8] {
    let part = part.strip_suffix(b"\n").unwrap_or(part);
    part.strip_suffix(b"\r").unwrap_or(part)
}
