//! Courier: IMAP and POP3 with few extensions (no SASL-IR, LITERAL+, MOVE, CONDSTORE). Its package excludes Dovecot's, so it is
//! unpacked and told by its environment what its scripts would tell it. It runs under the unprivileged user throughout.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::accounts::{Accounts, Asking};
use super::authority;
use super::place::{Place, allow, free_addresses, port_variable, shown};
use crate::outcome::Outcome;
use crate::packages::{Program, libraries, rebuild_with};
use crate::process::{self, Background};

const PROTOCOLS: [&str; 4] = ["COURIER_IMAP", "COURIER_IMAPS", "COURIER_POP3", "COURIER_POP3S"];
/// Where its programs ask for a sign-in, seen from the folder that they start in.
const SIGN_IN: &str = "courier/sign-in";

#[derive(Debug)]
pub(super) struct Courier {
    pub(super) addresses: [SocketAddr; 4],
    mail: PathBuf,
    _servers: [Background; 4],
    _accounts: Accounts,
}

impl Courier {
    pub(super) fn start(place: &Place) -> Outcome<Self> {
        let folder = place.own_folder("courier")?;
        let mail = place.own_folder("courier/mail")?;
        let programs = folder.join("programs");
        Program::Courier.unpack(&programs)?;
        settle_in(place, &programs)?;
        let (user, group) = (place.user.uid.as_raw(), place.user.gid.as_raw());
        let accounts =
            Accounts::open(place, SIGN_IN, Asking::Authdaemon { mail: mail.clone(), user, group })?;
        // Key and certificate in one file.
        let read =
            |name| std::fs::read_to_string(place.file(name)).map_err(|error| format!("{name}: {error}"));
        let both =
            place.write("courier/server.pem", &(read(authority::KEY)? + &read(authority::CERTIFICATE)?))?;
        allow(&both, 0o600)?;
        let addresses: [SocketAddr; 4] = free_addresses()?;
        let [imap, imaps, pop3, pop3s] = addresses;
        let server = |address, secured, sign_in: &str, session: &str| {
            listen(place, &programs, address, secured, [sign_in, session])
        };
        let servers = [
            server(imap, Secured::OnDemand, "usr/lib/courier/courier/imaplogin", "usr/bin/imapd")?,
            server(imaps, Secured::FromTheStart, "usr/lib/courier/courier/imaplogin", "usr/bin/imapd")?,
            server(
                pop3,
                Secured::OnDemand,
                "usr/lib/courier/courier/courierpop3login",
                "usr/lib/courier/courier/courierpop3d",
            )?,
            server(
                pop3s,
                Secured::FromTheStart,
                "usr/lib/courier/courier/courierpop3login",
                "usr/lib/courier/courier/courierpop3d",
            )?,
        ];
        Ok(Self { addresses, mail, _servers: servers, _accounts: accounts })
    }

    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let ports = PROTOCOLS.iter().zip(self.addresses).map(|(name, address)| port_variable(name, address));
        ports.chain([("PEER_COURIER_MAIL".to_owned(), shown(&self.mail))]).collect()
    }

    /// Lose the numbers of a user's mails: the next session gives new ones, under another UIDVALIDITY and other UIDLs.
    pub(super) fn renumber(&self, user: &str) -> Outcome<()> {
        let folder = self.mail.join(user).join("Maildir");
        for name in ["courierimapuiddb", "courierpop3dsizelist"] {
            match std::fs::remove_file(folder.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(format!("{name} of {user}: {error}"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// What the packages were built with becomes what is here: the socket of the sign-in, and the user that TLS runs under.
fn settle_in(place: &Place, programs: &Path) -> Outcome<()> {
    let library = programs.join("usr/lib/libcourierauth.so.0");
    let library = library.canonicalize().map_err(|error| format!("{}: {error}", library.display()))?;
    let is_socket = |text: &[u8]| text.starts_with(b"/run/courier/") && text.ends_with(b"/socket");
    rebuild_with(&library, is_socket, SIGN_IN)?;
    ["imaplogin", "courierpop3login"].iter().try_for_each(|name| {
        let program = programs.join("usr/lib/courier/courier").join(name);
        rebuild_with(&program, |text| text == b"courier", &place.user.name)
    })
}

/// When TLS begins.
#[derive(Clone, Copy, Debug)]
enum Secured {
    OnDemand,
    FromTheStart,
}

fn listen(
    place: &Place,
    programs: &Path,
    address: SocketAddr,
    secured: Secured,
    [sign_in, session]: [&str; 2],
) -> Outcome<Background> {
    let (log, stream) = place.log(&format!("courier-{}.log", address.port()))?;
    let tls = programs.join("usr/bin/couriertls");
    let mut command = Command::new(programs.join("usr/sbin/couriertcpd"));
    command.arg(format!("-address={}", address.ip()));
    command.args(["-maxprocs=200", "-maxperip=200", "-nodnslookup", "-noidentlookup"]);
    command.arg(address.port().to_string());
    if matches!(secured, Secured::FromTheStart) {
        command.arg(&tls).args(["-server", "-tcpd"]).env("IMAP_TLS", "1").env("POP3_TLS", "1");
    }
    command.arg(programs.join(sign_in)).arg(programs.join(session)).arg("Maildir");
    command
        .env("LD_LIBRARY_PATH", libraries(programs))
        .env("COURIERTLS", &tls)
        .env("TLS_CERTFILE", place.file("courier/server.pem"))
        .env("TLS_VERIFYPEER", "NONE")
        .env("AUTHMODULES", "authdaemon")
        .env(
            "IMAP_CAPABILITY",
            "IMAP4rev1 UIDPLUS CHILDREN NAMESPACE THREAD=ORDEREDSUBJECT THREAD=REFERENCES SORT QUOTA IDLE",
        )
        .envs([("IMAP_KEYWORDS", "1"), ("IMAP_ACL", "1"), ("IMAP_USELOCKS", "0"), ("IMAP_ENHANCEDIDLE", "0")])
        .envs([("IMAP_IDLE_TIMEOUT", "1"), ("IMAP_MAILBOX_SANITY_CHECK", "1"), ("IMAP_UMASK", "022")])
        .envs([("IMAP_STARTTLS", "YES"), ("IMAP_TLS_REQUIRED", "0")])
        .envs([("POP3_STARTTLS", "YES"), ("POP3_TLS_REQUIRED", "0")])
        .envs([("IMAP_TRASHFOLDERNAME", "Trash"), ("IMAP_MOVE_EXPUNGE_TO_TRASH", "0")])
        .current_dir(place.folder.path())
        .stdout(Stdio::null())
        .stderr(stream);
    if process::is_root() {
        command.uid(place.user.uid.as_raw()).gid(place.user.gid.as_raw());
    }
    Background::start("courier", &mut command, &[address], &log)
}
