//! The SMTP side (RFC 5321): a loop over commands, each of which gives one reply. Delivery is the store's matter.

mod reply;

use crate::{
    accepted::Accepted,
    fault::{Action, Moment, Step},
    message,
    protocol::Service,
    refusal::Stage,
    sasl,
    session::Connection,
    shared::Relay,
    store::Session,
    wire::Content,
};
use bytes::Bytes;
use reply::Reply;
use smtp_proto::{
    AUTH_LOGIN, AUTH_OAUTHBEARER, AUTH_PLAIN, AUTH_XOAUTH2, MAIL_BODY_8BITMIME, MAIL_BODY_BINARYMIME,
    MAIL_REQUIRETLS, MAIL_SMTPUTF8, MailFrom, Request,
};
use std::io;
use tokio::time::Instant;

struct Envelope {
    from: String,
    recipients: Vec<String>,
    outside: Vec<String>,
}

struct Smtp {
    connection: Connection,
    greeted: bool,
    envelope: Option<Envelope>,
    /// What the next reply belongs to, where a fault can be.
    step: Option<Step>,
    /// A reply that comes behind the next one.
    late: String,
}

/// Serves one connection until either side ends it.
pub(crate) async fn serve(connection: Connection) -> io::Result<()> {
    let mut smtp = Smtp { connection, greeted: false, envelope: None, step: None, late: String::new() };
    smtp.connection.wire.end_lines_at(smtp.connection.shared.settings.smtp_line_end);
    if smtp.is_turned_away() {
        return smtp.say(Reply::new(421, "4.7.0 Too many connections")).await;
    }
    smtp.enter(Step::Greeting).await?;
    if let Some(refusal) = smtp.refusal(&Stage::Greeting) {
        return smtp.say(refusal).await;
    }
    smtp.say(Reply::new(220, "localhost ESMTP postroom-testkit")).await?;
    loop {
        let line = match smtp.connection.wire.read_line().await {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return smtp.say(Reply::new(421, format!("4.5.2 {error}"))).await;
            }
            line => line?,
        };
        if !smtp.connection.offers("PIPELINING") && !smtp.connection.wire.rest().is_empty() {
            return smtp.say(Reply::new(554, "5.5.0 Pipelining was not offered")).await;
        }
        if let Some(reply) = smtp.command(line).await? {
            let quits = reply.code == 221;
            smtp.say(reply).await?;
            if quits {
                return smtp.connection.wire.close().await;
            }
        }
    }
}

impl Smtp {
    /// The one place where replies are written.
    async fn say(&mut self, reply: Reply) -> io::Result<()> {
        let step = self.step.take();
        let fault = step.and_then(|step| self.fault(step, Moment::Reply));
        let mut text = match &fault {
            Some(Action::Instead(code, words)) => Reply::new(*code, words.as_str()).to_string(),
            Some(Action::Twice) => reply.to_string().repeat(2),
            _ => reply.to_string(),
        };
        if fault != Some(Action::Late) {
            text.push_str(&std::mem::take(&mut self.late));
        }
        let wire = &mut self.connection.wire;
        match fault {
            Some(Action::Drip(pause)) => {
                for byte in text.as_bytes() {
                    wire.write(&[*byte]).await?;
                    tokio::time::sleep(pause).await;
                }
            }
            Some(Action::Split(pause)) => {
                let (code, rest) = text.as_bytes().split_at(2);
                wire.write(code).await?;
                tokio::time::sleep(pause).await;
                wire.write(rest).await?;
            }
            Some(Action::Late) => self.late.push_str(&text),
            Some(action @ (Action::Close | Action::Stall)) => return self.fail(action).await,
            Some(Action::Instead(..) | Action::Twice) | None => wire.write(text.as_bytes()).await?,
        }
        match step.and_then(|step| self.fault(step, Moment::After)) {
            Some(action) => self.fail(action).await,
            None => Ok(()),
        }
    }

    /// Begins a step, unless it was told to fail in its place.
    async fn enter(&mut self, step: Step) -> io::Result<()> {
        self.step = Some(step);
        match self.fault(step, Moment::InPlace) {
            Some(action) => self.fail(action).await,
            None => Ok(()),
        }
    }

