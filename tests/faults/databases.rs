//! A database server at the other end of a real connection: it is cut in the reply to COMMIT, or is gone with every connection at once.
//! Each test runs over PostgreSQL and over MariaDB, where `POSTROOM_TEST_POSTGRES` and `POSTROOM_TEST_MYSQL` name a server.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postroom::core::id::{IdempotencyKey, QueueId};
use postroom::core::queue::{Event as QueueEvent, State};
use postroom::engine::{Event, Observer, Work};
use postroom::storage::sqlx::{self, AssertSqlSafe, Connection, MySqlConnection, PgConnection};
use postroom::storage::{MySqlStore, PgStore, Store};
use postroom::{Options, Postroom};
use postroom_testkit::MailServer;
use tokio::task::JoinSet;

use crate::house::{PATIENCE, linked, looks, mail, opened, queue, smtp, submit};
use crate::proxy::{Network, Proxy};

const MAILS: usize = 20;

/// What the live observer was told.
#[derive(Default)]
struct Told {
    accepted: Mutex<BTreeMap<QueueId, usize>>,
    failures: AtomicUsize,
}

impl Observer for Told {
    fn observe(&self, event: &Event) {
        match event {
            Event::StoreFailed { .. } => drop(self.failures.fetch_add(1, Ordering::SeqCst)),
            Event::Sent { id, results, .. } if results.contains(&QueueEvent::Accept) => {
                *self.accepted.lock().unwrap().entry(*id).or_default() += 1;
            }
            _ => {}
        }
    }
}

/// A database with a proxy before it.
pub(crate) struct Database {
    proxy: Proxy,
    /// What leads to it through the proxy.
    pub(crate) url: String,
    pub(crate) store: Arc<dyn Store>,
}

/// A URL in its parts: up to the address, the address, what follows.
fn parts(url: &str) -> (&str, SocketAddr, &str) {
    let (front, rest) = url.split_once('@').expect("a URL with a user");
    let (address, database) = rest.split_once('/').expect("a URL with a database");
    (front, address.parse().expect("an address"), database)
}

/// A name that no other test has.
fn name(test: &str) -> String {
    format!("{test}_{}", std::process::id())
}

async fn postgres(test: &str) -> Option<Database> {
    let url = std::env::var("POSTROOM_TEST_POSTGRES").ok()?;
    let name = name(test);
    let mut host = PgConnection::connect(&url).await.unwrap();
    let sql = AssertSqlSafe(format!("DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name}"));
    sqlx::raw_sql(sql).execute(&mut host).await.unwrap();
    let (front, address, database) = parts(&url);
    let proxy = Proxy::before(address).await;
    let to = proxy.address();
    let url = format!("{front}@{to}/{database}?sslmode=disable&options[search_path]={name}");
    let store = Arc::new(PgStore::open(&url).await.unwrap());
    Some(Database { proxy, url, store })
}

async fn mariadb(test: &str) -> Option<Database> {
    let url = std::env::var("POSTROOM_TEST_MYSQL").ok()?;
    let name = name(test);
    let mut host = MySqlConnection::connect(&url).await.unwrap();
    let sql = AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name}"));
    sqlx::raw_sql(sql).execute(&mut host).await.unwrap();
    let (front, address, _) = parts(&url);
    let proxy = Proxy::before(address).await;
    let url = format!("{front}@{}/{name}?ssl-mode=DISABLED", proxy.address());
    let store = Arc::new(MySqlStore::open(&url).await.unwrap());
    Some(Database { proxy, url, store })
}

/// The databases that are there. Without any a test shows nothing, and says so.
pub(crate) async fn databases(test: &str) -> Vec<Database> {
    let all: Vec<Database> = [postgres(test).await, mariadb(test).await].into_iter().flatten().collect();
    if all.is_empty() {
        let text = b"skipped: neither POSTROOM_TEST_POSTGRES nor POSTROOM_TEST_MYSQL is set\n";
        // Past the capture of tests that pass.
        drop(std::io::stderr().write_all(text));
    }
    all
}

/// A worker in the background, for as long as this is kept.
pub(crate) fn worker(postroom: &Postroom) -> JoinSet<()> {
    let postroom = postroom.clone();
    JoinSet::from_iter([async move {
        postroom.run_with(Work::all(), std::future::pending()).await.unwrap();
    }])
}

