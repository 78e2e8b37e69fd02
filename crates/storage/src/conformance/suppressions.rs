//! The clauses of what came back, of the suppression lists, and of budgets of correspondents.

use std::sync::Arc;

use postroom_core::message::Automation;
use postroom_core::queue::{Event, Prepared, Recipient, Role, State};
use postroom_core::suppression::{Cause, Suppression};

use super::fixture::{add, address, at, change, contract_id, enqueue, outbox, prepared, queue_id, to_many};
use super::queue::{claim_one, mark, settle, settlement, submit};
use super::subject::Subject;
use crate::Store;
use crate::budgets::{BudgetOwner, Budgets};
use crate::error::ErrorKind;
use crate::queue::{Enqueued, QueueDesk, QueueRecord, Settled};
use crate::suppressions::{Outcome, RecipientReport, SuppressionQuery};
use postroom_core::id::{EventNumber, MailboxId, QueueId};

async fn with_standard(subject: Subject) -> (Arc<dyn Store>, MailboxId) {
    let store = subject.store;
    let id = add(&store, outbox("mx.acme.example")).await;
    store.set_standard(&change(), Some(id)).await.expect("set_standard");
    (store, id)
}

/// A mail to `0@client.example` and `1@client.example`, of which these became.
async fn sent(store: &Arc<dyn Store>, outbox: MailboxId, number: u32, events: &[Event]) -> QueueId {
    let mail = to_many(prepared(store, number, "ACME").await, u32::try_from(events.len()).expect("small"));
    submit(store, &mail).await;
    let claimed = claim_one(store, 0, outbox).await;
    assert!(mark(store, 1, mail.id, claimed.claim).await);
    assert_eq!(settle(store, 2, &settlement(&claimed, 60, events)).await, Settled::Applied);
    mail.id
}

fn report(recipient: u32, outcome: Outcome) -> RecipientReport {
    RecipientReport { recipient, outcome, detail: "5.1.1: unknown".to_owned(), suppression: None }
}

fn entry(contract: &str, to: &str, cause: Cause, expires: Option<i64>) -> Suppression {
    Suppression {
        contract: contract_id(contract),
        address: address(to),
        cause,
        detail: "5.1.1: unknown".to_owned(),
        mail: Some(queue_id(1)),
        added_at: at(10),
        expires_at: expires.map(at),
    }
}

async fn show(store: &Arc<dyn Store>, id: QueueId) -> QueueRecord {
    QueueDesk::show(&**store, id).await.expect("show").expect("the mail is in the queue")
}

async fn states(store: &Arc<dyn Store>, id: QueueId) -> Vec<State> {
    show(store, id).await.recipients.into_iter().map(|one| one.state).collect()
}

async fn stopped(store: &Arc<dyn Store>, seconds: i64, contract: &str, to: &[&str]) -> Vec<String> {
    let to: Vec<_> = to.iter().map(|to| address(to)).collect();
    let found = store.suppressed(at(seconds), &contract_id(contract), &to).await.expect("suppressed");
    found.into_iter().map(|entry| entry.address.to_string()).collect()
}

pub(super) async fn what_came_back_is_bounced_and_told_once(subject: Subject) {
    let (store, outbox) = with_standard(subject).await;
    let id = sent(&store, outbox, 1, &[Event::Accept, Event::Accept]).await;
    assert!(store.report(at(10), id, &[report(1, Outcome::Bounced)]).await.expect("report"));
    assert_eq!(states(&store, id).await, [State::Accepted, State::Bounced]);
    let told = show(&store, id).await.timeline;
    let last = told.last().expect("an entry");
    assert_eq!((last.recipient, last.what.as_str(), last.state), (Some(1), "bounce", Some(State::Bounced)));
    assert_eq!((last.detail.as_str(), last.at), ("5.1.1: unknown", at(10)));
    // The mail may be fetched again when the row of the ledger was not committed.
    assert!(!store.report(at(11), id, &[report(1, Outcome::Bounced)]).await.expect("report"));
    assert_eq!(show(&store, id).await.timeline, told);
}

