//! The clauses of the queue's ports: intake, work, desk.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postroom_core::contract::Contract;
use postroom_core::id::{ClaimId, ContractId, LedgerId, MailboxId, QueueId, RecordId};
use postroom_core::mailbox::Status;
use postroom_core::message::{OnDoubt, Priority, Submission};
use postroom_core::queue::{Event, Prepared, Recipient, Role, State};
use postroom_core::resolve::{Reason, WhenUnavailable};
use postroom_core::step::Step;
use postroom_core::time::Timestamp;

use super::fixture::{
    actor, add, address, at, change, content, contract_id, enqueue, keyed, kind, outbox, prepared,
    prepared_for, queue_id, save_contract, save_step, step_key, to_many, worker,
};
use super::subject::Subject;
use crate::Store;
use crate::bodies::PIECE;
use crate::error::ErrorKind;
use crate::queue::{
    Attempt, ClaimMark, Claimed, Enqueued, QueueDesk, QueueQuery, QueueRecord, QueueWork, RecipientResult,
    SentMail, Settled, Settlement, Sweep,
};
use crate::registry::{Scope, SecretWrite, Sign, Switch};

/// A store whose Standard is an active outbox.
async fn with_standard(subject: Subject) -> (Arc<dyn Store>, MailboxId) {
    let store = subject.store;
    let standard = set_up(&store).await;
    (store, standard)
}

async fn set_up(store: &Arc<dyn Store>) -> MailboxId {
    let id = add(store, outbox("mx.acme.example")).await;
    store.set_standard(&change(), Some(id)).await.expect("set_standard");
    id
}

pub(super) async fn submit(store: &Arc<dyn Store>, mail: &Prepared) -> QueueId {
    assert_eq!(enqueue(store, mail).await.expect("enqueue"), Enqueued::New(mail.id));
    mail.id
}

pub(super) async fn claim_at(
    store: &Arc<dyn Store>,
    seconds: i64,
    outbox: MailboxId,
    limit: u32,
    by: u8,
) -> Vec<Claimed> {
    let (now, until) = (at(seconds), at(seconds + 30));
    QueueWork::claim(&**store, now, outbox, limit, worker(by), until).await.expect("claim")
}

pub(super) async fn claim_one(store: &Arc<dyn Store>, seconds: i64, outbox: MailboxId) -> Claimed {
    let mut claimed = claim_at(store, seconds, outbox, 1, 1).await;
    claimed.pop().expect("a mail is due")
}

pub(super) async fn mark(store: &Arc<dyn Store>, seconds: i64, id: QueueId, claim: ClaimId) -> bool {
    let marked = store.mark(at(seconds), &[ClaimMark { id, claim }]).await.expect("mark");
    assert_eq!(marked.len(), 1);
    marked[0]
}

fn results(events: &[Event]) -> Vec<RecipientResult> {
    let result = |(recipient, event): (u32, &Event)| RecipientResult {
        recipient,
        event: *event,
        detail: format!("the server said {event}"),
    };
    (0..).zip(events).map(result).collect()
}

pub(super) fn settlement(claimed: &Claimed, due: i64, events: &[Event]) -> Settlement {
    Settlement {
        id: claimed.id,
        claim: claimed.claim,
        results: results(events),
        due_at: at(due),
        attempt: Attempt::Spent,
    }
}

pub(super) async fn settle(store: &Arc<dyn Store>, seconds: i64, settlement: &Settlement) -> Settled {
    let settled = store.settle(at(seconds), std::slice::from_ref(settlement)).await.expect("settle");
    assert_eq!(settled.len(), 1);
    settled[0]
}

async fn show(store: &Arc<dyn Store>, id: QueueId) -> QueueRecord {
    QueueDesk::show(&**store, id).await.expect("show").expect("the mail is in the queue")
}

async fn states(store: &Arc<dyn Store>, id: QueueId) -> Vec<State> {
    show(store, id).await.recipients.iter().map(|one| one.state).collect()
}

async fn told(store: &Arc<dyn Store>, id: QueueId) -> Vec<String> {
    show(store, id).await.timeline.into_iter().map(|entry| entry.what).collect()
}

async fn listed(store: &Arc<dyn Store>, query: QueueQuery) -> Vec<QueueId> {
    let items = QueueDesk::list(&**store, &query).await.expect("list");
    items.into_iter().map(|item| item.id).collect()
}

pub(super) async fn next_due(store: &Arc<dyn Store>, seconds: i64) -> Option<Timestamp> {
    QueueWork::next_due(&**store, at(seconds)).await.expect("next_due")
}

async fn open_claims(store: &Arc<dyn Store>) -> u64 {
    QueueWork::open_claims(&**store).await.expect("open_claims")
}

async fn decide(store: &Arc<dyn Store>, seconds: i64, id: QueueId, event: Event) -> crate::Result<()> {
    store.decide(at(seconds), &actor(), id, event).await
}

/// A mail that crossed under a claim of worker 1 which ran out at second 30.
async fn doubted(store: &Arc<dyn Store>, outbox: MailboxId, mail: &Prepared) -> Claimed {
    submit(store, mail).await;
    let claimed = claim_one(store, 0, outbox).await;
    assert!(mark(store, 1, claimed.id, claimed.claim).await);
    let sweep = store.expire(at(30)).await.expect("expire");
    assert_eq!(sweep, Sweep { doubted: 1, ..Sweep::default() });
    claimed
}

pub(super) async fn a_submitted_mail_is_shown_with_every_field(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    save_step(&store, &Step::new(step_key("F", "S"))).await;
    let step = Some(step_key("F", "S"));
    let mut mail = prepared_for(&store, 1, "ACME", step, WhenUnavailable::Refuse).await;
    mail.recipients.push(Recipient::new(address("b@client.example"), Role::Bcc));
    mail.record = Some(RecordId::parse("INC 7").expect("a valid id"));
    mail.in_reply_to = Some(LedgerId::from_uuid(queue_id(9).uuid()));
    mail.not_before = Some(at(60));
    let id = submit(&store, &mail).await;
    let shown = show(&store, id).await;
    let item = &shown.item;
    assert_eq!((item.id, item.state, item.attempts), (id, State::Queued, 0));
    assert_eq!((&item.contract, &item.step, item.outbox), (&mail.contract, &mail.step, standard));
    assert_eq!((&item.sender, &item.reasons), (&mail.resolution.sender, &mail.resolution.reasons));
    assert_eq!((&item.subject, &item.message_id), (&mail.subject, &mail.message_id));
    assert_eq!((&item.record, item.in_reply_to), (&mail.record, mail.in_reply_to));
    assert_eq!((item.created_at, item.due_at), (at(0), Some(at(60))));
    assert_eq!(item.expires_at, mail.expires_at);
    let recipients: Vec<_> = shown.recipients.iter().map(|one| one.recipient.clone()).collect();
    assert_eq!(recipients, mail.recipients);
    let first = &shown.timeline[..];
    assert_eq!((first.len(), first[0].what.as_str(), first[0].state), (1, "queued", Some(State::Queued)));
    assert_eq!((first[0].at, &first[0].actor, first[0].recipient), (at(0), &None, None));
    for part in [standard.to_string(), "desk@acme.example".to_owned(), Reason::Standard.to_string()] {
        assert!(first[0].detail.contains(&part), "{} says nothing of {part}", first[0].detail);
    }
    let items = QueueDesk::list(&*store, &QueueQuery::default()).await.expect("list");
    assert_eq!(items, [shown.item]);
    assert!(QueueDesk::show(&*store, queue_id(99)).await.expect("show").is_none());
}

