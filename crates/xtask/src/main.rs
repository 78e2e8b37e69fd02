//! `cargo xtask`: the tasks of the workspace that cargo has no command for. Here is only what can be asked for; how each task is
//! done lies in the file of its name.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool speaks on its streams")]

mod bench;
mod cargo;
mod features;
mod kill;
mod outcome;
mod packages;
mod peers;
mod process;
mod tally;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The tasks of the postroom workspace", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run every test: unit, property, documentation, conformance, journeys, and the journeys on real servers.
    ///
    /// What the real servers need is installed with apt-get if this runs as root and nothing would be removed.
    Test(verify::Options),
    /// Kill sending workers at random moments, and stop one past its lease, and compare the queue with what the server got.
    Kill(kill::Options),
    /// Start the real servers, run a command with their addresses in its environment, and stop them.
    Peers(peers::Options),
    /// Measure beside others, in one run, and print the ratios.
    Bench(bench::Options),
    /// Let clippy check each library with no feature, with each feature alone and with all of them.
    Features(features::Options),
}

fn main() -> ExitCode {
    let done = process::listen_for_the_end().and_then(|()| match Arguments::parse().task {
        Task::Test(options) => verify::run(&options),
        Task::Kill(options) => kill::run(&options),
        Task::Peers(options) => peers::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Features(options) => features::run(&options),
    });
    done.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}
