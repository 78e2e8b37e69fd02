//! The reply in the text of a mail, without the quoted mail and the signature below it. It is a piece of the text, in which
//! nothing is rewritten, and where it is not sure what is quoted, it keeps it: the full text is always beside it. The words
//! of programs and languages are in `reply/words`.

mod words;

use words::{
    ATTRIBUTION_OPENERS, ATTRIBUTION_VERBS, FORWARDED, FORWARDED_SUBJECTS, Field, INLINE_HINTS,
    MOBILE_SIGNATURES, ORIGINAL_MESSAGE, field,
};

/// An attribution ("On .. wrote:") is at most so long, and stands on at most so many lines.
const ATTRIBUTION_BYTES: usize = 300;
const ATTRIBUTION_LINES: usize = 3;
/// The fields of a quoted header ("From:", "Sent:", ..) stand within so many lines.
const HEADER_LINES: usize = 12;
/// A signature behind `-- ` has at most so many lines, and one behind a bare `--` so many.
const SIGNATURE_LINES: usize = 30;
const BARE_SIGNATURE_LINES: usize = 8;
/// The line of a mobile program is at most so long.
const MOBILE_BYTES: usize = 80;

/// The reply in a mail's text: what its author wrote above the quoted mail, or below it where nothing is above, without a
/// signature. It is the text itself where nothing is quoted, where replies stand between the quoted lines, where the mail
/// is a forwarded one, and where nothing else would be left. Trailing blank lines are cut off. Takes time linear in the text.
///
/// Known are the quotes of the common mail programs in English, Portuguese, Spanish, German, French, Italian and Dutch:
/// `>` lines (RFC 3676 section 4.5), "On .. wrote:", "-----Original Message-----", and the header that Outlook puts above;
/// and the signature behind `-- ` (RFC 3676 section 4.3).
///
/// ```
/// let text = "Approved.\n\nOn 12 May 2026, at 10:00, Desk <desk@acme.example> wrote:\n> May we?\n";
/// assert_eq!(postroom_core::reply::reply(text), "Approved.");
/// ```
#[must_use]
pub fn reply(text: &str) -> &str {
    let lines = lines(text);
    let found = quoted(&lines);
    let own = match found {
        Quoted::Below(first) => &lines[..first],
        Quoted::Above(end) => &lines[end..],
        Quoted::Nowhere => &lines[..],
        Quoted::Between => return whole(text),
    };
    joined(text, &own[..signature(own)]).unwrap_or_else(|| whole(text))
}

/// Whether a subject says that the mail passes on another one: what is quoted in it is what its author wants to say.
#[must_use]
pub fn is_forwarded(subject: &str) -> bool {
    let subject = subject.trim_start();
    FORWARDED_SUBJECTS
        .iter()
        .any(|begin| subject.get(..begin.len()).is_some_and(|start| start.to_lowercase() == *begin))
}

/// All of it, without blank lines around it.
fn whole(text: &str) -> &str {
    joined(text, &lines(text)).unwrap_or_default()
}

/// The text of these lines without blank ones around it; none where all are blank.
fn joined<'a>(text: &'a str, own: &[Line<'a>]) -> Option<&'a str> {
    let first = own.iter().find(|line| !line.is_blank())?;
    let last = own.iter().rev().find(|line| !line.is_blank())?;
    Some(text[first.start..last.start + last.text.len()].trim_end())
}

/// A line without its line end, and where it begins.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    start: usize,
    text: &'a str,
}

impl Line<'_> {
    fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }

    fn is_quoted(&self) -> bool {
        self.text.trim_start().starts_with('>')
    }
}

fn lines(text: &str) -> Vec<Line<'_>> {
    let mut next = 0;
    let line = |piece: &'_ str| {
        let start = next;
        next += piece.len();
        start
    };
    let starts: Vec<usize> = text.split_inclusive('\n').map(line).collect();
    let pieces = text.split_inclusive('\n').map(|piece| piece.trim_end_matches(['\r', '\n']));
    starts.into_iter().zip(pieces).map(|(start, text)| Line { start, text }).collect()
}

/// Where the quoted mail stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quoted {
    /// There is none, or it can't be told.
    Nowhere,
    /// From this line to the end.
    Below(usize),
    /// Up to this line: what was written stands below it.
    Above(usize),
    /// Replies stand between quoted lines: it is one text.
    Between,
}

fn quoted(lines: &[Line<'_>]) -> Quoted {
    let Some(written) = lines.iter().position(|line| !line.is_blank()) else { return Quoted::Nowhere };
    let marks: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].is_quoted()).collect();
    // What follows a header or separator is quoted to the end, with `>` or without; replies in it can't be told apart, so
    // a hint that there are some keeps it.
    if let Some(first) = (0..lines.len()).find(|at| begins_original(lines, *at)) {
        if passes_on(lines, first) {
            return Quoted::Nowhere;
        }
        let first = underlined(lines, first);
        let before = marks.iter().any(|at| *at < first);
        if first > written && !before {
            return if hints_at_replies(&lines[written..first]) {
                Quoted::Nowhere
            } else {
                Quoted::Below(first)
            };
        }
        if first <= written {
            return Quoted::Nowhere;
        }
    }
    let (Some(first), Some(last)) = (marks.first().copied(), marks.last().copied()) else {
        // HTML that was made text has lost its marks: a full attribution alone tells.
        return match (0..lines.len()).find(|at| attribution(lines, *at).is_some()) {
            Some(at) if at > written && !hints_at_replies(&lines[written..at]) => Quoted::Below(at),
            _ => Quoted::Nowhere,
        };
    };
    let holes = lines[first..last].iter().any(|line| !line.is_quoted() && !line.is_blank());
    let above = first - lines[..first].iter().rev().take_while(|line| line.is_blank()).count();
    let opens = |at: &usize| attribution(lines, *at) == Some(above);
    let begin = (above.saturating_sub(ATTRIBUTION_LINES)..above).find(opens).unwrap_or(first);
    if holes {
        // Wrapped quotes lose their mark on the last word of a line; replies look the same.
        return Quoted::Between;
    }
    let below = lines[last + 1..].iter().any(|line| !line.is_blank());
    match (begin > written, below) {
        (true, false) => Quoted::Below(begin),
        (false, true) => Quoted::Above(last + 1),
        // A footer of a list, or a second part of the reply.
        (true, true) => Quoted::Between,
        (false, false) => Quoted::Nowhere,
    }
}

