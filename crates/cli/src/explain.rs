//! `postroom explain`: the decision for a mail, without the mail.

use postroom::core::address::Address;
use postroom::core::id::{ContractId, StepKey};
use serde_json::json;

use crate::failure::Result;
use crate::output::fields;
use crate::session::Session;

#[derive(clap::Args)]
pub(crate) struct Question {
    #[arg(long)]
    contract: ContractId,
    /// FLOW/STEP.
    #[arg(long, value_name = "FLOW/STEP")]
    step: Option<StepKey>,
    /// The sender that a mail would ask for.
    #[arg(long, value_name = "ADDRESS")]
    sender: Option<Address>,
}

impl Question {
    pub(crate) async fn perform(&self, session: &Session) -> Result<()> {
        let found =
            session.postroom.explain(&self.contract, self.step.as_ref(), self.sender.as_ref()).await?;
        let mailbox = session.postroom.mailbox(found.outbox).await?;
        let reasons: Vec<String> = found.reasons.iter().map(ToString::to_string).collect();
        let document = json!({
            "outbox": found.outbox,
            "description": mailbox.settings.description(),
            "server": mailbox.settings.endpoint().to_string(),
            "sender": found.sender,
            "reply_to": found.reply_to,
            "reasons": reasons,
            "held": found.held,
        });
        session.output.document(&document, || fields(&document))
    }
}
