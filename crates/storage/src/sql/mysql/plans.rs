//! What keeps the store flat: no statement walks over a table that grows with the mail. Asked of MariaDB's own planner, over the
//! schema as it is, with the settings of the store's sessions, while there are a few mails: nearly empty tables are where a planner is
//! most tempted to walk.

use bytes::Bytes;
use sqlx::{AssertSqlSafe, Row};

use super::failed::{code, failed, unavailable};
use super::ledger::{
    desk as ledger_desk, insert as ledger_insert, intake as ledger_intake, recognise as ledger_recognise,
    retention as ledger_retention, row as ledger_row, work as ledger_work,
};
use super::queue::{claim, desk, doubt, insert, intake, reroute, retention, row, work};
use super::store::MySqlStore;
use super::{
    audit, bodies, budgets, correspondents, events, faults, forget, lanes, links, locks, mailboxes,
    suppressions, switches, watches,
};
use crate::clock::Clock;
use crate::queue::QueueIntake;

/// A table in a plan: its name or alias, how it is read, by which index, and what else is done.
#[derive(Debug)]
struct Step {
    table: String,
    how: String,
    index: String,
    extra: String,
}

/// The plan of a statement, with something in place of each parameter.
async fn plan(store: &MySqlStore, sql: &str) -> Vec<Step> {
    let sql = sql.replace("LIMIT ?", "LIMIT 10").replace("JSON_TABLE(?", "JSON_TABLE('[[\"1\"]]'");
    let explain = format!("EXPLAIN {}", sql.replace('?', "'1'"));
    let mut tx = store.connections.write("explain").await.unwrap();
    let rows = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&mut *tx).await;
    let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error}"));
    tx.finish(Ok(())).await.unwrap();
    let cell =
        |row: &sqlx::mysql::MySqlRow, name: &str| row.get::<Option<String>, _>(name).unwrap_or_default();
    let step = |row: &sqlx::mysql::MySqlRow| Step {
        table: cell(row, "table"),
        how: cell(row, "type"),
        index: cell(row, "key"),
        extra: cell(row, "Extra"),
    };
    rows.iter().map(step).collect()
}

/// What MariaDB says when a prepared statement is executed three times, each with 1 for each parameter, and taken back.
async fn repeated(store: &MySqlStore, sql: &'static str) -> Vec<Option<u16>> {
    let mut tx = store.connections.write("repeat").await.unwrap();
    let mut said = Vec::new();
    for _ in 0..3 {
        sqlx::raw_sql("SAVEPOINT again").execute(&mut *tx).await.unwrap();
        let mut query = sqlx::query(sql);
        for _ in sql.matches('?') {
            query = query.bind(1i64);
        }
        let done = query.fetch_all(&mut *tx).await.map_err(failed("repeat"));
        said.push(done.err().map(|error| code(&error).unwrap_or_default()));
        sqlx::raw_sql("ROLLBACK TO SAVEPOINT again").execute(&mut *tx).await.unwrap();
    }
    tx.finish(Err::<(), _>(unavailable("repeat"))).await.unwrap_err();
    said
}

/// Whether a plan walks over a table: from its first row to its last, or over an index without a condition on it. Excepted are the
/// rows of a parameter and of a part of the statement; the bells, which are taken from the front; and the primary key of a list, which
/// ends at its limit.
fn walks(plan: &[Step]) -> bool {
    plan.iter().any(|step| {
        let is_whole = ["ALL", "index"].contains(&step.how.as_str());
        let is_made = step.extra.contains("Table function") || step.table.starts_with('<');
        let is_bell = step.table == "postroom_queue_bell";
        is_whole && !is_made && !is_bell
    })
}

