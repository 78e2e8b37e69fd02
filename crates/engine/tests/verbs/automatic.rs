//! Mail that programs write: answers that end, bounces that find their mail, addresses that get no more.

use std::time::Duration;

use postroom_core::automatic::Kind;
use postroom_core::id::RecordId;
use postroom_core::ledger;
use postroom_core::mailbox::{SettingsDraft, Status};
use postroom_core::message::{Automation, OnSuppressed, Submission};
use postroom_core::queue::State;
use postroom_core::suppression::Cause;
use postroom_engine::{Delivery, ErrorKind, Submitted};
use postroom_storage::{
    ErrorKind as StoreKind, LedgerDesk, LedgerItem, LedgerQuery, SuppressionQuery, Suppressions,
};

use crate::fixture::*;

async fn ledger_of(house: &House) -> Vec<LedgerItem> {
    let desk: &dyn LedgerDesk = house.postroom.store();
    desk.list(&LedgerQuery::default()).await.unwrap()
}

fn answer(to: &Delivery) -> Submission {
    let from = to.mail.from[0].address().clone();
    Submission::text(contract("ACME"), format!("Re: {}", to.mail.subject), "I am a program")
        .with_to(from)
        .with_in_reply_to(to.id)
        .with_automatic(Automation::Reply)
}

/// What a peer leaves of a mail.
type Passes = fn(&str) -> String;

/// Two postrooms whose handlers answer whatever they get: how many mails each sent until nothing moved.
async fn converse(passes: Passes) -> [usize; 2] {
    let houses = [House::new().await, House::new().await];
    houses[0]
        .postroom
        .submit(
            &Submission::text(contract("ACME"), "hello", "I am a person")
                .with_to(address("support@other.example")),
        )
        .await
        .unwrap();
    let (mut passed, mut answered) = ([0; 2], [0; 2]);
    for _ in 0..20 {
        for one in [0, 1] {
            houses[one].work().await;
            let other = &houses[1 - one];
            let carried = houses[one].outgoing.carried();
            for mail in &carried[passed[one]..] {
                let text = String::from_utf8(mail.content.to_vec()).unwrap();
                other.deliver(other.inbox.id, passes(&text));
            }
            passed[one] = carried.len();
            houses[one].clock.advance(Duration::from_secs(61));
        }
        for one in [0, 1] {
            houses[one].work().await;
            let got = houses[one].host.got.lock().unwrap().clone();
            for delivery in &got[answered[one]..] {
                match houses[one].postroom.submit(&answer(delivery)).await {
                    Ok(_) => {}
                    Err(error) => assert!(
                        matches!(
                            error.kind(),
                            ErrorKind::AnswersAutomatic { .. } | ErrorKind::Store(StoreKind::Budget { .. })
                        ),
                        "{error}"
                    ),
                }
            }
            answered[one] = got.len();
        }
    }
    [houses[0].outgoing.carried().len(), houses[1].outgoing.carried().len()]
}

/// Would miss answers whose headers say nothing, which the next test sends.
#[tokio::test]
async fn two_postrooms_that_answer_each_other_stop_after_two_mails() {
    assert_eq!(converse(ToOwned::to_owned).await, [1, 1]);
}

/// Without the budget they never end.
#[tokio::test]
async fn with_a_peer_that_strips_all_headers_each_answers_twice() {
    let stripped = |text: &str| {
        let kept = ["from:", "to:", "subject:", "mime-version:", "content-"];
        let (header, body) = text.split_once("\r\n\r\n").unwrap();
        let lines = header.split("\r\n").filter(|line| {
            let line = line.to_ascii_lowercase();
            kept.iter().any(|name| line.starts_with(name))
        });
        format!("{}\r\n\r\n{body}", lines.collect::<Vec<_>>().join("\r\n"))
    };
    assert_eq!(converse(stripped).await, [3, 2], "the person's mail, and two answers each");
}

