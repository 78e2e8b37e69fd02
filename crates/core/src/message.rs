//! A mail as the host submits it, before an outbox is chosen and bytes are made; and what the host may ask for it.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::address::{Address, NamedAddress};
pub use crate::attachment::Attachment;
use crate::header::check_header;
use crate::id::{ContractId, IdempotencyKey, LedgerId, RecordId, StepKey};
use crate::rules;
use crate::template::Values;
use crate::text::words;
use crate::time::Timestamp;
use crate::violation::{Findings, Invalid, Violations};

/// The most recipients of one mail.
pub const RECIPIENTS_LIMIT: usize = 1000;
/// The most headers of the host's own.
pub const HEADERS_LIMIT: usize = 100;
/// The most attachments of one mail.
pub const ATTACHMENTS_LIMIT: usize = 100;
/// The greatest length of a subject, in bytes.
pub const SUBJECT_LIMIT: usize = 1000;
/// The greatest mail, in bytes, whatever the outbox allows.
pub const SIZE_LIMIT: u64 = 64 << 20;

words! {
    /// Which mail goes first within an outbox.
    Priority, rules::PRIORITY;
    /// After the others.
    Low = "low",
    /// The default.
    Normal = "normal",
    /// Before the others.
    High = "high",
}

words! {
    /// What happens to a mail of which nobody knows whether the server took it.
    OnDoubt, rules::ON_DOUBT;
    /// It waits for proof or a person. The default.
    Hold = "hold",
    /// It is sent again, with the same Message-ID: a duplicate is better than a loss.
    Resend = "resend",
}

words! {
    /// Why a program writes a mail (RFC 3834 section 2).
    Automation, rules::AUTOMATIC;
    /// It answers a mail: `Auto-Submitted: auto-replied`, and the null return path.
    Reply = "reply",
    /// It tells of something: `Auto-Submitted: auto-generated`.
    Notice = "notice",
}

impl Automation {
    /// The header fields that say so (RFC 3834 section 5, [MS-OXCMAIL] 2.1.3.2.10).
    #[must_use]
    pub const fn headers(self) -> [(&'static str, &'static str); 2] {
        let submitted = match self {
            Self::Reply => "auto-replied",
            Self::Notice => "auto-generated",
        };
        [("Auto-Submitted", submitted), ("X-Auto-Response-Suppress", "All")]
    }
}

words! {
    /// What happens to recipients that are on the contract's suppression list.
    OnSuppressed, rules::ON_SUPPRESSED;
    /// The mail is refused, with their names. The default.
    Refuse = "refuse",
    /// The mail is sent to them all the same.
    Send = "send",
}

/// What a mail says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// Parts that postroom composes.
    Parts {
        /// The subject.
        subject: String,
        /// The text.
        text: Option<String>,
        /// The HTML.
        html: Option<String>,
        /// The files.
        attachments: Vec<Attachment>,
    },
    /// The values for the template of the submission's step.
    Template(Values),
    /// RFC 5322 bytes, sent as they are.
    Raw(Vec<u8>),
}

/// A mail as the host submits it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Submission {
    /// The contract.
    pub contract: ContractId,
    /// The step.
    pub step: Option<StepKey>,
    /// In To.
    pub to: Vec<NamedAddress>,
    /// In Cc.
    pub cc: Vec<NamedAddress>,
    /// In the envelope only.
    pub bcc: Vec<NamedAddress>,
    /// What it says.
    pub content: Content,
    /// Further headers of the host's own.
    pub headers: Vec<(String, String)>,
    /// The sender that is asked for.
    pub sender: Option<Address>,
    /// Where answers go, when not to the sender.
    pub reply_to: Option<NamedAddress>,
    /// What it is about.
    pub record: Option<RecordId>,
    /// The received mail that it answers.
    pub in_reply_to: Option<LedgerId>,
    /// Which mail goes first within an outbox.
    pub priority: Priority,
    /// Not sent before.
    pub not_before: Option<Timestamp>,
    /// Not sent after; none for the default of five days (RFC 5321 section 4.5.4.1).
    pub expires_at: Option<Timestamp>,
    /// What to do in doubt.
    pub on_doubt: OnDoubt,
    /// Why a program writes it; none when a person does. It counts against the budget of each recipient
    /// ([`crate::automatic::ALLOWANCES`]), and answers no mail of a program.
    pub automatic: Option<Automation>,
    /// What happens to recipients that are on the suppression list.
    pub on_suppressed: OnSuppressed,
    /// The host's key for "this mail, once".
    pub idempotency_key: Option<IdempotencyKey>,
}

impl Submission {
    fn new(contract: ContractId, content: Content) -> Self {
        Self {
            contract,
            step: None,
            to: Vec::new(),
            cc: Vec::new(),
            bcc: Vec::new(),
            content,
            headers: Vec::new(),
            sender: None,
            reply_to: None,
            record: None,
            in_reply_to: None,
            priority: Priority::Normal,
            not_before: None,
            expires_at: None,
            on_doubt: OnDoubt::Hold,
            automatic: None,
            on_suppressed: OnSuppressed::Refuse,
            idempotency_key: None,
        }
    }

