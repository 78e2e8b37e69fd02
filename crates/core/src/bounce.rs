//! What a bounce or complaint reports, read from a received mail: for which recipients, what became of the mail, which mail of
//! ours it was. RFC 3464 reports, RFC 5965 complaints, and the texts of servers that write neither. Whether it is believed,
//! and of whom, is the engine's.

use std::fmt;
use std::time::Duration;

use crate::address::Address;
use crate::automatic::Kind;
use crate::mail::{Attached, Mail};
use crate::mime;
use crate::rules;
use crate::text::{cut, words};

/// Recipients that are read of one report.
pub const RECIPIENTS_LIMIT: usize = 1000;
/// Bytes of a report, of a returned header, and of a text that are read.
const READ: usize = 64 << 10;
/// Bytes of a server's words that are kept.
const WORDS: usize = 300;

words! {
    /// What became of the mail for one recipient (RFC 3464 section 2.3.3).
    Action, rules::REPORT_ACTION;
    /// It was not delivered, and is not tried any more.
    Failed = "failed",
    /// It was not delivered yet.
    Delayed = "delayed",
    /// It was delivered.
    Delivered = "delivered",
    /// It was passed on to a system that reports nothing.
    Relayed = "relayed",
    /// It was delivered to a list, which passes it on.
    Expanded = "expanded",
    /// It was delivered, and the recipient complained of it.
    Complained = "complained",
}

/// An enhanced status code (RFC 3463).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the three numbers of RFC 3463")]
pub struct Status {
    /// 2, 4 or 5.
    pub class: u16,
    /// What it is about: 1 the address, 2 the mailbox, and so on.
    pub subject: u16,
    /// More of it.
    pub detail: u16,
}

impl Status {
    /// Reads `5.1.1`, also where more follows.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let word = text.trim_start().split(|c: char| !(c.is_ascii_digit() || c == '.')).next()?;
        let mut numbers = word
            .trim_end_matches('.')
            .split('.')
            .map(|part| (1..=3).contains(&part.len()).then(|| part.parse::<u16>().ok()).flatten());
        let (Some(Some(class)), Some(Some(subject)), Some(Some(detail)), None) =
            (numbers.next(), numbers.next(), numbers.next(), numbers.next())
        else {
            return None;
        };
        matches!(class, 2 | 4 | 5).then_some(Self { class, subject, detail })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// A status that says that the address itself is bad, and for how long nothing more is sent to it.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "a row of a table")]
pub struct Bad {
    /// The second and third number of a status of class 5.
    pub code: (u16, u16),
    /// Days on the suppression list.
    pub days: u32,
    /// What it means, and where that is said.
    pub source: &'static str,
}

const fn bad(subject: u16, detail: u16, days: u32, source: &'static str) -> Bad {
    Bad { code: (subject, detail), days, source }
}

/// The statuses that put an address on the suppression list. All others say something of this mail, of a full box, of policy or
/// of a server, and the next mail may arrive.
pub const BAD: &[Bad] = &[
    bad(1, 0, 30, "other address status (RFC 3463 section 3.2)"),
    bad(1, 1, 180, "bad destination mailbox address (RFC 3463 section 3.2)"),
    bad(1, 2, 90, "bad destination system address (RFC 3463 section 3.2)"),
    bad(1, 3, 180, "bad destination mailbox address syntax (RFC 3463 section 3.2)"),
    bad(1, 6, 180, "mailbox has moved, no forwarding address (RFC 3463 section 3.2)"),
    bad(1, 10, 90, "recipient address has null MX (RFC 7505 section 4.2)"),
    bad(2, 1, 30, "mailbox disabled, not accepting messages (RFC 3463 section 3.3)"),
];

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long nothing more is sent to whoever complained.
pub const COMPLAINED: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What a report says of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reported {
    /// The address as the reporting server had it.
    pub address: Address,
    /// The address as the sender gave it, where the server knows.
    pub original: Option<Address>,
    /// What became of the mail.
    pub action: Action,
    /// The code.
    pub status: Option<Status>,
    /// The words of the server that refused it, bounded, one line.
    pub diagnostic: String,
}

impl Reported {
    /// Whether it is about this recipient.
    #[must_use]
    pub fn is_about(&self, recipient: &Address) -> bool {
        self.original.iter().chain([&self.address]).any(|one| one.same_mailbox(recipient))
    }

