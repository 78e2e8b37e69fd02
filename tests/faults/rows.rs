//! A host on another driver: the statements that the manual's page `rows` prints are run as they stand there.

use std::sync::Arc;
use std::time::Duration;

use postroom::Options;
use postroom::core::queue::State;
use postroom::engine::NoObserver;
use postroom::storage::sqlx::{self, AssertSqlSafe, Connection, MySqlConnection, PgConnection};
use postroom::storage::{QueueDesk, Scope, Switch};
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

/// Would miss a column that a later release needs and does not fill by itself, and a page that names another column than the schema has; and a
/// worker that is already looking when the rows come, if the page forgot the bell.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_whose_rows_a_host_wrote_by_itself_is_sent_like_any_other() {
    for Database { url, store, .. } in databases("rows").await {
        let server = MailServer::start().await.unwrap();
        let postroom =
            opened(store, Arc::new(smtp(PATIENCE)), Arc::new(NoObserver::default()), Options::default());
        let outbox = linked(&postroom, "ACME", server.smtp_port(), 1).await;
        let (actor, acme) = (actor(), Scope::Contract(contract("ACME")));
        postroom.set_switch(&actor, &acme, Switch::Paused).await.unwrap();
        let _worker = worker(&postroom);
        let outbox = outbox.id.number();
        if url.starts_with("postgres") {
            let sql = AssertSqlSafe(statements("PostgreSQL", outbox));
            let mut host = PgConnection::connect(&url).await.unwrap();
            sqlx::raw_sql(sql).execute(&mut host).await.unwrap();
        } else {
            let sql = AssertSqlSafe(statements("MariaDB", outbox));
            let mut host = MySqlConnection::connect(&url).await.unwrap();
            sqlx::raw_sql(sql).execute(&mut host).await.unwrap();
        }
        // It waits for its contract like any other.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!((server.accepted_count(), queue(&postroom).await[0].state), (0, State::Queued), "{url}");
        postroom.set_switch(&actor, &acme, Switch::Running).await.unwrap();
        server.expect_accepted(1, PATIENCE).await;
        all_accepted(&postroom).await;
        let got = server.find_accepted_by_message_id("<order-7@acme.example>").pop().expect("it arrived");
        assert_eq!(
            (got.mail_from.as_str(), &got.recipients[..]),
            ("desk@acme.example", &["ana@customer.example".to_owned()][..])
        );
        let desk: &dyn QueueDesk = postroom.store();
        let id = queue(&postroom).await[0].id;
        let record = desk.show(id).await.unwrap().unwrap();
        assert_eq!((record.item.attempts, record.recipients.len()), (1, 1), "{record:?}");
    }
}
