//! What is left of finished sent mail when its contract is forgotten. How it is found and removed, each store says.

use postroom_core::id::QueueId;
use uuid::Uuid;

use crate::forget::Forgotten;

/// A finished mail: its id, its content, whether its key is not kept any more, and whether anything but the key is left.
pub(super) type Sent = (Uuid, Option<Uuid>, bool, bool);

/// Some of a contract's finished mails.
pub(super) struct Finished {
    /// The last that was looked at.
    last: Option<QueueId>,
    /// Those that go whole.
    pub(super) over: Vec<QueueId>,
    /// Those whose key stays, and nothing else.
    pub(super) kept: Vec<QueueId>,
    /// What both of them have for content.
    pub(super) contents: Vec<Uuid>,
}

impl Finished {
    pub(super) fn of(mails: &[Sent]) -> Self {
        let last = mails.last().map(|(id, ..)| QueueId::from_uuid(*id));
        let mut finished = Self { last, over: Vec::new(), kept: Vec::new(), contents: Vec::new() };
        for (id, content, is_over, has_more) in mails {
            let list = match (is_over, has_more) {
                (true, _) => &mut finished.over,
                (false, true) => &mut finished.kept,
                (false, false) => continue,
            };
            list.push(QueueId::from_uuid(*id));
            finished.contents.extend(*content);
        }
        finished
    }

    pub(super) fn forgotten(&self) -> Forgotten {
        let sent = u64::try_from(self.over.len() + self.kept.len()).unwrap_or(u64::MAX);
        Forgotten { sent, last: self.last, ..Forgotten::default() }
    }
}