    /// For how long nothing more is sent to the address; none when the report says nothing against it.
    #[must_use]
    pub fn suppresses(&self) -> Option<Duration> {
        match (self.action, self.status) {
            (Action::Complained, _) => Some(COMPLAINED),
            (Action::Failed, Some(status)) if status.class == 5 => {
                let bad = BAD.iter().find(|bad| bad.code == (status.subject, status.detail))?;
                Some(DAY * bad.days)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action, self.address)?;
        if let Some(status) = self.status {
            write!(f, " {status}")?;
        }
        if !self.diagnostic.is_empty() {
            write!(f, ": {}", self.diagnostic)?;
        }
        Ok(())
    }
}

/// What a bounce or a complaint reports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Report {
    /// The recipients, each once.
    pub recipients: Vec<Reported>,
    /// Message-IDs of the mail that it is about, with angle brackets, the most likely first.
    pub message_ids: Vec<String>,
}

/// Reads what a mail reports; none when it is neither bounce nor complaint. Bounded: 64 KiB of each report and returned header,
/// 1,000 recipients.
#[must_use]
pub fn report(mail: &Mail) -> Option<Report> {
    let kind = mail.automatic.as_ref().map(|automatic| automatic.kind)?;
    if !matches!(kind, Kind::Bounce | Kind::Complaint) {
        return None;
    }
    let mut report = Report::default();
    for part in &mail.attachments {
        match part.media_type.as_str() {
            "message/delivery-status" | "message/global-delivery-status" if kind == Kind::Bounce => {
                delivery_status(&mut report, &text_of(part));
            }
            "message/feedback-report" if kind == Kind::Complaint => feedback(&mut report, &text_of(part)),
            "message/rfc822" | "text/rfc822-headers" | "message/global" | "message/global-headers" => {
                returned(&mut report, part);
            }
            _ => {}
        }
    }
    let text = whole_lines(mail.text.as_deref().unwrap_or_default());
    if report.recipients.is_empty() && kind == Kind::Bounce {
        plain_text(&mut report, text);
    }
    if report.message_ids.is_empty() {
        // Servers that write no report return the mail as text.
        for id in text.lines().filter_map(|line| field(line, "message-id")) {
            add_id(&mut report, id.trim());
        }
    }
    for id in mail.in_reply_to.iter().chain(mail.references.iter().rev()) {
        add_id(&mut report, id);
    }
    Some(report)
}

fn text_of(part: &Attached) -> String {
    // A byte more than is read shows whether the last line is whole.
    let text = String::from_utf8_lossy(&part.beginning(READ + 1)).into_owned();
    whole_lines(&text).to_owned()
}

/// As much as is read: half an address would be another one.
fn whole_lines(text: &str) -> &str {
    let read = cut(text, READ);
    if read.len() == text.len() { read } else { &read[..read.rfind('\n').unwrap_or_default()] }
}

fn add_id(report: &mut Report, id: &str) {
    let fits = id.len() <= 900 && id.starts_with('<') && id.ends_with('>');
    if fits
        && report.message_ids.len() < crate::thread::CANDIDATES_LIMIT
        && !report.message_ids.iter().any(|known| known == id)
    {
        report.message_ids.push(id.to_owned());
    }
}

/// The value of a line that is this field.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (found, value) = line.split_once(':')?;
    found.trim().eq_ignore_ascii_case(name).then(|| value.trim())
}

/// The returned mail, or its header.
fn returned(report: &mut Report, part: &Attached) {
    let mail = mime::parse(part.beginning(READ));
    if let Some(id) = &mail.message_id {
        add_id(report, id);
    }
}

