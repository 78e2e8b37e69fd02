//! From the server's folder to the host's handler.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use postroom_core::contract::{Contract, Requesters};
use postroom_core::id::{LedgerId, RecordId};
use postroom_core::ledger::{Event, State};
use postroom_core::mailbox::{InboxDraft, Mailbox};
use postroom_core::message::Submission;
use postroom_engine::{
    Answer, Delivery, Event as Happened, MessageHandler, Observer, Options, Postroom, Work,
};
use postroom_storage::memory::MemoryStore;
use postroom_storage::{
    Change, Clock, Committing, HandlerResult, HealthBook, LedgerDesk, LedgerWork, Mailboxes, SecretWrite,
};
use postroom_transport::memory::MemoryIncoming;
use postroom_transport::{Error, ErrorKind, IncomingSession, IncomingTransport, ProbeReport, Route, Stage};

use crate::fixture::*;
use crate::watching::Running;

fn form(baseline: &str, after: &str) -> InboxDraft {
    InboxDraft {
        provider: "imaps".to_owned(),
        baseline: Some(baseline.to_owned()),
        after: Some(after.to_owned()),
        ..InboxDraft::default()
    }
}

#[tokio::test]
async fn what_arrives_is_stored_once_handled_once_and_only_then_marked_on_the_server() {
    let house = House::new().await;
    house.arrives("ana@customer.example", "one", "");
    house.arrives("ana@customer.example", "two", "");
    house.work().await;
    house.work().await;
    assert_eq!(house.host.subjects(), ["one", "two"]);
    let items = house.ledger().await;
    assert!(items.iter().all(|item| item.state == State::Handled && item.contract == Some(contract("ACME"))));
    assert_eq!(items[0].reasons, ["box"]);
    assert!(house.incoming.mails(house.inbox.id, "INBOX").iter().all(|mail| mail.seen));
}

#[tokio::test]
async fn nothing_is_said_to_the_server_when_the_mail_could_not_be_stored_or_fetched() {
    let house = House::new().await;
    house.arrives("ana@customer.example", "one", "");
    house.incoming.fail_once(Error::new(ErrorKind::Disconnected, Stage::Fetch));
    house.work().await;
    assert!(house.ledger().await.is_empty());
    assert!(!house.incoming.mails(house.inbox.id, "INBOX")[0].seen, "unread until it is safe");
    house.clock.advance(Duration::from_secs(60));
    house.work().await;
    assert_eq!(house.host.subjects(), ["one"]);
}

#[tokio::test]
async fn a_settle_that_failed_is_repeated_in_a_later_round_without_a_second_handling() {
    let house = House::new().await;
    house.arrives("ana@customer.example", "one", "");
    house.incoming.fail_once(Error::new(ErrorKind::Disconnected, Stage::Settle));
    house.work().await;
    house.clock.advance(Duration::from_secs(60));
    house.work().await;
    assert_eq!(house.host.subjects(), ["one"]);
    assert!(house.incoming.mails(house.inbox.id, "INBOX")[0].seen);
}

#[tokio::test]
async fn a_failed_listing_is_no_empty_folder() {
    let house = House::new().await;
    house.arrives("ana@customer.example", "one", "");
    house.work().await;
    house.incoming.fail(Error::new(ErrorKind::Disconnected, Stage::List));
    house.work().await;
    let book: &dyn HealthBook = house.postroom.store();
    let health = book.health(house.inbox.id).await.unwrap();
    assert_eq!(health.failures, 1);
    assert!(health.last_error.unwrap().contains("list"));
    house.incoming.recover();
    house.arrives("ana@customer.example", "two", "");
    house.clock.advance(Duration::from_secs(60));
    house.work().await;
    assert_eq!(house.host.subjects(), ["one", "two"]);
}

#[tokio::test]
async fn the_baseline_leaves_old_mail_alone_and_takes_everything_that_comes_after() {
    let house = House::with_inbox(Options::default(), form("new", "leave")).await;
    house.arrives("ana@customer.example", "old", "");
    house.work().await;
    house.arrives("ana@customer.example", "new", "");
    house.work().await;
    assert_eq!(house.host.subjects(), ["new"]);
    assert_eq!(house.incoming.mails(house.inbox.id, "INBOX").len(), 2);
}

