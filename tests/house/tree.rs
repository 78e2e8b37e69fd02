//! The files that the guards look at: read from the repository, or made up by a test. Nothing here judges them.

use std::path::{Path, PathBuf};

/// A file: its path from the root of the tree, with `/` between folders, and its text.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A tree of files in the order of their paths.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
}

impl Tree {
    /// Every Rust file, manifest and migration of this repository.
    pub(crate) fn of_the_repository() -> Self {
        let root = repository();
        let mut tree = Self { files: Vec::new() };
        tree.read(&root, &root);
        assert!(tree.files.len() > 10, "only {} files under {}", tree.files.len(), root.display());
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        tree
    }

    /// A small tree for the test of a guard.
    pub(crate) fn made_up(files: &[(&str, &str)]) -> Self {
        let files =
            files.iter().map(|(path, text)| File { path: (*path).into(), text: (*text).into() }).collect();
        Self { files }
    }

    /// The files under a folder with an ending.
    pub(crate) fn under<'a>(&'a self, folder: &'a str, ending: &'a str) -> impl Iterator<Item = &'a File> {
        self.files.iter().filter(move |file| file.path.starts_with(folder) && file.path.ends_with(ending))
    }

    fn read(&mut self, root: &Path, folder: &Path) {
        for entry in std::fs::read_dir(folder).expect("a folder of the repository can be read") {
            let path = entry.expect("an entry of the repository can be read").path();
            let name =
                path.file_name().and_then(|name| name.to_str()).expect("names in the repository are UTF-8");
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" {
                    self.read(root, &path);
                }
            } else if name.ends_with(".rs") || name.ends_with(".sql") || name == "Cargo.toml" {
                let text = std::fs::read_to_string(&path).expect("a text file of the repository is UTF-8");
                let inside = path.strip_prefix(root).expect("the walk started at the root");
                self.files.push(File { path: inside.to_string_lossy().replace('\\', "/"), text });
            }
        }
    }
}

/// The root of the workspace.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are a folder of the workspace")
        .to_owned()
}
