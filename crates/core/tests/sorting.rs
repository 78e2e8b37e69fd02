//! Which contract a received mail goes to, as a table of mails over one box.

use postroom_core::address::{Address, Domain};
use postroom_core::contract::{Contract, Requesters};
use postroom_core::id::{ContractId, QueueId, RecordId};
use postroom_core::mail::Mail;
use postroom_core::mime::parse;
use postroom_core::sort::{Destination, Question, SortReason, Sorting, sort};
use postroom_core::thread::Thread;
use postroom_core::time::Timestamp;
use proptest::prelude::*;

fn id(name: &str) -> ContractId {
    ContractId::parse(name).expect("an id")
}

fn contract(name: &str, addresses: &[&str], domains: &[&str]) -> Contract {
    let mut contract = Contract::new(id(name));
    contract.addresses = addresses.iter().map(|text| Address::parse(text).expect("an address")).collect();
    contract.domains = domains.iter().map(|text| Domain::parse(text).expect("a domain")).collect();
    contract
}

fn thread(of: &str) -> Thread {
    let message = QueueId::new(Timestamp::from_millis(0), [0; 10]);
    Thread::new(id(of), Some(RecordId::parse("T-1").expect("an id")), message)
}

fn mail(header: &str) -> Mail {
    parse(format!("{}\r\n\r\nx\r\n", header.replace('\n', "\r\n")))
}

fn sorted(mail: &Mail, contracts: &[Contract], thread: Option<&Thread>) -> Sorting {
    sort(&Question { mail, contracts, thread })
}

/// The destination and the words of the reasons.
fn outcome(sorting: &Sorting) -> String {
    let destination = match &sorting.destination {
        Destination::Contract(contract) => contract.to_string(),
        Destination::Triage => "triage".into(),
        Destination::Quarantine { of } => format!("quarantine of {of}"),
        Destination::Ignore(contract) => format!("ignore for {contract}"),
    };
    let reasons: Vec<_> = sorting.reasons.iter().map(SortReason::word).collect();
    format!("{destination}: {}", reasons.join(" "))
}

#[test]
fn a_box_of_several_contracts_is_told_apart_by_recipient_thread_and_sender() {
    let contracts = [
        contract(
            "a",
            &["a@desk.example", "both@desk.example", "boss@a.example"],
            &["a.example", "shared.example"],
        ),
        contract(
            "b",
            &["b@desk.example", "both@desk.example"],
            &["b.example", "shared.example", "gmail.com"],
        ),
    ];
    let check = |header: &str, of: Option<&str>, want: &str| {
        let thread = of.map(thread);
        let sorting = sorted(&mail(header), &contracts, thread.as_ref());
        assert_eq!(outcome(&sorting), want, "{header}");
        assert_eq!(
            sorting.record.is_some(),
            of.is_some_and(|of| sorting.destination == Destination::Contract(id(of)))
        );
    };
    check("From: x@y.example\nTo: A@Desk.example", None, "a: recipient");
    check("From: x@y.example\nTo: z@z.example\nCc: b@desk.example", None, "b: recipient");
    check("From: x@y.example\nTo: a@desk.example\nDelivered-To: b@desk.example", None, "b: recipient");
    check("From: x@y.example\nTo: a@desk.example\nDelivered-To: box@desk.example", None, "a: recipient");
    check("From: x@b.example\nTo: both@desk.example", None, "b: recipient sender-domain");
    check("From: x@y.example\nTo: both@desk.example", None, "triage: undecided");
    check("From: x@y.example\nTo: z@z.example", Some("b"), "b: thread");
    check("From: x@y.example\nTo: both@desk.example", Some("b"), "b: recipient thread");
    check("From: x@y.example\nTo: a@desk.example", Some("b"), "quarantine of b: other-contract");
    check("From: x@y.example\nTo: a@desk.example", Some("c"), "quarantine of c: other-contract");
    check("From: Boss@A.example\nTo: z@z.example", None, "a: sender-address");
    check("From: x@a.example\nTo: z@z.example", None, "a: sender-domain");
    check("From: x@shared.example\nTo: z@z.example", None, "triage: undecided");
    check("From: x@sub.a.example\nTo: z@z.example", None, "triage: undecided");
    // A public provider identifies nobody, whatever a row says.
    check("From: x@gmail.com\nTo: z@z.example", None, "triage: undecided");
    check("Subject: nobody", None, "triage: undecided");
}

