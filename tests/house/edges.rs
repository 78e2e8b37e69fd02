//! Which crate may name which. The manifests are read as they stand; what the engine really pulls in is asked of `cargo tree`.

use std::process::Command;

use toml::{Table, Value};

use crate::tree::{Tree, repository};

/// Who may depend on whom; `None` for packages at the edge, which no other crate of the house depends on.
fn allowed(package: &str) -> Result<Option<&'static [&'static str]>, String> {
    Ok(Some(match package {
        "postroom-core" | "postroom-testkit" => &[],
        "postroom-transport" | "postroom-storage" => &["postroom-core"],
        "postroom-engine" => &["postroom-core", "postroom-transport", "postroom-storage"],
        "postroom-admin" => &["postroom-engine", "postroom-core"],
        "postroom" => {
            &["postroom-core", "postroom-transport", "postroom-storage", "postroom-engine", "postroom-admin"]
        }
        "postroom-cli" => &["postroom"],
        "postroom-examples" | "postroom-benches" | "postroom-tests" | "postroom-xtask" => return Ok(None),
        _ => return Err(format!("{package} has no floor yet: give it one in tests/house/edges.rs")),
    }))
}

/// Dependencies between crates that go another way than down.
pub(crate) fn crossed(tree: &Tree) -> Vec<String> {
    let manifests: Vec<(String, Table)> = tree
        .under("", "Cargo.toml")
        .map(|file| {
            (file.path.clone(), file.text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.path)))
        })
        .collect();
    let workspace = manifests.iter().find(|(path, _)| path == "Cargo.toml").map(|(_, table)| table);
    let shared = workspace.and_then(|table| table.get("workspace")?.get("dependencies")?.as_table());
    let mut violations = Vec::new();
    for (path, manifest) in &manifests {
        let Some(package) = manifest.get("package").and_then(|package| package.get("name")?.as_str()) else {
            continue;
        };
        let allowed = match allowed(package) {
            Ok(allowed) => allowed,
            Err(unknown) => {
                violations.push(format!("{path}: {unknown}"));
                continue;
            }
        };
        for (section, name, value) in dependencies(manifest) {
            let name = renamed(value, shared, name);
            if !name.starts_with("postroom") || name == package {
                continue;
            }
            let for_tests = section == "dev-dependencies" && name == "postroom-testkit";
            if allowed.is_some_and(|allowed| !allowed.contains(&name)) && !for_tests {
                violations.push(format!("{path}: {package} may not name {name} in [{section}]"));
            }
            let is_port = ["postroom-transport", "postroom-storage"].contains(&name);
            if package == "postroom-engine"
                && is_port
                && section != "dev-dependencies"
                && has_defaults(value, shared, name)
            {
                violations.push(format!("{path}: the engine takes {name} without its default features"));
            }
        }
    }
    violations
}

/// Every dependency of a manifest, with the kind of its section, also those of one target only.
fn dependencies(manifest: &Table) -> Vec<(&'static str, &str, &Value)> {
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    let tables = targets.filter_map(Value::as_table).chain([manifest]);
    let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
    tables
        .flat_map(|table| sections.map(|section| (section, table.get(section).and_then(Value::as_table))))
        .flat_map(|(section, found)| {
            found.into_iter().flatten().map(move |(name, value)| (section, name.as_str(), value))
        })
        .collect()
}

fn renamed<'a>(value: &'a Value, shared: Option<&'a Table>, name: &'a str) -> &'a str {
    let own = value.get("package").and_then(Value::as_str);
    own.or_else(|| shared?.get(name)?.get("package")?.as_str()).unwrap_or(name)
}

fn has_defaults(value: &Value, shared: Option<&Table>, name: &str) -> bool {
    let declared = |value: &Value| value.get("default-features").and_then(Value::as_bool);
    let inherited = || declared(shared?.get(name)?);
    declared(value).or_else(inherited).unwrap_or(true)
}

/// What the engine pulls in for a host, as `cargo tree` prints it.
pub(crate) fn engine_tree() -> String {
    let arguments =
        ["tree", "--package", "postroom-engine", "--edges", "normal", "--prefix", "none", "--locked"];
    let output =
        Command::new(env!("CARGO")).args(arguments).current_dir(repository()).output().expect("cargo starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree failed: {errors}");
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

/// Packages in such a print that only an adapter needs, or the admin.
pub(crate) fn adapters_in(listed: &str) -> Vec<&str> {
    let mut names: Vec<&str> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"postroom-core"), "this is no tree of the engine: {listed}");
    let foreign = [
        "sqlx",
        "libsqlite3-sys",
        "tokio-rustls",
        "rustls",
        "smtp-proto",
        "imap-codec",
        "chacha20poly1305",
        "postroom-admin",
    ];
    names.retain(|name| foreign.contains(name) || name.starts_with("sqlx-"));
    names.dedup();
    names
}

#[test]
fn an_upward_edge_a_sideways_edge_and_default_features_are_found() {
    let root = "[workspace.dependencies]\nshort = { package = \"postroom-cli\", path = \"x\" }\n\
        postroom-storage = { path = \"x\", default-features = false }\npostroom-transport = { path = \"x\" }\n";
    let crossed = crossed(&Tree::made_up(&[
        ("Cargo.toml", root),
        (
            "crates/core/Cargo.toml",
            "[package]\nname = \"postroom-core\"\n[target.'cfg(unix)'.dependencies]\npostroom-engine = \"1\"\n[dev-dependencies]\npostroom-testkit = \"1\"",
        ),
        (
            "crates/transport/Cargo.toml",
            "[package]\nname = \"postroom-transport\"\n[build-dependencies]\npostroom-storage = \"1\"\n[dependencies]\npostroom-testkit = \"1\"",
        ),
        (
            "crates/engine/Cargo.toml",
            "[package]\nname = \"postroom-engine\"\n[dependencies]\npostroom-storage.workspace = true\npostroom-transport.workspace = true",
        ),
        (
            "crates/postroom/Cargo.toml",
            "[package]\nname = \"postroom\"\n[dependencies]\nshort.workspace = true",
        ),
        ("crates/attic/Cargo.toml", "[package]\nname = \"postroom-attic\""),
        ("tests/Cargo.toml", "[package]\nname = \"postroom-tests\"\n[dependencies]\npostroom = \"1\""),
    ]));
    assert_eq!(
        crossed,
        [
            "crates/core/Cargo.toml: postroom-core may not name postroom-engine in [dependencies]",
            "crates/transport/Cargo.toml: postroom-transport may not name postroom-testkit in [dependencies]",
            "crates/transport/Cargo.toml: postroom-transport may not name postroom-storage in [build-dependencies]",
            "crates/engine/Cargo.toml: the engine takes postroom-transport without its default features",
            "crates/postroom/Cargo.toml: postroom may not name postroom-cli in [dependencies]",
            "crates/attic/Cargo.toml: postroom-attic has no floor yet: give it one in tests/house/edges.rs",
        ]
    );
}

#[test]
fn an_adapter_in_the_tree_of_the_engine_is_found() {
    let listed = "postroom-engine v0.1.0 (/x)\npostroom-core v0.1.0\nsqlx v0.9.0\nsqlx-core v0.9.0 (*)\ntokio-rustls v0.26.4\ntokio v1";
    assert_eq!(adapters_in(listed), ["sqlx", "sqlx-core", "tokio-rustls"]);
}
