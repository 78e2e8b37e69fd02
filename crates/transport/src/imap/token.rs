//! The words of the IMAP grammar (RFC 3501 section 9): atoms, strings, literals, parentheses. It reads a response that is
//! already in memory as a whole, never calls itself, and forgives spaces; what words mean stands in `response`.

use std::borrow::Cow;

/// Reads from the front of a response. Nothing was understood where a method gives none; the place is then undefined.
#[derive(Debug, Clone)]
pub(super) struct Scanner<'a> {
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next byte after spaces.
    pub(super) fn peek(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_ascii_start();
        self.rest.first().copied()
    }

    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    /// Bytes up to a space, parenthesis, quote or brace. A bracket keeps what it encloses: `BODY[HEADER.FIELDS (DATE)]<0>`.
    pub(super) fn word(&mut self) -> Option<&'a [u8]> {
        self.peek()?;
        let mut bracketed = false;
        let end = self.rest.iter().position(|byte| match byte {
            b'\r' | b'\n' => true,
            b'[' => {
                bracketed = true;
                false
            }
            b']' => {
                bracketed = false;
                false
            }
            b' ' | b'(' | b')' | b'"' | b'{' => !bracketed,
            _ => false,
        });
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        number(self.word()?)
    }

    /// A UID or count that can't be zero.
    pub(super) fn positive(&mut self) -> Option<u32> {
        self.number().and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0)
    }

    /// A quoted string or a literal, also of binary kind (RFC 3516).
    pub(super) fn string(&mut self) -> Option<Cow<'a, [u8]>> {
        match self.peek()? {
            b'"' => self.quoted(),
            b'{' | b'~' => self.literal().map(Cow::Borrowed),
            _ => None,
        }
    }

    /// A string, or none for NIL.
    pub(super) fn nstring(&mut self) -> Option<Option<Cow<'a, [u8]>>> {
        if matches!(self.peek()?, b'"' | b'{' | b'~') {
            return self.string().map(Some);
        }
        self.word()?.eq_ignore_ascii_case(b"NIL").then_some(None)
    }

    /// A string or an atom.
    pub(super) fn astring(&mut self) -> Option<Cow<'a, [u8]>> {
        if matches!(self.peek()?, b'"' | b'{') { self.string() } else { self.word().map(Cow::Borrowed) }
    }

    /// Passes over one value of whatever kind, parentheses to any depth.
    pub(super) fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'(' => {
                    self.eat(b'(');
                    depth += 1;
                    continue;
                }
                b')' => {
                    depth = depth.checked_sub(1)?;
                    self.eat(b')');
                }
                b'"' | b'{' => {
                    self.string()?;
                }
                b'~' if self.rest.starts_with(b"~{") => {
                    self.literal()?;
                }
                _ => {
                    self.word()?;
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    fn quoted(&mut self) -> Option<Cow<'a, [u8]>> {
        let inner = &self.rest[1..];
        let mut escaped = false;
        let end = inner.iter().position(|byte| match byte {
            b'"' if !escaped => true,
            byte => {
                escaped = *byte == b'\\' && !escaped;
                false
            }
        })?;
        self.rest = &inner[end + 1..];
        let raw = &inner[..end];
        if raw.contains(&b'\r') || raw.contains(&b'\n') {
            return None;
        }
        if !raw.contains(&b'\\') {
            return Some(Cow::Borrowed(raw));
        }
        let mut plain = Vec::with_capacity(raw.len());
        let mut bytes = raw.iter();
        while let Some(byte) = bytes.next() {
            plain.push(if *byte == b'\\' { *bytes.next()? } else { *byte });
        }
        Some(Cow::Owned(plain))
    }

    fn literal(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|byte| *byte == b'\n')?;
        let length = announced(self.rest[..end].trim_ascii_end())?;
        let content = &self.rest[end + 1..];
        let (literal, rest) = content.split_at_checked(usize::try_from(length).ok()?)?;
        self.rest = rest;
        Some(literal)
    }
}

/// The decimal number that the bytes are, and nothing else.
pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// The length of the literal that a line announces at its end: `{12}`, `{12+}`, `~{12}`.
pub(super) fn announced(line: &[u8]) -> Option<u64> {
    let inner = line.strip_suffix(b"}")?;
    let open = inner.iter().rposition(|byte| *byte == b'{')?;
    let digits = &inner[open + 1..];
    number(digits.strip_suffix(b"+").unwrap_or(digits))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn strings_are_unescaped_and_literals_are_taken_as_they_are() {
        let mut scanner = Scanner::new(b" \"a\\\"b\\\\\"  {4}\r\n)\"\r\n~{2}\r\nxy nil atom");
        assert_eq!(scanner.string().as_deref(), Some(&b"a\"b\\"[..]));
        assert_eq!(scanner.string().as_deref(), Some(&b")\"\r\n"[..]));
        assert_eq!(scanner.nstring(), Some(Some(Cow::Borrowed(&b"xy"[..]))));
        assert_eq!(scanner.nstring(), Some(None));
        assert_eq!(scanner.astring().as_deref(), Some(&b"atom"[..]));
        assert_eq!(scanner.peek(), None);
    }

    #[test]
    fn a_value_of_any_kind_is_passed_over_as_a_whole() {
        for value in
            ["x", "\"a)\"", "(a (b \")\" {1}\r\n)) c)", "{3}\r\n((\"", "BODY[HEADER.FIELDS (A B)]<0>", "()"]
        {
            let text = format!("{value} next");
            let mut scanner = Scanner::new(text.as_bytes());
            assert_eq!(scanner.skip_value(), Some(()), "{value}");
            assert_eq!(scanner.word(), Some(&b"next"[..]), "{value}");
        }
        for value in ["", ")", "(a", "\"a", "{9}\r\nabc", "{x}\r\n"] {
            assert_eq!(Scanner::new(value.as_bytes()).skip_value(), None, "{value}");
        }
    }

    #[test]
    fn a_million_parentheses_take_no_stack() {
        let deep = [b"(".repeat(1_000_000), b")".repeat(1_000_000)].concat();
        assert_eq!(Scanner::new(&deep).skip_value(), Some(()));
        assert_eq!(Scanner::new(&deep[..1_500_000]).skip_value(), None);
    }

    #[test]
    fn numbers_that_overflow_are_none() {
        assert_eq!(announced(b"* 1 FETCH (BODY[] {4294967295}"), Some(4_294_967_295));
        for line in [&b"{}"[..], b"{-1}", b"{99999999999999999999999}", b"{1", b"1}", b"{1 }", b"{+}"] {
            assert_eq!(announced(line), None, "{}", line.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_scanner_panic_or_stand_still(bytes in proptest::collection::vec(
            prop_oneof![Just(b'('), Just(b')'), Just(b'"'), Just(b'{'), Just(b'}'), Just(b'\\'), Just(b'\r'), Just(b'\n'),
                Just(b' '), Just(b'1'), Just(b'['), Just(b']'), Just(b'~'), any::<u8>()], 0..64)) {
            let mut scanner = Scanner::new(&bytes);
            let mut left = bytes.len();
            while scanner.skip_value().is_some() {
                prop_assert!(scanner.rest().len() < left);
                left = scanner.rest().len();
            }
            let mut scanner = Scanner::new(&bytes);
            let _ = (scanner.nstring(), scanner.astring(), scanner.number());
        }
    }
}
