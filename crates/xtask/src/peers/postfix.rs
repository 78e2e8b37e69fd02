//! Postfix: submission with TLS and sign-in, and an entrance without either. What is for the boxes' domain goes to Dovecot, all
//! other mail to a sink. Its configuration, queue and data are its own, so an instance of the machine is not touched.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use super::authority;
use super::dovecot::Dovecot;
use super::place::{Place, free_addresses, port_variable, shown};
use super::sink::Sink;
use crate::outcome::Outcome;
use crate::process::{self, Background};

const BOXES: &str = "boxes.example";
const REFUSED: &str = "refused@elsewhere.example";
const DEFERRED: &str = "deferred@elsewhere.example";

#[derive(Debug)]
pub(super) struct Postfix {
    addresses: [SocketAddr; 3],
    _server: Background,
}

impl Postfix {
    pub(super) fn start(place: &Place, dovecot: &Dovecot, sink: &Sink) -> Outcome<Self> {
        let addresses: [SocketAddr; 3] = free_addresses()?;
        let home = place.file("postfix");
        let (log, stream) = place.log("postfix.log")?;
        let failed = |error: std::io::Error| format!("{}: {error}", home.display());
        let owner =
            nix::unistd::User::from_name("postfix").ok().flatten().ok_or("the user postfix is missing")?;
        for folder in ["queue", "data"] {
            fs::create_dir_all(home.join(folder)).map_err(failed)?;
        }
        // The data belong to Postfix; the queue directory belongs to root.
        std::os::unix::fs::chown(home.join("data"), Some(owner.uid.as_raw()), None).map_err(failed)?;
        fs::write(home.join("main.cf"), main(place, dovecot, sink)).map_err(failed)?;
        fs::write(home.join("master.cf"), master(addresses)).map_err(failed)?;
        // Makes the folders of the queue and checks the configuration.
        process::output(Command::new("/usr/sbin/postfix").arg("-c").arg(&home).arg("check"))?;
        let mut command = Command::new("/usr/lib/postfix/sbin/master");
        // `-d`: stay in the process group that it was started in.
        command.arg("-c").arg(&home).arg("-d").current_dir(&home).stdout(Stdio::null()).stderr(stream);
        let server = Background::start("postfix", &mut command, &addresses, &log)?;
        Ok(Self { addresses, _server: server })
    }

    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let names = ["SUBMISSION", "SUBMISSIONS", "MX"];
        let ports = names.iter().zip(self.addresses).map(|(name, address)| port_variable(name, address));
        let words = [("PEER_BOXES_DOMAIN", BOXES), ("PEER_REFUSED", REFUSED), ("PEER_DEFERRED", DEFERRED)];
        ports.chain(words.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
    }
}

fn main(place: &Place, dovecot: &Dovecot, sink: &Sink) -> String {
    let folder = shown(place.folder.path());
    let (certificate, key) = (authority::CERTIFICATE, authority::KEY);
    let (sign_in, lmtp, relay) = (shown(&dovecot.sign_in), dovecot.lmtp(), sink.address);
    format!(
        "compatibility_level = 3.6
queue_directory = {folder}/postfix/queue
data_directory = {folder}/postfix/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
meta_directory = /etc/postfix
shlib_directory = /usr/lib/postfix
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/log/postfix.log
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
relayhost = [{relay_host}]:{relay_port}
relay_domains = {BOXES}
relay_recipient_maps =
relay_transport = lmtp:inet:{lmtp}
smtp_tls_security_level = none
lmtp_tls_security_level = none
smtpd_tls_cert_file = {folder}/{certificate}
smtpd_tls_key_file = {folder}/{key}
smtpd_sasl_type = dovecot
smtpd_sasl_path = {sign_in}
smtpd_sasl_security_options = noanonymous
# Dovecot shows the other one.
smtpd_sasl_mechanism_filter = !external, !oauthbearer, static:rest
smtpd_tls_auth_only = yes
smtpd_recipient_restrictions = check_recipient_access inline:{{{{{REFUSED} = 550 5.1.1 no such mailbox}}, {{{DEFERRED} = 450 4.2.1 mailbox is busy}}}}
smtpd_relay_restrictions = permit_mynetworks, reject
# Wrong passwords and refusals belong to the tests; they need not wait.
smtpd_error_sleep_time = 0
smtpd_hard_error_limit = 1000
smtpd_soft_error_limit = 1000
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
in_flow_delay = 0
queue_run_delay = 5s
minimal_backoff_time = 5s
maximal_backoff_time = 10s
",
        relay_host = relay.ip(),
        relay_port = relay.port()
    )
}

fn master([submission, submissions, mx]: [SocketAddr; 3]) -> String {
    format!(
        "{submission} inet n - n - - smtpd
  -o smtpd_tls_security_level=encrypt
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
{submissions} inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
{mx} inet n - n - - smtpd
{SERVICES}"
    )
}

/// The services of an instance, but for those that listen to the network. No process leaves its root directory: the queue has no
/// copy of the libraries' files.
pub(crate) const SERVICES: &str = "\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
lmtp unix - - n - - lmtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";