/// Whether a quoted mail begins here, by a separator or a header that programs put above it.
fn begins_original(lines: &[Line<'_>], at: usize) -> bool {
    let text = lines[at].text.trim();
    if text.starts_with("--") && text.ends_with("--") {
        let inner = text.trim_matches('-').trim().to_lowercase();
        return ORIGINAL_MESSAGE.contains(&inner.as_str());
    }
    if field(text) != Some(Field::From) {
        return false;
    }
    let (mut when, mut subject) = (false, false);
    for line in lines[at + 1..].iter().take(HEADER_LINES) {
        match field(line.text.trim()) {
            Some(Field::Date) => when = true,
            Some(Field::Subject) => subject = true,
            Some(Field::From | Field::Other) => {}
            None if line.is_blank() => {}
            // A long list of recipients goes on in the next line.
            None if line.text.contains('@') => {}
            None => break,
        }
    }
    when && subject
}

/// The nearest line above that is not blank.
fn above(lines: &[Line<'_>], at: usize) -> Option<usize> {
    (0..at).rev().find(|above| !lines[*above].is_blank())
}

/// Whether the line above says that what follows was passed on.
fn passes_on(lines: &[Line<'_>], at: usize) -> bool {
    above(lines, at).is_some_and(|above| {
        let text = lines[above].text.trim();
        text.len() <= MOBILE_BYTES && {
            let text = text.to_lowercase();
            FORWARDED.iter().any(|words| text.contains(words))
        }
    })
}

/// The line above, where it is the rule that Outlook draws.
fn underlined(lines: &[Line<'_>], at: usize) -> usize {
    let above = above(lines, at);
    let is_rule = |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte == b'_' || byte == b'-');
    above.filter(|above| is_rule(lines[*above].text.trim())).unwrap_or(at)
}

/// Where an attribution that begins in this line ends: the line behind it. It names a date or an address, so that "Then she
/// wrote:" is none.
fn attribution(lines: &[Line<'_>], at: usize) -> Option<usize> {
    let mut whole = String::new();
    for (many, line) in lines[at..].iter().take(ATTRIBUTION_LINES).enumerate() {
        let text = line.text.trim();
        if text.is_empty() || line.is_quoted() || whole.len() + text.len() > ATTRIBUTION_BYTES {
            return None;
        }
        if !whole.is_empty() {
            whole.push(' ');
        }
        whole.push_str(&text.to_lowercase());
        if many == 0 && !may_open(&whole) {
            return None;
        }
        if whole.ends_with(':') {
            let bare = whole.trim_end_matches([':', ' ', '\u{a0}', '\u{202f}']);
            let verb = ATTRIBUTION_VERBS.iter().any(|verb| bare.contains(verb));
            return (verb && names_a_time_or_address(bare)).then_some(at + many + 1);
        }
    }
    None
}

fn may_open(text: &str) -> bool {
    ATTRIBUTION_OPENERS.iter().any(|opener| text.starts_with(opener)) || text.contains('@')
}

/// An address, a year, or a time of day.
fn names_a_time_or_address(text: &str) -> bool {
    let digits = |piece: &str| !piece.is_empty() && piece.bytes().all(|byte| byte.is_ascii_digit());
    text.contains('@')
        || text.split(|c: char| !c.is_ascii_alphanumeric()).any(|piece| piece.len() == 4 && digits(piece))
        || text.split_whitespace().any(|word| {
            word.trim_matches(',')
                .split_once(':')
                .is_some_and(|(hour, minute)| digits(hour) && digits(minute))
        })
}

/// Whether the author says that there are answers further down.
fn hints_at_replies(own: &[Line<'_>]) -> bool {
    own.iter().any(|line| {
        let text = line.text.to_lowercase();
        INLINE_HINTS.iter().any(|hint| text.contains(hint))
    })
}

/// Where the signature begins; the number of lines where there is none.
fn signature(lines: &[Line<'_>]) -> usize {
    let end = lines.len() - lines.iter().rev().take_while(|line| line.is_blank()).count();
    let begin = end.saturating_sub(SIGNATURE_LINES + 1);
    // "There is a long-standing convention in Usenet news which also commonly appears in Internet mail of using "-- " as
    // the separator line" (RFC 3676 section 4.3). Many programs lose the space; without it, only a short end is one.
    let separates = |at: &usize| match lines[*at].text {
        "-- " => true,
        "--" => end - at - 1 <= BARE_SIGNATURE_LINES,
        _ => false,
    };
    if let Some(at) = (begin..end).rev().find(separates) {
        return at;
    }
    let Some(last) = end.checked_sub(1) else { return end };
    let text = lines[last].text.trim().to_lowercase();
    let mobile = text.len() <= MOBILE_BYTES && MOBILE_SIGNATURES.iter().any(|known| text.starts_with(known));
    if mobile { last } else { end }
}
