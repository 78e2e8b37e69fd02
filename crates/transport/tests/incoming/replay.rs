//! What a client makes of a dialogue when the server's side of it is spoilt: the server's bytes are laid out as they would be
//! sent, a test cuts or changes them, and the client's calls are asked for the same answers as before.

use std::time::Duration;

use postroom_core::endpoint::{Endpoint, Host, Port, Tls};
use postroom_core::id::{MailboxId, Revision};
use postroom_core::ledger::RemoteKey;
use postroom_transport::by_protocol::ByProtocol;
use postroom_transport::{
    Access, CloseReport, Effect, ErrorKind, IncomingSession, IncomingTimeouts, IncomingTransport, Protocol,
    Result, Route,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::scripted::{Many, credentials, listed, read, signed_in};

/// What the clock may show at the end of one dialogue: more than all deadlines of its calls together.
const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);

/// One step of the server: what it says, or for what it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Say(Vec<u8>),
    HearLine(String),
    HearBytes(usize),
}

/// What the server does behind its last word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Close,
    BeSilent,
}

/// In which pieces the server writes what it says at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grain {
    Whole,
    Bytes,
}

/// A call of the client.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    Select(Option<&'static str>, Access),
    List(&'static str, usize),
    Fetch(&'static [&'static str], u64),
    Folders,
    Find,
    Wait(Duration),
    Delete(&'static [&'static str]),
    Move(&'static [&'static str], &'static str),
}

/// What came of a call: an answer, mails that ended whole, or the kind of error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Told(String),
    Mails(Vec<(String, std::result::Result<Vec<u8>, ErrorKind>)>, Option<ErrorKind>),
    Failed(ErrorKind),
    Closed { kept: bool },
}

/// A dialogue: its steps, how many of them only lead to it, and the client's calls.
#[derive(Debug)]
pub(crate) struct Dialogue {
    pub(crate) name: String,
    pub(crate) steps: Vec<Step>,
    pub(crate) prefix: usize,
    pub(crate) then: Then,
    pub(crate) acts: Vec<Act>,
}

impl Dialogue {
    /// Reads a dialogue file, up to the first step that can't be laid out as bytes: TLS, or what is too much to repeat. TLS
    /// from the first byte is left out: what is inside is the same.
    pub(crate) fn read(name: &str, acts: &[Act]) -> Self {
        let own = read(name);
        let is_headless = steps(&own).0.first().is_some_and(|step| matches!(step, Step::HearLine(_)));
        let (prefix, _) = steps(&read(&format!("{}/signed_in", name.split_once('/').unwrap().0)));
        let (script, prefix) = if is_headless { (signed_in(name), prefix.len()) } else { (own, 0) };
        let (steps, then) = steps(&script);
        let mut acts = acts.to_vec();
        if is_headless && name.starts_with("imap/") {
            acts.insert(0, Act::Select(None, Access::ReadOnly));
        }
        Self { name: name.to_owned(), steps, prefix, then, acts }
    }

    /// How many bytes the server says in the steps that are the dialogue's own.
    pub(crate) fn bytes(&self) -> usize {
        self.steps[self.prefix..]
            .iter()
            .map(|step| if let Step::Say(said) = step { said.len() } else { 0 })
            .sum()
    }

    /// The steps up to so many bytes of the server's own.
    pub(crate) fn cut(&self, bytes: usize) -> Vec<Step> {
        let (mut steps, mut left) = (self.steps[..self.prefix].to_vec(), bytes);
        for step in &self.steps[self.prefix..] {
            let Step::Say(said) = step else {
                steps.push(step.clone());
                continue;
            };
            steps.push(Step::Say(said[..said.len().min(left)].to_vec()));
            if left < said.len() {
                break;
            }
            left -= said.len();
        }
        steps
    }
}

fn steps(script: &str) -> (Vec<Step>, Then) {
    let mut steps = Vec::new();
    for line in script.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        match mark {
            "S:" => steps.push(Step::Say(format!("{rest}\r\n").into_bytes())),
            "S<<" => steps.push(Step::Say(unescape(rest))),
            "C:" | "C~" => steps.push(Step::HearLine(rest.to_owned())),
            "C-BYTES" => steps.push(Step::HearBytes(rest.trim().parse().unwrap())),
            "S-REPEAT" => {
                let (times, text) = rest.split_once(' ').unwrap();
                let all = unescape(text).repeat(times.parse().unwrap());
                if all.len() > 4096 {
                    return (steps, Then::Close);
                }
                steps.push(Step::Say(all));
            }
            "TLS" if steps.is_empty() => {}
            "TLS" | "CUT" | "CLOSE" => return (steps, Then::Close),
            "STALL" => return (steps, Then::BeSilent),
            other => panic!("{other}: a step that can't be replayed"),
        }
    }
    (steps, Then::Close)
}

fn unescape(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match (byte, byte == b'\\') {
            (plain, false) => plain,
            _ => match rest.next().unwrap() {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'0' => 0,
                b'x' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            },
        });
    }
    bytes
}

