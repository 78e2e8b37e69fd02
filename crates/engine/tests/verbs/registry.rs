//! Registering, linking, probing and explaining.

use postroom_core::contract::Contract;
use postroom_core::id::EventNumber;
use postroom_core::id::{FlowId, IdempotencyKey, MailboxId, StepId, StepKey};
use postroom_core::mailbox::{InboxDraft, Kind, MailboxDraft, Status};
use postroom_core::message::Submission;
use postroom_core::secret::SecretChange;
use postroom_core::step::{Step, StepRecipient};
use postroom_core::template::{Template, Values};
use postroom_engine::{Error, ErrorKind};
use postroom_storage::{Audit, ErrorKind as StoreKind, MailboxQuery};

use crate::fixture::*;

fn codes(error: &Error) -> Vec<&'static str> {
    match error.kind() {
        ErrorKind::Invalid(violations) => violations.all().iter().map(|violation| violation.code()).collect(),
        kind => panic!("{kind:?}"),
    }
}

fn key(step: &str) -> StepKey {
    StepKey::new(FlowId::parse("requests").unwrap(), StepId::parse(step).unwrap())
}

fn values_of_seven() -> Values {
    Values::default().with("N", "7").with("WHO", "boss")
}

#[tokio::test]
async fn every_violation_is_said_at_once_and_nothing_is_registered() {
    let house = House::new().await;
    let mut draft = outbox("http://x", "no address", Some(""));
    draft.description = String::new();
    draft.port = Some(70_000);
    let error =
        house.postroom.register(&actor(), &draft, SecretChange::Keep, Status::Active).await.unwrap_err();
    let codes = codes(&error);
    for code in [
        "mailbox.description",
        "mailbox.server",
        "mailbox.port",
        "mailbox.user",
        "address.form",
        "mailbox.password-required",
    ] {
        assert!(codes.contains(&code), "{code} is missing in {codes:?}");
    }
    assert_eq!(house.postroom.search(&MailboxQuery::default()).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_kept_password_goes_nowhere_else() {
    let house = House::new().await;
    let (id, revision) = (house.own.id, house.own.revision);
    let moved = outbox("smtp.attacker.example", "support@acme.example", Some("u"));
    let error = house.postroom.edit(&actor(), id, revision, &moved, SecretChange::Keep).await.unwrap_err();
    assert_eq!(codes(&error), ["mailbox.password-again"]);
    let error = house.postroom.probe_draft(&moved, SecretChange::Keep, Some(id)).await.unwrap_err();
    assert_eq!(codes(&error), ["mailbox.password-again"]);
    house.postroom.edit(&actor(), id, revision, &moved, password()).await.unwrap();
}

#[tokio::test]
async fn a_stale_edit_is_refused_and_says_so() {
    let house = House::new().await;
    let (id, revision) = (house.own.id, house.own.revision);
    house.postroom.set_status(&actor(), id, Status::Disabled).await.unwrap();
    let draft = MailboxDraft::from(&house.own.settings);
    let error = house.postroom.edit(&actor(), id, revision, &draft, SecretChange::Keep).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("conflict", &ErrorKind::Store(StoreKind::Conflict)));
}

#[tokio::test]
async fn a_link_to_a_box_that_is_not_there_or_of_the_wrong_kind_is_refused() {
    let house = House::new().await;
    for outbox in [MailboxId::new(99), house.inbox.id] {
        let linked = Contract::new(contract("X")).with_outbox(outbox, None);
        let error = house.postroom.save_contract(&actor(), &linked).await.unwrap_err();
        assert_eq!(codes(&error), ["contract.outbox"]);
        let error =
            house.postroom.save_step(&actor(), &Step::new(key("a")).with_outbox(outbox)).await.unwrap_err();
        assert_eq!(codes(&error), ["step.outbox"]);
    }
    let linked = Contract::new(contract("X")).with_inbox(house.own.id);
    let error = house.postroom.save_contract(&actor(), &linked).await.unwrap_err();
    assert_eq!(codes(&error), ["contract.inbox"]);
}

#[tokio::test]
async fn a_step_writes_to_its_recipients_through_the_outbox_of_its_setup() {
    let house = House::new().await;
    let template = Template::new("Request ${N} opened", "Dear ${WHO}", None).unwrap();
    let step = Step::new(key("opened"))
        .with_outbox(house.standard.id)
        .with_template(template)
        .with_recipients(vec![StepRecipient::parse("Boss <boss@acme.example>").unwrap()]);
    house.postroom.save_step(&actor(), &step).await.unwrap();
    let sent =
        house.postroom.notify(&contract("ACME"), &key("opened"), values_of_seven(), None).await.unwrap();
    assert_eq!((sent.outbox, sent.reasons[0].to_string()), (house.standard.id, "step".to_owned()));
    let explained = house.postroom.explain(&contract("ACME"), Some(&key("opened")), None).await.unwrap();
    assert_eq!(explained.reasons, sent.reasons, "explain says what sending does");
    house.work().await;
    let text = String::from_utf8_lossy(&house.outgoing.carried()[0].content).into_owned();
    assert!(text.contains("Subject: Request 7 opened") && text.contains("Dear boss"), "{text}");
    let notice = Submission::template(contract("ACME"), key("opened"), values_of_seven());
    let notice = notice.with_idempotency_key(IdempotencyKey::parse("opened-7").unwrap());
    let notice = house.postroom.addressed(notice).await.unwrap();
    let (first, again) =
        (house.postroom.submit(&notice).await.unwrap(), house.postroom.submit(&notice).await.unwrap());
    assert_eq!((first.id, again.existing), (again.id, true), "a notice that is repeated is one");
    let missing =
        house.postroom.notify(&contract("ACME"), &key("opened"), Values::default(), None).await.unwrap_err();
    assert_eq!(codes(&missing), ["message.values", "message.values"]);
}

#[tokio::test]
async fn the_name_of_a_recipient_that_nobody_knows_is_an_error_and_no_silence() {
    let house = House::new().await;
    let step = Step::new(key("named"))
        .with_template(Template::new("s", "t", None).unwrap())
        .with_recipients(vec![StepRecipient::parse("approvers").unwrap()]);
    house.postroom.save_step(&actor(), &step).await.unwrap();
    let error =
        house.postroom.notify(&contract("ACME"), &key("named"), Values::default(), None).await.unwrap_err();
    assert_eq!(codes(&error), ["message.recipients"]);
}

#[tokio::test]
async fn a_mailbox_in_use_is_not_removed_without_a_replacement() {
    let house = House::new().await;
    let error = house.postroom.remove(&actor(), house.own.id, None).await.unwrap_err();
    assert_eq!(error.code(), "in-use");
    assert_eq!(house.postroom.uses(house.own.id).await.unwrap().contracts, [contract("ACME")]);
    house.postroom.remove(&actor(), house.own.id, Some(house.standard.id)).await.unwrap();
    let sent = house.submit("ACME", &["ana@customer.example"]).await;
    assert_eq!(sent.outbox, house.standard.id);
}

#[tokio::test]
async fn no_password_is_in_audit_debug_or_error() {
    let house = House::new().await;
    let audit: &dyn Audit = house.postroom.store();
    let entries = audit.entries(None, EventNumber::new(0), 100).await.unwrap();
    assert!(entries.len() >= 5);
    let mailbox = house.postroom.mailbox(house.own.id).await.unwrap();
    let all = format!("{entries:?} {:?} {mailbox:?} {:?}", house.postroom, password());
    assert!(!all.contains("canary"), "{all}");
}

#[tokio::test]
async fn a_password_without_a_key_is_refused_and_says_what_to_do() {
    let house = House::new().await;
    let keyless = postroom_engine::Postroom::builder(house.store.clone()).build();
    let draft = outbox("smtp.acme.example", "a@acme.example", Some("u"));
    let error = keyless.register(&actor(), &draft, password(), Status::Active).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Sealing);
    assert!(error.to_string().contains("sealing key"), "{error}");
}

#[tokio::test]
async fn a_probe_changes_nothing_and_needs_no_saved_box() {
    let house = House::new().await;
    let draft =
        inbox("imap.acme.example", InboxDraft { provider: "imaps".to_owned(), ..InboxDraft::default() });
    let report = house.postroom.probe_draft(&draft, password(), None).await.unwrap();
    assert!(!report.stages().is_empty());
    let query = MailboxQuery { kind: Some(Kind::Inbox), ..MailboxQuery::default() };
    assert_eq!(house.postroom.search(&query).await.unwrap().len(), 1);
    assert!(house.postroom.probe(house.own.id).await.unwrap().passed());
}
