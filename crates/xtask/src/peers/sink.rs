//! smtp-sink: takes any mail without TLS or sign-in and writes each to a file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use super::place::{Place, free_addresses, port_variable, shown};
use crate::outcome::Outcome;
use crate::process::Background;

#[derive(Debug)]
pub(super) struct Sink {
    name: &'static str,
    pub(super) address: SocketAddr,
    dump: PathBuf,
    _server: Background,
}

impl Sink {
    pub(super) fn start(place: &Place, name: &'static str) -> Outcome<Self> {
        let dump = place.own_folder(&format!("sink-{name}"))?;
        let [address] = free_addresses()?;
        let (log, stream) = place.log(&format!("sink-{name}.log"))?;
        let mut command = Command::new("/usr/sbin/smtp-sink");
        // smtp-sink appends a random number to the name, and insists on a user when it is started by root.
        command.args(["-u", &place.user.name, "-d", &format!("{}/%Y%m%d%H%M%S.", shown(&dump))]);
        command
            .arg(address.to_string())
            .arg("128")
            .current_dir(&dump)
            .stdout(std::process::Stdio::null())
            .stderr(stream);
        let server = Background::start("smtp-sink", &mut command, &[address], &log)?;
        Ok(Self { name, address, dump, _server: server })
    }

    pub(super) fn environment(&self) -> [(String, String); 2] {
        let name = format!("SINK_{}", self.name.to_uppercase());
        [port_variable(&name, self.address), (format!("PEER_{name}_DUMP"), shown(&self.dump))]
    }
}