pub(super) async fn a_content_is_kept_in_pieces(subject: Subject) {
    let (store, _) = with_standard(subject).await;
    let pattern = || (0..=250_u8).cycle();
    for (number, size) in [(1, 0), (2, 1), (3, PIECE), (4, PIECE + 1), (5, 3 * PIECE - 1)] {
        let bytes: Vec<u8> = pattern().take(size).collect();
        let mail = prepared(&store, number, "ACME").await;
        store.enqueue(at(0), &mail, Bytes::from(bytes.clone())).await.expect("enqueue");
        let body = show(&store, mail.id).await.body.expect("a new mail has its content");
        let mut kept = Vec::new();
        for piece in 0..10 {
            let Some(piece) = store.piece(body, piece).await.expect("piece") else { break };
            assert!(!piece.is_empty() && piece.len() <= PIECE, "{} bytes are no piece", piece.len());
            kept.extend(piece);
        }
        assert!(kept == bytes, "{size} bytes came back as other {} bytes", kept.len());
    }
}

pub(super) async fn a_repeated_id_is_the_same_mail(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mail = prepared(&store, 1, "ACME").await;
    submit(&store, &mail).await;
    let mut disabled = store.mailbox(standard).await.expect("mailbox").expect("it is registered");
    disabled.status = Status::Disabled;
    store.save(&change(), &disabled, SecretWrite::Keep).await.expect("save");
    assert_eq!(enqueue(&store, &mail).await.expect("enqueue"), Enqueued::Existing(mail.id));
    assert_eq!(listed(&store, QueueQuery::default()).await, [mail.id]);
    assert_eq!(told(&store, mail.id).await, ["queued"]);
}

fn submission(text: &str) -> Submission {
    Submission::text(contract_id("ACME"), "Subject", text)
}

pub(super) async fn the_same_key_and_content_give_the_same_mail(subject: Subject) {
    let (store, _) = with_standard(subject).await;
    let first = keyed(prepared(&store, 1, "ACME").await, "key", &submission("text"));
    submit(&store, &first).await;
    let again = keyed(prepared(&store, 2, "ACME").await, "key", &submission("text"));
    // The outbox changed since: the mail is the same all the same.
    let mut settings =
        store.mailbox(first.resolution.outbox).await.expect("mailbox").expect("it is registered");
    settings.status = Status::Disabled;
    store.save(&change(), &settings, SecretWrite::Keep).await.expect("save");
    assert_eq!(enqueue(&store, &again).await.expect("enqueue"), Enqueued::Existing(first.id));
    assert_eq!(listed(&store, QueueQuery::default()).await, [first.id]);
}

pub(super) async fn a_key_belongs_to_its_contract_byte_by_byte(subject: Subject) {
    let (store, _) = with_standard(subject).await;
    let keys = [("ACME", "key"), ("acme", "key"), ("ACME", "KEY"), ("ACME", "key ")];
    for (number, (contract, key)) in (1..).zip(keys) {
        submit(&store, &keyed(prepared(&store, number, contract).await, key, &submission("text"))).await;
    }
    assert_eq!(listed(&store, QueueQuery::default()).await.len(), keys.len());
}

pub(super) async fn the_same_key_with_other_content_is_a_conflict_that_names_the_field(subject: Subject) {
    let (store, _) = with_standard(subject).await;
    let first = keyed(prepared(&store, 1, "ACME").await, "key", &submission("text"));
    submit(&store, &first).await;
    let other = keyed(prepared(&store, 2, "ACME").await, "key", &submission("other"));
    let conflict = ErrorKind::IdempotencyConflict { existing: first.id, field: "text".to_owned() };
    assert_eq!(kind(enqueue(&store, &other).await), conflict);
    assert_eq!(listed(&store, QueueQuery::default()).await, [first.id]);
}

pub(super) async fn the_same_submission_at_once_is_one_mail(subject: Subject) {
    let (store, _) = with_standard(subject).await;
    let mut mails = Vec::new();
    for number in 1..=4 {
        mails.push(keyed(prepared(&store, number, "ACME").await, "key", &submission("text")));
    }
    let (a, b, c, d) = tokio::join!(
        enqueue(&store, &mails[0]),
        enqueue(&store, &mails[1]),
        enqueue(&store, &mails[2]),
        enqueue(&store, &mails[3]),
    );
    let all = [a, b, c, d].map(|result| result.expect("enqueue"));
    assert_eq!(all.iter().filter(|one| matches!(one, Enqueued::New(_))).count(), 1);
    assert!(all.iter().all(|one| one.id() == all[0].id()), "{all:?}");
    assert_eq!(listed(&store, QueueQuery::default()).await, [all[0].id()]);
}

pub(super) async fn a_decision_by_what_has_changed_is_stale(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let other = add(&store, outbox("other.example")).await;
    let step = || Some(step_key("F", "S"));
    let touch = async || {
        let read = store.mailbox(standard).await.expect("mailbox").expect("it is registered");
        store.save(&change(), &read, SecretWrite::Keep).await.expect("save");
    };
    let refused = async |mail: Prepared, why: &str| {
        assert_eq!(kind(enqueue(&store, &mail).await), ErrorKind::StaleDecision, "{why}");
        assert_eq!(listed(&store, QueueQuery::default()).await, [], "{why}");
        assert_eq!(store.sent_by_message_id(&[mail.message_id]).await.expect("sent_by_message_id"), []);
    };
    let mail = prepared(&store, 1, "ACME").await;
    touch().await;
    refused(mail, "the outbox was changed").await;
    let mail = prepared(&store, 2, "ACME").await;
    save_contract(&store, &Contract::new(contract_id("ACME"))).await;
    refused(mail, "the contract has a row now").await;
    let mail = prepared(&store, 3, "ACME").await;
    save_contract(&store, &Contract::new(contract_id("ACME"))).await;
    refused(mail, "the contract was changed").await;
    let mail = prepared_for(&store, 4, "ACME", step(), WhenUnavailable::Refuse).await;
    save_step(&store, &Step::new(step_key("F", "S"))).await;
    refused(mail, "the step has a row now").await;
    let mail = prepared_for(&store, 5, "ACME", step(), WhenUnavailable::Refuse).await;
    save_step(&store, &Step::new(step_key("F", "S"))).await;
    refused(mail, "the step was changed").await;
    let mail = prepared(&store, 6, "ACME").await;
    store.set_standard(&change(), Some(other)).await.expect("set_standard");
    refused(mail, "Standard is another outbox now").await;
    let mail = prepared(&store, 7, "ACME").await;
    store.set_standard(&change(), None).await.expect("set_standard");
    store.remove(&change(), other, None).await.expect("remove");
    refused(mail, "the outbox is gone").await;
    // Control: the same mail by the same hands is taken when nothing has changed.
    store.set_standard(&change(), Some(standard)).await.expect("set_standard");
    submit(&store, &prepared_for(&store, 8, "ACME", step(), WhenUnavailable::Refuse).await).await;
}