/// The fields of a report, group by group (RFC 3464 section 2.1), unfolded.
fn groups(text: &str) -> Vec<Vec<(String, String)>> {
    let mut groups = vec![Vec::<(String, String)>::new()];
    for line in text.lines() {
        if line.trim().is_empty() {
            if groups.last().is_some_and(|group| !group.is_empty()) && groups.len() <= RECIPIENTS_LIMIT {
                groups.push(Vec::new());
            }
            continue;
        }
        let Some(group) = groups.last_mut() else { continue };
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = group.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            group.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    groups
}

fn of<'a>(group: &'a [(String, String)], name: &str) -> Option<&'a str> {
    group.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

/// Per-recipient fields (RFC 3464 section 2.3).
fn delivery_status(report: &mut Report, text: &str) {
    for group in groups(text) {
        let address = of(&group, "final-recipient").and_then(typed_address);
        let original = of(&group, "original-recipient").and_then(typed_address);
        let Some(address) = address.or_else(|| original.clone()) else { continue };
        // A server that does not say what became of it says nothing that counts.
        let Some(action) = of(&group, "action").and_then(|word| {
            let word = word.split([' ', '(', ';']).next().unwrap_or_default();
            Action::parse(word).ok().filter(|action| *action != Action::Complained)
        }) else {
            continue;
        };
        let diagnostic = of(&group, "diagnostic-code").unwrap_or_default();
        let diagnostic = diagnostic.split_once(';').map_or(diagnostic, |(_, words)| words.trim());
        // RFC 3464 section 2.3.4 demands a status; where it says no more than 5.0.0, the server's own words may.
        let stated = of(&group, "status").and_then(Status::parse);
        let status = match stated {
            Some(status) if (status.subject, status.detail) != (0, 0) => Some(status),
            stated => status_in(diagnostic)
                .filter(|found| stated.is_none_or(|of| of.class == found.class))
                .or(stated),
        };
        add(report, Reported { address, original, action, status, diagnostic: one_line(diagnostic) });
    }
}

/// Who complained (RFC 5965 section 3.2), where the provider tells.
fn feedback(report: &mut Report, text: &str) {
    for (name, value) in groups(text).into_iter().flatten() {
        let Some(address) = (name == "original-rcpt-to").then(|| bare_address(&value)).flatten() else {
            continue;
        };
        let (original, action, status) = (None, Action::Complained, None);
        add(report, Reported { address, original, action, status, diagnostic: String::new() });
    }
}

fn add(report: &mut Report, one: Reported) {
    let is_known = |known: &Reported| known.address == one.address;
    if report.recipients.len() < RECIPIENTS_LIMIT && !report.recipients.iter().any(is_known) {
        report.recipients.push(one);
    }
}

/// `rfc822; ana@acme.example` (RFC 3464 section 2.1.2), also without the type.
fn typed_address(value: &str) -> Option<Address> {
    let (kind, value) = value.split_once(';').unwrap_or(("rfc822", value));
    match kind.trim().to_ascii_lowercase().as_str() {
        "rfc822" | "utf-8" => bare_address(&xtext(value)),
        _ => None,
    }
}

fn bare_address(value: &str) -> Option<Address> {
    let value = value.trim();
    let value =
        value.strip_prefix('<').and_then(|rest| rest.split_once('>')).map_or(value, |(inside, _)| inside);
    Address::parse(value.split_whitespace().next()?).ok()
}

