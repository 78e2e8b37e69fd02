//! `postroom recover`: after the database was restored from a backup, nothing is sent again blindly, and it is said which received mail does
//! not come again.

use postroom::core::id::MailboxId;
use postroom::core::mailbox::{AfterStore, Kind};
use postroom::core::time::Timestamp;
use postroom::storage::{MailboxQuery, Recovered};
use serde::Serialize;

use crate::failure::Result;
use crate::session::Session;

#[derive(clap::Args)]
pub(crate) struct Backup {
    /// When the backup was made, as 2026-11-24T18:00:00Z. What was unfinished then is in doubt afterwards; what was submitted later
    /// goes on.
    #[arg(long, value_name = "TIME")]
    since: Timestamp,
}

/// What was done, and what can't be.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    recovered: Recovered,
    /// The inboxes that take stored mail out of their folder: what came since the backup is not fetched again.
    taken: Vec<Taking>,
}

/// An inbox that takes stored mail out of its folder.
#[derive(Serialize)]
struct Taking {
    mailbox: MailboxId,
    server: String,
    after: String,
}

impl Backup {
    pub(crate) async fn perform(&self, session: &Session) -> Result<()> {
        let recovered = session.postroom.recover(&session.actor, self.since).await?;
        let query = MailboxQuery { kind: Some(Kind::Inbox), ..MailboxQuery::default() };
        let inboxes = session.postroom.search(&query).await?;
        let taking = inboxes.iter().filter_map(|mailbox| {
            let after = mailbox.settings.inbox()?.after();
            let server = mailbox.settings.endpoint().host.to_string();
            let stays = matches!(after, AfterStore::Leave | AfterStore::Seen);
            (!stays).then(|| Taking { mailbox: mailbox.id, server, after: after.to_string() })
        });
        let report = Report { recovered, taken: taking.collect() };
        session.output.document(&report, || report.text())
    }
}

impl Report {
    fn text(&self) -> String {
        let mut lines = vec![format!(
            "{} mails are in doubt: settle or retry them, see `postroom queue list --state in-doubt`",
            self.recovered.doubted
        )];
        if self.recovered.busy > 0 {
            let busy = self.recovered.busy;
            lines.push(format!("{busy} more are in a worker's hands: stop the workers and call this again"));
        }
        for Taking { mailbox, server, after } in &self.taken {
            lines.push(format!(
                "inbox {mailbox} at {server} has {after}: what it stored since the backup is not fetched again from its folder"
            ));
        }
        lines.join("\n")
    }
}