#[tokio::test]
async fn an_answer_of_a_program_says_so_and_has_the_null_path() {
    let house = House::new().await;
    house.arrives("ana@customer.example", "one", "");
    house.work().await;
    let got = house.host.got.lock().unwrap()[0].clone();
    let own = answer(&got).with_header("auto-submitted", "no");
    house.postroom.submit(&own).await.unwrap();
    let notice = Submission::text(contract("ACME"), "news", "text").with_to(address("bea@customer.example"));
    house.postroom.submit(&notice.with_automatic(Automation::Notice)).await.unwrap();
    house.work().await;
    let carried = house.outgoing.carried();
    let text = |n: usize| String::from_utf8(carried[n].content.to_vec()).unwrap();
    let reply = text(0);
    assert!(reply.contains("Auto-Submitted: auto-replied\r\nX-Auto-Response-Suppress: All\r\n"), "{reply}");
    assert_eq!(reply.to_ascii_lowercase().matches("auto-submitted").count(), 1, "{reply}");
    assert_eq!(carried[0].mail_from, None);
    assert!(text(1).contains("Auto-Submitted: auto-generated\r\n"));
    assert_eq!(carried[1].mail_from, Some(address("support@acme.example")));
}

#[tokio::test]
async fn a_program_answers_no_program_and_a_person_may() {
    let house = House::new().await;
    house.arrives("ana@customer.example", "away", "Auto-Submitted: auto-replied\r\n");
    house.work().await;
    let got = house.host.got.lock().unwrap()[0].clone();
    assert_eq!(got.mail.automatic.as_ref().map(|automatic| automatic.kind), Some(Kind::Reply));
    assert_eq!(got.reasons, ["box", "automatic reply: auto-submitted: auto-replied"]);
    let refused = house.postroom.submit(&answer(&got)).await.unwrap_err();
    assert_eq!(refused.code(), "answers-automatic");
    assert!(refused.to_string().contains("auto-submitted: auto-replied"), "{refused}");
    let mut person = answer(&got);
    person.automatic = None;
    house.postroom.submit(&person).await.unwrap();
}

fn bounce(id: &str, to: &str, action: &str, status: &str) -> String {
    format!(
        "Return-Path: <>\r\nFrom: MAILER-DAEMON@mx.example\r\nTo: support@acme.example\r\nAuto-Submitted: auto-replied\r\n\
         Subject: Undelivered\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n\
         --b\r\n\r\nSorry.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example\r\n\r\n\
         Final-Recipient: rfc822; {to}\r\nAction: {action}\r\nStatus: {status}\r\nDiagnostic-Code: smtp; 550 no such user\r\n\
         --b\r\nContent-Type: text/rfc822-headers\r\n\r\nMessage-ID: {id}\r\n--b--\r\n"
    )
}

async fn sent(house: &House, from: &str, to: &[&str]) -> Submitted {
    let mail = house.submit(from, to).await;
    house.work().await;
    mail
}

async fn comes_back(house: &House, bytes: String) -> LedgerItem {
    house.clock.advance(Duration::from_secs(61));
    house.deliver(house.inbox.id, bytes);
    house.work().await;
    ledger_of(house).await.pop().unwrap()
}

#[tokio::test]
async fn a_bounce_finds_its_mail_and_stops_what_would_bounce_again() {
    let house = House::new().await;
    let to = ["ana@client.example", "bea@client.example"];
    let mail = sent(&house, "ACME", &to).await;
    let row = comes_back(&house, bounce(&mail.message_id, "Ana@client.example", "failed", "5.1.1")).await;
    assert_eq!(row.state, ledger::State::Handled, "the host sees it, too");
    assert_eq!(row.reasons.last(), Some(&format!("reports on {}", mail.id)));
    assert_eq!(
        house.host.got.lock().unwrap()[0].mail.automatic.as_ref().map(|one| one.kind),
        Some(Kind::Bounce)
    );
    let record = house.show(&mail).await;
    assert_eq!(
        record.recipients.iter().map(|one| one.state).collect::<Vec<_>>(),
        [State::Bounced, State::Accepted]
    );
    let last = record.timeline.last().unwrap();
    assert_eq!(
        (last.what.as_str(), last.detail.as_str()),
        ("bounce", "failed Ana@client.example 5.1.1: 550 no such user")
    );
    let next = Submission::text(contract("ACME"), "next", "text")
        .with_to(address("ANA@client.example"))
        .with_cc(address(to[1]));
    let refused = house.postroom.submit(&next).await.unwrap_err();
    assert_eq!(refused.code(), "suppressed");
    assert!(refused.to_string().contains("ana@client.example (bounce: failed"), "{refused}");
    house.postroom.submit(&next.clone().with_on_suppressed(OnSuppressed::Send)).await.unwrap();
    // Another contract's mail is not concerned, and an operator has the last word.
    house.submit("OTHER", &[to[0]]).await;
    house
        .postroom
        .suppress(&actor(), &contract("ACME"), &address(to[0]), Cause::Allowed, "mended", None)
        .await
        .unwrap();
    house.postroom.submit(&next).await.unwrap();
}

