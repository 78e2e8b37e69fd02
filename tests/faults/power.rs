//! The power goes, at any moment of sending and receiving on SQLite: what had been reported by then is there, whichever part of what was not
//! synced reached the disk. A child works on a disk that writes down what is done to it (`disk.c`); then the disk is made again as it may be
//! after a loss of power at some moments, opened, and compared with what the child knew by then.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use postroom::core::id::MailboxId;
use postroom::core::mailbox::{InboxDraft, MailboxDraft, SettingsDraft, Status};
use postroom::core::secret::{SecretChange, SecretString};
use postroom::core::{ledger, queue};
use postroom::engine::{Event, Observer};
use postroom::storage::sql::sqlite::{SqliteOptions, SqliteStore};
use postroom::storage::sqlx::{self, Connection, SqliteConnection};
use postroom::storage::{
    Bodies, Clock, LedgerDesk, LedgerItem, LedgerQuery, ManualClock, QueueDesk, QueueQuery, QueueWork,
};
use postroom::transport::memory::MemoryIncoming;
use postroom::transport::{
    Crossing, Error, ErrorKind, Lane, OutgoingTransport, ProbeReport, Receipt, Reply, Route, Stage,
};
use postroom::{Answer, Delivery, MessageHandler, Postroom};

use crate::disk::{Change, Dice, Disk, Files, Lie, Record, records};
use crate::house::{actor, contract, keys, linked, morning, options, sqlite, submit, work};
use crate::preload::library;

const DISK: &str = "POSTROOM_DISK";
const LOG: &str = "POSTROOM_DISK_LOG";

/// How often the file is opened and used. It is closed between, and left open at last.
const LIVES: usize = 2;
/// How many mails are sent, and received, in each life: more than the log takes before it begins anew.
const MAILS: usize = 120;

/// Writes behind what was done to the disk what its process knows by then.
struct Reporter(File);

impl Reporter {
    fn new() -> Self {
        let log = std::env::var_os(LOG).unwrap();
        Self(File::options().create(true).append(true).open(log).unwrap())
    }

    fn report(&self, what: &str) {
        (&self.0).write_all(format!("R {what}\n").as_bytes()).unwrap();
    }
}

impl Observer for Reporter {
    fn observe(&self, event: &Event) {
        match event {
            Event::Sent { id, .. } => self.report(&format!("settled {id}")),
            Event::Stored { id, .. } => self.report(&format!("stored {id}")),
            Event::Handled { id, .. } => self.report(&format!("handled {id}")),
            Event::StoreFailed { error } => panic!("{error}"),
            _ => {}
        }
    }
}

#[async_trait]
impl MessageHandler for Reporter {
    async fn handle(&self, _: Delivery) -> Answer {
        Answer::Done
    }
}

/// Takes every mail, and says when it may leave.
#[async_trait]
impl OutgoingTransport for Reporter {
    async fn carry<'a>(&self, _: &Route, lane: &'a (dyn Lane + 'a)) -> postroom::transport::Result<()> {
        while let Some(job) = lane.next().await {
            if lane.about_to_cross(job.attempt).await == Crossing::Stop {
                let stopped = Error::new(ErrorKind::Stopped, Stage::Data);
                lane.finished(job.attempt, Receipt::all(job.recipients.len(), &stopped)).await;
                return Err(stopped);
            }
            let text = String::from_utf8(job.content.to_vec()).unwrap();
            let message_id = text.lines().find_map(|line| line.strip_prefix("Message-ID: ")).unwrap();
            self.report(&format!("marked {message_id}"));
            let taken = Receipt::new(vec![Ok(Reply::new(250, None, "taken")); job.recipients.len()]);
            lane.finished(job.attempt, taken).await;
        }
        Ok(())
    }

    async fn probe(&self, _: &Route, _: &[postroom::core::address::Address]) -> ProbeReport {
        ProbeReport::default()
    }

    async fn close_parked(&self, _: MailboxId) {}

    async fn close_idle(&self) {}

    async fn close(&self) {}
}

