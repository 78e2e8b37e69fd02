//! One turn of a worker after the other: which lanes, rounds and calls are due, and which tasks run. What a task does is in
//! the verb's own file.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use postroom_core::governor::may_open;
use postroom_core::id::{MailboxId, WorkerId};
use postroom_core::mailbox::Mailbox;
use postroom_core::time::Timestamp;
use postroom_storage::{HealthBook, LedgerWork, Mailboxes, QueueWork};
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;

use crate::dispatch::dispatch;
use crate::error::Result;
use crate::handle::handle;
use crate::lanes::Signs;
use crate::maintain::{close_idle, maintain, maintain_ledger};
use crate::postroom::Options;
use crate::prove::{Proofs, prove};
use crate::sent_copy::copy;
use crate::worker::{Noun, Worker};

use super::roster;
use super::work::Work;
use crate::watch::Until;

/// How many outboxes with due mail are looked at in one turn, and how many mails are handed over at once.
const TURN: u32 = 64;

/// For how long one worker tries an outbox that failed, before another may.
const PROBE: Duration = Duration::from_secs(120);

/// How long a worker that has just looked waits before it looks again, when it began something; and at most, when each look finds what is
/// begun already. A worker whose lanes are busy is rung for by every mail, and each look costs the store some statements.
const BREATH: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(10));

/// An outbox's only connection gives way to an outbox that has none after so long.
const SLICE: Duration = Duration::from_secs(5);

/// A task of the worker.
#[derive(Debug)]
enum Task {
    /// One connection of an outbox.
    Lane(MailboxId, Arc<Signs>),
    /// The readers of all inboxes.
    Roster,
    /// One call of the handler.
    Call,
    /// Sent copies for a companion.
    Copy(MailboxId),
    /// The search for mail in doubt in a companion.
    Proof(MailboxId),
    /// Renewal and maintenance.
    Upkeep,
}

impl Task {
    /// The companion in which mail in doubt is searched.
    fn searched(&self) -> Option<MailboxId> {
        match self {
            Self::Proof(companion) => Some(*companion),
            _ => None,
        }
    }
}

/// What a task leaves behind.
pub(super) enum Done {
    Nothing,
    /// The readers ended; how, is news where the host waits for an end.
    Roster(Result<()>),
}

/// Has lanes end when their mail is finished, for so many outboxes that have none: first of the outboxes that have most, then the
/// only ones of outboxes that had theirs for long.
fn give_way(lanes: &HashMap<MailboxId, Vec<Arc<Signs>>>, without: usize) {
    let ending = lanes.values().flatten().filter(|signs| signs.was_told(SLICE)).count();
    for _ in ending..without {
        let staying = lanes.values().map(|own| own.iter().filter(|signs| !signs.is_ending()).collect());
        let most = staying.max_by_key(|own: &Vec<&Arc<Signs>>| {
            let oldest = own.iter().map(|signs| signs.begun().elapsed()).max();
            (own.len(), oldest)
        });
        let Some(own) = most else { return };
        let Some(oldest) = own.iter().max_by_key(|signs| signs.begun().elapsed()) else { return };
        if own.len() < 2 && oldest.begun().elapsed() < SLICE {
            return;
        }
        oldest.end();
    }
}

pub(super) struct Turn {
    pub(super) worker: Arc<Worker>,
    work: Work,
    pub(super) tasks: JoinSet<Done>,
    running: HashMap<Id, Task>,
    /// When busy outboxes were read, and how many connections they register.
    registered: HashMap<MailboxId, (Instant, u32)>,
    /// How the readers of all inboxes ended, if they have.
    read: Option<Result<()>>,
    proofs: Proofs,
    breath: Duration,
}

impl Turn {
    pub(super) fn new(worker: Arc<Worker>, work: Work) -> Self {
        Self {
            worker,
            work,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            registered: HashMap::new(),
            read: None,
            proofs: Proofs::default(),
            breath: BREATH.0,
        }
    }

    fn store(&self) -> &dyn postroom_storage::Store {
        self.worker.postroom.store()
    }

    fn spawn(&mut self, task: Task, future: impl Future<Output = Done> + Send + 'static) {
        let handle = self.tasks.spawn(future);
        self.running.insert(handle.id(), task);
    }