/// A repeated submission is answered by its key before the list is asked.
#[tokio::test]
async fn a_mail_that_was_submitted_before_is_that_mail_whatever_came_back_since() {
    let house = House::new().await;
    let key = postroom_core::id::IdempotencyKey::parse("k").unwrap();
    let mail = Submission::text(contract("ACME"), "s", "t").with_to(address("ana@client.example"));
    let mail = mail.with_idempotency_key(key);
    let first = house.postroom.submit(&mail).await.unwrap();
    house
        .postroom
        .suppress(&actor(), &contract("ACME"), &address("ana@client.example"), Cause::Operator, "", None)
        .await
        .unwrap();
    let again = house.postroom.submit(&mail).await.unwrap();
    assert_eq!((again.id, again.existing), (first.id, true));
    let mut other = mail.clone();
    other.idempotency_key = None;
    assert_eq!(house.postroom.submit(&other).await.unwrap_err().code(), "suppressed");
    house.postroom.unsuppress(&actor(), &contract("ACME"), &address("ana@client.example")).await.unwrap();
    house.postroom.submit(&other).await.unwrap();
}

#[tokio::test]
async fn a_delay_is_told_and_changes_nothing() {
    let house = House::new().await;
    let mail = sent(&house, "ACME", &["ana@client.example"]).await;
    comes_back(&house, bounce(&mail.message_id, "ana@client.example", "delayed", "4.4.1")).await;
    let record = house.show(&mail).await;
    assert_eq!(
        (record.item.state, record.timeline.last().unwrap().what.as_str()),
        (State::Accepted, "report")
    );
    house.submit("ACME", &["ana@client.example"]).await;
}

/// Whoever believes a bounce by its address alone, or by another contract's Message-ID, marks the mail.
#[tokio::test]
async fn a_forged_bounce_changes_no_mail_of_another_contract() {
    let house = House::new().await;
    let other = sent(&house, "OTHER", &["ana@client.example"]).await;
    let row = comes_back(&house, bounce(&other.message_id, "ana@client.example", "failed", "5.1.1")).await;
    assert_eq!(row.state, ledger::State::Quarantined, "a signed Message-ID of another contract");
    let own = sent(&house, "ACME", &["ana@client.example"]).await;
    for id in ["<guessed@acme.example>", &own.message_id.replacen('<', "<0", 1)] {
        let row = comes_back(&house, bounce(id, "ana@client.example", "failed", "5.1.1")).await;
        assert!(row.reasons.iter().all(|reason| !reason.starts_with("reports on")), "{:?}", row.reasons);
    }
    let raw = b"From: support@acme.example\r\nMessage-ID: <chosen@acme.example>\r\n\r\nx\r\n".to_vec();
    let raw_other = Submission::raw(contract("OTHER"), raw.clone()).with_to(address("ana@client.example"));
    let _ = house.postroom.submit(&raw_other).await;
    let row =
        comes_back(&house, bounce("<chosen@acme.example>", "ana@client.example", "failed", "5.1.1")).await;
    assert!(
        row.reasons.iter().all(|reason| !reason.starts_with("reports on")),
        "not of a contract of this box"
    );
    let raw = Submission::raw(contract("ACME"), raw).with_to(address("ana@client.example"));
    let raw = house.postroom.submit(&raw).await.unwrap();
    house.work().await;
    for mail in [&other, &own] {
        assert_eq!(house.state(mail).await, "accepted");
    }
    let list: &dyn Suppressions = house.postroom.store();
    assert_eq!(list.suppressions(house.postroom.now(), &SuppressionQuery::default()).await.unwrap(), []);
    // The Message-ID that the host chose is no secret, and still the same contract's.
    comes_back(&house, bounce("<chosen@acme.example>", "ana@client.example", "failed", "5.1.1")).await;
    assert_eq!(house.state(&raw).await, "bounced");
}