pub(super) async fn a_mail_for_a_disabled_outbox_is_stale_unless_it_is_held(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mut disabled = store.mailbox(standard).await.expect("mailbox").expect("it is registered");
    disabled.status = Status::Disabled;
    store.save(&change(), &disabled, SecretWrite::Keep).await.expect("save");
    let mut mail = prepared_for(&store, 1, "ACME", None, WhenUnavailable::Hold).await;
    mail.resolution.held = false;
    assert_eq!(kind(enqueue(&store, &mail).await), ErrorKind::StaleDecision);
    mail.resolution.held = true;
    submit(&store, &mail).await;
    let shown = show(&store, mail.id).await;
    assert_eq!((shown.item.state, shown.item.due_at), (State::Held, None));
    assert_eq!(shown.timeline[0].what, "held");
}

pub(super) async fn a_held_mail_goes_once_it_is_released(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mut mail = prepared(&store, 1, "ACME").await;
    mail.resolution.held = true;
    submit(&store, &mail).await;
    assert_eq!(store.due_outboxes(at(1), 10).await.expect("due_outboxes"), []);
    assert_eq!(claim_at(&store, 1, standard, 10, 1).await, []);
    decide(&store, 2, mail.id, Event::Unhold).await.expect("decide");
    assert_eq!(claim_one(&store, 2, standard).await.id, mail.id);
}

pub(super) async fn the_limit_of_queued_mails_counts_unfinished_ones(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mut contract = Contract::new(contract_id("ACME"));
    contract.limits.queued = Some(2);
    save_contract(&store, &contract).await;
    submit(&store, &to_many(prepared(&store, 1, "ACME").await, 2)).await;
    submit(&store, &prepared(&store, 2, "ACME").await).await;
    let third = prepared(&store, 3, "ACME").await;
    let reached = ErrorKind::LimitReached { limit: "queued", most: 2 };
    assert_eq!(kind(enqueue(&store, &third).await), reached);
    submit(&store, &prepared(&store, 4, "acme").await).await;
    let claimed = claim_one(&store, 1, standard).await;
    assert!(mark(&store, 1, claimed.id, claimed.claim).await);
    settle(&store, 2, &settlement(&claimed, 60, &[Event::Accept, Event::Defer])).await;
    assert_eq!(kind(enqueue(&store, &third).await), reached, "a recipient is unfinished");
    decide(&store, 3, claimed.id, Event::Cancel).await.expect("decide");
    submit(&store, &third).await;
}

pub(super) async fn the_limit_per_day_counts_the_day_in_utc(subject: Subject) {
    let (store, _) = with_standard(subject).await;
    let mut contract = Contract::new(contract_id("ACME"));
    contract.limits.per_day = Some(2);
    save_contract(&store, &contract).await;
    let first = prepared(&store, 1, "ACME").await;
    submit(&store, &first).await;
    decide(&store, 1, first.id, Event::Cancel).await.expect("decide");
    submit(&store, &prepared(&store, 2, "ACME").await).await;
    let third = prepared(&store, 3, "ACME").await;
    let reached = ErrorKind::LimitReached { limit: "per-day", most: 2 };
    let midnight = at(12 * 3600);
    let before = midnight - Duration::from_millis(1);
    assert_eq!(kind(store.enqueue(before, &third, content(&third)).await), reached, "a finished mail counts");
    store.enqueue(midnight, &third, content(&third)).await.expect("a new day");
}

pub(super) async fn sent_mails_are_found_by_message_id(subject: Subject) {
    let (store, _) = with_standard(subject).await;
    let mut mails = Vec::new();
    for number in 1..=3 {
        let mut mail = prepared(&store, number, "ACME").await;
        mail.record = Some(RecordId::parse(&format!("INC {number}")).expect("a valid id"));
        submit(&store, &mail).await;
        mails.push(mail);
    }
    let ids = ["<3@acme.example>", "<9@acme.example>", "<1@ACME.example>", "<1@acme.example>"]
        .map(ToOwned::to_owned);
    let sent = store.sent_by_message_id(&ids).await.expect("sent_by_message_id");
    let want = [&mails[2], &mails[0]].map(|mail| SentMail {
        id: mail.id,
        contract: mail.contract.clone(),
        record: mail.record.clone(),
        message_id: mail.message_id.clone(),
    });
    assert_eq!(sent, want);
    assert_eq!(store.sent_by_message_id(&[]).await.expect("sent_by_message_id"), []);
}

/// Three contracts with an outbox each.
async fn three(store: &Arc<dyn Store>) -> [MailboxId; 3] {
    let mut outboxes = [MailboxId::new(0); 3];
    for (outbox_id, contract) in outboxes.iter_mut().zip(["A", "B", "C"]) {
        *outbox_id = add(store, outbox(&format!("{contract}.example"))).await;
        save_contract(store, &Contract::new(contract_id(contract)).with_outbox(*outbox_id, None)).await;
    }
    outboxes
}

pub(super) async fn the_outbox_that_waits_longest_is_due_first(subject: Subject) {
    let store = subject.store;
    let [a, b, c] = three(&store).await;
    for (number, contract, due) in
        [(1, "A", 20), (2, "A", 30), (3, "B", 10), (4, "B", 40), (5, "C", 15), (6, "C", 99)]
    {
        let mut mail = prepared(&store, number, contract).await;
        mail.not_before = Some(at(due));
        submit(&store, &mail).await;
    }
    let due = async |seconds, limit| store.due_outboxes(at(seconds), limit).await.expect("due_outboxes");
    assert_eq!(due(9, 10).await, []);
    assert_eq!(due(10, 10).await, [b]);
    assert_eq!(due(50, 10).await, [b, c, a]);
    assert_eq!(due(50, 2).await, [b, c]);
    claim_one(&store, 50, b).await;
    assert_eq!(due(50, 10).await, [c, a, b], "the claimed mail waits no more");
}

