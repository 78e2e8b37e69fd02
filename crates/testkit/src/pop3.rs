//! The POP3 side (RFC 1939, RFC 2449, RFC 2595): a loop over commands. Deletions happen at QUIT and nowhere else.

use crate::{folder::Withheld, message, sasl, sasl::Credentials, session::Connection, store::INBOX};
use bytes::Bytes;
use std::{collections::BTreeSet, io};

/// A message of the maildrop as it was at sign-in.
struct Held {
    uid: u32,
    bytes: Bytes,
    deleted: bool,
    withheld: Option<Withheld>,
}

struct Pop3 {
    connection: Connection,
    user: Option<String>,
    /// None before sign-in (the AUTHORIZATION state).
    maildrop: Option<Maildrop>,
}

struct Maildrop {
    uid_validity: u32,
    held: Vec<Held>,
}

/// What follows `+OK ` or `-ERR `, with the lines of a multi-line answer.
enum Reply {
    Ok(String),
    Lines(String, Vec<u8>),
    Err(String),
    /// Nothing: the connection ends.
    HangUp,
}

fn ok(text: impl Into<String>) -> Reply {
    Reply::Ok(text.into())
}

fn err(text: impl Into<String>) -> Reply {
    Reply::Err(text.into())
}

/// Serves one connection until either side ends it.
pub(crate) async fn serve(connection: Connection) -> io::Result<()> {
    let mut pop3 = Pop3 { connection, user: None, maildrop: None };
    pop3.say(ok("postroom-testkit ready")).await?;
    loop {
        let line = match pop3.connection.wire.read_line().await {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return pop3.say(err(error.to_string())).await;
            }
            line => line?,
        };
        let line = String::from_utf8_lossy(&line).into_owned();
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let reply = match verb.to_ascii_uppercase().as_str() {
            "QUIT" => {
                let farewell = pop3.quit();
                pop3.say(farewell).await?;
                return pop3.connection.wire.close().await;
            }
            "STLS" if pop3.connection.offers_tls() && pop3.maildrop.is_none() => {
                pop3.say(ok("begin TLS")).await?;
                pop3.connection.start_tls().await?;
                pop3.user = None;
                continue;
            }
            "AUTH" => pop3.auth(rest).await?,
            verb => pop3.command(verb, rest),
        };
        if matches!(reply, Reply::HangUp) {
            return pop3.connection.wire.close().await;
        }
        pop3.say(reply).await?;
    }
}

impl Pop3 {
    /// The one place where replies are written.
    async fn say(&mut self, reply: Reply) -> io::Result<()> {
        let bytes = match reply {
            Reply::Ok(text) => format!("+OK {text}\r\n").into_bytes(),
            Reply::Err(text) => format!("-ERR {text}\r\n").into_bytes(),
            Reply::HangUp => Vec::new(),
            Reply::Lines(text, lines) => {
                let mut bytes = format!("+OK {text}\r\n").into_bytes();
                stuff(&lines, &mut bytes);
                bytes
            }
        };
        self.connection.wire.write(&bytes).await
    }

    fn command(&mut self, verb: &str, rest: &str) -> Reply {
        match (verb, self.maildrop.is_some()) {
            ("CAPA", _) => Reply::Lines("capabilities".into(), self.capabilities()),
            ("NOOP", true) => ok("nothing done"),
            ("USER", false) if !self.connection.may_sign_in() => err("[AUTH] begin TLS first"),
            ("USER", false) if self.connection.offers("USER") && !rest.is_empty() => {
                self.user = Some(rest.to_owned());
                ok("go on")
            }
            ("PASS", false) => match self.user.take() {
                Some(login) => self.sign_in(&Credentials { login, password: rest.to_owned() }),
                None => err("USER first"),
            },
            ("STAT" | "LIST" | "UIDL" | "RETR" | "TOP" | "DELE" | "RSET", true) => {
                let offers = self.connection.offers(verb);
                match &mut self.maildrop {
                    Some(maildrop) if offers => maildrop.command(verb, rest),
                    _ => err("unknown command"),
                }
            }
            _ => err("unknown command, or not in this state"),
        }
    }

