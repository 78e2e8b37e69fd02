//! An IMAP server gives single mails other UIDs under the same UIDVALIDITY, as Courier does while one session marks a mail and another lists: it is
//! the same mail. What is another mail of the same bytes is handed over all the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use postroom::core::contract::Contract;
use postroom::storage::{LedgerDesk, LedgerItem, LedgerQuery};
use postroom::transport::by_protocol::ByProtocol;
use postroom::{Answer, Delivery, MessageHandler, Postroom};
use postroom_testkit::MailServer;
use tempfile::TempDir;

use crate::house::{actor, contract, inbox, keys, options, sqlite, work};

const BOX: &str = "desk@acme.example";
const INBOX: &str = "INBOX";

/// Counts what it is given.
#[derive(Default)]
struct Counter(Mutex<BTreeMap<String, u32>>);

#[async_trait]
impl MessageHandler for Counter {
    async fn handle(&self, delivery: Delivery) -> Answer {
        *self.0.lock().unwrap().entry(delivery.mail.subject.clone()).or_default() += 1;
        Answer::Done
    }
}

struct Desk {
    server: MailServer,
    postroom: Postroom,
    counter: Arc<Counter>,
    _folder: TempDir,
}

impl Desk {
    async fn open(after: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = MailServer::builder().account(BOX, "secret").start().await.unwrap();
        server.create_folder(BOX, "Done");
        let (store, _) = sqlite(folder.path(), Duration::ZERO).await;
        let counter = Arc::new(Counter::default());
        let postroom = Postroom::builder(store)
            .with_keyring(keys())
            .with_incoming(Arc::new(ByProtocol::new()))
            .with_handler(counter.clone())
            .with_options(options())
            .build();
        let inbox = inbox(&postroom, &server, BOX, after).await;
        let linked = Contract::new(contract("ACME")).with_inbox(inbox.id);
        postroom.save_contract(&actor(), &linked).await.unwrap();
        Self { server, postroom, counter, _folder: folder }
    }

    /// A mail that arrived so many seconds after the beginning of 2026.
    fn arrives(&self, subject: &str, seconds: u64) -> u32 {
        let arrived = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600 + seconds);
        let mail = format!("From: ana@customer.example\r\nSubject: {subject}\r\n\r\nHello.\r\n");
        self.server.deliver_dated(BOX, INBOX, mail, arrived)
    }

    async fn works(&self) {
        work(&self.postroom).await;
    }

    async fn ledger(&self) -> Vec<LedgerItem> {
        LedgerDesk::list(self.postroom.store(), &LedgerQuery::default()).await.unwrap()
    }

    fn handed(&self, subject: &str) -> u32 {
        self.counter.0.lock().unwrap().get(subject).copied().unwrap_or_default()
    }
}

/// Would miss a mail that is known by its UID alone: it is handed over again. Seen to fail so.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_gets_another_uid_under_the_same_uidvalidity_is_not_handed_over_again() {
    for after in ["seen", "leave"] {
        let desk = Desk::open(after).await;
        desk.arrives("one", 0);
        let renumbered = desk.arrives("two", 1);
        desk.arrives("three", 2);
        desk.works().await;
        let uid = desk.server.renumber_message(BOX, INBOX, renumbered);
        desk.arrives("four", 3);
        desk.works().await;
        // By whom a flag is changed is all the same, and when.
        desk.server.renumber_message(BOX, INBOX, uid);
        desk.works().await;
        assert_eq!(["one", "two", "three", "four"].map(|subject| desk.handed(subject)), [1; 4], "{after}");
        let known: Vec<String> = desk.ledger().await.iter().map(|item| item.key.to_string()).collect();
        assert_eq!(known, ["uid:1", "uid:6", "uid:3", "uid:5"], "{after}");
        let seen = |kept: &postroom_testkit::Stored| kept.flags.contains("\\Seen") == (after == "seen");
        assert!(desk.server.messages(BOX, INBOX).iter().all(seen), "{after}");
    }
}

/// Each has the bytes of a mail that was handed over. Would miss bytes that tell a mail by themselves: it is lost. Seen to fail so, without the
/// question to the server, without the comparison of dates, and without what the server was told, one at a time.
#[tokio::test(flavor = "multi_thread")]
async fn an_equal_mail_that_comes_again_under_the_same_uidvalidity_is_handed_over() {
    let desk = Desk::open("seen").await;
    desk.arrives("twice", 0);
    let first = desk.arrives("again", 0);
    desk.works().await;
    desk.arrives("twice", 0);
    desk.server.expunge(BOX, INBOX, first);
    desk.arrives("again", 1);
    desk.works().await;
    assert_eq!((desk.handed("twice"), desk.handed("again")), (2, 2));
    for after in ["delete", "move:Done"] {
        let desk = Desk::open(after).await;
        for count in 1..=3 {
            desk.arrives("the nightly report", 0);
            desk.works().await;
            let left = desk.server.messages(BOX, INBOX).len();
            assert_eq!((desk.handed("the nightly report"), left), (count, 0), "{after}");
        }
    }
}

/// More at once than wait in memory for what the server says. Would miss those beyond: they are lost, or handed over again. Seen to fail so.
#[tokio::test(flavor = "multi_thread")]
async fn however_many_mails_get_other_uids_none_is_handed_over_again_and_none_is_lost() {
    let desk = Desk::open("leave").await;
    let mails = 130;
    let uids: Vec<u32> = (0..mails).map(|number| desk.arrives(&format!("mail {number}"), 0)).collect();
    desk.works().await;
    for uid in uids {
        desk.server.renumber_message(BOX, INBOX, uid);
    }
    desk.arrives("new", 1);
    desk.works().await;
    assert!((0..mails).all(|number| desk.handed(&format!("mail {number}")) == 1));
    assert_eq!((desk.handed("new"), desk.ledger().await.len()), (1, mails + 1));
    let uids =
        desk.ledger().await.into_iter().map(|item| item.key).collect::<std::collections::BTreeSet<_>>();
    let shown = desk
        .server
        .messages(BOX, INBOX)
        .into_iter()
        .map(|kept| postroom::core::ledger::RemoteKey::Uid(kept.uid));
    assert_eq!(uids, shown.collect());
}