pub(super) async fn what_may_not_be_sent_is_neither_due_nor_claimed(subject: Subject) {
    let store = subject.store;
    let [a, b, c] = three(&store).await;
    for (number, contract) in [(1, "A"), (2, "B"), (3, "C")] {
        submit(&store, &prepared(&store, number, contract).await).await;
    }
    let check = async |seconds, open: &[MailboxId], why: &str| {
        let mut due = store.due_outboxes(at(seconds), 10).await.expect("due_outboxes");
        due.sort_unstable();
        assert_eq!(due, open, "{why}");
        for outbox in [a, b, c].iter().filter(|outbox| !open.contains(outbox)) {
            assert_eq!(claim_at(&store, seconds, *outbox, 10, 1).await, [], "{why}: claimed by {outbox}");
        }
    };
    let switch = async |scope: Scope, to| store.set_switch(&change(), &scope, to).await.expect("set_switch");
    check(1, &[a, b, c], "nothing is in the way").await;
    for (scope, open, why) in [
        (Scope::System, vec![], "the system is paused"),
        (Scope::Contract(contract_id("A")), vec![b, c], "contract A is paused"),
        (Scope::Contract(contract_id("a")), vec![a, b, c], "another contract is paused"),
        (Scope::Outbox(b), vec![a, c], "outbox B is paused"),
    ] {
        switch(scope.clone(), Switch::Paused).await;
        check(1, &open, why).await;
        switch(scope, Switch::Running).await;
    }
    let error = || "refused".to_owned();
    store.record(at(1), a, &Sign::Suspended { error: error() }).await.expect("record");
    let wait = Duration::from_secs(60);
    store.record(at(1), b, &Sign::Failure { error: error(), wait }).await.expect("record");
    let mut disabled = store.mailbox(c).await.expect("mailbox").expect("it is registered");
    disabled.status = Status::Disabled;
    store.save(&change(), &disabled, SecretWrite::Keep).await.expect("save");
    check(60, &[], "suspended, not to be tried yet, disabled").await;
    check(61, &[b], "B may be tried again").await;
    store.clear(at(0), a).await.expect("clear");
    check(61, &[a, b], "A was mended").await;
}

pub(super) async fn a_paused_contract_does_not_hold_up_another_on_its_outbox(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    for (number, contract) in [(1, "A"), (2, "B")] {
        submit(&store, &prepared(&store, number, contract).await).await;
    }
    store
        .set_switch(&change(), &Scope::Contract(contract_id("A")), Switch::Paused)
        .await
        .expect("set_switch");
    assert_eq!(store.due_outboxes(at(1), 10).await.expect("due_outboxes"), [standard]);
    let claimed = claim_at(&store, 1, standard, 10, 1).await;
    assert_eq!(claimed.iter().map(|one| one.id).collect::<Vec<_>>(), [queue_id(2)]);
}

pub(super) async fn claims_of_a_contract_go_by_priority_then_due_time_then_id(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    for (number, priority, due) in [
        (1, Priority::Low, 0),
        (2, Priority::Normal, 20),
        (3, Priority::Normal, 10),
        (5, Priority::Normal, 10),
        (4, Priority::Normal, 10),
        (6, Priority::High, 30),
    ] {
        let mut mail = prepared(&store, number, "ACME").await;
        (mail.priority, mail.not_before) = (priority, Some(at(due)));
        submit(&store, &mail).await;
    }
    let mut order = Vec::new();
    for limit in [1, 2, 10] {
        order.extend(claim_at(&store, 60, standard, limit, 1).await.into_iter().map(|one| one.id));
    }
    assert_eq!(order, [6, 3, 4, 5, 2, 1].map(queue_id));
}

/// The contracts of the mails that are claimed, one claim after the other or all by one.
async fn turns(store: &Arc<dyn Store>, seconds: i64, outbox: MailboxId, limits: &[u32]) -> String {
    let mut contracts = String::new();
    for limit in limits {
        let claimed = claim_at(store, seconds, outbox, *limit, 1).await;
        contracts.extend(claimed.iter().map(|one| one.contract.as_str()));
    }
    contracts
}

/// Mails of each contract in this order, with numbers from `first` on.
pub(super) async fn submit_all(
    store: &Arc<dyn Store>,
    first: u32,
    contracts: &str,
    change: impl Fn(&mut Prepared),
) {
    for (number, contract) in (first..).zip(contracts.chars()) {
        let mut mail = prepared(store, number, &contract.to_string()).await;
        change(&mut mail);
        submit(store, &mail).await;
    }
}

pub(super) async fn contracts_take_turns_whatever_their_backlogs(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    // By due time and id alone, B and C would wait for all of A.
    submit_all(&store, 1, "AAAAAAAABBC", |_| {}).await;
    assert_eq!(turns(&store, 60, standard, &[1; 5]).await, "ABCAB");
    assert_eq!(turns(&store, 60, standard, &[10]).await, "AAAAAA");
    submit_all(&store, 21, "AAABBBC", |_| {}).await;
    assert_eq!(turns(&store, 70, standard, &[5, 5]).await, "CBABABA", "also by one claim of many");
}

pub(super) async fn a_contract_that_comes_later_waits_for_one_turn_of_each_other(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    submit_all(&store, 1, "AAAAAABBBBBB", |_| {}).await;
    assert_eq!(turns(&store, 60, standard, &[1; 4]).await, "ABAB");
    submit_all(&store, 21, "CC", |mail| mail.not_before = Some(at(61))).await;
    assert_eq!(turns(&store, 62, standard, &[1; 6]).await, "ABCABC");
    // One that was idle has saved up nothing: it gets one turn and not all that it has missed.
    submit_all(&store, 31, "CCCC", |mail| mail.not_before = Some(at(500))).await;
    assert_eq!(turns(&store, 501, standard, &[1; 7]).await, "ABCABCC");
}

pub(super) async fn turns_are_taken_within_a_priority(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    submit_all(&store, 1, "AAB", |_| {}).await;
    submit_all(&store, 11, "AA", |mail| mail.priority = Priority::High).await;
    submit_all(&store, 21, "CB", |mail| mail.priority = Priority::Low).await;
    assert_eq!(turns(&store, 60, standard, &[3, 1, 1, 5]).await, "AAABABC");
}

pub(super) async fn a_clock_that_was_set_back_does_not_hold_up_new_mail(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    submit_all(&store, 1, "A", |_| {}).await;
    assert_eq!(turns(&store, 3600, standard, &[1]).await, "A");
    submit_all(&store, 2, "A", |_| {}).await;
    assert_eq!(turns(&store, 60, standard, &[1]).await, "A");
}

pub(super) async fn a_claim_gives_what_its_worker_needs(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mut mail = to_many(prepared(&store, 1, "ACME").await, 2);
    (mail.return_path, mail.on_doubt) = (None, OnDoubt::Resend);
    submit(&store, &mail).await;
    let claimed = claim_one(&store, 1, standard).await;
    let want = Claimed {
        id: mail.id,
        claim: claimed.claim,
        contract: mail.contract.clone(),
        outbox: standard,
        sender: mail.resolution.sender.clone(),
        return_path: None,
        recipients: vec![(0, address("0@client.example")), (1, address("1@client.example"))],
        attempt: 1,
        body: show(&store, mail.id).await.body.expect("it has its content"),
        size: u64::try_from(content(&mail).len()).expect("small"),
        content: claimed.content.clone(),
        created_at: at(0),
        expires_at: mail.expires_at,
        on_doubt: OnDoubt::Resend,
    };
    assert_eq!(claimed, want);
    if let Some(given) = &claimed.content {
        assert_eq!(*given, content(&mail), "a store may give the content along, and then gives it whole");
    }
    assert_eq!(states(&store, mail.id).await, [State::Claimed; 2]);
    settle(&store, 2, &settlement(&claimed, 60, &[Event::Refuse, Event::Defer])).await;
    let again = claim_one(&store, 60, standard).await;
    assert_eq!((again.attempt, again.recipients), (2, vec![(1, address("1@client.example"))]));
    assert_ne!(again.claim, claimed.claim);
}

