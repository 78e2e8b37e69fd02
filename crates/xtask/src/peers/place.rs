//! Where the real servers live: their folder, the user that they run under, and the ports that are theirs. No server is known here.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::unistd::User;
use tempfile::TempDir;

use crate::outcome::Outcome;
use crate::process;

/// Where a sign-in without TLS is refused: Dovecot takes a client whose address is the server's own for secured, and a client of
/// this address comes from 127.0.0.1.
pub(super) const STRICT: &str = "127.0.0.2";

pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}

pub(super) fn port_variable(name: &str, address: SocketAddr) -> (String, String) {
    (format!("PEER_{name}_PORT"), address.port().to_string())
}

/// The folder that holds everything of the servers, and the user that they run under. The folder goes with this value.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) folder: TempDir,
    pub(super) user: User,
}

impl Place {
    pub(super) fn new() -> Outcome<Self> {
        let folder = tempfile::Builder::new().prefix("postroom-peers-").tempdir();
        let folder = folder.map_err(|error| format!("no temporary folder: {error}"))?;
        // The servers run under users of their own and have to pass through.
        allow(folder.path(), 0o755)?;
        let place = Self { folder, user: process::unprivileged()? };
        place.own_folder("log")?;
        Ok(place)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A folder that belongs to the unprivileged user.
    pub(super) fn own_folder(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.file(name);
        fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        self.hand_over(&path)?;
        Ok(path)
    }

    /// A file that anyone may read and the unprivileged user owns.
    pub(super) fn write(&self, name: &str, text: &str) -> Outcome<PathBuf> {
        let path = self.file(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        self.hand_over(&path)?;
        Ok(path)
    }

    fn hand_over(&self, path: &Path) -> Outcome<()> {
        let (user, group) = (self.user.uid.as_raw(), self.user.gid.as_raw());
        chown(path, Some(user), Some(group)).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// A log, and a second handle for the other stream of a server.
    pub(super) fn log(&self, name: &str) -> Outcome<(PathBuf, fs::File)> {
        let path = self.write(&format!("log/{name}"), "")?;
        let file = fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok((path, file))
    }
}

pub(super) fn allow(path: &Path, mode: u32) -> Outcome<()> {
    let changed = fs::set_permissions(path, fs::Permissions::from_mode(mode));
    changed.map_err(|error| format!("{}: {error}", path.display()))
}

/// Loopback addresses whose ports nobody listens on. They lie below the range that the kernel gives out by itself, so that no
/// connection or test in the meantime is handed one of them.
pub(crate) fn free_addresses<const N: usize>() -> Outcome<[SocketAddr; N]> {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    /// Processes that are started together have numbers side by side, and each takes some ports.
    const APART: u32 = 64;
    let start = u16::try_from(std::process::id().wrapping_mul(APART) % u32::from(COUNT)).unwrap_or(0);
    let mut found = Vec::new();
    while found.len() < N {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        if step >= COUNT {
            return Err(format!("there are no {N} free ports on loopback"));
        }
        let port = FIRST + (start + step) % COUNT;
        if TcpListener::bind((STRICT, port)).is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
        {
            found.push(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
        }
    }
    found.try_into().map_err(|_| "the list has another length".to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn free_addresses_are_all_different_and_none_is_taken() {
        let first: [SocketAddr; 8] = free_addresses().unwrap();
        let second: [SocketAddr; 8] = free_addresses().unwrap();
        let all: BTreeSet<SocketAddr> = first.into_iter().chain(second).collect();
        assert_eq!(all.len(), 16);
        // A process that another test starts at this moment has a copy of every socket, the looked-at ones too, until it runs its program.
        let is_free = |address| {
            (0..1000).any(|_| {
                let bound = TcpListener::bind(address).is_ok();
                if !bound {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                bound
            })
        };
        for address in all {
            assert!(is_free(address), "{address} is taken");
        }
    }
}