    fn fault(&self, step: Step, moment: Moment) -> Option<Action> {
        self.connection.shared.change(|store| store.faults.take(step, moment))
    }

    /// Ends the session, by a closed connection or by silence: always an error, and only when the client has gone.
    async fn fail(&mut self, action: Action) -> io::Result<()> {
        if action == Action::Close {
            self.connection.wire.close().await?;
        }
        self.connection.wire.drain().await;
        Err(io::Error::other("a fault that the test has asked for"))
    }

    fn is_turned_away(&self) -> bool {
        self.connection.shared.change(|store| {
            let is_open = |of: &&Session| of.open && of.protocol.service() == Service::Smtp;
            let open = store.sessions.iter().filter(is_open).count();
            store.faults.take_beyond(open)
        })
    }

    fn refusal(&self, stage: &Stage) -> Option<Reply> {
        let (code, text) = self.connection.shared.change(|store| store.refusals.take(stage))?;
        Some(Reply::new(code, text))
    }

    /// Obeys one line; none when the reply has been written already.
    async fn command(&mut self, mut line: Vec<u8>) -> io::Result<Option<Reply>> {
        line.extend_from_slice(b"\r\n");
        let request = match Request::parse(&mut line.iter()) {
            Ok(request) => request.into_owned(),
            Err(error) => return Ok(Some(Reply::to_error(error))),
        };
        self.step = None;
        if let Some(step) = step(&request) {
            self.enter(step).await?;
        }
        Ok(Some(match request {
            Request::Ehlo { .. } => self.greet(),
            Request::Helo { .. } => {
                (self.greeted, self.envelope) = (true, None);
                Reply::new(250, "localhost")
            }
            Request::Quit => Reply::new(221, "2.0.0 Bye"),
            Request::Noop { .. } => Reply::new(250, "2.0.0 Ok"),
            Request::Rset => {
                self.envelope = None;
                Reply::new(250, "2.0.0 Ok")
            }
            Request::Vrfy { .. } => Reply::new(252, "2.1.5 Send some mail and see"),
            Request::StartTls if self.connection.offers_tls() => {
                self.say(Reply::new(220, "2.0.0 Ready to start TLS")).await?;
                self.connection.start_tls().await?;
                // RFC 3207 section 4.2: back to the state after the greeting.
                (self.greeted, self.envelope) = (false, None);
                return Ok(None);
            }
            Request::Auth { mechanism, initial_response } => self.auth(mechanism, &initial_response).await?,
            Request::Mail { from } => self.mail(from),
            Request::Rcpt { to } => self.rcpt(to.address),
            Request::Data => return self.data().await,
            _ => Reply::new(502, "5.5.1 Command not implemented"),
        }))
    }

    fn greet(&mut self) -> Reply {
        (self.greeted, self.envelope) = (true, None);
        let size = format!("SIZE {}", self.connection.shared.settings.size_limit);
        let mut lines = vec!["localhost".to_owned()];
        for extension in ["PIPELINING", &size, "8BITMIME", "ENHANCEDSTATUSCODES"] {
            if self.connection.offers(extension.split(' ').next().unwrap_or_default()) {
                lines.push(extension.to_owned());
            }
        }
        if self.connection.offers_tls() {
            lines.push("STARTTLS".to_owned());
        }
        let mechanisms: Vec<_> = ["PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2"]
            .into_iter()
            .filter(|name| self.offers_auth(name))
            .collect();
        if self.connection.may_sign_in() && !mechanisms.is_empty() {
            lines.push(format!("AUTH {}", mechanisms.join(" ")));
        }
        Reply::many(250, lines)
    }

    fn offers_auth(&self, mechanism: &str) -> bool {
        let of_tokens = ["OAUTHBEARER", "XOAUTH2"].contains(&mechanism);
        self.connection.offers("AUTH")
            && self.connection.offers(mechanism)
            && (!of_tokens || self.connection.offers_tokens(mechanism))
    }

