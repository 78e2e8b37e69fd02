//! Mail that another client opens before postroom looks. The cursor is the ledger, so it is handled like any other; a reader that goes by
//! what is unread never sees it. That naive twin stands between the house and the real adapter, and the same check catches it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use postroom::Postroom;
use postroom::core::contract::Contract;
use postroom::core::ledger::{RemoteKey, State};
use postroom::storage::{LedgerDesk, LedgerQuery};
use postroom::transport::by_protocol::ByProtocol;
use postroom::transport::{
    Access, CloseReport, Effect, Folder, Hint, IncomingSession, IncomingTransport, Listed, MailSink,
    ProbeReport, Result, Route, Selected,
};
use postroom::{Answer, Delivery, MessageHandler};
use postroom_testkit::MailServer;

use crate::house::{actor, contract, inbox, keys, options, sqlite, work};

const BOX: &str = "desk@acme.example";

/// By what a reader knows what it has not read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cursor {
    /// The ledger: ours.
    Ledger,
    /// The flag `\Seen`, as `SEARCH UNSEEN` has it: the twin's.
    Unseen,
}

struct Mailman {
    inner: ByProtocol,
    server: Arc<MailServer>,
    cursor: Cursor,
}

#[async_trait]
impl IncomingTransport for Mailman {
    async fn open(&self, route: &Route) -> Result<Box<dyn IncomingSession>> {
        let inner = self.inner.open(route).await?;
        Ok(Box::new(Round { inner, server: Arc::clone(&self.server), cursor: self.cursor }))
    }

    async fn probe<'a>(&self, route: &Route, folder: Option<&'a str>) -> ProbeReport {
        self.inner.probe(route, folder).await
    }
}

struct Round {
    inner: Box<dyn IncomingSession>,
    server: Arc<MailServer>,
    cursor: Cursor,
}

impl Round {
    fn is_unseen(&self, listed: &Listed) -> bool {
        let all = self.server.messages(BOX, "INBOX");
        all.iter().any(|one| listed.key == RemoteKey::Uid(one.uid) && !one.flags.contains("\\Seen"))
    }
}

#[async_trait]
impl IncomingSession for Round {
    async fn folders(&mut self) -> Result<Vec<Folder>> {
        self.inner.folders().await
    }

    async fn select<'a>(&mut self, folder: Option<&'a str>, access: Access) -> Result<Selected> {
        self.inner.select(folder, access).await
    }

    async fn list<'a>(&mut self, after: Option<&'a RemoteKey>, limit: usize) -> Result<Vec<Listed>> {
        let mut listed = self.inner.list(after, limit).await?;
        listed.retain(|one| self.cursor == Cursor::Ledger || self.is_unseen(one));
        Ok(listed)
    }

    async fn fetch<'a>(
        &mut self,
        mails: &[Listed],
        limit: u64,
        sink: &'a mut (dyn MailSink + 'a),
    ) -> Result<()> {
        self.inner.fetch(mails, limit, sink).await
    }

    async fn settle(&mut self, effects: &[(RemoteKey, Effect)]) -> Result<()> {
        self.inner.settle(effects).await
    }

    async fn find(&mut self, message_id: &str) -> Result<Vec<RemoteKey>> {
        self.inner.find(message_id).await
    }

    async fn append(&mut self, folder: &str, content: Bytes) -> Result<()> {
        self.inner.append(folder, content).await
    }

    async fn wait(&mut self, at_most: Duration) -> Result<Hint> {
        self.inner.wait(at_most).await
    }

    async fn close(self: Box<Self>) -> CloseReport {
        self.inner.close().await
    }
}

struct Desk;

#[async_trait]
impl MessageHandler for Desk {
    async fn handle(&self, _: Delivery) -> Answer {
        Answer::Done
    }
}

/// The subjects of what was handled, of two mails in each of two rounds, one of which another client opened before.
async fn handled(cursor: Cursor) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let server = Arc::new(MailServer::builder().account(BOX, "secret").start().await.unwrap());
    let (store, _) = sqlite(folder.path(), Duration::ZERO).await;
    let postroom = Postroom::builder(store)
        .with_keyring(keys())
        .with_incoming(Arc::new(Mailman { inner: ByProtocol::new(), server: Arc::clone(&server), cursor }))
        .with_handler(Arc::new(Desk))
        .with_options(options())
        .build();
    let inbox = inbox(&postroom, &server, BOX, "leave").await;
    let linked = Contract::new(contract("ACME")).with_inbox(inbox.id);
    postroom.save_contract(&actor(), &linked).await.unwrap();
    for round in ["first", "second"] {
        for what in ["opened", "unread"] {
            let mail = format!("From: ana@customer.example\r\nSubject: {round} {what}\r\n\r\nHello.\r\n");
            let uid = server.deliver(BOX, mail);
            if what == "opened" {
                server.set_flags(BOX, "INBOX", uid, &["\\Seen"]);
            }
        }
        work(&postroom).await;
    }
    let items = LedgerDesk::list(postroom.store(), &LedgerQuery::default()).await.unwrap();
    let handled = items.into_iter().filter(|item| item.state == State::Handled);
    handled.map(|item| item.subject).collect()
}

// Seen to fail with the twin of the test below.
#[tokio::test(flavor = "multi_thread")]
async fn mail_that_another_client_opened_first_is_handled_like_any_other() {
    let all = ["first opened", "first unread", "second opened", "second unread"];
    assert_eq!(handled(Cursor::Ledger).await, all);
}

/// The twin goes by the flag: what somebody opened in his own program is never handled, and nothing tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_asks_for_unseen_mail_misses_what_another_client_opened() {
    assert_eq!(handled(Cursor::Unseen).await, ["first unread", "second unread"]);
}