#[tokio::test]
async fn a_baseline_of_days_takes_what_arrived_since_then() {
    let house = House::with_inbox(Options::default(), form("days:7", "leave")).await;
    let now = house.postroom.now();
    for (subject, days) in [("week", 6), ("month", 30)] {
        let mail = format!("From: a@customer.example\r\nSubject: {subject}\r\n\r\nx\r\n");
        let arrived = now - Duration::from_secs(days * 24 * 3600);
        house.incoming.deliver_dated(house.inbox.id, "INBOX", mail, arrived);
    }
    house.work().await;
    house.work().await;
    assert_eq!(house.host.subjects(), ["week"]);
}

#[tokio::test]
async fn a_round_takes_at_most_what_the_box_says_and_the_rest_follows() {
    let house =
        House::with_inbox(Options::default(), InboxDraft { per_round: Some(2), ..form("all", "leave") })
            .await;
    for number in 0..5 {
        house.arrives("ana@customer.example", &format!("m{number}"), "");
    }
    house.work().await;
    assert_eq!(house.host.subjects(), ["m0", "m1", "m2", "m3", "m4"]);
}

#[tokio::test]
async fn a_poison_mail_waits_or_dies_while_the_next_one_goes_on() {
    let house = House::with_options(Options { handler_calls: 2, ..Options::default() }).await;
    house.arrives("ana@customer.example", "poison", "");
    house.arrives("ana@customer.example", "good", "");
    house.arrives("ana@customer.example", "refused", "");
    house.host.will_say([None, Some(Answer::Done), Some(Answer::Refuse("no such customer".to_owned()))]);
    house.work().await;
    assert_eq!(house.host.subjects(), ["poison", "good", "refused"]);
    let desk: &dyn LedgerDesk = house.postroom.store();
    let poison = house.host.got.lock().unwrap()[0].id;
    let last = async || desk.show(poison).await.unwrap().unwrap().timeline.pop().unwrap().detail;
    let why = last().await;
    assert!(
        why.starts_with("the handler panicked: the handler was told to panic; called again after"),
        "{why}"
    );
    let reason = format!("the desk\nis closed {}", "x".repeat(1000));
    house.host.will_say([Some(Answer::Retry { after: Some(Duration::from_secs(5)), reason })]);
    house.clock.advance(Duration::from_secs(120));
    house.work().await;
    let states: Vec<State> = house.ledger().await.into_iter().map(|item| item.state).collect();
    assert_eq!(states, [State::Dead, State::Handled, State::Dead]);
    let attempts: Vec<(LedgerId, u32)> =
        house.host.got.lock().unwrap().iter().map(|delivery| (delivery.id, delivery.attempt)).collect();
    assert_eq!(attempts[3], (attempts[0].0, 2), "the same id at every call");
    let why = last().await;
    let is_whole =
        why.starts_with("failed 2 times, last: the desk is closed x") && why.ends_with("replay the mail");
    assert!(is_whole && why.len() < 500, "one line, with what to do: {why}");
    desk.replay(house.postroom.now(), &actor(), attempts[0].0).await.unwrap();
    house.work().await;
    assert_eq!(house.ledger().await[0].state, State::Handled);
}

#[tokio::test]
async fn an_answer_comes_back_to_the_record_of_the_mail_that_it_answers() {
    let house = House::new().await;
    let sent =
        Submission::text(contract("ACME"), "your ticket", "t").with_to(address("ana@customer.example"));
    let sent = sent.with_record(RecordId::parse("ticket-7").unwrap());
    let sent = house.postroom.submit(&sent).await.unwrap();
    house.work().await;
    let references = format!("References: {}\r\n", sent.message_id);
    house.arrives("ana@customer.example", "re", &references);
    let forged = "In-Reply-To: <aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@acme.example>\r\n";
    house.arrives("ana@customer.example", "forged", forged);
    house.work().await;
    let got = house.host.got.lock().unwrap();
    let records: Vec<_> = got.iter().map(|mail| mail.record.as_ref().map(ToString::to_string)).collect();
    assert_eq!(records, [Some("ticket-7".to_owned()), None]);
}