pub(super) async fn what_did_not_come_back_or_was_not_taken_changes_no_state(subject: Subject) {
    let (store, outbox) = with_standard(subject).await;
    let id = sent(&store, outbox, 1, &[Event::Accept, Event::Refuse]).await;
    let reports = [report(0, Outcome::Told), report(1, Outcome::Bounced), report(7, Outcome::Bounced)];
    assert!(!store.report(at(10), id, &reports).await.expect("report"));
    assert_eq!(states(&store, id).await, [State::Accepted, State::Refused]);
    let told = show(&store, id).await.timeline;
    let told: Vec<_> = told.iter().filter(|entry| entry.what == "report").collect();
    assert_eq!(
        told.iter().map(|entry| (entry.recipient, entry.state)).collect::<Vec<_>>(),
        [(Some(0), None), (Some(1), None)]
    );
}

pub(super) async fn what_was_in_doubt_and_came_back_is_bounced(subject: Subject) {
    let (store, outbox) = with_standard(subject).await;
    let id = sent(&store, outbox, 1, &[Event::Doubt]).await;
    assert!(store.report(at(10), id, &[report(0, Outcome::Bounced)]).await.expect("report"));
    assert_eq!(states(&store, id).await, [State::Bounced]);
    let told = show(&store, id).await.timeline;
    let words: Vec<_> = told.iter().rev().take(2).map(|entry| entry.what.as_str()).collect();
    assert_eq!(words, ["bounce", "accept"]);
}

pub(super) async fn a_report_on_a_mail_that_is_gone_is_not_found(subject: Subject) {
    let (store, _) = with_standard(subject).await;
    let refused = store.report(at(1), queue_id(9), &[report(0, Outcome::Bounced)]).await.expect_err("gone");
    assert_eq!(*refused.kind(), ErrorKind::NotFound);
}

/// A look-up that is too wide marks another mail as bounced.
pub(super) async fn a_sent_mail_is_found_by_its_recipient_within_its_contract_and_time(subject: Subject) {
    let (store, outbox) = with_standard(subject).await;
    let found = async |contract: &str, to: &str, since: i64| {
        let found = store.sent_to(&contract_id(contract), &address(to), at(since)).await.expect("sent_to");
        found.into_iter().map(|mail| mail.id).collect::<Vec<_>>()
    };
    let mixed = sent(&store, outbox, 1, &[Event::Accept, Event::Refuse]).await;
    submit(&store, &to_many(prepared(&store, 2, "ACME").await, 1)).await;
    assert_eq!(found("ACME", "0@Client.example", -1).await, [mixed], "that is queued has not gone");
    assert_eq!(found("ACME", "1@client.example", -1).await, [], "its server refused it");
    assert_eq!(found("acme", "0@client.example", -1).await, [], "another contract");
    assert_eq!(found("ACME", "0@client.example", 0).await, [], "not after that time");
    let claimed = claim_one(&store, 3, outbox).await;
    assert!(mark(&store, 3, claimed.id, claimed.claim).await);
    settle(&store, 3, &settlement(&claimed, 60, &[Event::Doubt])).await;
    assert_eq!(found("ACME", "0@client.example", -1).await.len(), 2, "it may have gone");
    // What bounced is still the mail that bounced.
    store.report(at(4), mixed, &[report(0, Outcome::Bounced)]).await.expect("report");
    assert_eq!(found("ACME", "0@client.example", -1).await.len(), 2);
    let third = sent(&store, outbox, 3, &[Event::Accept]).await;
    assert!(found("ACME", "0@client.example", -1).await.len() == 2, "{third} is one too many to tell");
}

pub(super) async fn a_bounce_stops_its_contracts_mail_until_it_expires(subject: Subject) {
    let (store, outbox) = with_standard(subject).await;
    let id = sent(&store, outbox, 1, &[Event::Accept]).await;
    let suppression = Some(entry("ACME", "ana@client.example", Cause::Bounce, Some(100)));
    let report = RecipientReport { suppression, ..report(0, Outcome::Bounced) };
    store.report(at(10), id, &[report]).await.expect("report");
    let to = ["Ana@Client.example", "bea@client.example"];
    assert_eq!(stopped(&store, 99, "ACME", &to).await, ["ana@client.example"]);
    assert_eq!(stopped(&store, 99, "acme", &to).await, [""; 0]);
    assert_eq!(stopped(&store, 100, "ACME", &to).await, [""; 0]);
    assert_eq!(stopped(&store, 99, "ACME", &[]).await, [""; 0]);
}

