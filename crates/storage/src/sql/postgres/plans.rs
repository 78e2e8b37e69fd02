//! What keeps the store flat: no statement walks over a table that grows with the mail. Asked of PostgreSQL's own planner, over the
//! schema as it is, with the settings of the store's sessions; empty tables are where a planner is most tempted to walk.

use sqlx::AssertSqlSafe;

use super::ledger::{
    desk as ledger_desk, insert as ledger_insert, intake as ledger_intake, recognise as ledger_recognise,
    retention as ledger_retention, row as ledger_row, work as ledger_work,
};
use super::queue::{claim, desk, doubt, insert, intake, reroute, retention, row, work};
use super::store::PgStore;
use super::{
    audit, bodies, budgets, correspondents, events, faults, forget, lanes, links, mailboxes, suppressions,
    switches, watches,
};

/// The plan of a statement, as it is made once for all its parameters.
async fn plan(store: &PgStore, sql: &str) -> Vec<String> {
    let mut tx = store.connections.write("explain", "BEGIN").await.unwrap();
    // PREPARE takes no gaps between the parameters' numbers.
    let used: Vec<usize> = (1..=60).filter(|number| sql.contains(&format!("${number}"))).collect();
    let mut sql = sql.to_owned();
    for (place, number) in (1..).zip(&used).filter(|(place, number)| place != *number) {
        sql = sql.replace(&format!("${number}"), &format!("${place}"));
    }
    let parameters = used.len();
    let prepare = format!("PREPARE asked AS {sql}");
    sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *tx).await.unwrap();
    let nulls = vec!["NULL"; parameters].join(", ");
    let arguments = if parameters == 0 { String::new() } else { format!("({nulls})") };
    let explain = format!("EXPLAIN (COSTS OFF) EXECUTE asked{arguments}");
    let rows = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&mut *tx).await.unwrap();
    sqlx::raw_sql("DEALLOCATE asked").execute(&mut *tx).await.unwrap();
    tx.finish(Ok(())).await.unwrap();
    rows.iter().map(|row| sqlx::Row::get::<String, _>(row, 0).trim().to_owned()).collect()
}

#[tokio::test]
async fn no_statement_walks_over_a_table_that_grows() {
    let Some((store, _)) = faults::fixture::store().await else { return };
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
        lanes::RING_CONTRACT,
        lanes::LINES,
        lanes::LANES,
        events::EVENTS,
        bodies::INSERT_PIECE,
        bodies::PIECE_OF,
        bodies::ORPHANS,
        switches::PAUSE,
        intake::BASIS,
        intake::QUEUED,
        bodies::REFERRED,
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
        intake::TODAY,
        intake::EXISTING,
        insert::INSERT,
        intake::SENT,
        intake::SENT_TO,
        row::OPEN,
        row::FINISHED,
        row::MAILS,
        row::SAVE,
        work::DUE_OUTBOXES,
        claim::DUE,
        work::RENEW,
        work::OVERDUE,
        work::NEXT_DUE,
        work::OPEN_CLAIMS,
        desk::ONE,
        desk::TIMELINE,
        ledger_row::LOCK,
        ledger_row::EDITS,
        ledger_insert::INSERT,
        ledger_intake::LATEST,
        ledger_intake::CONTACT,
        ledger_intake::LOOK,
        ledger_intake::UNKNOWN,
        ledger_recognise::SAME,
        ledger_recognise::TWINS_OF,
        ledger_intake::UNSETTLED,
        ledger_intake::SETTLED,
        ledger_work::DUE,
        ledger_work::COMPLETED,
        ledger_work::RENEW,
        ledger_work::NEXT_DUE,
        ledger_work::OPEN_CLAIMS,
        ledger_desk::ONE,
        ledger_retention::TOLD,
        ledger_retention::STRIPPED,
        ledger_retention::EMPTIED,
        ledger_desk::TIMELINE,
        watches::SHARE,
        watches::TAKE,
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
    statements.extend(retention::OVER);
    statements.extend(retention::REMOVE);
    statements.extend(desk::LISTS);
    statements.extend(ledger_desk::LISTS);
    statements.extend(ledger_retention::OVER);
    statements.extend(forget::RECEIVED);
    let mut bad = Vec::new();
    for sql in statements {
        let plan = plan(&store, sql).await;
        if walks(&plan) {
            bad.push(format!("{sql}\n{plan:#?}"));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n\n"));
    // Only the few rows that were found are sorted.
    for sql in [desk::LISTS.as_slice(), &ledger_desk::LISTS].concat() {
        let plan = plan(&store, sql).await;
        assert!(!plan.iter().any(|step| step.contains("Sort")), "{sql}\n{plan:#?}");
    }
    // A claim takes a slice of each line, in the order in which it lies there: no line is walked over for another's mail.
    for (sql, looks) in [(claim::DUE, 4), (work::DUE_OUTBOXES, 1), (lanes::LINES, 1)] {
        let plan = plan(&store, sql).await;
        let slices = plan.iter().filter(|step| {
            step.starts_with("Index Cond: ((outbox = ")
                && step.contains("(contract = ")
                && step.contains("(priority = ")
        });
        assert!(slices.count() >= looks, "{sql}\n{plan:#?}");
        let walked = plan.iter().any(|step| step.starts_with("Join Filter:") && step.contains("contract"));
        assert!(!walked, "{sql}\n{plan:#?}");
    }
    // The mutant: without its index this look-up walks over all mail, and this test sees it.
    let mut tx = store.connections.write("spoil", "BEGIN").await.unwrap();
    sqlx::query("DROP INDEX postroom_queue_mail_message_id").execute(&mut *tx).await.unwrap();
    tx.finish(Ok(())).await.unwrap();
    let spoilt = plan(&store, intake::SENT).await;
    assert!(walks(&spoilt), "{spoilt:#?}");
}

/// Whether a plan walks over a table: from its first row to its last, or over an index without a condition on it. Excepted are the
/// claims that are open, which are few; the bells, which are taken from the front; and pages, which end at their limit.
fn walks(plan: &[String]) -> bool {
    plan.iter().enumerate().any(|(place, step)| {
        let conditioned = plan.get(place + 1).is_some_and(|next| next.starts_with("Index Cond:"));
        let is_index = step.contains("Index Scan") || step.contains("Index Only Scan");
        let is_small = ["_open_lease", "postroom_queue_bell", "postroom_health_pkey"]
            .iter()
            .any(|small| step.contains(small));
        step.contains("Seq Scan on") || is_index && !conditioned && !is_small
    })
}
