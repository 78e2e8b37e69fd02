//! A host on another driver: the statements that the manual's page `rows` prints are run as they stand there.

use std::sync::Arc;
use std::time::Duration;

use postroom::Options;
use postroom::core::queue::State;
use postroom::engine::NoObserver;
use postroom::storage::sqlx::{self, AssertSqlSafe, Connection, MySqlConnection, PgConnection};
use postroom::storage::{Scope, Switch};
use postroom_testkit::MailServer;

use crate::databases::{Database, all_accepted, databases, worker};
use crate::house::{PATIENCE, actor, contract, linked, opened, queue, smtp};

/// What the page says for a database, about this outbox.
fn statements(title: &str, outbox: i64) -> String {
    let page = include_str!("../../crates/postroom/manual/rows.md");
    let (_, section) = page.split_once(&format!("## {title}\n")).expect("the section");
    let (_, fence) = section.split_once("```sql\n").expect("its statements");
    let (sql, _) = fence.split_once("```").expect("their end");
    assert!(sql.contains("m.id = 1 "), "{sql}");
    sql.replace("m.id = 1 ", &format!("m.id = {outbox} "))
}

async fn write(url: &str, outbox: i64, order: u32) {
    let title = if url.starts_with("postgres") { "PostgreSQL" } else { "MariaDB" };
    let sql = statements(title, outbox).replace("order-7@", &format!("order-{order}@"));
    let sql = AssertSqlSafe(sql.replace("0193a000-0000-7000", &format!("0193a000-{order:04}-7000")));
    if url.starts_with("postgres") {
        let mut host = PgConnection::connect(url).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut host).await.unwrap();
    } else {
        let mut host = MySqlConnection::connect(url).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut host).await.unwrap();
    }
}

/// Would miss a column that a later release needs and does not fill by itself, a page that names another column than the schema has, and one
/// that forgets the bell: a worker is looking already when the rows come. Seen to fail without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_whose_rows_a_host_wrote_by_itself_is_sent_like_any_other() {
    for Database { url, store, .. } in databases("rows").await {
        let server = MailServer::start().await.unwrap();
        let postroom =
            opened(store, Arc::new(smtp(PATIENCE)), Arc::new(NoObserver::default()), Options::default());
        let outbox = linked(&postroom, "ACME", server.smtp_port(), 1).await.id.number();
        let _worker = worker(&postroom);
        // What the worker found on its first look is behind it.
        tokio::time::sleep(Duration::from_secs(2)).await;
        write(&url, outbox, 7).await;
        server.expect_accepted(1, PATIENCE).await;
        all_accepted(&postroom).await;
        let got = server.find_accepted_by_message_id("<order-7@acme.example>").pop().expect("it arrived");
        assert_eq!(got.mail_from, "desk@acme.example");
        assert_eq!(got.recipients, ["ana@customer.example"]);
        // It waits for its contract like any other.
        let (actor, acme) = (actor(), Scope::Contract(contract("ACME")));
        postroom.set_switch(&actor, &acme, Switch::Paused).await.unwrap();
        write(&url, outbox, 8).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!((server.accepted_count(), queue(&postroom).await[1].state), (1, State::Queued), "{url}");
        postroom.set_switch(&actor, &acme, Switch::Running).await.unwrap();
        server.expect_accepted(2, PATIENCE).await;
        all_accepted(&postroom).await;
    }
}
