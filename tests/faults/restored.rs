//! What was restored from a backup: a mail server that gives UIDs again under the same UIDVALIDITY, and a database that knows nothing of what
//! came since.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use postroom::core::contract::Contract;
use postroom::core::queue::State;
use postroom::storage::sqlx::{Connection, SqliteConnection, query};
use postroom::storage::{QueueDesk, SqliteStore};
use postroom::transport::by_protocol::ByProtocol;
use postroom::{Answer, Delivery, MessageHandler, Postroom};
use postroom_testkit::MailServer;

use crate::house::{
    PATIENCE, actor, contract, inbox, keys, linked, morning, options, show, smtp, sqlite, submit, work,
};

const BOX: &str = "desk@acme.example";

/// Keeps what it is handed: subject and id.
#[derive(Default)]
struct Desk(Mutex<Vec<(String, String)>>);

impl Desk {
    fn subjects(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(subject, _)| subject.clone()).collect()
    }
}

#[async_trait]
impl MessageHandler for Desk {
    async fn handle(&self, delivery: Delivery) -> Answer {
        self.0.lock().unwrap().push((delivery.mail.subject, delivery.id.to_string()));
        Answer::Done
    }
}

/// A postroom over the file of a folder, as each process opens it.
async fn opened(folder: &Path, desk: &Arc<Desk>, after: Duration) -> (Postroom, Arc<SqliteStore>) {
    let (store, _) = sqlite(folder, after).await;
    let postroom = Postroom::builder(store.clone())
        .with_keyring(keys())
        .with_incoming(Arc::new(ByProtocol::new()))
        .with_outgoing(Arc::new(smtp(PATIENCE)))
        .with_handler(desk.clone())
        .with_options(options())
        .build();
    (postroom, store)
}

fn arrives(server: &MailServer, address: &str, subject: &str) {
    server.deliver(address, format!("From: ana@customer.example\r\nSubject: {subject}\r\n\r\nHello.\r\n"));
}

/// Over IMAP as it is on the wire. Would miss a frontier that holds whatever UIDNEXT says: what comes is never looked at. Seen to fail so.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_from_a_backup_costs_no_mail_and_doubles_none() {
    for after in ["leave", "delete"] {
        let folder = tempfile::tempdir().unwrap();
        let server = MailServer::builder().account(BOX, "secret").start().await.unwrap();
        let desk = Arc::new(Desk::default());
        let (postroom, _) = opened(folder.path(), &desk, Duration::ZERO).await;
        let inbox = inbox(&postroom, &server, BOX, after).await;
        postroom
            .save_contract(&actor(), &Contract::new(contract("ACME")).with_inbox(inbox.id))
            .await
            .unwrap();
        arrives(&server, BOX, "one");
        let backup = server.messages(BOX, "INBOX");
        for subject in ["two", "three", "four"] {
            arrives(&server, BOX, subject);
        }
        work(&postroom).await;
        let validity = server.uid_validity(BOX, "INBOX");
        server.restore(BOX, "INBOX", backup);
        arrives(&server, BOX, "five");
        work(&postroom).await;
        arrives(&server, BOX, "six");
        work(&postroom).await;
        assert_eq!(server.uid_validity(BOX, "INBOX"), validity);
        assert_eq!(desk.subjects(), ["one", "two", "three", "four", "five", "six"], "{after}");
        let left = server.messages(BOX, "INBOX").len();
        assert_eq!(left, if after == "leave" { 3 } else { 0 }, "{after}");
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether the operator calls `recover` before a worker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Recovers,
    /// The twin.
    Forgets,
}

/// What has come of a database that was copied, worked on for a day, and put back.
struct Restored {
    /// What the handler got, in its order.
    handed: Vec<(String, String)>,
    /// How often the mail arrived that waited when the copy was made, and its state.
    sent: (usize, State),
    /// The mails that wait in doubt.
    doubted: u64,
}

async fn restored(operator: Operator) -> Restored {
    let folder = tempfile::tempdir().unwrap();
    let builder = MailServer::builder().account("keeps@acme.example", "secret");
    let server = builder.account("deletes@acme.example", "secret").start().await.unwrap();
    let desk = Arc::new(Desk::default());
    let (postroom, store) = opened(folder.path(), &desk, Duration::ZERO).await;
    let outbox = linked(&postroom, "ACME", server.smtp_port(), 1).await;
    let mut acme = Contract::new(contract("ACME")).with_outbox(outbox.id, None);
    acme.revision = postroom.store().contract(&acme.id).await.unwrap().unwrap().revision;
    for (address, after) in [("keeps@acme.example", "leave"), ("deletes@acme.example", "delete")] {
        acme = acme.with_inbox(inbox(&postroom, &server, address, after).await.id);
    }
    postroom.save_contract(&actor(), &acme).await.unwrap();
    let arrive = |when: &str| {
        arrives(&server, "keeps@acme.example", &format!("{when}, kept"));
        arrives(&server, "deletes@acme.example", &format!("{when}, deleted"));
    };
    arrive("before");
    work(&postroom).await;
    let waiting = submit(&postroom, "ACME").await;
    let copy = folder.path().join("copy.db");
    let live = folder.path().join("queue.db");
    let mut copying = SqliteConnection::connect(&format!("sqlite://{}", live.display())).await.unwrap();
    query("VACUUM INTO ?").bind(copy.display().to_string()).execute(&mut copying).await.unwrap();
    copying.close().await.unwrap();
    arrive("after");
    work(&postroom).await;
    let later = submit(&postroom, "ACME").await;
    work(&postroom).await;
    assert_eq!(server.accepted_count(), 2);
    // A connection that is still open would write into the file that is put back.
    store.close().await.unwrap();
    for beside in ["queue.db-wal", "queue.db-shm"] {
        let _ = std::fs::remove_file(folder.path().join(beside));
    }
    std::fs::rename(copy, &live).unwrap();
    let (postroom, _) = opened(folder.path(), &desk, DAY).await;
    let doubted = match operator {
        Operator::Recovers => postroom.recover(&actor(), morning()).await.unwrap().doubted,
        Operator::Forgets => 0,
    };
    work(&postroom).await;
    let queue: &dyn QueueDesk = postroom.store();
    assert!(queue.show(later.id).await.unwrap().is_none(), "the copy knows nothing of it");
    let handed = desk.0.lock().unwrap().clone();
    let sent = (server.accepted_count() - 1, show(&postroom, &waiting).await.item.state);
    Restored { handed, sent, doubted }
}

/// Would miss a worker that sends what the copy shows as waiting, as the twin below does, and one whose cursor is not in the copy.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_comes_back_from_a_backup_sends_nothing_again_and_fetches_what_is_still_there() {
    let restored = restored(Operator::Recovers).await;
    assert_eq!((restored.sent, restored.doubted), ((1, State::InDoubt), 1));
    let mut subjects: Vec<&str> = restored.handed.iter().map(|(subject, _)| subject.as_str()).collect();
    subjects.sort_unstable();
    // What was deleted since is gone, and what is still there is another mail, by its id.
    let twice = "after, kept";
    assert_eq!(subjects, ["after, deleted", twice, twice, "before, deleted", "before, kept"]);
    let ids: Vec<&str> =
        restored.handed.iter().filter(|(subject, _)| subject == twice).map(|(_, id)| id.as_str()).collect();
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_recovery_what_the_backup_shows_as_waiting_is_sent_again() {
    assert_eq!(restored(Operator::Forgets).await.sent, (2, State::Accepted));
}
