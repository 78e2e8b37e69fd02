//! The SMTP side: transactions, refusals, sign-in, and what it must not take for a mail.

use crate::client::Client;
use postroom_testkit::{MailServer, Protocol, Refusal, Relay};

const ANA: &str = "ana@acme.example";
const MAIL: &str = "Subject: Hi\r\nMessage-ID: <1@host.example>\r\n\r\nHello\r\n";

async fn server() -> MailServer {
    MailServer::builder().account(ANA, "secret").start().await.unwrap()
}

/// Up to and with the reply to DATA.
async fn begin(client: &mut Client, recipients: &[&str]) -> String {
    client.smtp("EHLO host.example").await;
    client.smtp("MAIL FROM:<rui@host.example>").await;
    for recipient in recipients {
        client.smtp(&format!("RCPT TO:<{recipient}>")).await;
    }
    client.smtp("DATA").await
}

#[tokio::test]
async fn a_mail_is_recorded_and_lands_in_the_inbox_of_its_recipient() {
    let server = server().await;
    let mut client = Client::connect(&server, Protocol::Smtp).await;
    assert!(begin(&mut client, &["Ana@Acme.example", "x@outside.example"]).await.starts_with("354 "));
    assert_eq!(client.smtp(&format!("{MAIL}.")).await, "250 2.0.0 Ok: queued as 1\r\n");
    let accepted = server.accepted();
    assert_eq!(accepted.len(), 1);
    assert_eq!(accepted[0].bytes, MAIL);
    assert_eq!(accepted[0].mail_from, "rui@host.example");
    assert_eq!(accepted[0].recipients, ["Ana@Acme.example", "x@outside.example"]);
    assert_eq!(accepted[0].outside, ["x@outside.example"]);
    assert_eq!(accepted[0].message_id.as_deref(), Some("<1@host.example>"));
    assert_eq!((accepted[0].session, accepted[0].port, accepted[0].tls), (1, server.smtp_port(), false));
    assert_eq!(server.outside(), accepted);
    let inbox = server.messages(ANA, "INBOX");
    assert_eq!((inbox.len(), inbox[0].uid), (1, 1));
    assert_eq!(inbox[0].bytes, MAIL);
}

#[tokio::test]
async fn commands_in_one_write_are_answered_one_by_one() {
    let server = server().await;
    let mut client = Client::connect(&server, Protocol::Smtp).await;
    assert!(client.smtp("EHLO host.example").await.contains("250-PIPELINING\r\n"));
    client
        .write(b"MAIL FROM:<>\r\nRCPT TO:<ana@acme.example>\r\nRCPT TO:<b@outside.example>\r\nDATA\r\n")
        .await;
    let mut replies = String::new();
    for _ in 0..4 {
        replies.push_str(&client.line().await[..4]);
    }
    assert_eq!(replies, "250 250 250 354 ");
    client.smtp(&format!("{MAIL}.")).await;
    assert_eq!(server.accepted()[0].mail_from, "");
}

// A server that takes the content early would let a client pass that never waited for 354, and with it for the mark.
#[tokio::test]
async fn content_before_354_is_refused_and_the_session_ends() {
    let server = server().await;
    let mut client = Client::connect(&server, Protocol::Smtp).await;
    client.smtp("EHLO host.example").await;
    client.smtp("MAIL FROM:<a@host.example>").await;
    client.smtp("RCPT TO:<ana@acme.example>").await;
    client.write(format!("DATA\r\n{MAIL}.\r\n").as_bytes()).await;
    assert!(client.line().await.starts_with("421 "));
    assert_eq!(client.line().await, "");
    assert!(server.accepted().is_empty());
}

// A laxer end of data would show one mail as two, or hide that a client sends bare newlines.
#[tokio::test]
async fn only_a_dot_between_crlfs_ends_the_data_and_stuffed_dots_are_removed() {
    let content = "a\n.\nb\r.\rc\n.\r\nd\r\n..e\r\n...\r\n.\rf\r\n.\ng\r\n";
    let kept = "a\n.\nb\r.\rc\n.\r\nd\r\n.e\r\n..\r\n\rf\r\n\ng\r\n";
    let server = server().await;
    let mut client = Client::connect(&server, Protocol::Smtp).await;
    begin(&mut client, &[ANA]).await;
    assert!(client.smtp(&format!("{content}.")).await.starts_with("250 "));
    assert!(client.smtp("NOOP").await.starts_with("250 "));
    assert_eq!(server.accepted()[0].bytes, kept);
}

#[tokio::test]
async fn an_empty_mail_is_the_dot_alone() {
    let server = server().await;
    let mut client = Client::connect(&server, Protocol::Smtp).await;
    begin(&mut client, &[ANA]).await;
    assert!(client.smtp(".").await.starts_with("250 "));
    assert_eq!(server.accepted()[0].bytes, "");
}

