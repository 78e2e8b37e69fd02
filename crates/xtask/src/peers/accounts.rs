//! The sign-ins at Courier and Cyrus: a socket of each server's own protocol at which every user name is known, with a mail store of
//! its own, and all have one password. Dovecot needs none of this.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::chown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::dovecot::PASSWORD;
use super::place::{Place, allow};
use crate::outcome::Outcome;

/// No server that lives takes so long between two bytes.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than any request has.
const LONGEST: u64 = 4096;

/// How a server asks.
#[derive(Clone, Debug)]
pub(super) enum Asking {
    /// As authdaemond is asked (courier-authlib, "authdaemond's protocol"). A user's maildir is made below `mail`.
    Authdaemon { mail: PathBuf, user: u32, group: u32 },
    /// As saslauthd is asked: four counted texts, and one comes back.
    Saslauthd,
}

/// Answers until it is dropped.
#[derive(Debug)]
pub(super) struct Accounts {
    socket: PathBuf,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Accounts {
    pub(super) fn open(place: &Place, socket: &str, asking: Asking) -> Outcome<Self> {
        let socket = place.file(socket);
        let failed = |error: io::Error| format!("{}: {error}", socket.display());
        let listener = UnixListener::bind(&socket).map_err(failed)?;
        allow(&socket, 0o666)?;
        let ended = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            for asked in listener.incoming() {
                if seen.load(Ordering::SeqCst) {
                    break;
                }
                // A server that breaks off says so in its own log.
                let _ = asked.and_then(|asked| answer(&asked, &asking));
            }
        });
        Ok(Self { socket, ended, thread: Some(thread) })
    }
}

impl Drop for Accounts {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // It looks at the flag when somebody comes.
        if UnixStream::connect(&self.socket).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn answer(stream: &UnixStream, asking: &Asking) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut asked = BufReader::new(stream).take(LONGEST);
    let reply = match asking {
        Asking::Authdaemon { mail, user, group } => {
            let told = match authdaemon_request(&mut asked)? {
                Some(name) => {
                    let home = maildir(mail, &name, *user, *group)?;
                    format!(
                        "UID={user}\nGID={group}\nHOME={}\nADDRESS={name}\nMAILDIR=Maildir\n.\n",
                        home.display()
                    )
                }
                None => "FAIL\n".to_owned(),
            };
            told.into_bytes()
        }
        Asking::Saslauthd => {
            let word: &[u8] = if saslauthd_request(&mut asked)? { b"OK" } else { b"NO" };
            [&[0, 2], word].concat()
        }
    };
    let mut stream = stream;
    stream.write_all(&reply)
}

/// The user, if the password is right.
fn authdaemon_request(asked: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    let length = loop {
        line.clear();
        if asked.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        // Facts of the connection come first.
        match line.trim_end().strip_prefix("AUTH ") {
            Some(length) => break length.parse().unwrap_or(0),
            None if line.contains('=') => {}
            None => return Ok(None),
        }
    };
    let mut text = String::new();
    asked.take(length).read_to_string(&mut text)?;
    let mut words = text.split('\n');
    let (kind, name, password) = (words.nth(1), words.next(), words.next());
    let right = kind == Some("login") && password == Some(PASSWORD);
    Ok(name.filter(|name| right && is_plain(name)).map(str::to_owned))
}

/// Whether the password is right.
fn saslauthd_request(asked: &mut impl Read) -> io::Result<bool> {
    let mut texts = Vec::new();
    for _ in 0..4 {
        let mut length = [0; 2];
        asked.read_exact(&mut length)?;
        let mut text = vec![0; usize::from(u16::from_be_bytes(length))];
        asked.read_exact(&mut text)?;
        texts.push(text);
    }
    Ok(texts.get(1).is_some_and(|password| password == PASSWORD.as_bytes()))
}

/// Whether a name is one of a folder.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains('/')
}

/// A user's home, with a maildir in it.
fn maildir(mail: &std::path::Path, name: &str, user: u32, group: u32) -> io::Result<PathBuf> {
    let home = mail.join(name);
    for part in ["", "Maildir", "Maildir/cur", "Maildir/new", "Maildir/tmp"] {
        let folder = home.join(part);
        if !folder.exists() {
            std::fs::create_dir_all(&folder)?;
            chown(&folder, Some(user), Some(group))?;
        }
    }
    Ok(home)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authdaemon_tells_a_right_password_from_a_wrong_one_and_a_name_from_a_path() {
        let ask = |body: &str| {
            let text = format!("TCPREMOTEIP=::1\nAUTH {}\n{body}", body.len());
            authdaemon_request(&mut text.as_bytes()).unwrap()
        };
        assert_eq!(ask("imap\nlogin\nana\nsecret\n").as_deref(), Some("ana"));
        for wrong in
            ["imap\nlogin\nana\nother\n", "imap\nlogin\n../x\nsecret\n", "imap\ncram-md5\nana\nsecret\n", ""]
        {
            assert_eq!(ask(wrong), None, "{wrong}");
        }
        assert_eq!(authdaemon_request(&mut "ENUMERATE\n".as_bytes()).unwrap(), None);
    }

    #[test]
    fn saslauthd_tells_a_right_password_from_a_wrong_one() {
        let ask = |password: &str| {
            let counted = |text: &str| [&[0, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
            let text = ["ana", password, "imap", ""].map(counted).concat();
            saslauthd_request(&mut text.as_slice()).unwrap()
        };
        assert!(ask("secret"));
        assert!(!ask("other") && !ask(""));
    }
}