pub(super) async fn what_an_operator_said_no_bounce_changes(subject: Subject) {
    let (store, outbox) = with_standard(subject).await;
    let id = sent(&store, outbox, 1, &[Event::Accept]).await;
    let to = "ana@client.example";
    store.suppress(&change(), &entry("ACME", to, Cause::Allowed, None)).await.expect("suppress");
    let bounce = |expires| RecipientReport {
        suppression: Some(entry("ACME", to, Cause::Bounce, Some(expires))),
        ..report(0, Outcome::Bounced)
    };
    store.report(at(10), id, &[bounce(100)]).await.expect("report");
    assert_eq!(stopped(&store, 20, "ACME", &[to]).await, [""; 0], "an allowed address gets its mail");
    assert!(
        store.unsuppress(&change(), &contract_id("ACME"), &address("Ana@client.example")).await.expect("off")
    );
    assert!(!store.unsuppress(&change(), &contract_id("ACME"), &address(to)).await.expect("off"));
    store.report(at(10), id, &[bounce(100)]).await.expect("report");
    store.report(at(10), id, &[bounce(200)]).await.expect("report");
    assert_eq!(stopped(&store, 150, "ACME", &[to]).await, [to], "the newer one counts");
    store.suppress(&change(), &entry("ACME", to, Cause::Operator, None)).await.expect("suppress");
    store.report(at(10), id, &[bounce(300)]).await.expect("report");
    assert_eq!(stopped(&store, 400, "ACME", &[to]).await, [to]);
    let entries = store.entries(Some("suppression/ACME/ana@client.example"), EventNumber::new(0), 10).await;
    let actions: Vec<_> = entries.expect("entries").into_iter().map(|entry| entry.action).collect();
    assert_eq!(actions, ["set", "remove", "set"], "each order of an operator is audited, and nothing else");
}

pub(super) async fn suppressed_addresses_are_listed_by_contract_in_pages(subject: Subject) {
    let (store, _) = with_standard(subject).await;
    for (contract, to, expires) in [
        ("B", "a@x.example", None),
        ("A", "b@x.example", Some(50)),
        ("A", "a@x.example", None),
        ("A", "c@x.example", Some(100)),
    ] {
        store.suppress(&change(), &entry(contract, to, Cause::Operator, expires)).await.expect("suppress");
    }
    let all = store.suppressions(at(50), &SuppressionQuery::default()).await.expect("list");
    assert_eq!(all[1], entry("A", "c@x.example", Cause::Operator, Some(100)), "every field is kept");
    let of = |all: &[Suppression]| {
        all.iter().map(|one| format!("{} {}", one.contract, one.address)).collect::<Vec<_>>()
    };
    assert_eq!(of(&all), ["A a@x.example", "A c@x.example", "B a@x.example"]);
    let mut query = SuppressionQuery { limit: Some(1), ..SuppressionQuery::default() };
    for contract in [None, Some(contract_id("A"))] {
        query = SuppressionQuery { contract, after: None, ..query };
        let mut pages = Vec::new();
        loop {
            let page = store.suppressions(at(50), &query).await.expect("list");
            let Some(last) = page.last() else { break };
            query.after = Some((last.contract.clone(), last.address.clone()));
            pages.extend(page);
        }
        let wanted: Vec<_> = all
            .iter()
            .filter(|one| query.contract.as_ref().is_none_or(|id| *id == one.contract))
            .cloned()
            .collect();
        assert_eq!(pages, wanted);
    }
    let behind = Some((contract_id("B"), address("a@x.example")));
    let query = SuppressionQuery { contract: Some(contract_id("A")), after: behind, limit: None };
    assert_eq!(store.suppressions(at(50), &query).await.expect("list"), []);
}

pub(super) async fn the_lists_survive_a_reopening(subject: Subject) {
    let store = &subject.store;
    let id = add(store, outbox("mx.acme.example")).await;
    store.set_standard(&change(), Some(id)).await.expect("set_standard");
    store
        .suppress(&change(), &entry("ACME", "ana@client.example", Cause::Operator, None))
        .await
        .expect("suppress");
    for number in 1..=2 {
        submit(store, &automatic(store, number, "ana@client.example").await).await;
    }
    let store = subject.restarted().await;
    assert_eq!(stopped(&store, 20, "ACME", &["ana@client.example"]).await, ["ana@client.example"]);
    let third = automatic(&store, 3, "ana@client.example").await;
    let refused = enqueue(&store, &third).await.expect_err("the budget was on the medium");
    assert!(matches!(refused.kind(), ErrorKind::Budget { most: 2, .. }), "{refused}");
}

async fn automatic(store: &Arc<dyn Store>, number: u32, to: &str) -> Prepared {
    let mut mail = prepared(store, number, "ACME").await;
    mail.recipients = vec![Recipient::new(address(to), Role::To)];
    mail.automatic = Some(Automation::Reply);
    mail
}

