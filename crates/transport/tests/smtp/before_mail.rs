//! Greeting, EHLO, STARTTLS and sign-in: what goes wrong there costs no job and shows no secret.

use postroom_core::endpoint::Tls;
use postroom_core::failure::Failure;
use postroom_testkit::{Certificate, MailServer, Refusal};
use postroom_transport::{ErrorKind, OutgoingTransport, Stage};

use crate::lane::{
    TestLane, Went, address, as_is, job, play, route, transport, with_plain_sign_in, with_plain_token,
    with_starttls,
};

macro_rules! dialogue {
    ($name:literal) => {
        include_str!(concat!("../../dialogs/smtp/", $name, ".txt"))
    };
}

async fn plain(dialogue: &str) -> Went {
    play(dialogue, as_is, job(&["ana", "rui"])).await
}

async fn starttls(dialogue: &str) -> Went {
    play(dialogue, with_starttls, job(&["ana", "rui"])).await
}

async fn sign_in(dialogue: &str) -> Went {
    play(dialogue, with_plain_sign_in, job(&["ana", "rui"])).await
}

#[tokio::test]
async fn a_refusing_greeting_suspends_the_box() {
    let went = plain(dialogue!("greeting-refused")).await;
    let error = went.never_began(ErrorKind::Refused, Stage::Greeting);
    assert_eq!(error.failure(), Failure::Suspend);
    assert_eq!(error.reply(), Some("554 5.7.1 No SMTP service here"));
}

#[tokio::test]
async fn a_greeting_of_another_protocol_is_shown() {
    let went = plain(dialogue!("greeting-wrong-protocol")).await;
    let error = went.never_began(ErrorKind::Protocol, Stage::Greeting);
    assert!(error.to_string().contains("IMAP4rev1"), "{error}");
}

#[tokio::test]
async fn a_greeting_of_several_lines_is_one() {
    let server =
        postroom_testkit::script::ScriptedServer::start(dialogue!("greeting-multiline")).await.unwrap();
    let report = transport().probe(&route(server.address().port(), Tls::None), &[]).await;
    assert!(report.passed(), "{report:?}");
    server.expect_played(crate::lane::PATIENCE).await;
}

#[tokio::test]
async fn a_line_without_end_is_cut_off() {
    plain(dialogue!("endless-line")).await.never_began(ErrorKind::Protocol, Stage::Greeting);
}

#[tokio::test]
async fn a_reply_without_end_is_cut_off() {
    plain(dialogue!("endless-lines")).await.never_began(ErrorKind::Protocol, Stage::Greeting);
}

#[tokio::test]
async fn garbage_within_a_reply_ends_the_session() {
    plain(dialogue!("garbage-in-reply")).await.never_began(ErrorKind::Protocol, Stage::Greeting);
}

#[tokio::test]
async fn differing_codes_in_one_reply_end_the_session() {
    plain(dialogue!("mismatched-codes")).await.never_began(ErrorKind::Protocol, Stage::Greeting);
}

#[tokio::test]
async fn a_reply_before_its_command_ends_the_session() {
    plain(dialogue!("reply-before-command")).await.never_began(ErrorKind::Protocol, Stage::Greeting);
}

#[tokio::test]
async fn a_421_at_the_greeting_is_a_limit() {
    let went = plain(dialogue!("421-greeting")).await;
    let error = went.never_began(ErrorKind::Throttled, Stage::Greeting);
    assert_eq!(error.failure(), Failure::RetryAfter(None));
}

#[tokio::test]
async fn a_421_after_ehlo_is_a_limit() {
    plain(dialogue!("421-ehlo")).await.never_began(ErrorKind::Throttled, Stage::Greeting);
}

#[tokio::test]
async fn a_server_that_does_not_know_ehlo_is_greeted_with_helo() {
    let went = plain(dialogue!("ehlo-refused")).await;
    assert!(went.carried.is_ok());
    assert_eq!(went.errors(), [None, None]);
}

#[tokio::test]
async fn starttls_that_was_stripped_ends_the_session_without_a_word_of_the_sign_in() {
    let went = starttls(dialogue!("starttls-stripped")).await;
    let error = went.never_began(ErrorKind::TlsUnavailable, Stage::Tls);
    assert_eq!(error.failure(), Failure::Suspend);
}

#[tokio::test]
async fn starttls_that_is_refused_for_now_is_tried_again_later() {
    starttls(dialogue!("starttls-454")).await.never_began(ErrorKind::Deferred, Stage::Tls);
}

