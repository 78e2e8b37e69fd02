//! MAIL, RCPT and DATA: a result for each recipient, with and without pipelining, and what is refused before MAIL.

use std::time::Duration;

use postroom_core::endpoint::Tls;
use postroom_core::failure::Failure;
use postroom_testkit::script::ScriptedServer;
use postroom_transport::{ErrorKind, Job, OutgoingTransport, Stage};

use crate::lane::{
    CONTENT, PATIENCE, TestLane, Went, address, as_is, job, job_with, play, route, transport,
    with_plain_sign_in,
};

macro_rules! dialogue {
    ($name:literal) => {
        include_str!(concat!("../../dialogs/smtp/", $name, ".txt"))
    };
}

async fn of(dialogue: &str, job: Job) -> Went {
    play(dialogue, as_is, job).await
}

const REFUSED: Option<(ErrorKind, Stage)> = Some((ErrorKind::Refused, Stage::RcptTo));
const DEFERRED: Option<(ErrorKind, Stage)> = Some((ErrorKind::Deferred, Stage::RcptTo));

#[tokio::test]
async fn a_mail_is_stuffed_and_arrives() {
    let went = of(dialogue!("good"), job(&["ana", "rui"])).await;
    assert!(went.carried.is_ok());
    assert_eq!(went.errors(), [None, None]);
    assert_eq!(went.lane.asked(), 1);
    assert_eq!(went.played.swallowed[0], "Subject: Hello\r\n\r\n..dotted\r\nHow\r\n..\r\n");
    let reply = went.lane.outcomes()[0].clone().unwrap();
    assert_eq!(reply.to_string(), "250 2.0.0 Queued as 1");
}

#[tokio::test]
async fn recipients_have_their_own_results_with_pipelining() {
    let went = of(dialogue!("mixed-pipelined"), job(&["ana", "gone", "full"])).await;
    assert!(went.carried.is_ok());
    assert_eq!(went.errors(), [None, REFUSED, DEFERRED]);
    let refusal = went.lane.outcomes()[1].clone().unwrap_err();
    assert_eq!(refusal.reply(), Some("550 5.1.1 No such user"));
}

#[tokio::test]
async fn recipients_have_their_own_results_without_pipelining() {
    let went = of(dialogue!("mixed-serial"), job(&["ana", "gone", "full"])).await;
    assert!(went.carried.is_ok());
    assert_eq!(went.errors(), [None, REFUSED, DEFERRED]);
}

#[tokio::test]
async fn nobody_is_asked_to_cross_when_all_are_refused() {
    let went = of(dialogue!("all-refused-pipelined"), job(&["ana", "rui"])).await;
    assert!(went.carried.is_ok());
    assert_eq!((went.errors(), went.lane.asked()), (vec![REFUSED, REFUSED], 0));

    let went = of(dialogue!("all-refused-serial"), job(&["ana", "rui"])).await;
    assert!(went.carried.is_ok());
    assert_eq!((went.errors(), went.lane.asked()), (vec![REFUSED, DEFERRED], 0));
}

#[tokio::test]
async fn a_354_for_nobody_ends_the_connection_without_a_dot() {
    let went = of(dialogue!("all-refused-354"), job(&["ana", "rui"])).await;
    assert!(went.carried.is_ok(), "the next job gets a new connection");
    assert_eq!((went.errors(), went.lane.asked()), (vec![REFUSED, REFUSED], 0));
}

#[tokio::test]
async fn a_refused_sender_is_the_reason_for_all() {
    let went = of(dialogue!("mail-refused-pipelined"), job(&["ana", "rui"])).await;
    assert!(went.carried.is_ok());
    let refused = Some((ErrorKind::Refused, Stage::MailFrom));
    assert_eq!(went.errors(), [refused, refused]);
}

#[tokio::test]
async fn a_refused_data_is_the_reason_for_those_who_were_accepted() {
    let went = of(dialogue!("data-refused"), job(&["ana", "gone"])).await;
    assert!(went.carried.is_ok());
    assert_eq!(went.errors(), [Some((ErrorKind::Deferred, Stage::Data)), REFUSED]);
}

