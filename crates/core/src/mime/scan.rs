//! The outer structure of a mail, found in one pass before anything is decoded: the leaves of nested multiparts. Boundaries
//! count only as whole lines (RFC 2046 section 5.1.1). Nothing is decoded here, and an attached mail is one leaf: its inside
//! is not scanned.

use memchr::memchr_iter;

use crate::mail::Problem;
use crate::mail::field::{FIELDS_LIMIT, Fields, HeaderField, is_blank, line_length};

/// Multiparts nested more deeply are not opened.
const DEPTH_LIMIT: usize = 16;
/// Parts beyond are not read.
const PARTS_LIMIT: usize = 1000;
/// RFC 2046 allows 70 characters; some programs write more.
const BOUNDARY_LIMIT: usize = 200;
/// Known fields that are read.
const KNOWN_LIMIT: usize = 500;

/// Fields of a header, at most so many that a hostile one costs nothing, and how many there are in all.
#[derive(Debug, Default)]
pub(super) struct Header<'a> {
    pub(super) known: Vec<HeaderField<'a>>,
    count: usize,
}

impl<'a> Header<'a> {
    /// Counts a field, and keeps one that is wanted. Fields beyond [`FIELDS_LIMIT`] make a mail suspicious; known ones are
    /// read all the same.
    pub(super) fn take(&mut self, field: HeaderField<'a>, wanted: impl FnOnce(&HeaderField<'a>) -> bool) {
        self.count += 1;
        if self.known.len() <= KNOWN_LIMIT && wanted(&field) {
            self.known.push(field);
        }
    }

    /// The kept ones.
    pub(super) fn into_known(mut self, note: &mut impl FnMut(Problem)) -> Vec<HeaderField<'a>> {
        if self.count > FIELDS_LIMIT || self.known.len() > KNOWN_LIMIT {
            note(Problem::TooManyHeaders);
        }
        self.known.truncate(KNOWN_LIMIT);
        self.known
    }
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
    pub(super) fields: Vec<HeaderField<'a>>,
    pub(super) body: &'a [u8],
    /// Which multipart/alternative it is in, if any.
    pub(super) alternative: Option<usize>,
}

/// The boundaries of the open multiparts, the outermost first.
#[derive(Default)]
struct Marks {
    open: Vec<Mark>,
    /// Whether an open boundary begins with this byte.
    begins: [u8; 32],
}

struct Mark {
    boundary: Vec<u8>,
    /// The first eight bytes as a number, and which of them count: most comparisons end here.
    key: u64,
    mask: u64,
    alternative: Option<usize>,
}

impl Marks {
    fn push(&mut self, boundary: Vec<u8>, alternative: Option<usize>) {
        let mask = match boundary.len() {
            length @ 0..8 => (1_u64 << (8 * length)) - 1,
            _ => u64::MAX,
        };
        self.open.push(Mark { key: first_eight(&boundary) & mask, mask, boundary, alternative });
        self.index();
    }

    /// Closes all but the outermost `left`; gives how many.
    fn close(&mut self, left: usize) -> usize {
        let closed = self.open.len().saturating_sub(left);
        self.open.truncate(left);
        self.index();
        closed
    }

    fn index(&mut self) {
        self.begins = [0; 32];
        for first in self.open.iter().filter_map(|mark| mark.boundary.first()) {
            self.begins[usize::from(first / 8)] |= 1 << (first % 8);
        }
    }

    /// Whether a line of a boundary begins here. Of boundaries that are the same the innermost counts: some programs nest one in
    /// itself.
    fn find(&self, line: &[u8]) -> Option<Delimiter> {
        let rest = line.strip_prefix(b"--")?;
        let first = *rest.first()?;
        if self.begins[usize::from(first / 8)] & (1 << (first % 8)) == 0 {
            return None;
        }
        let key = first_eight(rest);
        let mut tried = None;
        for (level, mark) in self.open.iter().enumerate().rev() {
            // Of the same length is the same, where both are here: a line of blanks is not read sixteen times.
            if key & mark.mask != mark.key || tried == Some(mark.boundary.len()) {
                continue;
            }
            let Some(after) = rest.strip_prefix(&mark.boundary[..]) else { continue };
            tried = Some(mark.boundary.len());
            let closes = after.starts_with(b"--");
            let after = if closes { &after[2..] } else { after };
            // "Whitespace may be added to the end of the boundary by gateways" (RFC 2046 section 5.1.1).
            let blank =
                after.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\x0c')).count();
            if matches!(after.get(blank), None | Some(b'\n')) {
                let length = line.len() - after.len() + blank + usize::from(after.len() > blank);
                return Some(Delimiter { level, closes, length });
            }
        }
        None
    }
}