/// `+2B` is a plus sign (RFC 3461 section 4). A `+` that is followed by anything else stands for itself: many servers don't encode.
fn xtext(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find('+') {
        out.push_str(&rest[..at]);
        let code = rest
            .get(at + 1..at + 3)
            .filter(|code| code.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b)));
        // Only what had to be encoded: `+20` in `bea+2024` is no blank.
        let byte = code
            .and_then(|code| u8::from_str_radix(code, 16).ok())
            .filter(|byte| matches!(byte, b'+' | b'='));
        match byte {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 3..];
            }
            None => {
                out.push('+');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// The first enhanced code among words.
fn status_in(words: &str) -> Option<Status> {
    words
        .split(|c: char| {
            c.is_whitespace() || matches!(c, '#' | '(' | ')' | '<' | '>' | '[' | ']' | '-' | ';' | ',')
        })
        .find_map(|word| {
            // Not the beginning of an address or a version: nothing but the code, and a colon perhaps.
            let bare = word.trim_end_matches([':', '.']);
            Status::parse(bare).filter(|status| status.to_string() == bare && status.class != 2)
        })
}

/// Texts of servers that write no report: what says so, and whether they have given up.
const TEXTS: &[(&str, Action)] = &[
    // qmail-send
    ("i wasn't able to deliver your message to the following addresses", Action::Failed),
    // Exim
    ("could not be delivered to one or more of its\nrecipients. this is a permanent error", Action::Failed),
    ("the following address(es) failed", Action::Failed),
    ("has not been delivered to one or more of its recipients", Action::Delayed),
    // Exchange
    ("the following recipient(s) cannot be reached", Action::Failed),
    ("the following recipient(s) could not be reached", Action::Failed),
    ("delivery has failed to these recipients or", Action::Failed),
    // sendmail
    ("the following addresses had permanent fatal errors", Action::Failed),
    ("the following addresses had transient non-fatal errors", Action::Delayed),
    // Postfix
    ("could not\nbe delivered to one or more recipients", Action::Failed),
    // Gmail
    ("delivery to the following recipient failed permanently", Action::Failed),
    ("delivery to the following recipients failed permanently", Action::Failed),
    ("delivery to the following recipient has been delayed", Action::Delayed),
];

/// Where the returned mail begins: an address in it is none of those that failed.
const COPIES: &[&str] = &[
    "--- below this line is a copy",
    "this is a copy of",
    "----- original message -----",
    "----- message header",
    "--- transcript of session",
    "original message headers",
    "diagnostic information for administrators",
];

/// The recipients of a text. Only addresses that stand alone at the beginning of a line below a known sentence count.
fn plain_text(report: &mut Report, text: &str) {
    let lower = text.replace("\r\n", "\n").to_ascii_lowercase();
    let Some((at, action)) = TEXTS.iter().find_map(|(says, action)| Some((lower.find(says)?, *action)))
    else {
        return;
    };
    let text = text.replace("\r\n", "\n");
    let below = text.get(at..).unwrap_or_default();
    let mut paragraph: Option<(Address, String)> = None;
    let mut found = Vec::new();
    for line in below.lines().skip(1) {
        let lower = line.to_ascii_lowercase();
        if COPIES.iter().any(|copy| lower.contains(copy)) {
            break;
        }
        match leading_address(line) {
            Some((address, words)) => found.extend(paragraph.replace((address, words.to_owned()))),
            None => {
                if let Some((_, words)) = &mut paragraph
                    && words.len() < 4 * WORDS
                {
                    words.push(' ');
                    words.push_str(line.trim());
                }
            }
        }
    }
    for (address, words) in found.into_iter().chain(paragraph) {
        let status = status_in(&words);
        // A text that speaks of a transient error alone has not given up for good: nothing is concluded from it.
        let action = if status.is_some_and(|status| status.class == 4) && action == Action::Delayed {
            Action::Delayed
        } else {
            action
        };
        add(report, Reported { address, original: None, action, status, diagnostic: one_line(&words) });
    }
}

/// `<ana@acme.example>:`, `  ana@acme.example`, `ana@acme.example on 1/2/2026`: the address and what follows it.
fn leading_address(line: &str) -> Option<(Address, &str)> {
    let line = line.trim();
    let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let word = word.trim_end_matches(':');
    let word = word.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(word);
    let is_word = word.contains('@') && !word.contains(['(', ')', ',', ';', ':', '"', '<', '>']);
    is_word.then(|| Address::parse(word).ok()).flatten().map(|address| (address, rest))
}

/// Bounded, one line, without control characters.
fn one_line(text: &str) -> String {
    let text: String = text.chars().take(4 * WORDS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    cut(&text, WORDS).to_owned()
}
