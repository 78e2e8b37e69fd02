//! Reads received bytes into a [`Mail`]. The parsing crate is named here only: it reads single fields, charsets and HTML.
//! The structure is found by `scan`, so that neither nesting nor size of a hostile mail costs more than its bytes.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::decoders::html::html_to_text;
use mail_parser::parsers::MessageStream;
use mail_parser::{ContentType, HeaderValue};

use super::charset::{self, Text};
use super::file_name::FileNames;
use super::names::Names;
use super::scan::{self, Header, Kind, Leaf};
use crate::address::{Address, NamedAddress};
use crate::automatic::{self, Signs};
use crate::mail::field::Fields;
use crate::mail::{Attached, HeaderField, Mail, Problem};
use crate::text::cut;
use crate::time::Timestamp;
use crate::transfer::{self, Encoding};

/// Bytes of one field that are read; a To of 1,000 addresses fits.
const FIELD_LIMIT: usize = 64 << 10;
/// Bytes of all fields of the mail's own header that are read.
const HEADER_LIMIT: usize = 256 << 10;
/// Bytes of a part's field that are read.
const PART_FIELD_LIMIT: usize = 8 << 10;
/// Encoded words (RFC 2047) of a field that are read.
const WORDS_LIMIT: usize = 1000;
/// Addresses of one field, and Message-IDs of one field.
const LIST_LIMIT: usize = 1000;
const SUBJECT_LIMIT: usize = 2000;
const ID_LIMIT: usize = 900;
/// Bytes of text, and of HTML.
const TEXT_LIMIT: usize = 8 << 20;

const DELIVERED: &[&str] = &["Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To"];
const KNOWN: &[&str] = &[
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Return-Path",
    "Subject",
    "Message-ID",
    "In-Reply-To",
    "References",
    "Date",
];
const KNOWN_OF_PARTS: &[&str] =
    &["Content-Type", "Content-Transfer-Encoding", "Content-Disposition", "Content-ID"];

/// Reads a mail. It never fails and never panics: what can't be read is left out and named in [`Mail::problems`].
///
/// Time and memory are bounded by the size of the bytes, whatever they say: at most 1,000 parts, 16 levels of multiparts,
/// 256 KiB of known header fields and 8 MiB each of text and HTML are read. Files are not decoded; they share the bytes.
/// An attached mail is an attachment ([`Attached::mail`] reads it). A missing header makes all of it text.
#[must_use]
pub fn parse(bytes: impl Into<Bytes>) -> Mail {
    read(&bytes.into())
}

fn read(bytes: &Bytes) -> Mail {
    static OF_MAIL: Names = Names::new(&[KNOWN, DELIVERED, automatic::FIELDS]);
    static OF_PARTS: Names = Names::new(&[KNOWN_OF_PARTS]);
    let of_part = |field: &HeaderField<'_>| OF_PARTS.has(field.name());
    let of_mail = |field: &HeaderField<'_>| OF_MAIL.has(field.name());
    let mut fields = Fields::new(bytes);
    let (mut header, mut outermost) = (Header::default(), Header::default());
    for field in fields.by_ref() {
        header.take(field, of_mail);
        outermost.take(field, of_part);
    }
    let body = bytes.len() - fields.left();
    let mut mail = Mail { header: bytes.slice(..body), ..Mail::default() };
    guarded(&mut mail, |mail| {
        let known = header.into_known(&mut |problem| mail.note(problem));
        read_header(mail, &known);
    });
    guarded(&mut mail, |mail| {
        let note = &mut |problem| mail.note(problem);
        let known = outermost.into_known(note);
        let mut leaves = scan::leaves(bytes, known, body, of_part, kind, note);
        if mail.fields().next().is_none() {
            mail.note(Problem::NoHeader);
            leaves = vec![Leaf { fields: Vec::new(), body: bytes, alternative: None }];
        }
        read_content(mail, bytes, &leaves);
    });
    mail
}

