//! Each library with no feature, with each feature alone and with all of them, so that no feature leans on another one. The list
//! is asked of cargo, so that a new feature is never forgotten.

use std::process::ExitCode;

use crate::cargo::{cargo, packages};
use crate::outcome::Outcome;
use crate::process;

/// What `cargo xtask features` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Print the commands without running them.
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(options: &Options) -> Outcome<ExitCode> {
    let choices = choices(&packages()?);
    let mut failed = Vec::new();
    for choice in &choices {
        println!("{}", choice.join(" "));
        let mut command = cargo();
        command.args(["clippy", "--quiet"]).args(choice).args(["--", "--deny", "warnings"]);
        if !options.list && !process::run(&mut command)?.success() {
            failed.push(choice.join(" "));
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{} of {} choices of features fail:\n  {}", failed.len(), choices.len(), failed.join("\n  "));
    Ok(ExitCode::FAILURE)
}

/// The arguments that choose a package and its features.
fn choices(packages: &[serde_json::Value]) -> Vec<Vec<String>> {
    let mut choices = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let features: Vec<&String> =
            package["features"].as_object().into_iter().flat_map(|map| map.keys()).collect();
        let alone: Vec<&String> = features.into_iter().filter(|feature| *feature != "default").collect();
        if alone.is_empty() {
            continue;
        }
        let mut choose = |words: &[&str]| {
            choices.push([&["--package", name], words].concat().into_iter().map(str::to_owned).collect());
        };
        choose(&["--no-default-features"]);
        for feature in &alone {
            choose(&["--no-default-features", "--features", feature]);
        }
        if alone.len() > 1 {
            choose(&["--all-features"]);
        }
    }
    choices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_each_and_all_are_chosen_and_a_package_without_features_is_left_out() {
        let packages = serde_json::json!([
            {"name": "plain", "features": {}},
            {"name": "rich", "features": {"default": ["a"], "a": [], "b": []}},
        ]);
        let lines: Vec<String> =
            choices(packages.as_array().unwrap()).iter().map(|words| words.join(" ")).collect();
        assert_eq!(
            lines,
            [
                "--package rich --no-default-features",
                "--package rich --no-default-features --features a",
                "--package rich --no-default-features --features b",
                "--package rich --all-features",
            ]
        );
    }
}
