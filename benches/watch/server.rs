//! The server whose boxes are watched. It is another process, this program again, so that its memory is not what is measured; it is
//! told what to do by lines on its standard input, and ends with it.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use postroom_testkit::MailServer;
use tokio::runtime::Runtime;

pub(crate) const PASSWORD: &str = "secret";

/// The header field with the time at which a mail was put into its box.
const SENT: &str = "X-Sent";

/// The login of a box.
pub(crate) fn login(number: usize) -> String {
    format!("box{number}@acme.example")
}

/// The monotonic time, which is the same in every process of this machine.
pub(crate) fn clock() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock").into()
}

/// How long ago a mail was put into its box, by what it says itself.
pub(crate) fn age(raw: &[u8]) -> Duration {
    let now = clock();
    let line = raw.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(SENT.as_bytes()));
    let digits = std::str::from_utf8(line.expect("a stamped mail")).expect("digits");
    let sent = digits.trim_start_matches(':').trim().parse().expect("a time");
    now.saturating_sub(Duration::from_nanos(sent))
}

/// Serves until the standard input ends.
pub(crate) fn serve(runtime: &Runtime, boxes: usize) {
    let server = (0..boxes).fold(MailServer::builder().danger_plaintext_auth(), |builder, number| {
        builder.account(&login(number), PASSWORD)
    });
    let server = runtime.block_on(server.start()).expect("a server");
    println!("{}\n{}\n{}", server.imap_port(), server.imaps_port(), server.ca_pem().trim_end());
    std::io::stdout().flush().expect("written");
    let obeyed = runtime.spawn_blocking(move || {
        for line in std::io::stdin().lines() {
            match line.expect("a readable line").split_once(' ') {
                Some(("deliver", number)) => deliver(&server, number.parse().expect("a number")),
                _ => println!(
                    "{}",
                    server.sessions().iter().filter(|one| one.open && one.login.is_some()).count()
                ),
            }
        }
    });
    runtime.block_on(obeyed).expect("no panic");
}

/// The stamp is older than the EXISTS that follows from the mail: what is measured is never too short.
fn deliver(server: &MailServer, number: usize) {
    let stamp = clock().as_nanos();
    let text = format!(
        "{SENT}: {stamp}\r\nFrom: ana@customer.example\r\nTo: {to}\r\nSubject: Printer\r\n\
         Message-ID: <{stamp}.{number}@customer.example>\r\n\r\n{body}",
        to = login(number),
        body = "It does not print.\r\n".repeat(200),
    );
    server.deliver(&login(number), text);
}

/// The server as the measured process holds it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    input: Option<ChildStdin>,
    said: Lines<BufReader<ChildStdout>>,
    pub(crate) ports: [u16; 2],
    pub(crate) authority: String,
}

impl Server {
    pub(crate) fn start(boxes: usize) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.arg("--serve").arg(format!("--boxes={boxes}"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a server");
        let mut said = BufReader::new(child.stdout.take().expect("its words")).lines();
        let mut word = || said.next().expect("a line of the server").expect("readable");
        let ports = [word(), word()].map(|port| port.parse().expect("a port"));
        let mut authority = String::new();
        while !authority.contains("-----END") {
            authority.push_str(&word());
            authority.push('\n');
        }
        Self { input: child.stdin.take(), child, said, ports, authority }
    }

    fn tell(&mut self, line: &str) {
        let mut input = self.input.as_ref().expect("it ends when this is dropped");
        writeln!(input, "{line}").expect("the server lives");
    }

    /// Puts a new mail into a box.
    pub(crate) fn deliver(&mut self, number: usize) {
        self.tell(&format!("deliver {number}"));
    }

    /// How many sessions are signed in.
    pub(crate) fn signed_in(&mut self) -> usize {
        self.tell("who");
        let said = self.said.next().expect("a line of the server").expect("readable");
        said.parse().expect("a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
