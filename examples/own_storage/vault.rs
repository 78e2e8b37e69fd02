//! The host's own vault: sealed values as files in a folder that is not the database's, one file each. What they are sealed with
//! is not known here.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use postroom::storage::keyring::{Binding, Sealed};
use postroom::storage::{Error, ErrorKind, Result, Vault};

/// A folder of sealed values. The name of a file is its binding in hex: an owner and a field of 60 bytes each fit.
#[derive(Debug, Clone)]
pub(crate) struct FileVault {
    folder: PathBuf,
}

impl FileVault {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn path(&self, binding: &Binding) -> PathBuf {
        self.folder.join(format!("{}.{}", hex(&binding.owner), hex(&binding.field)))
    }

    /// Writes a value beside its place and links it in: the place is either empty or holds a whole value, and the first writer,
    /// of any process, wins.
    fn put(&self, binding: &Binding, sealed: &Sealed) -> io::Result<Sealed> {
        let path = self.path(binding);
        let mut draft = tempfile::NamedTempFile::new_in(&self.folder)?;
        draft.write_all(sealed.as_bytes())?;
        draft.as_file().sync_all()?;
        match fs::hard_link(draft.path(), &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            linked => linked?,
        }
        // The name is on the medium once its folder is.
        fs::File::open(&self.folder)?.sync_all()?;
        fs::read(&path).map(Sealed::from_bytes)
    }

    /// Replaces or removes a value that is still the given one. Whoever replaces has the lock of the folder meanwhile.
    fn swap(&self, binding: &Binding, from: &Sealed, to: Option<&Sealed>) -> io::Result<bool> {
        let lock = fs::File::create(self.folder.join("lock"))?;
        lock.lock()?;
        let path = self.path(binding);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            found if found.as_ref().is_ok_and(|found| found != from.as_bytes()) => return Ok(false),
            found => drop(found?),
        }
        match to {
            Some(to) => {
                let mut draft = tempfile::NamedTempFile::new_in(&self.folder)?;
                draft.write_all(to.as_bytes())?;
                draft.as_file().sync_all()?;
                draft.persist(&path)?;
            }
            None => fs::remove_file(&path)?,
        }
        fs::File::open(&self.folder)?.sync_all()?;
        Ok(true)
    }

    fn of(&self, owner: &str) -> io::Result<Vec<(Binding, Sealed)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if let Some(binding) = binding(&path).filter(|binding| binding.owner == owner) {
                found.push((binding, Sealed::from_bytes(fs::read(path)?)));
            }
        }
        found.sort_by(|(a, _), (b, _)| a.field.cmp(&b.field));
        Ok(found)
    }
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn plain(hex: &str) -> Option<String> {
    let bytes: Option<Vec<u8>> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect();
    String::from_utf8(bytes?).ok()
}

/// What a file name stands for; none for a draft that a killed process left.
fn binding(path: &Path) -> Option<Binding> {
    let (owner, field) =
        path.file_name()?.to_str()?.split_once('.').filter(|(owner, _)| !owner.is_empty())?;
    Some(Binding::new(plain(owner)?, plain(field)?))
}

/// Runs file work where it may block.
async fn on_files<T: Send + 'static>(
    stage: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let unavailable = |error: io::Error| Error::new(ErrorKind::Unavailable, stage).with_source(error);
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)
        .and_then(|done| done)
        .map_err(unavailable)
}

#[async_trait]
impl Vault for FileVault {
    async fn put_if_absent(&self, binding: &Binding, sealed: Sealed) -> Result<Sealed> {
        let (vault, binding) = (self.clone(), binding.clone());
        on_files("put a sealed value into its file", move || vault.put(&binding, &sealed)).await
    }

    async fn replace(&self, binding: &Binding, from: &Sealed, to: Option<Sealed>) -> Result<bool> {
        let (vault, binding, from) = (self.clone(), binding.clone(), from.clone());
        on_files("replace a sealed value in its file", move || vault.swap(&binding, &from, to.as_ref())).await
    }

    async fn values(&self, owner: &str) -> Result<Vec<(Binding, Sealed)>> {
        let (vault, owner) = (self.clone(), owner.to_owned());
        on_files("read the files of sealed values", move || vault.of(&owner)).await
    }
}
