//! One outbox hangs, or has a backlog; the others deliver. How fast they do is measured by `cargo xtask bench isolation`; here they
//! do it at all, while the other one hangs. `POSTROOM_LONG=1` makes the backlog 100,000 mails deep.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use postroom::Postroom;
use postroom::core::queue::State;
use postroom::engine::{NoObserver, Work};
use postroom_testkit::{Fault, MailServer, Step};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::house::{PATIENCE, linked, opened, options, queue, smtp, sqlite, submit};

const MAILS: usize = 100;

struct House {
    postroom: Postroom,
    good: MailServer,
    _folder: TempDir,
}

/// A postroom whose contract B has a good server, and whose contract A has so many mails for the server at this port.
async fn beside(port: u16, backlog: usize) -> House {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(folder.path(), Duration::ZERO).await.0;
    let outgoing = Arc::new(smtp(2 * PATIENCE));
    let postroom = opened(store, outgoing, Arc::new(NoObserver::default()), options());
    let good = MailServer::start().await.unwrap();
    linked(&postroom, "A", port, 5).await;
    linked(&postroom, "B", good.smtp_port(), 5).await;
    for _ in 0..backlog.div_ceil(200) {
        join_all((0..backlog.min(200)).map(|_| submit(&postroom, "A"))).await;
    }
    join_all((0..MAILS).map(|_| submit(&postroom, "B"))).await;
    House { postroom, good, _folder: folder }
}

impl House {
    /// All mails of B arrive, each once, while A still has what it had.
    async fn b_is_served(self) {
        let worker = self.postroom.clone();
        let worker = JoinSet::from_iter([async move {
            worker.run_with(Work::all(), std::future::pending()).await.unwrap();
        }]);
        let arrived = self.good.expect_accepted(MAILS, PATIENCE).await;
        assert_eq!(arrived.len(), MAILS);
        drop(worker);
        let queue = queue(&self.postroom).await;
        let left =
            queue.iter().filter(|item| item.contract.as_str() == "A" && !item.state.is_final()).count();
        assert!(left > 0, "A was served before B: the test shows nothing");
    }
}

// Seen to fail when the lanes of the hanging outbox are waited for in one turn.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_accepts_tcp_and_says_nothing_holds_up_nobody_else() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    beside(silent.local_addr().unwrap().port(), 50).await.b_is_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_at_the_dot_holds_up_nobody_else() {
    let hanging = MailServer::start().await.unwrap();
    hanging.fault(Fault::stall(Step::Dot));
    beside(hanging.smtp_port(), 50).await.b_is_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_holds_up_nobody_else() {
    let slow = MailServer::start().await.unwrap();
    slow.fault(Fault::drip(Step::Dot, Duration::from_millis(2)));
    let backlog = if std::env::var_os("POSTROOM_LONG").is_some() { 100_000 } else { 4_000 };
    let house = beside(slow.smtp_port(), backlog).await;
    assert_eq!(
        queue(&house.postroom).await.iter().filter(|item| item.state == State::Queued).count(),
        backlog + MAILS
    );
    house.b_is_served().await;
}
