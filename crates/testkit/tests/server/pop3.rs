//! The POP3 side: the maildrop and its lock, deletions at QUIT, sign-in.

use crate::client::{Client, SOON};
use postroom_testkit::{MailServer, Protocol};

const ANA: &str = "ana@acme.example";

async fn server() -> MailServer {
    let server = MailServer::builder().account(ANA, "secret").start().await.unwrap();
    server.deliver(ANA, "Subject: one\r\n\r\n.dot\r\ntwo\r\n");
    server.deliver(ANA, "Subject: two\r\n\r\nx");
    server
}

async fn sign_in(server: &MailServer) -> Client {
    let mut client = Client::connect(server, Protocol::Pop3s).await;
    client.pop3(&format!("USER {ANA}")).await;
    assert_eq!(client.pop3("PASS secret").await, "+OK signed in\r\n");
    client
}

#[tokio::test]
async fn the_maildrop_is_listed_read_and_stuffed() {
    let server = server().await;
    let mut client = sign_in(&server).await;
    assert_eq!(client.pop3("STAT").await, "+OK 2 44\r\n");
    assert_eq!(client.pop3_lines("LIST").await, "+OK 2 messages\r\n1 27\r\n2 17\r\n.\r\n");
    assert_eq!(client.pop3("LIST 2").await, "+OK 2 17\r\n");
    assert_eq!(
        client.pop3_lines("UIDL").await,
        "+OK 2 messages\r\n1 0000000100000001\r\n2 0000000100000002\r\n.\r\n"
    );
    assert_eq!(
        client.pop3_lines("RETR 1").await,
        "+OK 27 octets\r\nSubject: one\r\n\r\n..dot\r\ntwo\r\n.\r\n"
    );
    assert_eq!(client.pop3_lines("RETR 2").await, "+OK 17 octets\r\nSubject: two\r\n\r\nx\r\n.\r\n");
    assert_eq!(client.pop3_lines("TOP 1 1").await, "+OK top\r\nSubject: one\r\n\r\n..dot\r\n.\r\n");
    for command in ["RETR 3", "RETR 0", "RETR x", "TOP 1", "FROB", "USER x", "STLS"] {
        assert!(client.pop3(command).await.starts_with("-ERR"), "{command}");
    }
}

// Deleting at once, or at a lost connection, would hide a client that counts on deletions it never committed.
#[tokio::test]
async fn deletions_are_kept_by_quit_and_by_nothing_else() {
    let server = server().await;
    let mut client = sign_in(&server).await;
    assert!(client.pop3("DELE 1").await.starts_with("+OK"));
    assert!(client.pop3("RETR 1").await.starts_with("-ERR"));
    assert_eq!(client.pop3("STAT").await, "+OK 1 17\r\n");
    drop(client);
    server
        .wait_for(SOON, |server| server.sessions().iter().all(|session| !session.open).then_some(()))
        .await
        .unwrap();
    assert_eq!(server.messages(ANA, "INBOX").len(), 2);

    let mut client = sign_in(&server).await;
    client.pop3("DELE 1").await;
    client.pop3("RSET").await;
    client.pop3("DELE 2").await;
    assert_eq!(client.pop3("QUIT").await, "+OK bye, 1 deleted\r\n");
    assert_eq!(client.line().await, "");
    let left: Vec<_> = server.messages(ANA, "INBOX").iter().map(|kept| kept.uid).collect();
    assert_eq!(left, [1]);
}

#[tokio::test]
async fn a_deletion_that_another_client_was_first_with_is_told_at_quit() {
    let server = server().await;
    let mut client = sign_in(&server).await;
    client.pop3("DELE 1").await;
    server.expunge(ANA, "INBOX", 1);
    assert!(client.pop3("QUIT").await.starts_with("-ERR some deleted messages not removed"));
}

#[tokio::test]
async fn a_second_session_finds_the_maildrop_in_use_until_the_first_is_gone() {
    let server = server().await;
    let first = sign_in(&server).await;
    let mut second = Client::connect(&server, Protocol::Pop3s).await;
    second.pop3(&format!("USER {ANA}")).await;
    assert!(second.pop3("PASS secret").await.starts_with("-ERR [IN-USE]"));
    drop(first);
    server.wait_for(SOON, |server| (!server.sessions()[0].open).then_some(())).await.unwrap();
    sign_in(&server).await;
}

#[tokio::test]
async fn sign_in_waits_for_tls_and_takes_plain() {
    let server = server().await;
    let mut client = Client::connect(&server, Protocol::Pop3).await;
    let offer = client.pop3_lines("CAPA").await;
    assert!(offer.contains("STLS\r\n") && !offer.contains("USER") && !offer.contains("SASL"), "{offer}");
    assert!(client.pop3(&format!("USER {ANA}")).await.starts_with("-ERR [AUTH]"));
    assert!(client.pop3("AUTH PLAIN AGFuYUBhY21lLmV4YW1wbGUAc2VjcmV0").await.starts_with("-ERR [AUTH]"));
    assert!(client.pop3("STLS").await.starts_with("+OK"));
    client.begin_tls("127.0.0.1", server.ca_pem()).await.unwrap();
    let offer = client.pop3_lines("CAPA").await;
    assert!(!offer.contains("STLS") && offer.contains("USER\r\nSASL PLAIN\r\n"), "{offer}");
    client.pop3(&format!("USER {ANA}")).await;
    assert!(client.pop3("PASS wrong").await.starts_with("-ERR [AUTH]"));
    assert!(client.pop3("PASS secret").await.starts_with("-ERR"), "USER comes first");
    assert_eq!(client.pop3("AUTH PLAIN").await, "+ \r\n");
    assert_eq!(client.pop3("AGFuYUBhY21lLmV4YW1wbGUAc2VjcmV0").await, "+OK signed in\r\n");
    assert_eq!(server.sessions()[0].refused_sign_ins, 1);
}

#[tokio::test]
async fn what_is_withheld_is_neither_offered_nor_served() {
    let mut builder = MailServer::builder().account(ANA, "secret").danger_plaintext_auth();
    for capability in ["UIDL", "TOP", "SASL"] {
        builder = builder.without(Protocol::Pop3, capability);
    }
    let server = builder.start().await.unwrap();
    server.deliver(ANA, "x");
    let mut client = Client::connect(&server, Protocol::Pop3).await;
    let offer = client.pop3_lines("CAPA").await;
    assert!(!offer.contains("UIDL") && !offer.contains("TOP") && !offer.contains("SASL"), "{offer}");
    assert!(client.pop3("AUTH PLAIN").await.starts_with("-ERR"));
    client.pop3(&format!("USER {ANA}")).await;
    assert!(client.pop3("PASS secret").await.starts_with("+OK"));
    for command in ["UIDL", "TOP 1 1"] {
        assert!(client.pop3(command).await.starts_with("-ERR"), "{command}");
    }
}
