//! `postroom suppression`: the addresses to which a contract sends nothing more.

use std::time::Duration;

use clap::Subcommand;
use postroom::core::address::Address;
use postroom::core::id::ContractId;
use postroom::core::suppression::{Cause, Suppression, suppressed_form};
use postroom::storage::{SuppressionQuery, Suppressions};
use serde_json::json;

use crate::failure::Result;
use crate::session::Session;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// List the addresses, by contract: those that bounced, that complained, and those that an operator named.
    List(Filter),
    /// Send a contract's mail no more to an address.
    Add(Entry),
    /// Send a contract's mail to an address, whatever bounces.
    Allow(Entry),
    /// Take an address off the list: it gets mail until the next bounce.
    Remove { contract: ContractId, address: Address },
}

#[derive(clap::Args)]
pub(crate) struct Filter {
    #[arg(long)]
    contract: Option<ContractId>,
    /// Those behind this address of the contract.
    #[arg(long, value_name = "ADDRESS", requires = "contract")]
    after: Option<Address>,
    /// At most so many.
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

#[derive(clap::Args)]
pub(crate) struct Entry {
    contract: ContractId,
    address: Address,
    /// Why, in your words.
    #[arg(long, value_name = "TEXT", default_value = "")]
    because: String,
    /// For so many days; without it, until somebody removes it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: Option<u32>,
}

impl Command {
    pub(crate) async fn perform(&self, session: &Session) -> Result<()> {
        match self {
            Self::List(filter) => filter.perform(session).await,
            Self::Add(entry) => entry.perform(session, Cause::Operator).await,
            Self::Allow(entry) => entry.perform(session, Cause::Allowed).await,
            Self::Remove { contract, address } => {
                session.postroom.unsuppress(&session.actor, contract, address).await?;
                let removed =
                    json!({ "contract": contract, "address": suppressed_form(address), "removed": true });
                session.output.document(&removed, || format!("{address} is off the list of {contract}"))
            }
        }
    }
}

impl Filter {
    async fn perform(&self, session: &Session) -> Result<()> {
        let after = self.contract.clone().zip(self.after.as_ref().map(suppressed_form));
        let query = SuppressionQuery { contract: self.contract.clone(), after, limit: self.limit };
        let list: &dyn Suppressions = session.store();
        let found = list.suppressions(session.postroom.now(), &query).await?;
        session.output.listing(&["Contract", "Address", "Cause", "Since", "Until", "Detail"], &found, row)
    }
}

fn row(entry: &Suppression) -> Vec<String> {
    vec![
        entry.contract.to_string(),
        entry.address.to_string(),
        entry.cause.to_string(),
        entry.added_at.to_string(),
        entry.expires_at.map(|at| at.to_string()).unwrap_or_default(),
        entry.detail.clone(),
    ]
}

impl Entry {
    async fn perform(&self, session: &Session, cause: Cause) -> Result<()> {
        let Self { contract, address, because, days } = self;
        let day = Duration::from_secs(24 * 60 * 60);
        let until = days.map(|days| session.postroom.now() + day * days);
        session.postroom.suppress(&session.actor, contract, address, cause, because, until).await?;
        let list: &dyn Suppressions = session.store();
        let query = SuppressionQuery { contract: Some(contract.clone()), ..SuppressionQuery::default() };
        let found = list.suppressions(session.postroom.now(), &query).await?;
        let entry = found.into_iter().find(|entry| entry.address == suppressed_form(address));
        session.output.document(&entry, || match cause {
            Cause::Allowed => format!("{contract} sends to {address}, whatever bounces"),
            _ => format!("{contract} sends no more to {address}"),
        })
    }
}