/// Programs that drop every field but the subject and the address answer all the same: the subject's token is asked last.
#[tokio::test]
async fn an_answer_is_found_by_its_tagged_reply_to_and_else_by_the_token_in_its_subject() {
    let house = House::new().await;
    let about = |record: &str| {
        let mail = Submission::text(contract("ACME"), "Your request [#*]", "t")
            .with_to(address("ana@customer.example"));
        mail.with_record(RecordId::parse(record).unwrap())
    };
    let mut first = about("INC-1");
    first.reply_to = Some("Desk <support+*@acme.example>".parse().unwrap());
    house.postroom.submit(&first).await.unwrap();
    let second = house.postroom.submit(&about("INC-2")).await.unwrap();
    house.work().await;
    let headers: Vec<_> = house
        .outgoing
        .carried()
        .iter()
        .map(|mail| postroom_core::mime::parse(mail.content.clone()))
        .collect();
    let [one, two] = &headers[..] else { panic!("two mails") };
    let reply_to = one.reply_to[0].address().clone();
    assert!(reply_to.as_str().starts_with("support+") && reply_to.local() != "support+*", "{reply_to}");
    assert!(one.subject != two.subject && !one.subject.contains('*'), "{}", one.subject);
    let record = async |to: &str, subject: &str| {
        let mail = format!("From: ana@customer.example\r\nTo: {to}\r\nSubject: {subject}\r\n\r\nThanks\r\n");
        house.deliver(house.inbox.id, mail);
        house.work().await;
        house.ledger().await.pop().unwrap().record.map(|record| record.to_string())
    };
    assert_eq!(record(reply_to.as_str(), "hello").await.as_deref(), Some("INC-1"));
    assert_eq!(
        record("support@acme.example", &format!("AW: {}", two.subject)).await.as_deref(),
        Some("INC-2")
    );
    // The address says more than a subject that somebody copied.
    assert_eq!(record(reply_to.as_str(), &two.subject).await.as_deref(), Some("INC-1"));
    assert_eq!(record("support@acme.example", "AW: Your request [#7]").await, None);
    // What lists show is what the host wrote.
    let desk: &dyn postroom_storage::QueueDesk = house.postroom.store();
    assert_eq!(desk.show(second.id).await.unwrap().unwrap().item.subject, "Your request [#*]");
}

#[tokio::test]
async fn a_message_id_that_can_be_guessed_ties_no_thread() {
    let house = House::new().await;
    let raw = "From: support@acme.example\r\nSubject: raw\r\nMessage-ID: <1@acme.example>\r\n\r\nx\r\n";
    let sent = Submission::raw(contract("ACME"), raw.into()).with_to(address("ana@customer.example"));
    house.postroom.submit(&sent.with_record(RecordId::parse("ticket-7").unwrap())).await.unwrap();
    house.arrives("eve@customer.example", "re", "In-Reply-To: <1@acme.example>\r\n");
    house.work().await;
    assert_eq!(house.outgoing.carried()[0].content, raw, "raw bytes leave as they are");
    assert_eq!(house.host.got.lock().unwrap()[0].record, None);
}

#[tokio::test]
async fn the_answer_to_a_received_mail_joins_its_thread() {
    let house = House::new().await;
    house.arrives("ana@customer.example", "question", "References: <root@customer.example>\r\n");
    house.work().await;
    let id = house.host.got.lock().unwrap()[0].id;
    let answer =
        Submission::text(contract("ACME"), "Re: question", "t").with_to(address("ana@customer.example"));
    house.postroom.submit(&answer.clone().with_in_reply_to(id)).await.unwrap();
    house.work().await;
    let text = String::from_utf8_lossy(&house.outgoing.carried()[0].content).replace("\r\n ", " ");
    assert!(text.contains("In-Reply-To: <question@customer.example>"), "{text}");
    assert!(text.contains("References: <root@customer.example> <question@customer.example>"), "{text}");
    let mut other = answer.with_in_reply_to(id);
    other.contract = contract("Other");
    house.postroom.submit(&other).await.expect_err("another contract's mail is not there");
}

#[tokio::test]
async fn a_reply_never_crosses_from_one_contract_into_another() {
    let house = House::new().await;
    let sent = house.submit("Other", &["eve@customer.example"]).await;
    house.work().await;
    house.arrives("eve@customer.example", "re", &format!("In-Reply-To: {}\r\n", sent.message_id));
    house.work().await;
    assert!(house.host.subjects().is_empty());
    let item = house.ledger().await.remove(0);
    assert_eq!((item.state, item.contract), (State::Quarantined, None));
    assert!(item.reasons[0].starts_with("other-contract Other"), "{:?}", item.reasons);
    let desk: &dyn LedgerDesk = house.postroom.store();
    desk.route(house.postroom.now(), &actor(), item.id, &contract("ACME")).await.unwrap();
    house.work().await;
    assert_eq!(house.host.subjects(), ["re"]);
}