/// Waits until every mail is accepted.
pub(crate) async fn all_accepted(postroom: &Postroom) {
    let accepted = async {
        // A look may meet a fault of the network, too.
        while !looks(postroom).await.is_ok_and(|mails| mails.iter().all(|one| one.state == State::Accepted)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let accepted = tokio::time::timeout(2 * PATIENCE, accepted).await;
    assert!(accepted.is_ok(), "{:#?}", looks(postroom).await);
}

// The server has committed and nobody hears of it: of submissions, claims, marks and settlements alike. Would miss a cut before the
// server has the COMMIT: that is a failure like any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_in_the_reply_to_commit_doubles_nothing_and_loses_nothing() {
    for Database { proxy, store, .. } in databases("cut").await {
        let (server, told) = (MailServer::start().await.unwrap(), Arc::new(Told::default()));
        // A claim whose answer is lost waits for the end of its lease.
        let options =
            Options { lease: Duration::from_secs(6), look: Duration::from_millis(50), ..Options::default() };
        let postroom = opened(store, Arc::new(smtp(PATIENCE)), told.clone(), options);
        linked(&postroom, "ACME", server.smtp_port(), 3).await;
        proxy.becomes(Network::CutsAnswer(b"COMMIT", 5));
        let _worker = worker(&postroom);
        let mut refused = 0;
        for number in 0..MAILS {
            let key = IdempotencyKey::parse(&format!("order {number}")).unwrap();
            let order = mail("ACME", &["ana@customer.example"]).with_idempotency_key(key);
            while postroom.submit(&order).await.is_err() {
                refused += 1;
            }
        }
        server.expect_accepted(MAILS, 2 * PATIENCE).await;
        all_accepted(&postroom).await;
        // The row says so before the worker knows: it asks once more what became of its settlement.
        let heard = async {
            while told.accepted.lock().unwrap().len() < MAILS {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.expect("somebody is told of each mail");
        assert!(told.accepted.lock().unwrap().values().all(|times| *times == 1), "told of each once");
        assert!(refused > 0 && proxy.struck() > 5, "{refused} of {} cuts met a submission", proxy.struck());
        assert!(told.failures.load(Ordering::SeqCst) > 0, "no cut met the worker");
        proxy.becomes(Network::Whole);
        let mails = queue(&postroom).await;
        assert_eq!((mails.len(), server.accepted_count()), (MAILS, MAILS), "each once");
        for item in &mails {
            assert_eq!(server.find_accepted_by_message_id(&item.message_id).len(), 1, "{item:?}");
        }
    }
}

/// The processor time of this thread, in hundredths of a second.
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    // The name of the program, in brackets, may hold spaces; user and system time are the 12th and 13th field behind it.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

// On one thread, so that its processor time is that of store, worker and proxy.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_database_that_is_gone_at_once_costs_no_processor_time_and_work_goes_on_when_it_is_back() {
    const GONE: Duration = Duration::from_secs(5);
    for Database { mut proxy, store, .. } in databases("gone").await {
        let (server, told) = (MailServer::start().await.unwrap(), Arc::new(Told::default()));
        let postroom = opened(store, Arc::new(smtp(PATIENCE)), told.clone(), Options::default());
        linked(&postroom, "ACME", server.smtp_port(), 3).await;
        let _worker = worker(&postroom);
        submit(&postroom, "ACME").await;
        server.expect_accepted(1, PATIENCE).await;
        for _ in 0..MAILS {
            submit(&postroom, "ACME").await;
        }
        proxy.leave().await;
        let before = ticks();
        tokio::time::sleep(GONE).await;
        let used = ticks() - before;
        assert!(told.failures.load(Ordering::SeqCst) > 0, "nobody was told");
        // A loop that asks without rest takes all 500; what is here takes a few.
        assert!(used < 125, "{used} hundredths of a second in {GONE:?}");
        println!("{used} hundredths of a second of processor time in {GONE:?} without a database");
        proxy.come_back().await;
        server.expect_accepted(MAILS + 1, 2 * PATIENCE).await;
        all_accepted(&postroom).await;
        assert_eq!(server.accepted_count(), MAILS + 1, "each once");
    }
}