/// Reads a part of a mail. A panic of the parsing crate costs this part: it must never hold up the next mail. Where panics
/// abort the process, there is nothing to catch.
fn guarded(mail: &mut Mail, read: impl FnOnce(&mut Mail)) {
    // What is half read are plain values: none depends on another.
    if catch_unwind(AssertUnwindSafe(|| read(mail))).is_err() {
        mail.note(Problem::Unread);
    }
}

fn is_one_of(field: &HeaderField<'_>, names: &[&str]) -> bool {
    names.iter().any(|name| field.is(name))
}

fn read_header(mail: &mut Mail, fields: &[HeaderField<'_>]) {
    let mut budget = HEADER_LIMIT;
    let mut null_path = false;
    let mut signs = Signs::default();
    for field in fields {
        if field.raw().len() > FIELD_LIMIT.min(budget) {
            mail.note(Problem::LongHeader);
        }
        let value = &field.raw()[..field.raw().len().min(FIELD_LIMIT).min(budget)];
        budget -= value.len();
        let name = field.name().to_ascii_lowercase();
        match name.as_str() {
            // A header has one of each (RFC 5322 section 3.6); of more, the first counts.
            "from" if mail.from.is_empty() => mail.from = listed(mail, value),
            "sender" if mail.sender.is_none() => mail.sender = listed(mail, value).into_iter().next(),
            "reply-to" if mail.reply_to.is_empty() => mail.reply_to = listed(mail, value),
            "subject" if mail.subject.is_empty() => mail.subject = subject(value),
            "message-id" if mail.message_id.is_none() => mail.message_id = ids(value).into_iter().next(),
            "in-reply-to" if mail.in_reply_to.is_empty() => mail.in_reply_to = ids(value),
            "references" if mail.references.is_empty() => mail.references = ids(value),
            "date" if mail.date.is_none() => {
                mail.date = date(value);
                if mail.date.is_none() {
                    mail.note(Problem::UnreadableDate);
                }
            }
            // Some programs write one field per recipient.
            "to" => {
                let more = listed(mail, value);
                mail.to.extend(more);
            }
            "cc" => {
                let more = listed(mail, value);
                mail.cc.extend(more);
            }
            "return-path" if mail.return_path.is_none() && !null_path => {
                let path = plain(value);
                let path = path.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(&path);
                null_path = path.trim().is_empty();
                mail.return_path = Address::parse(path).ok();
            }
            _ if is_one_of(field, DELIVERED) => {
                let more = listed(mail, value).into_iter().map(|named| named.address().clone());
                for address in more {
                    if !mail.delivered_to.contains(&address) && mail.delivered_to.len() < LIST_LIMIT {
                        mail.delivered_to.push(address);
                    }
                }
            }
            _ if is_one_of(field, automatic::FIELDS) => signs.field(&name, &plain(value)),
            _ => {}
        }
    }
    if null_path {
        signs.null_path();
    }
    mail.from.iter().for_each(|from| signs.from(from.address()));
    mail.automatic = signs.finish();
    if mail.from.is_empty() {
        mail.note(Problem::NoFrom);
    }
}

fn read_content(mail: &mut Mail, bytes: &Bytes, leaves: &[Leaf<'_>]) {
    let parts: Vec<Part<'_>> = leaves.iter().map(Part::new).collect();
    // An alternative that says it in plain text need not be read from its HTML.
    let has_text = |part: &&Part<'_>| {
        part.alternative.is_some() && part.is_body("text/plain") && !part.body.trim_ascii().is_empty()
    };
    let in_text: Vec<usize> = parts.iter().filter(has_text).filter_map(|part| part.alternative).collect();
    let (mut text, mut html) = (None::<String>, None::<String>);
    let mut names = FileNames::default();
    for part in &parts {
        if part.is_body("text/plain") {
            let room = room(text.as_ref());
            let content = part.text(mail, room);
            join(mail, &mut text, &content);
        } else if part.is_body("text/html") {
            let content = part.text(mail, room(html.as_ref()));
            if part.alternative.is_none_or(|alternative| !in_text.contains(&alternative)) {
                join(mail, &mut text, html_to_text(&content).trim());
            }
            join(mail, &mut html, &content);
        } else {
            let (size, broken) = transfer::measure(part.encoding, part.body);
            if broken {
                mail.note(Problem::BrokenEncoding);
            }
            let file = part.attached(&mut names, bytes.slice_ref(part.body), size);
            if file.is_tnef() {
                mail.note(Problem::Tnef);
            }
            mail.attachments.push(file);
        }
    }
    (mail.text, mail.html) = (text, html);
}

/// How much of a text may still be read.
fn room(whole: Option<&String>) -> usize {
    TEXT_LIMIT.saturating_sub(whole.map_or(0, String::len))
}

/// Adds a further piece of the same content, within the limit.
fn join(mail: &mut Mail, whole: &mut Option<String>, piece: &str) {
    let whole = whole.get_or_insert_default();
    if !whole.is_empty() && !whole.ends_with('\n') {
        whole.push('\n');
    }
    let room = room(Some(whole));
    if piece.len() > room {
        mail.note(Problem::LongText);
    }
    whole.push_str(cut(piece, room));
}

/// A leaf with what its fields say about it.
struct Part<'a> {
    content_type: Option<ContentType<'static>>,
    disposition: Option<ContentType<'static>>,
    encoding: Encoding,
    content_id: Option<String>,
    media_type: String,
    body: &'a [u8],
    alternative: Option<usize>,
}

