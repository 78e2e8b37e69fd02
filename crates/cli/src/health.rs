//! `postroom health`: how mailboxes do.

use postroom::core::id::MailboxId;
use serde_json::json;

use crate::failure::Result;
use crate::output::fields;
use crate::session::Session;

#[derive(clap::Args)]
pub(crate) struct Which {
    /// One mailbox; without it, all that were ever tried.
    id: Option<MailboxId>,
}

impl Which {
    pub(crate) async fn perform(&self, session: &Session) -> Result<()> {
        if let Some(id) = self.id {
            session.postroom.mailbox(id).await?;
            let health = session.store().health(id).await?;
            return session.output.document(&health, || fields(&json!(health)));
        }
        let all = session.store().all_health().await?;
        let header = ["Mailbox", "State", "Last success", "Failures", "Next attempt", "Last error"];
        session.output.listing(&header, &all, |health| {
            let state = match health {
                health if health.suspended => "suspended",
                health if health.failures > 0 => "failing",
                _ => "good",
            };
            let time =
                |at: Option<postroom::core::time::Timestamp>| at.map(|at| at.to_string()).unwrap_or_default();
            vec![
                health.mailbox.to_string(),
                state.to_owned(),
                time(health.last_success),
                health.failures.to_string(),
                time(health.next_attempt),
                health.last_error.clone().unwrap_or_default(),
            ]
        })
    }
}
