//! Playing a dialogue file to an adapter, and the watch over the password while it does.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::credentials::Credentials;
use postroom_core::endpoint::{Authority, Endpoint, Host, Port, Tls};
use postroom_core::id::{MailboxId, Revision};
use postroom_core::ledger::RemoteKey;
use postroom_testkit::script::ScriptedServer;
use postroom_transport::by_protocol::ByProtocol;
use postroom_transport::{
    Error, ErrorKind, IncomingSession, IncomingTimeouts, IncomingTransport, Listed, MailSink, Protocol,
    Result, Route,
};
use tracing::span::{Attributes, Id, Record};

/// Longer than any dialogue takes on a loaded machine; a hang fails by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The password of every dialogue.
const CANARY: &str = "canary-7Kq-password";

/// The canary, and how SASL PLAIN, LOGIN, OAUTHBEARER and XOAUTH2 send it.
const FORMS: [&str; 5] = [
    CANARY,
    "AGRlc2sAY2FuYXJ5LTdLcS1wYXNzd29yZA",
    "Y2FuYXJ5LTdLcS1wYXNzd29yZA",
    "bixhPWRlc2ssAWF1dGg9QmVhcmVyIGNhbmFyeS03S3EtcGFzc3dvcmQBAQ",
    "dXNlcj1kZXNrAWF1dGg9QmVhcmVyIGNhbmFyeS03S3EtcGFzc3dvcmQBAQ",
];

/// As a dialogue needs them: a token where its name says so, else a password.
pub(crate) fn credentials(name: &str) -> Credentials {
    match name.contains("/bearer") {
        true => Credentials::bearer("desk", CANARY.into()),
        false => Credentials::password("desk", CANARY.into()),
    }
}

pub(crate) fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dialogs").join(format!("{name}.txt"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A dialogue about a selected folder or a maildrop, with its beginning.
pub(crate) fn signed_in(name: &str) -> String {
    let (protocol, _) = name.split_once('/').unwrap();
    format!("{}{}", read(&format!("{protocol}/signed_in")), read(name))
}

/// The way to a scripted server, as its dialogue needs it: TLS where it has a TLS step, STARTTLS where that is not the first
/// or where the name says so.
pub(crate) fn route(name: &str, script: &str, server: &ScriptedServer) -> Route {
    let protocol = if name.starts_with("pop3/") { Protocol::Pop3 } else { Protocol::Imap };
    let mut steps = script.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let tls = match steps.next() {
        Some("TLS") => Tls::Implicit,
        _ if name.contains("/starttls") || name.contains("/stls") || name.ends_with("/preauth") => {
            Tls::StartTls
        }
        _ => Tls::None,
    };
    let endpoint = Endpoint::new(Host::parse("127.0.0.1").unwrap(), Port::new(server.port().into()).unwrap());
    let route = Route::new(MailboxId::new(1), Revision::new(1), protocol, endpoint, tls)
        .with_authority(Some(Authority::parse(server.ca_pem()).unwrap()))
        .with_credentials(credentials(name));
    if tls == Tls::None { route.with_danger_plaintext() } else { route }
}

/// Plays a dialogue to its end; the answer is what `act` makes of the session, or why there is none.
pub(crate) async fn play<R>(
    name: &str,
    script: &str,
    timeouts: IncomingTimeouts,
    act: impl AsyncFnOnce(Box<dyn IncomingSession>) -> Result<R>,
) -> Result<R> {
    let log = Log::default();
    let server = ScriptedServer::start(script).await.unwrap();
    let route = route(name, script, &server);
    let transport = ByProtocol::new().with_timeouts(timeouts);
    let watched = tracing::subscriber::set_default(log.clone());
    let result = match transport.open(&route).await {
        Ok(session) => act(session).await,
        Err(error) => Err(error),
    };
    drop(watched);
    server.expect_played(PATIENCE).await;
    let mut said = log.0.lock().unwrap().clone();
    said.push_str(&format!("{route:?} {transport:?}"));
    if let Err(error) = &result {
        said.push_str(&told(error));
    }
    for form in FORMS {
        assert!(!said.contains(form), "{name}: the password was told: {said}");
    }
    result
}

fn told(error: &Error) -> String {
    let mut told = format!("{error} {error:?}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        told.push_str(&format!(" {cause} {cause:?}"));
        source = cause.source();
    }
    told
}

/// Every event and span of every level, in words.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            self.note(field, value)
        });
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            self.note(field, value)
        });
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            self.note(field, value)
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Log {
    fn note(&self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0.lock().unwrap().push_str(&format!("{field}={value:?} "));
    }
}

/// One mail: an error is the call's or the mail's.
pub(crate) async fn fetch(session: &mut dyn IncomingSession, key: &RemoteKey, limit: u64) -> Result<Vec<u8>> {
    let mut sink = Many::default();
    session.fetch(&listed([key.clone()], 4), limit, &mut sink).await?;
    let (_, bytes, end) = sink.0.remove(0);
    end.expect("an end").map(|()| bytes)
}

/// What became of each mail of many, in the order of their ends; what was begun and not ended comes last.
#[derive(Debug, Default)]
pub(crate) struct Many(pub(crate) Vec<(RemoteKey, Vec<u8>, Option<Result<()>>)>);

impl Many {
    /// Each mail that came whole, and the kind of error of each other.
    pub(crate) fn ended(&self) -> Vec<(String, std::result::Result<&str, ErrorKind>)> {
        let ended = self.0.iter().filter_map(|(key, bytes, end)| {
            let told = match end.as_ref()? {
                Ok(()) => Ok(std::str::from_utf8(bytes).unwrap()),
                Err(error) => Err(error.kind()),
            };
            Some((key.to_string(), told))
        });
        ended.collect()
    }
}

#[async_trait]
impl MailSink for Many {
    async fn begin(&mut self, key: &RemoteKey) -> std::io::Result<()> {
        self.0.push((key.clone(), Vec::new(), None));
        Ok(())
    }

    async fn write(&mut self, piece: Bytes) -> std::io::Result<()> {
        self.0.last_mut().unwrap().1.extend_from_slice(&piece);
        Ok(())
    }

    async fn end(&mut self, result: Result<()>) -> std::io::Result<()> {
        self.0.last_mut().unwrap().2 = Some(result);
        Ok(())
    }
}

/// Mails with these keys, each of so many bytes as it is said.
pub(crate) fn listed(keys: impl IntoIterator<Item = RemoteKey>, size: u64) -> Vec<Listed> {
    keys.into_iter().map(|key| Listed::new(key, size, None)).collect()
}
