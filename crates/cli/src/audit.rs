//! `postroom audit`: who changed what in the registry, and when.

use postroom::core::id::{EventNumber, MailboxId};
use postroom::storage::AuditEntry;

use serde_json::Value;

use crate::failure::Result;
use crate::session::Session;

/// How many entries are read at once.
const PAGE: u32 = 1000;

#[derive(clap::Args)]
pub(crate) struct Filter {
    /// Changes of this mailbox only.
    #[arg(long, value_name = "ID")]
    mailbox: Option<MailboxId>,
    /// Those behind this number.
    #[arg(long, value_name = "N", default_value = "0")]
    after: EventNumber,
    /// At most so many.
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

impl Filter {
    pub(crate) async fn perform(&self, session: &Session) -> Result<()> {
        let subject = self.mailbox.map(|id| format!("mailbox/{id}"));
        let most = self.limit.unwrap_or(u32::MAX);
        let mut found: Vec<AuditEntry> = Vec::new();
        loop {
            let left = most - u32::try_from(found.len()).unwrap_or(most).min(most);
            let after = found.last().map_or(self.after, |entry| entry.number);
            let asked = left.min(PAGE);
            let page = session.store().entries(subject.as_deref(), after, asked).await?;
            let last = page.len() < asked as usize || left == asked;
            found.extend(page);
            if last {
                break;
            }
        }
        session.output.listing(&["#", "When", "Who", "What", "Action", "Changes"], &found, |entry| {
            vec![
                entry.number.to_string(),
                entry.at.to_string(),
                entry.actor.to_string(),
                entry.subject.clone(),
                entry.action.clone(),
                changes(&entry.changes),
            ]
        })
    }
}

/// `port: 25 -> 587, secret: changed`.
fn changes(all: &Value) -> String {
    let change = |(name, change): (&String, &Value)| match (change.get("old"), change.get("new")) {
        (Some(Value::Null) | None, Some(new)) => format!("{name}: {}", short(new)),
        (Some(old), Some(new)) => format!("{name}: {} -> {}", short(old), short(new)),
        _ => format!("{name}: {}", short(change)),
    };
    all.as_object().into_iter().flatten().map(change).collect::<Vec<_>>().join(", ")
}

fn short(value: &Value) -> String {
    const MOST: usize = 60;
    let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    let mut out: String = text.chars().take(MOST).collect();
    if text.chars().nth(MOST).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn changes_are_told_in_one_short_line() {
        let all = json!({ "port": { "old": 25, "new": 587 }, "server": { "old": null, "new": "x" }, "secret": "changed" });
        assert_eq!(changes(&all), "port: 25 -> 587, secret: changed, server: x");
        assert!(changes(&json!({ "authority": { "old": "a".repeat(5000), "new": null } })).len() < 100);
    }
}
