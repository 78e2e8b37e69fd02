//! What a reply that refuses means: its kind by the table of codes and known texts, and the time that its words ask for. To the
//! sign-in only its limits apply; the session sorts the rest.

mod table;

use std::time::Duration;

use postroom_core::schedule::HINT_LIMIT;

use crate::error::{Error, ErrorKind, Stage};
use crate::outgoing::Reply;
use table::{Enhanced, Row, TABLE};

/// The error that a refusal is at `stage`. What is no refusal was said in place of another reply.
pub(super) fn error(reply: &Reply, stage: Stage) -> Error {
    let text = own_words(&reply.text);
    let row = first(TABLE, reply, &text, stage);
    let kind = row.map_or(ErrorKind::Protocol, |row| row.kind);
    tracing::trace!(?kind, by = row.map(|row| row.source), "sorted");
    let error = Error::new(kind, stage).with_reply(&reply.to_string());
    match wait(&text) {
        Some(wait) if matches!(kind, ErrorKind::Deferred | ErrorKind::Throttled) => {
            error.with_retry_after(wait)
        }
        _ => error,
    }
}

/// The first row that fits.
fn first<'a>(
    table: impl IntoIterator<Item = &'a Row>,
    reply: &Reply,
    text: &str,
    stage: Stage,
) -> Option<&'a Row> {
    table.into_iter().find(|row| {
        let enhanced = match (&row.enhanced, reply.enhanced) {
            (Enhanced::Any, _) | (Enhanced::Missing, None) => true,
            (Enhanced::Of(subject, details), Some((_, of, detail))) => {
                *subject == of && details.contains(&detail)
            }
            (Enhanced::Missing, Some(_)) | (Enhanced::Of(..), None) => false,
        };
        let at_stage = row.stage.is_none_or(|only| only == stage);
        enhanced && at_stage && row.codes.contains(&reply.code) && text.contains(row.text)
    })
}

/// The text in small letters, without what stands in angle brackets or quotes: an address there is somebody else's words, and
/// must not make a refusal look like a limit. Only a quoted local part can hold the spaces that the texts of the table have.
fn own_words(text: &str) -> String {
    let (mut bracketed, mut quoted, mut escaped) = (false, false, false);
    let is_own = |c: &char| {
        let before = bracketed || quoted;
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => bracketed = true,
            '>' => bracketed = false,
            _ => {}
        }
        !(before || bracketed || quoted)
    };
    text.to_ascii_lowercase().chars().filter(is_own).collect()
}

