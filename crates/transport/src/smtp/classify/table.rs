//! The table by which refusals (4xx, 5xx) are sorted: what a row says of the replies that it is for, what they mean, and the document that
//! says so. The first row that fits decides, so texts stand before codes and codes before classes. The manual's page "replies"
//! shows it; a test compares the two.

use std::ops::RangeInclusive;

use crate::error::{ErrorKind, Stage};

/// Which replies mean what, and who says so.
#[derive(Debug)]
pub(super) struct Row {
    /// The only stage that it is for.
    pub(super) stage: Option<Stage>,
    pub(super) codes: RangeInclusive<u16>,
    pub(super) enhanced: Enhanced,
    /// What the text contains, in small letters; nothing fits every text.
    pub(super) text: &'static str,
    pub(super) kind: ErrorKind,
    pub(super) source: &'static str,
}

/// Which enhanced codes. Their class is that of the basic code, or they do not count (RFC 2034 section 4).
#[derive(Debug)]
pub(super) enum Enhanced {
    /// Any or none.
    Any,
    /// None.
    Missing,
    /// One of this subject with one of these details.
    Of(u16, RangeInclusive<u16>),
}

use Enhanced::{Any, Missing, Of};
use ErrorKind::{Deferred, Refused, Settings, SignInRefused, Throttled, TooLarge};

const NDR: &str = "Microsoft: Email non-delivery reports and SMTP errors in Exchange Online";
const SUBMISSION: &str =
    "Microsoft: Message storage and concurrent connection throttling for SMTP Authenticated Submission";
const ERRORS: &str = "Microsoft: Continuous error throttling for SMTP AUTH submissions in Exchange Online";
const GOOGLE: &str = "Google Workspace Admin Help: Gmail SMTP errors and codes";
const SES: &str = "Amazon SES Developer Guide: SMTP response codes returned by Amazon SES";

/// For one stage.
const fn at(stage: Stage, row: Row) -> Row {
    Row { stage: Some(stage), ..row }
}

/// For one code.
const fn one(
    code: u16,
    enhanced: Enhanced,
    text: &'static str,
    kind: ErrorKind,
    source: &'static str,
) -> Row {
    Row { stage: None, codes: code..=code, enhanced, text, kind, source }
}

/// For a class of codes.
const fn all(
    class: u16,
    enhanced: Enhanced,
    text: &'static str,
    kind: ErrorKind,
    source: &'static str,
) -> Row {
    Row { stage: None, codes: class * 100..=class * 100 + 99, enhanced, text, kind, source }
}

#[rustfmt::skip]
pub(super) static TABLE: &[Row] = &[
    // The server ends the session, whatever else it says.
    one(421, Any, "", Throttled, "RFC 5321 section 3.8"),
    // Limits of one recipient's box: the outbox goes on.
    all(4, Any, "greylist", Deferred, "RFC 6647; postgrey(8)"),
    one(432, Of(3, 2..=2), "recipient thread limit", Deferred, NDR),
    all(5, Of(2, 121..=122), "", Deferred, NDR),
    // Limits of the sending account or system: the outbox rests, and no mail is lost by it.
    all(4, Of(3, 2..=2), "", Throttled, "RFC 3463 section 3.4"),
    all(4, Of(4, 5..=5), "", Throttled, "RFC 3463 section 3.5"),
    all(5, Of(4, 5..=5), "", Throttled, "RFC 3463 section 3.5: only a transient error"),
    all(4, Of(7, 28..=28), "", Throttled, "IANA: SMTP Enhanced Status Codes"),
    one(450, Of(2, 1..=1), "smtp relay limit exceeded", Throttled, GOOGLE),
    one(550, Of(7, 1..=1), "daily smtp relay", Throttled, GOOGLE),
    one(451, Of(7, 500..=699), "", Throttled, NDR),
    all(4, Of(7, 850..=899), "", Throttled, NDR),
    one(554, Of(2, 0..=0), "submissionquotaexceeded", Throttled, SUBMISSION),
    one(554, Of(2, 2..=2), "storedrv.submission", Throttled, SUBMISSION),
    all(5, Of(2, 2..=2), "submission quota exceeded", Throttled, NDR),
    one(550, Of(2, 251..=255), "", Throttled, ERRORS),
    all(5, Of(1, 90..=90), "", Throttled, NDR),
    all(5, Of(7, 232..=233), "", Throttled, NDR),
    all(5, Of(7, 508..=508), "", Throttled, NDR),
    one(454, Any, "throttling failure", Throttled, SES),
    one(450, Of(7, 1..=1), "error: too much mail from", Throttled, "Postfix: smtpd, smtpd_client_message_rate_limit"),
    // The sending account may not send until a person has seen to it.
    one(530, Any, "", SignInRefused, "RFC 4954 section 6"),
    one(535, Any, "", SignInRefused, "RFC 4954 section 6"),
    all(5, Of(7, 57..=57), "", SignInRefused, NDR),
    one(550, Of(7, 0..=0), "mail sending denied", Settings, GOOGLE),
    one(550, Of(7, 0..=1), "invalid credentials for relay", Settings, GOOGLE),
    all(5, Of(1, 8..=8), "bad outbound sender", Settings, NDR),
    all(5, Of(7, 501..=503), "", Settings, NDR),
    all(5, Of(7, 705..=705), "", Settings, NDR),
    all(5, Of(7, 708..=708), "", Settings, NDR),
    one(554, Any, "is not authorized to perform", Settings, SES),
    // Size, and number of recipients.
    at(Stage::RcptTo, one(552, Missing, "", Deferred, "RFC 5321 section 4.5.3.1.10")),
    at(Stage::RcptTo, all(5, Of(5, 3..=3), "", Deferred, "RFC 3463 section 3.6; RFC 5321 section 4.5.3.1.10")),
    one(552, Missing, "", TooLarge, "RFC 1870 section 6"),
    all(5, Of(3, 4..=4), "", TooLarge, "RFC 3463 section 3.4"),
    all(5, Of(2, 3..=3), "", TooLarge, "RFC 3463 section 3.3"),
    // Everything else by its class.
    all(4, Any, "", Deferred, "RFC 5321 section 4.2.1"),
    all(5, Any, "", Refused, "RFC 5321 section 4.2.1"),
];
