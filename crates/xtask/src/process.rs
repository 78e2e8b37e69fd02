//! Programs that the tasks start: in the foreground with their output read line by line, or in the background until a guard is
//! dropped. Each is ended by its own process id, also after Ctrl-C. What is started, and why, is the business of the callers.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, User, geteuid};

use crate::outcome::Outcome;

static ENDING: AtomicBool = AtomicBool::new(false);
/// The process group in the foreground, which is told when the end was asked for. `None` between two programs.
static FOREGROUND: Mutex<Option<Pid>> = Mutex::new(None);

/// Take Ctrl-C, SIGTERM and SIGHUP as the wish to stop: the program in the foreground is told, and the tasks come back through
/// their guards, so that nothing stays behind.
pub(crate) fn listen_for_the_end() -> Outcome<()> {
    ctrlc::set_handler(|| {
        ENDING.store(true, Ordering::SeqCst);
        if let Some(group) = *foreground() {
            // It may have ended by itself in this moment.
            let _ = killpg(group, Signal::SIGTERM);
        }
    })
    .map_err(|error| format!("cannot listen for signals: {error}"))
}

/// An error once the end was asked for.
pub(crate) fn still_wanted() -> Outcome<()> {
    if ENDING.load(Ordering::SeqCst) { Err("stopped by a signal".into()) } else { Ok(()) }
}

fn foreground() -> std::sync::MutexGuard<'static, Option<Pid>> {
    FOREGROUND.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Run a program to its end; each line that it prints goes to our own standard output and to `line`.
pub(crate) fn follow(command: &mut Command, mut line: impl FnMut(&str)) -> Outcome<ExitStatus> {
    quietly(command, |text| {
        println!("{text}");
        line(text);
    })
}

/// Run a program to its end; each line that it prints goes to `line` alone.
pub(crate) fn quietly(command: &mut Command, mut line: impl FnMut(&str)) -> Outcome<ExitStatus> {
    let mut child = start_in_foreground(command.stdout(Stdio::piped()))?;
    let output = child.stdout.take().expect("the output was asked for as a pipe");
    let mut reader = BufReader::new(output);
    let mut bytes = Vec::new();
    // Bytes, not `lines()`: a test may print what is no UTF-8.
    while matches!(reader.read_until(b'\n', &mut bytes), Ok(count) if count > 0) {
        line(String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']));
        bytes.clear();
    }
    ended(&mut child, command)
}

/// Run a program to its end, its streams being ours.
pub(crate) fn run(command: &mut Command) -> Outcome<ExitStatus> {
    let mut child = start_in_foreground(command)?;
    ended(&mut child, command)
}

/// Run a program to its end and keep what it prints; an error if it fails.
pub(crate) fn output(command: &mut Command) -> Outcome<String> {
    let said = command.stdin(Stdio::null()).output().map_err(|error| not_started(command, &error))?;
    if !said.status.success() {
        return Err(format!(
            "{}: {}\n{}",
            name(command),
            said.status,
            String::from_utf8_lossy(&said.stderr).trim()
        ));
    }
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

fn start_in_foreground(command: &mut Command) -> Outcome<Child> {
    let mut current = foreground();
    still_wanted()?;
    let child = command
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| not_started(command, &error))?;
    *current = Some(process_id(&child));
    Ok(child)
}

fn ended(child: &mut Child, command: &Command) -> Outcome<ExitStatus> {
    let status = child.wait().map_err(|error| format!("{}: {error}", name(command)));
    *foreground() = None;
    still_wanted()?;
    status
}

fn not_started(command: &Command, error: &std::io::Error) -> String {
    format!("cannot start {}: {error}", command.get_program().display())
}

fn name(command: &Command) -> String {
    let words: Vec<_> =
        [command.get_program()].into_iter().chain(command.get_args()).map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

fn process_id(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().expect("process ids are small positive numbers"))
}

/// A server that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Background {
    name: &'static str,
    child: Child,
}

impl Background {
    /// Start a server and wait until it accepts a connection on each address. `log` is where to read why it did not.
    pub(crate) fn start(
        name: &'static str,
        command: &mut Command,
        addresses: &[SocketAddr],
        log: &Path,
    ) -> Outcome<Self> {
        still_wanted()?;
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| not_started(command, &error))?;
        let mut server = Self { name, child };
        for address in addresses {
            server.wait_for(*address).map_err(|error| {
                let told = std::fs::read_to_string(log).unwrap_or_default();
                let last: Vec<&str> = told.lines().rev().take(10).collect();
                format!("{error}\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"))
            })?;
        }
        Ok(server)
    }

    fn wait_for(&mut self, address: SocketAddr) -> Outcome<()> {
        let pause = Duration::from_millis(25);
        for _ in 0..1200 {
            still_wanted()?;
            if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("{} ended at its start: {status}", self.name));
            }
            std::thread::sleep(pause);
        }
        Err(format!("{} does not listen on {address}", self.name))
    }

    fn has_ended_within(&mut self, tenths: u32) -> bool {
        for _ in 0..tenths {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        false
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let id = process_id(&self.child);
        // As long as we have not waited for it, the number is its own, even if it has ended.
        if matches!(self.child.try_wait(), Ok(None))
            && kill(id, Signal::SIGTERM).is_ok()
            && !self.has_ended_within(100)
        {
            eprintln!("{} (process {id}) did not stop when told to, and is killed", self.name);
            let _ = killpg(id, Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// Whether we may mount file systems: root may not in many containers (capabilities(7), CAP_SYS_ADMIN).
pub(crate) fn may_mount() -> bool {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    effective.is_some_and(|effective| effective & CAP_SYS_ADMIN != 0)
}

/// The user that servers run under: ourselves, or `nobody` if we are root.
pub(crate) fn unprivileged() -> Outcome<User> {
    let user = if is_root() { User::from_name("nobody") } else { User::from_uid(geteuid()) };
    user.ok()
        .flatten()
        .ok_or_else(|| "there is no entry in the user database to run servers under".to_owned())
}

/// A status in words.
pub(crate) fn told(status: ExitStatus) -> String {
    status.signal().map_or_else(|| status.to_string(), |signal| format!("killed by signal {signal}"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_server_that_ends_at_its_start_is_named_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::write(&log, "one\nthe reason").unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = Background::start("false", &mut Command::new("false"), &[closed], &log).unwrap_err();
        assert!(error.starts_with("false ended at its start") && error.ends_with("the reason"), "{error}");
    }

    #[test]
    fn a_dropped_server_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server =
            Background::start("sleep", Command::new("sleep").arg("600"), &[address], Path::new("/")).unwrap();
        let id = process_id(&server.child);
        assert!(kill(id, None).is_ok());
        drop(server);
        assert_eq!(kill(id, None), Err(nix::errno::Errno::ESRCH));
    }

    #[test]
    fn each_line_is_followed_also_one_that_is_no_text() {
        let mut lines = Vec::new();
        let status =
            follow(Command::new("printf").arg("one\\n\\377\\nlast"), |line| lines.push(line.to_owned()))
                .unwrap();
        assert!(status.success());
        assert_eq!(lines, ["one", "\u{fffd}", "last"]);
    }
}
