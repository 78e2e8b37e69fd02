//! One SMTP conversation: greeting, EHLO, STARTTLS, sign-in, and single commands with their replies. What a mail needs is in
//! `transaction`.

use std::net::IpAddr;
use std::time::Duration;

use postroom_core::credentials::Credentials;
use postroom_core::endpoint::{Host, Tls};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result, Stage};
use crate::probe::ProbeReport;
use crate::route::Route;
use crate::smtp::reply::{Answer, LINE_LIMIT, Reading, readable};
use crate::smtp::timeouts::Timeouts;
use crate::wire::sasl::{self, Mechanism, Secrets};
use crate::wire::stream::Stream;
use crate::wire::{dial, tls::Trust};

/// The longest command line, CRLF included (RFC 5321 section 4.5.3.1.4).
const COMMAND_LIMIT: usize = 512;

/// How long a session may live, so that changed certificates and addresses are seen.
const AGE: Duration = Duration::from_secs(30 * 60);

/// What the server offers (RFC 5321 section 4.1.1.1).
#[derive(Debug, Default)]
pub(super) struct Extensions {
    pub(super) pipelining: bool,
    pub(super) eight_bit: bool,
    pub(super) smtputf8: bool,
    /// SIZE; the number is the limit, if there is one (RFC 1870 section 4).
    pub(super) size: Option<Option<u64>>,
    starttls: bool,
    auth: Vec<String>,
}

impl Extensions {
    fn read(answer: &Answer) -> Self {
        let mut found = Self::default();
        for line in answer.lines().iter().skip(1) {
            // `AUTH=LOGIN` is how it was written before RFC 2554.
            let mut words = line.split([' ', '=']).filter(|word| !word.is_empty());
            match words.next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "PIPELINING" => found.pipelining = true,
                "8BITMIME" => found.eight_bit = true,
                "SMTPUTF8" => found.smtputf8 = true,
                "SIZE" => {
                    let limit = words.next().and_then(|number| number.parse().ok());
                    found.size = Some(limit.filter(|&limit| limit > 0));
                }
                "STARTTLS" => found.starttls = true,
                "AUTH" => found.auth.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        found
    }
}

/// A conversation that is ready for mail.
#[derive(Debug)]
pub(super) struct Session {
    stream: Stream,
    pub(super) timeouts: Timeouts,
    pub(super) extensions: Extensions,
    pub(super) is_signed_in: bool,
    /// Whether MAIL was sent and its transaction has not ended.
    pub(super) in_transaction: bool,
    /// How many transactions were begun.
    pub(super) transactions: usize,
    /// What the server's words are told without.
    secrets: Secrets,
    since: Instant,
}

impl Session {
    /// Connects, greets, makes TLS and signs in, as the route says. What was found is noted in `report`.
    ///
    /// # Errors
    /// Of every stage up to [`Stage::SignIn`].
    pub(super) async fn open(
        route: &Route,
        trust: &Trust,
        timeouts: Timeouts,
        report: &mut ProbeReport,
    ) -> Result<Self> {
        if route.credentials.is_some() {
            sasl::permit(route, route.tls != Tls::None)?;
        }
        let stream = dial::open(route, trust, &timeouts.dial(), report).await?;
        let mut session = Self {
            stream,
            timeouts,
            extensions: Extensions::default(),
            is_signed_in: false,
            in_transaction: false,
            transactions: 0,
            secrets: Secrets::default(),
            since: Instant::now(),
        };
        session.stream.enter(Stage::Greeting, timeouts.greeting);
        let banner = session.answer().await?;
        session.want(&banner, 220)?;
        session.greet(route).await?;
        if route.tls == Tls::StartTls {
            session.start_tls(route, trust).await?;
            report.pass(Stage::Tls, session.stream.tls_summary().unwrap_or_default());
            // What was said in the clear may be anybody's words: ask again (RFC 3207 section 4.2).
            session.greet(route).await?;
        }
        report.pass(Stage::Greeting, session.found(&banner));
        if let Some(credentials) = &route.credentials {
            sasl::permit(route, session.stream.is_encrypted())?;
            session.secrets = Secrets::of(credentials);
            let mechanism = session.sign_in(credentials).await?;
            session.secrets = Secrets::default();
            report.pass(Stage::SignIn, format!("{} as {}", mechanism.name(), credentials.user()));
        }
        Ok(session)
    }

    /// EHLO, or HELO where EHLO is unknown (RFC 5321 section 3.2).
    async fn greet(&mut self, route: &Route) -> Result<()> {
        self.extensions = Extensions::default();
        let name = own_name(route.ehlo_name.as_ref(), self.stream.local_ip());
        self.stream.enter(Stage::Greeting, self.timeouts.greeting);
        let answer = self.command(&format!("EHLO {name}\r\n")).await?;
        if answer.class() == 5 {
            let answer = self.command(&format!("HELO {name}\r\n")).await?;
            return self.want(&answer, 250);
        }
        self.want(&answer, 250)?;
        self.extensions = Extensions::read(&answer);
        Ok(())
    }

