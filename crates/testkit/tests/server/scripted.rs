//! The scripted peer: a client that keeps to its dialogue, and all the ways in which one does not.

use crate::client::{Client, SOON};
use postroom_testkit::script::{Played, ScriptedServer};
use std::time::Duration;

async fn start(script: &str) -> (ScriptedServer, Client) {
    let server = ScriptedServer::start(script).await.unwrap();
    let client = Client::dial(server.address()).await;
    (server, client)
}

#[tokio::test]
async fn a_whole_smtp_dialogue_is_played_and_its_data_recorded() {
    let (server, mut client) = start(
        "S: 220 hi\nC: EHLO host.example\nS: 250-hi\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\nTLS\n\
         C~ MAIL FROM:\nS: 354 go\nC-DATA\nS<< 250 \\x6fk\\r\\n\nC: QUIT\nS: 221 bye\nCLOSE\n",
    )
    .await;
    client.line().await;
    client.smtp("EHLO host.example").await;
    client.smtp("STARTTLS").await;
    client.begin_tls("localhost", server.ca_pem()).await.unwrap();
    client.smtp("MAIL FROM:<a@b.example> SIZE=3").await;
    assert_eq!(client.smtp("a\r\n..b\nc\r\n.").await, "250 ok\r\n");
    assert_eq!(client.smtp("QUIT").await, "221 bye\r\n");
    assert_eq!(client.line().await, "");
    let played = server.expect_played(SOON).await;
    assert_eq!(played.lines, ["EHLO host.example", "STARTTLS", "MAIL FROM:<a@b.example> SIZE=3", "QUIT"]);
    assert_eq!(played.swallowed, ["a\r\n..b\nc\r\n"]);
}

#[tokio::test]
async fn a_tag_stands_for_any_word_and_literals_are_swallowed() {
    let (server, mut client) =
        start("C: <tag> APPEND INBOX {3}\nS: + go\nC-BYTES 3\nC:\nS<< <tag> OK\\r\\n\nC: <tag> X\nS: <tag> OK <tag>\nCLOSE").await;
    client.write(b"x7 APPEND INBOX {3}\r\n").await;
    client.line().await;
    client.write(b"a\r\n\r\n").await;
    assert_eq!(client.line().await, "x7 OK\r\n");
    client.write(b"x8 X\r\n").await;
    assert_eq!(client.line().await, "x8 OK x8\r\n");
    assert_eq!(server.expect_played(SOON).await.swallowed, ["a\r\n"]);
}

#[tokio::test]
async fn a_stalled_dialogue_is_played_when_it_stalls_and_the_client_is_left_hanging() {
    let (server, mut client) = start("S: 220 hi\nC: NOOP\nSTALL").await;
    client.line().await;
    client.write(b"NOOP\r\nNOOP\r\n").await;
    assert!(tokio::time::timeout(Duration::from_millis(50), client.line()).await.is_err());
    assert_eq!(server.expect_played(SOON).await.lines, ["NOOP"]);
    assert_eq!(client.line().await, "");
}

#[tokio::test]
async fn a_client_may_leave_while_bytes_are_repeated() {
    let (server, mut client) = start("S-REPEAT 100000000 aaaaaaaaaaaaaaaa\nC: never").await;
    client.write(b"x").await;
    drop(client);
    server.expect_played(SOON).await;
}

async fn leaves(script: &str, says: &[u8]) -> (usize, String, String) {
    let (server, mut client) = start(script).await;
    client.write(says).await;
    drop(client);
    let difference = server.finish(SOON).await.unwrap_err();
    (difference.line, difference.expected, difference.got)
}

// Without each of these a protocol test would pass with a client that says something else, or more, or nothing.
#[tokio::test]
async fn a_client_that_says_anything_else_is_told_apart() {
    let difference = |line, expected: &str, got: &str| (line, expected.to_owned(), got.to_owned());
    let closed = "the end of the connection";
    assert_eq!(leaves("\nC: QUIT\nCLOSE", b"quit\r\n").await, difference(2, "C: QUIT", "\"quit\""));
    assert_eq!(leaves("C: QUIT", b"QUIT \r\n").await, difference(1, "C: QUIT", "\"QUIT \""));
    assert_eq!(leaves("C~ MAIL", b"MAI\r\n").await, difference(1, "C~ MAIL", "\"MAI\""));
    assert_eq!(leaves("C: A", b"A\n\r\n").await, difference(1, "C: A", "\"A\\n\""));
    assert_eq!(leaves("C: <tag> A", b"A\r\n").await, difference(1, "C: <tag> A", "\"A\""));
    assert_eq!(leaves("C: QUIT", b"").await, difference(1, "C: QUIT", closed));
    assert_eq!(leaves("C-DATA", b"a\r\n.").await, difference(1, "C-DATA", closed));
    assert_eq!(leaves("C-BYTES 3", b"ab").await, difference(1, "C-BYTES 3", closed));
    let end = "the client closes the connection";
    assert_eq!(leaves("C: A\n# end\n", b"A\r\nB\r\n").await, difference(2, end, "\"B\""));
    assert_eq!(leaves("C: A\n", b"A\r\nB").await, difference(1, end, "\"B\" without a CRLF"));
    assert!(leaves("TLS", b"EHLO x\r\n").await.2.contains("corrupt"));
}

#[tokio::test]
async fn a_dialogue_that_waits_too_long_says_for_what() {
    let (server, mut client) = start("C: A\nC: B").await;
    client.write(b"A\r\n").await;
    let difference = server.finish(Duration::from_millis(200)).await.unwrap_err();
    let before = Played::default();
    assert_eq!((difference.line, difference.expected.as_str()), (2, "C: B"));
    assert_ne!(difference.before, before);
    assert_eq!(
        difference.to_string(),
        "the dialogue was left at line 2\n  expected: C: B\n  got:      nothing within 200ms\n  the client had said:\n    A"
    );
    let nobody = ScriptedServer::start("# nothing\nC: A").await.unwrap();
    let difference = nobody.finish(Duration::from_millis(50)).await.unwrap_err();
    assert_eq!((difference.line, difference.expected.as_str()), (2, "a client that connects"));
}

#[tokio::test]
async fn a_second_client_is_refused_and_a_cut_is_no_farewell() {
    let (server, mut client) = start("TLS\nS: hi\nC: A\nCUT").await;
    client.begin_tls("localhost", server.ca_pem()).await.unwrap();
    assert_eq!(client.line().await, "hi\r\n");
    assert!(tokio::net::TcpStream::connect(server.address()).await.is_err());
    client.write(b"A\r\n").await;
    server.expect_played(SOON).await;
}
