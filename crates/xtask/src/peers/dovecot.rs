//! Dovecot: IMAP, POP3 and LMTP, and the sign-in for Postfix. It runs under the unprivileged user throughout, so its processes
//! change neither user nor root directory.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::authority;
use super::place::{Place, STRICT, free_addresses, port_variable, shown};
use crate::outcome::Outcome;
use crate::process;
use crate::process::Background;

pub(super) const PASSWORD: &str = "secret";
/// The key that access tokens are signed with (HS256), in base64, and tokens of the user `token`: until the year 2100, until 2023, and until 2100
/// by another key.
const TOKEN_KEY: &str = "cG9zdHJvb20tdGVzdHMtc2lnbi1ieS10aGlzLWtleSE=";
const TOKENS: [(&str, &str); 3] = [
    (
        "PEER_TOKEN",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJ0b2tlbiIsImVtYWlsIjoidG9rZW4iLCJpYXQiOjE3MDAwMDAwMDAsImV4cCI6NDEwMjQ0NDgwMH0.vtSOBsRo772rdnsfkwyLFRaTbFdVdhKCTZT-yPhc-UM",
    ),
    (
        "PEER_TOKEN_EXPIRED",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJ0b2tlbiIsImVtYWlsIjoidG9rZW4iLCJpYXQiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMDEwMH0.X-Rbx0ZSAwz7Fm5a0q473jLjsRWd1bxsVzItcPV6Woo",
    ),
    (
        "PEER_TOKEN_STRANGE",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJ0b2tlbiIsImVtYWlsIjoidG9rZW4iLCJpYXQiOjE3MDAwMDAwMDAsImV4cCI6NDEwMjQ0NDgwMH0.qg6-naE2jg0pkLp50B3-JQ96qaNYMITTB0c-Am7O6-o",
    ),
];

const PROTOCOLS: [&str; 5] = ["IMAP", "IMAPS", "POP3", "POP3S", "LMTP"];

#[derive(Debug)]
pub(super) struct Dovecot {
    addresses: [SocketAddr; 5],
    configuration: PathBuf,
    mail: PathBuf,
    /// The socket at which Postfix asks whether a password is right.
    pub(super) sign_in: PathBuf,
    _server: Background,
}

impl Dovecot {
    pub(super) fn start(place: &Place) -> Outcome<Self> {
        let addresses: [SocketAddr; 5] = free_addresses()?;
        let mail = place.own_folder("mail")?;
        let sign_in = place.file("dovecot/sign-in");
        place.own_folder("dovecot")?;
        place.own_folder("dovecot/run")?;
        place.own_folder("dovecot/state")?;
        // Tokens are looked at by itself, without asking a provider.
        for folder in ["dovecot/keys", "dovecot/keys/default", "dovecot/keys/default/HS256"] {
            place.own_folder(folder)?;
        }
        place.write("dovecot/keys/default/HS256/default", TOKEN_KEY)?;
        let keys = shown(&place.file("dovecot/keys"));
        let oauth =
            format!("introspection_mode = local\nlocal_validation_key_dict = fs:posix:prefix={keys}/\n");
        place.write("dovecot-oauth2.conf", &oauth)?;
        let (log, stream) = place.log("dovecot.log")?;
        let configuration = place.write("dovecot.conf", &configuration(place, addresses)?)?;
        let mut command = Command::new("/usr/sbin/dovecot");
        command
            .arg("-F")
            .arg("-c")
            .arg(&configuration)
            .current_dir(place.folder.path())
            .stdout(Stdio::null())
            .stderr(stream);
        if process::is_root() {
            command.uid(place.user.uid.as_raw()).gid(place.user.gid.as_raw());
        }
        let server = Background::start("dovecot", &mut command, &addresses, &log)?;
        Ok(Self { addresses, configuration, mail, sign_in, _server: server })
    }

    pub(super) fn imap(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub(super) fn pop3(&self) -> SocketAddr {
        self.addresses[2]
    }

    pub(super) fn lmtp(&self) -> SocketAddr {
        self.addresses[4]
    }

    /// Where it is fetched from: IMAP, IMAPS, POP3, POP3S.
    pub(super) fn incoming(&self) -> [SocketAddr; 4] {
        let [imap, imaps, pop3, pop3s, _] = self.addresses;
        [imap, imaps, pop3, pop3s]
    }

    /// Lose the numbers of a user's mails: the next session gives new ones, under another UIDVALIDITY and other UIDLs.
    pub(super) fn renumber(&self, user: &str) -> Outcome<()> {
        let folder = self.mail.join(user).join("Maildir");
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name == "dovecot-uidlist" || name.starts_with("dovecot.index") {
                std::fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let ports = PROTOCOLS.iter().zip(self.addresses).map(|(name, address)| port_variable(name, address));
        let files = [("PEER_DOVECOT_CONF", &self.configuration), ("PEER_MAIL", &self.mail)];
        let tokens = TOKENS.map(|(name, token)| (name.to_owned(), token.to_owned()));
        ports.chain(files.map(|(name, path)| (name.to_owned(), shown(path)))).chain(tokens).collect()
    }
}

fn configuration(place: &Place, [imap, imaps, pop3, pop3s, lmtp]: [SocketAddr; 5]) -> Outcome<String> {
    let group = nix::unistd::Group::from_gid(place.user.gid).ok().flatten();
    let group = group.ok_or("the user that servers run under has no group with a name")?.name;
    let user = &place.user.name;
    let (uid, gid) = (place.user.uid, place.user.gid);
    let folder = shown(place.folder.path());
    let (certificate, key) = (authority::CERTIFICATE, authority::KEY);
    let [imap, imaps, pop3, pop3s, lmtp] = [imap, imaps, pop3, pop3s, lmtp].map(|address| address.port());
    Ok(format!(
        "base_dir = {folder}/dovecot/run
state_dir = {folder}/dovecot/state
log_path = {folder}/log/dovecot.log
listen = 127.0.0.1, {STRICT}
protocols = imap pop3 lmtp
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
ssl = required
ssl_cert = <{folder}/{certificate}
ssl_key = <{folder}/{key}
disable_plaintext_auth = yes
auth_mechanisms = plain login xoauth2 oauthbearer
auth_username_format = %Ln
# Wrong passwords belong to the tests; they need not wait.
auth_failure_delay = 0
mail_max_userip_connections = 1000
mail_uid = {uid}
mail_gid = {gid}
first_valid_uid = {uid}
first_valid_gid = {gid}
mail_home = {folder}/mail/%n
mail_location = maildir:{folder}/mail/%n/Maildir
maildir_stat_dirs = yes
recipient_delimiter = +
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {folder}/dovecot-oauth2.conf
}}
passdb {{
  driver = static
  mechanisms = plain login
  args = password={PASSWORD}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/mail/%n allow_all_users=yes
}}
namespace inbox {{
  inbox = yes
  separator = /
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service pop3-login {{
  chroot =
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = {pop3s}
    ssl = yes
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp}
  }}
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
service auth {{
  unix_listener {folder}/dovecot/sign-in {{
    mode = 0666
  }}
}}
"
    ))
}