    pub(super) fn start_upkeep(&mut self) {
        let worker = Arc::clone(&self.worker);
        self.spawn(Task::Upkeep, async move {
            worker.renew().await;
            Done::Nothing
        });
        if self.work.send {
            let worker = Arc::clone(&self.worker);
            self.spawn(Task::Upkeep, async move {
                maintain(&worker).await;
                Done::Nothing
            });
            let worker = Arc::clone(&self.worker);
            self.spawn(Task::Upkeep, async move {
                close_idle(&worker).await;
                Done::Nothing
            });
        }
        if self.work.receive {
            let worker = Arc::clone(&self.worker);
            self.spawn(Task::Upkeep, async move {
                maintain_ledger(&worker).await;
                Done::Nothing
            });
        }
    }

    /// The lanes of each outbox that has some.
    fn lanes(&self) -> HashMap<MailboxId, Vec<Arc<Signs>>> {
        let mut lanes: HashMap<MailboxId, Vec<Arc<Signs>>> = HashMap::new();
        for task in self.running.values() {
            if let Task::Lane(outbox, signs) = task {
                lanes.entry(*outbox).or_default().push(Arc::clone(signs));
            }
        }
        lanes
    }

    /// Takes note of a task that ended. A panic ended that task alone.
    pub(super) fn note(&mut self, done: std::result::Result<(Id, Done), tokio::task::JoinError>) {
        let (id, done) = match done {
            Ok((id, done)) => (id, done),
            Err(error) => {
                tracing::error!(target: "postroom", "a task failed: {error}");
                (error.id(), Done::Nothing)
            }
        };
        let task = self.running.remove(&id);
        match (task, done) {
            (Some(Task::Roster), Done::Roster(read)) => self.read = Some(read),
            // It panicked: it is begun anew.
            (Some(Task::Roster), Done::Nothing) => self.read = None,
            _ => {}
        }
    }

    /// Begins the tasks that are due; gives whether there was none, none runs, and no claim is open.
    pub(super) async fn begin_what_is_due(&mut self) -> Result<bool> {
        let mut begun = 0;
        begun += self.begin_copies();
        if self.worker.store_rests().is_some() {
            return Ok(false);
        }
        let is_busy = self.running.values().any(|task| !matches!(task, Task::Upkeep));
        // Asked before what is due, and behind it: what is let go, or taken, in between would be seen by neither.
        let may_be_idle = self.work.until_idle && !is_busy && self.open_claims().await? == 0;
        if self.work.send {
            begun += self.begin_lanes().await?;
            begun += self.begin_proofs().await?;
        }
        if self.work.receive {
            begun += self.begin_reading()?;
            begun += self.begin_calls().await?;
        }
        let (least, most) = BREATH;
        self.breath = if begun > 0 { least } else { (self.breath * 2).min(most) };
        Ok(begun == 0 && may_be_idle && self.open_claims().await? == 0)
    }

    /// The claims that any worker has.
    async fn open_claims(&self) -> Result<u64> {
        let (queue, ledger): (&dyn QueueWork, &dyn LedgerWork) = (self.store(), self.store());
        let queued = if self.work.send { queue.open_claims().await? } else { 0 };
        Ok(queued + if self.work.receive { ledger.open_claims().await? } else { 0 })
    }

    /// The search for mails in doubt that are due, one task for each companion at a time.
    async fn begin_proofs(&mut self) -> Result<usize> {
        if self.worker.postroom.ports.incoming.is_none() {
            return Ok(0);
        }
        let searched: Vec<MailboxId> = self.running.values().filter_map(Task::searched).collect();
        let sought = self.proofs.due(&self.worker, |companion| searched.contains(&companion)).await?;
        let begun = sought.len();
        for (companion, sought) in sought {
            let worker = Arc::clone(&self.worker);
            self.spawn(Task::Proof(companion), async move {
                prove(worker, companion, sought).await;
                Done::Nothing
            });
        }
        Ok(begun)
    }

