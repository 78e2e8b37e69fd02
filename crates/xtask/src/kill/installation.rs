//! A `postroom` that is worked with by its command line alone: a folder, a database and a key of its own, calls of it, and workers that
//! run in the background. What it sends or receives, and when its workers die, is not decided here.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::outcome::Outcome;
use crate::peers::Database;
use crate::process;

/// The lease of each worker, the shortest that there is.
pub(super) const LEASE: Duration = Duration::from_secs(2);
/// How often a worker with this lease looks for claims that ran out.
pub(super) const SCAN: Duration = Duration::from_secs(1);
/// No step of a round takes so long, on however slow a machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What the calls and the workers share.
#[derive(Debug)]
pub(super) struct Installation {
    binary: PathBuf,
    folder: TempDir,
    key: String,
    database: String,
}

impl Installation {
    /// An empty one: in a file, or in a new place of the database server.
    pub(super) fn open(binary: &Path, database: Option<&Database>) -> Outcome<Self> {
        let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
        let database = match database {
            None => format!("sqlite://{}", folder.path().join("rows.db").display()),
            Some(database) => {
                let number = getrandom::u64().map_err(|error| format!("no name for a database: {error}"))?;
                database.fresh(&format!("kill_{number:016x}"))?
            }
        };
        let mut this = Self { binary: binary.to_owned(), folder, key: String::new(), database };
        this.key = this.call(&["key", "generate"])?.trim().to_owned();
        this.call(&["migrate"])?;
        Ok(this)
    }

    /// A file of its folder.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
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

    /// A call that reads a password.
    pub(super) fn call_with_password(&self, arguments: &[&str], password: &str) -> Outcome<Vec<Value>> {
        let file = self.file("password");
        let failed = |error: std::io::Error| format!("{}: {error}", file.display());
        std::fs::write(&file, password).map_err(failed)?;
        let mut command = self.command(&[&["--json"], arguments].concat());
        let said = command.stdin(File::open(&file).map_err(failed)?).output().map_err(failed)?;
        if !said.status.success() {
            return Err(format!("{arguments:?}: {}", String::from_utf8_lossy(&said.stderr).trim()));
        }
        read(arguments, &String::from_utf8_lossy(&said.stdout))
    }

    /// What a call prints, a document on each line.
    pub(super) fn documents(&self, arguments: &[&str]) -> Outcome<Vec<Value>> {
        read(arguments, &self.call(&[&["--json"], arguments].concat())?)
    }

    /// Start a worker: `run` with these options.
    pub(super) fn worker(&self, options: &[&str]) -> Outcome<Worker> {
        process::still_wanted()?;
        let log = self.file("worker.log");
        let failed = |error: std::io::Error| format!("a worker does not start: {error}");
        let errors = File::options().create(true).append(true).open(&log).map_err(failed)?;
        let lease = LEASE.as_secs().to_string();
        let mut command = self.command(&["--json", "run", "--lease", &lease]);
        let child = command.args(options).stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn();
        Ok(Worker { child: child.map_err(failed)?, log })
    }

    /// What did not hold, with the folder kept to look into.
    pub(super) fn keep(self, error: &str) -> String {
        format!("{error}\n  what was at hand is in {}", self.folder.keep().display())
    }
}

fn read(arguments: &[&str], printed: &str) -> Outcome<Vec<Value>> {
    let read = |line| serde_json::from_str(line).map_err(|error| format!("{arguments:?}: {error}: {line}"));
    printed.lines().map(read).collect()
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
    pub(super) fn ends_well(self) -> Outcome<()> {
        self.ends_well_within(PATIENCE)
    }

    /// The same with another patience.
    pub(super) fn ends_well_within(mut self, patience: Duration) -> Outcome<()> {
        let slice = Duration::from_millis(20);
        for _ in 0..patience.as_millis() / slice.as_millis() {
            process::still_wanted()?;
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(self.ended(&process::told(status))),
                Ok(None) => std::thread::sleep(slice),
                Err(error) => return Err(error.to_string()),
            }
        }
        Err(format!("a worker does not end within {patience:?}"))
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
