//! A box at a real server, a `postroom` that receives from it, and the other client that uses the box meanwhile. When the workers die
//! is not decided here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::outcome::Outcome;
use crate::peers::{Incoming, IncomingProtocol, Renumbering};
use crate::process;

use super::super::dice::Dice;
use super::super::installation::{Installation, PATIENCE, Worker, text};
use super::account::{Account, Fate, Written};
use super::client::Client;
use super::relay::Relay;
use super::scene::{Scene, Take};

/// Where the other client moves mail to, and where postroom does.
const THEIRS: &str = "Theirs";
const OURS: &str = "Done";

/// What mails say.
const LINE: &str = ".It is on fire.\r\n";

/// The box and its readers.
#[derive(Debug)]
pub(super) struct Office<'a> {
    server: &'a Incoming,
    relay: &'a Relay,
    postroom: Installation,
    user: String,
    put: BTreeMap<String, (Fate, Vec<u8>)>,
}

impl<'a> Office<'a> {
    /// An empty box, registered at an empty `postroom`.
    pub(super) fn open(scene: &'a Scene, take: Take, seed: u64) -> Outcome<Self> {
        let server = &scene.server;
        // A round that failed may have left it closed.
        scene.relay.go_on();
        let postroom = Installation::open(&scene.binary, scene.database.as_ref())?;
        let number = getrandom::u32().map_err(|error| format!("no name for a box: {error}"))?;
        let user = format!("box{seed:x}x{number:x}");
        let office = Self { server, relay: &scene.relay, postroom, user, put: BTreeMap::new() };
        let mut client = office.client()?;
        for folder in [THEIRS, OURS] {
            client.command(&format!("CREATE {}", server.folder(folder)))?;
        }
        let address = scene.relay.address();
        let (host, port, authority) =
            (address.ip().to_string(), address.port().to_string(), server.authority().display().to_string());
        let provider = match scene.protocol {
            IncomingProtocol::Imap => "imap",
            IncomingProtocol::Imaps => "imaps",
            IncomingProtocol::Pop3 => "pop3",
            IncomingProtocol::Pop3s => "pop3s",
        };
        let after = match take {
            Take::Leave => "leave".to_owned(),
            Take::Mark => "seen".to_owned(),
            Take::Delete => "delete".to_owned(),
            Take::Move => format!("move:{}", server.folder(OURS)),
        };
        let form = [
            ["--description", "in"],
            ["--server", &host],
            ["--port", &port],
            ["--user", &office.user],
            ["--provider", provider],
            ["--after", &after],
            ["--baseline", "all"],
            ["--ca", &authority],
        ];
        let form = [&["mailbox", "add", "inbox", "--password-stdin"][..], form.as_flattened()].concat();
        let inbox = office.postroom.call_with_password(&form, Incoming::PASSWORD)?;
        let inbox = inbox.first().map(|inbox| text(inbox, "id")).unwrap_or_default();
        office.postroom.call(&["contract", "link", "ACME", "--standard"])?;
        office.postroom.call(&["contract", "inbox", "ACME", &inbox])?;
        Ok(office)
    }

    fn client(&self) -> Outcome<Client> {
        Client::sign_in(self.server.address(IncomingProtocol::Imap), &self.user, Incoming::PASSWORD)
    }

    /// Put so many more mails into the box. No two are alike.
    pub(super) fn put(&mut self, count: u32, dice: &mut Dice) -> Outcome<()> {
        let mut client = self.client()?;
        for _ in 0..count {
            let lines = usize::try_from(dice.below(40)).unwrap_or_default();
            self.put_one(&mut client, 1 + lines)?;
        }
        Ok(())
    }

    /// The same of mails of at least so many bytes each; gives the Message-ID of the last.
    pub(super) fn put_large(&mut self, count: usize, bytes: usize) -> Outcome<String> {
        let mut client = self.client()?;
        let mut last = String::new();
        for _ in 0..count {
            last = self.put_one(&mut client, 1 + bytes / LINE.len())?;
        }
        Ok(last)
    }

    fn put_one(&mut self, client: &mut Client, lines: usize) -> Outcome<String> {
        let number = self.put.len() + 1;
        let message = format!("<{number}.{}@customer.example>", self.user);
        let mail = format!(
            "From: Ana <ana@customer.example>\r\nTo: desk@acme.example\r\nSubject: printer {number}\r\nDate: Tue, 24 Nov 2026 10:00:00 +0000\r\nMessage-ID: {message}\r\n\r\n{}",
            LINE.repeat(lines)
        );
        client.put("INBOX", mail.as_bytes())?;
        self.put.insert(message.clone(), (Fate::Stayed, mail.into_bytes()));
        Ok(message)
    }

    /// The other client reads three mails, moves one and deletes one, as far as there are any.
    pub(super) fn disturb(&mut self, dice: &mut Dice) -> Outcome<()> {
        let mut client = self.client()?;
        let mut uids = client.uids()?;
        let folder = self.server.folder(THEIRS);
        for turn in 0..5 {
            let chosen = usize::try_from(dice.below(u64::try_from(uids.len()).unwrap_or_default()))
                .unwrap_or_default();
            if uids.is_empty() {
                break;
            }
            let uid = uids.swap_remove(chosen);
            if turn < 3 {
                client.mark(uid, "\\Seen")?;
                continue;
            }
            // Postroom may have taken it away by now.
            let Some(mail) = client.read(uid)? else { continue };
            let message = message_id(&mail).ok_or("a mail in the box has no Message-ID")?;
            if let Some((fate, _)) = self.put.get_mut(&message) {
                *fate = Fate::Taken;
            }
            if turn == 3 {
                client.move_to(uid, &folder)?
            } else {
                client.delete(uid)?
            };
        }
        Ok(())
    }

