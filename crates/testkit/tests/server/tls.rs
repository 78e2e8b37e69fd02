//! Which certificates a careful client takes, and what happens to bytes sent before the handshake.

use crate::client::Client;
use postroom_testkit::{Authority, Certificate, MailServer, Protocol};

async fn handshake(certificate: Certificate, name: &str) -> bool {
    let server = MailServer::builder().certificate(certificate).start().await.unwrap();
    let mut client = Client::dial(server.address(Protocol::Imaps)).await;
    client.begin_tls(name, server.ca_pem()).await.is_ok()
}

#[tokio::test]
async fn a_careful_client_takes_the_good_certificate_and_no_other() {
    assert!(handshake(Certificate::Trusted, "localhost").await);
    assert!(handshake(Certificate::Trusted, "127.0.0.1").await);
    assert!(!handshake(Certificate::Trusted, "elsewhere.example").await);
    assert!(!handshake(Certificate::Expired, "localhost").await);
    assert!(!handshake(Certificate::WrongName, "localhost").await);
    assert!(handshake(Certificate::WrongName, "elsewhere.example").await);
    assert!(!handshake(Certificate::SelfSigned, "localhost").await);
}

#[tokio::test]
async fn each_server_has_its_own_authority_unless_they_share_one() {
    let (one, other) = (MailServer::start().await.unwrap(), MailServer::start().await.unwrap());
    let mut client = Client::dial(one.address(Protocol::Smtps)).await;
    assert!(client.begin_tls("localhost", other.ca_pem()).await.is_err());

    let authority = Authority::new();
    for _ in 0..2 {
        let server = MailServer::builder().authority(&authority).start().await.unwrap();
        let mut client = Client::dial(server.address(Protocol::Smtps)).await;
        client.begin_tls("localhost", authority.pem()).await.unwrap();
    }
}

// A server that kept them would answer NOOP inside TLS, and a client that injects would pass for a proper one.
#[tokio::test]
async fn bytes_behind_starttls_are_dropped() {
    let server = MailServer::start().await.unwrap();
    for (protocol, command) in
        [(Protocol::Smtp, "STARTTLS"), (Protocol::Imap, "A1 STARTTLS"), (Protocol::Pop3, "STLS")]
    {
        let mut client = Client::connect(&server, protocol).await;
        client.write(format!("{command}\r\nNOOP\r\nA2 NOOP\r\n").as_bytes()).await;
        client.line().await;
        client.begin_tls("localhost", server.ca_pem()).await.unwrap();
        client.write(b"QUIT\r\nA3 LOGOUT\r\n").await;
        let said = client.until(|_| false).await;
        assert!(
            !said.contains("A2 ") && !said.contains("2.0.0 Ok") && !said.contains("-ERR"),
            "{protocol}: {said}"
        );
    }
}

#[tokio::test]
async fn a_failed_handshake_is_a_session_that_is_over() {
    let server = MailServer::start().await.unwrap();
    let mut client = Client::dial(server.address(Protocol::Smtps)).await;
    client.write(b"EHLO host.example\r\n").await;
    client.until(|_| false).await;
    server
        .wait_for(crate::client::SOON, |server| {
            server.sessions().first().is_some_and(|session| !session.open && !session.tls).then_some(())
        })
        .await
        .unwrap();
}
