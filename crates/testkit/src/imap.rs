//! The IMAP side (RFC 3501): a loop over commands, and which command may come when. What each does is in the rooms below.

mod change;
mod fetch;
mod folders;
mod read;
mod reply;
mod search;
mod selected;
mod sign_in;
mod view;

use crate::session::Connection;
use imap_codec::{
    CommandCodec,
    decode::Decoder,
    imap_types::{
        command::{Command, CommandBody},
        mailbox::Mailbox,
    },
};
use read::Frame;
use reply::{Untagged, Verdict};
use std::{io, time::SystemTime};
use view::{Access, Expunges, View};

struct Imap {
    connection: Connection,
    view: Option<View>,
    out: Untagged,
}

/// Serves one connection until either side ends it.
pub(crate) async fn serve(connection: Connection) -> io::Result<()> {
    let mut imap = Imap { connection, view: None, out: Untagged::default() };
    let capabilities = sign_in::capabilities(&imap.connection);
    imap.out.line(&format!("OK [CAPABILITY {capabilities}] postroom-testkit ready"));
    imap.say("").await?;
    loop {
        let frame = match read::command(&mut imap.connection).await {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                imap.out.line(&format!("BYE {error}"));
                return imap.say("").await;
            }
            frame => frame?,
        };
        match frame {
            Frame::Refused(answer) => imap.say(&format!("{answer}\r\n")).await?,
            Frame::Fatal(answer) => {
                imap.say(&format!("{answer}\r\n* BYE out of step\r\n")).await?;
                return imap.connection.wire.close().await;
            }
            Frame::Command(_) if imap.connection.has_expired() => {
                imap.out.line("BYE session expired, please sign in again");
                imap.say("").await?;
                return imap.connection.wire.close().await;
            }
            Frame::Command(frame) => {
                let Ok((_, command)) = CommandCodec::new().decode(&frame) else {
                    return Err(io::Error::other("the grammar does not know what it knew before"));
                };
                if imap.command(command).await? {
                    return imap.connection.wire.close().await;
                }
            }
        }
    }
}

/// The last words about a command, and whether the session ends.
fn tagged(tag: &str, verdict: Verdict) -> (String, bool) {
    match verdict {
        Verdict::Ok(text) => (format!("{tag} OK {text}\r\n"), false),
        Verdict::No(text) => (format!("{tag} NO {text}\r\n"), false),
        Verdict::Bad(text) => (format!("{tag} BAD {text}\r\n"), false),
        Verdict::Bye(text) => (format!("* BYE {text}\r\n"), true),
    }
}

/// RFC 3501 section 7.4.1: no EXPUNGE while these are answered, because it would change the meaning of their numbers.
fn expunges(body: &CommandBody<'_>) -> Expunges {
    match body {
        CommandBody::Fetch { uid: false, .. }
        | CommandBody::Store { uid: false, .. }
        | CommandBody::Search { uid: false, .. } => Expunges::Held,
        _ => Expunges::Told,
    }
}

impl Imap {
    /// The one place where responses are written: what is untagged and waiting, then `last`.
    async fn say(&mut self, last: &str) -> io::Result<()> {
        let mut bytes = self.out.take();
        bytes.extend_from_slice(last.as_bytes());
        self.connection.wire.write(&bytes).await
    }

    /// Obeys one command; true when the session is over.
    async fn command(&mut self, command: Command<'_>) -> io::Result<bool> {
        let tag = command.tag.as_ref();
        let signed_in = self.connection.login.is_some();
        let expunges = expunges(&command.body);
        let verdict = match command.body {
            CommandBody::Logout => {
                self.out.line("BYE see you");
                self.say(&format!("{tag} OK logged out\r\n")).await?;
                return Ok(true);
            }
            CommandBody::StartTLS if !signed_in && self.connection.offers_tls() => {
                self.say(&format!("{tag} OK begin TLS\r\n")).await?;
                self.connection.start_tls().await?;
                return Ok(false);
            }
            CommandBody::Authenticate { mechanism, initial_response } if !signed_in => {
                let initial = initial_response.as_ref().map(|secret| secret.declassify().as_ref());
                sign_in::authenticate(&mut self.connection, &mechanism, initial).await?
            }
            CommandBody::Login { username, password } if !signed_in => {
                let password = password.declassify().as_ref();
                sign_in::login(&mut self.connection, username.as_ref(), password)
            }
            CommandBody::Idle if signed_in && self.connection.offers("IDLE") => self.idle().await?,
            body => self.obey(body).unwrap_or_else(|verdict| verdict),
        };
        let verdict = match verdict {
            Verdict::Ok(_) | Verdict::No(_) => self.sync(expunges).map_or_else(|bye| bye, |()| verdict),
            verdict => verdict,
        };
        let (last, over) = tagged(tag, verdict);
        self.say(&last).await?;
        Ok(over)
    }