#[tokio::test]
async fn starttls_that_is_refused_for_good_suspends_the_box() {
    starttls(dialogue!("starttls-502")).await.never_began(ErrorKind::TlsUnavailable, Stage::Tls);
}

/// It would miss bytes that arrive in a later segment: those go into the handshake, which fails.
#[tokio::test]
async fn bytes_injected_behind_the_consent_to_starttls_end_the_session() {
    starttls(dialogue!("starttls-injected")).await.never_began(ErrorKind::Injected, Stage::Tls);
}

#[tokio::test]
async fn what_was_offered_in_the_clear_is_forgotten_inside_tls() {
    let went = starttls(dialogue!("starttls-forgets")).await;
    assert!(went.carried.is_ok(), "{:?}", went.carried);
    assert_eq!(went.errors(), [None, None]);
}

#[tokio::test]
async fn a_wrong_password_suspends_the_box_and_is_not_repeated() {
    let went = sign_in(dialogue!("sign-in-refused")).await;
    let error = went.never_began(ErrorKind::SignInRefused, Stage::SignIn);
    assert_eq!(error.failure(), Failure::Suspend);
    assert_eq!(error.reply(), Some("535 5.7.8 Bad [redacted] ([redacted], [redacted])"));
}

#[tokio::test]
async fn a_sign_in_that_fails_for_now_is_tried_again_later() {
    let went = sign_in(dialogue!("sign-in-unavailable")).await;
    let error = went.never_began(ErrorKind::SignInUnavailable, Stage::SignIn);
    assert_eq!(error.failure(), Failure::RetryAfter(None));
}

/// Would miss a limit whose words the table of replies does not know.
#[tokio::test]
async fn a_limit_that_is_said_at_the_sign_in_is_a_limit() {
    for dialogue in [dialogue!("421-sign-in"), dialogue!("limit-at-sign-in")] {
        sign_in(dialogue).await.never_began(ErrorKind::Throttled, Stage::SignIn);
    }
}

#[tokio::test]
async fn unknown_methods_of_sign_in_are_reported() {
    sign_in(dialogue!("sign-in-unknown")).await.never_began(ErrorKind::NoSignInMethod, Stage::SignIn);
}

#[tokio::test]
async fn a_server_that_prompts_for_ever_gets_no_third_answer() {
    sign_in(dialogue!("sign-in-endless")).await.never_began(ErrorKind::Protocol, Stage::SignIn);
}

#[tokio::test]
async fn login_alone_in_its_old_spelling_is_spoken() {
    let server = postroom_testkit::script::ScriptedServer::start(dialogue!("sign-in-old")).await.unwrap();
    let route = with_plain_sign_in(route(server.address().port(), Tls::None));
    let report = transport().probe(&route, &[]).await;
    assert!(report.passed(), "{report:?}");
    server.expect_played(crate::lane::PATIENCE).await;
}

#[tokio::test]
async fn a_token_is_taken_by_both_of_its_mechanisms() {
    for dialogue in [dialogue!("bearer"), dialogue!("bearer-xoauth2")] {
        let went = play(dialogue, with_plain_token, job(&["ana"])).await;
        assert!(went.carried.is_ok(), "{:?}", went.carried);
        assert_eq!(went.errors(), [None]);
    }
}

#[tokio::test]
async fn a_token_that_is_refused_is_acknowledged_once_and_not_repeated() {
    for dialogue in [dialogue!("bearer-refused"), dialogue!("bearer-xoauth2-refused")] {
        let went = play(dialogue, with_plain_token, job(&["ana"])).await;
        let error = went.never_began(ErrorKind::SignInRefused, Stage::SignIn);
        assert_eq!(error.reply(), Some("535 5.7.8 [redacted], or [redacted], is no good"));
    }
    let went = play(dialogue!("bearer-another-prompt"), with_plain_token, job(&["ana"])).await;
    went.never_began(ErrorKind::Protocol, Stage::SignIn);
}

#[tokio::test]
async fn a_token_is_given_to_no_mechanism_of_passwords() {
    let went = play(dialogue!("bearer-no-method"), with_plain_token, job(&["ana"])).await;
    went.never_began(ErrorKind::NoSignInMethod, Stage::SignIn);
}

/// The server is not even dialled: there is nobody at that port.
#[tokio::test]
async fn no_credentials_travel_in_the_clear() {
    let route = route(1, Tls::None).with_credentials(crate::lane::credentials());
    let lane = TestLane::new([job(&["ana"])]);
    let error = transport().carry(&route, &lane).await.expect_err("refused");
    assert_eq!((error.kind(), error.failure()), (ErrorKind::PlaintextRefused, Failure::Suspend));
    assert_eq!(lane.left(), 1);
}

