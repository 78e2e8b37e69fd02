//! MariaDB: two servers with data folders of their own, synced as in production, each on a port of its own on loopback. The one is
//! shared by the tests, each with a database of its own; the other is there to be killed. Whose tests those are is not known here.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::place::{Place, free_addresses, shown};
use crate::outcome::Outcome;
use crate::process;

/// A server that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Mariadb {
    address: SocketAddr,
    home: PathBuf,
    /// What ends it at once, as the loss of power does, and starts it again.
    crash: PathBuf,
    /// User and group that it runs under, if that is not ourselves.
    other: Option<(u32, u32)>,
}

impl Mariadb {
    pub(super) fn start(place: &Place, name: &str) -> Outcome<Self> {
        let [address] = free_addresses()?;
        let home = place.own_folder(name)?;
        let data = place.own_folder(&format!("{name}/data"))?;
        let other = process::is_root().then(|| (place.user.uid.as_raw(), place.user.gid.as_raw()));
        let start = start_script(&home, address, other);
        let crash = place.write(&format!("{name}-crash.sh"), &crash_script(&home, &start))?;
        let start = place.write(&format!("{name}-start.sh"), &start)?;
        let server = Self { address, home, crash, other };
        let mut make = server.program("mariadb-install-db");
        make.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        make.args(["--skip-name-resolve", "--datadir"]).arg(data);
        process::output(&mut make)?;
        let mut begin = Command::new("sh");
        begin.arg(start).process_group(0);
        process::output(&mut begin).map_err(|error| {
            let told = std::fs::read_to_string(server.home.join("log")).unwrap_or_default();
            format!("{error}\n{told}")
        })?;
        server.say("CREATE USER postroom@'127.0.0.1'")?;
        server.say("GRANT ALL ON *.* TO postroom@'127.0.0.1'")?;
        server.say("CREATE DATABASE postroom")?;
        Ok(server)
    }

    /// Where its database is.
    pub(crate) fn url(&self) -> String {
        self.url_of("postroom")
    }

    /// A new database, as the URL that leads to it.
    pub(crate) fn database(&self, name: &str) -> Outcome<String> {
        self.say(&format!("CREATE DATABASE {name}"))?;
        Ok(self.url_of(name))
    }

    fn url_of(&self, database: &str) -> String {
        format!("mysql://postroom@{}/{database}", self.address)
    }

    fn say(&self, sql: &str) -> Outcome<()> {
        let mut command = self.program("mariadb");
        command.args(["--no-defaults", "--user=root", "--execute", sql, "--socket"]);
        process::output(command.arg(self.home.join("socket"))).map(drop)
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        if let Some((user, group)) = self.other {
            command.uid(user).gid(group);
        }
        command.current_dir("/").stdin(Stdio::null()).process_group(0);
        command
    }
}

/// The shared server and the one that may be killed, as the tests are told of them.
pub(super) fn environment(shared: &Mariadb, victim: &Mariadb) -> [(String, String); 3] {
    [
        ("POSTROOM_TEST_MYSQL".to_owned(), shared.url()),
        ("POSTROOM_TEST_MYSQL_CRASHED".to_owned(), victim.url()),
        ("POSTROOM_TEST_MYSQL_CRASH".to_owned(), format!("sh '{}'", shown(&victim.crash))),
    ]
}

/// Starts the server apart from whoever asks for it, and waits until it answers. It refuses to run as root.
fn start_script(home: &Path, address: SocketAddr, other: Option<(u32, u32)>) -> String {
    let under = other.map_or_else(String::new, |(user, group)| {
        format!("setpriv --reuid={user} --regid={group} --clear-groups ")
    });
    let home = home.display();
    let (ip, port) = (address.ip(), address.port());
    format!(
        "cd /
setsid {under}/usr/sbin/mariadbd --no-defaults --datadir='{home}/data' --socket='{home}/socket' --pid-file='{home}/pid' \\
    --bind-address={ip} --port={port} --skip-name-resolve --max-connections=300 --innodb-buffer-pool-size=64M \\
    </dev/null >>'{home}/log' 2>&1 &
for turn in $(seq 600); do
    mariadb-admin --no-defaults --user=root --socket='{home}/socket' ping >/dev/null 2>&1 && exit 0
    sleep 0.05
done
exit 1
"
    )
}

/// A script that any of our processes may run.
fn crash_script(home: &Path, start: &str) -> String {
    let home = home.display();
    format!(
        "pid=$(cat '{home}/pid')
kill -KILL \"$pid\"
while grep -qs '^State:.[^ZX]' \"/proc/$pid/status\"; do sleep 0.02; done
rm -f '{home}/pid' '{home}/socket'
{start}"
    )
}

impl Drop for Mariadb {
    fn drop(&mut self) {
        if self.home.join("pid").exists() {
            let mut stop = self.program("mariadb-admin");
            stop.args(["--no-defaults", "--user=root", "--socket"]).arg(self.home.join("socket"));
            if let Err(error) = process::output(stop.arg("shutdown")) {
                eprintln!("MariaDB did not stop: {error}");
            }
        }
    }
}
