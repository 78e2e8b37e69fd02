//! One conversation in commands and responses: responses are cut out of the stream, tags are compared, what the server says
//! of the selected folder in passing is kept. Which commands there are stands in the siblings.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use bytes::BytesMut;
use tracing::debug;

use super::refusal;
use super::response::{Ahead, Condition, Response, Status, body_ahead, ends_in_text, parse};
use super::token::announced;
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::timeouts::IncomingTimeouts;
use crate::wire::sasl::Secrets;
use crate::wire::stream::Stream;

/// The greatest length of one response in bytes, its literals included: four pieces of a mail.
const RESPONSE_LIMIT: usize = 1024 * 1024;

/// The greatest number of responses to one command: more than a folder list or a window of mails needs.
pub(super) const RESPONSES_LIMIT: u32 = 200_000;

/// Capabilities that are remembered of one server.
const CAPABILITIES_LIMIT: usize = 256;

/// What the server says of the selected folder in passing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct View {
    /// How many mails there are.
    pub(super) exists: u32,
    /// Counts the EXPUNGE responses: when it moves, sequence numbers have.
    pub(super) expunges: u32,
    /// Whether a mail came or went since the folder was listed.
    pub(super) changed: bool,
    /// The sequence number of a mail that was listed, and its UID.
    pub(super) anchor: Option<(u32, u32)>,
}

/// The end of a command.
#[derive(Debug, Clone)]
pub(super) struct Completion {
    pub(super) condition: Condition,
    /// The response code, and its arguments.
    code: Option<(Vec<u8>, Vec<u8>)>,
    text: String,
}

impl Completion {
    fn new(status: &Status<'_>, text: String) -> Self {
        Self {
            condition: status.condition,
            code: status.code.map(|(code, arguments)| (code.to_ascii_uppercase(), arguments.to_vec())),
            text,
        }
    }

    /// The arguments of this response code, if it is the one.
    pub(super) fn code(&self, code: &str) -> Option<&[u8]> {
        self.code.as_ref().filter(|(name, _)| name == code.as_bytes()).map(|(_, arguments)| &arguments[..])
    }

    /// Nothing for OK.
    ///
    /// # Errors
    /// What the refusal means at this stage.
    pub(super) fn accepted(&self, stage: Stage) -> Result<()> {
        if self.condition == Condition::Ok {
            return Ok(());
        }
        let code = self.code.as_ref().map(|(code, _)| &code[..]);
        Err(Error::new(refusal::kind(stage, code, &self.text), stage).with_reply(&self.text))
    }
}

/// What a response is to the command that is being answered.
#[derive(Debug)]
pub(super) enum Heard<'a> {
    /// Its end.
    End(Completion),
    /// A request to go on.
    GoOn,
    /// Anything else.
    Untagged(Response<'a>),
}

/// The conversation with a server.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) stream: Stream,
    pub(super) timeouts: IncomingTimeouts,
    pub(super) view: View,
    /// Whether the server has not refused to push.
    pub(super) pushes: bool,
    /// What the server's words are told without.
    pub(super) secrets: Secrets,
    /// A list: while it idles a session has three.
    capabilities: Vec<Box<str>>,
    tags: RandomState,
    sent: u64,
    stage: Stage,
    /// How long the next command may take.
    time: Duration,
    /// Responses and data items that could not be read and were not needed.
    skipped: usize,
    is_broken: bool,
}