async fn with_certificate(certificate: Certificate, trusts: bool) -> ErrorKind {
    let server = MailServer::builder().certificate(certificate).start().await.unwrap();
    let mut route = route(server.smtps_port(), Tls::Implicit);
    if trusts {
        let authority = postroom_core::endpoint::Authority::parse(server.ca_pem()).unwrap();
        route = route.with_authority(Some(authority));
    }
    let lane = TestLane::new([job(&["ana"])]);
    let error = transport().carry(&route, &lane).await.expect_err("refused");
    assert_eq!((error.stage(), lane.left()), (Stage::Tls, 1), "{error}");
    error.kind()
}

#[tokio::test]
async fn certificates_are_verified() {
    let refused = ErrorKind::CertificateRefused;
    assert_eq!(with_certificate(Certificate::WrongName, true).await, refused);
    assert_eq!(with_certificate(Certificate::Expired, true).await, refused);
    assert_eq!(with_certificate(Certificate::SelfSigned, true).await, refused);
}

#[tokio::test]
async fn a_plain_port_taken_for_tls_is_told_from_a_bad_certificate() {
    let server = MailServer::start().await.unwrap();
    let authority = postroom_core::endpoint::Authority::parse(server.ca_pem()).unwrap();
    let route = route(server.smtp_port(), Tls::Implicit).with_authority(Some(authority));
    let report = transport().probe(&route, &[]).await;
    let error = report.failure().expect("it fails");
    assert_eq!((error.kind(), error.stage()), (ErrorKind::TlsFailed, Stage::Tls));
    assert!(error.remedy().contains("TLS"));
}

#[tokio::test]
async fn an_authority_that_is_no_certificate_is_a_setting_to_correct() {
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----";
    let authority = postroom_core::endpoint::Authority::parse(pem).unwrap();
    let route = route(1, Tls::Implicit).with_authority(Some(authority));
    let report = transport().probe(&route, &[]).await;
    let error = report.failure().expect("it fails");
    assert_eq!((error.kind(), error.stage()), (ErrorKind::Settings, Stage::Prepare));
}

#[tokio::test]
async fn a_probe_says_what_it_found_at_each_stage() {
    let server = MailServer::builder()
        .account("desk@host.example", crate::lane::PASSWORD)
        .require_sign_in()
        .start()
        .await
        .unwrap();
    let authority = postroom_core::endpoint::Authority::parse(server.ca_pem()).unwrap();
    let route = with_starttls(route(server.smtp_port(), Tls::None)).with_authority(Some(authority));
    let report = transport().probe(&route, &[address("desk@host.example")]).await;
    let shown: Vec<String> =
        report.stages().iter().map(|(stage, outcome)| format!("{stage}: {outcome:?}")).collect();
    let stages: Vec<Stage> = report.stages().iter().map(|(stage, _)| *stage).collect();
    use Stage::{Dns, Greeting, MailFrom, RcptTo, Reset, SignIn, Tcp, Tls as OfTls};
    assert_eq!(stages, [Dns, Tcp, OfTls, Greeting, SignIn, MailFrom, RcptTo, Reset], "{shown:?}");
    for found in ["127.0.0.1", "TLSv1_3", "PIPELINING", "SIZE 33554432", "PLAIN as desk@host.example"] {
        assert!(shown.iter().any(|line| line.contains(found)), "{found} is not in {shown:?}");
    }
    assert!(server.accepted().is_empty());

    server.refuse(Refusal::sign_in(535, "5.7.8 no"));
    let report = transport().probe(&route, &[address("desk@host.example")]).await;
    let error = report.failure().expect("it fails");
    assert_eq!((error.kind(), error.stage()), (ErrorKind::SignInRefused, SignIn));
}

#[tokio::test]
async fn a_probe_names_the_sender_that_is_refused_and_tries_the_others() {
    let server = postroom_testkit::script::ScriptedServer::start(dialogue!("probe-refused")).await.unwrap();
    let route = route(server.address().port(), Tls::None);
    let senders = [address("desk@host.example"), address("other@host.example")];
    let report = transport().probe(&route, &senders).await;
    let error = report.failure().expect("it fails");
    assert_eq!((error.kind(), error.stage()), (ErrorKind::Refused, Stage::RcptTo));
    assert_eq!(error.reply(), Some("550 5.7.1 Relaying denied"));
    assert!(!error.remedy().is_empty());
    server.expect_played(crate::lane::PATIENCE).await;
}
