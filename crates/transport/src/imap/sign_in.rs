//! From the greeting to the signed-in state: STARTTLS, capabilities, AUTHENTICATE or LOGIN. What was said before TLS is
//! forgotten, and nothing of the credentials is sent before it.

use postroom_core::credentials::Credentials;
use postroom_core::endpoint::Tls;
use postroom_core::secret::ExposeSecret;
use zeroize::Zeroizing;

use super::conversation::{Completion, Conversation, View};
use super::folder::quoted;
use super::response::{Condition, Response, parse};
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::probe::ProbeReport;
use crate::route::Route;
use crate::timeouts::IncomingTimeouts;
use crate::wire::sasl::{self, Mechanism, Secrets};
use crate::wire::tls::Trust;
use crate::wire::{dial, stream::Stream};

/// Connects and signs in. What went well is noted in the report.
///
/// # Errors
/// Of the stages up to [`Stage::SignIn`].
pub(super) async fn establish(
    route: &Route,
    trust: &Trust,
    timeouts: IncomingTimeouts,
    report: &mut ProbeReport,
) -> Result<Conversation> {
    let no_credentials =
        || Error::new(ErrorKind::Settings, Stage::SignIn).with_reply("there are no credentials");
    let credentials = route.credentials.as_ref().ok_or_else(no_credentials)?;
    // Not even a connection is made for credentials that may not be sent over it.
    sasl::permit(route, route.tls != Tls::None)?;
    let dial = dial::DialTimeouts { dns: timeouts.dns, tcp: timeouts.tcp, tls: timeouts.tls };
    let stream = dial::open(route, trust, &dial, report).await?;
    let mut talk = greeted(stream, route, timeouts).await?;
    if route.tls == Tls::StartTls {
        start_tls(&mut talk, route, trust).await?;
        report.pass(Stage::Tls, talk.stream.tls_summary().unwrap_or_default());
    }
    talk.enter(Stage::Greeting, timeouts.greeting);
    ask_capabilities(&mut talk).await?;
    report.pass(Stage::Greeting, talk.capabilities().collect::<Vec<_>>().join(" "));
    sasl::permit(route, talk.stream.is_encrypted())?;
    talk.enter(Stage::SignIn, timeouts.command);
    talk.secrets = Secrets::of(credentials);
    let method = sign_in(&mut talk, credentials).await?;
    talk.secrets = Secrets::default();
    report.pass(Stage::SignIn, format!("as {} by {method}", credentials.user()));
    if talk.offers("ID") {
        identify(&mut talk).await?;
    }
    talk.keep_capabilities(&["IDLE", "MOVE", "UIDPLUS"]);
    Ok(talk)
}

/// Says who we are (RFC 2971). Some providers open no folder to a program that did not ("Unsafe Login" of NetEase: 163.com,
/// 126.com). What they think of it decides nothing.
async fn identify(talk: &mut Conversation) -> Result<()> {
    let command = concat!("ID (\"name\" \"postroom\" \"version\" \"", env!("CARGO_PKG_VERSION"), "\")");
    talk.command(command, &mut |_| Ok(())).await.map(drop)
}

/// Hears the greeting.
async fn greeted(stream: Stream, route: &Route, timeouts: IncomingTimeouts) -> Result<Conversation> {
    let mut talk = Conversation::new(stream, timeouts);
    talk.enter(Stage::Greeting, timeouts.greeting);
    let bytes = talk.response().await?;
    let response = parse(&bytes);
    talk.note(&response)?;
    match &response {
        Response::Untagged(status) if status.condition == Condition::Ok => {
            if let Some((_, words)) = status.code.filter(|(code, _)| code.eq_ignore_ascii_case(b"CAPABILITY"))
            {
                talk.learn_capabilities(words);
            }
            Ok(talk)
        }
        // RFC 9051 section 11.1: it would skip STARTTLS. And whoever we are signed in as, it is not who the route says.
        Response::Untagged(status) if status.condition == Condition::Preauth => Err(match route.tls {
            Tls::StartTls => Error::new(ErrorKind::TlsUnavailable, Stage::Tls),
            Tls::None | Tls::Implicit => Error::new(ErrorKind::Protocol, Stage::Greeting),
        }
        .with_reply("PREAUTH: the server signs us in before it knows us")),
        _ => Err(talk.broken_rule("no greeting of IMAP")),
    }
}

/// RFC 3501 section 6.2.1.
async fn start_tls(talk: &mut Conversation, route: &Route, trust: &Trust) -> Result<()> {
    let config = trust.config(route.authority.as_ref())?;
    ask_capabilities(talk).await?;
    let unavailable = || Error::new(ErrorKind::TlsUnavailable, Stage::Tls);
    if !talk.offers("STARTTLS") {
        return Err(unavailable());
    }
    talk.enter(Stage::Tls, talk.timeouts.tls);
    let completion = talk.command("STARTTLS", &mut |_| Ok(())).await?;
    completion
        .accepted(Stage::Tls)
        .map_err(|error| unavailable().with_reply(error.reply().unwrap_or_default()))?;
    talk.enter(Stage::Tls, talk.timeouts.tls);
    talk.stream.start_tls(config, &route.endpoint.host).await?;
    talk.forget_capabilities();
    talk.view = View::default();
    Ok(())
}

