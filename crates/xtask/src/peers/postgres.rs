//! PostgreSQL: two servers with data folders of their own, synced as in production, each on a port of its own on loopback. The one is
//! shared by the tests, each with a schema of its own; the other is there to be killed. Whose tests those are is not known here.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::place::{Place, free_addresses, shown};
use crate::outcome::Outcome;
use crate::process;

/// The programs of the package.
pub(crate) const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// A server that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Postgres {
    address: SocketAddr,
    data: PathBuf,
    /// What ends it at once, as the loss of power does, and starts it again.
    crash: PathBuf,
    /// User and group that it runs under, if that is not ourselves.
    other: Option<(u32, u32)>,
}

impl Postgres {
    pub(super) fn start(place: &Place, name: &str) -> Outcome<Self> {
        let [address] = free_addresses()?;
        let home = place.own_folder(name)?;
        let (data, log) = (home.join("data"), home.join("log"));
        let other = process::is_root().then(|| (place.user.uid.as_raw(), place.user.gid.as_raw()));
        let crash = place.write(&format!("{name}-crash.sh"), &restart(&data, &log, other))?;
        let server = Self { address, data, crash, other };
        let mut make = server.program("initdb");
        make.args(["--username=postroom", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"]);
        process::output(make.arg("--pgdata").arg(&server.data))?;
        let settings = format!(
            "-c listen_addresses={} -c port={} -c unix_socket_directories= -c max_connections=300",
            address.ip(),
            address.port()
        );
        let mut start = server.control("start");
        start.args(["--options", &settings, "--log"]).arg(&log);
        process::output(&mut start).map_err(|error| {
            let told = std::fs::read_to_string(&log).unwrap_or_default();
            format!("{error}\n{told}")
        })?;
        server.say("postgres", "CREATE DATABASE postroom")?;
        Ok(server)
    }

    /// Where its database is.
    pub(crate) fn url(&self) -> String {
        format!("postgres://postroom@{}/postroom", self.address)
    }

    /// A new schema, as the URL that leads to it.
    pub(crate) fn schema(&self, name: &str) -> Outcome<String> {
        self.say("postroom", &format!("CREATE SCHEMA {name}"))?;
        Ok(format!("{}?options[search_path]={name}", self.url()))
    }

    fn say(&self, database: &str, sql: &str) -> Outcome<()> {
        let mut command = self.program("psql");
        command.args([
            "--no-psqlrc",
            "--quiet",
            "--username=postroom",
            "--dbname",
            database,
            "--command",
            sql,
        ]);
        command.env("PGHOST", self.address.ip().to_string()).env("PGPORT", self.address.port().to_string());
        process::output(&mut command).map(drop)
    }

    fn control(&self, verb: &str) -> Command {
        let mut command = self.program("pg_ctl");
        command.arg(verb).args(["--wait", "--silent", "--pgdata"]).arg(&self.data);
        command
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(Path::new(PROGRAMS).join(name));
        // The server refuses to run as root.
        if let Some((user, group)) = self.other {
            command.uid(user).gid(group);
        }
        // It outlives the program that starts it, which must not wait for its streams.
        command.current_dir("/").stdin(Stdio::null()).process_group(0);
        command
    }
}

/// The shared server and the one that may be killed, as the tests are told of them.
pub(super) fn environment(shared: &Postgres, victim: &Postgres) -> [(String, String); 3] {
    [
        ("POSTROOM_TEST_POSTGRES".to_owned(), shared.url()),
        ("POSTROOM_TEST_POSTGRES_CRASHED".to_owned(), victim.url()),
        ("POSTROOM_TEST_POSTGRES_CRASH".to_owned(), format!("sh '{}'", shown(&victim.crash))),
    ]
}

/// A script that any of our processes may run.
fn restart(data: &Path, log: &Path, other: Option<(u32, u32)>) -> String {
    let under = other.map_or_else(String::new, |(user, group)| {
        format!("setpriv --reuid={user} --regid={group} --clear-groups ")
    });
    format!(
        "cd /\nexec {under}{PROGRAMS}/pg_ctl restart --wait --silent --mode=immediate --pgdata '{}' --log '{}'\n",
        data.display(),
        log.display()
    )
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.data.join("postmaster.pid").exists()
            && let Err(error) = process::output(self.control("stop").arg("--mode=fast"))
        {
            eprintln!("PostgreSQL did not stop: {error}");
        }
    }
}