    async fn start_tls(&mut self, route: &Route, trust: &Trust) -> Result<()> {
        self.stream.enter(Stage::Tls, self.timeouts.greeting);
        if !self.extensions.starttls {
            return Err(self.stream.fail(ErrorKind::TlsUnavailable));
        }
        let config = trust.config(route.authority.as_ref())?;
        let answer = self.command("STARTTLS\r\n").await?;
        match answer.class() {
            2 => {}
            5 => {
                let reply = answer.reply().to_string();
                return Err(self.stream.fail(ErrorKind::TlsUnavailable).with_reply(&reply));
            }
            _ => return self.want(&answer, 220),
        }
        self.stream.enter(Stage::Tls, self.timeouts.tls);
        self.stream.start_tls(config, &route.endpoint.host).await
    }

    /// AUTH (RFC 4954).
    async fn sign_in(&mut self, credentials: &Credentials) -> Result<Mechanism> {
        self.stream.enter(Stage::SignIn, self.timeouts.sign_in);
        let mechanism = Mechanism::choose(credentials, self.extensions.auth.iter().map(String::as_str))?;
        let mut responses = mechanism.responses(credentials)?.into_iter().peekable();
        let mut acknowledgement = mechanism.acknowledgement();
        let mut command = Zeroizing::new(format!("AUTH {}", mechanism.name()));
        // One that makes the line too long waits for the prompt (RFC 4954 section 4).
        let fits = |response: &Zeroizing<String>| command.len() + 1 + response.len() + 2 <= COMMAND_LIMIT;
        if mechanism.has_initial_response()
            && let Some(response) = responses.next_if(fits)
        {
            command = Zeroizing::new([command.as_str(), " ", response.as_str()].concat());
        }
        tracing::trace!(command = mechanism.name(), "sign-in");
        let mut line = command;
        loop {
            self.refuse_unasked().await?;
            // Made in one piece: what grows leaves copies behind that nobody wipes.
            let whole = Zeroizing::new([line.as_str(), "\r\n"].concat());
            self.stream.write(whole.as_bytes()).await?;
            let answer = self.read_answer().await?;
            tracing::trace!(code = answer.code(), "sign-in answered");
            line = match (answer.code(), responses.next()) {
                (235, _) => break,
                (334, Some(response)) => response,
                (334, None) if acknowledgement.is_some() => {
                    Zeroizing::new(acknowledgement.take().unwrap_or_default().to_owned())
                }
                _ => return Err(self.sign_in_error(&answer)),
            };
            self.stream.enter(Stage::SignIn, self.timeouts.sign_in);
        }
        self.is_signed_in = true;
        Ok(mechanism)
    }

    fn sign_in_error(&mut self, answer: &Answer) -> Error {
        let sorted = answer.error(Stage::SignIn);
        let error = match answer.class() {
            // Servers count connections by account, which they know of only now.
            4 if sorted.kind() == ErrorKind::Throttled => {
                self.end();
                sorted
            }
            4 => self.stream.fail(ErrorKind::SignInUnavailable),
            5 => self.stream.fail(ErrorKind::SignInRefused),
            _ => self.stream.fail(ErrorKind::Protocol),
        };
        error.with_reply(&answer.reply().to_string())
    }

    /// The greeting and the capabilities in words.
    fn found(&self, banner: &Answer) -> String {
        let mut found = vec![banner.reply().to_string()];
        let mut add = |is_offered: bool, word: String| found.extend(is_offered.then_some(word));
        let of = &self.extensions;
        add(of.pipelining, "PIPELINING".to_owned());
        add(of.eight_bit, "8BITMIME".to_owned());
        add(of.smtputf8, "SMTPUTF8".to_owned());
        add(of.size.is_some(), of.size.flatten().map_or("SIZE".to_owned(), |limit| format!("SIZE {limit}")));
        add(!of.auth.is_empty(), format!("AUTH {}", of.auth.join(" ")));
        found.join("; ")
    }

    /// From now on errors are of this stage, and the next reply must come within `time`.
    pub(super) fn enter(&mut self, stage: Stage, time: Duration) {
        self.stream.enter(stage, time);
    }

    /// Writes one command, with its CRLF, and reads its reply.
    pub(super) async fn command(&mut self, line: &str) -> Result<Answer> {
        self.send(line).await?;
        self.answer().await
    }

    /// Writes commands, each with its CRLF. Their replies are read one by one with [`Session::answer`].
    pub(super) async fn send(&mut self, lines: &str) -> Result<()> {
        self.refuse_unasked().await?;
        tracing::trace!(commands = lines, "sent");
        self.stream.write(lines.as_bytes()).await
    }

