//! A town of mail servers in virtual time, and workers that send to them. Tokio's clock is paused and the store's clock follows it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use postroom_core::address::Address;
use postroom_core::contract::Contract;
use postroom_core::id::MailboxId;
use postroom_core::mailbox::{MailboxDraft, SettingsDraft, Status};
use postroom_core::message::Submission;
use postroom_core::secret::SecretChange;
use postroom_core::time::Timestamp;
use postroom_engine::{Options, Postroom, Submitted, Work};
use postroom_storage::memory::MemoryStore;
use postroom_storage::{Clock, QueueDesk, QueueRecord};
use postroom_transport::{
    Crossing, Error, ErrorKind, Lane, OutgoingTransport, ProbeReport, Receipt, Reply, Result, Route, Stage,
};
use tokio::time::{Instant, sleep};

use crate::fixture::*;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// The store's clock that goes with tokio's.
pub(crate) struct Virtual {
    began: Instant,
}

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        Timestamp::parse("2026-11-22T10:00:00Z").unwrap() + self.began.elapsed()
    }
}

/// What the servers of the town saw.
#[derive(Default)]
pub(crate) struct Seen {
    /// When somebody connected, also in vain.
    pub(crate) connects: Vec<(Duration, MailboxId)>,
    /// How many were refused for there were too many.
    pub(crate) refused: usize,
    /// Connections of each outbox: now, and at most.
    pub(crate) open: BTreeMap<MailboxId, (usize, usize)>,
    /// All connections, at most.
    pub(crate) most: usize,
    /// By which outbox which mail was taken, in order: the last word of its first line.
    pub(crate) taken: Vec<(Duration, MailboxId, String)>,
    /// When which server took a mail, in order.
    pub(crate) by: Vec<(Duration, String)>,
    /// When an outbox's parked connections were to be closed.
    pub(crate) closed: Vec<Duration>,
    /// When those that wait for long were.
    pub(crate) swept: Vec<Duration>,
}

/// Servers that take a mail a second on each connection, one host for all outboxes.
pub(crate) struct Town {
    pub(crate) began: Instant,
    /// How long a mail takes.
    pub(crate) pace: Mutex<Duration>,
    /// How many connections of one outbox the server takes.
    pub(crate) room: Mutex<usize>,
    /// Nobody answers.
    pub(crate) down: Mutex<bool>,
    /// Whose server falls silent after the final dot.
    pub(crate) silent: Mutex<BTreeSet<MailboxId>>,
    seen: Mutex<Seen>,
}

impl Town {
    fn new(pace: Duration) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            pace: Mutex::new(pace),
            room: Mutex::new(usize::MAX),
            down: Mutex::default(),
            silent: Mutex::default(),
            seen: Mutex::default(),
        })
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    fn enter(&self, mailbox: MailboxId) -> usize {
        let mut seen = self.seen();
        seen.connects.push((self.began.elapsed(), mailbox));
        let open = seen.open.entry(mailbox).or_default();
        open.0 += 1;
        open.1 = open.1.max(open.0);
        let own = open.0;
        let all = seen.open.values().map(|open| open.0).sum();
        seen.most = seen.most.max(all);
        own
    }

    async fn serve(&self, route: &Route, lane: &dyn Lane, own: usize) -> Result<()> {
        // A connection takes a moment, also one that fails.
        sleep(Duration::from_secs(1)).await;
        if *self.down.lock().unwrap() {
            return Err(Error::new(ErrorKind::Unreachable, Stage::Tcp));
        }
        if own > *self.room.lock().unwrap() {
            self.seen().refused += 1;
            return Err(Error::new(ErrorKind::Throttled, Stage::Greeting).with_reply("421 too many"));
        }
        while let Some(job) = lane.next().await {
            let pace = *self.pace.lock().unwrap();
            sleep(pace).await;
            if *self.down.lock().unwrap() {
                let error = Error::new(ErrorKind::Disconnected, Stage::MailFrom);
                lane.finished(job.attempt, Receipt::all(job.recipients.len(), &error)).await;
                return Err(error);
            }
            let stopped = Error::new(ErrorKind::Stopped, Stage::Data);
            if lane.about_to_cross(job.attempt).await == Crossing::Stop {
                lane.finished(job.attempt, Receipt::all(job.recipients.len(), &stopped)).await;
                return Err(stopped);
            }
            if self.silent.lock().unwrap().contains(&route.mailbox) {
                std::future::pending::<()>().await;
            }
            let text = String::from_utf8_lossy(&job.content).into_owned();
            let subject = text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap_or_default();
            self.seen().taken.push((self.began.elapsed(), route.mailbox, subject.to_owned()));
            self.seen().by.push((self.began.elapsed(), route.endpoint.host.to_string()));
            let accepted = Ok(Reply::new(250, None, "taken"));
            lane.finished(job.attempt, Receipt::new(vec![accepted; job.recipients.len()])).await;
        }
        Ok(())
    }
}

