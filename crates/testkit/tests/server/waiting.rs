//! Waiting, asserting, several servers at once, and the end of a server.

use crate::client::{Client, SOON};
use postroom_testkit::{MailServer, Protocol};
use std::time::Duration;

async fn send(server: &MailServer, protocol: Protocol, subject: &str) {
    let mut client = Client::connect(server, protocol).await;
    client.smtp("EHLO host.example").await;
    client.smtp("MAIL FROM:<a@host.example>").await;
    client.smtp("RCPT TO:<ana@acme.example>").await;
    client.smtp("DATA").await;
    let reply = client.smtp(&format!("Subject: {subject}\r\nMessage-ID: <{subject}@x>\r\n\r\n.")).await;
    assert!(reply.starts_with("250 "), "{reply}");
}

#[tokio::test]
async fn a_waiting_test_is_woken_by_the_mail_it_waits_for() {
    let server = MailServer::builder().account("ana@acme.example", "x").start().await.unwrap();
    let waits = async {
        let two = server.expect_accepted(2, SOON).await;
        let named = server.expect_accepted_by_subject("second", SOON).await;
        let inbox = server.expect_messages("ana@acme.example", "INBOX", 2, SOON).await;
        (two, named, inbox)
    };
    let sends = async {
        send(&server, Protocol::Smtp, "first").await;
        send(&server, Protocol::Smtps, "second").await;
    };
    let ((two, named, inbox), ()) = tokio::join!(waits, sends);
    assert_eq!(two[1], named);
    assert_eq!((named.protocol, named.port), (Protocol::Smtps, server.smtps_port()));
    assert_eq!(inbox[1].subject().as_deref(), Some("second"));
    assert_eq!(server.find_accepted_by_message_id("<first@x>").len(), 1);
}

#[tokio::test]
#[should_panic(
    expected = "2 accepted mails expected within 50ms, but 1 were accepted:\n  session 1 on smtp:"
)]
async fn a_mail_that_does_not_come_is_a_panic_that_lists_the_others() {
    let server = MailServer::start().await.unwrap();
    send(&server, Protocol::Smtp, "only").await;
    server.expect_accepted(2, Duration::from_millis(50)).await;
}

#[tokio::test]
#[should_panic(expected = "a mail with the subject \"missing\" expected within 50ms, but 0 were accepted:")]
async fn a_subject_that_does_not_come_is_a_panic() {
    MailServer::start().await.unwrap().expect_accepted_by_subject("missing", Duration::from_millis(50)).await;
}

#[tokio::test]
#[should_panic(expected = "UID 1, 14 bytes, flags {}, subject \"a\"")]
async fn a_folder_with_too_little_is_a_panic_that_lists_it() {
    let server = MailServer::builder().account("ana@acme.example", "x").start().await.unwrap();
    server.deliver("ana@acme.example", "Subject: a\r\n\r\n");
    server.expect_messages("ana@acme.example", "INBOX", 2, Duration::from_millis(50)).await;
}

#[tokio::test]
#[should_panic(expected = "no folder \"Sent\" in the account \"ana\"; there are [\"A\", \"A/B\", \"INBOX\"]")]
async fn a_folder_that_is_not_there_is_a_panic_that_lists_those_that_are() {
    let server = MailServer::builder().account("ana", "x").start().await.unwrap();
    server.create_folder("ana", "A/B");
    let _ = server.messages("ana", "Sent");
}

#[tokio::test]
async fn servers_know_nothing_of_each_other() {
    let (one, other) = (MailServer::start().await.unwrap(), MailServer::start().await.unwrap());
    send(&one, Protocol::Smtp, "one").await;
    send(&other, Protocol::Smtp, "other").await;
    assert_eq!(one.expect_accepted(1, SOON).await[0].subject().as_deref(), Some("one"));
    assert!(other.find_accepted_by_subject("one").is_none());
}

#[tokio::test]
async fn a_server_that_ends_closes_its_sessions_and_ports() {
    let server = MailServer::start().await.unwrap();
    let address = server.address(Protocol::Imap);
    let mut client = Client::connect(&server, Protocol::Imap).await;
    server.shutdown().await;
    // Blocking, so that the runtime has no moment to end what `shutdown` did not wait for.
    assert!(std::net::TcpStream::connect(address).is_err());
    assert_eq!(client.line().await, "");
}
