//! The `postroom` binary as operators and scripts meet it: arguments, exit codes, documents, files. Servers are in process; the same
//! on real ones is in `tests/real_servers.sh`.

#[path = "cli/desk.rs"]
mod desk;
#[path = "cli/journeys.rs"]
mod journeys;
#[path = "cli/letters.rs"]
mod letters;
#[path = "cli/oauth.rs"]
mod oauth;
#[path = "cli/operation.rs"]
mod operation;
#[path = "cli/refusals.rs"]
mod refusals;
#[path = "cli/registry.rs"]
mod registry;
#[path = "cli/secrets.rs"]
mod secrets;
#[path = "cli/suppression.rs"]
mod suppression;
