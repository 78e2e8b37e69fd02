//! `postroom events`: what happened to mail and mailboxes, by number; a script keeps the last number and goes on behind it.

use postroom::core::id::EventNumber;
use postroom::storage::{EventRecord, EventSubject};

use crate::failure::Result;
use crate::session::Session;

/// How many events are read at once.
const PAGE: u32 = 1000;

#[derive(clap::Args)]
pub(crate) struct Filter {
    /// Those behind this number.
    #[arg(long, value_name = "N", default_value = "0")]
    after: EventNumber,
    /// At most so many.
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

impl Filter {
    pub(crate) async fn perform(&self, session: &Session) -> Result<()> {
        let most = self.limit.unwrap_or(u32::MAX);
        let mut found: Vec<EventRecord> = Vec::new();
        loop {
            let left = most - u32::try_from(found.len()).unwrap_or(most).min(most);
            let after = found.last().map_or(self.after, |event| event.number);
            let asked = left.min(PAGE);
            let page = session.store().events(after, asked).await?;
            let last = page.len() < asked as usize || left == asked;
            found.extend(page);
            if last {
                break;
            }
        }
        session.output.listing(&["#", "When", "About", "What", "State", "Who", "Detail"], &found, |event| {
            let recipient = event.recipient.map(|place| format!(" #{place}")).unwrap_or_default();
            vec![
                event.number.to_string(),
                event.at.to_string(),
                about(event.subject) + &recipient,
                event.what.clone(),
                event.state.clone().unwrap_or_default(),
                event.actor.as_ref().map(ToString::to_string).unwrap_or_default(),
                event.detail.clone(),
            ]
        })
    }
}

fn about(subject: EventSubject) -> String {
    match subject {
        EventSubject::Queue(id) => format!("queue {id}"),
        EventSubject::Ledger(id) => format!("ledger {id}"),
        EventSubject::Mailbox(id) => format!("mailbox {id}"),
    }
}