    /// A mail with a subject and a text.
    #[must_use]
    pub fn text(contract: ContractId, subject: impl Into<String>, text: impl Into<String>) -> Self {
        let (subject, text) = (subject.into(), Some(text.into()));
        Self::new(contract, Content::Parts { subject, text, html: None, attachments: Vec::new() })
    }

    /// A mail made of the template of `step`.
    #[must_use]
    pub fn template(contract: ContractId, step: StepKey, values: Values) -> Self {
        Self { step: Some(step), ..Self::new(contract, Content::Template(values)) }
    }

    /// A mail of RFC 5322 bytes. They are sent as they are; its From must be one of the outbox's senders.
    #[must_use]
    pub fn raw(contract: ContractId, bytes: Vec<u8>) -> Self {
        Self::new(contract, Content::Raw(bytes))
    }

    /// Adds a recipient in To.
    #[must_use]
    pub fn with_to(mut self, to: impl Into<NamedAddress>) -> Self {
        self.to.push(to.into());
        self
    }

    /// Adds a recipient in Cc.
    #[must_use]
    pub fn with_cc(mut self, cc: impl Into<NamedAddress>) -> Self {
        self.cc.push(cc.into());
        self
    }

    /// Adds a recipient whom the others don't see.
    #[must_use]
    pub fn with_bcc(mut self, bcc: impl Into<NamedAddress>) -> Self {
        self.bcc.push(bcc.into());
        self
    }

    /// Sends it for a step: the step's outbox setup decides first.
    #[must_use]
    pub fn with_step(mut self, step: StepKey) -> Self {
        self.step = Some(step);
        self
    }

    /// Adds an HTML body. Without effect on a template or raw bytes.
    #[must_use]
    pub fn with_html(mut self, body: impl Into<String>) -> Self {
        if let Content::Parts { html, .. } = &mut self.content {
            *html = Some(body.into());
        }
        self
    }

    /// Adds a file. Without effect on a template or raw bytes.
    #[must_use]
    pub fn with_attachment(mut self, attachment: Attachment) -> Self {
        if let Content::Parts { attachments, .. } = &mut self.content {
            attachments.push(attachment);
        }
        self
    }

    /// Adds a header of the host's own.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Asks for one of the outbox's senders.
    #[must_use]
    pub fn with_sender(mut self, sender: Address) -> Self {
        self.sender = Some(sender);
        self
    }

    /// Says what it is about: an answer to it is handed over with the same record.
    #[must_use]
    pub fn with_record(mut self, record: RecordId) -> Self {
        self.record = Some(record);
        self
    }

    /// Says which received mail it answers: it joins its thread.
    #[must_use]
    pub fn with_in_reply_to(mut self, ledger: LedgerId) -> Self {
        self.in_reply_to = Some(ledger);
        self
    }

    /// Gives it the host's key: submitted again with the same key and content it is the same mail.
    #[must_use]
    pub fn with_idempotency_key(mut self, key: IdempotencyKey) -> Self {
        self.idempotency_key = Some(key);
        self
    }

    /// Its expiry.
    #[must_use]
    pub fn with_expiry(mut self, at: Timestamp) -> Self {
        self.expires_at = Some(at);
        self
    }

    /// What to do in doubt.
    #[must_use]
    pub fn with_on_doubt(mut self, on_doubt: OnDoubt) -> Self {
        self.on_doubt = on_doubt;
        self
    }

    /// Says that a program writes it, and why.
    #[must_use]
    pub fn with_automatic(mut self, automatic: Automation) -> Self {
        self.automatic = Some(automatic);
        self
    }

    /// What happens to recipients that are on the suppression list.
    #[must_use]
    pub fn with_on_suppressed(mut self, on_suppressed: OnSuppressed) -> Self {
        self.on_suppressed = on_suppressed;
        self
    }