/// Plays steps to one client, whatever it says; gives the first line that was another one.
async fn serve(tcp: TcpStream, steps: &[Step], then: Then, grain: Grain) -> Option<String> {
    let (read, mut write) = tcp.into_split();
    let (mut read, mut tags, mut other) = (BufReader::new(read), Vec::new(), None);
    for step in steps {
        match step {
            Step::Say(said) => {
                let said = replaced(said, &tags);
                let length = if grain == Grain::Whole { said.len().max(1) } else { 1 };
                for piece in said.chunks(length) {
                    if write.write_all(piece).await.is_err() {
                        return other;
                    }
                    tokio::task::yield_now().await;
                }
            }
            Step::HearLine(want) => {
                let mut line = Vec::new();
                if read.read_until(b'\n', &mut line).await.is_ok_and(|length| length == 0) {
                    return other;
                }
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if let Some(rest) = want.strip_prefix("<tag>") {
                    tags.insert(0, line.split(' ').next().unwrap_or_default().to_owned());
                    if !line.contains(rest) {
                        other = other.or(Some(line));
                    }
                }
            }
            Step::HearBytes(length) => {
                if read.read_exact(&mut vec![0; *length]).await.is_err() {
                    return other;
                }
            }
        }
    }
    if then == Then::BeSilent {
        // Until the client leaves.
        let _ = tokio::io::copy(&mut read, &mut tokio::io::sink()).await;
    }
    other
}

/// With the client's words in place of `<tag>`, the last one, and `<tag-1>`, the one before it.
fn replaced(said: &[u8], tags: &[String]) -> Vec<u8> {
    let mark = |back: usize| if back == 0 { "<tag>".to_owned() } else { format!("<tag-{back}>") };
    for (back, tag) in tags.iter().enumerate() {
        let mark = mark(back).into_bytes();
        if let Some(at) = said.windows(mark.len()).position(|window| window == mark) {
            return [&said[..at], tag.as_bytes(), &said[at + mark.len()..]].concat();
        }
    }
    said.to_vec()
}

/// Plays steps to the client and gives its answers; the last tells how the session was closed.
pub(crate) async fn play(
    listener: &TcpListener,
    dialogue: &Dialogue,
    steps: &[Step],
    then: Then,
    grain: Grain,
) -> (Vec<Answer>, Option<String>) {
    let name = &dialogue.name;
    let talk = async { tokio::join!(client(listener, dialogue), server(listener, steps, then, grain)) };
    match tokio::time::timeout(FOREVER, talk).await {
        Ok(both) => both,
        Err(_) => panic!("{name}: hangs with {steps:?}"),
    }
}

async fn server(listener: &TcpListener, steps: &[Step], then: Then, grain: Grain) -> Option<String> {
    let (tcp, _) = listener.accept().await.unwrap();
    tcp.set_nodelay(true).unwrap();
    serve(tcp, steps, then, grain).await
}

async fn client(listener: &TcpListener, dialogue: &Dialogue) -> Vec<Answer> {
    let name = &dialogue.name;
    let protocol = if name.starts_with("pop3/") { Protocol::Pop3 } else { Protocol::Imap };
    let port = Port::new(listener.local_addr().unwrap().port().into()).unwrap();
    let is_tls = ["/starttls", "/stls"].iter().any(|part| name.contains(part)) || name.ends_with("/preauth");
    let tls = if is_tls { Tls::StartTls } else { Tls::None };
    let route = Route::new(
        MailboxId::new(1),
        Revision::new(1),
        protocol,
        Endpoint::new(Host::parse("127.0.0.1").unwrap(), port),
        tls,
    )
    .with_credentials(credentials(name));
    let route = if is_tls { route } else { route.with_danger_plaintext() };
    let timeouts = IncomingTimeouts::all(Duration::from_secs(30));
    let mut session = match ByProtocol::new().with_timeouts(timeouts).open(&route).await {
        Ok(session) => session,
        Err(error) => return vec![Answer::Failed(error.kind())],
    };
    let mut answers = vec![Answer::Told("signed in".into())];
    for act in &dialogue.acts {
        answers.push(perform(session.as_mut(), *act, protocol).await);
    }
    answers.push(Answer::Closed { kept: matches!(session.close().await, CloseReport::Kept) });
    answers
}

fn key(text: &str, protocol: Protocol) -> RemoteKey {
    match protocol {
        Protocol::Pop3 => RemoteKey::Uidl(text.to_owned()),
        _ => RemoteKey::Uid(text.parse().unwrap()),
    }
}

async fn perform(session: &mut dyn IncomingSession, act: Act, protocol: Protocol) -> Answer {
    fn told<T: std::fmt::Debug>(result: Result<T>) -> Answer {
        result.map_or_else(|error| Answer::Failed(error.kind()), |answer| Answer::Told(format!("{answer:?}")))
    }
    let effects = |keys: &[&str], effect: Effect| -> Vec<(RemoteKey, Effect)> {
        keys.iter().map(|text| (key(text, protocol), effect.clone())).collect()
    };
    match act {
        Act::Select(folder, access) => told(session.select(folder, access).await),
        Act::List("", limit) => told(session.list(None, limit).await),
        Act::List(after, limit) => told(session.list(Some(&key(after, protocol)), limit).await),
        Act::Fetch(keys, limit) => {
            let mut many = Many::default();
            let mails = listed(keys.iter().map(|text| key(text, protocol)), limit);
            let result = session.fetch(&mails, limit, &mut many).await;
            let ended = many.0.into_iter().filter_map(|(key, bytes, end)| {
                Some((key.to_string(), end?.map(|()| bytes).map_err(|error| error.kind())))
            });
            Answer::Mails(ended.collect(), result.err().map(|error| error.kind()))
        }
        Act::Folders => told(session.folders().await),
        Act::Find => told(session.find("<a@acme.example>").await),
        Act::Wait(time) => told(session.wait(time).await),
        Act::Delete(keys) => told(session.settle(&effects(keys, Effect::Delete)).await),
        Act::Move(keys, to) => told(session.settle(&effects(keys, Effect::Move(to.to_owned()))).await),
    }
}
