//! Playing a dialogue to one client, and the record of how it went. The format is read in the sibling `dialogue`.

use crate::{
    script::dialogue::{Action, Dialogue, Step},
    wire::{LINE_LIMIT, Wire},
};
use bytes::Bytes;
use std::{fmt, io, time::Duration};
use tokio::{net::TcpListener, sync::watch};
use tokio_rustls::TlsAcceptor;

/// More than a test's dialogue swallows with one `C-DATA`.
const DATA_LINE_LIMIT: usize = 64 * 1024 * 1024;

/// What the client did in a dialogue that was played to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Played {
    /// The client's lines without CRLF, those of `C-DATA` left out.
    pub lines: Vec<String>,
    /// What each `C-DATA` and `C-BYTES` swallowed, exactly as it was sent; the final dot is left out.
    pub swallowed: Vec<Bytes>,
}

/// Where a client left its dialogue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The line of the dialogue, from 1.
    pub line: usize,
    /// What the dialogue asks for.
    pub expected: String,
    /// What came instead.
    pub got: String,
    /// What the client had said before.
    pub before: Played,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the dialogue was left at line {}\n  expected: {}\n  got:      {}\n  the client had said:",
            self.line, self.expected, self.got
        )?;
        self.before.lines.iter().try_for_each(|line| write!(f, "\n    {line}"))?;
        self.before
            .swallowed
            .iter()
            .try_for_each(|bytes| write!(f, "\n    ({} bytes swallowed)", bytes.len()))
    }
}

impl std::error::Error for Difference {}

/// How far the dialogue has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    played: Played,
    /// The step being played: its line and what it waits for.
    now: (usize, String),
    pub(crate) outcome: Option<Result<(), Difference>>,
}

impl Record {
    /// The result after waiting so long.
    pub(crate) fn result(&self, waited: Duration) -> Result<Played, Difference> {
        match &self.outcome {
            Some(Ok(())) => Ok(self.played.clone()),
            Some(Err(difference)) => Err(difference.clone()),
            None => Err(self.difference(format!("nothing within {waited:?}"))),
        }
    }

    fn difference(&self, got: String) -> Difference {
        let (line, expected) = self.now.clone();
        Difference { line, expected, got, before: self.played.clone() }
    }
}

struct Player {
    wire: Wire,
    acceptor: TlsAcceptor,
    record: watch::Sender<Record>,
    /// The words that the client put where `<tag>` stood, the last one first.
    tags: Vec<String>,
}

/// Plays to the first client and leaves the outcome in the record.
pub(crate) async fn perform(
    listener: TcpListener,
    dialogue: Dialogue,
    acceptor: TlsAcceptor,
    record: watch::Sender<Record>,
) {
    let first = dialogue.steps.first().map_or(1, |step| step.line);
    record.send_modify(|record| record.now = (first, "a client that connects".into()));
    let Ok((stream, _)) = listener.accept().await else { return };
    // One client is all there will be: a second one is refused.
    drop(listener);
    let _ = stream.set_nodelay(true);
    let mut player = Player { wire: Wire::new(stream), acceptor, record, tags: Vec::new() };
    let result = player.play(&dialogue).await;
    let stalls = dialogue.steps.last().is_some_and(|step| step.action == Action::Stall);
    let stays = stalls && result.is_ok();
    player.record.send_modify(|record| {
        record.outcome = Some(result.map_err(|got| record.difference(got)));
    });
    if stays {
        player.wire.drain().await;
    }
}

impl Player {
    /// Plays every step; the error is what came instead of what the record says is expected.
    async fn play(&mut self, dialogue: &Dialogue) -> Result<(), String> {
        for step in &dialogue.steps {
            self.record.send_modify(|record| record.now = (step.line, step.text.clone()));
            match &step.action {
                Action::Close => return self.wire.close().await.map_err(failure),
                Action::Cut | Action::Stall => return Ok(()),
                Action::Repeat(times, bytes) => {
                    for _ in 0..*times {
                        if self.wire.write(bytes).await.is_err() {
                            return Ok(());
                        }
                    }
                }
                _ => self.step(step).await?,
            }
        }
        self.record
            .send_modify(|record| record.now = (dialogue.lines, "the client closes the connection".into()));
        match self.wire.read_to_line_end(LINE_LIMIT).await {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(failure(error)),
            // Clients close as they like: in order, by a reset, without TLS's farewell.
            Err(_) => match self.wire.rest() {
                [] => Ok(()),
                rest => Err(format!("{:?} without a CRLF", String::from_utf8_lossy(rest))),
            },
            Ok(line) => Err(format!("{:?}", String::from_utf8_lossy(&line))),
        }
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match &step.action {
            Action::Send(bytes) => {
                let last = self.tags.first().map_or(&b""[..], |tag| tag.as_bytes());
                let mut bytes = replace(bytes, b"<tag>", last);
                for (back, tag) in self.tags.iter().enumerate().skip(1) {
                    bytes = replace(&bytes, format!("<tag-{back}>").as_bytes(), tag.as_bytes());
                }
                self.wire.write(&bytes).await.map_err(failure)
            }
            Action::Expect(expected) => self.expect(expected, |rest, expected| rest == expected).await,
            Action::ExpectPrefix(expected) => {
                self.expect(expected, |rest, expected| rest.starts_with(expected)).await
            }
            Action::Data => {
                let mut data = Vec::new();
                loop {
                    let line = self.wire.read_to_line_end(DATA_LINE_LIMIT).await.map_err(failure)?;
                    if line == b"." {
                        break;
                    }
                    data.extend_from_slice(&line);
                    data.extend_from_slice(b"\r\n");
                }
                self.record.send_modify(|record| record.played.swallowed.push(data.into()));
                Ok(())
            }
            Action::Bytes(length) => {
                let bytes = self.wire.read_bytes(*length).await.map_err(failure)?;
                self.record.send_modify(|record| record.played.swallowed.push(bytes.into()));
                Ok(())
            }
            Action::Tls => self.wire.upgrade(&self.acceptor).await.map_err(failure),
            Action::Repeat(..) | Action::Close | Action::Cut | Action::Stall => Ok(()),
        }
    }

    /// Reads a line and compares it, a leading `<tag>` with any word.
    async fn expect(&mut self, expected: &str, fits: impl Fn(&str, &str) -> bool) -> Result<(), String> {
        let line = self.wire.read_to_line_end(LINE_LIMIT).await.map_err(failure)?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let right = match (expected.strip_prefix("<tag> "), line.split_once(' ')) {
            (Some(expected), Some((tag, rest))) if !tag.is_empty() => {
                self.tags.insert(0, tag.to_owned());
                fits(rest, expected)
            }
            (Some(_), _) => false,
            (None, _) => fits(&line, expected),
        };
        if !right {
            return Err(format!("{line:?}"));
        }
        self.record.send_modify(|record| record.played.lines.push(line));
        Ok(())
    }
}

fn failure(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the end of the connection".to_owned(),
        _ => error.to_string(),
    }
}

fn replace(bytes: &[u8], mark: &[u8], with: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(mark.len()).position(|window| window == mark) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(with);
        rest = &rest[at + mark.len()..];
    }
    out.extend_from_slice(rest);
    out
}
