//! A queue in a folder of its own beside a recording server, worked on by the built `postroom` alone: calls of it, and workers that
//! run in the background. When workers are killed or stopped is not decided here.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use postroom_testkit::MailServer;
use serde_json::Value;
use tempfile::TempDir;

use crate::outcome::Outcome;
use crate::process;

use super::books::Books;
use super::stage::Stage;

/// How many connections the outbox has.
pub(super) const CONNECTIONS: u32 = 5;

/// How many mails a death may leave in doubt: four for each connection, by promise P1.
pub(super) const DOUBTS: u32 = 4 * CONNECTIONS;
/// The lease of each worker, the shortest that there is.
pub(super) const LEASE: Duration = Duration::from_secs(2);
/// How often a worker with this lease looks for claims that ran out.
pub(super) const SCAN: Duration = Duration::from_secs(1);
/// No step of a round takes so long, on however slow a machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A queue and its server.
#[derive(Debug)]
pub(super) struct Desk<'a> {
    stage: &'a Stage,
    pub(super) server: MailServer,
    folder: TempDir,
    key: String,
    database: String,
    submitted: Vec<String>,
}

impl<'a> Desk<'a> {
    /// With as many mails queued as the stage says.
    pub(super) fn open(stage: &'a Stage) -> Outcome<Self> {
        let server = stage
            .runtime
            .block_on(MailServer::start())
            .map_err(|error| format!("the recording server does not start: {error}"))?;
        let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
        let database = match &stage.database {
            None => format!("sqlite://{}", folder.path().join("queue.db").display()),
            Some(database) => {
                let number = getrandom::u64().map_err(|error| format!("no name for a database: {error}"))?;
                database.fresh(&format!("kill_{number:016x}"))?
            }
        };
        let mut desk = Self { stage, server, folder, key: String::new(), database, submitted: Vec::new() };
        desk.key = desk.call(&["key", "generate"])?.trim().to_owned();
        desk.call(&["migrate"])?;
        let (port, connections) = (desk.server.smtp_port().to_string(), CONNECTIONS.to_string());
        let form =
            ["mailbox", "add", "outbox", "--description", "out", "--server", "127.0.0.1", "--port", &port];
        let form =
            [&form[..], &["--tls", "none", "--auth", "none", "--sender", "desk@acme.example"]].concat();
        let outbox = desk.documents(&[&form[..], &["--max-connections", &connections]].concat())?;
        let outbox = outbox.first().map(|outbox| text(outbox, "id")).unwrap_or_default();
        desk.call(&["contract", "link", "ACME", "--outbox", &outbox])?;
        let count = stage.mails.to_string();
        let mail =
            ["send", "--contract", "ACME", "--to", "ana@customer.example", "--subject", "x", "--text", "x"];
        let sent = desk.documents(&[&mail[..], &["--repeat", &count]].concat())?;
        desk.submitted = sent.iter().map(|sent| text(sent, "message_id")).collect();
        Ok(desk)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.stage.binary);
        command
            .args(arguments)
            .env("POSTROOM_DATABASE", &self.database)
            .env("POSTROOM_KEY", &self.key)
            .current_dir(self.folder.path());
        command
    }

    pub(super) fn call(&self, arguments: &[&str]) -> Outcome<String> {
        process::still_wanted()?;
        process::output(&mut self.command(arguments))
    }

    /// What a call prints, a document on each line.
    pub(super) fn documents(&self, arguments: &[&str]) -> Outcome<Vec<Value>> {
        let printed = self.call(&[&["--json"], arguments].concat())?;
        let read =
            |line| serde_json::from_str(line).map_err(|error| format!("{arguments:?}: {error}: {line}"));
        printed.lines().map(read).collect()
    }

    /// The mails that a worker has claimed, marked or not: their ids.
    pub(super) fn in_hand(&self) -> Outcome<Vec<String>> {
        let mut found = Vec::new();
        for state in ["claimed", "crossing"] {
            let listed = self.documents(&["queue", "list", "--state", state])?;
            found.extend(listed.iter().map(|mail| text(mail, "id")));
        }
        Ok(found)
    }

    /// How often a mail's lease ran out.
    pub(super) fn lapses(&self, id: &str) -> Outcome<usize> {
        let shown = self.documents(&["queue", "show", id])?;
        let timeline =
            shown.first().and_then(|mail| mail["timeline"].as_array()).cloned().unwrap_or_default();
        Ok(timeline.iter().filter(|entry| text(entry, "detail").starts_with("the lease ran out")).count())
    }

    /// What is submitted, queued and arrived by now.
    pub(super) fn books(&self) -> Outcome<Books> {
        let mut books = Books { submitted: self.submitted.iter().cloned().collect(), ..Books::default() };
        if self.submitted.len() != books.submitted.len() {
            return Err("two mails were given the same Message-ID".into());
        }
        for accepted in self.server.accepted() {
            *books.arrived.entry(accepted.message_id.unwrap_or_default()).or_default() += 1;
        }
        let listed = self.documents(&["queue", "list"])?;
        books.states = listed.iter().map(|mail| (text(mail, "message_id"), text(mail, "state"))).collect();
        Ok(books)
    }

    /// As a person does: what is in doubt is settled by the server's record, and sent again where it did not arrive.
    pub(super) fn settle_doubts(&self, books: &Books) -> Outcome<()> {
        let listed = self.documents(&["queue", "list", "--state", "in-doubt"])?;
        let ids: BTreeMap<String, String> =
            listed.iter().map(|mail| (text(mail, "message_id"), text(mail, "id"))).collect();
        for (message_id, id) in ids {
            if books.copies(&message_id) > 0 {
                self.call(&["queue", "settle", &id, "accepted"])?;
            } else {
                self.call(&["queue", "settle", &id, "refused"])?;
                self.call(&["queue", "retry", &id])?;
            }
        }
        self.worker(&["--until-idle"])?.ends_well()
    }

    /// Start a sending worker.
    pub(super) fn worker(&self, more: &[&str]) -> Outcome<Worker> {
        process::still_wanted()?;
        let log = self.folder.path().join("worker.log");
        let failed = |error: std::io::Error| format!("a worker does not start: {error}");
        let errors = File::options().create(true).append(true).open(&log).map_err(failed)?;
        let lease = LEASE.as_secs().to_string();
        let mut command = self.command(&["--json", "run", "--only", "send", "--lease", &lease]);
        let child = command.args(more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn();
        Ok(Worker { child: child.map_err(failed)?, log })
    }

    /// Wait until the server has taken so many mails in all, as long as this worker lives.
    pub(super) fn wait_for_arrivals(&self, count: usize, worker: &mut Worker) -> Outcome<()> {
        let slice = Duration::from_millis(50);
        for _ in 0..PATIENCE.as_millis() / slice.as_millis() {
            process::still_wanted()?;
            let enough = |server: &MailServer| (server.accepted_count() >= count).then_some(());
            if self.stage.runtime.block_on(self.server.wait_for(slice, enough)).is_some() {
                return Ok(());
            }
            worker.still_runs()?;
        }
        Err(format!("{count} mails did not arrive within {PATIENCE:?}"))
    }

    /// What did not hold, with the folder kept to look into.
    pub(super) fn keep(self, error: &str) -> String {
        format!("{error}\n  what was at hand is in {}", self.folder.keep().display())
    }
}

