//! The other client of a box: it speaks just enough IMAP (RFC 3501, RFC 4315) to put, read, mark, move and delete mail, at servers
//! without extensions, too. It shares no code with postroom's own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::outcome::Outcome;

/// However slow the server is.
const PATIENCE: Duration = Duration::from_secs(60);

/// One untagged reply: its text, literals left out of it, and the literals.
#[derive(Debug, Default)]
pub(super) struct Reply {
    text: String,
    literals: Vec<Vec<u8>>,
}

/// A session, signed in.
#[derive(Debug)]
pub(super) struct Client {
    stream: BufReader<TcpStream>,
    tag: u32,
}

impl Client {
    pub(super) fn sign_in(address: SocketAddr, user: &str, password: &str) -> Outcome<Self> {
        let failed = |error: std::io::Error| format!("the other client at {address}: {error}");
        let stream = TcpStream::connect(address).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let mut client = Self { stream: BufReader::new(stream), tag: 0 };
        client.line()?;
        client.command(&format!("LOGIN {user} {password}"))?;
        Ok(client)
    }

    /// A line as text, with the literals in it read.
    fn line(&mut self) -> Outcome<Reply> {
        let failed = |error: std::io::Error| format!("the other client: {error}");
        let mut reply = Reply::default();
        loop {
            let mut bytes = Vec::new();
            if self.stream.read_until(b'\n', &mut bytes).map_err(failed)? == 0 {
                return Err("the other client: the server has hung up".into());
            }
            reply.text.push_str(String::from_utf8_lossy(&bytes).trim_end());
            let announced = reply.text.strip_suffix('}').and_then(|text| text.rsplit_once('{'));
            let Some(length) = announced.and_then(|(_, digits)| digits.parse().ok()) else {
                return Ok(reply);
            };
            let mut literal = vec![0; length];
            self.stream.read_exact(&mut literal).map_err(failed)?;
            reply.literals.push(literal);
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.stream.get_mut().write_all(bytes).map_err(|error| format!("the other client: {error}"))
    }

    /// Send a command and read up to its end.
    pub(super) fn command(&mut self, command: &str) -> Outcome<Vec<Reply>> {
        let tag = self.next_tag();
        self.write(format!("{tag} {command}\r\n").as_bytes())?;
        self.replies(&tag, command)
    }

    fn next_tag(&mut self) -> String {
        self.tag += 1;
        format!("o{}", self.tag)
    }

    fn replies(&mut self, tag: &str, command: &str) -> Outcome<Vec<Reply>> {
        let mut replies = Vec::new();
        loop {
            let reply = self.line()?;
            match reply.text.strip_prefix(tag).and_then(|rest| rest.strip_prefix(' ')) {
                Some(rest) if rest.starts_with("OK") => return Ok(replies),
                Some(rest) => return Err(format!("the other client: {command}: {rest}")),
                None => replies.push(reply),
            }
        }
    }

    /// Put a mail into a folder.
    pub(super) fn put(&mut self, folder: &str, mail: &[u8]) -> Outcome<()> {
        let tag = self.next_tag();
        let command = format!("APPEND {folder}");
        self.write(format!("{tag} {command} {{{}}}\r\n", mail.len()).as_bytes())?;
        let asked = self.line()?;
        if !asked.text.starts_with('+') {
            return Err(format!("the other client: {command}: {}", asked.text));
        }
        self.write(mail)?;
        self.write(b"\r\n")?;
        self.replies(&tag, &command).map(drop)
    }

    /// The UIDs in INBOX, which is selected by this.
    pub(super) fn uids(&mut self) -> Outcome<Vec<u32>> {
        self.command("SELECT INBOX")?;
        let found = self.command("UID SEARCH ALL")?;
        let lists = found.iter().filter_map(|reply| reply.text.strip_prefix("* SEARCH"));
        Ok(lists.flat_map(str::split_whitespace).filter_map(|uid| uid.parse().ok()).collect())
    }

    /// A mail of the selected folder, unread by this, if it is there.
    pub(super) fn read(&mut self, uid: u32) -> Outcome<Option<Vec<u8>>> {
        let replies = self.command(&format!("UID FETCH {uid} (UID BODY.PEEK[])"))?;
        Ok(replies.into_iter().find_map(|reply| reply.literals.into_iter().next()))
    }

    /// Mark a mail of the selected folder.
    pub(super) fn mark(&mut self, uid: u32, flag: &str) -> Outcome<()> {
        self.command(&format!("UID STORE {uid} +FLAGS.SILENT ({flag})")).map(drop)
    }

    /// Delete a mail of the selected folder for good.
    pub(super) fn delete(&mut self, uid: u32) -> Outcome<()> {
        self.mark(uid, "\\Deleted")?;
        self.command(&format!("UID EXPUNGE {uid}")).map(drop)
    }

    /// Move a mail of the selected folder.
    pub(super) fn move_to(&mut self, uid: u32, folder: &str) -> Outcome<()> {
        self.command(&format!("UID COPY {uid} {folder}"))?;
        self.delete(uid)
    }
}