    fn capabilities(&self) -> Vec<u8> {
        let connection = &self.connection;
        let mut lines = String::new();
        for capability in ["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING"] {
            if connection.offers(capability) {
                lines.push_str(&format!("{capability}\r\n"));
            }
        }
        if connection.offers_tls() {
            lines.push_str("STLS\r\n");
        }
        if connection.may_sign_in() && connection.offers("USER") {
            lines.push_str("USER\r\n");
        }
        if connection.may_sign_in() && connection.offers("SASL") {
            let tokens = ["OAUTHBEARER", "XOAUTH2"].into_iter().filter(|name| connection.offers_tokens(name));
            let mechanisms: Vec<&str> = ["PLAIN"].into_iter().chain(tokens).collect();
            lines.push_str(&format!("SASL {}\r\n", mechanisms.join(" ")));
        }
        lines.into_bytes()
    }

    /// AUTH PLAIN with and without an initial response (RFC 5034).
    async fn auth(&mut self, rest: &str) -> io::Result<Reply> {
        let (mechanism, initial) = rest.split_once(' ').unwrap_or((rest, ""));
        let mechanism = mechanism.to_ascii_uppercase();
        if self.maildrop.is_some()
            || !self.connection.offers("SASL")
            || mechanism != "PLAIN" && !self.connection.offers_tokens(&mechanism)
        {
            return Ok(err("mechanism not offered, or not in this state"));
        }
        if !self.connection.may_sign_in() {
            return Ok(err("[AUTH] begin TLS first"));
        }
        let message = match initial {
            "" => {
                self.connection.wire.write(b"+ \r\n").await?;
                self.connection.wire.read_line().await?
            }
            initial => initial.as_bytes().to_vec(),
        };
        if mechanism != "PLAIN" {
            let message = sasl::text(&message).unwrap_or_default();
            let Some(given) = sasl::bearer(&mechanism, message.as_bytes()) else {
                return Ok(err("not a message of the mechanism"));
            };
            if self.connection.sign_in_by_token(&given) {
                return Ok(self.enter(&given.login));
            }
            self.connection.wire.write(format!("+ {}\r\n", sasl::TOKEN_REFUSED).as_bytes()).await?;
            self.connection.wire.read_line().await?;
            return Ok(err("[AUTH] the token is not valid"));
        }
        Ok(match sasl::plain_in_base64(&message) {
            Some(given) => self.sign_in(&given),
            None => err("cancelled, or not a PLAIN message"),
        })
    }

    fn sign_in(&mut self, given: &Credentials) -> Reply {
        if !self.connection.sign_in(given) {
            return err("[AUTH] wrong login or password");
        }
        self.enter(&given.login)
    }

    fn enter(&mut self, login: &str) -> Reply {
        let id = self.connection.id;
        // RFC 1939 section 4: one session at a time has the maildrop.
        let maildrop = self.connection.shared.change(|store| {
            let account = store.account_mut(login)?;
            if account.maildrop.is_some() {
                return None;
            }
            account.maildrop = Some(id);
            let inbox = account.folders.get(INBOX)?;
            let held = inbox.messages.iter().map(|kept| Held {
                uid: kept.uid,
                bytes: kept.bytes.clone(),
                deleted: false,
                withheld: inbox.withheld.get(&kept.uid).copied(),
            });
            let held = held.collect();
            Some(Maildrop { uid_validity: inbox.uid_validity, held })
        });
        match maildrop {
            None => err("[IN-USE] another session has the maildrop"),
            Some(maildrop) => {
                self.maildrop = Some(maildrop);
                ok("signed in")
            }
        }
    }

