//! The outside of files: length, opening line, name, and the numbers of migrations.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{File, Tree};

const SOFT: usize = 300;
const HARD: usize = 500;

/// Files that are better split, but may stay.
pub(crate) fn over_soft_limit(tree: &Tree) -> Vec<String> {
    longer(tree, SOFT)
}

/// Files that must be split.
pub(crate) fn over_hard_limit(tree: &Tree) -> Vec<String> {
    longer(tree, HARD)
}

fn longer(tree: &Tree, limit: usize) -> Vec<String> {
    let measured =
        tree.under("", ".rs").filter(|file| !is_exempt(file)).map(|file| (file, file.text.lines().count()));
    measured
        .filter(|(_, lines)| *lines > limit)
        .map(|(file, lines)| format!("{}: {lines} lines, over {limit}", file.path))
        .collect()
}

/// A conformance suite is one list of clauses, and a manual page is prose.
fn is_exempt(file: &File) -> bool {
    file.path.split('/').any(|part| ["conformance", "conformance.rs", "manual", "manual.rs"].contains(&part))
}

/// Files whose first line says nothing of what lives in them.
pub(crate) fn without_header(tree: &Tree) -> Vec<String> {
    let opens = |file: &File| file.text.strip_prefix("//! ").is_some_and(|said| said.trim_start().len() > 1);
    tree.under("", ".rs")
        .filter(|file| !opens(file))
        .map(|file| format!("{}: does not open with `//!` and what lives here", file.path))
        .collect()
}

/// Names that could stand for anything.
pub(crate) fn vague_names(tree: &Tree) -> Vec<String> {
    let vague = [
        "mod", "util", "utils", "common", "helper", "helpers", "types", "model", "models", "manager",
        "prelude", "misc",
    ];
    tree.under("", ".rs")
        .filter_map(|file| {
            let parts = file.path.trim_end_matches(".rs").split('/');
            let found = parts.into_iter().find(|part| vague.contains(part))?;
            Some(format!("{}: a file or folder named `{found}`", file.path))
        })
        .collect()
}

/// Migrations that one dialect has and another has not, or whose numbers don't count up from 0001.
pub(crate) fn uneven_migrations(tree: &Tree) -> Vec<String> {
    let folder = "crates/storage/migrations/";
    let mut dialects: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for file in tree.under(folder, ".sql") {
        if let Some((dialect, name)) = file.path.trim_start_matches(folder).split_once('/') {
            dialects.entry(dialect).or_default().insert(name);
        }
    }
    if dialects.is_empty() {
        return vec![format!("{folder}: no dialect has a migration")];
    }
    let all: BTreeSet<&str> = dialects.values().flatten().copied().collect();
    let mut violations = Vec::new();
    for (dialect, names) in &dialects {
        violations.extend(all.difference(names).map(|name| format!("{folder}{dialect}/{name} is missing")));
        violations.extend(names.iter().zip(1..).filter_map(|(name, number)| {
            let fits = name.starts_with(&format!("{number:04}_"));
            (!fits).then(|| format!("{folder}{dialect}/{name} should be number {number:04}"))
        }));
    }
    violations
}

#[test]
fn a_long_file_is_found_and_a_conformance_suite_is_not() {
    let lines = |count| "//! A.\n".repeat(count);
    let (note, fail, suite) = (lines(301), lines(501), lines(9000));
    let fine = lines(300);
    let tree = Tree::made_up(&[
        ("crates/a/src/fine.rs", &fine),
        ("crates/a/src/note.rs", &note),
        ("crates/a/src/fail.rs", &fail),
        ("crates/a/src/conformance/queue.rs", &suite),
    ]);
    assert_eq!(over_soft_limit(&tree).len(), 2);
    assert_eq!(over_hard_limit(&tree), ["crates/a/src/fail.rs: 501 lines, over 500"]);
}

#[test]
fn a_file_that_opens_with_code_or_with_nothing_is_found() {
    let tree = Tree::made_up(&[
        ("a.rs", "use b;\n//! Late."),
        ("b.rs", ""),
        ("c.rs", "//! \n"),
        ("d.rs", "//! Fine.\n"),
    ]);
    let found: Vec<_> = without_header(&tree).iter().map(|said| said[..1].to_owned()).collect();
    assert_eq!(found, ["a", "b", "c"]);
}

#[test]
fn a_file_or_folder_with_a_vague_name_is_found() {
    let tree = Tree::made_up(&[
        ("a/src/mod.rs", ""),
        ("a/src/common/x.rs", ""),
        ("a/util.rs", ""),
        ("a/commons.rs", ""),
    ]);
    assert_eq!(vague_names(&tree).len(), 3, "{:?}", vague_names(&tree));
}

#[test]
fn a_migration_of_one_dialect_only_and_a_gap_are_found() {
    let at = |name: &str| format!("crates/storage/migrations/{name}");
    let (one, two, other, gap) =
        (at("sqlite/0001_a.sql"), at("sqlite/0002_b.sql"), at("mysql/0001_a.sql"), at("mysql/0003_b.sql"));
    let tree = Tree::made_up(&[(&one, ""), (&two, ""), (&other, ""), (&gap, "")]);
    let found = uneven_migrations(&tree).join("\n");
    for part in [
        "mysql/0002_b.sql is missing",
        "sqlite/0003_b.sql is missing",
        "mysql/0003_b.sql should be number 0002",
    ] {
        assert!(found.contains(part), "{part} not in {found}");
    }
    assert_eq!(uneven_migrations(&Tree::made_up(&[])).len(), 1);
}
