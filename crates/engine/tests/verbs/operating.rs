//! What an operator does about mail that was submitted.

use postroom_core::contract::Contract;
use postroom_core::mailbox::Status;
use postroom_core::message::Submission;
use postroom_core::queue::{Event, State};
use postroom_core::resolve::Unresolved;
use postroom_core::secret::SecretChange;
use postroom_engine::ErrorKind;
use postroom_storage::{Bodies, ErrorKind as StoreKind, QueueDesk};

use crate::fixture::*;

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
