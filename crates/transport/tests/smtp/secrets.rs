//! The password, its base64 and its SASL forms are nowhere to be read: not in Debug, not in errors, not in traces at the
//! finest level.

use std::io::Write;
use std::sync::{Arc, Mutex};

use postroom_core::endpoint::{Authority, Tls};
use postroom_testkit::MailServer;
use postroom_transport::OutgoingTransport;
use tracing_subscriber::fmt::MakeWriter;

use crate::lane::{PASSWORD, TestLane, job, route, transport, with_plain_sign_in, with_starttls};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Password, base64 of it (LOGIN), base64 of user and password (PLAIN).
const FORMS: [&str; 3] = [PASSWORD, "Y2FuYXJ5LTRmMWQ", "AGRlc2tAaG9zdC5leGFtcGxlAGNhbmFyeS00ZjFk"];

#[track_caller]
fn clean(text: &str) {
    for form in FORMS {
        assert!(!text.contains(form), "{form} is in {text}");
    }
}

#[tokio::test]
async fn a_canary_password_shows_nowhere() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .with_ansi(false)
        .finish();
    // With a single subscriber in the process, an event that a test in another thread comes to first counts as unwanted by all.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);

    for mechanism in ["PLAIN", "LOGIN"] {
        let server = MailServer::builder()
            .account("desk@host.example", PASSWORD)
            .require_sign_in()
            .without(postroom_testkit::Protocol::Smtp, if mechanism == "PLAIN" { "LOGIN" } else { "PLAIN" })
            .start()
            .await
            .unwrap();
        let authority = Authority::parse(server.ca_pem()).unwrap();
        let route = with_starttls(route(server.smtp_port(), Tls::None)).with_authority(Some(authority));
        clean(&format!("{route:?}"));
        let transport = transport();
        let lane = TestLane::new([job(&["desk"])]);
        let carried = transport.carry(&route, &lane).await;
        assert!(carried.is_ok(), "{carried:?}");
        clean(&format!("{transport:?} {carried:?} {:?}", lane.finished.lock().unwrap()));
        clean(&format!("{:?}", transport.probe(&route, &[]).await));
        transport.close_parked(route.mailbox).await;
        server.set_password("desk@host.example", "another");
        let error = transport.carry(&route, &lane).await.expect_err("the password is wrong");
        clean(&format!("{error} {error:?}"));
    }

    // A server that repeats what it was sent.
    let script = include_str!("../../dialogs/smtp/sign-in-refused.txt");
    let server = postroom_testkit::script::ScriptedServer::start(script).await.unwrap();
    let route = with_plain_sign_in(route(server.address().port(), Tls::None));
    let error = transport().carry(&route, &TestLane::new([])).await.expect_err("refused");
    clean(&format!("{error} {error:?}"));

    let text = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(text.contains("MAIL FROM"), "the log is at its finest level: {text}");
    clean(&text);
}
