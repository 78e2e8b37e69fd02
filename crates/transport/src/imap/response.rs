//! What a server can say (RFC 3501 section 7), as far as it is needed here. Whatever else is said is passed over; whatever
//! is needed and can't be read is told apart from it. How a response is cut out of the stream stands in `conversation`.

use std::borrow::Cow;

use postroom_core::time::Timestamp;

use super::token::{Scanner, announced, number};

/// The condition of a status response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Ok,
    No,
    Bad,
    Bye,
    Preauth,
}

/// OK, NO, BAD, BYE or PREAUTH with what follows (RFC 3501 section 7.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status<'a> {
    pub(super) condition: Condition,
    /// The response code without its brackets: a word and its arguments.
    pub(super) code: Option<(&'a [u8], &'a [u8])>,
    pub(super) text: &'a [u8],
}

/// The data of one message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Fetched<'a> {
    pub(super) number: u32,
    pub(super) uid: Option<u32>,
    /// RFC822.SIZE; 0 when it was told and can't be read.
    pub(super) size: Option<u64>,
    pub(super) arrived: Option<Timestamp>,
    pub(super) body: Option<Body<'a>>,
    /// How many items that we know could not be read.
    pub(super) skipped: usize,
}

/// A piece of BODY[].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body<'a> {
    /// Where the piece begins; none when the server did not say.
    pub(super) origin: Option<u64>,
    /// None for NIL.
    pub(super) content: Option<Cow<'a, [u8]>>,
}