/// The time after which to try again that a text names, as in "try again in 5 minutes" or "Greylisted for 300 seconds"; at most
/// [`HINT_LIMIT`].
fn wait(text: &str) -> Option<Duration> {
    let words: Vec<&str> =
        text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.windows(2).enumerate().find_map(|(at, pair)| {
        let unit = match pair[1] {
            "s" | "sec" | "secs" | "second" | "seconds" => 1,
            "min" | "mins" | "minute" | "minutes" => 60,
            "h" | "hour" | "hours" => 60 * 60,
            _ => return None,
        };
        let number: u32 = pair[0].parse().ok()?;
        let mut before = words[..at].iter().rev().skip_while(|word| matches!(**word, "in" | "after" | "for"));
        // A number that is part of a limit ("20 mails in 60 seconds") is no such time.
        matches!(*before.next()?, "again" | "back" | "greylisted" | "later" | "retry" | "wait")
            .then(|| Duration::from_secs(u64::from(number) * unit).min(HINT_LIMIT))
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, iter, ptr};

    use postroom_core::failure::Failure;
    use proptest::prelude::*;

    use super::*;

    use ErrorKind::{Deferred, Refused, Settings, SignInRefused, Throttled, TooLarge};
    use Stage::{Dot, Greeting, MailFrom, RcptTo};

    /// Replies as they were published, or as the RFC describes them; in the order of the table's rows.
    const SAID: &[(Stage, &str, ErrorKind)] = &[
        (MailFrom, "421 4.7.0 Try again later, closing connection.", Throttled),
        (Greeting, "421 Too many concurrent SMTP connections", Throttled),
        (Greeting, "421 4.7.1 [TS03] All messages from 192.0.2.1 permanently deferred", Throttled),
        (RcptTo, "450 4.3.2 <ana@acme.example>: Recipient address rejected: Greylisted", Deferred),
        (Dot, "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded", Deferred),
        (Dot, "554 5.2.122 Recipient's per hour message receive limit exceeded", Deferred),
        (
            Dot,
            "554 5.2.121 Recipient's per hour message receive limit from specific sender exceeded",
            Deferred,
        ),
        (MailFrom, "432 4.3.2 Concurrent connections limit exceeded.", Throttled),
        (RcptTo, "450 4.3.2 Service currently unavailable", Throttled),
        (MailFrom, "451 4.4.5 Server busy, try again later.", Throttled),
        (MailFrom, "550 5.4.5 Daily user sending limit exceeded.", Throttled),
        (Dot, "550 5.4.5 Daily SMTP relay sending limit exceeded for user.", Throttled),
        (Dot, "450 4.7.28 a flood", Throttled),
        (
            MailFrom,
            "450 4.2.1 Peak SMTP relay limit exceeded for customer. This is a temporary error.",
            Throttled,
        ),
        (MailFrom, "550 5.7.1 Daily SMTP relay limit exceeded for customer.", Throttled),
        (MailFrom, "451 4.7.500 Access denied, please try again later", Throttled),
        (MailFrom, "451 4.7.699 Access denied, please try again later", Throttled),
        (MailFrom, "451 4.7.850 Access denied, please try again later", Throttled),
        (Dot, "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException", Throttled),
        (Dot, "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException", Throttled),
        (Dot, "550 5.2.2 Submission quota exceeded", Throttled),
        (MailFrom, "550 5.2.251 Sender throttled due to continuous mailbox full errors.", Throttled),
        (MailFrom, "550 5.2.255 Sender throttled due to continuous invalid recipients errors.", Throttled),
        (Dot, "550 5.1.90 you've reached your daily limit for message recipients", Throttled),
        (Dot, "550 5.7.233 your tenant exceeded its daily limit", Throttled),
        (MailFrom, "550 5.7.508 Access denied, [2001:db8::1] has exceeded permitted limits", Throttled),
        (Dot, "454 Throttling failure: Maximum sending rate exceeded", Throttled),
        (Dot, "454 Throttling failure: Daily message quota exceeded", Throttled),
        (MailFrom, "450 4.7.1 Error: too much mail from 192.0.2.1", Throttled),
        (MailFrom, "530 5.7.0 Authentication required", SignInRefused),
        (RcptTo, "535 5.7.8 Authentication credentials invalid", SignInRefused),
        (MailFrom, "550 5.7.57 Client was not authenticated to send anonymous mail", SignInRefused),
        (MailFrom, "550 5.7.0 Mail Sending denied.", Settings),
        (MailFrom, "550 5.7.1 Invalid credentials for relay [192.0.2.1].", Settings),
        (MailFrom, "550 5.7.0 Mail relay denied [192.0.2.1]. Invalid credentials for relay", Settings),
        (Dot, "550 5.1.8 Access denied, bad outbound sender", Settings),
        (Dot, "550 5.7.501 Access denied, spam abuse detected", Settings),
        (Dot, "550 5.7.705 Access denied, tenant has exceeded threshold", Settings),
        (Dot, "550 5.7.708 Access denied, traffic not accepted from this IP", Settings),
        (Dot, "554 Access denied: User arn is not authorized to perform ses:SendRawEmail", Settings),
        (RcptTo, "552 too many recipients", Deferred),
        (RcptTo, "552 5.5.3 too many recipients", Deferred),
        (Dot, "552 Message size exceeds fixed maximum message size", TooLarge),
        (MailFrom, "552 5.3.4 too big", TooLarge),
        (RcptTo, "550 5.2.3 too big for this box", TooLarge),
        (RcptTo, "451 4.7.1 try again later", Deferred),
        (RcptTo, "452 4.2.2 full", Deferred),
        (Dot, "499 a code that nobody has heard of", Deferred),
        (RcptTo, "550 5.1.1 No such user", Refused),
        (RcptTo, "552 5.2.2 full", Refused),
        (MailFrom, "553 5.1.8 Sender refused", Refused),
        (Dot, "550 5.7.1 [CS01] Message rejected due to local policy", Refused),
        (Dot, "554 Message rejected: Email address is not verified.", Refused),
        (Dot, "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException", Refused),
        (Dot, "599 5.99.99 a code that nobody has heard of", Refused),
    ];

    fn reply(line: &str) -> Reply {
        let (code, rest) = line.split_once(' ').expect("a text");
        let (word, text) = rest.split_once(' ').expect("a text of words");
        let numbers: Vec<u16> = word.split('.').filter_map(|number| number.parse().ok()).collect();
        let enhanced = match numbers[..] {
            [class, subject, detail] => Some((u8::try_from(class).expect("a digit"), subject, detail)),
            _ => None,
        };
        let text = if enhanced.is_some() { text } else { rest };
        Reply::new(code.parse().expect("a code"), enhanced, text)
    }

    fn kind(stage: Stage, line: &str) -> ErrorKind {
        error(&reply(line), stage).kind()
    }

    #[test]
    fn replies_mean_what_their_senders_say_they_mean() {
        for &(stage, line, want) in SAID {
            assert_eq!(kind(stage, line), want, "{line} at {stage}");
        }
    }

    /// Without it, a row that an earlier one hides would look like a rule.
    #[test]
    fn without_any_one_of_its_rows_the_table_would_sort_a_reply_otherwise() {
        for without in TABLE {
            let rest = || TABLE.iter().filter(|row| !ptr::eq(*row, without));
            let matters = SAID.iter().any(|&(stage, line, want)| {
                let reply = reply(line);
                first(rest(), &reply, &own_words(&reply.text), stage).map(|row| row.kind) != Some(want)
            });
            assert!(matters, "nothing is known of this row: {without:?}");
        }
    }

    #[test]
    fn an_address_that_reads_like_a_limit_is_no_limit() {
        for words in [
            "daily smtp relay",
            "a> daily smtp relay",
            r#"a\"> daily smtp relay"#,
            "in> try again in 5 minutes",
        ] {
            for address in [format!(r#"<"{words}"@acme.example>"#), format!(r#""{words}"@acme.example"#)] {
                let line = format!("550 5.7.1 {address}: Relay access denied");
                assert_eq!(kind(RcptTo, &line), Refused, "{line}");
            }
        }
        assert_eq!(own_words("A <b> C <d"), "a  c ");
        assert_eq!(own_words("a > B"), "a > b");
    }

    #[test]
    fn the_time_that_a_server_names_is_waited_for_within_bounds() {
        let check = |line: &str, seconds: Option<u64>| {
            let want = Failure::RetryAfter(seconds.map(Duration::from_secs));
            assert_eq!(error(&reply(line), RcptTo).failure(), want, "{line}");
        };
        check(
            "450 4.2.0 <ana@acme.example>: Recipient address rejected: Greylisted for 300 seconds",
            Some(300),
        );
        check("450 4.7.1 Greylisted by greyfix 0.4.0, try again in 30 seconds. See more.", Some(30));
        check("451 4.7.1 Please try again after 5 minutes.", Some(300));
        check("421 4.7.0 Retry in 1 hour", Some(3600));
        check("451 4.7.1 wait 10 s", Some(10));
        check("550 5.4.5 limit exceeded, try again in 2 hours", Some(7200));
        check("451 4.7.1 try again in 4294967295 hours", Some(HINT_LIMIT.as_secs()));
        check("451 4.7.1 try again in 4294967296 hours", None);
        check("451 4.7.1 20 mails in 60 seconds are the limit, try again later", None);
        check("451 4.7.1 try again in a minute", None);
        check("450 4.2.0 <try again in 9 seconds@acme.example>: later", None);
        assert_eq!(error(&reply("550 5.7.1 no, try again in 5 minutes"), RcptTo).failure(), Failure::GiveUp);
    }

    /// A row as the manual prints it.
    fn printed(row: &Row) -> String {
        let (from, to) = (row.codes.start(), row.codes.end());
        let class = from / 100;
        let code = if from == to { from.to_string() } else { format!("{class}xx") };
        let enhanced = match &row.enhanced {
            Enhanced::Any => String::new(),
            Enhanced::Missing => "none".to_owned(),
            Enhanced::Of(subject, of) if of.start() == of.end() => {
                format!("{class}.{subject}.{}", of.start())
            }
            Enhanced::Of(subject, of) => format!("{class}.{subject}.{} to {}", of.start(), of.end()),
        };
        let stage = row.stage.map_or("", Stage::word);
        let kind = format!("`{:?}`", row.kind);
        let cells = [stage, &code, &enhanced, row.text, &kind, row.source];
        cells.iter().fold("|".to_owned(), |line, cell| {
            if cell.is_empty() { format!("{line} |") } else { format!("{line} {cell} |") }
        })
    }

    #[test]
    fn the_page_of_the_manual_is_the_table_row_by_row() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../postroom/manual/replies.md");
        let page = fs::read_to_string(page).expect("the page");
        let (_, rows) = page.split_once("|---|---|---|---|---|---|\n").expect("the table");
        let rows: Vec<&str> = rows.lines().take_while(|line| line.starts_with('|')).collect();
        let table: Vec<String> = TABLE.iter().map(printed).collect();
        assert_eq!(rows, table, "the table as it should be printed:\n{}\n", table.join("\n"));
    }

    fn any_text() -> impl Strategy<Value = String> {
        let known = TABLE.iter().map(|row| row.text).chain(iter::once("try again in 99999 hours"));
        let known = prop::sample::select(known.collect::<Vec<_>>());
        (".{0,20}", known, ".{0,20}").prop_map(|(before, known, after)| format!("{before} {known} {after}"))
    }

    proptest! {
        /// It would miss a wrong kind of a known reply; those are tested above.
        #[test]
        fn any_reply_is_sorted_and_none_is_lost_or_in_doubt(
            code in 0u16..1000,
            status in prop::option::of((prop_oneof![0u16..9, any::<u16>()], prop_oneof![0u16..999, any::<u16>()])),
            text in any_text(),
            stage in prop::sample::select(vec![Greeting, MailFrom, RcptTo, Stage::Data, Dot, Stage::Reset]),
        ) {
            let class = u8::try_from(code / 100).expect("one digit");
            let reply = Reply::new(code, status.map(|(subject, detail)| (class, subject, detail)), &text);
            let error = error(&reply, stage);
            match (class, error.failure()) {
                (4, Failure::RetryAfter(wait)) => prop_assert!(wait.is_none_or(|wait| wait <= HINT_LIMIT)),
                (4, other) => prop_assert!(false, "{reply}: {other:?}"),
                (5, failure) => prop_assert!(failure != Failure::Doubt && error.kind() != ErrorKind::Protocol),
                _ => prop_assert_eq!(error.kind(), ErrorKind::Protocol),
            }
        }
    }
}
