//! The SMTP side fails where it was told to, and nowhere else.

use crate::client::Client;
use postroom_testkit::{Fault, MailServer, Protocol, Step};
use std::time::Duration;
use tokio::time::timeout;

const CREDENTIALS: &str = "AHJ1aUBob3N0LmV4YW1wbGUAc2VjcmV0"; // \0rui@host.example\0secret

async fn server() -> MailServer {
    let builder = MailServer::builder().account("rui@host.example", "secret");
    builder.danger_plaintext_auth().start().await.unwrap()
}

/// A whole session without STARTTLS: the code of each reply, up to the end of the connection.
async fn codes(server: &MailServer) -> Vec<String> {
    let mut client = Client::dial(server.address(Protocol::Smtp)).await;
    let mut codes = vec![client.line().await];
    let auth = format!("AUTH PLAIN {CREDENTIALS}");
    let commands = [
        "EHLO host.example",
        &auth,
        "MAIL FROM:<rui@host.example>",
        "RCPT TO:<ana@acme.example>",
        "DATA",
        "Subject: x\r\n\r\nx\r\n.",
        "NOOP",
    ];
    for command in commands {
        if codes.last().is_some_and(String::is_empty) {
            break;
        }
        codes.push(client.smtp(command).await);
    }
    codes.iter().map(|reply| reply.chars().take(3).collect()).collect()
}

const WHOLE: [&str; 8] = ["220", "250", "235", "250", "250", "354", "250", "250"];
/// Where the reply of a step is in it.
const STEPS: [(Step, usize); 7] = [
    (Step::Greeting, 0),
    (Step::Ehlo, 1),
    (Step::Auth, 2),
    (Step::Mail, 3),
    (Step::Rcpt, 4),
    (Step::Data, 5),
    (Step::Dot, 6),
];

#[tokio::test]
async fn a_connection_ends_before_or_after_the_reply_of_each_step_and_the_next_one_is_whole() {
    for (step, at) in STEPS {
        let server = server().await;
        server.fault(Fault::close(step).times(1));
        assert_eq!(codes(&server).await, [&WHOLE[..at], &[""]].concat(), "{step:?}");
        assert!(server.accepted().is_empty(), "{step:?}: it had no effect");
        server.fault(Fault::close_after(step).times(1));
        assert_eq!(codes(&server).await, [&WHOLE[..=at], &[""]].concat(), "{step:?}");
        let kept = usize::from(step == Step::Dot);
        assert_eq!(server.accepted_count(), kept, "{step:?}");
        assert_eq!(codes(&server).await, WHOLE, "{step:?}");
        assert_eq!(server.accepted_count(), kept + 1);
    }
}

#[tokio::test]
async fn starttls_can_be_broken_before_and_after_its_reply() {
    for (fault, reply) in [(Fault::close(Step::StartTls), ""), (Fault::close_after(Step::StartTls), "220")] {
        let server = server().await;
        server.fault(fault.times(1));
        let mut client = Client::connect(&server, Protocol::Smtp).await;
        client.smtp("EHLO host.example").await;
        assert!(client.smtp("STARTTLS").await.starts_with(reply));
        assert!(client.begin_tls("localhost", server.ca_pem()).await.is_err());
    }
}

#[tokio::test]
async fn a_silent_server_keeps_the_connection_and_says_nothing() {
    for (fault, said) in [(Fault::stall(Step::Ehlo), ""), (Fault::stall_after(Step::Ehlo), "250")] {
        let server = server().await;
        server.fault(fault);
        let mut client = Client::connect(&server, Protocol::Smtp).await;
        client.write(b"EHLO host.example\r\n").await;
        if !said.is_empty() {
            assert!(client.until(|line| line.starts_with("250 ")).await.starts_with(said));
        }
        client.write(b"NOOP\r\n").await;
        let heard = timeout(Duration::from_millis(200), client.line()).await;
        assert!(heard.is_err(), "{heard:?}");
        assert!(server.sessions()[0].open);
    }
}