#[tokio::test]
async fn a_server_that_wants_a_sign_in_suspends_the_box() {
    let went = of(dialogue!("sign-in-required"), job(&["ana"])).await;
    let error = went.lane.outcomes()[0].clone().unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::SignInRefused, Failure::Suspend));
}

#[tokio::test]
async fn a_sign_in_that_expires_between_two_mails_ends_the_lane_to_sign_in_again() {
    let server = ScriptedServer::start(dialogue!("sign-in-expired")).await.unwrap();
    let route = with_plain_sign_in(route(server.address().port(), Tls::None));
    let lane = TestLane::new([job(&["ana"]), job(&["ana"]), job(&["ana"])]);
    let error = transport().carry(&route, &lane).await.expect_err("expired");
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Reauthorise, Failure::RetryAfter(None)));
    assert_eq!(lane.left(), 1, "the third is not asked for");
    let finished = lane.finished.lock().unwrap().clone();
    assert!(finished[0].1.outcomes[0].is_ok());
    assert_eq!(finished[1].1.outcomes[0].as_ref().unwrap_err().kind(), ErrorKind::Reauthorise);
    server.expect_played(PATIENCE).await;
}

/// A box without a sign-in is suspended by the same words: `a_server_that_wants_a_sign_in_suspends_the_box`.
#[tokio::test]
async fn a_sign_in_that_expires_before_the_first_mail_suspends_nobody() {
    let went = play(dialogue!("sign-in-expired-at-once"), with_plain_sign_in, job(&["ana"])).await;
    let error = went.carried.as_ref().expect_err("expired");
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Reauthorise, Failure::RetryAfter(None)));
    assert_eq!(went.errors(), [Some((ErrorKind::Reauthorise, Stage::MailFrom))]);
}

#[tokio::test]
async fn a_box_that_must_sign_in_though_it_has_is_suspended_and_the_mail_is_kept() {
    let server = ScriptedServer::start(dialogue!("sign-in-useless")).await.unwrap();
    let route = with_plain_sign_in(route(server.address().port(), Tls::None));
    let lane = TestLane::new([job(&["ana"])]);
    transport().carry(&route, &lane).await.expect("the session is sound");
    let error = lane.outcomes()[0].clone().unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::SignInRefused, Failure::Suspend));
}

#[tokio::test]
async fn a_spent_daily_limit_rests_the_box_and_keeps_the_mail() {
    let went = of(dialogue!("limit-at-mail"), job(&["ana", "rui"])).await;
    let throttled = Some((ErrorKind::Throttled, Stage::MailFrom));
    assert_eq!(went.errors(), [throttled, throttled]);
    let error = went.lane.outcomes()[0].clone().unwrap_err();
    assert_eq!(error.failure(), Failure::RetryAfter(None));
}

#[tokio::test]
async fn a_greylisted_recipient_is_tried_when_the_server_said() {
    let went = of(dialogue!("greylisted"), job(&["ana"])).await;
    assert_eq!(went.errors(), [DEFERRED]);
    let error = went.lane.outcomes()[0].clone().unwrap_err();
    assert_eq!(error.failure(), Failure::RetryAfter(Some(Duration::from_secs(300))));
}

#[tokio::test]
async fn a_421_at_mail_ends_the_connection() {
    let went = of(dialogue!("421-mail"), job(&["ana", "rui"])).await;
    let throttled = Some((ErrorKind::Throttled, Stage::MailFrom));
    assert_eq!(went.errors(), [throttled, throttled]);
    assert!(went.carried.is_err_and(|error| error.kind() == ErrorKind::Throttled));
}

#[tokio::test]
async fn a_421_at_one_recipient_ends_the_connection_for_all() {
    let went = of(dialogue!("421-rcpt"), job(&["ana", "rui"])).await;
    let throttled = Some((ErrorKind::Throttled, Stage::RcptTo));
    assert_eq!((went.errors(), went.lane.asked()), (vec![throttled, throttled], 0));
    assert!(went.carried.is_err());
}

