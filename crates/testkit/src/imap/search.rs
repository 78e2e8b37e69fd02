//! SEARCH and UID SEARCH (RFC 3501 section 6.4.4): whether a message fits the keys. No charset but ASCII and UTF-8.

use crate::{
    folder::Stored,
    imap::{
        reply::Verdict,
        view::{Numbers, View},
    },
    message,
};
use chrono::{DateTime, NaiveDate, Utc};
use imap_codec::imap_types::search::SearchKey;

/// Whether the message with this number fits; an error for keys that are not served.
pub(crate) fn fits(key: &SearchKey<'_>, number: usize, kept: &Stored, view: &View) -> Result<bool, Verdict> {
    let flagged = |flag: &str| kept.flags.iter().any(|set| set.eq_ignore_ascii_case(flag));
    let field = |name: &str, value: &[u8]| {
        message::header(&kept.bytes, name).is_some_and(|found| contains(found.as_bytes(), value))
    };
    let received = || day(kept.seconds());
    let size = kept.bytes.len();
    let in_set = |numbers, set| view.contains(set, numbers, (number, kept.uid));
    Ok(match key {
        SearchKey::And(keys) => {
            for key in keys.as_ref() {
                if !fits(key, number, kept, view)? {
                    return Ok(false);
                }
            }
            true
        }
        SearchKey::Or(one, other) => fits(one, number, kept, view)? || fits(other, number, kept, view)?,
        SearchKey::Not(key) => !fits(key, number, kept, view)?,
        SearchKey::All => true,
        SearchKey::SequenceSet(set) => return in_set(Numbers::Sequence, set),
        SearchKey::Uid(set) => return in_set(Numbers::Uid, set),
        SearchKey::Answered => flagged("\\Answered"),
        SearchKey::Deleted => flagged("\\Deleted"),
        SearchKey::Draft => flagged("\\Draft"),
        SearchKey::Flagged => flagged("\\Flagged"),
        SearchKey::Seen => flagged("\\Seen"),
        SearchKey::Keyword(keyword) => flagged(keyword.as_ref()),
        SearchKey::Unanswered => !flagged("\\Answered"),
        SearchKey::Undeleted => !flagged("\\Deleted"),
        SearchKey::Undraft => !flagged("\\Draft"),
        SearchKey::Unflagged => !flagged("\\Flagged"),
        SearchKey::Unseen => !flagged("\\Seen"),
        SearchKey::Unkeyword(keyword) => !flagged(keyword.as_ref()),
        // \Recent is never given, so nothing is recent and nothing is new.
        SearchKey::Recent | SearchKey::New => false,
        SearchKey::Old => true,
        SearchKey::Since(date) => received() >= *date.as_ref(),
        SearchKey::Before(date) => received() < *date.as_ref(),
        SearchKey::On(date) => received() == *date.as_ref(),
        SearchKey::Larger(than) => size > *than as usize,
        SearchKey::Smaller(than) => size < *than as usize,
        SearchKey::Header(name, value) => field(&String::from_utf8_lossy(name.as_ref()), value.as_ref()),
        SearchKey::Subject(value) => field("Subject", value.as_ref()),
        SearchKey::From(value) => field("From", value.as_ref()),
        SearchKey::To(value) => field("To", value.as_ref()),
        SearchKey::Cc(value) => field("Cc", value.as_ref()),
        SearchKey::Bcc(value) => field("Bcc", value.as_ref()),
        SearchKey::Body(value) => contains(message::split_header(&kept.bytes).1, value.as_ref()),
        SearchKey::Text(value) => contains(&kept.bytes, value.as_ref()),
        _ => return Err(Verdict::no("[CANNOT] this search key is not served")),
    })
}

/// RFC 3501 section 6.4.4: a substring, case ignored; the empty one is in every field that is there.
fn contains(text: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || text.windows(wanted.len()).any(|window| window.eq_ignore_ascii_case(wanted))
}

fn day(seconds: i64) -> NaiveDate {
    DateTime::<Utc>::from_timestamp(seconds, 0).unwrap_or_default().date_naive()
}
