//! Postfix as a local relay, as it comes: it takes mail from loopback and hands it on to one server. It is what a host would have
//! without us, so nothing of it is slowed down, and its queue lies on the same medium as the rows.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::outcome::Outcome;
use crate::peers::SERVICES;
use crate::process::{self, Background};

/// The length of a mail's text, in bytes, and how many submit at once.
const SIZE: &str = "4096";
const SUBMITTERS: &str = "10";

pub(super) struct Relay {
    address: SocketAddr,
    _server: Background,
    home: TempDir,
}

impl Relay {
    /// Starts it on `address`, handing everything on to `next`.
    pub(super) fn start(address: SocketAddr, next: SocketAddr) -> Outcome<Self> {
        if !process::is_root() {
            return Err("Postfix can be started by root only: run this as root".into());
        }
        let home = tempfile::Builder::new().prefix("postroom-relay-").tempdir();
        let home = home.map_err(|error| format!("no temporary folder: {error}"))?;
        prepare(home.path(), address, next).map_err(|error| format!("{}: {error}", home.path().display()))?;
        process::output(Command::new("/usr/sbin/postfix").arg("-c").arg(home.path()).arg("check"))?;
        let mut command = Command::new("/usr/lib/postfix/sbin/master");
        // `-d`: stay in the process group that it was started in.
        command.arg("-c").arg(home.path()).arg("-d").current_dir(home.path());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let server =
            Background::start("postfix", &mut command, &[address], &home.path().join("postfix.log"))?;
        Ok(Self { address, _server: server, home })
    }

    /// Submits so many mails, each connection one after the other, and waits until the last has left the queue.
    pub(super) fn deliver(&self, mails: u32) -> Outcome<()> {
        let mut source = Command::new("/usr/sbin/smtp-source");
        // `-d`: a connection is kept from mail to mail.
        source.args(["-s", SUBMITTERS, "-l", SIZE, "-m", &mails.to_string(), "-d"]);
        source
            .args(["-f", "desk@client.example", "-t", "ana@customer.example"])
            .arg(self.address.to_string());
        process::output(&mut source)?;
        // What is delivered is settled by the removal of its file.
        for queue in ["maildrop", "incoming", "active", "deferred"] {
            while holds_a_file(&self.home.path().join("queue").join(queue)) {
                process::still_wanted()?;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }
}

/// Whether there is a file in a folder or below it.
fn holds_a_file(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| !path.is_dir() || holds_a_file(&path))
}

fn prepare(home: &Path, address: SocketAddr, next: SocketAddr) -> std::io::Result<()> {
    fs::set_permissions(home, fs::Permissions::from_mode(0o755))?;
    let owner = nix::unistd::User::from_name("postfix").ok().flatten();
    let owner = owner.ok_or_else(|| std::io::Error::other("the user postfix is missing"))?;
    for folder in ["queue", "data"] {
        fs::create_dir_all(home.join(folder))?;
    }
    chown(home.join("data"), Some(owner.uid.as_raw()), None)?;
    let folder = home.display();
    let main = format!(
        "compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
meta_directory = /etc/postfix
shlib_directory = /usr/lib/postfix
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/postfix.log
maillog_file_prefixes = {folder}
myhostname = relay.example
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
disable_dns_lookups = yes
relayhost = [{}]:{}
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
in_flow_delay = 0
default_destination_concurrency_limit = 10
initial_destination_concurrency = 10
",
        next.ip(),
        next.port()
    );
    fs::write(home.join("main.cf"), main)?;
    fs::write(home.join("master.cf"), format!("{address} inet n - n - - smtpd\n{SERVICES}"))
}
