//! Mail that is made to hurt, of ten megabytes each: read in memory that does not follow what it says, on a small stack. One
//! test, since the allocator counts for the whole process. How long each takes is measured by `benches/hostile.rs`.

use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use postroom_core::mail::{Mail, Problem};
use postroom_core::mime::parse;
use postroom_testkit::HostileMail;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const SIZE: usize = 10 << 20;
/// What reading may take beside the mail.
const MOST: usize = 64 << 20;

/// What must be said of a mail; none where all of it can be read.
fn problem(name: &str) -> Option<Problem> {
    Some(match name {
        "multiparts in each other" | "multiparts of one boundary in each other" => Problem::TooDeep,
        "parts" | "parts that are alternatives in HTML" | "files of one name" => Problem::TooManyParts,
        "lines that begin like a boundary" => Problem::TooManyParts,
        "header fields" | "header fields that are known" => Problem::TooManyHeaders,
        "a header field" | "encoded words" | "addresses" | "comments in each other" => Problem::LongHeader,
        "a line" | "NULs" | "UTF-7" | "HTML in each other" => Problem::LongText,
        "base64 of nothing" | "quoted-printable of signs" => Problem::BrokenEncoding,
        "a boundary of megabytes" => Problem::NoBoundary,
        "noise" => Problem::NoHeader,
        _ => return None,
    })
}

/// Would miss, among others: a boundary searched again at each level, an attachment decoded into a copy, a charset that
/// grows without a bound, and recursion.
#[test]
#[expect(clippy::disallowed_methods, reason = "the time that reading takes is what is tested")]
fn no_mail_costs_more_than_its_size_and_a_bound() {
    for hostile in HostileMail::all() {
        let name = hostile.name();
        let bytes = bytes::Bytes::from(hostile.bytes(SIZE));
        let copy = bytes.clone();
        MEMORY.reset_peak_usage();
        let (before, begun) = (MEMORY.current_usage(), Instant::now());
        let reader = std::thread::Builder::new().stack_size(256 << 10).spawn(move || parse(copy));
        let mail: Mail = reader.expect("a thread").join().expect("no panic and no overflow");
        let (took, most) = (begun.elapsed(), MEMORY.peak_usage().saturating_sub(before));
        // In the profile of the tests, on a loaded machine: what is quadratic takes hours.
        assert!(took < Duration::from_secs(60), "{name} took {took:?}");
        assert!(most <= MOST, "{name} took {} KiB", most >> 10);
        assert!(!mail.problems.contains(&Problem::Unread), "{name}: a parser panicked");
        if let Some(problem) = problem(name) {
            assert!(mail.problems.contains(&problem), "{name}: {:?}", mail.problems);
        }
        if name != "noise" {
            assert_eq!(mail.from.len(), 1, "{name}: its sender is read");
        }
        for file in &mail.attachments {
            assert!(file.mail().is_none_or(|inner| inner.from.is_empty()), "{name}");
        }
    }
}