pub(crate) struct Open<'a> {
    town: &'a Town,
    mailbox: MailboxId,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.town.seen().open.entry(self.mailbox).or_default().0 -= 1;
    }
}

#[async_trait]
impl OutgoingTransport for Town {
    async fn carry<'a>(&self, route: &Route, lane: &'a (dyn Lane + 'a)) -> Result<()> {
        let own = self.enter(route.mailbox);
        // Also when the future is dropped.
        let _open = Open { town: self, mailbox: route.mailbox };
        self.serve(route, lane, own).await
    }

    async fn probe(&self, _: &Route, _: &[Address]) -> ProbeReport {
        ProbeReport::default()
    }

    async fn close_parked(&self, _: MailboxId) {
        self.seen().closed.push(self.began.elapsed());
    }

    async fn close_idle(&self) {
        self.seen().swept.push(self.began.elapsed());
    }

    async fn close(&self) {}
}

/// An outbox at this server.
pub(crate) fn outbox_of(server: &str, form: Form) -> MailboxDraft {
    let mut draft = outbox(server, "desk@town.example", None);
    if let SettingsDraft::Outbox(outbox) = &mut draft.settings {
        outbox.max_connections = Some(form.0);
        (outbox.per_minute, outbox.recipients_per_day) = (form.1, form.2);
    }
    draft
}

/// A town with outboxes on one host and as many workers over one store as are asked for.
pub(crate) struct Place {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) town: Arc<Town>,
    pub(crate) workers: Vec<Postroom>,
    pub(crate) outboxes: Vec<MailboxId>,
}

/// What outboxes register: connections, messages per minute, recipients per day.
#[derive(Clone, Copy)]
pub(crate) struct Form(pub(crate) u32, pub(crate) Option<u32>, pub(crate) Option<u32>);

impl Place {
    pub(crate) async fn new(outboxes: usize, form: Form, workers: usize, connections: usize) -> Self {
        let town = Town::new(Duration::from_secs(1));
        let store = Arc::new(MemoryStore::with_clock(Arc::new(Virtual { began: town.began })));
        let options = Options { connections, ..Options::default() };
        let worker = || {
            Postroom::builder(store.clone())
                .with_keyring(Arc::new(LabelKeyring))
                .with_outgoing(town.clone())
                .with_options(options.clone())
                .build()
        };
        let mut place = Self {
            store: store.clone(),
            town: town.clone(),
            workers: (0..workers).map(|_| worker()).collect(),
            outboxes: Vec::new(),
        };
        for number in 0..outboxes {
            let draft = outbox_of("smtp.town.example", form);
            let worker = &place.workers[0];
            let mailbox =
                worker.register(&actor(), &draft, SecretChange::Keep, Status::Active).await.unwrap();
            let own = Contract::new(contract(&format!("C{number}"))).with_outbox(mailbox.id, None);
            worker.save_contract(&actor(), &own).await.unwrap();
            place.outboxes.push(mailbox.id);
        }
        place.workers[0].set_standard(&actor(), place.outboxes.first().copied()).await.unwrap();
        place
    }

    pub(crate) async fn submit(&self, from: &str, subject: &str, recipients: usize) -> Submitted {
        let mail = Submission::text(contract(from), subject, "text");
        let to = |n| address(&format!("r{n}@customer.example"));
        let mail = (0..recipients).fold(mail, |mail, n| mail.with_to(to(n)));
        self.workers[0].submit(&mail).await.unwrap()
    }

    /// All workers work for so long.
    pub(crate) async fn work(&self, span: Duration) {
        let run = |worker: Postroom| async move {
            worker.run_with(Work::all().only_sending(), sleep(span)).await.unwrap();
        };
        let mut all = tokio::task::JoinSet::new();
        self.workers.iter().for_each(|worker| drop(all.spawn(run(worker.clone()))));
        while let Some(ended) = all.join_next().await {
            ended.unwrap();
        }
    }

    pub(crate) async fn show(&self, mail: &Submitted) -> QueueRecord {
        let desk: &dyn QueueDesk = self.workers[0].store();
        desk.show(mail.id).await.unwrap().unwrap()
    }

    pub(crate) fn subjects(&self) -> Vec<String> {
        self.town.seen().taken.iter().map(|(_, _, subject)| subject.clone()).collect()
    }
}