async fn ask_capabilities(talk: &mut Conversation) -> Result<()> {
    if talk.capabilities().next().is_none() {
        talk.obeyed("CAPABILITY").await?;
    }
    match talk.capabilities().next() {
        Some(_) => Ok(()),
        None => Err(talk.broken_rule("no capabilities")),
    }
}

/// Signs in by the best of what is offered, and names it.
async fn sign_in(talk: &mut Conversation, credentials: &Credentials) -> Result<&'static str> {
    let offered = talk.capabilities().filter_map(|one| one.strip_prefix("AUTH="));
    let mechanism = match Mechanism::choose(credentials, offered) {
        Ok(mechanism) => Some(mechanism),
        // RFC 3501 section 6.2.3: LOGIN must not be sent where it is disabled. It has no token.
        Err(error)
            if talk.offers("LOGINDISABLED") || !matches!(credentials, Credentials::Password { .. }) =>
        {
            return Err(error);
        }
        Err(_) => None,
    };
    let initial = mechanism.filter(|one| one.has_initial_response() && talk.offers("SASL-IR"));
    // RFC 3501 section 6.2.2: what is offered may change with the sign-in.
    talk.forget_capabilities();
    let completion = match mechanism {
        Some(mechanism) => authenticate(talk, mechanism, initial.is_some(), credentials).await?,
        None => login(talk, credentials).await?,
    };
    completion.accepted(Stage::SignIn)?;
    if let Some(words) = completion.code("CAPABILITY") {
        talk.learn_capabilities(words);
    }
    ask_capabilities(talk).await?;
    Ok(mechanism.map_or("the LOGIN command", Mechanism::name))
}

/// RFC 3501 section 6.2.2, with the first response in the command where it may stand there (RFC 4959).
async fn authenticate(
    talk: &mut Conversation,
    mechanism: Mechanism,
    at_once: bool,
    credentials: &Credentials,
) -> Result<Completion> {
    let mut responses = mechanism.responses(credentials)?.into_iter();
    let mut acknowledgement = mechanism.acknowledgement();
    let mut command = Zeroizing::new(["AUTHENTICATE ", mechanism.name()].concat());
    if at_once && let Some(first) = responses.next() {
        command = Zeroizing::new([command.as_str(), " ", first.as_str()].concat());
    }
    let tag = talk.send(&command).await?;
    loop {
        let completion = talk.continuation(&tag).await?;
        match (completion, responses.next()) {
            (None, Some(response)) => write_line(talk, response.as_bytes()).await?,
            // An unforeseen prompt: cancelled, and the refusal that follows tells why.
            (None, None) => write_line(talk, acknowledgement.take().unwrap_or("*").as_bytes()).await?,
            (Some(completion), Some(_)) if completion.condition == Condition::Ok => {
                return Err(talk.broken_rule("it signed us in before it knew us"));
            }
            (Some(completion), _) => return Ok(completion),
        }
    }
}

/// RFC 3501 section 6.2.3; what can't be quoted travels as literals.
async fn login(talk: &mut Conversation, credentials: &Credentials) -> Result<Completion> {
    let Credentials::Password { user, password } = credentials else {
        return Err(Error::new(ErrorKind::Settings, Stage::SignIn));
    };
    let password = password.expose_secret();
    let quotable = |text: &str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if user.contains('\0') || password.contains('\0') {
        return Err(Error::new(ErrorKind::Settings, Stage::SignIn).with_reply("user or password has a NUL"));
    }
    if quotable(user) && quotable(password) {
        let password = Zeroizing::new(quoted(password));
        let command = Zeroizing::new(format!("LOGIN {} {}", quoted(user), *password));
        let tag = talk.send(&command).await?;
        return talk.completion(&tag, &mut |_| Ok(())).await;
    }
    let tag = talk.send(&format!("LOGIN {{{}}}", user.len())).await?;
    for line in [format!("{user} {{{}}}", password.len()), password.to_owned()].map(Zeroizing::new) {
        match talk.continuation(&tag).await? {
            None => write_line(talk, line.as_bytes()).await?,
            Some(completion) if completion.condition == Condition::Ok => {
                return Err(talk.broken_rule("it signed us in before it knew us"));
            }
            Some(completion) => return Ok(completion),
        }
    }
    talk.completion(&tag, &mut |_| Ok(())).await
}

async fn write_line(talk: &mut Conversation, line: &[u8]) -> Result<()> {
    let line = Zeroizing::new([line, b"\r\n"].concat());
    talk.stream.write(&line).await
}
