//! What an operator does about mail that was submitted.

use std::time::Duration;

use postroom_core::contract::Contract;
use postroom_core::id::WorkerId;
use postroom_core::mailbox::SettingsDraft;
use postroom_core::mailbox::Status;
use postroom_core::message::Submission;
use postroom_core::queue::{Event, State};
use postroom_core::resolve::Unresolved;
use postroom_core::secret::SecretChange;
use postroom_engine::{ErrorKind, Submitted, Work};
use postroom_storage::{
    Bodies, ClaimMark, ErrorKind as StoreKind, HealthBook, Pruned, QueueDesk, QueueWork, Recovered,
};
use postroom_transport::{Error, ErrorKind as TransportKind, Stage};

use crate::fixture::*;

fn error(kind: TransportKind, stage: Stage) -> Error {
    Error::new(kind, stage)
}

fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 60 * 60)
}

#[tokio::test]
async fn a_mail_that_is_rerouted_leaves_once_by_the_new_outbox_with_the_same_message_id() {
    let house = House::new().await;
    let mail = house.submit("ACME", &["ana@customer.example"]).await;
    house.postroom.reroute(&actor(), mail.id, house.standard.id).await.unwrap();
    house.work().await;
    let carried = house.outgoing.carried();
    assert_eq!(carried.len(), 1);
    assert_eq!(carried[0].mailbox, house.standard.id);
    let text = String::from_utf8(carried[0].content.to_vec()).unwrap();
    for line in [
        "From: desk@standard.example\r\n",
        "Reply-To: support@acme.example\r\n",
        "To: ana@customer.example\r\n",
        &format!("Message-ID: {}\r\n", mail.message_id),
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("From: support@acme.example"), "{text}");
    // And back, before it is sent: it is what it was.
    let mail = house.submit("ACME", &["bob@customer.example"]).await;
    let body = async || {
        let record = house.show(&mail).await;
        house.store.piece(record.body.unwrap(), 0).await.unwrap().unwrap()
    };
    let before = body().await;
    for outbox in [house.standard.id, house.own.id] {
        house.postroom.reroute(&actor(), mail.id, outbox).await.unwrap();
    }
    assert_eq!(body().await, before);
}

/// Promise P2. Would miss an outbox that nobody linked, and bytes that would no longer be what their author signed.
#[tokio::test]
async fn a_reroute_that_may_not_be_says_why_and_changes_nothing() {
    let house = House::new().await;
    let stranger = outbox("smtp.stranger.example", "x@stranger.example", None);
    let stranger =
        house.postroom.register(&actor(), &stranger, SecretChange::Keep, Status::Active).await.unwrap();
    let mail = house.submit("ACME", &["ana@customer.example"]).await;
    let before = house.show(&mail).await;
    let error = house.postroom.reroute(&actor(), mail.id, stranger.id).await.unwrap_err();
    let not_named = Unresolved::NotNamed { outbox: stranger.id };
    assert_eq!(error.kind(), &ErrorKind::Unresolved(not_named));
    assert_eq!(house.show(&mail).await, before);
    let acme = house.postroom.contract(&contract("ACME")).await.unwrap();
    let mut listing: Contract = acme;
    listing.allowed_outboxes = Some(vec![stranger.id]);
    house.postroom.save_contract(&actor(), &listing).await.unwrap();
    house.postroom.reroute(&actor(), mail.id, stranger.id).await.unwrap();
    assert_eq!(house.show(&mail).await.item.outbox, stranger.id);
    let bytes = b"From: support@acme.example\r\nSubject: raw\r\n\r\nx\r\n".to_vec();
    let raw = Submission::raw(contract("ACME"), bytes).with_to(address("ana@customer.example"));
    let raw = house.postroom.submit(&raw).await.unwrap();
    let error = house.postroom.reroute(&actor(), raw.id, house.standard.id).await.unwrap_err();
    assert!(error.to_string().contains("raw bytes"), "{error}");
    house.work().await;
    let error = house.postroom.reroute(&actor(), mail.id, house.standard.id).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Store(StoreKind::NotPossible { state: "accepted" }));
}

