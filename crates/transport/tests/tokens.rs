//! Sign-in by access tokens at real servers: Dovecot by IMAP and POP3, which offers OAUTHBEARER, and Postfix, which offers XOAUTH2 alone. They
//! are there under `cargo xtask peers` and `cargo xtask test`.
#![cfg(all(feature = "imap", feature = "pop3", feature = "smtp"))]

use postroom_core::credentials::Credentials;
use postroom_core::endpoint::{Authority, Endpoint, Host, Port, Tls};
use postroom_core::id::{MailboxId, Revision};
use postroom_transport::by_protocol::ByProtocol;
use postroom_transport::smtp::SmtpTransport;
use postroom_transport::{
    ErrorKind, IncomingTransport, Outcome, OutgoingTransport, ProbeReport, Protocol, Route, Stage,
};

fn peer(name: &str) -> Option<String> {
    std::env::var(format!("PEER_{name}")).ok()
}

/// The report of a probe with one of the tokens; none where there are no servers.
async fn probed(protocol: Protocol, port: &str, token: &str) -> Option<ProbeReport> {
    let ca = std::fs::read_to_string(peer("CA")?).expect("the authority");
    let port = Port::new(peer(port)?.parse().expect("a number")).expect("a port");
    let endpoint = Endpoint::new(Host::parse(&peer("HOST")?).expect("a host"), port);
    let route = Route::new(MailboxId::new(1), Revision::new(1), protocol, endpoint, Tls::Implicit)
        .with_authority(Some(Authority::parse(&ca).expect("an authority")))
        .with_credentials(Credentials::bearer("token", peer(token)?.into()));
    Some(match protocol {
        Protocol::Smtp => SmtpTransport::new().probe(&route, &[]).await,
        Protocol::Imap => ByProtocol::new().probe(&route, Some("INBOX")).await,
        _ => ByProtocol::new().probe(&route, None).await,
    })
}

/// Would miss a provider's own ways: these are the ways of the RFC, as Dovecot has them.
#[tokio::test]
async fn real_servers_take_a_good_token_and_refuse_any_other() {
    for (protocol, port, by) in [
        (Protocol::Imap, "IMAPS_PORT", "OAUTHBEARER"),
        (Protocol::Pop3, "POP3S_PORT", "OAUTHBEARER"),
        (Protocol::Smtp, "SUBMISSIONS_PORT", "XOAUTH2"),
    ] {
        let Some(report) = probed(protocol, port, "TOKEN").await else { return };
        assert!(report.passed(), "{protocol:?}: {report:?}");
        let signed_in = report.stages().iter().find(|(stage, _)| *stage == Stage::SignIn);
        let found = signed_in.map(|(_, outcome)| match outcome {
            Outcome::Passed(found) => found.as_str(),
            _ => "",
        });
        assert!(found.is_some_and(|found| found.contains(by)), "{protocol:?}: {report:?}");
        for token in ["TOKEN_EXPIRED", "TOKEN_STRANGE"] {
            let Some(report) = probed(protocol, port, token).await else { return };
            let refused = report.failure().map(|error| (error.kind(), error.stage()));
            assert_eq!(refused, Some((ErrorKind::SignInRefused, Stage::SignIn)), "{protocol:?} {token}");
        }
    }
}
