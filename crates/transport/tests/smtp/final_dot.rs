//! After 354: the lane's consent, the dot, and what is known of the mail when the answer is strange or missing.

use std::time::Duration;

use postroom_core::endpoint::Tls;
use postroom_core::failure::Failure;
use postroom_testkit::script::ScriptedServer;
use postroom_transport::smtp::{SmtpTransport, Timeouts};
use postroom_transport::{ErrorKind, OutgoingTransport, Route, Stage};

use crate::lane::{
    PATIENCE, TestLane, Went, as_is, job, play, play_within, route, transport, with_plain_token,
};

macro_rules! dialogue {
    ($name:literal) => {
        include_str!(concat!("../../dialogs/smtp/", $name, ".txt"))
    };
}

async fn of(dialogue: &str) -> Went {
    play(dialogue, as_is, job(&["ana", "rui"])).await
}

/// The lane was asked, the mail may have arrived, and the connection is not used again.
#[track_caller]
fn in_doubt(went: &Went) {
    let doubt = Some((ErrorKind::Unanswered, Stage::Dot));
    assert_eq!((went.errors(), went.lane.asked()), (vec![doubt, doubt], 1));
    assert_eq!(went.lane.outcomes()[0].as_ref().unwrap_err().failure(), Failure::Doubt);
    assert!(went.carried.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unanswered));
}

#[tokio::test]
async fn an_answer_that_is_not_utf8_counts_by_its_code() {
    let went = of(dialogue!("dot-latin1")).await;
    assert_eq!(went.errors(), [None, None]);
    assert_eq!(went.lane.outcomes()[0].as_ref().unwrap().text, "Aceita em S\u{e3}o Paulo");
}

#[tokio::test]
async fn a_lost_answer_is_doubt() {
    in_doubt(&of(dialogue!("dot-lost")).await);
}

#[tokio::test]
async fn an_unreadable_answer_is_doubt() {
    in_doubt(&of(dialogue!("dot-garbage")).await);
}

#[tokio::test]
async fn an_answer_of_differing_codes_is_doubt() {
    in_doubt(&of(dialogue!("dot-mismatched")).await);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_doubt() {
    in_doubt(&of(dialogue!("dot-half")).await);
}

#[tokio::test]
async fn a_second_354_is_doubt() {
    in_doubt(&of(dialogue!("dot-354")).await);
}

#[tokio::test]
async fn silence_is_doubt() {
    let mut timeouts = Timeouts::default().at_most(PATIENCE);
    timeouts.dot = Duration::from_millis(200);
    let transport = SmtpTransport::new().with_timeouts(timeouts);
    in_doubt(&play_within(dialogue!("dot-silent"), as_is, job(&["ana", "rui"]), transport).await);
}

#[tokio::test]
async fn a_negative_answer_settles_all_recipients_and_the_connection_goes_on() {
    let check = async |dialogue: &str, kind, failure| {
        let went = of(dialogue).await;
        assert!(went.carried.is_ok(), "{:?}", went.carried);
        assert_eq!(went.errors(), [Some((kind, Stage::Dot)), Some((kind, Stage::Dot))]);
        assert_eq!(went.lane.outcomes()[0].as_ref().unwrap_err().failure(), failure);
    };
    check(dialogue!("dot-451"), ErrorKind::Deferred, Failure::RetryAfter(None)).await;
    check(dialogue!("dot-554"), ErrorKind::Refused, Failure::GiveUp).await;
    check(dialogue!("dot-552"), ErrorKind::TooLarge, Failure::GiveUp).await;
}

#[tokio::test]
async fn a_421_for_an_answer_is_a_refusal_for_now_and_ends_the_connection() {
    let went = of(dialogue!("dot-421")).await;
    let throttled = Some((ErrorKind::Throttled, Stage::Dot));
    assert_eq!(went.errors(), [throttled, throttled]);
    assert!(went.carried.is_err());
}

/// Without the guard the early 250 would pass for the answer to the dot, and the mail would be lost.
#[tokio::test]
async fn an_answer_that_came_before_the_dot_is_not_its_answer() {
    let went = of(dialogue!("reply-before-dot")).await;
    let protocol = Some((ErrorKind::Protocol, Stage::Data));
    assert_eq!(went.errors(), [protocol, protocol]);
    assert!(went.carried.is_err());
}

/// The server of a mail that is taken, and of each sign-in by a token, cut at every byte that it sends. A mail counts as accepted only when its whole reply was
/// read; before the dot it is never in doubt, after it always; nothing hangs.
#[tokio::test]
async fn a_conversation_cut_at_any_byte_never_hangs_and_never_lies() {
    let cuts = cut_everywhere(dialogue!("good"), as_is, &["ana", "rui"]).await;
    assert!(cuts > 200, "the dialogue has become too short: {cuts}");
    for dialogue in [
        dialogue!("bearer"),
        dialogue!("bearer-xoauth2"),
        dialogue!("bearer-refused"),
        dialogue!("bearer-xoauth2-refused"),
        dialogue!("bearer-another-prompt"),
    ] {
        let cuts = cut_everywhere(dialogue, with_plain_token, &["ana"]).await;
        assert!(cuts > 100, "the dialogue has become too short: {cuts}");
    }
}

/// How often it was cut.
async fn cut_everywhere(script: &str, change: fn(Route) -> Route, recipients: &[&str]) -> usize {
    let steps: Vec<&str> = script.lines().filter(|line| !line.starts_with('#')).collect();
    let mut cuts = 0;
    for (at, step) in steps.iter().enumerate() {
        let Some(said) = step.strip_prefix("S: ") else { continue };
        let is_behind_dot = steps[..at].contains(&"C-DATA");
        let is_bye = said.starts_with("221");
        for length in 0..=said.len() + 1 {
            let mut cut: Vec<String> = steps[..at].iter().map(|step| (*step).to_owned()).collect();
            // The CR is sent, the LF is not.
            let part = if length > said.len() { format!("{said}\\r") } else { said[..length].to_owned() };
            cut.push(format!("S<< {part}"));
            cut.push("CUT".to_owned());
            let server = ScriptedServer::start(&cut.join("\n")).await.unwrap();
            let (transport, lane) = (transport(), TestLane::new([job(recipients)]));
            let route = change(route(server.address().port(), Tls::None));
            let carried = tokio::time::timeout(PATIENCE, transport.carry(&route, &lane)).await;
            let carried = carried.unwrap_or_else(|_| panic!("it hangs when cut after {part:?}"));
            transport.close().await;
            let finished = lane.finished.lock().unwrap().clone();
            let all = |kind: ErrorKind| {
                finished.iter().all(|(_, receipt)| {
                    receipt.outcomes.iter().all(|one| one.as_ref().is_err_and(|error| error.kind() == kind))
                })
            };
            match (is_behind_dot, is_bye) {
                (_, true) => assert!(carried.is_ok() && finished.len() == 1),
                (true, false) => {
                    assert!(
                        carried.is_err() && finished.len() == 1 && all(ErrorKind::Unanswered),
                        "{part:?}"
                    );
                }
                (false, _) => {
                    let error = carried.expect_err("an incomplete conversation");
                    assert!(error.kind() != ErrorKind::Unanswered && lane.asked() == 0, "{part:?}: {error}");
                    let ok = finished.iter().flat_map(|(_, receipt)| &receipt.outcomes).any(Result::is_ok);
                    assert!(!ok, "{part:?}: {finished:?}");
                }
            }
            cuts += 1;
        }
    }
    cuts
}