#[tokio::test]
async fn a_421_at_data_ends_the_connection() {
    let went = of(dialogue!("421-data"), job(&["ana", "rui"])).await;
    let throttled = Some((ErrorKind::Throttled, Stage::Data));
    assert_eq!((went.errors(), went.lane.asked()), (vec![throttled, throttled], 0));
    assert!(went.carried.is_err());
}

#[tokio::test]
async fn a_positive_answer_to_data_that_is_not_354_is_out_of_step() {
    let went = of(dialogue!("data-answered-250"), job(&["ana", "rui"])).await;
    let protocol = Some((ErrorKind::Protocol, Stage::Data));
    assert_eq!((went.errors(), went.lane.asked()), (vec![protocol, protocol], 0));
    assert!(went.carried.is_err());
}

#[tokio::test]
async fn a_session_that_can_not_be_reset_is_not_used_further() {
    let went = of(dialogue!("reset-refused"), job(&["ana"])).await;
    assert!(went.carried.is_ok(), "the next job gets a new connection");
    assert_eq!(went.errors(), [Some((ErrorKind::Refused, Stage::MailFrom))]);
}

/// Whatever the server can't take, or servers read differently, is refused before MAIL and costs the others nothing.
#[tokio::test]
async fn what_can_not_travel_is_refused_before_mail() {
    static LONG: [u8; 999] = [b'a'; 999];
    let check = async |job: Job, kind| {
        let went = of(dialogue!("nothing-sent"), job).await;
        assert!(went.carried.is_ok(), "{:?}", went.carried);
        assert_eq!(went.errors(), [Some((kind, Stage::Prepare))]);
        assert_eq!(went.lane.outcomes()[0].as_ref().unwrap_err().failure(), Failure::GiveUp);
    };
    let unsupported = ErrorKind::Unsupported;
    check(job_with(&["ana"], b"a\r\n.\nb\r\n"), unsupported).await;
    check(job_with(&["ana"], b"a\0b\r\n"), unsupported).await;
    check(job_with(&["ana"], &LONG), unsupported).await;
    check(job_with(&["ana"], "\r\nS\u{e3}o Paulo\r\n".as_bytes()), unsupported).await;
    check(job_with(&["ana"], "Subject: S\u{e3}o Paulo\r\n\r\n".as_bytes()), unsupported).await;
    check(job_with(&["jos\u{e9}"], b"\r\n"), unsupported).await;
    check(job_with(&["ana"], &[b'a'; 99]), ErrorKind::TooLarge).await;
}

#[tokio::test]
async fn extensions_are_used_when_a_mail_needs_them() {
    let mut job = job_with(&["jos\u{e9}"], "\r\nS\u{e3}o Paulo, SP\r\n".as_bytes());
    job.mail_from = None;
    let went = of(dialogue!("smtputf8"), job).await;
    assert!(went.carried.is_ok(), "{:?}", went.carried);
    assert_eq!(went.errors(), [None]);
}

#[tokio::test]
async fn an_address_that_the_server_can_not_read_does_not_stop_the_others() {
    let went = of(dialogue!("smtputf8-missing"), job(&["jos\u{e9}", "ana"])).await;
    assert_eq!(went.errors(), [Some((ErrorKind::Unsupported, Stage::Prepare)), None]);
}

/// More recipients than are written at once, so that neither side waits for the other for ever.
#[tokio::test]
async fn very_many_recipients_are_asked_in_several_writes() {
    let server = postroom_testkit::MailServer::start().await.unwrap();
    let locals: Vec<String> = (0..1000).map(|number| format!("n{number}")).collect();
    let mut many = job_with(&[], CONTENT);
    many.recipients = locals.iter().map(|local| address(&format!("{local}@acme.example"))).collect();
    let lane = TestLane::new([many]);
    transport().carry(&route(server.smtp_port(), Tls::None), &lane).await.unwrap();
    assert!(lane.outcomes().iter().all(Result::is_ok));
    assert_eq!(server.accepted()[0].recipients.len(), 1000);
}