pub(super) async fn a_mail_is_claimed_neither_before_its_time_nor_from_its_expiry_on(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mut mail = prepared(&store, 1, "ACME").await;
    (mail.not_before, mail.expires_at) = (Some(at(10)), at(20));
    submit(&store, &mail).await;
    for seconds in [9, 20, 21] {
        assert_eq!(claim_at(&store, seconds, standard, 1, 1).await, [], "at {seconds}");
        assert_eq!(store.due_outboxes(at(seconds), 1).await.expect("due_outboxes"), [], "at {seconds}");
    }
    assert_eq!(claim_at(&store, 10, standard, 1, 1).await.len(), 1);
}

pub(super) async fn workers_claim_disjoint_rows_and_each_row_once(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mail = prepared(&store, 0, "ACME").await;
    for number in 1..=120 {
        let (id, message_id) = (queue_id(number), format!("<{number}@acme.example>"));
        submit(&store, &Prepared { id, message_id, ..mail.clone() }).await;
    }
    let mut ids = Vec::new();
    let mut claims = Vec::new();
    loop {
        let (a, b, c) = tokio::join!(
            claim_at(&store, 1, standard, 7, 1),
            claim_at(&store, 1, standard, 7, 2),
            claim_at(&store, 1, standard, 7, 3),
        );
        let round: Vec<_> = [a, b, c].into_iter().flatten().collect();
        if round.is_empty() {
            break;
        }
        assert!(round.len() <= 21, "a limit of 7 was not kept");
        claims.extend(round.iter().map(|one| one.claim));
        ids.extend(round.into_iter().map(|one| one.id));
        assert!(ids.len() <= 120, "a row was claimed twice");
    }
    ids.sort_unstable();
    claims.sort_unstable();
    claims.dedup();
    assert_eq!(ids, (1..=120).map(queue_id).collect::<Vec<_>>(), "each row once");
    assert_eq!(claims.len(), 120, "each claim is its own");
    assert_eq!(open_claims(&store).await, 120);
}

pub(super) async fn an_expired_claim_is_taken_by_the_next_worker(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mail = prepared(&store, 1, "ACME").await;
    submit(&store, &mail).await;
    let first = claim_one(&store, 0, standard).await;
    assert_eq!(store.expire(at(29)).await.expect("expire"), Sweep::default(), "the lease still lasts");
    assert_eq!(claim_at(&store, 29, standard, 1, 2).await, []);
    let sweep = store.expire(at(30)).await.expect("expire");
    assert_eq!(sweep, Sweep { released: 1, ..Sweep::default() });
    let second = claim_at(&store, 30, standard, 1, 2).await.pop().expect("it is due again");
    assert_ne!(second.claim, first.claim);
    assert_eq!(second.attempt, 2, "a mail that kills its worker each time must come to an end");
    assert_eq!(told(&store, mail.id).await, ["queued", "claim", "release", "claim"]);
}

pub(super) async fn a_worker_that_wakes_after_its_lease_can_not_mark(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mail = prepared(&store, 1, "ACME").await;
    submit(&store, &mail).await;
    let first = claim_one(&store, 0, standard).await;
    assert!(!mark(&store, 30, mail.id, first.claim).await, "the lease ran out, also when nobody has swept");
    assert_eq!(states(&store, mail.id).await, [State::Claimed]);
    store.expire(at(30)).await.expect("expire");
    assert!(!mark(&store, 31, mail.id, first.claim).await);
    let second = claim_one(&store, 31, standard).await;
    assert!(!mark(&store, 32, mail.id, first.claim).await, "the row is the next worker's");
    assert_eq!(states(&store, mail.id).await, [State::Claimed]);
    assert!(mark(&store, 32, mail.id, second.claim).await);
    assert_eq!(states(&store, mail.id).await, [State::Crossing]);
}

pub(super) async fn marks_answer_each_for_its_claim_and_can_be_repeated(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    for number in 1..=2 {
        submit(&store, &to_many(prepared(&store, number, "ACME").await, 2)).await;
    }
    let claimed = claim_at(&store, 0, standard, 2, 1).await;
    let of = |id, claim| ClaimMark { id, claim };
    let (one, two) = (&claimed[0], &claimed[1]);
    let marks = [of(one.id, two.claim), of(two.id, two.claim), of(queue_id(99), two.claim)];
    assert_eq!(store.mark(at(1), &marks).await.expect("mark"), [false, true, false]);
    assert_eq!(states(&store, one.id).await, [State::Claimed; 2]);
    assert_eq!(states(&store, two.id).await, [State::Crossing; 2]);
    assert!(
        mark(&store, 2, two.id, two.claim).await,
        "a mark whose commit has an unknown outcome is repeated"
    );
    assert_eq!(told(&store, two.id).await, ["queued", "claim", "mark"]);
    assert!(store.mark(at(1), &[]).await.expect("mark").is_empty());
}

pub(super) async fn a_renewal_extends_the_live_claims_of_its_worker_only(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    for number in 1..=3 {
        submit(&store, &prepared(&store, number, "ACME").await).await;
    }
    let early = claim_at(&store, 0, standard, 1, 1).await;
    let live = claim_at(&store, 20, standard, 1, 1).await;
    let others = claim_at(&store, 20, standard, 1, 2).await;
    let renewed = QueueWork::renew(&*store, at(40), worker(1), at(70)).await.expect("renew");
    assert_eq!(renewed, 1, "of worker 1 one lease lasts and one ran out");
    let sweep = store.expire(at(60)).await.expect("expire");
    assert_eq!(sweep, Sweep { released: 2, ..Sweep::default() });
    assert_eq!(states(&store, early[0].id).await, [State::Queued]);
    assert_eq!(states(&store, live[0].id).await, [State::Claimed]);
    assert_eq!(states(&store, others[0].id).await, [State::Queued]);
    assert!(mark(&store, 69, live[0].id, live[0].claim).await);
}

pub(super) async fn results_are_applied_to_each_recipient(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mail = to_many(prepared(&store, 1, "ACME").await, 4);
    submit(&store, &mail).await;
    let claimed = claim_one(&store, 0, standard).await;
    assert!(mark(&store, 1, mail.id, claimed.claim).await);
    let events = [Event::Accept, Event::Refuse, Event::Defer, Event::Doubt];
    assert_eq!(settle(&store, 2, &settlement(&claimed, 60, &events)).await, Settled::Applied);
    let after = [State::Accepted, State::Refused, State::Queued, State::InDoubt];
    assert_eq!(states(&store, mail.id).await, after);
    let shown = show(&store, mail.id).await;
    assert_eq!((shown.item.state, shown.item.attempts), (State::Queued, 1));
    assert_eq!(shown.item.due_at, Some(at(60)));
    for (place, (event, state)) in (0..).zip(events.iter().zip(after)) {
        let entry =
            shown.timeline.iter().find(|entry| entry.recipient == Some(place)).expect("each has its entry");
        assert_eq!((entry.what.as_str(), entry.state, entry.at), (event.word(), Some(state), at(2)));
        assert_eq!(entry.detail, format!("the server said {event}"));
    }
    assert_eq!(claim_at(&store, 59, standard, 1, 1).await, []);
    let again = claim_one(&store, 60, standard).await;
    assert_eq!(again.recipients, [(2, address("2@client.example"))], "only what was deferred goes on");
    let died = settlement(&again, 60, &[]);
    let died = Settlement {
        results: vec![RecipientResult {
            recipient: 2,
            event: Event::Die,
            detail: "no more attempts".to_owned(),
        }],
        ..died
    };
    assert_eq!(settle(&store, 61, &died).await, Settled::Applied);
    assert_eq!(states(&store, mail.id).await[2], State::Dead);
}