fn first_eight(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(eight) => u64::from_le_bytes(*eight),
        None => bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)),
    }
}

struct Delimiter {
    level: usize,
    closes: bool,
    /// Of the line, its line feed included.
    length: usize,
}

/// What is read between two lines of boundaries.
enum Inside<'a> {
    /// A leaf, whose body began here.
    Leaf(Vec<HeaderField<'a>>, usize),
    /// What nobody reads: a preamble, an epilogue, a part that is not opened.
    Nothing,
}

/// The leaves of a mail in their order. Its own header ends at `body` and has these fields.
pub(super) fn leaves<'a>(
    bytes: &'a [u8],
    mut fields: Vec<HeaderField<'a>>,
    mut body: usize,
    known: impl Fn(&HeaderField<'a>) -> bool,
    kind: impl Fn(&[HeaderField<'a>]) -> Kind,
    note: &mut impl FnMut(Problem),
) -> Vec<Leaf<'a>> {
    let mut leaves = Vec::new();
    let mut marks = Marks::default();
    let (mut alternatives, mut parts) = (0, 0);
    loop {
        let mut alternative = marks.open.last().and_then(|mark| mark.alternative);
        let mut inside = match kind(&fields) {
            Kind::Multipart { .. } if marks.open.len() == DEPTH_LIMIT => {
                note(Problem::TooDeep);
                Inside::Nothing
            }
            Kind::Multipart { boundary, alternative: forms }
                if (1..=BOUNDARY_LIMIT).contains(&boundary.len()) =>
            {
                if forms {
                    alternatives += 1;
                    alternative = Some(alternatives);
                }
                marks.push(boundary, alternative);
                Inside::Nothing
            }
            Kind::Multipart { .. } => {
                note(Problem::NoBoundary);
                Inside::Leaf(fields, body)
            }
            Kind::Leaf => Inside::Leaf(fields, body),
        };
        let mut from = body;
        loop {
            let found = next(bytes, from, &marks);
            if let Inside::Leaf(fields, body) = std::mem::replace(&mut inside, Inside::Nothing) {
                let body = match &found {
                    Some((end, _)) => without_line_break(&bytes[body..*end]),
                    None => &bytes[body..],
                };
                leaves.push(Leaf { fields, body, alternative });
            }
            let Some((at, Delimiter { level, closes, length })) = found else {
                if !marks.open.is_empty() {
                    note(Problem::Unclosed);
                }
                return leaves;
            };
            if marks.close(level + 1) > 0 {
                note(Problem::Unclosed);
            }
            from = at + length;
            if closes {
                marks.close(level);
                continue;
            }
            if from == bytes.len() {
                note(Problem::Unclosed);
                return leaves;
            }
            break;
        }
        if parts == PARTS_LIMIT {
            note(Problem::TooManyParts);
            return leaves;
        }
        parts += 1;
        body = from + header_end(&bytes[from..], &marks);
        let mut header = Header::default();
        Fields::new(&bytes[from..body]).for_each(|field| header.take(field, &known));
        fields = header.into_known(note);
    }
}

/// The end of the header of a part with which `bytes` begin: behind its blank line, or at a line of a boundary.
fn header_end(bytes: &[u8], marks: &Marks) -> usize {
    let mut at = 0;
    while at < bytes.len() {
        let line = &bytes[at..at + line_length(&bytes[at..])];
        if is_blank(line) {
            return at + line.len();
        }
        if marks.find(line).is_some() {
            return at;
        }
        at += line.len();
    }
    at
}

/// The next line of an open boundary, of lines that begin at `from` or behind.
fn next(bytes: &[u8], from: usize, marks: &Marks) -> Option<(usize, Delimiter)> {
    if marks.open.is_empty() {
        return None;
    }
    let rest = &bytes[from..];
    let starts = std::iter::once(0).chain(memchr_iter(b'\n', rest).map(|at| at + 1));
    starts
        .filter(|at| rest[*at..].starts_with(b"--"))
        .find_map(|at| marks.find(&rest[at..]).map(|found| (from + at, found)))
}

/// Without the line break that belongs to the boundary behind it.
fn without_line_break(part: &[u8]) -> &[u8] {
    let part = part.strip_suffix(b"\n").unwrap_or(part);
    part.strip_suffix(b"\r").unwrap_or(part)
}