    /// RFC 1939 section 6: the UPDATE state.
    fn quit(&mut self) -> Reply {
        let (Some(maildrop), Some(login)) = (self.maildrop.take(), self.connection.login.clone()) else {
            return ok("bye");
        };
        let deleted: BTreeSet<u32> =
            maildrop.held.iter().filter(|held| held.deleted).map(|held| held.uid).collect();
        let removed = self.connection.shared.change(|store| {
            store
                .folder_mut(&login, INBOX)
                .filter(|inbox| inbox.uid_validity == maildrop.uid_validity)
                .map_or(0, |inbox| inbox.remove(&deleted))
        });
        match removed == deleted.len() {
            true => ok(format!("bye, {removed} deleted")),
            false => err("some deleted messages not removed"),
        }
    }
}

impl Maildrop {
    fn listed(&self) -> impl Iterator<Item = (usize, &Held)> {
        self.held.iter().enumerate().filter(|(_, held)| !held.deleted).map(|(at, held)| (at + 1, held))
    }

    fn index(&self, number: &str) -> Option<usize> {
        let number: usize = number.parse().ok()?;
        self.listed().any(|(listed, _)| listed == number).then(|| number - 1)
    }

    fn command(&mut self, verb: &str, rest: &str) -> Reply {
        let count = self.listed().count();
        let total: usize = self.listed().map(|(_, held)| held.bytes.len()).sum();
        let validity = self.uid_validity;
        let describe = |number: usize, held: &Held| match verb {
            "UIDL" => format!("{number} {validity:08x}{:08x}", held.uid),
            _ => format!("{number} {}", held.bytes.len()),
        };
        let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
        match (verb, first, self.index(first)) {
            ("STAT", "", _) => ok(format!("{count} {total}")),
            ("RSET", "", _) => {
                self.held.iter_mut().for_each(|held| held.deleted = false);
                ok("nothing is deleted")
            }
            ("LIST" | "UIDL", "", _) => {
                let lines: Vec<_> =
                    self.listed().map(|(number, held)| describe(number, held) + "\r\n").collect();
                Reply::Lines(format!("{count} messages"), lines.concat().into_bytes())
            }
            (_, _, None) => err("no such message"),
            ("LIST" | "UIDL", _, Some(at)) => ok(describe(at + 1, &self.held[at])),
            ("RETR", _, Some(at)) => match &self.held[at] {
                Held { withheld: Some(Withheld::Refused), .. } => err("this message can not be read"),
                Held { withheld: Some(Withheld::HungUp), .. } => Reply::HangUp,
                Held { bytes, .. } => Reply::Lines(format!("{} octets", bytes.len()), bytes.to_vec()),
            },
            ("TOP", _, Some(at)) => match second.parse() {
                Ok(lines) => Reply::Lines("top".into(), message::top(&self.held[at].bytes, lines).to_vec()),
                Err(_) => err("TOP needs a number of lines"),
            },
            (_, _, Some(at)) => {
                self.held[at].deleted = true;
                ok("will be deleted at QUIT")
            }
        }
    }
}

/// Appends the lines with dots stuffed, and the final dot (RFC 1939 section 3).
fn stuff(lines: &[u8], out: &mut Vec<u8>) {
    let mut at_start = true;
    for (at, &byte) in lines.iter().enumerate() {
        if at_start && byte == b'.' {
            out.push(b'.');
        }
        out.push(byte);
        at_start = byte == b'\n' && at > 0 && lines[at - 1] == b'\r';
    }
    if !at_start {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_stuffed_at_line_starts_only_and_the_last_line_is_ended() {
        for (lines, sent) in [
            (&b""[..], &b".\r\n"[..]),
            (b".", b"..\r\n.\r\n"),
            (b"a.b\r\n..\r\n", b"a.b\r\n...\r\n.\r\n"),
            (b"a\n.\r\n", b"a\n.\r\n.\r\n"),
        ] {
            let mut out = Vec::new();
            stuff(lines, &mut out);
            assert_eq!(out, sent, "{lines:?}");
        }
    }
}