    /// The sent copies that were ordered, one task for each companion at a time.
    fn begin_copies(&mut self) -> usize {
        let is_free =
            |companion| !self.running.values().any(|task| matches!(task, Task::Copy(of) if *of == companion));
        let due = self.worker.copies.take(is_free);
        let begun = due.len();
        for (companion, orders) in due {
            let worker = Arc::clone(&self.worker);
            self.spawn(Task::Copy(companion), async move {
                copy(worker, companion, orders).await;
                Done::Nothing
            });
        }
        begun
    }

    /// An outbox as it is registered now, which any process may have changed. Lanes that began by other settings end when the mail
    /// in hand is finished, and what is parked by them is closed.
    async fn outbox(&mut self, id: MailboxId, own: &[Arc<Signs>]) -> Result<Option<Mailbox>> {
        let mailbox = Mailboxes::mailbox(self.store(), id).await?;
        let outbox = mailbox.as_ref().and_then(|mailbox| mailbox.settings.outbox());
        self.registered.insert(id, (Instant::now(), outbox.map_or(0, |outbox| outbox.max_connections())));
        let revision = mailbox.as_ref().map(|mailbox| mailbox.revision);
        let mut outdated =
            own.iter().filter(|signs| Some(signs.revision()) != revision && !signs.is_ending()).peekable();
        if outdated.peek().is_some()
            && let Some(outgoing) = self.worker.postroom.ports.outgoing.clone()
        {
            self.spawn(Task::Upkeep, async move {
                outgoing.close_parked(id).await;
                Done::Nothing
            });
        }
        outdated.for_each(|signs| signs.end());
        Ok(mailbox)
    }

    /// One more lane for each outbox that has due mail, a free connection, and no lane that is about to take it. Outboxes that
    /// have none come first; where none is free, another outbox gives one up.
    async fn begin_lanes(&mut self) -> Result<usize> {
        if self.worker.postroom.ports.outgoing.is_none() {
            return Ok(0);
        }
        let mut lanes = self.lanes();
        let of = |lanes: &HashMap<MailboxId, Vec<Arc<Signs>>>, id| lanes.get(&id).map_or(0, Vec::len);
        let queue: &dyn QueueWork = self.store();
        // Those that are busy are due as well, and must not hide others.
        let limit = TURN.saturating_add(u32::try_from(lanes.len()).unwrap_or(u32::MAX));
        let mut due = queue.due_outboxes(self.worker.postroom.now(), limit).await?;
        due.sort_by_key(|id| of(&lanes, *id));
        let Options { connections: all, look, .. } = self.worker.postroom.ports.options;
        self.registered.retain(|_, (at, _)| at.elapsed() < look);
        for (id, own) in &lanes {
            if !self.registered.contains_key(id) {
                self.outbox(*id, own).await?;
            }
        }
        let mut free = all.saturating_sub(lanes.values().map(Vec::len).sum());
        let (mut begun, mut without) = (0, 0);
        for id in due {
            let own = of(&lanes, id);
            if own == 0 && free == 0 {
                without += 1;
                continue;
            }
            let takes = |signs: &Arc<Signs>| signs.is_hungry() && !signs.is_ending();
            if lanes.get(&id).is_some_and(|own| own.iter().any(takes)) {
                // It may be waiting, and the mail another process's, or due by its time.
                self.worker.postroom.ports.mail.notify_waiters();
                continue;
            }
            // A busy outbox is looked at often: that it has all its connections need not be read each time.
            if let Some((_, registered)) = self.registered.get(&id)
                && !may_open(own, self.most(id, *registered), free)
            {
                continue;
            }
            let beside = lanes.get(&id).map_or(&[][..], Vec::as_slice);
            let Some(mailbox) = self.outbox(id, beside).await? else { continue };
            let registered = mailbox.settings.outbox().map_or(0, |outbox| outbox.max_connections());
            if !may_open(own, self.most(id, registered), free) {
                continue;
            }
            let (holder, signs) = (self.worker.hold(Noun::Queue)?, Signs::new(mailbox.revision));
            if !self.may_probe(id, holder.id).await? {
                continue;
            }
            lanes.entry(id).or_default().push(Arc::clone(&signs));
            self.spawn(Task::Lane(id, Arc::clone(&signs)), async move {
                dispatch(holder, mailbox, signs).await;
                Done::Nothing
            });
            free = free.saturating_sub(1);
            begun += 1;
        }
        give_way(&lanes, without);
        Ok(begun)
    }

