//! A mail of two pieces of 256 KiB and some bytes, in dialogues that are made here, cut around every boundary (what announces a piece,
//! its first and last bytes, what ends it) and at strides between. None of it is ever a mail before its last byte was said.

use postroom_transport::ErrorKind;
use tokio::net::TcpListener;

use crate::replay::{Act, Answer, Dialogue, Grain, Step, Then, play};

pub(crate) const PIECE: usize = 256 * 1024;
const LENGTH: usize = 2 * PIECE + 700;

/// Between the boundaries, not a divisor of anything.
const STRIDE: usize = 100_003;

/// Lines of different numbers, so that no piece passes for another one.
pub(crate) fn lines(length: usize) -> Vec<u8> {
    (0..).flat_map(|line: u32| format!("{line:010}\r\n").into_bytes()).take(length).collect()
}

fn mail() -> Vec<u8> {
    [&lines(LENGTH - 2)[..], b"\r\n"].concat()
}

fn say(text: impl Into<Vec<u8>>) -> Step {
    Step::Say(text.into())
}

fn hear(line: &str) -> Step {
    Step::HearLine(line.to_owned())
}

/// The dialogue behind a sign-in, in which all mails are listed and the one with this key is fetched.
fn dialogue(protocol: &str, key: &'static [&'static str], own: Vec<Step>) -> Dialogue {
    let mut dialogue = Dialogue::read(&format!("{protocol}/signed_in"), &[]);
    dialogue.prefix = dialogue.steps.len();
    dialogue.steps.extend(own);
    if protocol == "imap" {
        dialogue.acts.push(Act::Select(None, postroom_transport::Access::ReadOnly));
    }
    dialogue.acts.extend([Act::List("", 100), Act::Fetch(key, 1 << 20)]);
    dialogue
}

fn imap(pieces: &[(String, std::ops::Range<usize>)]) -> Dialogue {
    let ok = || say("<tag> OK\r\n");
    let mut own = vec![
        hear("<tag> NOOP"),
        ok(),
        hear("<tag> FETCH 1:3 (UID RFC822.SIZE INTERNALDATE)"),
        say("* 1 FETCH (UID 8 RFC822.SIZE 4)\r\n* 2 FETCH (UID 9 RFC822.SIZE 4)\r\n"),
        say(format!("* 3 FETCH (UID 10 RFC822.SIZE {LENGTH})\r\n")),
        ok(),
    ];
    for (asked, piece) in pieces {
        let place =
            if asked.contains("SIZE") { format!("RFC822.SIZE {LENGTH} BODY[]") } else { "BODY[]".to_owned() };
        own.extend([
            hear(&format!("<tag> UID FETCH 10 ({asked}.262144>)")),
            say(format!("* 3 FETCH (UID 10 {place}<{}> {{{}}}\r\n", piece.start, piece.len())),
            say(&mail()[piece.clone()]),
            say(")\r\n"),
            ok(),
        ]);
    }
    dialogue("imap", &["10"], own)
}

/// From a server that knows pieces.
fn in_pieces() -> Dialogue {
    let first = ("RFC822.SIZE BODY.PEEK[]<0".to_owned(), 0..PIECE);
    let second = (format!("BODY.PEEK[]<{PIECE}"), PIECE..2 * PIECE);
    imap(&[first, second, (format!("BODY.PEEK[]<{}", 2 * PIECE), 2 * PIECE..LENGTH)])
}

/// From one that does not.
fn at_once() -> Dialogue {
    imap(&[("RFC822.SIZE BODY.PEEK[]<0".to_owned(), 0..LENGTH)])
}

fn pop3() -> Dialogue {
    let own = vec![
        hear("LIST"),
        say(format!("+OK\r\n1 {LENGTH}\r\n.\r\n")),
        hear("UIDL"),
        say("+OK\r\n1 a\r\n.\r\n"),
        hear("RETR 1"),
        say("+OK\r\n"),
        say(mail()),
        say(".\r\n"),
    ];
    dialogue("pop3", &["a"], own)
}

/// After how many bytes of the server's own the dialogue is cut.
fn cuts(dialogue: &Dialogue) -> Vec<usize> {
    let (mut cuts, mut said) = (Vec::new(), 0);
    for step in &dialogue.steps[dialogue.prefix..] {
        let Step::Say(bytes) = step else { continue };
        let is_near =
            |at: usize| [0, PIECE, 2 * PIECE, bytes.len()].iter().any(|edge| at.abs_diff(*edge) <= 3);
        let stride = if bytes.len() < 100 { 5 } else { STRIDE };
        let within = (0..bytes.len()).filter(|at| is_near(*at) || at % stride == 0);
        cuts.extend(within.map(|at| said + at));
        said += bytes.len();
    }
    cuts
}

async fn check(then: Then, kind: ErrorKind) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for dialogue in [in_pieces(), at_once(), pop3()] {
        let name = &dialogue.name;
        let key = if name.starts_with("imap") { "uid:10" } else { "uidl:a" };
        let whole = Answer::Mails(vec![(key.to_owned(), Ok(mail()))], None);
        let (answers, other) = play(&listener, &dialogue, &dialogue.steps, Then::Close, Grain::Whole).await;
        assert_eq!(other, None, "{name}");
        let (fetch, before) = (answers.len() - 2, answers[..answers.len() - 2].to_vec());
        assert!(answers[fetch] == whole, "{name}: not the mail");
        for at in cuts(&dialogue) {
            let (answers, _) = play(&listener, &dialogue, &dialogue.cut(at), then, Grain::Whole).await;
            let failed = Answer::Mails(Vec::new(), Some(kind));
            let is_listed = answers[..fetch] == before && answers[fetch] == failed;
            let is_refused = answers[fetch - 1] == Answer::Failed(kind);
            assert!(is_listed || is_refused, "{name}: cut at byte {at}, then {then:?}: {answers:?}");
        }
    }
}

// Seen to fail: with a piece that is taken for the last one when the connection ends in it, and with a dot that needs no line end.
#[tokio::test]
async fn a_large_mail_that_is_cut_is_none() {
    check(Then::Close, ErrorKind::Disconnected).await;
}

#[tokio::test(start_paused = true)]
async fn a_large_mail_behind_which_there_is_silence_is_none() {
    check(Then::BeSilent, ErrorKind::TimedOut).await;
}