impl Conversation {
    pub(super) fn new(stream: Stream, timeouts: IncomingTimeouts) -> Self {
        Self {
            stream,
            timeouts,
            view: View::default(),
            pushes: true,
            secrets: Secrets::default(),
            capabilities: Vec::new(),
            tags: RandomState::new(),
            sent: 0,
            stage: Stage::Greeting,
            time: timeouts.command,
            skipped: 0,
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
        self.time = self.timeouts.command;
        Ok(())
    }

    /// Ends it: after most errors nothing more is said.
    pub(super) fn end<T>(&mut self, result: Result<T>) -> Result<T> {
        self.is_broken = result.as_ref().is_err_and(|error| !crate::incoming::leaves_whole(error));
        // Memory is for sessions that talk: a mailbox may be silent for half an hour.
        self.stream.free_buffer();
        if self.skipped > 0 {
            debug!(
                stage = self.stage.word(),
                skipped = self.skipped,
                "IMAP: unreadable responses were skipped"
            );
            self.skipped = 0;
        }
        result
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// Everything within this time from now on, and so each command that is sent.
    pub(super) fn enter(&mut self, stage: Stage, time: Duration) {
        self.stage = stage;
        self.time = time;
        self.stream.enter(stage, time);
    }

    /// The error of a server that broke the rules.
    pub(super) fn broken_rule(&self, rule: &str) -> Error {
        Error::new(ErrorKind::Protocol, self.stage).with_reply(rule)
    }

    pub(super) fn offers(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|one| **one == *capability)
    }

    pub(super) fn capabilities(&self) -> impl Iterator<Item = &str> + Clone {
        self.capabilities.iter().map(|one| &**one)
    }

    /// What was said before TLS, or before the sign-in, counts no more (RFC 3501 section 6.2.1).
    pub(super) fn forget_capabilities(&mut self) {
        self.capabilities.clear();
    }

    /// Forgets all but these: a session that idles keeps what it will ask for.
    pub(super) fn keep_capabilities(&mut self, asked_for: &[&str]) {
        self.capabilities.retain(|one| asked_for.contains(&&**one));
        self.capabilities.shrink_to_fit();
    }

    pub(super) fn learn_capabilities(&mut self, words: &[u8]) {
        let words = words.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
        self.capabilities = words
            .take(CAPABILITIES_LIMIT)
            .map(|word| String::from_utf8_lossy(word).to_ascii_uppercase().into_boxed_str())
            .collect();
    }

    /// Sends a command and hears its answer, which must be OK.
    ///
    /// # Errors
    /// A refusal by its meaning; whatever breaks the conversation.
    pub(super) async fn obeyed(&mut self, command: &str) -> Result<Completion> {
        let completion = self.command(command, &mut |_| Ok(())).await?;
        completion.accepted(self.stage)?;
        Ok(completion)
    }

    /// Sends a command and hears its answer, each untagged response being shown.
    ///
    /// # Errors
    /// Whatever breaks the conversation, and what `each` says of a response. A refusal is no error here.
    pub(super) async fn command(
        &mut self,
        command: &str,
        each: &mut (dyn for<'a> FnMut(Response<'a>) -> std::result::Result<(), &'static str> + Send),
    ) -> Result<Completion> {
        let tag = self.send(command).await?;
        self.completion(&tag, each).await
    }

    /// Sends a command under a new tag.
    pub(super) async fn send(&mut self, command: &str) -> Result<String> {
        // A tag that can't be foreseen: an answer to it is never older than the question.
        self.sent += 1;
        let tag = format!("P{:08X}", self.tags.hash_one(self.sent) >> 32);
        self.stream.enter(self.stage, self.time);
        // Made in one piece: what grows leaves copies behind that nobody wipes.
        let line = zeroize::Zeroizing::new([&tag, " ", command, "\r\n"].concat());
        self.stream.write(line.as_bytes()).await?;
        Ok(tag)
    }

    /// Hears up to the end of the command that was sent under `tag`.
    pub(super) async fn completion(
        &mut self,
        tag: &str,
        each: &mut (dyn for<'a> FnMut(Response<'a>) -> std::result::Result<(), &'static str> + Send),
    ) -> Result<Completion> {
        for _ in 0..RESPONSES_LIMIT {
            let bytes = self.response().await?;
            match self.heard(tag, parse(&bytes))? {
                Heard::End(completion) => return Ok(completion),
                Heard::GoOn => return Err(self.broken_rule("it was told to go on with nothing")),
                Heard::Untagged(response) => each(response).map_err(|rule| self.broken_rule(rule))?,
            }
        }
        Err(self.broken_rule("too many responses to one command"))
    }

    /// Hears up to a request to go on, or the end of the command; none for the former.
    pub(super) async fn continuation(&mut self, tag: &str) -> Result<Option<Completion>> {
        for _ in 0..RESPONSES_LIMIT {
            let bytes = self.response().await?;
            match self.heard(tag, parse(&bytes))? {
                Heard::End(completion) => return Ok(Some(completion)),
                Heard::GoOn => return Ok(None),
                Heard::Untagged(_) => {}
            }
        }
        Err(self.broken_rule("too many responses to one command"))
    }

    /// What a response is to the command that was sent under `tag`. What is untagged is noted.
    ///
    /// # Errors
    /// An answer to another command, and a farewell.
    pub(super) fn heard<'a>(&mut self, tag: &str, response: Response<'a>) -> Result<Heard<'a>> {
        match response {
            Response::Tagged(other, status) if other == tag.as_bytes() => {
                Ok(Heard::End(Completion::new(&status, self.words(&status))))
            }
            Response::Tagged(..) => Err(self.broken_rule("an answer to a command that was not sent")),
            Response::Continue(_) => Ok(Heard::GoOn),
            response => {
                self.note(&response)?;
                Ok(Heard::Untagged(response))
            }
        }
    }

    /// Takes to heart what may be said at any time.
    pub(super) fn note(&mut self, response: &Response<'_>) -> Result<()> {
        match response {
            Response::Exists(count) => {
                self.view.changed |= *count != self.view.exists;
                self.view.exists = *count;
            }
            Response::Expunge(number) => {
                self.view.changed = true;
                self.view.expunges = self.view.expunges.wrapping_add(1);
                self.view.exists = self.view.exists.saturating_sub(1);
                self.view.anchor = self.view.anchor.filter(|(anchor, _)| anchor < number);
            }
            Response::Capability(words) => self.learn_capabilities(words),
            Response::Untagged(status) if status.condition == Condition::Bye => {
                let (code, text) = (status.code.map(|(code, _)| code), self.words(status));
                // Why it leaves matters only where it says so by a code or speaks of a limit.
                let kind = match refusal::kind(self.stage, code, &text) {
                    ErrorKind::Refused | ErrorKind::SignInRefused | ErrorKind::FolderMissing => {
                        ErrorKind::Disconnected
                    }
                    kind => kind,
                };
                return Err(self.stream.fail(kind).with_reply(&text));
            }
            Response::Fetch(fetched) => self.skipped += fetched.skipped,
            Response::Unreadable => self.skipped += 1,
            _ => {}
        }
        Ok(())
    }

    /// The next response with its literals, without its last line end.
    pub(super) async fn response(&mut self) -> Result<BytesMut> {
        Ok(self.response_or_body(u64::MAX).await?.0)
    }

    /// The next response, up to the literal of a body that is longer than `most`, if it has one: whoever asked takes so many bytes
    /// from the stream, and goes on with [`behind_body`](Self::behind_body).
    pub(super) async fn response_or_body(&mut self, most: u64) -> Result<(BytesMut, Option<Ahead>)> {
        let mut bytes = BytesMut::from(&self.stream.read_line(RESPONSE_LIMIT).await?[..]);
        let body = if ends_in_text(&bytes) { None } else { self.literals(&mut bytes, 0, most).await? };
        Ok((bytes, body))
    }

    /// Hears the rest of a response behind the body that was taken from the stream; an empty one stands in its place.
    pub(super) async fn behind_body(&mut self, bytes: &mut BytesMut) -> Result<()> {
        let announcement = bytes.iter().rposition(|byte| *byte == b'{').unwrap_or(bytes.len());
        bytes.truncate(announcement);
        bytes.extend_from_slice(b"{0}\r\n");
        let line = bytes.len();
        bytes.extend_from_slice(&self.stream.read_line(RESPONSE_LIMIT - line.min(RESPONSE_LIMIT)).await?);
        self.literals(bytes, line, u64::MAX).await.map(|_| ())
    }

    /// Reads literals, and what follows each, from the place of a line on; a body that is longer than `most` is left to be read.
    async fn literals(&mut self, bytes: &mut BytesMut, mut line: usize, most: u64) -> Result<Option<Ahead>> {
        // Each round adds at least the announcement of the next literal, so the limit ends the loop.
        while let Some(length) = announced(&bytes[line..]) {
            if let Some(body) = body_ahead(&bytes[line..]).filter(|body| body.length > most) {
                return Ok(Some(body));
            }
            let room = RESPONSE_LIMIT.saturating_sub(bytes.len());
            let length = usize::try_from(length).ok().filter(|length| *length <= room);
            let Some(length) = length else {
                return Err(self.broken_rule("a literal exceeds the limit"));
            };
            bytes.extend_from_slice(b"\r\n");
            bytes.extend_from_slice(&self.stream.read_exact(length).await?);
            line = bytes.len();
            bytes.extend_from_slice(&self.stream.read_line(RESPONSE_LIMIT - line.min(RESPONSE_LIMIT)).await?);
        }
        Ok(None)
    }

    /// The server's words with their code.
    fn words(&self, status: &Status<'_>) -> String {
        let text = String::from_utf8_lossy(status.text);
        self.secrets.redacted(match status.code {
            Some((code, _)) => format!("[{}] {text}", String::from_utf8_lossy(code)),
            None => text.into_owned(),
        })
    }
}