#[tokio::test]
async fn what_its_outbox_held_goes_by_the_new_one_and_what_a_person_held_waits() {
    let house = House::new().await;
    let held = house.submit("ACME", &["ana@customer.example"]).await;
    let by_person = house.submit("ACME", &["bob@customer.example"]).await;
    let desk: &dyn QueueDesk = house.postroom.store();
    desk.decide(house.postroom.now(), &actor(), by_person.id, Event::Hold).await.unwrap();
    // The outbox loses the sender: what is sent from it is held.
    let draft = outbox("smtp.acme.example", "new@acme.example", Some("u"));
    let own = house.postroom.mailbox(house.own.id).await.unwrap();
    house.postroom.edit(&actor(), own.id, own.revision, &draft, SecretChange::Keep).await.unwrap();
    house.work().await;
    assert_eq!(house.state(&held).await, "held");
    for mail in [&held, &by_person] {
        house.postroom.reroute(&actor(), mail.id, house.own.id).await.unwrap();
        assert_eq!(house.show(mail).await.item.sender.address().as_str(), "new@acme.example");
    }
    house.work().await;
    assert_eq!(house.state(&held).await, State::Accepted.word());
    assert_eq!(house.state(&by_person).await, State::Held.word());
}

#[tokio::test]
async fn retention_prunes_while_the_worker_runs_and_an_unfinished_mail_is_never_touched() {
    let house = House::new().await;
    let sent = house.submit("ACME", &["ana@customer.example"]).await;
    house.work().await;
    let held = house.submit("ACME", &["bob@customer.example"]).await;
    let desk: &dyn QueueDesk = house.postroom.store();
    desk.decide(house.postroom.now(), &actor(), held.id, Event::Hold).await.unwrap();
    house.clock.advance(days(30));
    assert_eq!(house.postroom.prune_sent().await.unwrap(), Pruned { bodies: 1, ..Pruned::default() });
    assert_eq!(house.show(&sent).await.body, None);
    assert!(house.show(&held).await.body.is_some());
    house.clock.advance(days(335));
    assert_eq!(house.postroom.prune_sent().await.unwrap().mails, 1);
    assert!(desk.show(sent.id).await.unwrap().is_none());
    // Nobody asked the worker to: it does so at its start. What it expires there is pruned a retention later.
    let failed = house.submit("ACME", &["cyd@customer.example"]).await;
    house.outgoing.refuse(address("cyd@customer.example"), error(TransportKind::Refused, Stage::RcptTo));
    house.work().await;
    assert_eq!(house.state(&failed).await, "refused");
    house.clock.advance(days(365));
    house.work().await;
    assert!(desk.show(failed.id).await.unwrap().is_none());
}

#[tokio::test]
async fn after_a_restore_nothing_is_sent_again_before_a_person_says_so() {
    let house = House::new().await;
    let old = house.submit("ACME", &["ana@customer.example"]).await;
    let backup = house.postroom.now();
    house.clock.advance(Duration::from_secs(3600));
    let new = house.submit("ACME", &["bob@customer.example"]).await;
    assert_eq!(house.postroom.recover(&actor(), backup).await.unwrap(), Recovered { doubted: 1, busy: 0 });
    house.work().await;
    assert_eq!(
        (house.state(&old).await.as_str(), house.state(&new).await.as_str()),
        ("in-doubt", "accepted")
    );
    assert_eq!(house.outgoing.carried().len(), 1);
    let desk: &dyn QueueDesk = house.postroom.store();
    desk.decide(house.postroom.now(), &actor(), old.id, Event::Retry).await.unwrap();
    house.work().await;
    assert_eq!(house.state(&old).await, "accepted");
}

/// Acme's outbox gets the inbox as its companion, which has these folders.
async fn with_companion(house: &House, folders: &[&str]) {
    let mut draft = outbox("smtp.acme.example", "support@acme.example", Some("u"));
    if let SettingsDraft::Outbox(form) = &mut draft.settings {
        form.companion = Some(house.inbox.id);
    }
    let own = &house.own;
    house.postroom.edit(&actor(), own.id, own.revision, &draft, SecretChange::Keep).await.unwrap();
    for folder in folders {
        house.incoming.create_folder(house.inbox.id, folder);
    }
}

