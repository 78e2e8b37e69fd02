//! The dialogues as a corpus: the server's bytes are changed at random, by seeds that are always the same, and the client has
//! to end, by an answer or an error, without a panic, a hang or an endless stack. Besides, dialogues that arrive byte by byte.

use tokio::net::TcpListener;

use crate::replay::{Answer, Grain, Step, Then, play};
use crate::truncation::dialogues;

/// How many times each dialogue is changed.
const ROUNDS: u64 = 40;

/// What is put in: what other servers say, out of place, and what can't be said.
const WORDS: [&[u8]; 22] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\xff\xfe",
    b"\"",
    b"\\",
    b"(((((((((((((((((((((((((((((((((",
    b")",
    b"{4294967295}\r\n",
    b"{18446744073709551616}\r\n",
    b"~{3}\r\n",
    b"{0}\r\n",
    b"<4294967296>",
    b"NIL",
    b"* BYE [UNAVAILABLE] leaving\r\n",
    b"* 4294967295 EXISTS\r\n",
    b"* 1 EXPUNGE\r\n",
    b"+ \r\n",
    b"<tag> OK\r\n",
    b"-ERR [SYS/TEMP] no\r\n",
    b"\r\n.\r\n",
];

/// A generator of numbers that is the same everywhere (xorshift64*).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % limit.max(1)
    }
}

/// Changes what is said in one to four places.
fn changed(steps: &[Step], dice: &mut Dice) -> Vec<Step> {
    let mut steps = steps.to_vec();
    if steps.is_empty() {
        return steps;
    }
    for _ in 0..=dice.below(3) {
        let at = dice.below(steps.len());
        let Step::Say(said) = &mut steps[at] else { continue };
        let from = dice.below(said.len() + 1);
        let to = from + dice.below(said.len() - from + 1).min(20);
        match dice.below(5) {
            0 => _ = said.drain(from..to),
            1 => _ = said.splice(to..to, said[from..to].to_vec()),
            2 => said[from..to].iter_mut().for_each(|byte| *byte ^= 1 << dice.below(8)),
            3 => said[from..to].make_ascii_lowercase(),
            _ => _ = said.splice(from..from, WORDS[dice.below(WORDS.len())].iter().copied()),
        }
    }
    steps
}

async fn survives(protocol: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut seed, mut failed, mut told) = (0, 0, 0);
    for dialogue in dialogues(protocol) {
        for _ in 0..ROUNDS {
            seed += 1;
            let steps = changed(&dialogue.steps, &mut Dice(0x9E37_79B9_7F4A_7C15 ^ (seed << 17)));
            let then = if seed % 4 == 0 { Then::BeSilent } else { Then::Close };
            let (answers, _) = play(&listener, &dialogue, &steps, then, Grain::Whole).await;
            let is_failed =
                answers.iter().any(|answer| matches!(answer, Answer::Failed(_) | Answer::Mails(_, Some(_))));
            if is_failed { failed += 1 } else { told += 1 }
        }
    }
    // A corpus that only ever fails at its first word would test nothing, and so would one that nothing happens to.
    assert!(failed > 100 && told > 100, "{protocol}: {failed} failed, {told} did not");
}

/// It misses what needs more memory than it should: the dialogues of endless lines and literals are for that.
#[tokio::test(start_paused = true)]
async fn imap_ends_whatever_is_said() {
    survives("imap").await;
}

#[tokio::test(start_paused = true)]
async fn pop3_ends_whatever_is_said() {
    survives("pop3").await;
}

/// A client that reads a line, a literal or the dot of a mail as if it came in one piece answers otherwise here.
#[tokio::test]
async fn what_comes_byte_by_byte_is_no_different() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for dialogue in dialogues("imap").into_iter().chain(dialogues("pop3")) {
        // Those who wait for silence would really wait, and what is there too early must come with what it follows.
        let is_early = ["_injected", "retr_more"].iter().any(|part| dialogue.name.ends_with(part));
        if dialogue.then == Then::BeSilent || is_early {
            continue;
        }
        let (whole, _) = play(&listener, &dialogue, &dialogue.steps, Then::Close, Grain::Whole).await;
        let (dripped, _) = play(&listener, &dialogue, &dialogue.steps, Then::Close, Grain::Bytes).await;
        assert_eq!(whole, dripped, "{}", dialogue.name);
    }
}