#[tokio::test]
async fn a_lost_reply_is_that_of_a_mail_that_was_recorded() {
    let server = server().await;
    server.fault(Fault::lost_reply());
    assert_eq!(codes(&server).await, [&WHOLE[..6], &[""]].concat());
    assert_eq!(server.accepted_count(), 1);
    server.fault_nothing();
    assert_eq!(codes(&server).await, WHOLE);
}

#[tokio::test]
async fn a_reply_drips_byte_by_byte() {
    let server = server().await;
    let pause = Duration::from_millis(5);
    server.fault(Fault::drip(Step::Greeting, pause));
    let begun = tokio::time::Instant::now();
    let mut client = Client::dial(server.address(Protocol::Smtp)).await;
    let greeting = client.line().await;
    assert!(greeting.starts_with("220 "));
    // The pause behind the last byte is no part of it.
    let pauses = u32::try_from(greeting.len() - 1).unwrap();
    assert!(begun.elapsed() >= pause * pauses, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn connections_beyond_the_limit_are_greeted_with_421_until_one_ends() {
    let server = server().await;
    server.fault(Fault::connections(1));
    let first = Client::connect(&server, Protocol::Smtp).await;
    assert_eq!(codes(&server).await, ["421", ""]);
    drop(first);
    let ended = |server: &MailServer| server.sessions().iter().all(|session| !session.open).then_some(());
    server.wait_for(crate::client::SOON, ended).await.unwrap();
    assert_eq!(codes(&server).await, WHOLE);
}

/// The codes of a whole session with a fault at a step.
async fn with(fault: Fault) -> (Vec<String>, usize) {
    let server = server().await;
    server.fault(fault.times(1));
    let codes = codes(&server).await;
    (codes, server.accepted_count())
}

#[tokio::test]
async fn a_split_reply_is_the_same_reply() {
    for (step, _) in STEPS {
        assert_eq!(
            with(Fault::split(step, Duration::from_millis(5))).await,
            (WHOLE.map(Into::into).into(), 1)
        );
    }
}

#[tokio::test]
async fn another_reply_takes_the_place_of_the_steps_own_which_has_had_its_effect() {
    for (step, at) in STEPS {
        let mut expected: Vec<String> = WHOLE.map(Into::into).into();
        expected[at] = "299".to_owned();
        assert_eq!(with(Fault::instead(step, 299, "something else")).await, (expected, 1), "{step:?}");
    }
}

/// The lines that come back for commands in one write, the one of the `fault`'s step being MAIL.
async fn pipelined(fault: Fault) -> Vec<String> {
    let server = server().await;
    let mut client = Client::connect(&server, Protocol::Smtp).await;
    client.smtp("EHLO host.example").await;
    server.fault(fault.times(1));
    client.write(b"MAIL FROM:<rui@host.example>\r\nRCPT TO:<rui@host.example>\r\nDATA\r\n").await;
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line: &String| !line.starts_with("354")) {
        lines.push(client.line().await.chars().take(9).collect());
    }
    client.write(b".\r\n").await;
    lines.push(client.line().await.chars().take(3).collect());
    lines
}

#[tokio::test]
async fn replies_come_twice_or_in_the_wrong_order_when_commands_come_in_one_write() {
    let whole = ["250 2.1.0", "250 2.1.5", "354 End d", "250"];
    assert_eq!(pipelined(Fault::split(Step::Mail, Duration::ZERO)).await, whole);
    let swapped = ["250 2.1.5", "250 2.1.0", "354 End d", "250"];
    assert_eq!(pipelined(Fault::late(Step::Mail)).await, swapped);
    let behind = ["250 2.1.5", "250 2.1.5", "354 End d", "250"];
    assert_eq!(pipelined(Fault::twice(Step::Rcpt)).await[1..], behind[..]);
}
