//! Release: mail that was held because its outbox could not send it goes on once the outbox can. What a person held stays
//! held until a person lets it go.

use std::collections::BTreeMap;

use postroom_core::id::{Actor, MailboxId, QueueId};
use postroom_core::mailbox::Mailbox;
use postroom_core::queue::{Event, State};
use postroom_storage::{ErrorKind as StoreKind, QueueDesk, QueueItem, QueueQuery, QueueRecord};

use crate::error::Result;
use crate::postroom::Postroom;

impl Postroom {
    /// The same for every outbox that has held mail: for what a process that died after a change left behind.
    pub(crate) async fn release_all(&self) -> Result<u64> {
        let mut outboxes: BTreeMap<MailboxId, Vec<QueueItem>> = BTreeMap::new();
        for item in self.held().await? {
            outboxes.entry(item.outbox).or_default().push(item);
        }
        let (system, mut released) = (Actor::parse("system")?, 0);
        for (id, held) in outboxes {
            if let Some(outbox) = self.store().mailbox(id).await? {
                released += self.release_these(&system, &outbox, held).await?;
            }
        }
        Ok(released)
    }

    /// Queues the held mail of an outbox that is in use again, if the outbox has its sender. Gives how many.
    pub(crate) async fn release(&self, actor: &Actor, outbox: &Mailbox) -> Result<u64> {
        if outbox.settings.outbox().is_none() || !outbox.is_active() {
            return Ok(0);
        }
        let held = self.held().await?.into_iter().filter(|item| item.outbox == outbox.id).collect();
        self.release_these(actor, outbox, held).await
    }

    /// Queues one held mail of an outbox that is in use, if the outbox has its sender and no person held it.
    pub(crate) async fn release_one(&self, actor: &Actor, outbox: &Mailbox, id: QueueId) -> Result<u64> {
        let desk: &dyn QueueDesk = self.store();
        let held = desk.show(id).await?.filter(|record| record.item.state == State::Held);
        self.release_these(actor, outbox, held.into_iter().map(|record| record.item).collect()).await
    }

    async fn held(&self) -> Result<Vec<QueueItem>> {
        let desk: &dyn QueueDesk = self.store();
        Ok(desk.list(&QueueQuery { state: Some(State::Held), ..QueueQuery::default() }).await?)
    }

    /// Queues those of one outbox's held mails that it may send.
    async fn release_these(&self, actor: &Actor, outbox: &Mailbox, held: Vec<QueueItem>) -> Result<u64> {
        let Some(settings) = outbox.settings.outbox().filter(|_| outbox.is_active()) else { return Ok(0) };
        let desk: &dyn QueueDesk = self.store();
        let mut released = 0;
        for item in held {
            let owned = settings.sender(item.sender.address()).is_some();
            let Some(record) =
                desk.show(item.id).await?.filter(|record| owned && !is_held_by_a_person(record))
            else {
                continue;
            };
            match desk.decide(self.now(), actor, record.item.id, Event::Unhold).await {
                Ok(()) => released += 1,
                // Somebody else decided meanwhile.
                Err(error) if matches!(error.kind(), StoreKind::NotPossible { .. } | StoreKind::NotFound) => {
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(released)
    }
}

/// Whether the last hold in the timeline is a person's.
fn is_held_by_a_person(record: &QueueRecord) -> bool {
    let holds = |what: &str| what == Event::Hold.word() || what == State::Held.word();
    let last = record.timeline.iter().rfind(|entry| holds(&entry.what));
    last.is_some_and(|entry| entry.actor.is_some())
}
