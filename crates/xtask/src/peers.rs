//! The real servers of the tests: private instances of Dovecot, Courier, Cyrus, Postfix, smtp-sink, PostgreSQL and MariaDB in a folder of
//! their own, on free loopback ports, which end with the value that holds them. Installing them is not done here, and no test either.

use std::process::{Command, ExitCode};

use crate::outcome::Outcome;
use crate::{packages, process};

mod accounts;
mod authority;
mod courier;
mod cyrus;
mod dovecot;
mod incoming;
mod mariadb;
mod place;
mod postfix;
mod postgres;
mod sink;

pub(crate) use incoming::{Incoming, Kind as IncomingKind, Protocol as IncomingProtocol, Renumbering};
pub(crate) use mariadb::Mariadb;
pub(crate) use place::free_addresses;
use place::{Place, shown};
pub(crate) use postfix::SERVICES;
pub(crate) use postgres::Postgres;

/// What `cargo xtask peers` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The command to run while the servers are up; without one, print their addresses and wait for Ctrl-C.
    #[arg(last = true)]
    command: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Outcome<ExitCode> {
    packages::install()?;
    let peers = Peers::start()?;
    let Some((program, arguments)) = options.command.split_first() else {
        for (name, value) in peers.environment() {
            println!("export {name}='{value}'");
        }
        process::run(Command::new("sleep").arg("infinity"))?;
        return Ok(ExitCode::SUCCESS);
    };
    let status = process::run(Command::new(program).args(arguments).envs(peers.environment()))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Every server, running. They stop in the order of the fields, senders before receivers.
#[derive(Debug)]
pub(crate) struct Peers {
    postfix: postfix::Postfix,
    sinks: [sink::Sink; 3],
    dovecot: dovecot::Dovecot,
    courier: courier::Courier,
    cyrus: cyrus::Cyrus,
    /// The one that tests share, and the one that they kill.
    databases: [Postgres; 2],
    mariadbs: [Mariadb; 2],
    place: Place,
}

impl Peers {
    /// Start them all and wait until each accepts connections.
    pub(crate) fn start() -> Outcome<Self> {
        packages::present()?;
        if !process::is_root() {
            return Err(
                "Postfix can be started by root only: run this as root, or leave the real servers out".into(),
            );
        }
        let place = Place::new()?;
        authority::make(&place)?;
        let dovecot = dovecot::Dovecot::start(&place)?;
        let courier = courier::Courier::start(&place)?;
        let cyrus = cyrus::Cyrus::start(&place)?;
        let sinks = [
            sink::Sink::start(&place, "a")?,
            sink::Sink::start(&place, "b")?,
            sink::Sink::start(&place, "relay")?,
        ];
        let postfix = postfix::Postfix::start(&place, &dovecot, &sinks[2])?;
        let databases = [Postgres::start(&place, "postgres")?, Postgres::start(&place, "postgres-victim")?];
        let mariadbs = [Mariadb::start(&place, "mariadb")?, Mariadb::start(&place, "mariadb-victim")?];
        Ok(Self { postfix, sinks, dovecot, courier, cyrus, databases, mariadbs, place })
    }

    /// What a test has to know, as environment variables:
    ///
    /// - `PEER_HOST`: a name in the servers' certificate, for 127.0.0.1; `PEER_STRICT_HOST`: an address in it, where Dovecot listens
    ///   too. Dovecot refuses a sign-in without TLS there only, as it trusts a client whose address is the server's.
    /// - `PEER_USER`, `PEER_PASSWORD`: a sign-in at Dovecot and at Postfix. Every user name exists, each with a mail store of its own,
    ///   and all have this password.
    /// - `PEER_TOKEN`: an access token of the user `token` at Dovecot and at Postfix, which offers XOAUTH2 alone; `PEER_TOKEN_EXPIRED`: one that has
    ///   ended; `PEER_TOKEN_STRANGE`: one that somebody else signed.
    /// - `PEER_CA`: the authority to trust; `PEER_OTHER_CA`: one that signed nothing here (PEM files).
    /// - `PEER_IMAP_PORT`, `PEER_POP3_PORT` (STARTTLS, STLS), `PEER_IMAPS_PORT`, `PEER_POP3S_PORT`, `PEER_LMTP_PORT`: Dovecot. `PEER_DOVECOT_CONF`: its configuration, for `doveadm -c`, which makes folders and saves mail.
    ///   `PEER_MAIL`: a maildir for each user lies below it.
    /// - `PEER_COURIER_IMAP_PORT`, `PEER_COURIER_POP3_PORT` (STARTTLS, STLS), `PEER_COURIER_IMAPS_PORT`, `PEER_COURIER_POP3S_PORT`, and the same
    ///   with `CYRUS`: servers of their own, with the same certificate, users and password. A folder beside INBOX is called
    ///   `INBOX.NAME` at Courier. `PEER_COURIER_MAIL`: each user's folder, with a Maildir, once signed in.
    /// - `PEER_SUBMISSION_PORT` (STARTTLS, then sign-in), `PEER_SUBMISSIONS_PORT` (TLS from the first byte, then sign-in),
    ///   `PEER_MX_PORT` (neither): Postfix. Mail for `PEER_BOXES_DOMAIN` goes to Dovecot, all other to the sink `RELAY`. The
    ///   recipients `PEER_REFUSED` and `PEER_DEFERRED` are answered with 550 and 450.
    /// - `PEER_SINK_A_PORT`, `PEER_SINK_B_PORT`: plain servers that take everything; `PEER_SINK_A_DUMP`, `PEER_SINK_B_DUMP`,
    ///   `PEER_SINK_RELAY_DUMP`: folders with one file for each mail that came, envelope in `X-Mail-Args` and `X-Rcpt-Args`.
    /// - `POSTROOM_TEST_POSTGRES`: the URL of a PostgreSQL database in which tests make schemas of their own;
    ///   `POSTROOM_TEST_POSTGRES_CRASHED`: that of another server, which the command `POSTROOM_TEST_POSTGRES_CRASH` kills and starts
    ///   again.
    /// - `POSTROOM_TEST_MYSQL`, `POSTROOM_TEST_MYSQL_CRASHED`, `POSTROOM_TEST_MYSQL_CRASH`: the same of MariaDB, where tests make
    ///   databases of their own.
    /// - `PEER_LOG`: a folder with the servers' logs.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let mut all = vec![
            ("PEER_HOST".to_owned(), "localhost".to_owned()),
            ("PEER_STRICT_HOST".to_owned(), place::STRICT.to_owned()),
            ("PEER_USER".to_owned(), "suporte".to_owned()),
            ("PEER_PASSWORD".to_owned(), dovecot::PASSWORD.to_owned()),
            ("PEER_CA".to_owned(), shown(&self.place.file(authority::TRUSTED))),
            ("PEER_OTHER_CA".to_owned(), shown(&self.place.file(authority::STRANGER))),
            ("PEER_LOG".to_owned(), shown(&self.place.file("log"))),
        ];
        let [shared, victim] = &self.databases;
        all.extend(postgres::environment(shared, victim));
        let [shared, victim] = &self.mariadbs;
        all.extend(mariadb::environment(shared, victim));
        all.extend(self.dovecot.environment());
        all.extend(self.courier.environment());
        all.extend(self.cyrus.environment());
        all.extend(self.postfix.environment());
        all.extend(self.sinks.iter().flat_map(sink::Sink::environment));
        all
    }
}