#[test]
fn a_box_of_one_contract_gives_it_and_a_box_of_none_gives_nobody() {
    let one = [contract("a", &[], &[])];
    let mail = mail("From: x@y.example");
    assert_eq!(outcome(&sorted(&mail, &one, None)), "a: box");
    let (own, other) = (thread("a"), thread("b"));
    let answer = sorted(&mail, &one, Some(&own));
    assert_eq!((outcome(&answer).as_str(), answer.record), ("a: box thread", own.record.clone()));
    let crossing = sorted(&mail, &one, Some(&other));
    assert_eq!((outcome(&crossing).as_str(), crossing.record), ("quarantine of b: other-contract", None));
    for thread in [None, Some(&own)] {
        let nobody = sorted(&mail, &[], thread);
        assert_eq!((outcome(&nobody).as_str(), nobody.record), ("triage: no-contract", None));
    }
}

#[test]
fn unknown_requesters_are_accepted_ignored_or_asked_for() {
    let check = |requesters, header: &str, of: Option<&str>, want: &str, ask: bool| {
        let mut one = contract("a", &["boss@a.example"], &["b.example"]);
        one.requesters = requesters;
        let thread = of.map(thread);
        let sorting = sorted(&mail(header), &[one], thread.as_ref());
        assert_eq!((outcome(&sorting).as_str(), sorting.ask), (want, ask), "{header}");
    };
    let stranger = "From: x@y.example";
    check(Requesters::Accept, stranger, None, "a: box", false);
    check(Requesters::Refuse, stranger, None, "ignore for a: box unknown-requester", false);
    check(Requesters::Refuse, "Subject: nobody", None, "ignore for a: box unknown-requester", false);
    check(Requesters::Ask, stranger, None, "a: box", true);
    for known in ["From: boss@a.example", "From: x@b.example"] {
        check(Requesters::Refuse, known, None, "a: box", false);
        check(Requesters::Ask, known, None, "a: box", false);
    }
    check(Requesters::Refuse, stranger, Some("a"), "a: box thread", false);
    check(Requesters::Ask, stranger, Some("a"), "a: box thread", false);
    check(Requesters::Refuse, stranger, Some("b"), "quarantine of b: other-contract", false);
}

#[test]
fn reasons_have_stable_words_in_json() {
    let reason = SortReason::Recipient { address: Address::parse("a@x.example").expect("an address") };
    let json = serde_json::to_value(&reason).expect("JSON");
    assert_eq!(json, serde_json::json!({"reason": "recipient", "address": "a@x.example"}));
    assert_eq!(serde_json::from_value::<SortReason>(json).expect("its own JSON"), reason);
    assert_eq!(reason.to_string(), "recipient a@x.example");
    let word = serde_json::to_value(SortReason::UnknownRequester).expect("JSON");
    assert_eq!(word["reason"], SortReason::UnknownRequester.word());
}

proptest! {
    #[test]
    fn a_reply_never_crosses_and_no_other_contract_gets_a_mail(
        linked in proptest::collection::btree_set(0usize..4, 0..4),
        to in 0usize..5,
        from in 0usize..5,
        of in proptest::option::of(0usize..5),
    ) {
        let name = |number: usize| format!("c{number}");
        let contracts: Vec<Contract> = linked
            .iter()
            .map(|number| contract(&name(*number), &[&format!("{number}@desk.example")], &[&format!("d{number}.example")]))
            .collect();
        let thread = of.map(|of| thread(&name(of)));
        let sorting = sorted(&mail(&format!("From: x@d{from}.example\nTo: {to}@desk.example")), &contracts, thread.as_ref());
        if let Destination::Contract(found) = &sorting.destination {
            prop_assert!(contracts.iter().any(|contract| contract.id == *found));
            prop_assert!(thread.as_ref().is_none_or(|thread| thread.contract == *found));
        } else {
            prop_assert!(sorting.record.is_none());
        }
        prop_assert!(!sorting.reasons.is_empty());
    }
}