#[tokio::test]
async fn a_server_with_bare_newlines_takes_a_smuggled_mail_for_a_second_one() {
    let server = MailServer::builder().account(ANA, "secret").danger_bare_newlines().start().await.unwrap();
    let mut client = Client::connect(&server, Protocol::Smtp).await;
    begin(&mut client, &[ANA]).await;
    let smuggled = "MAIL FROM:<evil@host.example>\nRCPT TO:<ana@acme.example>\nDATA\n";
    client.write(format!("one\r\n\n.\n{smuggled}").as_bytes()).await;
    for code in ["250", "250", "250", "354"] {
        assert!(client.line().await.starts_with(code));
    }
    assert!(client.smtp("two\r\n.").await.starts_with("250 "));
    assert_eq!(server.accepted().len(), 2);
}

#[tokio::test]
async fn each_stage_refuses_as_it_was_told_and_only_there() {
    let server = server().await;
    server.refuse(Refusal::greeting(421, "4.3.2 busy").times(1));
    let mut client = Client::dial(server.address(Protocol::Smtp)).await;
    assert_eq!((client.line().await.as_str(), client.line().await.as_str()), ("421 4.3.2 busy\r\n", ""));

    server.refuse(Refusal::sender("Rui@host.example", 450, "4.1.8 not you").times(1));
    server.refuse_recipient("bad@acme.example", 550, "5.1.1 no such user");
    server.refuse(Refusal::data(451, "4.3.0 not now").times(1));
    server.refuse(Refusal::content(554, "5.6.0 not that").times(1));
    let mut client = Client::connect(&server, Protocol::Smtp).await;
    client.smtp("EHLO host.example").await;
    assert_eq!(client.smtp("MAIL FROM:<rui@host.example>").await, "450 4.1.8 not you\r\n");
    assert!(client.smtp("MAIL FROM:<rui@host.example>").await.starts_with("250 "));
    assert_eq!(client.smtp("RCPT TO:<Bad@acme.example>").await, "550 5.1.1 no such user\r\n");
    assert!(client.smtp("DATA").await.starts_with("554 5.5.1 "));
    assert!(client.smtp("RCPT TO:<ana@acme.example>").await.starts_with("250 "));
    assert_eq!(client.smtp("DATA").await, "451 4.3.0 not now\r\n");
    assert!(client.smtp("DATA").await.starts_with("354 "));
    assert_eq!(client.smtp(&format!("{MAIL}.")).await, "554 5.6.0 not that\r\n");
    assert!(server.accepted().is_empty() && server.messages(ANA, "INBOX").is_empty());
    server.refuse_nothing();
    assert!(begin(&mut client, &["bad@acme.example"]).await.starts_with("354 "));
}

#[tokio::test]
async fn relaying_is_for_whom_it_was_configured() {
    for (relay, before, after) in
        [(Relay::Anyone, "250", "250"), (Relay::SignedIn, "550", "250"), (Relay::Nobody, "550", "550")]
    {
        let server = MailServer::builder()
            .account(ANA, "secret")
            .relay(relay)
            .danger_plaintext_auth()
            .start()
            .await
            .unwrap();
        let mut client = Client::connect(&server, Protocol::Smtp).await;
        client.smtp("EHLO host.example").await;
        for (code, sign_in) in [(before, true), (after, false)] {
            client.smtp("MAIL FROM:<rui@host.example>").await;
            assert!(client.smtp("RCPT TO:<x@outside.example>").await.starts_with(code), "{relay:?}");
            assert!(client.smtp("RCPT TO:<ana@acme.example>").await.starts_with("250 "), "{relay:?}");
            client.smtp("RSET").await;
            if sign_in {
                assert!(client.smtp("AUTH PLAIN AGFuYUBhY21lLmV4YW1wbGUAc2VjcmV0").await.starts_with("235 "));
            }
        }
    }
}

#[tokio::test]
async fn passwords_are_neither_asked_for_nor_taken_before_tls() {
    let server = MailServer::builder().account(ANA, "secret").require_sign_in().start().await.unwrap();
    let mut client = Client::connect(&server, Protocol::Smtp).await;
    assert!(!client.smtp("EHLO host.example").await.contains("AUTH"));
    assert!(client.smtp("AUTH PLAIN AGFuYUBhY21lLmV4YW1wbGUAc2VjcmV0").await.starts_with("538 5.7.11 "));
    assert!(client.smtp("MAIL FROM:<a@host.example>").await.starts_with("530 "));
    assert!(client.smtp("STARTTLS").await.starts_with("220 "));
    client.begin_tls("localhost", server.ca_pem()).await.unwrap();
    assert!(client.smtp("MAIL FROM:<a@host.example>").await.starts_with("503 "), "EHLO comes again");
    let offer = client.smtp("EHLO host.example").await;
    assert!(offer.contains("AUTH PLAIN LOGIN") && !offer.contains("STARTTLS"), "{offer}");
    assert!(client.smtp("AUTH PLAIN AGFuYUBhY21lLmV4YW1wbGUAd3Jvbmc=").await.starts_with("535 5.7.8 "));
    assert!(client.smtp("AUTH LOGIN").await.starts_with("334 VXNlcm5hbWU6"));
    assert!(client.smtp("YW5hQGFjbWUuZXhhbXBsZQ==").await.starts_with("334 UGFzc3dvcmQ6"));
    assert!(client.smtp("c2VjcmV0").await.starts_with("235 "));
    assert!(client.smtp("AUTH PLAIN").await.starts_with("503 "), "once is enough");
    begin(&mut client, &[ANA]).await;
    client.smtp(&format!("{MAIL}.")).await;
    let accepted = server.accepted();
    assert_eq!((accepted[0].login.as_deref(), accepted[0].tls), (Some(ANA), true));
    assert_eq!(server.sessions()[0].refused_sign_ins, 1);
}

