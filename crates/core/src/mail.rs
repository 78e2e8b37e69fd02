//! A received mail as it is read from its bytes: plain values, bounded, with what was wrong about it. The bytes stay the
//! record; [`crate::mime`] reads them.

mod attached;
pub(crate) mod field;

use std::fmt;

use bytes::Bytes;
use serde::Serialize;

pub use attached::{Attached, ContentReader};
pub use field::HeaderField;
use field::{FIELDS_LIMIT, Fields};

use crate::address::{Address, NamedAddress};
use crate::automatic::Automatic;
use crate::reply::{is_forwarded, reply};
use crate::time::Timestamp;

/// What is read from the bytes of a received mail. Everything in it was written by strangers.
///
/// What can't be read is left out and named in [`Mail::problems`]: an address without a domain, a date that is none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Mail {
    /// From: the authors, usually one.
    pub from: Vec<NamedAddress>,
    /// Sender: who sent it for the authors.
    pub sender: Option<NamedAddress>,
    /// Reply-To.
    pub reply_to: Vec<NamedAddress>,
    /// To.
    pub to: Vec<NamedAddress>,
    /// Cc.
    pub cc: Vec<NamedAddress>,
    /// The addresses that servers say they delivered it to: Delivered-To, X-Original-To, Envelope-To, X-Envelope-To.
    pub delivered_to: Vec<Address>,
    /// Return-Path: where bounces of it go; none for the null path and for no header.
    pub return_path: Option<Address>,
    /// Subject, decoded, one line.
    pub subject: String,
    /// Message-ID, with its angle brackets.
    pub message_id: Option<String>,
    /// In-Reply-To: Message-IDs with their angle brackets.
    pub in_reply_to: Vec<String>,
    /// References: Message-IDs with their angle brackets, the oldest first.
    pub references: Vec<String>,
    /// Date, as its author's clock had it.
    pub date: Option<Timestamp>,
    /// The text; made of the HTML when there is only HTML.
    pub text: Option<String>,
    /// The HTML as it was sent: hostile until it is sanitised.
    pub html: Option<String>,
    /// The files, inline images and attached mails.
    pub attachments: Vec<Attached>,
    /// What says that a program wrote it, and of what kind; none for a person's mail. Such mail is not answered by a program.
    pub automatic: Option<Automatic>,
    /// What was wrong or left out, each once.
    pub problems: Vec<Problem>,
    /// The header, as it was sent.
    #[serde(skip)]
    pub(crate) header: Bytes,
}

impl Mail {
    /// Whether something of it was left out: it was beyond a limit, or reading it failed.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.problems.iter().any(|problem| problem.truncates())
    }

    /// The reply in its text, without the quoted mail and the signature ([`crate::reply`]); the whole text where the
    /// subject says that the mail passes on another one.
    #[must_use]
    pub fn reply(&self) -> Option<&str> {
        let text = self.text.as_deref()?;
        Some(if is_forwarded(&self.subject) { text.trim() } else { reply(text) })
    }

    /// Every field of the header in its order, found while it is asked for; at most the first 10,000.
    pub fn fields(&self) -> impl Iterator<Item = HeaderField<'_>> {
        Fields::new(&self.header).take(FIELDS_LIMIT)
    }

    /// The first field of this name, in any case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<HeaderField<'_>> {
        self.fields().find(|field| field.is(name))
    }

    /// The part that HTML refers to as `cid:..` by this Content-ID, without angle brackets.
    #[must_use]
    pub fn by_content_id(&self, id: &str) -> Option<&Attached> {
        self.attachments.iter().find(|file| file.content_id.as_deref() == Some(id))
    }

    /// Records a problem, once.
    pub(crate) fn note(&mut self, problem: Problem) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}

/// What is wrong with a mail, or was left out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Problem {
    /// It has no header that can be read.
    NoHeader,
    /// It has no From with an address.
    NoFrom,
    /// An address could not be read and was left out.
    UnreadableAddress,
    /// The Date could not be read.
    UnreadableDate,
    /// The transfer encoding of a part is broken; what could be read of it is there.
    BrokenEncoding,
    /// The charset of a part is unknown, or its text is not of it; each character that could not be read is U+FFFD.
    BrokenCharset,
    /// A multipart does not end as it must: the end of the mail may be missing.
    Unclosed,
    /// A multipart names no boundary that can be one; it is among the files, unread.
    NoBoundary,
    /// Its files are in Outlook's container (TNEF, `winmail.dat`), which is not opened: it is among the files.
    Tnef,
    /// Reading it failed, by a fault of ours: something that is in the bytes was not read.
    Unread,
    /// It has far more header fields than mail has; of the known ones some may be left out.
    TooManyHeaders,
    /// A header field is longer than is read.
    LongHeader,
    /// It has more addresses or Message-IDs in one field than are read.
    TooManyAddresses,
    /// It has more parts than are read.
    TooManyParts,
    /// Its parts are nested more deeply than is read.
    TooDeep,
    /// Its text or HTML is longer than is read.
    LongText,
}

impl Problem {
    /// Whether something was left out: it was beyond a limit, or reading it failed.
    #[must_use]
    pub const fn truncates(self) -> bool {
        match self {
            Self::NoHeader
            | Self::NoFrom
            | Self::UnreadableAddress
            | Self::UnreadableDate
            | Self::BrokenEncoding
            | Self::BrokenCharset
            | Self::Unclosed
            | Self::NoBoundary
            | Self::Tnef => false,
            Self::Unread
            | Self::TooManyHeaders
            | Self::LongHeader
            | Self::TooManyAddresses
            | Self::TooManyParts
            | Self::TooDeep
            | Self::LongText => true,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHeader => "there is no readable header",
            Self::NoFrom => "there is no From with an address",
            Self::UnreadableAddress => "an address could not be read",
            Self::UnreadableDate => "the date could not be read",
            Self::BrokenEncoding => "the transfer encoding of a part is broken",
            Self::BrokenCharset => "the charset of a part is unknown or wrong",
            Self::Unclosed => "a multipart is not closed",
            Self::NoBoundary => "a multipart has no usable boundary",
            Self::Tnef => "its files are in an Outlook container (TNEF)",
            Self::Unread => "reading it failed",
            Self::TooManyHeaders => "there are more header fields than are read",
            Self::LongHeader => "a header field is longer than is read",
            Self::TooManyAddresses => "a field has more addresses or Message-IDs than are read",
            Self::TooManyParts => "there are more parts than are read",
            Self::TooDeep => "the parts are nested more deeply than is read",
            Self::LongText => "the text is longer than is read",
        })
    }
}