/// The number of a received mail is in its subject.
fn arriving(number: usize) -> Bytes {
    let lines = "Is it still on fire?\r\n".repeat(1 + number % 7 * 1000);
    format!("From: ana@customer.example\r\nSubject: {number}\r\n\r\n{lines}").into()
}

/// Works on the disk, when the test of this file starts it; otherwise it has nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Some(disk) = std::env::var_os(DISK) else { return };
    let (reporter, incoming) = (Arc::new(Reporter::new()), MemoryIncoming::new());
    let mut inbox = None;
    for life in 0..LIVES {
        let (store, _) = sqlite(Path::new(&disk), Duration::ZERO).await;
        let postroom = Postroom::builder(store.clone())
            .with_keyring(keys())
            .with_outgoing(reporter.clone())
            .with_incoming(Arc::new(incoming.clone()))
            .with_handler(reporter.clone())
            .with_observer(reporter.clone())
            .with_options(options())
            .build();
        let inbox = match inbox {
            Some(inbox) => inbox,
            None => *inbox.insert(registered(&postroom).await),
        };
        let submits = || async {
            for _ in 0..MAILS / 4 {
                let submitted = submit(&postroom, "ACME").await;
                reporter.report(&format!("submitted {}", submitted.id));
            }
        };
        for half in 0..2 {
            for number in 0..MAILS / 2 {
                incoming.deliver(inbox, "INBOX", arriving((2 * life + half) * MAILS / 2 + number));
            }
            // Beside each other: they share commits.
            tokio::join!(submits(), submits(), work(&postroom));
        }
        work(&postroom).await;
        if life + 1 < LIVES {
            store.close().await.unwrap();
        }
    }
    println!("worked to the end");
    // As the power would: nothing is closed.
    std::process::exit(0);
}

async fn registered(postroom: &Postroom) -> MailboxId {
    linked(postroom, "ACME", 25, 3).await;
    let form = InboxDraft {
        provider: "imaps".to_owned(),
        user: "desk@acme.example".to_owned(),
        baseline: Some("all".to_owned()),
        after: Some("delete".to_owned()),
        ..InboxDraft::default()
    };
    let draft = MailboxDraft::new("Desk", "127.0.0.1", SettingsDraft::Inbox(form));
    let password = SecretChange::Set(SecretString::from("secret"));
    let inbox = postroom.register(&actor(), &draft, password, Status::Active).await.unwrap().id;
    let linked = postroom.contract(&contract("ACME")).await.unwrap().with_inbox(inbox);
    postroom.save_contract(&actor(), &linked).await.unwrap();
    inbox
}

/// The store on these files, when every lease has run out.
async fn opened(folder: &Path, files: &Files<'_>) -> Result<SqliteStore, Box<dyn std::error::Error>> {
    for (name, content) in files {
        std::fs::write(folder.join(name), content)?;
    }
    let url = format!("sqlite://{}", folder.join("queue.db").display());
    let clock = Arc::new(ManualClock::new(morning() + Duration::from_secs(3600)));
    let store = SqliteStore::open_with(&url, SqliteOptions::new().with_clock(clock)).await?;
    let mut connection = SqliteConnection::connect(&url).await?;
    let (checked,): (String,) = sqlx::query_as("PRAGMA integrity_check").fetch_one(&mut connection).await?;
    if checked != "ok" {
        return Err(checked.into());
    }
    store.expire(store.now()).await?;
    Ok(store)
}

