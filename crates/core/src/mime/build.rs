//! Makes the bytes of a mail. The building crate is named here only. Date, Message-ID and boundaries are given, so that
//! the same input makes the same bytes; what we make is 7-bit (RFC 2045), but for a local part that is not.

use std::fmt::Write as _;

use data_encoding::BASE32_DNSSEC;
use lettre::message::header::{ContentDisposition, ContentId, ContentTransferEncoding, ContentType};
use lettre::message::{Body, MultiPart, SinglePart};
use sha2::{Digest, Sha256};

use super::encode;
use crate::address::NamedAddress;
use crate::attachment::Attachment;
use crate::header::check_header;
use crate::message::check_subject;
use crate::rules;
use crate::time::Timestamp;
use crate::violation::{Findings, Invalid, Violations};

/// Lines have at most so many bytes, without their end (RFC 5322 section 2.1.1).
pub(super) const LINE_LIMIT: usize = 998;

/// A mail as it is composed. There is no Bcc: those recipients are in the envelope only.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the arguments of one pure function")]
pub struct Composition {
    /// From.
    pub from: NamedAddress,
    /// Reply-To.
    pub reply_to: Option<NamedAddress>,
    /// To; may be empty.
    pub to: Vec<NamedAddress>,
    /// Cc; may be empty.
    pub cc: Vec<NamedAddress>,
    /// Subject.
    pub subject: String,
    /// The text.
    pub text: Option<String>,
    /// The HTML.
    pub html: Option<String>,
    /// The files; those with a Content-ID go with the HTML, if there is one.
    pub attachments: Vec<Attachment>,
    /// Header fields of the host's own.
    pub headers: Vec<(String, String)>,
    /// Message-ID, with its angle brackets.
    pub message_id: String,
    /// In-Reply-To, with its angle brackets.
    pub in_reply_to: Option<String>,
    /// References, the oldest first. What is no Message-ID is left out, since it comes from strangers.
    pub references: Vec<String>,
}

/// Makes the bytes of a mail: the same input, `now` and `seed` make the same bytes. `now` is the Date; boundaries are made
/// of `seed`, which nobody else must know.
///
/// # Errors
/// Every violation: [`rules::SUBJECT`], [`rules::CONTENT`], [`rules::HEADER`], [`rules::ATTACHMENT`].
pub fn compose(composition: &Composition, now: Timestamp, seed: [u8; 32]) -> Result<Vec<u8>, Violations> {
    let mut findings = Findings::default();
    findings.take("subject", check_subject(&composition.subject));
    for (index, (name, value)) in composition.headers.iter().enumerate() {
        findings.take(&format!("headers[{index}]"), check_header(name, value));
    }
    for (index, file) in composition.attachments.iter().enumerate() {
        findings.take(&format!("attachments[{index}]"), file.check());
    }
    if composition.text.is_none() && composition.html.is_none() {
        findings.add(Invalid::new(&rules::CONTENT).at("text"));
    }
    // Ours by construction: a bad one would be a header that can't be written.
    if !is_message_id(&composition.message_id) {
        findings.add(Invalid::new(&rules::HEADER).with("name", "Message-ID").at("message_id"));
    }
    findings.finish(Some(()))?;
    let mut out = header(composition, now).into_bytes();
    match content(composition, &mut Boundaries { seed, made: 0 }) {
        Ok(Part::Single(part)) => out.extend(part.formatted()),
        Ok(Part::Multi(part)) => out.extend(part.formatted()),
        Err(index) => {
            return Err(Invalid::new(&rules::ATTACHMENT).at(format!("attachments[{index}]")).into());
        }
    }
    Ok(out)
}

fn header(composition: &Composition, now: Timestamp) -> String {
    let mut out = String::new();
    let mut field = |name: &str, value: &str| {
        if !value.is_empty() {
            // Writing to a String can't fail.
            let _ = write!(out, "{name}: {value}\r\n");
        }
    };
    field("Date", &now.to_rfc5322());
    field("From", &encode::addresses(std::slice::from_ref(&composition.from)));
    field("Reply-To", &encode::addresses(composition.reply_to.as_slice()));
    field("To", &encode::addresses(&composition.to));
    field("Cc", &encode::addresses(&composition.cc));
    field("Subject", &encode::unstructured("Subject".len(), &composition.subject));
    field("Message-ID", &composition.message_id);
    let ids = |ids: &[String]| encode::ids(ids.iter().map(String::as_str).filter(|id| is_message_id(id)));
    field("In-Reply-To", &ids(composition.in_reply_to.as_slice()));
    field("References", &ids(&composition.references));
    for (name, value) in &composition.headers {
        field(name, &encode::unstructured(name.len(), value));
    }
    field("MIME-Version", "1.0");
    out
}

/// `<..@..>` in printable ASCII, short enough for a line of its own.
fn is_message_id(text: &str) -> bool {
    let bare = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or_default();
    (3..=900).contains(&bare.len())
        && bare.contains('@')
        && bare.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'<' && byte != b'>')
}

