//! `postroom standard`: the system's standard outbox.

use postroom::core::id::MailboxId;
use serde_json::json;

use crate::failure::Result;
use crate::session::Session;

#[derive(clap::Args)]
pub(crate) struct Choice {
    /// The outbox; without one, the present choice is shown.
    id: Option<MailboxId>,
    /// Have none.
    #[arg(long, conflicts_with = "id")]
    none: bool,
}

impl Choice {
    pub(crate) async fn perform(&self, session: &Session) -> Result<()> {
        if self.none || self.id.is_some() {
            session.postroom.set_standard(&session.actor, self.id).await?;
        }
        let standard = session.store().standard().await?;
        session.output.document(&json!({ "standard": standard }), || {
            standard.map_or_else(
                || "there is no standard outbox".into(),
                |id| format!("the standard outbox is {id}"),
            )
        })
    }
}