    async fn auth(&mut self, mechanism: u64, initial: &str) -> io::Result<Reply> {
        let name = match mechanism {
            AUTH_PLAIN => "PLAIN",
            AUTH_LOGIN => "LOGIN",
            AUTH_OAUTHBEARER => "OAUTHBEARER",
            AUTH_XOAUTH2 => "XOAUTH2",
            _ => return Ok(Reply::new(504, "5.5.4 Mechanism not implemented")),
        };
        if !self.offers_auth(name) {
            return Ok(Reply::new(504, "5.5.4 Mechanism not implemented"));
        }
        if !self.greeted || self.connection.login.is_some() || self.envelope.is_some() {
            return Ok(Reply::new(503, "5.5.1 Not now"));
        }
        if !self.connection.may_sign_in() {
            return Ok(Reply::new(538, "5.7.11 Encryption required for requested authentication mechanism"));
        }
        if matches!(name, "OAUTHBEARER" | "XOAUTH2") {
            return self.by_token(name, initial).await;
        }
        let given = if name == "PLAIN" {
            let message = self.answer_or(initial, "").await?;
            sasl::plain_in_base64(&message)
        } else {
            // The challenges are "Username:" and "Password:" in base64.
            let login = sasl::text(&self.answer_or(initial, "VXNlcm5hbWU6").await?);
            match login {
                None => None,
                Some(login) => sasl::text(&self.answer_or("", "UGFzc3dvcmQ6").await?)
                    .map(|password| sasl::Credentials { login, password }),
            }
        };
        let Some(given) = given else {
            return Ok(Reply::new(501, "5.5.2 Cancelled, or not in base64"));
        };
        if let Some(refusal) = self.refusal(&Stage::SignIn) {
            return Ok(refusal);
        }
        Ok(match self.connection.sign_in(&given) {
            true => Reply::new(235, "2.7.0 Authentication successful"),
            false => Reply::new(535, "5.7.8 Authentication credentials invalid"),
        })
    }

    async fn by_token(&mut self, name: &str, initial: &str) -> io::Result<Reply> {
        let message = sasl::text(&self.answer_or(initial, "").await?);
        let Some(given) = message.and_then(|message| sasl::bearer(name, message.as_bytes())) else {
            return Ok(Reply::new(501, "5.5.2 Not a message of the mechanism"));
        };
        if self.connection.sign_in_by_token(&given) {
            return Ok(Reply::new(235, "2.7.0 Authentication successful"));
        }
        let acknowledged = self.answer_or("", sasl::TOKEN_REFUSED).await?;
        let wanted: &[u8] = if name == "XOAUTH2" { b"" } else { b"AQ==" };
        Ok(match acknowledged == wanted {
            true => Reply::new(535, "5.7.8 The token is not valid"),
            false => Reply::new(501, "5.5.2 The refusal was not acknowledged"),
        })
    }

    /// The initial response, or what the client answers to a challenge; `=` stands for an empty one.
    async fn answer_or(&mut self, initial: &str, challenge: &str) -> io::Result<Vec<u8>> {
        match initial {
            "" => {
                // The step's reply is the last one.
                let step = self.step.take();
                self.say(Reply::new(334, challenge)).await?;
                self.step = step;
                self.connection.wire.read_line().await
            }
            "=" => Ok(Vec::new()),
            initial => Ok(initial.as_bytes().to_vec()),
        }
    }

    fn mail(&mut self, from: MailFrom<String>) -> Reply {
        let settings = &self.connection.shared.settings;
        if !self.greeted || self.envelope.is_some() {
            return Reply::new(503, "5.5.1 EHLO first, and one transaction at a time");
        }
        if settings.require_sign_in && self.connection.login.is_none() || self.connection.has_expired() {
            return Reply::new(530, "5.7.0 Authentication required");
        }
        let offers = |capability| self.connection.offers(capability);
        let unknown = MAIL_SMTPUTF8 | MAIL_BODY_BINARYMIME | MAIL_REQUIRETLS;
        if from.flags & unknown != 0
            || from.flags & MAIL_BODY_8BITMIME != 0 && !offers("8BITMIME")
            || from.size != 0 && !offers("SIZE")
        {
            return Reply::new(555, "5.5.4 A parameter of an extension that is not offered");
        }
        if !from.address.is_ascii() {
            return Reply::new(553, "5.6.7 Non-ASCII address without SMTPUTF8");
        }
        // RFC 1870 section 6.1
        if from.size > settings.size_limit {
            return Reply::new(552, "5.3.4 Message size exceeds fixed limit");
        }
        if let Some(refusal) = self.refusal(&Stage::Sender(from.address.to_ascii_lowercase())) {
            return refusal;
        }
        self.envelope = Some(Envelope { from: from.address, recipients: Vec::new(), outside: Vec::new() });
        Reply::new(250, "2.1.0 Ok")
    }

