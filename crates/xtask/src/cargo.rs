//! Calling cargo from a task: which cargo, where, and what it says of the workspace. What is built or run is said by the callers.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::outcome::Outcome;
use crate::process;

/// A cargo that starts in the root of the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    // `cargo run` describes this package in the environment. Build scripts that watch those names (ring's does) would run again
    // each time the caller changes.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_", "CARGO_PRIMARY_"]
            .iter()
            .any(|start| text.starts_with(start))
        {
            command.env_remove(&name);
        }
    }
    command
}

/// The root of the workspace.
pub(crate) fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).expect("this package is two folders below the root of the workspace")
}

/// The packages of the workspace, as `cargo metadata` describes them.
pub(crate) fn packages() -> Outcome<Vec<Value>> {
    let printed = process::output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let mut metadata: Value =
        serde_json::from_str(&printed).map_err(|error| format!("cargo metadata: {error}"))?;
    match metadata["packages"].take() {
        Value::Array(packages) => Ok(packages),
        _ => Err("cargo metadata named no packages".into()),
    }
}

/// Build a binary or an example as the tests of the whole workspace build it, so that nothing is compiled twice, and say where it
/// lies. `kind` is `bin` or `example`.
pub(crate) fn built(kind: &str, name: &str) -> Outcome<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--workspace", "--all-features", "--message-format=json-render-diagnostics"]);
    command.arg(format!("--{kind}={name}"));
    executable(&mut command, kind, name)
}

/// Build a benchmark, optimised, and say where it lies.
pub(crate) fn benchmark(name: &str) -> Outcome<PathBuf> {
    let mut command = cargo();
    command.args(["bench", "--no-run", "--package=postroom-benches"]);
    command.args(["--message-format=json-render-diagnostics", "--bench", name]);
    executable(&mut command, "bench", name)
}

/// What a build says of the executable of this name.
fn executable(command: &mut Command, kind: &str, name: &str) -> Outcome<PathBuf> {
    let mut found = None;
    let status = process::quietly(command, |line| {
        let message: Value = serde_json::from_str(line).unwrap_or_default();
        if message["target"]["name"] == *name
            && let Some(path) = message["executable"].as_str()
        {
            found = Some(PathBuf::from(path));
        }
    })?;
    found
        .filter(|_| status.success())
        .ok_or_else(|| format!("the {kind} {name} could not be built ({})", process::told(status)))
}

/// The names of all examples of the workspace.
pub(crate) fn examples() -> Outcome<Vec<String>> {
    let packages = packages()?;
    let targets = packages.iter().filter_map(|package| package["targets"].as_array()).flatten();
    let examples = targets
        .filter(|target| target["kind"].as_array().is_some_and(|kinds| kinds.contains(&"example".into())));
    Ok(examples.filter_map(|target| target["name"].as_str()).map(str::to_owned).collect())
}