/// What of that which was reported does not hold in these files.
async fn faults(files: &Files<'_>, reported: &[&str]) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let store = opened(folder.path(), files).await?;
    let mails = QueueDesk::list(&store, &QueueQuery::default()).await?;
    let sent: BTreeMap<String, queue::State> = mails
        .iter()
        .flat_map(|mail| [mail.id.to_string(), mail.message_id.clone()].map(|key| (key, mail.state)))
        .collect();
    let mails = LedgerDesk::list(&store, &LedgerQuery::default()).await?;
    let received: BTreeMap<String, LedgerItem> =
        mails.into_iter().map(|mail| (mail.id.to_string(), mail)).collect();
    let mut faults = Vec::new();
    for report in reported {
        use queue::State::{Accepted, InDoubt};
        let (what, id) = report.split_once(' ').unwrap();
        let holds = match what {
            "submitted" => sent.contains_key(id),
            // Nobody sends it again by himself.
            "marked" => matches!(sent.get(id), Some(Accepted | InDoubt)),
            "settled" => sent.get(id) == Some(&Accepted),
            "handled" => received.get(id).is_some_and(|mail| mail.state == ledger::State::Handled),
            "stored" => match received.get(id) {
                Some(mail) => {
                    let body = LedgerDesk::show(&store, mail.id).await?.and_then(|record| record.body);
                    let bytes = store.piece(body.unwrap(), 0).await?;
                    bytes == Some(arriving(mail.subject.parse()?))
                }
                None => false,
            },
            _ => panic!("{report}"),
        };
        if !holds {
            faults.push(format!("{report}, and it is {:?}, {:?}", sent.get(id), received.get(id)));
        }
    }
    Ok(faults)
}

/// What is first found to be lost at one of so many moments on such a disk.
async fn loss(records: &[Record<'_>], lie: Lie, moments: usize) -> Option<String> {
    let mut dice = Dice(1);
    let reports: Vec<usize> =
        (0..records.len()).filter(|&at| matches!(records[at], Record::Reported(_))).collect();
    // Half of them just after something was reported.
    let mut cuts: Vec<usize> = (0..moments)
        .map(|one| if one % 2 == 0 { dice.below(records.len()) } else { reports[dice.below(reports.len())] })
        .collect();
    cuts.sort_unstable();
    let (mut disk, mut reported, mut followed) = (Disk::new(lie), Vec::new(), 0);
    for cut in cuts {
        for &record in &records[followed..=cut] {
            disk.follow(record);
            if let Record::Reported(what) = record {
                reported.push(what);
            }
        }
        followed = cut + 1;
        let left = disk.after_a_loss_of_power(&mut dice);
        let found = faults(&left, &reported).await.unwrap_or_else(|error| vec![error.to_string()]);
        if let Some(first) = found.first() {
            return Some(format!("{} faults after line {cut} of {}: {first}", found.len(), records.len()));
        }
    }
    None
}

// Seen to fail with `synchronous=NORMAL`, and each time with disks that never sync the log, the file or the folder. Would miss a disk that does
// not keep what it has synced.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_reported_is_there_after_a_loss_of_power_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = library(folder.path(), include_str!("disk.c")) else {
        return println!("skipped: there is no C compiler");
    };
    let (disk, log) = (folder.path().join("disk"), folder.path().join("log"));
    std::fs::create_dir(&disk).unwrap();
    let disk = disk.canonicalize().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "power::child", "--nocapture"]).env("LD_PRELOAD", library);
    let child = child.env(DISK, &disk).env(LOG, &log).output().unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(said.contains("worked to the end"), "{said}\n{}", String::from_utf8_lossy(&child.stderr));
    let log = std::fs::read(log).unwrap();
    let records = records(&log);
    let mut whole = Disk::new(Lie::None);
    records.iter().for_each(|&record| whole.follow(record));
    for (name, content) in whole.now() {
        assert!(std::fs::read(disk.join(name)).unwrap() == content, "{name} was changed past the log");
    }
    let begins = |record: &&Record<'_>| matches!(record, Record::Changed(name, Change::Write { at: 0, .. }) if name.ends_with("-wal"));
    let begun = records.iter().filter(begins).count();
    assert!(begun > LIVES, "SQLite's log never began anew: the test shows little");
    let moments = if std::env::var_os("POSTROOM_LONG").is_some() { 3000 } else { 60 };
    assert_eq!(loss(&records, Lie::None, moments).await, None);
    for lie in ["-wal", ".db", "."] {
        let lost = loss(&records, Lie::About(lie), moments).await;
        assert!(lost.is_some(), "nobody notices that {lie} is never synced");
    }
}
