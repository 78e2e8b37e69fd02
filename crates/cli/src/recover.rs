//! `postroom recover`: after the database was restored from a backup, nothing is sent again blindly.

use postroom::core::time::Timestamp;

use crate::failure::Result;
use crate::session::Session;

#[derive(clap::Args)]
pub(crate) struct Backup {
    /// When the backup was made, as 2026-11-24T18:00:00Z. What was unfinished then is in doubt afterwards; what was submitted later
    /// goes on.
    #[arg(long, value_name = "TIME")]
    since: Timestamp,
}

impl Backup {
    pub(crate) async fn perform(&self, session: &Session) -> Result<()> {
        let recovered = session.postroom.recover(&session.actor, self.since).await?;
        session.output.document(&recovered, || {
            let doubted = format!(
                "{} mails are in doubt: settle or retry them, see `postroom queue list --state in-doubt`",
                recovered.doubted
            );
            match recovered.busy {
                0 => doubted,
                busy => format!(
                    "{doubted}\n{busy} more are in a worker's hands: stop the workers and call this again"
                ),
            }
        })
    }
}
