//! What keeps the store flat: no statement of a worker walks over a table that grows with the mail. Asked of SQLite's own
//! planner, over the schema as it is.

use sqlx::{AssertSqlSafe, Row};

use super::ledger::{
    desk as ledger_desk, insert as ledger_insert, intake as ledger_intake, recognise as ledger_recognise,
    retention as ledger_retention, row as ledger_row, work as ledger_work,
};
use super::queue::{claim, desk, doubt, insert, intake, reroute, retention, row, work};
use super::store::SqliteStore;
use super::{
    audit, bodies, budgets, correspondents, events, forget, lanes, links, mailboxes, suppressions, watches,
};

/// The steps of a statement's plan.
async fn plan(store: &SqliteStore, sql: &str) -> Vec<String> {
    let mut read = store.connections.read("explain").await.unwrap();
    let rows =
        sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"))).fetch_all(&mut *read).await.unwrap();
    read.finish(Ok(rows.iter().map(|row| row.get(3)).collect())).await.unwrap()
}

#[tokio::test]
async fn no_statement_walks_over_a_table_that_grows() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plans.db").display().to_string();
    let store = SqliteStore::open(&file).await.unwrap();
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
        events::EVENTS,
        lanes::REFRESH,
        bodies::PIECE_OF,
        bodies::ORPHANS,
        bodies::REFERRED,
        reroute::FROZEN,
        retention::MAILBOXES,
        retention::TALLIES,
        correspondents::SENT_TO,
        correspondents::OVER,
        suppressions::STOPPED,
        suppressions::LISTS[0],
        suppressions::OVER,
        doubt::RESTORED,
        doubt::DOUBTS,
        intake::EXISTING,
        intake::KEYED,
        intake::BASIS,
        intake::QUEUED,
        intake::TODAY,
        intake::SENT,
        intake::SENT_TO,
        row::MAILS,
        budgets::OF,
        work::DUE_OUTBOXES,
        claim::DUE,
        lanes::LINES,
        lanes::LANES,
        lanes::SERVED,
        work::RENEW,
        work::OVERDUE,
        work::NEXT_DUE,
        work::OPEN_CLAIMS,
        desk::ONE,
        desk::TIMELINE,
        ledger_row::EDITS,
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
    statements.extend(ledger_insert::INSERT.split(';'));
    statements.extend(row::SAVE);
    statements.extend(insert::INSERT);
    statements.extend(desk::LISTS);
    statements.extend(ledger_desk::LISTS);
    statements.extend(ledger_retention::OVER);
    statements.extend(forget::RECEIVED);
    for sql in statements {
        let plan = plan(&store, sql).await;
        assert!(!walks(&plan), "{sql}\n{plan:#?}");
        // A share of the inboxes counts them.
        let counts = [watches::SHARE, watches::TAKE].contains(&sql);
        assert!(counts || !walks_over_a_kind(&plan), "{sql}\n{plan:#?}");
    }
    // What a call stores is found by its ids, however much waits in the same state.
    for sql in ledger_insert::INSERT.split(';') {
        let plan = plan(&store, sql).await;
        assert!(!plan.iter().any(|step| step.ends_with("(state=?)")), "{sql}\n{plan:#?}");
    }
    // Only the few rows that were found are sorted.
    for sql in [desk::LISTS.as_slice(), &ledger_desk::LISTS].concat() {
        let plan = plan(&store, sql).await;
        assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{sql}\n{plan:#?}");
    }
    // A claim seeks the outbox's own lines in the order of their turns, and in each the mail that waits longest, for each priority:
    // neither a deep backlog nor many contracts that have nothing due make it dearer.
    let claim = plan(&store, claim::DUE).await;
    for (slice, times) in [
        ("line_ready (outbox=? AND priority=? AND ready_at>? AND ready_at<?)", 3),
        ("open_waiting (outbox=? AND paused=? AND priority=? AND contract=? AND due_at<?)", 4),
    ] {
        assert_eq!(claim.iter().filter(|step| step.ends_with(slice)).count(), times, "{slice}: {claim:#?}");
    }
    // Retention hops over an index that holds only what it looks for.
    for (sql, index) in retention::OVER.into_iter().zip(["content", "done", "failed"]) {
        let plan = plan(&store, sql).await;
        let hops: Vec<_> = plan.iter().filter(|step| step.contains("postroom_queue_mail_")).collect();
        let which = format!("postroom_queue_mail_{index} (contract");
        assert!(hops.len() == 3 && hops.iter().all(|step| step.contains(&which)), "{plan:#?}");
    }
    // A mutant: lanes whose kind is asked of its index are found among all outboxes, and this test sees it.
    let spoilt = plan(&store, &lanes::REFRESH.replace("+m.kind", "m.kind")).await;
    assert!(walks_over_a_kind(&spoilt), "{spoilt:#?}");
    // The other: without its index this look-up walks over all mail, and this test sees it.
    let mut tx = store.connections.write("spoil").await.unwrap();
    sqlx::query("DROP INDEX postroom_queue_mail_message_id").execute(&mut *tx).await.unwrap();
    tx.finish(Ok(())).await.unwrap();
    // Plans are made by the schema that a connection has read, so a new one is asked.
    let store = SqliteStore::open(&file).await.unwrap();
    let spoilt = plan(&store, intake::SENT).await;
    assert!(walks(&spoilt), "{spoilt:#?}");
}

/// Whether a plan finds all mailboxes of a kind, to leave out those that were not asked for.
fn walks_over_a_kind(plan: &[String]) -> bool {
    plan.iter().any(|step| step.contains("postroom_mailbox_usable"))
}

/// Whether a plan walks over a table. A list that was bound, one row, the result of a subquery, the hops from mailbox to
/// mailbox and from contract to contract, and the claims that are open are no such table.
fn walks(plan: &[String]) -> bool {
    let is_small = |of: &str| {
        of.starts_with("j VIRTUAL TABLE")
            || of.starts_with("json_each VIRTUAL TABLE")
            || of.starts_with("CONSTANT ROW")
            || of.starts_with('(')
            || of == "box"
            || of == "due"
            || of == "r"
            || of == "lines"
            || of == "l"
            || of == "hop"
            || of.ends_with("_open_lease")
    };
    let scans = plan.iter().filter_map(|step| step.strip_prefix("SCAN ")).any(|of| !is_small(of));
    // An index that is built for the one statement walks over the table to build it.
    scans || plan.iter().any(|step| step.contains("AUTOMATIC"))
}
