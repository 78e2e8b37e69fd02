//! Copies: the sent copies that are to be made, by companion, and until when none is tried at a companion. They are kept in memory: what is
//! not made when the process ends is not made.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postroom_core::id::{BodyId, MailboxId};
use postroom_core::mailbox::{Mailbox, SentCopy};
use tokio::time::Instant;

/// How many copies wait for one companion at most; those that come then are not made.
const MOST: usize = 10_000;

/// A sent copy that is to be made.
#[derive(Debug)]
pub(crate) struct CopyOrder {
    pub(crate) companion: MailboxId,
    pub(crate) folder: String,
    pub(crate) body: BodyId,
}

impl CopyOrder {
    /// The copy that an outbox wants of an accepted mail, if it wants one.
    pub(crate) fn of(outbox: &Mailbox, body: BodyId) -> Option<Self> {
        let outbox = outbox.settings.outbox()?;
        match outbox.sent_copy() {
            SentCopy::Append(folder) => {
                Some(Self { companion: outbox.companion()?, folder: folder.clone(), body })
            }
            _ => None,
        }
    }
}

/// The orders of one companion.
#[derive(Debug, Default)]
struct Waiting {
    orders: Vec<CopyOrder>,
    not_before: Option<Instant>,
}

/// The sent copies that are to be made.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    waiting: Mutex<BTreeMap<MailboxId, Waiting>>,
}

impl Copies {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<MailboxId, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn order(&self, order: CopyOrder) {
        let mut waiting = self.lock();
        let waiting = waiting.entry(order.companion).or_default();
        if waiting.orders.len() < MOST {
            return waiting.orders.push(order);
        }
        tracing::warn!(target: "postroom", "no sent copy: {MOST} wait for inbox {} already", order.companion);
    }

    /// Has orders wait that could not be begun, and for so long whatever else the companion gets.
    pub(crate) fn order_after(&self, rest: Duration, companion: MailboxId, orders: Vec<CopyOrder>) {
        let mut waiting = self.lock();
        let waiting = waiting.entry(companion).or_default();
        waiting.orders.splice(0..0, orders);
        waiting.not_before = Some(Instant::now() + rest);
    }

    /// The orders that may be begun now, of companions that are free.
    pub(crate) fn take(&self, is_free: impl Fn(MailboxId) -> bool) -> BTreeMap<MailboxId, Vec<CopyOrder>> {
        let now = Instant::now();
        let due = |id: &MailboxId, waiting: &mut Waiting| {
            waiting.not_before.is_none_or(|at| at <= now) && is_free(*id)
        };
        self.lock().extract_if(.., due).map(|(id, waiting)| (id, waiting.orders)).collect()
    }

    /// How many are not begun.
    pub(crate) fn left(&self) -> usize {
        self.lock().values().map(|waiting| waiting.orders.len()).sum()
    }
}