    fn rcpt(&mut self, address: String) -> Reply {
        if self.envelope.is_none() {
            return Reply::new(503, "5.5.1 MAIL first");
        }
        if !address.is_ascii() {
            return Reply::new(553, "5.6.7 Non-ASCII address without SMTPUTF8");
        }
        if let Some(refusal) = self.refusal(&Stage::Recipient(address.to_ascii_lowercase())) {
            return refusal;
        }
        let shared = &self.connection.shared;
        let inside = shared.read(|store| store.receiver(&address).is_some());
        let relays = match shared.settings.relay {
            Relay::Anyone => true,
            Relay::SignedIn => self.connection.login.is_some(),
            Relay::Nobody => false,
        };
        let Some(envelope) = self.envelope.as_mut().filter(|_| inside || relays) else {
            return Reply::new(550, "5.7.1 Relaying denied");
        };
        if !inside {
            envelope.outside.push(address.clone());
        }
        envelope.recipients.push(address);
        Reply::new(250, "2.1.5 Ok")
    }

    async fn data(&mut self) -> io::Result<Option<Reply>> {
        if self.envelope.as_ref().is_none_or(|envelope| envelope.recipients.is_empty()) {
            return Ok(Some(Reply::new(554, "5.5.1 No valid recipients")));
        }
        if let Some(refusal) = self.refusal(&Stage::Data) {
            return Ok(Some(refusal));
        }
        // RFC 2920 section 3.1: nothing may follow DATA before its reply. A client that does so never waited for 354.
        if !self.connection.wire.rest().is_empty() {
            self.say(Reply::new(421, "4.5.0 Content before 354")).await?;
            return Err(io::Error::other("the client did not wait for 354"));
        }
        self.say(Reply::new(354, "End data with <CR><LF>.<CR><LF>")).await?;
        let content = self.connection.wire.read_content(self.connection.shared.settings.size_limit).await?;
        self.enter(Step::Dot).await?;
        let Some(envelope) = self.envelope.take() else {
            return Ok(Some(Reply::new(503, "5.5.1 No transaction")));
        };
        let Content::Whole(bytes) = content else {
            return Ok(Some(Reply::new(552, "5.3.4 Message size exceeds fixed limit")));
        };
        if !bytes.is_ascii() && !self.connection.offers("8BITMIME") {
            return Ok(Some(Reply::new(554, "5.6.1 8-bit content, and 8BITMIME is not offered")));
        }
        if let Some(refusal) = self.refusal(&Stage::Content) {
            return Ok(Some(refusal));
        }
        Ok(Some(Reply::new(250, format!("2.0.0 Ok: queued as {}", self.accept(envelope, bytes)))))
    }

    /// Keeps the mail before the reply says so; returns its number.
    fn accept(&mut self, envelope: Envelope, bytes: Vec<u8>) -> usize {
        let connection = &self.connection;
        let accepted = Accepted {
            session: connection.id,
            protocol: connection.protocol,
            port: connection.port,
            login: connection.login.clone(),
            tls: connection.is_tls(),
            mail_from: envelope.from,
            recipients: envelope.recipients,
            outside: envelope.outside,
            message_id: message::header(&bytes, "Message-ID"),
            bytes: Bytes::from(bytes),
            at: Instant::now(),
        };
        let now = connection.shared.now();
        connection.shared.change(|store| {
            store.accept(accepted, now);
            store.accepted.len()
        })
    }
}

/// The step that a command is, where a fault can be.
fn step(request: &Request<String>) -> Option<Step> {
    Some(match request {
        Request::Ehlo { .. } | Request::Helo { .. } => Step::Ehlo,
        Request::StartTls => Step::StartTls,
        Request::Auth { .. } => Step::Auth,
        Request::Mail { .. } => Step::Mail,
        Request::Rcpt { .. } => Step::Rcpt,
        Request::Data => Step::Data,
        _ => return None,
    })
}