#[tokio::test]
async fn a_box_of_several_contracts_sorts_by_address_and_leaves_the_rest_to_a_person() {
    let house = House::new().await;
    let mut other = Contract::new(contract("Other")).with_inbox(house.inbox.id);
    other.domains.push(postroom_core::address::Domain::parse("known.example").unwrap());
    other.requesters = Requesters::Refuse;
    house.postroom.save_contract(&actor(), &other).await.unwrap();
    house.arrives("bob@known.example", "known", "");
    house.arrives("eve@stranger.example", "stranger", "");
    house.work().await;
    let items = house.ledger().await;
    assert_eq!(items[0].contract, Some(contract("Other")));
    assert_eq!(items[0].reasons, ["sender-domain known.example"]);
    assert_eq!((items[1].state, items[1].contract.clone()), (State::Triage, None));
    assert_eq!(house.host.subjects(), ["known"]);
}

#[tokio::test]
async fn a_contract_that_refuses_strangers_keeps_their_mail_and_does_not_hand_it_over() {
    let house = House::new().await;
    let mut acme = house.postroom.contract(&contract("ACME")).await.unwrap();
    acme.requesters = Requesters::Refuse;
    house.postroom.save_contract(&actor(), &acme).await.unwrap();
    house.arrives("eve@stranger.example", "stranger", "");
    house.work().await;
    assert!(house.host.subjects().is_empty());
    assert_eq!(house.ledger().await[0].state, State::Ignored);
    assert!(!house.incoming.mails(house.inbox.id, "INBOX")[0].seen, "what was not taken stays as it was");
}

#[tokio::test]
async fn a_mail_that_is_too_large_is_a_dead_letter_and_holds_up_nobody() {
    let house = House::new().await;
    let large = format!("From: a@b.example\r\nSubject: large\r\n\r\n{}\r\n", "x".repeat(1 << 21));
    house.deliver(house.inbox.id, large);
    house.arrives("ana@customer.example", "small", "");
    house.work().await;
    house.work().await;
    assert_eq!(house.host.subjects(), ["small"]);
    let items = house.ledger().await;
    assert_eq!((items.len(), items[0].state), (2, State::Dead));
    assert!(items[0].reasons.last().unwrap().contains("larger than"), "{:?}", items[0].reasons);
}

#[tokio::test]
async fn a_mail_of_several_pieces_reaches_the_handler_byte_for_byte() {
    let house = House::new().await;
    let text: String = (0..60_000).map(|line| format!("line {line}\r\n")).collect();
    let mail = format!("From: a@b.example\r\nSubject: pieces\r\n\r\n{text}");
    house.deliver(house.inbox.id, mail.clone());
    house.work().await;
    let got = house.host.got.lock().unwrap();
    assert!(mail.len() > 2 * postroom_storage::PIECE);
    assert!(got[0].raw == mail.as_bytes(), "{} of {} bytes", got[0].raw.len(), mail.len());
}

#[tokio::test]
async fn attachments_that_the_box_does_not_accept_are_named_and_not_handed_over() {
    let house = House::new().await;
    let mail = "From: a@b.example\r\nSubject: files\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhi\r\n\
        --b\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=\"a.EXE\"\r\n\r\nMZ\r\n\
        --b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=\"a.pdf\"\r\n\r\nPDF\r\n--b--\r\n";
    house.deliver(house.inbox.id, mail.to_owned());
    house.work().await;
    let got = house.host.got.lock().unwrap();
    assert_eq!(got[0].refused_attachments, ["a.EXE"]);
    let names: Vec<_> = got[0].mail.attachments.iter().map(|file| file.name.clone()).collect();
    assert_eq!(names, ["a.pdf"]);
}

/// A handler that claims to have committed, after it did or did not.
struct CommitsBy(Arc<MemoryStore>, AtomicBool);

#[async_trait]
impl MessageHandler for CommitsBy {
    async fn handle(&self, delivery: Delivery) -> Answer {
        if self.1.swap(true, Ordering::SeqCst) {
            // As `complete_in` of a SQL store does in the host's transaction.
            let Committing { id, claim } = delivery.claim();
            let (event, due_at, detail) = (Event::Handle, self.0.now(), String::new());
            let result = HandlerResult { id, claim, event, due_at, detail };
            assert!(self.0.finish(due_at, &result).await.unwrap());
        }
        Answer::Committed
    }
}

