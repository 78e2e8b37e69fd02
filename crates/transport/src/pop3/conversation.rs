//! One conversation in commands and replies. A server says nothing unasked, so whatever is there before a command is sent
//! ends the conversation. Which commands there are stands in the siblings.

use std::time::Duration;

use super::reply::Reply;
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::timeouts::IncomingTimeouts;
use crate::wire::sasl::Secrets;
use crate::wire::stream::Stream;

/// The greatest length of a status line or a line of a listing in bytes: RFC 2449 section 4 allows 512.
const LINE_LIMIT: usize = 4096;

/// What the server offers beyond the commands of RFC 1939 (RFC 2449 section 6).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Offers {
    /// PIPELINING: commands may be sent before the one before is answered.
    pub(super) pipelining: bool,
    /// TOP: the header of a mail can be had without the mail.
    pub(super) top: bool,
}

/// The conversation with a server.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) stream: Stream,
    pub(super) timeouts: IncomingTimeouts,
    pub(super) offers: Offers,
    /// What the server's words are told without.
    pub(super) secrets: Secrets,
    stage: Stage,
    is_broken: bool,
}

impl Conversation {
    pub(super) fn new(stream: Stream, timeouts: IncomingTimeouts) -> Self {
        Self {
            stream,
            timeouts,
            offers: Offers::default(),
            secrets: Secrets::default(),
            stage: Stage::Greeting,
            is_broken: false,
        }
    }

    /// Begins what must not be continued when it is dropped half-way.
    ///
    /// # Errors
    /// When the conversation is broken.
    pub(super) fn begin(&mut self, stage: Stage) -> Result<()> {
        if self.is_broken || self.stream.is_broken() {
            return Err(Error::new(ErrorKind::Disconnected, stage).with_reply("the session is broken"));
        }
        self.is_broken = true;
        self.stage = stage;
        Ok(())
    }

    /// Ends it: after most errors nothing more is said.
    pub(super) fn end<T>(&mut self, result: Result<T>) -> Result<T> {
        self.is_broken = result.as_ref().is_err_and(|error| !crate::incoming::leaves_whole(error));
        self.stream.free_buffer();
        result
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// Everything within this time from now on.
    pub(super) fn enter(&mut self, stage: Stage, time: Duration) {
        self.stage = stage;
        self.stream.enter(stage, time);
    }

    /// The error of a server that broke the rules.
    pub(super) fn broken_rule(&self, rule: &str) -> Error {
        Error::new(ErrorKind::Protocol, self.stage).with_reply(rule)
    }

    /// Reads a status line.
    pub(super) async fn reply(&mut self) -> Result<Reply> {
        let line = self.stream.read_line(LINE_LIMIT).await?;
        self.read(&line).ok_or_else(|| self.broken_rule("neither +OK nor -ERR"))
    }

    /// Reads a prompt of a sign-in, or the status that ends it; none for the former (RFC 5034 section 4).
    pub(super) async fn prompt(&mut self) -> Result<Option<Reply>> {
        let line = self.stream.read_line(LINE_LIMIT).await?;
        if line.as_ref() == b"+" || line.starts_with(b"+ ") {
            return Ok(None);
        }
        self.read(&line).map(Some).ok_or_else(|| self.broken_rule("neither a prompt nor +OK nor -ERR"))
    }

    fn read(&self, line: &[u8]) -> Option<Reply> {
        let reply = Reply::parse(line)?;
        Some(Reply { text: self.secrets.redacted(reply.text), ..reply })
    }

    /// Sends a line, or some, each without its end of line.
    pub(super) async fn send(&mut self, line: &str) -> Result<()> {
        self.stream.enter(self.stage, self.timeouts.command);
        if !self.stream.is_quiet() {
            return Err(
                Error::new(ErrorKind::Disconnected, self.stage).with_reply("it closed, or spoke unasked")
            );
        }
        // Made in one piece: what grows leaves copies behind that nobody wipes.
        let line = zeroize::Zeroizing::new([line, "\r\n"].concat());
        self.stream.write(line.as_bytes()).await
    }

    /// Sends a command and reads its status.
    pub(super) async fn ask(&mut self, command: &str) -> Result<Reply> {
        self.send(command).await?;
        self.reply().await
    }

    /// Sends a command that must be granted.
    ///
    /// # Errors
    /// A refusal by its meaning; whatever breaks the conversation.
    pub(super) async fn granted(&mut self, command: &str) -> Result<Reply> {
        let reply = self.ask(command).await?;
        if reply.is_ok { Ok(reply) } else { Err(reply.error(self.stage)) }
    }

    /// Reads the lines that follow a status up to the dot; `each` says what is wrong with one.
    pub(super) async fn lines(
        &mut self,
        most: usize,
        each: &mut (dyn FnMut(&[u8]) -> std::result::Result<(), &'static str> + Send),
    ) -> Result<()> {
        for _ in 0..=most {
            let line = self.stream.read_line(LINE_LIMIT).await?;
            match line.strip_prefix(b".") {
                Some(b"") => return Ok(()),
                Some(unstuffed) => each(unstuffed),
                None => each(&line),
            }
            .map_err(|rule| self.broken_rule(rule))?;
        }
        Err(self.broken_rule("too many lines"))
    }
}
