//! Libraries that are loaded before the C library of a process, so that a test decides what that one says.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The library of this source, made in a folder; none where there is no C compiler.
pub(crate) fn library(folder: &Path, source: &str) -> Option<PathBuf> {
    let (file, library) = (folder.join("preload.c"), folder.join("preload.so"));
    std::fs::write(&file, source).unwrap();
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &file]).status();
    compiled.is_ok_and(|status| status.success()).then_some(library)
}