// Seen to fail when the engine believes what the handler says.
#[tokio::test]
async fn what_a_handler_says_to_have_committed_is_believed_only_when_it_stands_there() {
    let house = House::new().await;
    house.arrives("ana@customer.example", "one", "");
    let handler = Arc::new(CommitsBy(house.store.clone(), AtomicBool::new(false)));
    let postroom = Postroom::builder(house.store.clone())
        .with_keyring(house.keyring.clone())
        .with_incoming(house.incoming.clone())
        .with_handler(handler)
        .build();
    let round = async || {
        let run = postroom.run_with(Work::all().until_idle(), std::future::pending());
        tokio::time::timeout(Duration::from_secs(20), run).await.expect("idle").unwrap();
        house.ledger().await[0].clone()
    };
    let first = round().await;
    assert_eq!(first.state, State::Stored, "its transaction was rolled back");
    let desk: &dyn LedgerDesk = house.postroom.store();
    let last = desk.show(first.id).await.unwrap().unwrap().timeline.pop().unwrap();
    assert!(last.detail.contains("said committed, and nothing was"), "{}", last.detail);
    house.clock.advance(Duration::from_secs(3600));
    assert_eq!(round().await.state, State::Handled);
    let record = desk.show(first.id).await.unwrap().unwrap();
    assert_eq!((record.attempts, record.timeline.last().unwrap().what.as_str()), (2, "handle"));
}

/// Has the inbox take everything when a reader connects, who has read its settings by then.
struct Editing {
    inner: Arc<MemoryIncoming>,
    store: Arc<MemoryStore>,
    edited: Mailbox,
}

#[async_trait]
impl IncomingTransport for Editing {
    async fn open(&self, route: &Route) -> postroom_transport::Result<Box<dyn IncomingSession>> {
        let change = Change::new(self.edited.changed_at, actor());
        // The second time it is a conflict.
        let _ = Mailboxes::save(&*self.store, &change, &self.edited, SecretWrite::Keep).await;
        self.inner.open(route).await
    }

    async fn probe<'a>(&self, route: &Route, folder: Option<&'a str>) -> ProbeReport {
        self.inner.probe(route, folder).await
    }
}

/// An operator widens the baseline before the reader writes what the old one leaves out. Would miss a write that counts whatever the
/// settings are by now: the mail is left out for good. Seen to fail so.
#[tokio::test]
async fn a_baseline_that_is_widened_while_the_old_one_is_applied_counts() {
    let house = House::with_inbox(Options::default(), form("new", "leave")).await;
    house.arrives("ana@customer.example", "one", "");
    let mut edited = house.inbox.clone();
    edited.settings = inbox("imap.acme.example", form("all", "leave")).check().unwrap();
    let (inner, store) = (house.incoming.clone(), house.store.clone());
    let postroom = Postroom::builder(house.store.clone())
        .with_keyring(house.keyring.clone())
        .with_incoming(Arc::new(Editing { inner, store, edited }))
        .with_handler(house.host.clone())
        .build();
    let run = postroom.run_with(Work::all().until_idle(), std::future::pending());
    tokio::time::timeout(Duration::from_secs(20), run).await.expect("the worker becomes idle").unwrap();
    assert_eq!(house.host.subjects(), ["one"]);
}

/// A handler that never answers, and how long it was told to have taken.
#[derive(Default)]
struct Hanging {
    told: Mutex<Vec<Duration>>,
}

#[async_trait]
impl MessageHandler for Hanging {
    async fn handle(&self, _: Delivery) -> Answer {
        std::future::pending().await
    }
}

impl Observer for Hanging {
    fn observe(&self, happened: &Happened) {
        if let Happened::Unanswered { since, .. } = happened {
            self.told.lock().unwrap().push(*since);
        }
    }
}

/// Would miss a handler that blocks its thread: it holds up what should tell of it.
#[tokio::test(start_paused = true)]
async fn a_handler_that_does_not_answer_is_told_again_and_again_while_its_claim_is_kept() {
    let house = House::new().await;
    let hanging = Arc::new(Hanging::default());
    let postroom = Postroom::builder(house.store.clone())
        .with_keyring(house.keyring.clone())
        .with_incoming(house.incoming.clone())
        .with_handler(hanging.clone())
        .with_observer(hanging.clone())
        .build();
    house.arrives("ana@customer.example", "one", "");
    let running = Running::begin(&postroom);
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    tokio::time::sleep(minutes(35)).await;
    let told = hanging.told.lock().unwrap().clone();
    assert_eq!(told.iter().map(Duration::as_secs).collect::<Vec<_>>(), [600, 1200, 1800]);
    let work: &dyn LedgerWork = house.postroom.store();
    assert_eq!(work.open_claims().await.unwrap(), 1);
    running.stop().await;
}
