//! Programs whose Debian packages exclude others that the tests need: the packages are downloaded, kept below `target`, and unpacked
//! into a folder of the servers. Nothing is installed and no script of a package runs, so this needs no root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cargo::workspace;
use crate::outcome::Outcome;
use crate::process;

/// What can be had beside the installed servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// Courier's IMAP and POP3 servers.
    Courier,
    /// Cyrus's.
    Cyrus,
}

/// Written last: the names of the packages that lie beside it.
const COMPLETE: &str = "complete";

impl Program {
    pub(crate) const fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Courier => &["courier-imap", "courier-pop"],
            Self::Cyrus => &["cyrus-imapd", "cyrus-pop3d"],
        }
    }

    fn kept(self) -> PathBuf {
        let name = match self {
            Self::Courier => "courier",
            Self::Cyrus => "cyrus",
        };
        workspace().join("target/packages").join(name)
    }

    fn wanted(self, why: &str) -> String {
        format!("the Debian packages {} could not be had: {why}", self.packages().join(" "))
    }

    /// The packages that an earlier download left, all of them, or nothing.
    fn downloaded(self) -> Option<Vec<PathBuf>> {
        let kept = self.kept();
        let names = fs::read_to_string(kept.join(COMPLETE)).ok()?;
        let files: Vec<PathBuf> = names.lines().map(|name| kept.join(name)).collect();
        (!files.is_empty() && files.iter().all(|file| file.exists())).then_some(files)
    }

    /// Whether [`unpack`](Self::unpack) needs no download any more.
    pub(crate) fn is_here(self) -> bool {
        self.downloaded().is_some()
    }

    /// Download the packages and what they need beyond the installed ones, unless that was done before.
    pub(crate) fn download(self) -> Outcome<()> {
        if self.is_here() {
            return Ok(());
        }
        let plan = || {
            let mut command = apt();
            command.args(["install", "--simulate", "--yes", "--quiet", "--no-install-recommends"]);
            process::output(command.args(self.packages()))
        };
        let mut update = apt();
        update.args(["update", "--quiet"]);
        let listed = match plan() {
            Ok(listed) => listed,
            // A fresh machine has no lists yet.
            Err(_) if process::is_root() => {
                process::run(&mut update)?;
                plan().map_err(|error| self.wanted(&error))?
            }
            Err(error) => return Err(self.wanted(&error)),
        };
        let names = added(&listed);
        println!("downloading {}", names.join(" "));
        let kept = self.kept();
        let failed = |error: std::io::Error| format!("{}: {error}", kept.display());
        if kept.exists() {
            fs::remove_dir_all(&kept).map_err(failed)?;
        }
        fs::create_dir_all(&kept).map_err(failed)?;
        let fetch = || process::output(apt().args(["download", "--quiet"]).args(&names).current_dir(&kept));
        if let Err(error) = fetch() {
            if !process::is_root() {
                return Err(self.wanted(&error));
            }
            // Lists that are older than the archive name files that are gone.
            process::run(&mut update)?;
            fetch().map_err(|error| self.wanted(&error))?;
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(&kept).map_err(failed)? {
            files.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
        }
        fs::write(kept.join(COMPLETE), files.join("\n")).map_err(failed)
    }

    /// Unpack what was downloaded into a folder.
    pub(crate) fn unpack(self, folder: &Path) -> Outcome<()> {
        let packages = self.downloaded().ok_or_else(|| self.wanted("they were not downloaded"))?;
        for package in packages {
            process::output(Command::new("dpkg-deb").arg("--extract").arg(package).arg(folder))?;
        }
        Ok(())
    }
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    // The user that apt downloads under may not see our folder.
    command.args(["--option", "APT::Sandbox::User=root"]).env("LC_ALL", "C");
    command
}

/// The packages that a simulation of apt-get would add. One that it would only renew is there in a version that serves.
fn added(plan: &str) -> Vec<&str> {
    let installed = plan.lines().filter_map(|line| line.strip_prefix("Inst "));
    installed
        .filter_map(|rest| rest.split_once(' '))
        .filter(|(_, more)| more.starts_with('('))
        .map(|(name, _)| name)
        .collect()
}

/// Where the shared libraries of unpacked packages lie, as `LD_LIBRARY_PATH` takes it.
pub(crate) fn libraries(folder: &Path) -> String {
    let mut found = Vec::new();
    for base in ["usr/lib", "lib"].map(|name| folder.join(name)) {
        let inside = fs::read_dir(&base).into_iter().flatten().flatten().map(|entry| entry.path());
        found.extend(inside.filter(|path| path.to_string_lossy().ends_with("-linux-gnu")));
        found.push(base);
    }
    found.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":")
}

/// Write another text where a program has this one, ended by NUL: a path or a user that it was built with.
///
/// # Errors
/// If the text is not there, or the new one is longer.
pub(crate) fn rebuild_with(program: &Path, old: impl Fn(&[u8]) -> bool, new: &str) -> Outcome<()> {
    let failed = |why: &str| format!("{}: {why}", program.display());
    let mut bytes = fs::read(program).map_err(|error| failed(&error.to_string()))?;
    let mut found = None;
    let mut start = 0;
    for text in bytes.split(|byte| *byte == 0) {
        if old(text) {
            found = Some(start..start + text.len());
            break;
        }
        start += text.len() + 1;
    }
    let place =
        found.and_then(|range| bytes.get_mut(range)).ok_or_else(|| failed("it is built otherwise"))?;
    if new.len() > place.len() {
        return Err(failed(&format!("{new} is longer than the {} bytes that it has room for", place.len())));
    }
    place.fill(0);
    place.iter_mut().zip(new.bytes()).for_each(|(old, new)| *old = new);
    fs::write(program, bytes).map_err(|error| failed(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_told_from_what_is_renewed_or_removed() {
        let plan = "Remv dovecot-imapd [1:2.3]\nInst libgnutls30 [3.7.9-2] (3.7.9-3 Debian [amd64])\nInst courier-imap (5.0 Debian [amd64])\nInst gamin (0.1 Debian [amd64]) []\nConf gamin (0.1)";
        assert_eq!(added(plan), ["courier-imap", "gamin"]);
    }

    #[test]
    fn a_text_in_a_program_is_replaced_whole_and_never_by_a_longer_one() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        fs::write(&program, b"\x7fELF\0courier\0courierd\0").unwrap();
        rebuild_with(&program, |text| text == b"courier", "nobody").unwrap();
        assert_eq!(fs::read(&program).unwrap(), b"\x7fELF\0nobody\0\0courierd\0");
        let error = rebuild_with(&program, |text| text == b"nobody", "somebody").unwrap_err();
        assert!(error.contains("longer"), "{error}");
        assert!(
            rebuild_with(&program, |text| text == b"absent", "").unwrap_err().contains("built otherwise")
        );
        assert_eq!(fs::read(&program).unwrap(), b"\x7fELF\0nobody\0\0courierd\0");
    }
}