#[tokio::test]
async fn sign_in_can_be_cancelled_and_needs_base64() {
    let server = MailServer::builder().account(ANA, "secret").danger_plaintext_auth().start().await.unwrap();
    let mut client = Client::connect(&server, Protocol::Smtp).await;
    client.smtp("EHLO host.example").await;
    assert_eq!(client.smtp("AUTH PLAIN").await, "334 \r\n");
    assert!(client.smtp("*").await.starts_with("501 "));
    assert!(client.smtp("AUTH LOGIN !!!").await.starts_with("501 "));
    assert!(client.smtp("AUTH CRAM-MD5").await.starts_with("504 "));
    server.refuse(Refusal::sign_in(454, "4.7.0 later").times(1));
    assert_eq!(client.smtp("AUTH PLAIN AGFuYUBhY21lLmV4YW1wbGUAc2VjcmV0").await, "454 4.7.0 later\r\n");
    assert!(client.smtp("AUTH PLAIN AGFuYUBhY21lLmV4YW1wbGUAc2VjcmV0").await.starts_with("235 "));
}

#[tokio::test]
async fn a_mail_over_the_size_limit_is_refused_when_announced_and_when_sent() {
    let server = MailServer::builder().account(ANA, "secret").size_limit(100).start().await.unwrap();
    let mut client = Client::connect(&server, Protocol::Smtp).await;
    assert!(client.smtp("EHLO host.example").await.contains("250-SIZE 100\r\n"));
    assert!(client.smtp("MAIL FROM:<a@host.example> SIZE=101").await.starts_with("552 5.3.4 "));
    begin(&mut client, &[ANA]).await;
    assert!(client.smtp(&format!("{}\r\n.", "x".repeat(99))).await.starts_with("552 5.3.4 "));
    begin(&mut client, &[ANA]).await;
    assert!(client.smtp(&format!("{}\r\n.", "x".repeat(98))).await.starts_with("250 "));
}

#[tokio::test]
async fn what_is_withheld_is_neither_offered_nor_served() {
    let mut builder = MailServer::builder().account(ANA, "secret").danger_plaintext_auth();
    for capability in ["PIPELINING", "8BITMIME", "SIZE", "STARTTLS", "PLAIN"] {
        builder = builder.without(Protocol::Smtp, capability);
    }
    let server = builder.start().await.unwrap();
    let mut client = Client::connect(&server, Protocol::Smtp).await;
    assert_eq!(
        client.smtp("EHLO host.example").await,
        "250-localhost\r\n250-ENHANCEDSTATUSCODES\r\n250 AUTH LOGIN\r\n"
    );
    for (command, code) in [
        ("STARTTLS", "502 "),
        ("AUTH PLAIN", "504 "),
        ("MAIL FROM:<a@host.example> BODY=8BITMIME", "555 "),
        ("MAIL FROM:<a@host.example> SIZE=5", "555 "),
        ("MAIL FROM:<a@host.example> SMTPUTF8", "555 "),
        ("MAIL FROM:<ã@host.example>", "553 5.6.7 "),
    ] {
        assert!(client.smtp(command).await.starts_with(code), "{command}");
    }
    begin(&mut client, &[ANA]).await;
    assert!(client.smtp("São Paulo\r\n.").await.starts_with("554 5.6.1 "));
    client.write(b"NOOP\r\nNOOP\r\n").await;
    assert!(client.line().await.starts_with("554 5.5.0 "));
    assert_eq!(client.line().await, "");
}

#[tokio::test]
async fn nonsense_is_answered_and_bare_newlines_end_the_session() {
    let server = server().await;
    let mut client = Client::connect(&server, Protocol::Smtp).await;
    for (command, code) in [
        ("MAIL FROM:<a@host.example>", "503 "),
        ("RCPT TO:<ana@acme.example>", "503 "),
        ("DATA", "554 "),
        ("FROB", "500 "),
        ("EHLO", "501 "),
        ("EHLO host.example", "250-"),
        ("MAIL FROM:a@host.example", "501 "),
        ("MAIL FROM:<a@host.example> FROB=1", "555 "),
        ("MAIL FROM:<a@host.example>", "250 "),
        ("MAIL FROM:<a@host.example>", "503 "),
        ("RCPT TO:<ana>", "501 "),
        ("BDAT 5 LAST", "502 "),
        ("VRFY ana", "252 "),
        ("RSET", "250 "),
        ("RCPT TO:<ana@acme.example>", "503 "),
    ] {
        assert!(client.smtp(command).await.starts_with(code), "{command}");
    }
    assert!(client.smtp("NOOP a\nRCPT TO:<b@c.example>").await.starts_with("421 4.5.2 "));
    assert_eq!(client.line().await, "");
}