pub(super) async fn a_free_attempt_costs_none_unless_it_leaves_a_doubt(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mail = prepared(&store, 1, "ACME").await;
    submit(&store, &mail).await;
    for (seconds, event, spent) in [(0, Event::Release, 0), (1, Event::Defer, 0), (2, Event::Doubt, 1)] {
        let claimed = claim_one(&store, seconds, standard).await;
        if event == Event::Doubt {
            assert!(mark(&store, seconds, mail.id, claimed.claim).await);
        }
        let free = Settlement { attempt: Attempt::Free, ..settlement(&claimed, seconds, &[event]) };
        assert_eq!(settle(&store, seconds, &free).await, Settled::Applied);
        assert_eq!(show(&store, mail.id).await.item.attempts, spent, "after {event}");
    }
}

pub(super) async fn the_fence_of_a_settlement_is_the_claim_and_not_its_lease(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mail = prepared(&store, 1, "ACME").await;
    submit(&store, &mail).await;
    let claimed = claim_one(&store, 0, standard).await;
    assert!(mark(&store, 1, mail.id, claimed.claim).await);
    let accepted = settlement(&claimed, 60, &[Event::Accept]);
    let stranger = Settlement { claim: ClaimId::new(at(0), [9; 10]), ..accepted.clone() };
    assert_eq!(settle(&store, 40, &stranger).await, Settled::Ignored);
    assert_eq!(states(&store, mail.id).await, [State::Crossing]);
    assert_eq!(settle(&store, 40, &accepted).await, Settled::Applied, "nobody has ended the claim");
    assert_eq!(states(&store, mail.id).await, [State::Accepted]);
    let gone = Settlement { id: queue_id(99), ..accepted };
    assert_eq!(settle(&store, 41, &gone).await, Settled::Ignored);
}

pub(super) async fn a_settlement_is_applied_once(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mail = to_many(prepared(&store, 1, "ACME").await, 2);
    submit(&store, &mail).await;
    let claimed = claim_one(&store, 0, standard).await;
    assert!(mark(&store, 1, mail.id, claimed.claim).await);
    let results = settlement(&claimed, 60, &[Event::Accept, Event::Defer]);
    let both = [results.clone(), results];
    assert_eq!(store.settle(at(2), &both).await.expect("settle"), [Settled::Applied, Settled::Ignored]);
    assert_eq!(states(&store, mail.id).await, [State::Accepted, State::Queued]);
    assert_eq!(show(&store, mail.id).await.item.attempts, 1);
    let ignored = told(&store, mail.id).await.into_iter().filter(|what| what == "ignored").count();
    assert_eq!(ignored, 2, "what was ignored stands in the timeline");
}

pub(super) async fn a_missing_or_impossible_result_neither_loses_nor_doubles(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let unmarked = to_many(prepared(&store, 1, "ACME").await, 2);
    let marked = to_many(prepared(&store, 2, "ACME").await, 2);
    submit(&store, &unmarked).await;
    submit(&store, &marked).await;
    let claimed = claim_at(&store, 0, standard, 2, 1).await;
    assert!(mark(&store, 1, marked.id, claimed[1].claim).await);
    for one in &claimed {
        let wrong = [Event::Mark];
        assert_eq!(settle(&store, 2, &settlement(one, 60, &wrong)).await, Settled::Applied);
    }
    assert_eq!(states(&store, unmarked.id).await, [State::Queued; 2], "before the mark: released");
    assert_eq!(states(&store, marked.id).await, [State::InDoubt; 2], "after the mark: in doubt");
    assert_eq!(open_claims(&store).await, 0);
}

pub(super) async fn a_late_answer_settles_the_doubt_of_its_own_attempt(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mail = to_many(prepared(&store, 1, "ACME").await, 3);
    let claimed = doubted(&store, standard, &mail).await;
    assert_eq!(states(&store, mail.id).await, [State::InDoubt; 3]);
    let stranger =
        Settlement { claim: ClaimId::new(at(0), [9; 10]), ..settlement(&claimed, 60, &[Event::Accept; 3]) };
    assert_eq!(settle(&store, 35, &stranger).await, Settled::Ignored, "another attempt's answer");
    assert_eq!(states(&store, mail.id).await, [State::InDoubt; 3]);
    let late = settlement(&claimed, 90, &[Event::Accept, Event::Refuse, Event::Defer]);
    assert_eq!(settle(&store, 40, &late).await, Settled::Late);
    let after = [State::Accepted, State::Refused, State::Queued];
    assert_eq!(states(&store, mail.id).await, after, "a late 4xx proves that the server did not take it");
    assert_eq!(show(&store, mail.id).await.item.due_at, Some(at(90)));
    let shown = show(&store, mail.id).await;
    let lates = shown.timeline.iter().filter(|entry| entry.what == "late").count();
    assert_eq!(lates, 3);
    assert_eq!(settle(&store, 41, &late).await, Settled::Ignored, "once");
    assert_eq!(states(&store, mail.id).await, after);
}

pub(super) async fn a_late_answer_settles_a_doubt_that_its_worker_reported(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mail = prepared(&store, 1, "ACME").await;
    submit(&store, &mail).await;
    let claimed = claim_one(&store, 0, standard).await;
    assert!(mark(&store, 1, mail.id, claimed.claim).await);
    assert_eq!(settle(&store, 2, &settlement(&claimed, 60, &[Event::Doubt])).await, Settled::Applied);
    assert_eq!(settle(&store, 3, &settlement(&claimed, 60, &[Event::Accept])).await, Settled::Late);
    assert_eq!(states(&store, mail.id).await, [State::Accepted]);
}

pub(super) async fn a_late_answer_changes_nothing_when_a_person_has_decided(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    for (number, decision, after) in [
        (1, Event::Accept, State::Accepted),
        (2, Event::Refuse, State::Refused),
        (3, Event::Retry, State::Queued),
    ] {
        let mail = prepared(&store, number, "ACME").await;
        let claimed = doubted(&store, standard, &mail).await;
        decide(&store, 31, mail.id, decision).await.expect("decide");
        for answer in [Event::Accept, Event::Refuse, Event::Defer] {
            assert_eq!(settle(&store, 32, &settlement(&claimed, 60, &[answer])).await, Settled::Ignored);
            assert_eq!(states(&store, mail.id).await, [after], "{answer} after {decision}");
        }
        assert!(told(&store, mail.id).await.contains(&"ignored".to_owned()));
        if after == State::Queued {
            decide(&store, 33, mail.id, Event::Cancel).await.expect("decide");
        }
    }
}

