//! Mail that a host brings as bytes: what must hold of them before they are sent as they are.

use super::build::LINE_LIMIT;
use super::parse;
use crate::address::{Address, NamedAddress};
use crate::mail::HeaderField;
use crate::mail::field::Fields;
use crate::mailbox::Outbox;
use crate::message::check_size;
use crate::rules;
use crate::violation::{Findings, Invalid, Violations};

/// What is read from the header of a raw mail.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RawFacts {
    /// The one address in From.
    pub from: NamedAddress,
    /// Message-ID, with its angle brackets.
    pub message_id: Option<String>,
    /// Subject, decoded; empty if there is none.
    pub subject: String,
}

impl RawFacts {
    /// The sender, which must be one of the outbox's.
    ///
    /// # Errors
    /// [`rules::RAW_FROM`].
    pub fn check_sender<'a>(&self, outbox: &'a Outbox) -> Result<&'a NamedAddress, Invalid> {
        let from: &Address = self.from.address();
        outbox.sender(from).ok_or_else(|| Invalid::new(&rules::RAW_FROM).with("value", from.as_str()))
    }
}

/// Checks a mail of at most `limit` bytes that is sent as it is. Its lines are complete, so that neither a bare line end
/// nor a lone dot can end it early at some server (RFC 5321 section 2.3.8).
///
/// # Errors
/// [`rules::RAW`] with what is wrong, each once; [`rules::SIZE`].
pub fn check_raw(bytes: &[u8], limit: u64) -> Result<RawFacts, Violations> {
    let mut findings = Findings::default();
    let mut refuse = |broken: bool, what: &str| {
        if broken {
            findings.add(Invalid::new(&rules::RAW).with("found", what).at("raw"));
        }
    };
    refuse(bytes.contains(&0), "NUL");
    let (mut bare, mut long) = (false, false);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let content = line.strip_suffix(b"\r\n").unwrap_or(line);
        bare |= content.contains(&b'\r') || content.contains(&b'\n');
        long |= content.len() > LINE_LIMIT;
    }
    refuse(bare || !bytes.ends_with(b"\r\n"), "a line that does not end in CRLF");
    refuse(long, "a line of more than 998 bytes");
    let fields: Vec<HeaderField<'_>> = Fields::new(bytes).collect();
    let all = |name: &'static str| fields.iter().filter(move |field| field.is(name));
    refuse(!header_is_whole(bytes), "a header line that is no field");
    refuse(all("Bcc").next().is_some(), "Bcc");
    let message_ids: Vec<_> = all("Message-ID").collect();
    let message_id = message_ids.first().and_then(|field| parse::ids(field.raw()).into_iter().next());
    refuse(
        message_ids.len() > 1 || (message_id.is_none() && !message_ids.is_empty()),
        "a second or unreadable Message-ID",
    );
    let (from, problems) = match all("From").collect::<Vec<_>>()[..] {
        [field] => parse::addresses(field.raw()),
        _ => (Vec::new(), Vec::new()),
    };
    let from = <[NamedAddress; 1]>::try_from(from).ok().filter(|_| problems.is_empty());
    refuse(from.is_none(), "not one From with one address");
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    findings.take("raw", check_size(size, limit));
    let subject = all("Subject").next().map(|field| parse::subject(field.raw())).unwrap_or_default();
    let facts = from.map(|[from]| RawFacts { from, message_id, subject });
    findings.finish(facts)
}

/// Whether the header has fields only, and an empty line after them if anything follows.
fn header_is_whole(bytes: &[u8]) -> bool {
    let mut first = true;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if matches!(line, b"\r\n" | b"\n") {
            return !first;
        }
        let is_fold = !first && matches!(line.first(), Some(b' ' | b'\t'));
        let mut fields = Fields::new(line);
        if !is_fold && fields.next().is_none() {
            return false;
        }
        first = false;
    }
    !first
}
