//! `postroom mailbox list`: the search, with its pages and a hint of each box's health.

use std::collections::HashMap;

use clap::ValueEnum;
use postroom::core::id::{ContractId, MailboxId};
use postroom::core::mailbox::{Kind, Mailbox, Status};
use postroom::core::violation::Invalid;
use postroom::storage::{Cursor, Direction, Health, MailboxQuery, Sort};
use serde_json::{Value, json};

use super::view;
use crate::failure::Result;
use crate::output::note;
use crate::session::Session;

#[derive(clap::Args)]
pub(crate) struct Filter {
    /// Part of the server's name, in any case.
    #[arg(long, value_name = "TEXT")]
    server: Option<String>,
    /// Part of the description, in any case.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// inbox or outbox.
    #[arg(long)]
    kind: Option<Kind>,
    /// draft, active or disabled.
    #[arg(long)]
    status: Option<Status>,
    /// Linked to this contract.
    #[arg(long)]
    contract: Option<ContractId>,
    /// The order.
    #[arg(long, default_value = "id")]
    sort: Order,
    /// Downwards.
    #[arg(long)]
    desc: bool,
    /// Start behind the box with this key, as the page before gave it.
    #[arg(long, value_name = "KEY", value_parser = cursor)]
    cursor: Option<Cursor>,
    /// At most so many.
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Order {
    Id,
    Server,
}

/// `SERVER:ID`, as [`key`] writes it; a plain `ID` will do when sorted by number.
fn cursor(text: &str) -> Result<Cursor, Invalid> {
    let (server, id) = text.rsplit_once(':').unwrap_or(("", text));
    Ok(Cursor::new(server, MailboxId::parse(id)?))
}

fn key(mailbox: &Mailbox) -> String {
    format!("{}:{}", mailbox.settings.endpoint().host, mailbox.id)
}

impl Filter {
    pub(crate) async fn perform(&self, session: &Session) -> Result<()> {
        let query = MailboxQuery {
            server: self.server.clone(),
            description: self.description.clone(),
            kind: self.kind,
            status: self.status,
            contract: self.contract.clone(),
            sort: match self.sort {
                Order::Id => Sort::Id,
                Order::Server => Sort::Server,
            },
            direction: if self.desc { Direction::Descending } else { Direction::Ascending },
            after: self.cursor.clone(),
            limit: self.limit,
        };
        let found = session.postroom.search(&query).await?;
        let all = session.store().all_health().await?;
        let health: HashMap<MailboxId, Health> =
            all.into_iter().map(|health| (health.mailbox, health)).collect();
        let rows: Vec<Value> = found.iter().map(|mailbox| row(mailbox, health.get(&mailbox.id))).collect();
        let header = ["ID", "Server", "Kind", "Description", "Status", "Health"];
        session.output.listing(&header, &rows, |row| {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            let server = format!("{}:{}", text("server"), row["port"]);
            vec![text("id"), server, text("kind"), text("description"), text("status"), text("health")]
        })?;
        // A full page may have another one behind it.
        if let Some(last) =
            found.last().filter(|_| usize::try_from(self.limit.unwrap_or(0)) == Ok(found.len()))
        {
            note(&format!("for the next page: --cursor {}", key(last)));
        }
        Ok(())
    }
}

fn row(mailbox: &Mailbox, health: Option<&Health>) -> Value {
    let mut row = view::document(mailbox);
    row["health"] = json!(hint(health));
    row["cursor"] = json!(key(mailbox));
    row
}

fn hint(health: Option<&Health>) -> String {
    match health {
        None => "not tried".into(),
        Some(health) if health.suspended => "suspended".into(),
        Some(health) if health.failures > 0 => format!("failing ({})", health.failures),
        Some(_) => "good".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_a_server_and_a_number_also_for_an_ipv6_address() {
        let check = |text: &str, server: &str, id: i64| {
            assert_eq!(cursor(text).ok(), Some(Cursor::new(server, MailboxId::new(id))), "{text}");
        };
        check("7", "", 7);
        check("mail.acme.example:12", "mail.acme.example", 12);
        check("::1:3", "::1", 3);
        assert!(cursor("mail.acme.example").is_err());
        assert!(cursor("x:-1").is_err());
    }
}