async fn enqueue_at(store: &Arc<dyn Store>, hours: i64, mail: &Prepared) -> crate::Result<Enqueued> {
    let mut mail = mail.clone();
    mail.expires_at = at(hours * 3600 + 5 * 24 * 3600);
    store.enqueue(at(hours * 3600), &mail, super::fixture::content(&mail)).await
}

pub(super) async fn a_correspondent_gets_two_automatic_mails_an_hour_and_four_a_day(subject: Subject) {
    let (store, _) = with_standard(subject).await;
    // However the peer writes his address.
    for (number, to) in [(1, "ana@client.example"), (2, "Ana+7@client.example")] {
        enqueue_at(&store, 0, &automatic(&store, number, to).await).await.expect("within the budget");
    }
    let third = automatic(&store, 3, "ana+8@Client.example").await;
    let refused = enqueue_at(&store, 0, &third).await.expect_err("the third in an hour");
    let kind = |within, most, again| ErrorKind::Budget {
        correspondent: "ana+8@client.example".to_owned(),
        most,
        within,
        again: at(again),
    };
    assert_eq!(*refused.kind(), kind("hour", 2, 3600));
    assert!(QueueDesk::show(&*store, third.id).await.expect("show").is_none(), "nothing is queued");
    // The same mail again is that mail, and others are not concerned.
    assert!(matches!(
        enqueue_at(&store, 0, &automatic(&store, 2, "ana@client.example").await).await,
        Ok(Enqueued::Existing(_))
    ));
    enqueue_at(&store, 0, &automatic(&store, 4, "bea@client.example").await)
        .await
        .expect("another correspondent");
    let mut person = automatic(&store, 5, "ana@client.example").await;
    person.automatic = None;
    enqueue_at(&store, 0, &person).await.expect("a person's mail is not counted");
    for number in [6, 7] {
        enqueue_at(&store, 1, &automatic(&store, number, "ana@client.example").await)
            .await
            .expect("an hour later");
    }
    let refused = enqueue_at(&store, 3, &automatic(&store, 8, "ana+8@client.example").await).await;
    assert_eq!(*refused.expect_err("the fifth in a day").kind(), kind("day", 4, 24 * 3600));
    let owner = BudgetOwner::Correspondent(contract_id("ACME"), address("ana@client.example"));
    let view = Budgets::budget(&*store, at(3 * 3600), &owner).await.expect("budget");
    assert_eq!(view.limits.iter().map(|used| (used.most, used.used)).collect::<Vec<_>>(), [(2, 0), (4, 4)]);
    assert_eq!(view.waits.map(|wait| wait.until), Some(at(24 * 3600)));
    // What counts no more is removed, and what counts is not.
    QueueDesk::prune(&*store, at(24 * 3600), 100).await.expect("prune");
    enqueue_at(&store, 24, &automatic(&store, 9, "ana@client.example").await).await.expect("a day later");
    enqueue_at(&store, 24, &automatic(&store, 10, "ana@client.example").await).await.expect("a day later");
    assert!(enqueue_at(&store, 24, &automatic(&store, 11, "ana@client.example").await).await.is_err());
}

/// Whoever counts first and inserts then, without a lock between, lets all of them in.
pub(super) async fn automatic_mails_at_once_share_one_budget(subject: Subject) {
    let (store, _) = with_standard(subject).await;
    let mut mails = Vec::new();
    for number in 1..=6 {
        mails.push(automatic(&store, number, "ana@client.example").await);
    }
    let [a, b, c, d, e, f] = [0, 1, 2, 3, 4, 5].map(|n| enqueue(&store, &mails[n]));
    let (a, b, c, d, e, f) = tokio::join!(a, b, c, d, e, f);
    let all = [a, b, c, d, e, f];
    assert_eq!(all.iter().filter(|one| one.is_ok()).count(), 2, "{all:?}");
    assert!(
        all.iter()
            .flat_map(|one| one.as_ref().err())
            .all(|error| matches!(error.kind(), ErrorKind::Budget { .. }))
    );
    let mut two = automatic(&store, 7, "bea@client.example").await;
    two.recipients.push(Recipient::new(address("ana@client.example"), Role::Cc));
    let refused = enqueue(&store, &two).await.expect_err("one of its recipients had enough");
    assert!(refused.to_string().contains("ana@client.example"), "{refused}");
}
