//! An access token is longer than what is kept of a server's words: a server that repeats one leaves no piece of it in errors.
#![cfg(all(feature = "smtp", feature = "imap", feature = "pop3"))]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::time::Duration;

use data_encoding::BASE64;
use postroom_core::credentials::Credentials;
use postroom_core::endpoint::{Endpoint, Host, Port, Tls};
use postroom_core::id::{MailboxId, Revision};
use postroom_testkit::script::ScriptedServer;
use postroom_transport::by_protocol::ByProtocol;
use postroom_transport::smtp::SmtpTransport;
use postroom_transport::{
    ErrorKind, IncomingTransport, OutgoingTransport, ProbeReport, Protocol, Route, TEXT_LIMIT,
};

const IMAP: &str =
    "S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=OAUTHBEARER] ready\nC~ <tag> AUTHENTICATE OAUTHBEARER bixh";
const POP3: &str =
    "S: +OK ready\nC: CAPA\nS: +OK\nS: SASL OAUTHBEARER\nS: .\nC: AUTH OAUTHBEARER\nS: +\nC~ bixh";
const SMTP: &str =
    "S: 220 ready\nC~ EHLO\nS: 250-mx\nS: 250 AUTH OAUTHBEARER\nC: AUTH OAUTHBEARER\nS: 334\nC~ bixh";

async fn probed(protocol: Protocol, token: &str, script: &str) -> ProbeReport {
    let server = ScriptedServer::start(script).await.unwrap();
    let endpoint = Endpoint::new(Host::parse("127.0.0.1").unwrap(), Port::new(server.port().into()).unwrap());
    let route = Route::new(MailboxId::new(1), Revision::new(1), protocol, endpoint, Tls::None)
        .with_credentials(Credentials::bearer("desk", token.into()))
        .with_danger_plaintext();
    let report = match protocol {
        Protocol::Smtp => SmtpTransport::new().probe(&route, &[]).await,
        _ => ByProtocol::new().probe(&route, None).await,
    };
    server.expect_played(Duration::from_secs(20)).await;
    report
}

/// Seen to fail for all three protocols, and for each of their words, while the words were cut before they were redacted.
#[tokio::test]
async fn a_token_that_crosses_the_end_of_what_is_kept_leaves_nothing() {
    let token: String =
        (1..=65_u32).map(|number| format!("{:08x}", number.wrapping_mul(2_654_435_761))).collect();
    assert!(token.len() > TEXT_LIMIT);
    let sent = BASE64.encode(format!("n,a=desk,\x01auth=Bearer {token}\x01\x01").as_bytes());
    // The user's name is no secret.
    let secrets = [token.as_str(), &sent[40..]];
    for (protocol, dialogue, words, kind) in [
        (Protocol::Imap, IMAP, "<tag> NO", ErrorKind::SignInRefused),
        (Protocol::Imap, IMAP, "* BYE [UNAVAILABLE]", ErrorKind::SignInUnavailable),
        (Protocol::Pop3, POP3, "-ERR", ErrorKind::SignInRefused),
        (Protocol::Smtp, SMTP, "535 5.7.8", ErrorKind::SignInRefused),
        (Protocol::Smtp, SMTP, "oops", ErrorKind::Protocol),
        (Protocol::Smtp, SMTP, "334\nS: 535 5.7.8", ErrorKind::Protocol),
    ] {
        for before in [0, 200, TEXT_LIMIT - 100, TEXT_LIMIT - 60] {
            for repeated in [&token, &sent] {
                let said = format!("{words} {}{repeated}", ".".repeat(before));
                let report = probed(protocol, &token, &format!("{dialogue}\nS: {said}\n")).await;
                let error = report.failure().expect("it is refused");
                assert_eq!(error.kind(), kind, "{said}");
                let told = format!("{error} {report:?}");
                assert!(told.contains("[red"), "the test would see nothing: {told}");
                for secret in secrets {
                    let is_told = (0..secret.len() - 8).any(|at| told.contains(&secret[at..at + 8]));
                    assert!(!is_told, "{said}: {told}");
                }
            }
        }
    }
}