impl<'a> Part<'a> {
    fn new(leaf: &Leaf<'a>) -> Self {
        let field = |name| leaf.fields.iter().find(|field| field.is(name)).map(|field| field.raw());
        let disposition = field("Content-Disposition").and_then(content_type);
        let content_type = field("Content-Type").and_then(content_type);
        // RFC 2045 section 5.2: text is what has no type.
        let media_type = content_type.as_ref().map_or("text/plain".to_owned(), media_type);
        Self {
            content_type,
            disposition,
            encoding: Encoding::of(field("Content-Transfer-Encoding").unwrap_or_default()),
            content_id: field("Content-ID").and_then(|value| ids(value).into_iter().next()),
            media_type,
            body: leaf.body,
            alternative: leaf.alternative,
        }
    }

    fn original_name(&self) -> Option<&str> {
        let disposition = self.disposition.as_ref().and_then(|field| field.attribute("filename"));
        disposition.or_else(|| self.content_type.as_ref().and_then(|field| field.attribute("name")))
    }

    /// Whether it is text of the mail rather than a file.
    fn is_body(&self, media_type: &str) -> bool {
        self.media_type == media_type
            && self.disposition.as_ref().is_none_or(|field| field.ctype() != "attachment")
            && self.original_name().is_none()
    }

    fn charset(&self) -> Option<&str> {
        self.content_type.as_ref().and_then(|field| field.attribute("charset"))
    }

    /// At most so much of its text.
    fn text(&self, mail: &mut Mail, limit: usize) -> String {
        let decoded = transfer::decode(self.encoding, self.body, limit);
        if decoded.broken {
            mail.note(Problem::BrokenEncoding);
        }
        let more = decoded.more;
        let Text { text, broken, cut } = text_of(decoded.content, self.charset(), limit);
        if more || cut {
            mail.note(Problem::LongText);
        } else if broken {
            mail.note(Problem::BrokenCharset);
        }
        text
    }

    fn attached(&self, names: &mut FileNames, encoded: Bytes, size: usize) -> Attached {
        let original = self.original_name().unwrap_or_default();
        let disposition = self.disposition.as_ref().map(|field| field.ctype());
        let content_id = self.content_id.as_deref().map(|id| id.trim_matches(['<', '>']).to_owned());
        Attached {
            name: names.next(original, &self.media_type),
            original_name: cut(original, 1000).to_owned(),
            media_type: self.media_type.clone(),
            inline: disposition == Some("inline") || (disposition.is_none() && content_id.is_some()),
            content_id,
            size,
            encoded,
            encoding: self.encoding,
        }
    }
}

