//! What a probe tells of each stage, and where it ends when something is wrong.

use postroom_core::credentials::Credentials;
use postroom_core::endpoint::{Authority, Endpoint, Host, Port, Tls};
use postroom_core::id::{MailboxId, Revision};
use postroom_testkit::{Certificate, MailServer};
use postroom_transport::by_protocol::ByProtocol;
use postroom_transport::{ErrorKind, IncomingTransport, Outcome, Protocol, Route, Stage};

const LOGIN: &str = "desk@acme.example";

async fn server(certificate: Certificate) -> MailServer {
    let server =
        MailServer::builder().account(LOGIN, "secret").certificate(certificate).start().await.unwrap();
    server.deliver(LOGIN, "Subject: a\r\n\r\n");
    server
}

fn route(server: &MailServer, protocol: Protocol, tls: Tls) -> Route {
    let port = match (protocol, tls) {
        (Protocol::Pop3, Tls::Implicit) => server.pop3s_port(),
        (Protocol::Pop3, _) => server.pop3_port(),
        (_, Tls::Implicit) => server.imaps_port(),
        _ => server.imap_port(),
    };
    let endpoint = Endpoint::new(Host::parse("localhost").unwrap(), Port::new(port.into()).unwrap());
    Route::new(MailboxId::new(1), Revision::new(1), protocol, endpoint, tls)
        .with_credentials(Credentials::password(LOGIN, "secret".into()))
        .with_authority(Some(Authority::parse(server.ca_pem()).unwrap()))
}

const BOTH: [Protocol; 2] = [Protocol::Imap, Protocol::Pop3];

#[tokio::test]
async fn each_stage_tells_what_was_found() {
    let server = server(Certificate::default()).await;
    for protocol in BOTH {
        for tls in [Tls::Implicit, Tls::StartTls] {
            let report = ByProtocol::new().probe(&route(&server, protocol, tls), None).await;
            assert!(report.passed(), "{report:?}");
            let stages: Vec<Stage> = report.stages().iter().map(|(stage, _)| *stage).collect();
            let all = [Stage::Dns, Stage::Tcp, Stage::Tls, Stage::Greeting, Stage::SignIn, Stage::Folder];
            assert_eq!(stages, all);
            let found = |wanted: Stage| match report.stages().iter().find(|(stage, _)| *stage == wanted) {
                Some((_, Outcome::Passed(found))) => found.clone(),
                other => panic!("{other:?}"),
            };
            assert!(found(Stage::Tls).contains("TLSv1_3"), "{}", found(Stage::Tls));
            assert!(found(Stage::Greeting).contains("UIDPLUS") || found(Stage::Greeting).contains("UIDL"));
            assert_eq!(found(Stage::SignIn), format!("as {LOGIN} by PLAIN"));
            assert!(found(Stage::Folder).contains('1'), "{}", found(Stage::Folder));
        }
    }
    // The last words were said: nobody is still signed in.
    let ended = server.wait_for(std::time::Duration::from_secs(30), |server| {
        server.sessions().iter().all(|session| !session.open).then_some(())
    });
    ended.await.unwrap();
}

#[tokio::test]
async fn nothing_is_said_to_a_server_that_cannot_be_trusted() {
    for certificate in [Certificate::Expired, Certificate::WrongName, Certificate::SelfSigned] {
        let server = server(certificate).await;
        for protocol in BOTH {
            for tls in [Tls::Implicit, Tls::StartTls] {
                let report = ByProtocol::new().probe(&route(&server, protocol, tls), None).await;
                let failure = report.failure().unwrap();
                assert_eq!((failure.kind(), failure.stage()), (ErrorKind::CertificateRefused, Stage::Tls));
            }
        }
        let sessions = server.sessions();
        assert!(sessions.iter().all(|session| session.login.is_none() && session.refused_sign_ins == 0));
    }
}

#[tokio::test]
async fn a_password_without_tls_makes_no_connection() {
    let server = server(Certificate::default()).await;
    for protocol in BOTH {
        let error = ByProtocol::new().open(&route(&server, protocol, Tls::None)).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::PlaintextRefused);
    }
    assert!(server.sessions().is_empty());
}

#[tokio::test]
async fn a_protocol_that_receives_nothing_is_a_wrong_setting() {
    let server = server(Certificate::default()).await;
    let route = route(&server, Protocol::Smtp, Tls::Implicit);
    let report = ByProtocol::new().probe(&route, None).await;
    assert_eq!(report.failure().unwrap().kind(), ErrorKind::Settings);
    assert_eq!(ByProtocol::new().open(&route).await.err().unwrap().kind(), ErrorKind::Settings);
}
