//! A store of the host's own: it keeps one port itself, the vault with the keys that sign thread tokens, in files apart from the
//! database, and has SQLite keep the others. Whether that makes one sound store is for the suite to say: every case runs here, each
//! over a new store, and, where the case asks for it, over the same store opened again.

#![expect(clippy::print_stdout, reason = "a program that tells what it does")]

mod delegate;
mod vault;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use postroom::storage::conformance::{Subject, cases};
use postroom::storage::keyring::{Binding, Sealed};
use postroom::storage::sql::sqlite::SqliteStore;
use postroom::storage::{Result, Vault};
use tempfile::TempDir;

use vault::FileVault;

/// The host's store.
#[derive(Debug)]
pub(crate) struct OwnStore {
    vault: FileVault,
    rest: SqliteStore,
    /// Goes with the last handle.
    _folder: Arc<TempDir>,
}

impl OwnStore {
    async fn open(folder: Arc<TempDir>) -> Result<Self> {
        let file = |path: &Path| format!("sqlite://{}", path.join("postroom.db").display());
        let rest = SqliteStore::open(&file(folder.path())).await?;
        Ok(Self { vault: FileVault::new(folder.path().join("vault")), rest, _folder: folder })
    }
}

#[async_trait]
impl Vault for OwnStore {
    async fn put_if_absent(&self, binding: &Binding, sealed: Sealed) -> Result<Sealed> {
        self.vault.put_if_absent(binding, sealed).await
    }

    async fn replace(&self, binding: &Binding, from: &Sealed, to: Option<Sealed>) -> Result<bool> {
        self.vault.replace(binding, from, to).await
    }

    async fn values(&self, owner: &str) -> Result<Vec<(Binding, Sealed)>> {
        self.vault.values(owner).await
    }
}

/// An empty store for one case of the suite.
async fn subject() -> Subject {
    let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
    std::fs::create_dir(folder.path().join("vault")).expect("the folder is new");
    let open = async |folder| Arc::new(OwnStore::open(folder).await.expect("the file can be opened"));
    let again = Arc::clone(&folder);
    Subject::new(open(folder).await).with_reopen(Box::new(|| {
        Box::pin(async { Arc::new(OwnStore::open(again).await.expect("the file can be opened again")) as _ })
    }))
}

#[cfg(test)]
postroom::storage::conformance_tests!(subject);

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn Error>> {
    let cases = cases();
    for case in &cases {
        // A case panics when the store breaks its clause, and the program ends with it.
        case.run(subject().await).await;
        println!("kept  {}", case.name());
    }
    println!("{} cases passed", cases.len());
    Ok(())
}