pub(super) fn text(document: &Value, name: &str) -> String {
    match &document[name] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A worker in the background, which is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    log: PathBuf,
}

impl Worker {
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    fn process(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("process ids are small positive numbers"))
    }

    pub(super) fn signal(&self, signal: Signal) -> Outcome<()> {
        kill(self.process(), signal).map_err(|error| format!("{signal} for a worker: {error}"))
    }

    /// SIGSTOP, and wait until every thread stands still: until then one may still begin a transaction.
    pub(super) fn stop(&self) -> Outcome<()> {
        self.signal(Signal::SIGSTOP)?;
        match waitpid(self.process(), Some(WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::Stopped(..)) => Ok(()),
            other => Err(format!("a worker does not stop: {other:?}")),
        }
    }

    /// An error if it has ended.
    pub(super) fn still_runs(&mut self) -> Outcome<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.ended(&process::told(status))),
            Err(error) => Err(error.to_string()),
        }
    }

    fn ended(&self, how: &str) -> String {
        let told = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = told.lines().rev().take(5).collect();
        format!("a worker ended early ({how}): {}", last.into_iter().rev().collect::<Vec<_>>().join("\n  "))
    }

    /// SIGKILL; an error if it had ended by itself before.
    pub(super) fn murder(mut self) -> Outcome<()> {
        self.still_runs()?;
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .map_err(|error| format!("a worker lives on: {error}"))?;
        Ok(())
    }

    /// Wait for its end by itself.
    pub(super) fn ends_well(mut self) -> Outcome<()> {
        let slice = Duration::from_millis(20);
        for _ in 0..PATIENCE.as_millis() / slice.as_millis() {
            process::still_wanted()?;
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(self.ended(&process::told(status))),
                Ok(None) => std::thread::sleep(slice),
                Err(error) => return Err(error.to_string()),
            }
        }
        Err(format!("a worker does not end within {PATIENCE:?}"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // As long as nobody has waited for it, the number is its own, even if it has ended.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
