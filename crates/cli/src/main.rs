//! `postroom`, the command line over the facade: what operators and scripts use. Here is the way in and out, arguments and exit
//! code; what a command does stands in the file of its noun or verb.

mod attachment;
mod audit;
mod contract;
mod deliver;
mod events;
mod explain;
mod failure;
mod health;
mod key;
mod ledger;
mod mailbox;

mod migrate;
mod output;
mod queue;
mod recover;
mod rows;
mod rules;
mod run;
mod send;
mod session;
mod standard;
mod step;
mod suppression;
mod transfer;

use std::error::Error as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use postroom::core::violation::Invalid;
use tracing_subscriber::EnvFilter;

use failure::{Failure, Result};
use session::Shared;

/// Registry, sending queue and receiving ledger of an application with many e-mail boxes.
///
/// Exit codes: 0 done; 1 refused by a rule; 2 wrong usage; 3 storage or a mail server could not be reached.
#[derive(Parser)]
#[command(name = "postroom", version, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    shared: Shared,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make or update the tables.
    Migrate,
    /// Inboxes and outboxes.
    #[command(subcommand)]
    Mailbox(mailbox::Command),
    /// Show or choose the system's standard outbox.
    Standard(standard::Choice),
    /// Contracts: their outbox, inboxes and settings.
    #[command(subcommand)]
    Contract(contract::Command),
    /// The e-mail steps of flows.
    #[command(subcommand)]
    Step(step::Command),
    /// Say which outbox would send, as whom, and why; nothing is sent.
    Explain(explain::Question),
    /// Submit a mail: printed once it is durably queued.
    Send(Box<send::Letter>),
    /// Submit the mail of a flow's step: its template to its recipients.
    Notify(send::Notice),
    /// Send, fetch and hand over, until SIGINT or SIGTERM.
    Run(run::Options),
    /// The sending queue.
    #[command(subcommand)]
    Queue(queue::Command),
    /// Received mail.
    #[command(subcommand)]
    Ledger(ledger::Command),
    /// Addresses to which a contract sends nothing more.
    #[command(subcommand)]
    Suppression(suppression::Command),
    /// Of each mailbox: last success, failures in a row, next attempt, last error, what it waits for, and how far its reading is behind.
    Health(health::Which),
    /// What happened to mail and mailboxes, by growing numbers.
    Events(events::Filter),
    /// After the database was restored from a backup: put what was unfinished then in doubt, so that nothing is sent again blindly.
    Recover(recover::Backup),
    /// The rules that input must keep.
    Rules,
    /// Sealing keys.
    #[command(subcommand)]
    Key(key::Command),
    /// Print the registry as JSON, without secrets.
    Export,
    /// Read a registry that was exported. A box that signs in comes as a draft until its password is set.
    Import(transfer::Source),
    /// Every change of the registry, with time, actor and changed fields.
    Audit(audit::Filter),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return misunderstood(&error),
    };
    // Logs are for diagnosis only; no secret is ever in them.
    let filter = EnvFilter::try_from_env("POSTROOM_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let json = arguments.shared.json;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(perform(arguments)),
        Err(error) => Err(Failure::unreachable("system", format!("no threads to work with: {error}"))),
    };
    done.map_or_else(|failure| told(&failure, json), |()| ExitCode::SUCCESS)
}

fn told(failure: &Failure, json: bool) -> ExitCode {
    if let Some(words) = failure.words(json) {
        output::note(&words);
    }
    failure.exit()
}

/// A value that breaks a rule of the table is refused like one that is found out later; all else is wrong usage.
fn misunderstood(error: &clap::Error) -> ExitCode {
    if let Some(invalid) = error.source().and_then(|source| source.downcast_ref::<Invalid>()) {
        let json = std::env::args_os().any(|argument| argument == "--json");
        return told(&invalid.clone().into(), json);
    }
    // Help and version are no errors and go to stdout.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

async fn perform(Arguments { shared, command }: Arguments) -> Result<()> {
    match command {
        Command::Migrate => migrate::perform(&shared).await,
        Command::Mailbox(command) => shared.within(async |session| command.perform(session).await).await,
        Command::Standard(choice) => shared.within(async |session| choice.perform(session).await).await,
        Command::Contract(command) => shared.within(async |session| command.perform(session).await).await,
        Command::Step(command) => shared.within(async |session| command.perform(session).await).await,
        Command::Explain(question) => shared.within(async |session| question.perform(session).await).await,
        Command::Send(letter) => shared.within(async |session| letter.perform(session).await).await,
        Command::Notify(notice) => shared.within(async |session| notice.perform(session).await).await,
        Command::Run(options) => options.perform(&shared).await,
        Command::Queue(command) => shared.within(async |session| command.perform(session).await).await,
        Command::Ledger(command) => shared.within(async |session| command.perform(session).await).await,
        Command::Suppression(command) => shared.within(async |session| command.perform(session).await).await,
        Command::Health(which) => shared.within(async |session| which.perform(session).await).await,
        Command::Events(filter) => shared.within(async |session| filter.perform(session).await).await,
        Command::Recover(backup) => shared.within(async |session| backup.perform(session).await).await,
        Command::Rules => rules::perform(shared.output()),
        Command::Key(command) => command.perform(shared.output()),
        Command::Export => shared.within(transfer::export).await,
        Command::Import(source) => shared.within(async |session| source.perform(session).await).await,
        Command::Audit(filter) => shared.within(async |session| filter.perform(session).await).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_environment_is_never_shown_in_the_help() {
        let help = Arguments::command().render_long_help().to_string();
        assert!(help.contains("POSTROOM_DATABASE"));
        // `[env: POSTROOM_DATABASE=..]` would print a password in the URL.
        assert!(!help.contains("POSTROOM_DATABASE="));
    }
}