/// Dovecot alone, in a folder of its own.
#[derive(Debug)]
pub(crate) struct MailStore {
    server: dovecot::Dovecot,
    place: Place,
}

impl MailStore {
    /// Start Dovecot and wait until it accepts connections.
    pub(crate) fn start() -> Outcome<Self> {
        packages::installed("dovecot-imapd")?;
        packages::installed("dovecot-pop3d")?;
        let place = Place::new()?;
        authority::make(&place)?;
        let server = dovecot::Dovecot::start(&place)?;
        Ok(Self { server, place })
    }

    pub(crate) fn imap(&self) -> std::net::SocketAddr {
        self.server.imap()
    }

    pub(crate) fn pop3(&self) -> std::net::SocketAddr {
        self.server.pop3()
    }

    /// The password of every user.
    pub(crate) fn password(&self) -> &'static str {
        dovecot::PASSWORD
    }

    /// Puts a mail into the inbox of a user, past the server, which finds it at the next look.
    pub(crate) fn put(&self, user: &str, name: &str, mail: &str) -> Outcome<()> {
        for folder in ["", "/Maildir", "/Maildir/cur", "/Maildir/new", "/Maildir/tmp"] {
            self.place.own_folder(&format!("mail/{user}{folder}"))?;
        }
        self.place.write(&format!("mail/{user}/Maildir/new/{name}"), mail).map(drop)
    }
}

/// A database server alone, in a folder of its own.
#[derive(Debug)]
pub(crate) struct Database {
    server: DatabaseServer,
    _place: Place,
}

#[derive(Debug)]
enum DatabaseServer {
    Postgres(Postgres),
    Mariadb(Mariadb),
}

impl Database {
    /// Start PostgreSQL and wait until it accepts connections.
    pub(crate) fn postgres() -> Outcome<Self> {
        packages::installed("postgresql")?;
        let place = Place::new()?;
        let server = DatabaseServer::Postgres(Postgres::start(&place, "postgres")?);
        Ok(Self { server, _place: place })
    }

    /// Start MariaDB and wait until it accepts connections.
    pub(crate) fn mariadb() -> Outcome<Self> {
        packages::installed("mariadb-server")?;
        let place = Place::new()?;
        let server = DatabaseServer::Mariadb(Mariadb::start(&place, "mariadb")?);
        Ok(Self { server, _place: place })
    }

    /// A new place for tables, as the URL that leads to it: a schema, or a database.
    pub(crate) fn fresh(&self, name: &str) -> Outcome<String> {
        match &self.server {
            DatabaseServer::Postgres(server) => server.schema(name),
            DatabaseServer::Mariadb(server) => server.database(name),
        }
    }
}