    /// Writes a piece of the content.
    ///
    /// # Errors
    /// With how many bytes of the piece had surely not left.
    pub(super) async fn send_content(&mut self, piece: &[u8]) -> std::result::Result<(), (Error, usize)> {
        let result = self.stream.write(piece).await;
        result.map_err(|error| (error, self.stream.unwritten()))
    }

    /// Nothing may have been said that was not asked for: it would be taken for the answer to what comes next.
    ///
    /// # Errors
    /// With what was said; the session has ended.
    pub(super) async fn refuse_unasked(&mut self) -> Result<()> {
        if self.stream.is_quiet() {
            return Ok(());
        }
        let answer = self.answer().await?;
        // 421 is the one thing that a server may say at any time (RFC 5321 section 3.8).
        let kind = if answer.code() == 421 { ErrorKind::Throttled } else { ErrorKind::Protocol };
        Err(self.stream.fail(kind).with_reply(&answer.reply().to_string()))
    }

    /// The next reply. With 421 the server ends the session.
    pub(super) async fn answer(&mut self) -> Result<Answer> {
        let answer = self.read_answer().await?;
        tracing::trace!(reply = %answer.reply(), "received");
        Ok(answer)
    }

    async fn read_answer(&mut self) -> Result<Answer> {
        let mut reading = Reading::default();
        loop {
            let line = self.stream.read_line(LINE_LIMIT).await?;
            match reading.take(&line) {
                Ok(Some(answer)) => return Ok(answer.without(&self.secrets)),
                Ok(None) => {}
                Err(why) => {
                    let text = format!("{why}: {}", self.secrets.redacted(readable(&line)));
                    return Err(self.stream.fail(ErrorKind::Protocol).with_reply(&text));
                }
            }
        }
    }

    /// The error of a reply at the current stage. One of 421 or a positive one in the wrong place ends the session.
    pub(super) fn refusal(&mut self, answer: &Answer) -> Error {
        if answer.code() == 421 || answer.class() < 4 {
            self.end();
        }
        answer.error(self.stream.stage())
    }

    fn want(&mut self, answer: &Answer, code: u16) -> Result<()> {
        if answer.code() == code {
            return Ok(());
        }
        let error = self.refusal(answer);
        self.end();
        Err(error)
    }

    /// Ends it without a word; dropping closes the connection.
    pub(super) fn end(&mut self) {
        let _ = self.stream.fail(ErrorKind::Disconnected);
    }

    /// Whether nothing can be said any more.
    pub(super) fn is_ended(&self) -> bool {
        self.stream.is_broken()
    }

    /// Whether it has lived for so long that its next mail goes over another one.
    pub(super) fn is_aged(&self) -> bool {
        self.since.elapsed() >= AGE
    }

    /// Whether the server has neither closed nor said anything unasked, as far as can be seen without asking it.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.stream.is_quiet()
    }

    /// Takes a transaction back. A session that does not agree has ended.
    ///
    /// # Errors
    /// Of the connection, or the server's refusal.
    pub(super) async fn reset(&mut self) -> Result<()> {
        self.stream.enter(Stage::Reset, self.timeouts.quit);
        let answer = self.command("RSET\r\n").await?;
        self.want(&answer, 250)?;
        self.in_transaction = false;
        Ok(())
    }

    /// Gives memory back before a long idle time.
    pub(super) fn rest(&mut self) {
        self.stream.free_buffer();
    }

    /// Says goodbye and closes.
    pub(super) async fn quit(mut self) {
        self.stream.enter(Stage::Close, self.timeouts.quit);
        if !self.is_ended() && self.command("QUIT\r\n").await.is_ok() {
            self.stream.shutdown().await;
        }
    }
}

/// The name to greet with: the box's, or this end's address as a literal (RFC 5321 sections 4.1.3 and 4.1.4).
fn own_name(name: Option<&Host>, local: Option<IpAddr>) -> String {
    match name.map_or(local, Host::ip) {
        Some(IpAddr::V4(ip)) => format!("[{ip}]"),
        Some(IpAddr::V6(ip)) => format!("[IPv6:{ip}]"),
        None => name.map_or("[127.0.0.1]".to_owned(), Host::to_string),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_in_ehlo_is_a_name_or_a_literal() {
        let check = |name: Option<&str>, local: Option<&str>, want: &str| {
            let name = name.map(|name| Host::parse(name).expect("a host"));
            assert_eq!(own_name(name.as_ref(), local.map(|ip| ip.parse().expect("an address"))), want);
        };
        check(Some("app.acme.example"), Some("10.0.0.1"), "app.acme.example");
        check(Some("192.0.2.1"), Some("10.0.0.1"), "[192.0.2.1]");
        check(Some("2001:db8::1"), None, "[IPv6:2001:db8::1]");
        check(None, Some("10.0.0.1"), "[10.0.0.1]");
        check(None, Some("::1"), "[IPv6:::1]");
        check(None, None, "[127.0.0.1]");
    }
}