pub(super) async fn a_late_answer_changes_nothing_when_there_is_a_newer_attempt(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mail = prepared(&store, 1, "ACME").await;
    let first = doubted(&store, standard, &mail).await;
    decide(&store, 31, mail.id, Event::Retry).await.expect("decide");
    let second = claim_one(&store, 31, standard).await;
    let late = settlement(&first, 60, &[Event::Refuse]);
    assert_eq!(settle(&store, 32, &late).await, Settled::Ignored);
    assert_eq!(states(&store, mail.id).await, [State::Claimed]);
    assert!(mark(&store, 33, mail.id, second.claim).await);
    store.expire(at(61)).await.expect("expire");
    assert_eq!(settle(&store, 62, &late).await, Settled::Ignored, "the doubt is the second attempt's");
    assert_eq!(states(&store, mail.id).await, [State::InDoubt]);
    assert_eq!(settle(&store, 63, &settlement(&second, 60, &[Event::Accept])).await, Settled::Late);
    assert_eq!(states(&store, mail.id).await, [State::Accepted]);
}

pub(super) async fn a_late_answer_of_a_released_claim_changes_nothing(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mail = prepared(&store, 1, "ACME").await;
    submit(&store, &mail).await;
    let claimed = claim_one(&store, 0, standard).await;
    store.expire(at(30)).await.expect("expire");
    for answer in [Event::Refuse, Event::Defer, Event::Die, Event::Hold] {
        assert_eq!(settle(&store, 31, &settlement(&claimed, 99, &[answer])).await, Settled::Ignored);
    }
    assert_eq!(states(&store, mail.id).await, [State::Queued]);
    assert_eq!(show(&store, mail.id).await.item.due_at, Some(at(30)));
}

pub(super) async fn a_doubt_is_not_sent_again_by_itself(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mail = prepared(&store, 1, "ACME").await;
    doubted(&store, standard, &mail).await;
    for seconds in [30, 3600, 10 * 24 * 3600] {
        store.expire(at(seconds)).await.expect("expire");
        assert_eq!(claim_at(&store, seconds, standard, 1, 1).await, []);
        assert_eq!(states(&store, mail.id).await, [State::InDoubt], "not even its expiry ends a doubt");
    }
}

pub(super) async fn a_mail_that_says_resend_goes_again_and_its_timeline_tells_of_the_doubt(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mut mail = prepared(&store, 1, "ACME").await;
    mail.on_doubt = OnDoubt::Resend;
    let first = doubted(&store, standard, &mail).await;
    assert_eq!(states(&store, mail.id).await, [State::Queued]);
    assert_eq!(told(&store, mail.id).await, ["queued", "claim", "mark", "doubt", "retry"]);
    assert_eq!(settle(&store, 31, &settlement(&first, 60, &[Event::Accept])).await, Settled::Ignored);
    let second = claim_one(&store, 31, standard).await;
    assert_eq!(second.attempt, 2, "an attempt that doubts counts");
    assert!(mark(&store, 32, mail.id, second.claim).await);
    assert_eq!(settle(&store, 33, &settlement(&second, 90, &[Event::Doubt])).await, Settled::Applied);
    let shown = show(&store, mail.id).await.item;
    assert_eq!((shown.state, shown.attempts, shown.due_at), (State::Queued, 2, Some(at(90))));
    let told = told(&store, mail.id).await;
    assert_eq!(told[told.len() - 2..], ["doubt", "retry"]);
}

pub(super) async fn a_worker_that_died_costs_an_attempt(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mail = prepared(&store, 1, "ACME").await;
    submit(&store, &mail).await;
    for attempt in 1..=5 {
        let seconds = 100 * i64::from(attempt);
        assert_eq!(claim_one(&store, seconds, standard).await.attempt, attempt);
        store.expire(at(seconds + 30)).await.expect("expire");
    }
    assert_eq!(show(&store, mail.id).await.item.attempts, 5);
}

pub(super) async fn what_waits_expires_in_time_and_what_is_in_a_workers_hands_does_not(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mut waiting = to_many(prepared(&store, 1, "ACME").await, 2);
    let mut held = prepared(&store, 2, "ACME").await;
    let mut claimed = prepared(&store, 3, "ACME").await;
    held.resolution.held = true;
    claimed.priority = Priority::High;
    for mail in [&mut waiting, &mut held, &mut claimed] {
        mail.expires_at = at(20);
        submit(&store, mail).await;
    }
    let taken = claim_one(&store, 0, standard).await;
    assert_eq!(taken.id, claimed.id);
    assert_eq!(store.expire(at(19)).await.expect("expire"), Sweep::default());
    let sweep = store.expire(at(20)).await.expect("expire");
    assert_eq!(sweep, Sweep { expired: 3, ..Sweep::default() });
    assert_eq!(states(&store, waiting.id).await, [State::Expired; 2]);
    assert_eq!(states(&store, held.id).await, [State::Expired]);
    assert_eq!(states(&store, claimed.id).await, [State::Claimed]);
    assert_eq!(told(&store, waiting.id).await, ["queued", "expire", "expire"]);
    assert_eq!(store.expire(at(21)).await.expect("expire"), Sweep::default(), "once");
    let sweep = store.expire(at(30)).await.expect("expire");
    assert_eq!(sweep, Sweep { released: 1, expired: 1, ..Sweep::default() }, "its claim, then its time");
    assert_eq!(states(&store, claimed.id).await, [State::Expired]);
}

pub(super) async fn next_due_is_the_earliest_time_at_which_something_may_happen(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    assert_eq!(next_due(&store, 0).await, None);
    let mut mail = prepared(&store, 1, "ACME").await;
    (mail.not_before, mail.expires_at) = (Some(at(100)), at(200));
    submit(&store, &mail).await;
    assert_eq!(next_due(&store, 0).await, Some(at(100)), "a mail becomes due");
    assert_eq!(next_due(&store, 100).await, Some(at(200)), "a mail runs out");
    let wait = Duration::from_secs(50);
    let sign = Sign::Failure { error: "refused".to_owned(), wait };
    store.record(at(100), standard, &sign).await.expect("record");
    assert_eq!(next_due(&store, 100).await, Some(at(150)), "an outbox may be tried again");
    store.record(at(101), standard, &Sign::Success).await.expect("record");
    let claimed = claim_one(&store, 110, standard).await;
    assert_eq!(next_due(&store, 110).await, Some(at(140)), "a lease runs out");
    settle(&store, 120, &settlement(&claimed, 130, &[Event::Refuse])).await;
    assert_eq!(next_due(&store, 120).await, None, "a finished mail waits for nothing");
}

pub(super) async fn open_claims_are_those_that_nobody_has_ended(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    for number in 1..=3 {
        submit(&store, &prepared(&store, number, "ACME").await).await;
    }
    assert_eq!(open_claims(&store).await, 0);
    let claimed = claim_at(&store, 0, standard, 2, 1).await;
    assert!(mark(&store, 1, claimed[1].id, claimed[1].claim).await);
    assert_eq!(open_claims(&store).await, 2, "claimed or marked");
    settle(&store, 2, &settlement(&claimed[0], 60, &[Event::Defer])).await;
    assert_eq!(open_claims(&store).await, 1, "also long after its lease");
    store.expire(at(30)).await.expect("expire");
    assert_eq!(open_claims(&store).await, 0);
}