    /// How many connections an outbox may have that registers so many.
    fn most(&self, outbox: MailboxId, registered: u32) -> usize {
        usize::try_from(self.worker.lanes.most(outbox, registered)).unwrap_or(usize::MAX)
    }

    /// Whether a lane that claims under this name may try an outbox: where the last try failed, one lane of one worker may.
    async fn may_probe(&self, outbox: MailboxId, name: WorkerId) -> Result<bool> {
        let book: &dyn HealthBook = self.store();
        let now = self.worker.postroom.now();
        Ok(book.probe(now, outbox, name, now + PROBE).await?)
    }

    /// The readers of all inboxes, in one task that has theirs. Where the run ends by itself they read once, else again and again.
    fn begin_reading(&mut self) -> Result<usize> {
        if self.work.until_idle
            && let Some(read) = &mut self.read
        {
            return std::mem::replace(read, Ok(())).map(|()| 0);
        }
        let is_reading = self.running.values().any(|task| matches!(task, Task::Roster));
        if is_reading || self.worker.postroom.ports.incoming.is_none() {
            return Ok(0);
        }
        let until = if self.work.until_idle { Until::Read } else { Until::Ended };
        let worker = Arc::clone(&self.worker);
        self.spawn(Task::Roster, async move { Done::Roster(roster::keep(worker, until).await) });
        Ok(1)
    }

    /// One call of the handler for each mailbox that has a due mail.
    async fn begin_calls(&mut self) -> Result<usize> {
        if self.worker.postroom.ports.handler.is_none() {
            return Ok(0);
        }
        let calls = self.running.values().filter(|task| matches!(task, Task::Call)).count();
        let free = TURN.saturating_sub(u32::try_from(calls).unwrap_or(u32::MAX));
        if free == 0 {
            return Ok(0);
        }
        let ledger: &dyn LedgerWork = self.store();
        let now = self.worker.postroom.now();
        let holder = Arc::new(self.worker.hold(Noun::Ledger)?);
        let claimed = ledger.claim(now, free, holder.id, self.worker.until(now)).await?;
        let begun = claimed.len();
        for mail in claimed {
            let (worker, holder) = (Arc::clone(&self.worker), Arc::clone(&holder));
            self.spawn(Task::Call, async move {
                handle(worker, mail).await;
                drop(holder);
                Done::Nothing
            });
        }
        Ok(begun)
    }

    /// How long to wait before the next look, when there was a ring meanwhile.
    pub(super) fn breath(&self) -> Duration {
        self.breath
    }

    /// How long to sleep when nothing happens: until a row is due, and not longer than the look for mail that
    /// other processes submit.
    pub(super) async fn nap(&mut self) -> Duration {
        self.breath = BREATH.0;
        let look = self.worker.postroom.ports.options.look;
        let (queue, ledger): (&dyn QueueWork, &dyn LedgerWork) = (self.store(), self.store());
        let now = self.worker.postroom.now();
        let mut due: Option<Timestamp> = None;
        for next in [queue.next_due(now).await, ledger.next_due(now).await].into_iter().flatten().flatten() {
            due = Some(due.map_or(next, |due| due.min(next)));
        }
        let row = due.map_or(look, |due| due.since(now));
        let rest = self.worker.store_rests().unwrap_or_default();
        row.min(look).max(Duration::from_millis(5)).max(rest)
    }

    /// Lets the tasks finish what they have in hand, for so long at most.
    pub(super) async fn end(mut self, grace: Duration) {
        self.worker.stop();
        let finished = async {
            // A lane that ends may order one more copy.
            while let Some(done) = self.tasks.join_next_with_id().await {
                self.note(done);
                self.begin_copies();
            }
        };
        if tokio::time::timeout(grace, finished).await.is_err() {
            tracing::warn!(target: "postroom", "stopped with work in hand: it is taken up again when its lease ends");
        }
        self.tasks.shutdown().await;
        match self.worker.copies.left() {
            0 => {}
            left => {
                tracing::warn!(target: "postroom", "{left} sent copies were not made: their inboxes rest")
            }
        }
        if let Some(outgoing) = &self.worker.postroom.ports.outgoing {
            outgoing.close().await;
        }
    }
}
