//! A point in time as every row, event and mail of postroom states it. No clock is read here: the time comes in
//! as a value, from the store's clock.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::rules;
use crate::text::text_form;
use crate::violation::{Invalid, shown};

/// Milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
///
/// Its text form is RFC 3339 in UTC with milliseconds: `2026-11-22T17:31:04.123Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// The year 0000 to 9999: what RFC 3339 can write.
    const RANGE: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

    /// From milliseconds since the epoch; outside of the years 0000 to 9999 the nearest time inside.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.clamp(*Self::RANGE.start(), *Self::RANGE.end()))
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The time from `earlier` to this one; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }

    /// Reads RFC 3339.
    ///
    /// # Errors
    /// [`rules::TIMESTAMP`] when the text is none.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        DateTime::parse_from_rfc3339(text.trim())
            .map(|time| Self::from_millis(time.timestamp_millis()))
            .map_err(|_| Invalid::new(&rules::TIMESTAMP).with("value", shown(text)))
    }

    /// The form of a Date header (RFC 5322 section 3.3), always in UTC.
    #[must_use]
    pub fn to_rfc5322(self) -> String {
        self.utc().format("%a, %d %b %Y %H:%M:%S +0000").to_string()
    }

    /// The day in UTC as IMAP writes it in SEARCH SINCE (RFC 3501 `date`): `22-Nov-2026`.
    #[must_use]
    pub fn to_imap_date(self) -> String {
        self.utc().format("%-d-%b-%Y").to_string()
    }

    fn utc(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.utc().to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self::from_millis(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self::from_millis(self.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }
}

text_form!(Timestamp);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_parses_back() {
        for millis in [0, -1, 1_763_832_664_123, i64::MIN, i64::MAX] {
            let time = Timestamp::from_millis(millis);
            assert_eq!(Timestamp::parse(&time.to_string()), Ok(time));
        }
    }

    #[test]
    fn a_date_header_is_in_utc_and_a_search_date_has_no_leading_zero() {
        let time = Timestamp::parse("2026-11-02T01:31:04+03:00").expect("a time");
        assert_eq!(time.to_rfc5322(), "Sun, 01 Nov 2026 22:31:04 +0000");
        assert_eq!(time.to_imap_date(), "1-Nov-2026");
    }
}