enum Part {
    Single(SinglePart),
    Multi(MultiPart),
}

/// mixed(alternative(text, related(html, inline files)), files), each level only where it is needed. The error is the
/// attachment whose media type the building crate does not take.
fn content(composition: &Composition, boundaries: &mut Boundaries) -> Result<Part, usize> {
    let files = composition.attachments.iter().enumerate();
    let goes_inline = |file: &Attachment| composition.html.is_some() && file.content_id.is_some();
    let (inline, files): (Vec<_>, Vec<_>) = files.partition(|(_, file)| goes_inline(file));
    let html = composition.html.as_deref().map(|html| text(ContentType::TEXT_HTML, html));
    let html = match (html, &inline[..]) {
        (Some(html), []) => Some(Part::Single(html)),
        (Some(html), _) => {
            let mut related = boundaries.open("related").singlepart(html);
            for (index, one) in inline {
                related = related.singlepart(file(one, true).ok_or(index)?);
            }
            Some(Part::Multi(related))
        }
        (None, _) => None,
    };
    let plain = composition.text.as_deref().map(|plain| text(ContentType::TEXT_PLAIN, plain));
    let body = match (plain, html) {
        (Some(plain), Some(html)) => {
            let alternative = boundaries.open("alternative").singlepart(plain);
            Part::Multi(add(alternative, html))
        }
        (None, Some(html)) => html,
        (plain, None) => Part::Single(plain.unwrap_or_else(|| text(ContentType::TEXT_PLAIN, ""))),
    };
    if files.is_empty() {
        return Ok(body);
    }
    let mut mixed = add(boundaries.open("mixed"), body);
    for (index, one) in files {
        mixed = mixed.singlepart(file(one, false).ok_or(index)?);
    }
    Ok(Part::Multi(mixed))
}

fn add(to: MultiPart, part: Part) -> MultiPart {
    match part {
        Part::Single(part) => to.singlepart(part),
        Part::Multi(part) => to.multipart(part),
    }
}

fn text(content_type: ContentType, content: &str) -> SinglePart {
    let content = with_crlf(content);
    let is_plain = |byte: u8| byte.is_ascii() && (!byte.is_ascii_control() || b"\r\n\t".contains(&byte));
    let body = if content.bytes().all(is_plain) {
        Body::new(content)
    } else {
        // The crate takes control characters for 7-bit text; NUL must not be in a mail (RFC 5322 section 2.3).
        encoded(content.into_bytes(), ContentTransferEncoding::QuotedPrintable)
    };
    SinglePart::builder().content_type(content_type).body(body)
}

/// Every kind of line end becomes CRLF.
fn with_crlf(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n").replace('\n', "\r\n")
}

fn encoded(content: Vec<u8>, encoding: ContentTransferEncoding) -> Body {
    Body::new_with_encoding(content, encoding)
        .unwrap_or_else(|_| unreachable!("quoted-printable and base64 take every content"))
}

fn file(file: &Attachment, inline: bool) -> Option<SinglePart> {
    let is_message = file.media_type.to_ascii_lowercase().starts_with("message/");
    // RFC 2046 section 5.2.1: an attached mail is not encoded. What can't travel without is sent as a plain file.
    let as_message = is_message && is_seven_bit(&file.content);
    let media_type = if is_message && !as_message { "application/octet-stream" } else { &file.media_type };
    let disposition = if inline {
        ContentDisposition::inline_with_name(&file.name)
    } else {
        ContentDisposition::attachment(&file.name)
    };
    let mut part =
        SinglePart::builder().content_type(ContentType::parse(media_type).ok()?).header(disposition);
    if let Some(id) = &file.content_id {
        part = part.header(ContentId::from(format!("<{id}>")));
    }
    let content = file.content.clone();
    Some(part.body(if as_message {
        Body::dangerous_pre_encoded(content, ContentTransferEncoding::SevenBit)
    } else {
        encoded(content, ContentTransferEncoding::Base64)
    }))
}

fn is_seven_bit(content: &[u8]) -> bool {
    content.is_ascii()
        && !content.contains(&0)
        && content.split_inclusive(|byte| *byte == b'\n').all(|line| {
            let bare = line.strip_suffix(b"\r\n").unwrap_or(line);
            bare.len() <= LINE_LIMIT && !bare.contains(&b'\n') && !bare.contains(&b'\r')
        })
}

/// Boundaries that nobody can guess, and that no encoded content has: `=_` is in neither quoted-printable nor base64.
struct Boundaries {
    seed: [u8; 32],
    made: u8,
}

impl Boundaries {
    fn open(&mut self, kind: &str) -> MultiPart {
        let hash = Sha256::new().chain_update(self.seed).chain_update([self.made]).finalize();
        self.made += 1;
        let boundary = BASE32_DNSSEC.encode(&hash[..20]);
        let content_type = format!("multipart/{kind}; boundary=\"=_{boundary}\"");
        let content_type = ContentType::parse(&content_type).expect("a fixed form of plain letters");
        MultiPart::builder().header(content_type).build()
    }
}