#[tokio::test]
async fn a_tagged_return_path_finds_the_mail_when_nothing_else_does() {
    let house = House::new().await;
    let mut draft = outbox("smtp.tagged.example", "desk@tagged.example", None);
    if let SettingsDraft::Outbox(outbox) = &mut draft.settings {
        outbox.return_path = Some("bounces+*@tagged.example".to_owned());
    }
    let tagged = house
        .postroom
        .register(&actor(), &draft, postroom_core::secret::SecretChange::Keep, Status::Active)
        .await
        .unwrap();
    let acme = house.postroom.store().contract(&contract("ACME")).await.unwrap().unwrap();
    house.postroom.save_contract(&actor(), &acme.with_outbox(tagged.id, None)).await.unwrap();
    let mail = Submission::text(contract("ACME"), "s", "t").with_to(address("ana@client.example"));
    let mail = house.postroom.submit(&mail.with_record(RecordId::parse("INC-7").unwrap())).await.unwrap();
    house.work().await;
    let path = house.outgoing.carried()[0].mail_from.clone().unwrap();
    assert!(path.local().starts_with("bounces+") && path.local() != "bounces+*", "{path}");
    let text = bounce("<lost@mx.example>", "ana@client.example", "failed", "5.1.1");
    let row = comes_back(&house, format!("Delivered-To: {path}\r\n{text}")).await;
    assert_eq!(
        (row.record.map(|record| record.to_string()).as_deref(), house.state(&mail).await.as_str()),
        (Some("INC-7"), "bounced")
    );
}

#[tokio::test]
async fn of_an_alias_with_one_recipient_the_state_changes_and_the_address_is_not_suppressed() {
    let house = House::new().await;
    let mail = sent(&house, "ACME", &["team@client.example"]).await;
    comes_back(&house, bounce(&mail.message_id, "ana@elsewhere.example", "failed", "5.1.1")).await;
    assert_eq!(house.state(&mail).await, "bounced");
    house.submit("ACME", &["team@client.example"]).await;
}

/// A report of one recipient without the returned mail, or any id.
fn bare_bounce(to: &str) -> String {
    let text = bounce("<gone@mx.example>", to, "failed", "5.1.1");
    text.replace("Message-ID: <gone@mx.example>\r\n", "")
}

/// By an address alone a bounce can be forged: it marks at most the one mail that it can only be about, and stops nobody's mail.
#[tokio::test]
async fn a_bounce_that_names_a_recipient_alone_is_about_the_only_mail_that_fits() {
    let house = House::new().await;
    let other = sent(&house, "OTHER", &["ana@client.example"]).await;
    let row = comes_back(&house, bare_bounce("ana@client.example")).await;
    assert!(row.reasons.iter().all(|reason| !reason.starts_with("reports on")), "{:?}", row.reasons);
    let own = sent(&house, "ACME", &["Ana@client.example"]).await;
    let row = comes_back(&house, bare_bounce("ana@client.example")).await;
    let reason = format!("reports on {}, by its recipient alone", own.id);
    assert!(row.reasons.contains(&reason), "{:?}", row.reasons);
    assert_eq!((house.state(&own).await, house.state(&other).await), ("bounced".into(), "accepted".into()));
    let list: &dyn Suppressions = house.postroom.store();
    assert_eq!(list.suppressions(house.postroom.now(), &SuppressionQuery::default()).await.unwrap(), []);
    // Of two nobody knows which one.
    let mails = [
        sent(&house, "ACME", &["bea@client.example"]).await,
        sent(&house, "ACME", &["bea@client.example"]).await,
    ];
    comes_back(&house, bare_bounce("bea@client.example")).await;
    for mail in &mails {
        assert_eq!(house.state(mail).await, "accepted");
    }
    // What went long ago does not come back now.
    house.clock.advance(Duration::from_secs(6 * 24 * 3600));
    let late = sent(&house, "ACME", &["bea@client.example"]).await;
    comes_back(&house, bare_bounce("bea@client.example")).await;
    assert_eq!(
        (house.state(&late).await, house.state(&mails[0]).await),
        ("bounced".into(), "accepted".into())
    );
}