    /// A mail leaves the box, and the account is not told.
    pub(super) fn lose_one(&self) -> Outcome<()> {
        let mut client = self.client()?;
        let first = client.uids()?.first().copied().ok_or("the box is empty")?;
        client.delete(first)
    }

    /// A mail comes once more, and the account is not told.
    pub(super) fn double_one(&self) -> Outcome<()> {
        let stayed = self.put.values().find(|(fate, _)| *fate == Fate::Stayed);
        self.client()?.put("INBOX", &stayed.ok_or("the box never had a mail")?.1)
    }

    /// All that is in the box gets other numbers. No worker may run.
    pub(super) fn renumber(&self) -> Outcome<()> {
        let Renumbering::ByRestoring(administrator) = self.server.renumber(&self.user)? else {
            return Ok(());
        };
        let mut client = self.client()?;
        let mut kept = Vec::new();
        for uid in client.uids()? {
            kept.extend(client.read(uid)?);
        }
        drop(client);
        let address = self.server.address(IncomingProtocol::Imap);
        let mut deleting = Client::sign_in(address, administrator, Incoming::PASSWORD)?;
        let mailbox = format!("user/{}", self.user);
        deleting.command(&format!("SETACL {mailbox} {administrator} lrswipkxtecda"))?;
        deleting.command(&format!("DELETE {mailbox}"))?;
        // A sign-in makes it anew, with the number of the present second.
        std::thread::sleep(Duration::from_millis(1100));
        let mut client = self.client()?;
        for folder in [THEIRS, OURS] {
            client.command(&format!("CREATE {}", self.server.folder(folder)))?;
        }
        kept.iter().try_for_each(|mail| client.put("INBOX", mail))
    }

    /// How many mails must be handled at least.
    pub(super) fn due(&self) -> usize {
        self.put.values().filter(|(fate, _)| *fate == Fate::Stayed).count()
    }

    fn delivered(&self) -> PathBuf {
        self.postroom.file("delivered")
    }

    /// How many mails the handler has written.
    pub(super) fn written(&self) -> usize {
        let found = std::fs::read_dir(self.delivered()).into_iter().flatten().flatten();
        found.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "json")).count()
    }

    /// Start a receiving worker.
    pub(super) fn worker(&self, more: &[&str]) -> Outcome<Worker> {
        self.postroom.worker(&[&["--only", "receive", "--deliver-to", "delivered"], more].concat())
    }

    /// Wait until the handler has written so many mails in all, as long as this worker lives.
    pub(super) fn wait_for(&self, count: usize, worker: &mut Worker) -> Outcome<()> {
        let slice = Duration::from_millis(10);
        for _ in 0..PATIENCE.as_millis() / slice.as_millis() {
            process::still_wanted()?;
            if self.written() >= count {
                return Ok(());
            }
            worker.still_runs()?;
            std::thread::sleep(slice);
        }
        Err(format!("{count} mails were not handled within {PATIENCE:?}, but {}", self.written()))
    }

    /// A worker that is killed within so many microseconds after the server has given it so many bytes; it gets no more.
    pub(super) fn kill_after(&self, bytes: usize, moment: u64) -> Outcome<()> {
        self.relay.stop_after(bytes);
        let mut worker = self.worker(&[])?;
        let slice = Duration::from_millis(10);
        let mut left = PATIENCE.as_millis() / slice.as_millis();
        while !self.relay.has_stopped_within(slice) {
            process::still_wanted()?;
            worker.still_runs()?;
            left = left.checked_sub(1).ok_or_else(|| format!("the server gives no {bytes} bytes"))?;
        }
        std::thread::sleep(Duration::from_micros(moment));
        worker.murder()?;
        self.relay.go_on();
        Ok(())
    }

    /// Whether the ledger has a mail.
    pub(super) fn has_stored(&self, message: &str) -> Outcome<bool> {
        let message = message.trim_matches(['<', '>']);
        let rows = self.postroom.documents(&["ledger", "list"])?;
        Ok(rows.iter().any(|row| text(row, "message_id").trim_matches(['<', '>']) == message))
    }

    /// What was put, stored and handed over by now.
    pub(super) fn account(&self) -> Outcome<Account> {
        let mut account = Account { put: self.put.clone(), ..Account::default() };
        for row in self.postroom.documents(&["ledger", "list"])? {
            let message = format!("<{}>", text(&row, "message_id").trim_matches(['<', '>']));
            account.rows.entry(message).or_default().push((text(&row, "id"), text(&row, "state")));
        }
        let folder = self.delivered();
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let bytes = std::fs::read(path.with_extension("eml")).map_err(failed)?;
            let id = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            let message = message_id(&bytes).unwrap_or_else(|| format!("mail {id} without a Message-ID"));
            account.written.entry(message).or_default().push(Written { id, bytes });
        }
        Ok(account)
    }

    pub(super) fn keep(self, error: &str) -> String {
        self.postroom.keep(error)
    }
}

/// The Message-ID of a mail of [`Office::put`].
fn message_id(mail: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(mail);
    text.lines().find_map(|line| line.strip_prefix("Message-ID: ")).map(|id| id.trim_end().to_owned())
}