pub(super) async fn a_person_decides_on_every_recipient_that_has_the_way(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mail = to_many(prepared(&store, 1, "ACME").await, 3);
    submit(&store, &mail).await;
    let claimed = claim_one(&store, 0, standard).await;
    assert!(mark(&store, 1, mail.id, claimed.claim).await);
    settle(&store, 2, &settlement(&claimed, 60, &[Event::Accept, Event::Refuse, Event::Doubt])).await;
    decide(&store, 3, mail.id, Event::Accept).await.expect("decide");
    assert_eq!(states(&store, mail.id).await, [State::Accepted, State::Refused, State::Accepted]);
    decide(&store, 4, mail.id, Event::Retry).await.expect("decide");
    assert_eq!(states(&store, mail.id).await, [State::Accepted, State::Queued, State::Accepted]);
    let shown = show(&store, mail.id).await;
    assert_eq!((shown.item.due_at, shown.item.attempts), (Some(at(4)), 0), "due at once, counted anew");
    let last = shown.timeline.last().expect("a timeline");
    assert_eq!((last.what.as_str(), last.recipient, &last.actor), ("retry", Some(1), &Some(actor())));
    decide(&store, 5, mail.id, Event::Hold).await.expect("decide");
    assert_eq!(claim_at(&store, 5, standard, 1, 1).await, []);
    decide(&store, 6, mail.id, Event::Unhold).await.expect("decide");
    decide(&store, 7, mail.id, Event::Cancel).await.expect("decide");
    assert_eq!(states(&store, mail.id).await, [State::Accepted, State::Cancelled, State::Accepted]);
}

pub(super) async fn a_decision_without_a_way_is_refused_and_a_claimed_mail_is_left_alone(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mail = prepared(&store, 1, "ACME").await;
    submit(&store, &mail).await;
    let refused = async |event, state| {
        let want = ErrorKind::NotPossible { state };
        assert_eq!(kind(decide(&store, 1, mail.id, event).await), want, "{event} in {state}");
    };
    for event in Event::ALL {
        if !matches!(event, Event::Cancel | Event::Hold) {
            refused(*event, "queued").await;
        }
    }
    assert_eq!(states(&store, mail.id).await, [State::Queued]);
    let claimed = claim_one(&store, 1, standard).await;
    for event in Event::ALL {
        refused(*event, "claimed").await;
    }
    assert!(mark(&store, 2, mail.id, claimed.claim).await);
    for event in Event::ALL {
        refused(*event, "crossing").await;
    }
    assert_eq!(states(&store, mail.id).await, [State::Crossing]);
    assert_eq!(kind(decide(&store, 1, queue_id(99), Event::Cancel).await), ErrorKind::NotFound);
}

pub(super) async fn an_expired_mail_that_is_retried_gets_as_much_time_again(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mut mail = prepared(&store, 1, "ACME").await;
    mail.expires_at = at(100);
    submit(&store, &mail).await;
    store.expire(at(150)).await.expect("expire");
    decide(&store, 200, mail.id, Event::Retry).await.expect("decide");
    assert_eq!(show(&store, mail.id).await.item.expires_at, at(300));
    assert_eq!(store.expire(at(201)).await.expect("expire"), Sweep::default());
    assert_eq!(claim_at(&store, 299, standard, 1, 1).await.len(), 1);
}

pub(super) async fn mails_are_listed_by_state_and_contract_in_pages(subject: Subject) {
    let (store, _) = with_standard(subject).await;
    for number in 1..=6 {
        let contract = if number % 2 == 0 { "ACME" } else { "acme" };
        submit(&store, &prepared(&store, number, contract).await).await;
    }
    for number in [2, 3, 5] {
        decide(&store, 1, queue_id(number), Event::Cancel).await.expect("decide");
    }
    let of = |numbers: &[u32]| numbers.iter().map(|number| queue_id(*number)).collect::<Vec<_>>();
    let query = QueueQuery::default;
    assert_eq!(listed(&store, query()).await, of(&[1, 2, 3, 4, 5, 6]));
    let cancelled = QueueQuery { state: Some(State::Cancelled), ..query() };
    assert_eq!(listed(&store, cancelled.clone()).await, of(&[2, 3, 5]));
    let acme: ContractId = contract_id("ACME");
    assert_eq!(listed(&store, QueueQuery { contract: Some(acme.clone()), ..query() }).await, of(&[2, 4, 6]));
    assert_eq!(listed(&store, QueueQuery { contract: Some(acme), ..cancelled.clone() }).await, of(&[2]));
    let page = QueueQuery { limit: Some(2), ..cancelled };
    assert_eq!(listed(&store, page.clone()).await, of(&[2, 3]), "a page is full when enough rows fit");
    assert_eq!(listed(&store, QueueQuery { after: Some(queue_id(3)), ..page }).await, of(&[5]));
}

pub(super) async fn a_mail_shows_the_least_finished_of_its_recipients(subject: Subject) {
    let (store, standard) = with_standard(subject).await;
    let mail = to_many(prepared(&store, 1, "ACME").await, 2);
    submit(&store, &mail).await;
    let claimed = claim_one(&store, 0, standard).await;
    assert!(mark(&store, 1, mail.id, claimed.claim).await);
    settle(&store, 2, &settlement(&claimed, 60, &[Event::Accept, Event::Doubt])).await;
    let in_doubt = QueueQuery { state: Some(State::InDoubt), ..QueueQuery::default() };
    assert_eq!(listed(&store, in_doubt).await, [mail.id]);
    let accepted = QueueQuery { state: Some(State::Accepted), ..QueueQuery::default() };
    assert_eq!(listed(&store, accepted).await, []);
    assert_eq!(store.uses(standard).await.expect("uses").queued, 1, "a doubt is not finished");
}

pub(super) async fn the_queue_survives_a_reopening(subject: Subject) {
    let store = &subject.store;
    let standard = set_up(store).await;
    let (crossing, waiting) = (prepared(store, 1, "ACME").await, prepared(store, 2, "ACME").await);
    let waiting = keyed(waiting, "key", &submission("text"));
    submit(store, &crossing).await;
    submit(store, &waiting).await;
    let claimed = claim_one(store, 0, standard).await;
    assert!(mark(store, 1, crossing.id, claimed.claim).await);
    let store = subject.restarted().await;
    assert_eq!(states(&store, crossing.id).await, [State::Crossing], "the mark was on the medium");
    assert_eq!(open_claims(&store).await, 1);
    let again = keyed(prepared(&store, 3, "ACME").await, "key", &submission("text"));
    assert_eq!(enqueue(&store, &again).await.expect("enqueue"), Enqueued::Existing(waiting.id));
    let sweep = store.expire(at(30)).await.expect("expire");
    assert_eq!(sweep, Sweep { doubted: 1, ..Sweep::default() });
    let body = show(&store, waiting.id).await.body.expect("it has its content");
    assert_eq!(store.piece(body, 0).await.expect("piece"), Some(content(&waiting)));
    assert_eq!(settle(&store, 31, &settlement(&claimed, 60, &[Event::Accept])).await, Settled::Late);
    assert_eq!(claim_one(&store, 31, standard).await.id, waiting.id);
}
