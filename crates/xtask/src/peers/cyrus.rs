//! Cyrus: IMAP and POP3 with nearly every extension (QRESYNC, OBJECTID, LITERAL+, MOVE). Its package excludes Dovecot's, so it is
//! unpacked and run with a configuration of its own, under the unprivileged user throughout.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::accounts::{Accounts, Asking};
use super::authority;
use super::place::{Place, free_addresses, port_variable, shown};
use crate::outcome::Outcome;
use crate::packages::{Program, libraries};
use crate::process::{self, Background};

const PROTOCOLS: [&str; 4] = ["CYRUS_IMAP", "CYRUS_IMAPS", "CYRUS_POP3", "CYRUS_POP3S"];
/// Who may delete a user's boxes.
pub(super) const ADMINISTRATOR: &str = "cyrus";

#[derive(Debug)]
pub(super) struct Cyrus {
    pub(super) addresses: [SocketAddr; 4],
    _server: Background,
    _accounts: Accounts,
}

impl Cyrus {
    pub(super) fn start(place: &Place) -> Outcome<Self> {
        let folder = place.own_folder("cyrus")?;
        let programs = folder.join("programs");
        Program::Cyrus.unpack(&programs)?;
        for name in ["conf", "spool"] {
            place.own_folder(&format!("cyrus/{name}"))?;
        }
        for name in ["db", "log", "msg", "proc", "socket", "sync", "ptclient", "quota", "user", "lock"] {
            place.own_folder(&format!("cyrus/conf/{name}"))?;
        }
        let accounts = Accounts::open(place, "cyrus/sign-in", Asking::Saslauthd)?;
        let addresses: [SocketAddr; 4] = free_addresses()?;
        let group = nix::unistd::Group::from_gid(place.user.gid).ok().flatten();
        let group = group.ok_or("the user that servers run under has no group with a name")?.name;
        let configuration = place.write("cyrus/imapd.conf", &configuration(place, &group))?;
        let services = place.write("cyrus/cyrus.conf", &services(place, addresses))?;
        let (log, stream) = place.log("cyrus.log")?;
        let mut command = Command::new(programs.join("usr/lib/cyrus/bin/master"));
        command
            .arg("-C")
            .arg(&configuration)
            .arg("-M")
            .arg(&services)
            .arg("-p")
            .arg(place.file("cyrus/master.pid"))
            .env("LD_LIBRARY_PATH", libraries(&programs))
            .current_dir(place.folder.path())
            .stdout(Stdio::null())
            .stderr(stream);
        if process::is_root() {
            command.uid(place.user.uid.as_raw()).gid(place.user.gid.as_raw());
        }
        let server = Background::start("cyrus", &mut command, &addresses, &log)?;
        Ok(Self { addresses, _server: server, _accounts: accounts })
    }

    pub(super) fn environment(&self) -> Vec<(String, String)> {
        PROTOCOLS.iter().zip(self.addresses).map(|(name, address)| port_variable(name, address)).collect()
    }
}

fn configuration(place: &Place, group: &str) -> String {
    let (folder, user) = (shown(place.folder.path()), &place.user.name);
    let (certificate, key) = (authority::CERTIFICATE, authority::KEY);
    format!(
        "configdirectory: {folder}/cyrus/conf
partition-default: {folder}/cyrus/spool
defaultpartition: default
cyrus_user: {user}
cyrus_group: {group}
admins: {ADMINISTRATOR}
sasl_pwcheck_method: saslauthd
sasl_saslauthd_path: {folder}/cyrus/sign-in
sasl_mech_list: PLAIN LOGIN
allowplaintext: yes
tls_server_cert: {folder}/{certificate}
tls_server_key: {folder}/{key}
tls_session_timeout: 0
autocreate_quota: 0
autocreate_post: yes
delete_mode: immediate
unixhierarchysep: yes
altnamespace: yes
duplicatesuppression: no
popminpoll: 0
maxlogins_per_host: 0
idlesocket: {folder}/cyrus/conf/idle
master_pid_file: {folder}/cyrus/master.pid
master_ready_file: {folder}/cyrus/master.ready
"
    )
}

fn services(place: &Place, [imap, imaps, pop3, pop3s]: [SocketAddr; 4]) -> String {
    let folder = shown(&place.file("cyrus"));
    let program = |name: &str| format!("{folder}/programs/usr/lib/cyrus/bin/{name} -C {folder}/imapd.conf");
    let service = |name: &str, command: &str, more: &str, address: SocketAddr| {
        let command = program(command);
        format!("  {name} cmd=\"{command}{more}\" listen=\"{address}\" prefork=0 maxchild=200\n")
    };
    [
        format!("START {{\n  recover cmd=\"{} -r\"\n}}\nSERVICES {{\n", program("ctl_cyrusdb")),
        service("imap", "imapd", "", imap),
        service("imaps", "imapd", " -s", imaps),
        service("pop3", "pop3d", "", pop3),
        service("pop3s", "pop3d", " -s", pop3s),
        format!("}}\nDAEMON {{\n  idled cmd=\"{}\"\n}}\n", program("idled")),
    ]
    .concat()
}