    /// Gathers what the client has not been told about its folder.
    fn sync(&mut self, expunges: Expunges) -> Result<(), Verdict> {
        let Some(view) = &mut self.view else { return Ok(()) };
        self.connection.shared.read(|store| view.sync(store, expunges, &mut self.out))
    }

    /// RFC 2177: tells changes as they come, until DONE.
    async fn idle(&mut self) -> io::Result<Verdict> {
        // Subscribed before the first look, so that no change falls between.
        let login = self.connection.login.as_deref().unwrap_or_default();
        let Some(mut changes) = self.connection.shared.read(|store| store.changes_of(login)) else {
            return Ok(Verdict::bad("not before sign-in"));
        };
        self.connection.wire.write(b"+ idling\r\n").await?;
        loop {
            if let Err(bye) = self.sync(Expunges::Told) {
                return Ok(bye);
            }
            let news = self.out.take();
            if !news.is_empty() {
                self.connection.wire.write(&news).await?;
            }
            tokio::select! {
                line = self.connection.wire.read_line() => {
                    return Ok(match line?.eq_ignore_ascii_case(b"DONE") {
                        true => Verdict::ok("idled"),
                        false => Verdict::bad("DONE was expected"),
                    });
                }
                _ = changes.changed() => {}
            }
        }
    }

    /// The commands that need nothing more from the client.
    fn obey(&mut self, body: CommandBody<'_>) -> Result<Verdict, Verdict> {
        match body {
            CommandBody::Capability => {
                self.out.line(&format!("CAPABILITY {}", sign_in::capabilities(&self.connection)));
                return Ok(Verdict::ok("that is all"));
            }
            CommandBody::Noop => return Ok(Verdict::ok("nothing done")),
            CommandBody::Id { .. } if self.connection.offers("ID") => {
                self.out.line("ID (\"name\" \"postroom-testkit\")");
                return Ok(Verdict::ok("that is who"));
            }
            _ => {}
        }
        let Some(login) = self.connection.login.clone() else {
            return Err(Verdict::bad("not before sign-in"));
        };
        let shared = &self.connection.shared;
        let out = &mut self.out;
        match &body {
            CommandBody::Namespace if self.connection.offers("NAMESPACE") => {
                out.line("NAMESPACE ((\"\" \"/\")) NIL NIL");
                Ok(Verdict::ok("that is the namespace"))
            }
            CommandBody::List { reference, mailbox_wildcard } => {
                shared.read(|store| folders::list("LIST", store, &login, reference, mailbox_wildcard, out))
            }
            CommandBody::Lsub { reference, mailbox_wildcard } => {
                shared.read(|store| folders::list("LSUB", store, &login, reference, mailbox_wildcard, out))
            }
            CommandBody::Subscribe { .. } | CommandBody::Unsubscribe { .. } => {
                Ok(Verdict::ok("every folder counts as subscribed"))
            }
            CommandBody::Status { mailbox, item_names } => {
                shared.read(|store| folders::status(store, &login, mailbox, item_names, out))
            }
            CommandBody::Create { mailbox } => shared.change(|store| folders::create(store, &login, mailbox)),
            CommandBody::Delete { mailbox } => shared.change(|store| folders::delete(store, &login, mailbox)),
            CommandBody::Rename { from, to } => {
                shared.change(|store| folders::rename(store, &login, from, to))
            }
            CommandBody::Append { mailbox, flags, date, message } => {
                let received =
                    date.as_ref().map_or_else(|| shared.now(), |date| SystemTime::from(*date.as_ref()));
                let code = shared
                    .change(|store| change::append(store, &login, mailbox, flags, received, message))?;
                Ok(reply::with_code(Some(code).filter(|_| self.connection.offers("UIDPLUS")), "appended"))
            }
            CommandBody::Select { mailbox } => self.select(&login, mailbox, Access::ReadWrite),
            CommandBody::Examine { mailbox } => self.select(&login, mailbox, Access::ReadOnly),
            _ => selected::obey(&self.connection, &mut self.view, out, &body),
        }
    }

    fn select(&mut self, login: &str, mailbox: &Mailbox<'_>, access: Access) -> Result<Verdict, Verdict> {
        // RFC 3501 section 6.3.1: a failed SELECT leaves no folder selected.
        self.view = None;
        let name = folders::name(mailbox)?;
        let out = &mut self.out;
        self.view = self.connection.shared.read(|store| {
            store.folder(login, &name).map(|folder| View::open(login, &name, folder, access, out))
        });
        match (&self.view, access) {
            (None, _) => Err(folders::missing()),
            (_, Access::ReadWrite) => Ok(Verdict::ok("[READ-WRITE] selected")),
            (_, Access::ReadOnly) => Ok(Verdict::ok("[READ-ONLY] examined")),
        }
    }
}
