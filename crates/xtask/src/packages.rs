//! Debian packages that the real servers come in: which are missing, and how they are installed without starting or removing
//! anything. What can't be installed beside them is in `unpacked`. How the servers are run is not here.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::outcome::Outcome;
use crate::process;

mod unpacked;

pub(crate) use unpacked::{Program, libraries, rebuild_with};

/// What the tests take beside what is installed.
const BESIDE: [Program; 2] = [Program::Courier, Program::Cyrus];

/// A package and the file that shows that it is there.
const NEEDED: [(&str, &str); 6] = [
    ("dovecot-imapd", "/usr/lib/dovecot/imap-login"),
    ("dovecot-pop3d", "/usr/lib/dovecot/pop3-login"),
    ("dovecot-lmtpd", "/usr/lib/dovecot/lmtp"),
    ("postfix", "/usr/sbin/smtp-sink"),
    ("mariadb-server", "/usr/sbin/mariadbd"),
    ("postgresql", "/usr/lib/postgresql/15/bin/postgres"),
];

/// The packages that are not installed.
pub(crate) fn missing() -> Vec<&'static str> {
    NEEDED.iter().filter(|(_, file)| !Path::new(file).exists()).map(|(package, _)| *package).collect()
}

/// Nothing, or an error if this one of the packages is missing.
pub(crate) fn installed(package: &str) -> Outcome<()> {
    match missing().into_iter().find(|missing| *missing == package) {
        None => Ok(()),
        Some(missing) => Err(wanted(&[missing], "it is not installed")),
    }
}

/// Nothing, or an error that names what is missing.
pub(crate) fn present() -> Outcome<()> {
    match missing().as_slice() {
        [] => {}
        missing => return Err(wanted(missing, "they are not installed")),
    }
    let absent: Vec<_> = BESIDE
        .iter()
        .filter(|program| !program.is_here())
        .flat_map(|program| program.packages())
        .copied()
        .collect();
    if absent.is_empty() { Ok(()) } else { Err(wanted(&absent, "they are not downloaded")) }
}

fn wanted(packages: &[&str], why: &str) -> String {
    format!("the real servers need the Debian packages {}: {why}", packages.join(" "))
}

/// Install what is missing, if that is ours to do: as root, by apt-get, and only if nothing is removed by it. What excludes the
/// installed servers is downloaded, and not installed.
pub(crate) fn install() -> Outcome<()> {
    install_missing()?;
    BESIDE.iter().try_for_each(|program| program.download())
}

fn install_missing() -> Outcome<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    if !process::is_root() {
        return Err(wanted(&missing, "only root may install them"));
    }
    let ask = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .args(words)
            .arg("install")
            .args(["--yes", "--quiet", "--no-install-recommends"])
            .args(&missing);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        command
    };
    let update = || process::run(Command::new("apt-get").args(["update", "--quiet"]));
    let plan = match process::output(&mut ask(&["--simulate"])) {
        Ok(plan) => plan,
        // A fresh machine has no lists yet.
        Err(_) => {
            update()?;
            process::output(&mut ask(&["--simulate"])).map_err(|error| wanted(&missing, &error))?
        }
    };
    let removed = removals(&plan);
    if !removed.is_empty() {
        return Err(wanted(&missing, &format!("installing them would remove {}", removed.join(" "))));
    }
    println!("installing {}", missing.join(" "));
    let _quiet = NothingStarts::at(Path::new("/usr/sbin/policy-rc.d"))?;
    let mut status = process::run(&mut ask(&["--no-remove"]))?;
    if !status.success() {
        // Lists that are older than the archive name files that are gone.
        update()?;
        status = process::run(&mut ask(&["--no-remove"]))?;
    }
    if !status.success() {
        return Err(wanted(&missing, &format!("apt-get: {}", process::told(status))));
    }
    match self::missing().as_slice() {
        [] => Ok(()),
        missing => Err(wanted(missing, "apt-get left them out")),
    }
}

/// The packages that a simulation of apt-get would remove.
fn removals(plan: &str) -> Vec<&str> {
    plan.lines().filter_map(|line| line.strip_prefix("Remv ")?.split(' ').next()).collect()
}

/// While this lives, no package starts its service at installation. The policy that was there before comes back afterwards.
#[derive(Debug)]
struct NothingStarts {
    policy: PathBuf,
    kept: PathBuf,
}

impl NothingStarts {
    fn at(policy: &Path) -> Outcome<Self> {
        let kept = policy.with_extension("d.kept-by-postroom");
        let this = Self { policy: policy.to_owned(), kept };
        let failed = |error: std::io::Error| format!("{}: {error}", policy.display());
        // If a kept policy lies there, an earlier run was killed, and what stands at the policy's place is ours.
        if policy.exists() && !this.kept.exists() {
            fs::rename(policy, &this.kept).map_err(failed)?;
        }
        fs::write(policy, "#!/bin/sh\nexit 101\n").map_err(failed)?;
        fs::set_permissions(policy, fs::Permissions::from_mode(0o755)).map_err(failed)?;
        Ok(this)
    }
}

impl Drop for NothingStarts {
    fn drop(&mut self) {
        let restored = if self.kept.exists() {
            fs::rename(&self.kept, &self.policy)
        } else {
            fs::remove_file(&self.policy)
        };
        if let Err(error) = restored {
            eprintln!("{} could not be put back: {error}", self.policy.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_removals_of_a_plan_are_read() {
        let plan = "Reading package lists...\nRemv exim4-base [4.96] [exim4 ]\nRemv exim4 [4.96]\nInst postfix (3.7.11 Debian)\nConf postfix";
        assert_eq!(removals(plan), ["exim4-base", "exim4"]);
        assert!(removals("Inst postfix (3.7.11 Debian)\n").is_empty());
    }

    #[test]
    fn a_policy_that_was_there_comes_back_and_ours_goes() {
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy-rc.d");
        let guard = NothingStarts::at(&policy).unwrap();
        assert!(fs::read_to_string(&policy).unwrap().contains("exit 101"));
        drop(guard);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

        fs::write(&policy, "theirs").unwrap();
        // A run that was killed before it could put the policy back.
        std::mem::forget(NothingStarts::at(&policy).unwrap());
        let guard = NothingStarts::at(&policy).unwrap();
        assert!(fs::read_to_string(&policy).unwrap().contains("exit 101"));
        drop(guard);
        assert_eq!(fs::read_to_string(&policy).unwrap(), "theirs");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
