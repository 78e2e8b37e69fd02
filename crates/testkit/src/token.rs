//! A token endpoint of OAuth2 (RFC 6749 sections 5 and 6) over plain HTTP: it gives access tokens that a [`MailServer`] takes, counts who
//! asks, and answers as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::server::MailServer;
use crate::shared::Shared;

#[derive(Debug, Default)]
struct State {
    /// The refresh tokens that are good, and whose they are.
    grants: BTreeMap<String, String>,
    rotates: bool,
    /// How many tokens were given, to number them.
    given: usize,
    requests: usize,
    open: BTreeMap<String, usize>,
    most_at_once: usize,
    pause: Duration,
    life: u64,
    answers: VecDeque<(u16, String, String)>,
}

/// A token endpoint on a loopback port of its own, until it is dropped.
#[derive(Debug)]
pub struct TokenEndpoint {
    port: u16,
    state: Arc<Mutex<State>>,
    _serving: JoinSet<()>,
}

impl TokenEndpoint {
    /// Starts one whose access tokens this server takes.
    ///
    /// # Errors
    /// When no port can be opened.
    pub async fn start(server: &MailServer) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(Mutex::new(State { life: 3600, ..State::default() }));
        let (shared, served) = (server.shared(), Arc::clone(&state));
        let serving = JoinSet::from_iter([async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (state, shared) = (Arc::clone(&served), Arc::clone(&shared));
                connections.spawn(async move {
                    // A client that goes away is its own affair.
                    let _ = serve(stream, &state, &shared).await;
                });
                while connections.try_join_next().is_some() {}
            }
        }]);
        Ok(Self { port, state, _serving: serving })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/token", self.port)
    }

    /// Makes one more refresh token good for an account, and gives it.
    #[must_use]
    pub fn grant(&self, login: &str) -> String {
        let mut state = self.state();
        state.given += 1;
        let token = format!("refresh-{login}-{}", state.given);
        state.grants.insert(token.clone(), login.to_owned());
        token
    }

    /// Takes every refresh token of an account back.
    pub fn revoke(&self, login: &str) {
        self.state().grants.retain(|_, owner| owner != login);
    }

    /// From now on each answer has a new refresh token, and the one that was given is good no more.
    pub fn rotate(&self) {
        self.state().rotates = true;
    }

    /// From now on each answer takes so long.
    pub fn take(&self, pause: Duration) {
        self.state().pause = pause;
    }

    /// From now on access tokens are said to be good for so many seconds.
    pub fn give_for(&self, seconds: u64) {
        self.state().life = seconds;
    }

    /// The next request is answered by this status, these header lines (each with its CRLF) and this content.
    pub fn answer(&self, status: u16, headers: &str, body: &str) {
        self.state().answers.push_back((status, headers.to_owned(), body.to_owned()));
    }

    /// How many requests there were.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.state().requests
    }

    /// How many requests with one refresh token were open at once, at most.
    #[must_use]
    pub fn most_at_once(&self) -> usize {
        self.state().most_at_once
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(mut stream: TcpStream, state: &Mutex<State>, shared: &Shared) -> io::Result<()> {
    let form = read_form(&mut stream).await?;
    let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let token = field("refresh_token").unwrap_or_default();
    let (pause, scripted) = {
        let mut state = lock(state);
        state.requests += 1;
        let open = state.open.entry(token.clone()).or_default();
        *open += 1;
        let open = *open;
        state.most_at_once = state.most_at_once.max(open);
        (state.pause, state.answers.pop_front())
    };
    tokio::time::sleep(pause).await;
    let (status, headers, body) = {
        let mut state = lock(state);
        if let Some(open) = state.open.get_mut(&token) {
            *open -= 1;
        }
        scripted.unwrap_or_else(|| state.give(&token, shared))
    };
    let head = format!("HTTP/1.1 {status} as told\r\nContent-Type: application/json\r\n{headers}");
    let answer = format!("{head}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

impl State {
    fn give(&mut self, token: &str, shared: &Shared) -> (u16, String, String) {
        let Some(login) = self.grants.get(token).cloned() else {
            return (400, String::new(), r#"{"error":"invalid_grant"}"#.to_owned());
        };
        self.given += 1;
        let (number, life) = (self.given, self.life);
        let access = format!("access-{login}-{number}");
        shared.change(|store| {
            store.takes_tokens = true;
            if let Some(account) = store.account_mut(&login) {
                account.tokens.insert(access.clone());
            }
        });
        let refresh = if self.rotates {
            self.grants.remove(token);
            let next = format!("refresh-{login}-{number}");
            self.grants.insert(next.clone(), login);
            format!(r#","refresh_token":"{next}""#)
        } else {
            String::new()
        };
        let body =
            format!(r#"{{"access_token":"{access}","token_type":"Bearer","expires_in":{life}{refresh}}}"#);
        (200, String::new(), body)
    }
}

/// The form of a request. Its head has at most 16 KiB, its content as much.
async fn read_form(stream: &mut TcpStream) -> io::Result<Vec<(String, String)>> {
    const MOST: usize = 16 * 1024;
    let mut bytes = Vec::new();
    let (body, length) = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..at]).to_ascii_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            break (at + 4, length.unwrap_or(0_usize).min(MOST));
        }
        if bytes.len() > MOST || stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    };
    while bytes.len() < body + length {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let form = String::from_utf8_lossy(&bytes[body..body + length]).into_owned();
    let pair = |pair: &str| pair.split_once('=').map(|(key, value)| (plain(key), plain(value)));
    Ok(form.split('&').filter_map(pair).collect())
}

/// `application/x-www-form-urlencoded`.
fn plain(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex: String = bytes.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&hex, 16).unwrap_or(b'?')
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}
