//! From the greeting to the signed-in state: STLS (RFC 2595), CAPA (RFC 2449), AUTH (RFC 5034) or USER and PASS. What was
//! said before TLS is forgotten, and nothing of the credentials is sent before it.

use std::time::Duration;

use postroom_core::credentials::Credentials;
use postroom_core::endpoint::Tls;
use postroom_core::secret::ExposeSecret;
use zeroize::Zeroizing;

use super::conversation::{Conversation, Offers};
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::probe::ProbeReport;
use crate::route::Route;
use crate::timeouts::IncomingTimeouts;
use crate::wire::dial;
use crate::wire::sasl::{self, Mechanism, Secrets};
use crate::wire::tls::Trust;

/// The most capabilities of a server.
const CAPABILITIES_LIMIT: usize = 256;

/// The longest time that a server can keep us away.
const LONGEST_DELAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What the server offers, in upper case; none when it does not know CAPA.
type Capabilities = Option<Vec<String>>;

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
    let mut talk = Conversation::new(dial::open(route, trust, &dial, report).await?, timeouts);
    talk.enter(Stage::Greeting, timeouts.greeting);
    let greeting = talk.reply().await?;
    if !greeting.is_ok {
        return Err(greeting.error(Stage::Greeting));
    }
    let mut capabilities = capabilities(&mut talk).await?;
    if route.tls == Tls::StartTls {
        start_tls(&mut talk, route, trust, &capabilities).await?;
        report.pass(Stage::Tls, talk.stream.tls_summary().unwrap_or_default());
        talk.enter(Stage::Greeting, timeouts.command);
        capabilities = self::capabilities(&mut talk).await?;
    }
    let offers = |name| capabilities.iter().flatten().any(|one| one == name);
    talk.offers = Offers { pipelining: offers("PIPELINING"), top: offers("TOP") };
    let shown = capabilities.as_ref().map_or_else(|| "no CAPA".to_owned(), |offered| offered.join(", "));
    report.pass(Stage::Greeting, shown);
    sasl::permit(route, talk.stream.is_encrypted())?;
    talk.enter(Stage::SignIn, timeouts.command);
    talk.secrets = Secrets::of(credentials);
    let method = sign_in(&mut talk, credentials, &capabilities).await;
    talk.secrets = Secrets::default();
    let method = method.map_err(|error| {
        match login_delay(&capabilities).filter(|_| error.kind() == ErrorKind::Throttled) {
            Some(delay) => error.with_retry_after(delay),
            None => error,
        }
    })?;
    report.pass(Stage::SignIn, format!("as {} by {method}", credentials.user()));
    Ok(talk)
}

/// RFC 2449 section 5.
async fn capabilities(talk: &mut Conversation) -> Result<Capabilities> {
    if !talk.ask("CAPA").await?.is_ok {
        return Ok(None);
    }
    let mut offered = Vec::new();
    talk.lines(CAPABILITIES_LIMIT, &mut |line| {
        offered.push(String::from_utf8_lossy(line).trim().to_ascii_uppercase());
        Ok(())
    })
    .await?;
    Ok(Some(offered))
}

/// How long to stay away between two sign-ins (RFC 2449 section 6.5); a day at most, whatever the server says.
fn login_delay(offered: &Capabilities) -> Option<Duration> {
    let seconds = offered.iter().flatten().find_map(|one| one.strip_prefix("LOGIN-DELAY "))?;
    let seconds: u64 = seconds.split(' ').next()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_DELAY)).filter(|delay| !delay.is_zero())
}

/// RFC 2595 section 4.
async fn start_tls(
    talk: &mut Conversation,
    route: &Route,
    trust: &Trust,
    offered: &Capabilities,
) -> Result<()> {
    let config = trust.config(route.authority.as_ref())?;
    let unavailable = || Error::new(ErrorKind::TlsUnavailable, Stage::Tls);
    if !offered.iter().flatten().any(|one| one == "STLS") {
        return Err(unavailable());
    }
    talk.enter(Stage::Tls, talk.timeouts.tls);
    let reply = talk.ask("STLS").await?;
    if !reply.is_ok {
        return Err(unavailable().with_reply(&reply.text));
    }
    talk.enter(Stage::Tls, talk.timeouts.tls);
    talk.stream.start_tls(config, &route.endpoint.host).await
}

/// Signs in by the best of what is offered, and names it.
async fn sign_in(
    talk: &mut Conversation,
    credentials: &Credentials,
    offered: &Capabilities,
) -> Result<&'static str> {
    let words =
        offered.iter().flatten().filter_map(|one| one.strip_prefix("SASL ")).flat_map(str::split_whitespace);
    match Mechanism::choose(credentials, words) {
        Ok(mechanism) => authenticate(talk, mechanism, credentials).await.map(|()| mechanism.name()),
        // A server that does not tell what it offers has USER and PASS, or nothing.
        Err(_)
            if matches!(credentials, Credentials::Password { .. })
                && offered.as_ref().is_none_or(|offered| offered.iter().any(|one| one == "USER")) =>
        {
            user_and_pass(talk, credentials).await.map(|()| "USER and PASS")
        }
        Err(error) => Err(error),
    }
}

/// RFC 5034 section 4, the first response after the server's prompt, which every server understands.
async fn authenticate(
    talk: &mut Conversation,
    mechanism: Mechanism,
    credentials: &Credentials,
) -> Result<()> {
    let responses = mechanism.responses(credentials)?;
    talk.send(&format!("AUTH {}", mechanism.name())).await?;
    for response in responses {
        if let Some(reply) = talk.prompt().await? {
            return Err(match reply.is_ok {
                true => talk.broken_rule("it signed us in before it knew us"),
                false => reply.error(Stage::SignIn),
            });
        }
        talk.send(&response).await?;
    }
    let mut reply = talk.prompt().await?;
    if reply.is_none()
        && let Some(acknowledgement) = mechanism.acknowledgement()
    {
        talk.send(acknowledgement).await?;
        reply = talk.prompt().await?;
    }
    match reply {
        Some(reply) if reply.is_ok => Ok(()),
        Some(reply) => Err(reply.error(Stage::SignIn)),
        None => Err(talk.broken_rule("it asks for more than the mechanism has")),
    }
}

/// RFC 1939 section 7.
async fn user_and_pass(talk: &mut Conversation, credentials: &Credentials) -> Result<()> {
    let Credentials::Password { user, password } = credentials else {
        return Err(Error::new(ErrorKind::Settings, Stage::SignIn));
    };
    let password = password.expose_secret();
    if user.contains(['\0', '\r', '\n']) || password.contains(['\0', '\r', '\n']) {
        let error = Error::new(ErrorKind::Settings, Stage::SignIn);
        return Err(error.with_reply("user or password has a NUL or a line end"));
    }
    talk.granted(&format!("USER {user}")).await?;
    let command = Zeroizing::new(format!("PASS {password}"));
    talk.granted(&command).await.map(drop)
}