impl Attached {
    /// The attached mail, read as [`parse`] reads one; none if it is no mail. What is attached to that one is not read unless it
    /// is asked for in turn, so that no depth of nesting costs anything.
    #[must_use]
    pub fn mail(&self) -> Option<Mail> {
        self.is_mail().then(|| parse(self.content()))
    }
}

impl HeaderField<'_> {
    /// The value as text on one line, encoded words (RFC 2047) decoded; the first 64 KiB of it are read.
    #[must_use]
    pub fn text(&self) -> String {
        unstructured(self.raw(), FIELD_LIMIT)
    }

    /// The addresses in the value, those of groups too, at most 1,000. What is no address is left out.
    #[must_use]
    pub fn addresses(&self) -> Vec<NamedAddress> {
        addresses(self.raw()).0
    }
}

fn kind(fields: &[HeaderField<'_>]) -> Kind {
    let value = fields.iter().find(|field| field.is("Content-Type")).map(|field| field.raw());
    let multipart = value.and_then(content_type).filter(|found| found.ctype() == "multipart");
    let boundary = multipart.as_ref().and_then(|found| found.attribute("boundary"));
    match &multipart {
        Some(found) => Kind::Multipart {
            boundary: boundary.unwrap_or_default().trim_end().as_bytes().to_vec(),
            alternative: found.subtype() == Some("alternative"),
        },
        None => Kind::Leaf,
    }
}

/// `type/subtype` in lower case; what is no token is no media type.
fn media_type(from: &ContentType<'_>) -> String {
    let token = |text: &str| {
        !text.is_empty()
            && text.len() <= 100
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    match (from.ctype(), from.subtype()) {
        (kind, Some(subtype)) if token(kind) && token(subtype) => {
            format!("{kind}/{subtype}").to_ascii_lowercase()
        }
        // RFC 2045 section 5.2 for what can't be read; some programs write `text` alone.
        ("text", None) => "text/plain".to_owned(),
        _ => "application/octet-stream".to_owned(),
    }
}

/// The value as the parsing crate wants it: bounded in bytes and encoded words, ended by a line feed.
fn stream(value: &[u8], limit: usize) -> Cow<'_, [u8]> {
    let mut value = &value[..value.len().min(limit)];
    // Each encoded word that does not end is searched to the end of the line: their number is bounded.
    if let Some((at, _)) = value.windows(2).enumerate().filter(|(_, pair)| *pair == b"=?").nth(WORDS_LIMIT) {
        value = &value[..at];
    }
    if value.ends_with(b"\n") { Cow::Borrowed(value) } else { Cow::Owned([value, b"\n"].concat()) }
}

fn content_type(value: &[u8]) -> Option<ContentType<'static>> {
    match MessageStream::new(&stream(value, PART_FIELD_LIMIT)).parse_content_type().into_owned() {
        HeaderValue::ContentType(found) => Some(found),
        _ => None,
    }
}

fn listed(mail: &mut Mail, value: &[u8]) -> Vec<NamedAddress> {
    let (found, problems) = addresses(value);
    problems.into_iter().for_each(|problem| mail.note(problem));
    found
}

/// The addresses of a field (RFC 5322 section 3.4), those of groups too.
pub(super) fn addresses(value: &[u8]) -> (Vec<NamedAddress>, Vec<Problem>) {
    let value = stream(value, FIELD_LIMIT);
    let HeaderValue::Address(all) = MessageStream::new(&value).parse_address() else {
        return (Vec::new(), Vec::new());
    };
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for one in all.iter() {
        let Some(Ok(address)) = one.address().map(Address::parse) else {
            problems.push(Problem::UnreadableAddress);
            continue;
        };
        if found.len() == LIST_LIMIT {
            problems.push(Problem::TooManyAddresses);
            break;
        }
        let name = one_line(one.name().unwrap_or_default(), NamedAddress::NAME_LIMIT);
        let bare = NamedAddress::new(address);
        found.push(bare.clone().with_name(&name).unwrap_or(bare));
    }
    (found, problems)
}

