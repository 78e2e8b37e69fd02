//! Reroute: an operator has another outbox send a mail that no server has yet. Its frozen bytes get the new From and Reply-To
//! and stay what they are else; the Message-ID and the recipients are kept, and the timeline tells who did it.

use postroom_core::id::{Actor, MailboxId, QueueId};
use postroom_core::message::check_size;
use postroom_core::mime::{Addressing, addressing, readdress};
use postroom_core::queue::Basis;
use postroom_core::reroute::reroute;
use postroom_core::rules;
use postroom_core::violation::Invalid;
use postroom_storage::{ErrorKind as StoreKind, QueueDesk, Rerouting};

use crate::error::{Error, ErrorKind, Result};
use crate::postroom::Postroom;

/// How often the decision is made again when links change in between.
const DECISIONS: u32 = 5;

impl Postroom {
    /// Has `outbox` send a mail. It is one that the mail's step, its contract or Standard names; the same outbox gives the mail
    /// a sender that this has now. What was held for the old outbox's sake goes on; what a person held, and what is dead,
    /// refused or expired, waits for a person as before.
    ///
    /// # Errors
    /// [`ErrorKind::Unresolved`] for an outbox that is not named or not in use; [`ErrorKind::Invalid`] for a mail that was
    /// submitted as raw bytes, is signed, has lost its content or is too large for the outbox; not possible while a recipient
    /// is claimed, crossing, in doubt, accepted or bounced. After an error nothing is changed.
    ///
    /// # Cancel safety
    /// When the future is dropped the mail is rerouted or as before; one that was held may stay so until the next hour.
    pub async fn reroute(&self, actor: &Actor, id: QueueId, outbox: MailboxId) -> Result<()> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.reroute_once(actor, id, outbox).await {
                Err(error)
                    if matches!(error.kind(), ErrorKind::Store(StoreKind::StaleDecision))
                        && tries < DECISIONS => {}
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        if let Some(outbox) = self.store().mailbox(outbox).await? {
            self.release_one(actor, &outbox, id).await?;
        }
        self.ports.bell.notify_one();
        Ok(())
    }

    async fn reroute_once(&self, actor: &Actor, id: QueueId, outbox: MailboxId) -> Result<()> {
        const STAGE: &str = "reroute a mail";
        let desk: &dyn QueueDesk = self.store();
        let record = desk.show(id).await?.ok_or_else(|| Error::new(ErrorKind::NotFound, STAGE))?;
        let unfit = |found: &str| Invalid::new(&rules::REROUTE).with("found", found);
        if record.raw {
            return Err(unfit("raw bytes").into());
        }
        let rewritten = record.body.ok_or_else(|| unfit("no content"))?;
        let links = self.links(&record.item.contract, record.item.step.as_ref()).await?;
        let bytes = self.read_body(rewritten, None).await?;
        let was = addressing(&bytes)?;
        let mailbox = |id| links.mailboxes.get(&id);
        let question = self.question(&links, &mailbox, None);
        let resolution = reroute(&question, &was, record.item.outbox, outbox)?;
        let settings = &links.mailbox(resolution.outbox)?.settings;
        let to = Addressing { from: resolution.sender.clone(), reply_to: resolution.reply_to.clone() };
        let content = readdress(&bytes, &to)?;
        check_size(u64::try_from(content.len()).unwrap_or(u64::MAX), settings.max_message())?;
        let return_path = self.return_path(settings, &resolution.sender, id).await?;
        let rerouting = Rerouting {
            id,
            from: record.item.outbox,
            rewritten,
            basis: Basis::new(
                resolution.revision,
                links.contract.as_ref().map(|contract| contract.revision),
                links.step.as_ref().map(|step| step.revision),
            ),
            return_path,
            resolution,
        };
        Ok(desk.reroute(self.now(), actor, &rerouting, content.into()).await?)
    }
}