/// One response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Response<'a> {
    Tagged(&'a [u8], Status<'a>),
    /// A request to go on, with its text.
    Continue(&'a [u8]),
    Untagged(Status<'a>),
    Capability(&'a [u8]),
    Exists(u32),
    Expunge(u32),
    Fetch(Fetched<'a>),
    Search(Vec<u32>),
    /// The attributes, and the name as it came.
    List(Vec<&'a [u8]>, Cow<'a, [u8]>),
    /// Something that nobody here asked for.
    Other,
    /// One of the above that can't be read.
    Unreadable,
}

/// Whether the line that a response begins with ends in free text, in which braces announce nothing.
pub(super) fn ends_in_text(line: &[u8]) -> bool {
    let mut words = Scanner::new(line);
    match words.word() {
        Some(b"*") => words.word().and_then(condition).is_some(),
        _ => true,
    }
}

/// A body, or a piece of one, whose literal follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ahead {
    /// Where it begins; none when the server did not say.
    pub(super) origin: Option<u64>,
    pub(super) length: u64,
}

/// The body whose literal a line announces, if it does.
pub(super) fn body_ahead(line: &[u8]) -> Option<Ahead> {
    let length = announced(line)?;
    let before = &line[..line.iter().rposition(|byte| *byte == b'{')?];
    let before = before.strip_suffix(b"~").unwrap_or(before).trim_ascii_end();
    let name = before.rsplit(|byte| b" (".contains(byte)).next()?.to_ascii_uppercase();
    Some(Ahead { origin: origin(name.strip_prefix(b"BODY[]")?), length })
}

/// The `n` of `<n>`.
fn origin(text: &[u8]) -> Option<u64> {
    text.strip_prefix(b"<").and_then(|rest| rest.strip_suffix(b">")).and_then(number)
}

/// Reads one response, without its last line end.
pub(super) fn parse(bytes: &[u8]) -> Response<'_> {
    let mut words = Scanner::new(bytes);
    match words.word() {
        Some(b"*") => untagged(words),
        Some(b"+") => Response::Continue(words.rest().trim_ascii()),
        Some(tag) => status(&mut words).map_or(Response::Unreadable, |status| Response::Tagged(tag, status)),
        None => Response::Unreadable,
    }
}

fn untagged(mut words: Scanner<'_>) -> Response<'_> {
    if let Some(status) = status(&mut words.clone()) {
        return Response::Untagged(status);
    }
    let Some(first) = words.word() else { return Response::Unreadable };
    let read = match number(first) {
        Some(number) => numbered(number, words),
        None => match first.to_ascii_uppercase().as_slice() {
            b"CAPABILITY" => Some(Response::Capability(words.rest())),
            b"SEARCH" => search(words).map(Response::Search),
            b"LIST" => list(words),
            _ => Some(Response::Other),
        },
    };
    read.unwrap_or(Response::Unreadable)
}

fn numbered(number: u64, mut words: Scanner<'_>) -> Option<Response<'_>> {
    let number = u32::try_from(number).ok()?;
    match words.word()?.to_ascii_uppercase().as_slice() {
        b"EXISTS" => Some(Response::Exists(number)),
        b"EXPUNGE" => Some(Response::Expunge(number)).filter(|_| number > 0),
        b"FETCH" => fetched(number, words).map(Response::Fetch),
        _ => Some(Response::Other),
    }
}

fn condition(word: &[u8]) -> Option<Condition> {
    Some(match word.to_ascii_uppercase().as_slice() {
        b"OK" => Condition::Ok,
        b"NO" => Condition::No,
        b"BAD" => Condition::Bad,
        b"BYE" => Condition::Bye,
        b"PREAUTH" => Condition::Preauth,
        _ => return None,
    })
}

fn status<'a>(words: &mut Scanner<'a>) -> Option<Status<'a>> {
    let condition = condition(words.word()?)?;
    let text = words.rest().trim_ascii();
    let plain = Status { condition, code: None, text };
    let Some(inner) = text.strip_prefix(b"[") else { return Some(plain) };
    let Some(end) = inner.iter().position(|byte| *byte == b']') else { return Some(plain) };
    let (code, rest) = (inner[..end].trim_ascii(), inner[end + 1..].trim_ascii());
    let cut = code.iter().position(|byte| *byte == b' ').unwrap_or(code.len());
    Some(Status { condition, code: Some((&code[..cut], code[cut..].trim_ascii())), text: rest })
}

/// Numbers to the end. A parenthesis holds what an extension adds, such as `(MODSEQ 7)`.
fn search(mut words: Scanner<'_>) -> Option<Vec<u32>> {
    let mut found = Vec::new();
    while let Some(next) = words.peek() {
        match next {
            b'(' => words.skip_value()?,
            _ => found.push(words.positive()?),
        }
    }
    Some(found)
}

fn list(mut words: Scanner<'_>) -> Option<Response<'_>> {
    if !words.eat(b'(') {
        return None;
    }
    let mut attributes = Vec::new();
    // Parentheses inside these mean nothing (RFC 3501 section 7.2.2 has none).
    let mut depth = 1_usize;
    while depth > 0 {
        match words.peek()? {
            b'(' => {
                words.eat(b'(');
                depth += 1;
            }
            b')' => {
                words.eat(b')');
                depth -= 1;
            }
            _ => attributes.push(words.word()?),
        }
    }
    words.nstring()?;
    // What an extension adds may follow (RFC 5258 section 3).
    Some(Response::List(attributes, words.astring()?))
}

fn fetched(number: u32, mut words: Scanner<'_>) -> Option<Fetched<'_>> {
    let mut fetched = Fetched { number, ..Fetched::default() };
    if words.peek()? != b'(' {
        return None;
    }
    // Parentheses where an item should begin are passed over, but all of them must end.
    let mut open = 0_usize;
    loop {
        match words.peek() {
            None => return (open == 0).then_some(fetched),
            Some(b'(') => {
                words.eat(b'(');
                open += 1;
            }
            Some(b')') => {
                words.eat(b')');
                open = open.saturating_sub(1);
            }
            Some(_) => item(&mut words, &mut fetched)?,
        }
    }
}

/// A name and its value. A value that is of another kind than its name says is passed over and counted.
fn item<'a>(words: &mut Scanner<'a>, fetched: &mut Fetched<'a>) -> Option<()> {
    let name = words.word()?.to_ascii_uppercase();
    let value = words.clone();
    words.skip_value()?;
    let mut value = Scanner::new(&value.rest()[..value.rest().len() - words.rest().len()]);
    let understood = match name.as_slice() {
        b"UID" => {
            fetched.uid = value.positive();
            fetched.uid.is_some()
        }
        b"RFC822.SIZE" => {
            let size = value.number();
            fetched.size = Some(size.unwrap_or(0));
            size.is_some()
        }
        b"INTERNALDATE" => {
            fetched.arrived = value.string().and_then(|date| date_time(&date));
            fetched.arrived.is_some()
        }
        name => match name.strip_prefix(b"BODY[]") {
            Some(place) => {
                let content = value.nstring();
                let understood = content.is_some();
                fetched.body = content.map(|content| Body { origin: origin(place), content });
                understood
            }
            None => true,
        },
    };
    fetched.skipped += usize::from(!understood);
    Some(())
}

/// RFC 3501 `date-time`: `" 2-Nov-2026 17:31:04 +0100"`.
fn date_time(text: &[u8]) -> Option<Timestamp> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = std::str::from_utf8(text).ok()?;
    let mut words = text.split_ascii_whitespace();
    let (date, time, zone) = (words.next()?, words.next()?, words.next()?);
    let mut date = date.split('-');
    let (day, name, year) = (date.next()?, date.next()?, date.next()?);
    let month = 1 + MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name))?;
    let (hours, minutes) = zone.split_at_checked(3)?;
    Timestamp::parse(&format!("{year}-{month:02}-{day:0>2}T{time}{hours}:{minutes}")).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fetch(text: &str) -> Option<Fetched<'_>> {
        match parse(text.as_bytes()) {
            Response::Fetch(fetched) => Some(fetched),
            Response::Unreadable => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_status_has_a_code_or_none() {
        let check = |line: &str, code: Option<(&str, &str)>, text: &str| {
            let Response::Tagged(tag, status) = parse(line.as_bytes()) else { panic!("{line}") };
            assert_eq!(tag, b"A1");
            let code = code.map(|(code, arguments)| (code.as_bytes(), arguments.as_bytes()));
            assert_eq!(
                (status.condition, status.code, status.text),
                (Condition::No, code, text.as_bytes()),
                "{line}"
            );
        };
        check("A1 NO [LIMIT] slowly", Some(("LIMIT", "")), "slowly");
        check("A1 no  [ BADCHARSET (A B) ]x", Some(("BADCHARSET", "(A B)")), "x");
        check("A1 NO", None, "");
        check("A1 NO [LIMIT", None, "[LIMIT");
        check("A1 NO text [LIMIT]", None, "text [LIMIT]");
        assert_eq!(parse(b"A1 MAYBE"), Response::Unreadable);
        assert_eq!(parse(b""), Response::Unreadable);
        assert_eq!(parse(b"+ go on"), Response::Continue(b"go on"));
    }

    #[test]
    fn only_data_can_announce_a_literal() {
        for line in ["* OK {3}", "* bye {3}", "A1 OK {3}", "+ {3}", "* NO [X] {3}", ""] {
            assert!(ends_in_text(line.as_bytes()), "{line}");
        }
        for line in ["* LIST () NIL {3}", "* 1 FETCH (BODY[] {3}", "* XYZZY {3}", "*"] {
            assert!(!ends_in_text(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn numbers_that_mean_nothing_are_unreadable() {
        for line in [
            "* 0 EXPUNGE",
            "* 4294967296 EXISTS",
            "* SEARCH 1 x",
            "* SEARCH 0",
            "* SEARCH 4294967296",
            "* SEARCH (1",
        ] {
            assert_eq!(parse(line.as_bytes()), Response::Unreadable, "{line}");
        }
        assert_eq!(parse(b"* SEARCH 1  4294967295 (MODSEQ (9)) "), Response::Search(vec![1, u32::MAX]));
        assert_eq!(parse(b"* search"), Response::Search(vec![]));
        assert_eq!(parse(b"* 0 EXISTS"), Response::Exists(0));
        assert_eq!(parse(b"* 7 XYZZY"), Response::Other);
    }

    #[test]
    fn an_item_that_cannot_be_read_is_counted_and_costs_no_other() {
        let fetched =
            fetch("* 1 FETCH (UID 5 RFC822.SIZE (1) INTERNALDATE NIL X-A {2}\r\n)( BODY[]<0> a FLAGS ((x)))");
        let fetched = fetched.expect("readable");
        assert_eq!((fetched.uid, fetched.size, fetched.arrived), (Some(5), Some(0), None));
        assert_eq!((fetched.body, fetched.skipped), (None, 3));
        for line in [
            "* 1 FETCH",
            "* 1 FETCH (UID",
            "* 1 FETCH (UID 5",
            "* 1 FETCH UID 5",
            "* 1 FETCH (UID 5 X",
            "* 1 FETCH (X {9}\r\n)",
        ] {
            assert_eq!(fetch(line), None, "{line}");
        }
        assert_eq!(fetch("* 1 FETCH ()").expect("readable").uid, None);
        assert_eq!(fetch("* 1 FETCH (UID 0)").expect("readable").skipped, 1);
    }

    #[test]
    fn a_piece_of_a_body_tells_where_it_begins() {
        let body = |text: &'static str| fetch(text).and_then(|fetched| fetched.body);
        let of = |origin, content: &'static str| {
            Some(Body { origin, content: Some(Cow::Borrowed(content.as_bytes())) })
        };
        assert_eq!(body("* 1 FETCH (BODY[]<262144> {2}\r\n))"), None);
        assert_eq!(body("* 1 FETCH (BODY[]<262144> {2}\r\n)))"), of(Some(262_144), "))"));
        assert_eq!(body("* 1 FETCH (body[] \"x\")"), of(None, "x"));
        assert_eq!(body("* 1 FETCH (BODY[]<0> NIL)"), Some(Body { origin: Some(0), content: None }));
        assert_eq!(body("* 1 FETCH (BODY[TEXT]<0> \"x\" BODY (\"x\"))"), None);
    }

    #[test]
    fn a_body_is_seen_before_its_literal() {
        let check = |line: &str, want: Option<(Option<u64>, u64)>| {
            let want = want.map(|(origin, length)| Ahead { origin, length });
            assert_eq!(body_ahead(line.as_bytes()), want, "{line}");
        };
        check("* 1 FETCH (UID 5 BODY[] {9}", Some((None, 9)));
        check("* 1 FETCH (body[]<0>{4294967296}", Some((Some(0), 4_294_967_296)));
        check(" BODY[]<262144> {9+}", Some((Some(262_144), 9)));
        check("* 1 FETCH (BODY[] ~{9}", Some((None, 9)));
        for line in ["* 1 FETCH (BODY[TEXT] {9}", "* 1 FETCH (X {9}", "* 1 FETCH (BODY[] \"{9}\"", "{9}", ""]
        {
            check(line, None);
        }
    }

    #[test]
    fn dates_are_read_with_their_zone_or_not_at_all() {
        let check = |text: &str, want: Option<&str>| {
            assert_eq!(date_time(text.as_bytes()).map(|time| time.to_string()).as_deref(), want, "{text}");
        };
        check(" 2-Nov-2026 17:31:04 +0100", Some("2026-11-02T16:31:04.000Z"));
        check("02-nov-2026 17:31:04 -0330", Some("2026-11-02T21:01:04.000Z"));
        for text in [
            "",
            "2-Nov-2026",
            "31-Nov-2026 17:31:04 +0100",
            "2-Now-2026 17:31:04 +0100",
            "2-Nov-2026 17:31:04 GMT",
            "2-Nov-2026 17:31:04 +01\u{e9}0",
            "99999-Nov-2026 0:0:0 +",
        ] {
            check(text, None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            let _ = (parse(&bytes), ends_in_text(&bytes));
        }

        #[test]
        fn no_words_make_the_parser_panic(words in proptest::collection::vec(
            prop_oneof!["\\* ", "[0-9]{1,11} ", Just("FETCH (".into()), Just("LIST (".into()), Just("SEARCH ".into()),
                Just("OK [".into()), Just("] ".into()), Just(") ".into()), Just("(".into()), Just("UID ".into()),
                Just("INTERNALDATE ".into()), Just("BODY[]<".into()), Just("> ".into()), Just("\" 2-Nov-2026 ".into()),
                Just("\"".into()), Just("\\".into()), Just("{3}\r\n".into()), Just("NIL ".into()), "\\PC{0,3}"], 0..24)) {
            let text: String = words.concat();
            let _ = (parse(text.as_bytes()), ends_in_text(text.as_bytes()));
        }
    }
}