#[tokio::test]
async fn no_statement_walks_over_a_table_that_grows() {
    let Some((store, _)) = faults::fixture::store().await else { return };
    let outbox = faults::fixture::registered(&store).await;
    for _ in 0..5 {
        let mail = faults::fixture::prepared(store.now(), &outbox);
        store.enqueue(store.now(), &mail, Bytes::from_static(b"x")).await.unwrap();
    }
    lanes::answer(&store.connections).await.unwrap();
    let mut statements = vec![
        mailboxes::BY_ID,
        mailboxes::COMPANIONS,
        links::CONTRACT,
        links::CONTRACTS,
        links::CONTRACTS_OF,
        links::STEP,
        links::STEPS,
        audit::ALL,
        audit::OF_SUBJECT,
        lanes::RING,
        lanes::IS_RUNG,
        lanes::BELLS,
        lanes::TAKE,
        lanes::RING_CONTRACT,
        lanes::LINES,
        lanes::LANES,
        events::EVENTS,
        events::NEW,
        events::GIVE,
        locks::EXCLUSIVE,
        locks::SHARED,
        bodies::PIECE_OF,
        bodies::ORPHANS,
        bodies::REFERRED,
        switches::PAUSE,
        intake::BASIS,
        intake::QUEUED,
        intake::TODAY,
        intake::EXISTING,
        intake::KEYED,
        intake::SENT,
        intake::SENT_TO,
        insert::KEYS,
        insert::TAKEN,
        reroute::FROZEN,
        doubt::RESTORED,
        doubt::DOUBTS,
        retention::MAILBOXES,
        retention::TALLIES,
        correspondents::SENT_TO,
        correspondents::OVER,
        suppressions::STOPPED,
        suppressions::LISTS[0],
        suppressions::OVER,
        budgets::OF,
        row::MAILS,
        row::FINISHED,
        row::RECIPIENTS,
        work::DUE_OUTBOXES,
        claim::OPEN_OUTBOX,
        claim::DUE_LINES,
        claim::DUE_MAILS,
        claim::FROZEN,
        work::MINE,
        work::RENEW,
        work::OVERDUE,
        work::NEXT_DUE,
        work::OPEN_CLAIMS,
        desk::ONE,
        desk::TIMELINE,
        ledger_row::NUMBERS,
        ledger_row::LOCK,
        ledger_row::EDITS,
        ledger_intake::LATEST,
        ledger_intake::CONTACT,
        ledger_intake::LOOK,
        ledger_intake::UNKNOWN,
        ledger_recognise::SAME,
        ledger_recognise::TWINS_OF,
        ledger_intake::UNSETTLED,
        ledger_intake::UNTOLD,
        ledger_intake::SETTLED,
        ledger_work::DUE,
        ledger_work::COMPLETED,
        ledger_work::MINE,
        ledger_work::RENEW,
        ledger_work::NEXT_DUE,
        ledger_work::OPEN_CLAIMS,
        ledger_desk::ONE,
        ledger_retention::TOLD,
        ledger_retention::STRIPPED,
        ledger_retention::EMPTIED,
        ledger_desk::TIMELINE,
        watches::SHARE,
        watches::DUE,
        watches::FENCES,
        watches::READ,
        watches::HELD,
        watches::RELEASE,
        forget::SENT,
        forget::NOBODY,
        forget::KEY_LEFT,
        forget::LISTED,
        forget::WAITING,
    ];
    statements.extend(mailboxes::USES);
    statements.extend(retention::OVER.into_iter().flatten());
    statements.extend(retention::REMOVE);
    statements.extend(row::SAVE);
    statements.extend(insert::INSERT);
    statements.extend([ledger_insert::MAILS, ledger_insert::OPEN]);
    statements.extend(desk::LISTS);
    statements.extend(ledger_desk::LISTS);
    statements.extend(ledger_retention::OVER.into_iter().flatten());
    statements.extend(forget::RECEIVED);
    let mut bad = Vec::new();
    for sql in statements {
        let said = repeated(&store, sql).await;
        assert!(said.iter().all(|one| *one == said[0]), "{sql}\n{said:?}");
        let plan = plan(&store, sql).await;
        if walks(&plan) {
            let steps = plan.iter().map(|step| format!("{step:?}\n")).collect::<String>();
            bad.push(format!("{sql}\n{steps}"));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n\n"));
    // Only the few rows that were found are sorted, and nothing is kept aside.
    let ordered = [claim::DUE_MAILS, claim::DUE_LINES, work::DUE_OUTBOXES, events::NEW, events::EVENTS];
    for sql in [ordered.as_slice(), desk::LISTS.as_slice(), &ledger_desk::LISTS].concat() {
        let plan = plan(&store, sql).await;
        let sorts =
            plan.iter().any(|step| step.extra.contains("filesort") || step.extra.contains("temporary"));
        assert!(!sorts, "{sql}\n{plan:#?}");
    }
    // A claim takes a slice of each line, in the order in which it lies there.
    for sql in [claim::DUE_MAILS, claim::DUE_LINES, work::DUE_OUTBOXES, lanes::LINES] {
        let plan = plan(&store, sql).await;
        assert!(plan.iter().any(|step| step.index == "postroom_queue_open_waiting"), "{sql}\n{plan:#?}");
    }
    // The mutant: a claim that asks for what no index holds walks over all mail, and this test sees it.
    let naive = "SELECT mail FROM postroom_queue_open WHERE outbox = ? AND claim IS NULL AND state = 'queued'
        ORDER BY due_at LIMIT ?";
    let naive = naive.replace("outbox = ?", "outbox + 0 = ?");
    let spoilt = plan(&store, &naive).await;
    assert!(walks(&spoilt), "{spoilt:#?}");
}