/// A mail whose reply was lost behind the dot.
async fn doubted(house: &House, to: &[&str]) -> Submitted {
    house.outgoing.fail_once(error(TransportKind::Unanswered, Stage::Dot));
    let mail = house.submit("ACME", to).await;
    house.run(Work::all().only_sending().until_idle()).await;
    assert_eq!(house.state(&mail).await, "in-doubt");
    // The outbox rests after a lost connection.
    house.clock.advance(Duration::from_secs(60));
    mail
}

fn copy(house: &House, folder: &str, message_id: &str) {
    let copy = format!("From: support@acme.example\r\nMessage-ID: {message_id}\r\n\r\ntext\r\n");
    house.incoming.deliver(house.inbox.id, folder, copy);
}

#[tokio::test]
async fn a_mail_in_doubt_that_is_in_the_sent_folder_is_accepted_and_not_sent_again() {
    let house = House::new().await;
    with_companion(&house, &["Sent"]).await;
    let mail = doubted(&house, &["ana@customer.example", "bob@customer.example"]).await;
    let other = doubted(&house, &["cyd@customer.example"]).await;
    let carried = house.outgoing.carried().len();
    assert_eq!(house.state(&mail).await, "in-doubt", "not found: nothing is proven");
    copy(&house, "Sent", &mail.message_id);
    copy(&house, "INBOX", &other.message_id);
    house.work().await;
    let record = house.show(&mail).await;
    assert!(record.recipients.iter().all(|one| one.state == State::Accepted), "{record:?}");
    let told = record.timeline.last().unwrap();
    let want = format!("found in folder Sent of inbox {}: {}", house.inbox.id, mail.message_id);
    assert_eq!((told.what.as_str(), told.detail.as_str(), &told.actor), ("accept", want.as_str(), &None));
    // Would miss a find of another mail, and one in another folder.
    assert_eq!(house.state(&other).await, "in-doubt");
    assert_eq!(house.outgoing.carried().len(), carried, "no second dot");
}

/// Would miss a recipient whom the server refused, when the worker died before it could say so.
#[tokio::test]
async fn a_find_is_no_proof_for_several_recipients_of_an_attempt_that_told_nothing() {
    let house = House::new().await;
    with_companion(&house, &["Sent"]).await;
    let work: &dyn QueueWork = house.postroom.store();
    let mut mails = Vec::new();
    for to in [&["ana@customer.example", "bob@customer.example"][..], &["cyd@customer.example"]] {
        let mail = house.submit("ACME", to).await;
        mails.push(mail);
    }
    let now = house.postroom.now();
    let until = now + Duration::from_secs(30);
    let claimed = work.claim(now, house.own.id, 2, WorkerId::new(now, [1; 10]), until).await.unwrap();
    let marks: Vec<_> = claimed.iter().map(|one| ClaimMark { id: one.id, claim: one.claim }).collect();
    assert_eq!(work.mark(now, &marks).await.unwrap(), [true, true]);
    house.clock.advance(Duration::from_secs(31));
    for mail in &mails {
        copy(&house, "Sent", &mail.message_id);
    }
    house.work().await;
    assert_eq!(
        (house.state(&mails[0]).await.as_str(), house.state(&mails[1]).await.as_str()),
        ("in-doubt", "accepted")
    );
}

#[tokio::test]
async fn a_companion_that_can_not_be_searched_leaves_the_doubt_and_rests() {
    let house = House::new().await;
    with_companion(&house, &["Sent"]).await;
    let mail = doubted(&house, &["ana@customer.example"]).await;
    copy(&house, "Sent", &mail.message_id);
    house.incoming.fail_once(error(TransportKind::Unreachable, Stage::Tcp));
    house.run(Work::all().only_sending().until_idle()).await;
    assert_eq!(house.state(&mail).await, "in-doubt");
    let book: &dyn HealthBook = house.postroom.store();
    let health = book.health(house.inbox.id).await.unwrap();
    assert!(health.last_error.is_some_and(|error| error.contains("mail in doubt")) && !health.suspended);
    house.clock.advance(Duration::from_secs(60));
    house.run(Work::all().only_sending().until_idle()).await;
    assert_eq!(house.state(&mail).await, "accepted");
}