    /// Checks what can be checked before anything is read from a store: recipients, subject, content, headers,
    /// attachments and expiry. The bytes of a raw mail are checked by [`crate::mime::check_raw`], values by the template.
    ///
    /// # Errors
    /// Every violation.
    pub fn check(&self) -> Result<(), Violations> {
        let mut findings = Findings::default();
        let recipients = self.to.len() + self.cc.len() + self.bcc.len();
        findings.refuse_if(!(1..=RECIPIENTS_LIMIT).contains(&recipients), "to", &rules::RECIPIENTS);
        match &self.content {
            Content::Parts { subject, text, html, attachments } => {
                findings.take("subject", check_subject(subject));
                findings.refuse_if(text.is_none() && html.is_none(), "text", &rules::CONTENT);
                findings.refuse_if(attachments.len() > ATTACHMENTS_LIMIT, "attachments", &rules::ATTACHMENT);
                for (index, file) in attachments.iter().take(ATTACHMENTS_LIMIT).enumerate() {
                    findings.take(&format!("attachments[{index}]"), file.check());
                }
            }
            Content::Template(_) => {
                findings.refuse_if(self.step.is_none(), "step", &rules::CONTENT);
            }
            Content::Raw(_) => {
                findings.refuse_if(!self.headers.is_empty(), "headers", &rules::RAW);
                findings.refuse_if(self.reply_to.is_some(), "reply_to", &rules::RAW);
                findings.refuse_if(self.automatic.is_some(), "automatic", &rules::RAW);
            }
        }
        findings.refuse_if(self.headers.len() > HEADERS_LIMIT, "headers", &rules::HEADER);
        for (index, (name, value)) in self.headers.iter().take(HEADERS_LIMIT).enumerate() {
            findings.take(&format!("headers[{index}]"), check_header(name, value));
        }
        let early = matches!((self.not_before, self.expires_at), (Some(from), Some(to)) if to <= from);
        findings.refuse_if(early, "expires", &rules::EXPIRY);
        findings.finish(Some(()))
    }

    /// What shows, field by field, whether two submissions are the same.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut fields = BTreeMap::new();
        let mut add = |name: &str, parts: &[&[u8]]| {
            let mut hash = Sha256::new();
            for part in parts {
                // The length keeps `ab, c` apart from `a, bc`.
                hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
                hash.update(part);
            }
            fields.insert(name.to_owned(), HEXLOWER.encode(&hash.finalize()[..16]));
        };
        add_texts(&mut add, "to", self.to.iter().map(ToString::to_string));
        add_texts(&mut add, "cc", self.cc.iter().map(ToString::to_string));
        add_texts(&mut add, "bcc", self.bcc.iter().map(ToString::to_string));
        add_texts(&mut add, "step", self.step.iter().map(ToString::to_string));
        add_texts(&mut add, "sender", self.sender.iter().map(ToString::to_string));
        add_texts(&mut add, "reply_to", self.reply_to.iter().map(ToString::to_string));
        add_texts(&mut add, "record", self.record.iter().map(ToString::to_string));
        add_texts(&mut add, "in_reply_to", self.in_reply_to.iter().map(ToString::to_string));
        if let Some(automatic) = self.automatic {
            // Left out where there is none, as in the fingerprints that earlier releases wrote.
            add_texts(&mut add, "automatic", std::iter::once(automatic.word()));
        }
        add_texts(&mut add, "headers", self.headers.iter().flat_map(|(name, value)| [name, value]));
        match &self.content {
            Content::Parts { subject, text, html, attachments } => {
                add_texts(&mut add, "subject", std::iter::once(subject));
                add_texts(&mut add, "text", text.iter());
                add_texts(&mut add, "html", html.iter());
                let files: Vec<&[u8]> = attachments
                    .iter()
                    .flat_map(|file| {
                        let id = file.content_id.as_deref().unwrap_or_default();
                        [file.name.as_bytes(), file.media_type.as_bytes(), &file.content, id.as_bytes()]
                    })
                    .collect();
                add("attachments", &files);
            }
            Content::Template(values) => add_texts(&mut add, "values", values.words()),
            Content::Raw(bytes) => add("raw", &[bytes]),
        }
        Fingerprint(fields)
    }
}

/// Whether a subject is one line of at most [`SUBJECT_LIMIT`] bytes.
///
/// # Errors
/// [`rules::SUBJECT`].
pub fn check_subject(subject: &str) -> Result<(), Invalid> {
    if subject.len() > SUBJECT_LIMIT || subject.chars().any(char::is_control) {
        return Err(Invalid::new(&rules::SUBJECT).with("bytes", subject.len().to_string()));
    }
    Ok(())
}

/// Whether composed bytes are as small as the outbox wants, and [`SIZE_LIMIT`].
///
/// # Errors
/// [`rules::SIZE`], with the size and the limit in bytes.
pub fn check_size(bytes: u64, most: u64) -> Result<(), Invalid> {
    let most = most.min(SIZE_LIMIT);
    if bytes > most {
        let invalid = Invalid::new(&rules::SIZE);
        return Err(invalid.with("bytes", bytes.to_string()).with("limit", most.to_string()));
    }
    Ok(())
}

fn add_texts(add: &mut impl FnMut(&str, &[&[u8]]), name: &str, all: impl Iterator<Item = impl AsRef<str>>) {
    let all: Vec<_> = all.collect();
    add(name, &all.iter().map(|text| text.as_ref().as_bytes()).collect::<Vec<_>>());
}

/// A hash of each field of a submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(BTreeMap<String, String>);

impl Fingerprint {
    /// The first field, in alphabetical order, that is not the same in both; none when all are.
    #[must_use]
    pub fn first_difference<'a>(&'a self, other: &'a Self) -> Option<&'a str> {
        let names: std::collections::BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        names.into_iter().find(|name| self.0.get(*name) != other.0.get(*name)).map(String::as_str)
    }
}