/// A Subject, decoded, as one line.
pub(super) fn subject(value: &[u8]) -> String {
    unstructured(value, SUBJECT_LIMIT)
}

fn unstructured(value: &[u8], limit: usize) -> String {
    match MessageStream::new(&stream(value, FIELD_LIMIT)).parse_unstructured() {
        HeaderValue::Text(text) => one_line(&text, limit),
        _ => String::new(),
    }
}

fn date(value: &[u8]) -> Option<Timestamp> {
    match MessageStream::new(&stream(value, 200)).parse_date() {
        HeaderValue::DateTime(date) if date.is_valid() => {
            Some(Timestamp::from_millis(date.to_timestamp().saturating_mul(1000)))
        }
        _ => None,
    }
}

/// The Message-IDs of a field, with their angle brackets. Some programs leave the brackets out.
pub(super) fn ids(value: &[u8]) -> Vec<String> {
    let text = plain(value);
    let bracketed = text.split('<').skip(1).filter_map(|part| part.split_once('>').map(|(id, _)| id));
    let mut found: Vec<String> = bracketed.filter_map(message_id).take(LIST_LIMIT).collect();
    if found.is_empty() {
        found = text
            .split_whitespace()
            .filter(|word| word.contains('@'))
            .filter_map(message_id)
            .take(LIST_LIMIT)
            .collect();
    }
    found
}

/// A Message-ID that can stand in a header of ours: printable ASCII without blanks and brackets. Folds may cut it.
fn message_id(text: &str) -> Option<String> {
    let text: String = text.split_whitespace().collect();
    let fit = !text.is_empty()
        && text.len() <= ID_LIMIT
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'<' && b != b'>');
    fit.then(|| format!("<{text}>"))
}

/// The value as text, unfolded.
fn plain(value: &[u8]) -> String {
    String::from_utf8_lossy(&value[..value.len().min(FIELD_LIMIT)])
        .replace(['\r', '\n'], "")
        .trim()
        .to_owned()
}

/// Without control characters, which could end the line where it is shown or stored.
fn one_line(text: &str, limit: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    cut(text.trim(), limit).trim_end().to_owned()
}

/// Text of any charset. Those that the Encoding Standard lacks (UTF-7, some of DOS) are read by the parsing crate: a byte may
/// become three, so only a third is read.
fn text_of(content: Cow<'_, [u8]>, charset: Option<&str>, limit: usize) -> Text {
    let content = match charset::decode(content, charset, limit) {
        Ok(text) => return text,
        Err(content) => content,
    };
    let replaced = |charset: &str| encoding_rs::Encoding::for_label(charset.as_bytes()).is_some();
    match charset.filter(|charset| !replaced(charset)).and_then(|charset| charset_decoder(charset.as_bytes()))
    {
        Some(decoder) => {
            let some = &content[..content.len().min(limit / 3)];
            Text { text: decoder(some), broken: false, cut: some.len() < content.len() }
        }
        None => charset::lossy(&content, limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Would miss a parser whose panic ends the round over a mailbox: the poison would be fetched again for ever.
    #[test]
    fn a_panic_of_a_parser_costs_what_it_was_to_read() {
        let mut mail = Mail::default();
        guarded(&mut mail, |mail| mail.subject = "read".to_owned());
        guarded(&mut mail, |_| panic!("a fault of the parser"));
        assert_eq!((mail.subject.as_str(), &mail.problems[..]), ("read", &[Problem::Unread][..]));
        assert!(mail.is_truncated());
    }
}
