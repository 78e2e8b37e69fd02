//! Whether two submissions are the same mail, and which field tells.

use postroom_core::address::{Address, NamedAddress};
use postroom_core::id::{ContractId, IdempotencyKey, LedgerId, RecordId, StepKey};
use postroom_core::message::{Attachment, Content, Fingerprint, OnDoubt, Priority, Submission};
use postroom_core::template::Values;
use postroom_core::time::Timestamp;

fn address(text: &str) -> NamedAddress {
    NamedAddress::parse(text).expect("an address")
}

fn contract() -> ContractId {
    ContractId::parse("acme").expect("an id")
}

fn submission() -> Submission {
    Submission::text(contract(), "subject", "text").with_to(address("a@x.example")).with_header("X-A", "1")
}

#[test]
fn each_field_of_the_content_tells_two_mails_apart() {
    let check = |field: &str, change: &dyn Fn(Submission) -> Submission| {
        let (one, other) = (submission().fingerprint(), change(submission()).fingerprint());
        assert_eq!(one.first_difference(&other), Some(field));
        assert_eq!(other.first_difference(&one), Some(field));
    };
    let attach = |name: &str, content: &[u8]| Attachment {
        name: name.into(),
        media_type: "a/b".into(),
        content: content.into(),
        content_id: None,
    };
    check("to", &|s| s.with_to(address("b@x.example")));
    check("cc", &|s| s.with_cc(address("b@x.example")));
    check("bcc", &|s| s.with_bcc(address("b@x.example")));
    check("step", &|s| s.with_step(StepKey::parse("f/s").expect("a key")));
    check("sender", &|s| s.with_sender(Address::parse("c@x.example").expect("an address")));
    check("record", &|s| s.with_record(RecordId::parse("T-1").expect("an id")));
    let ledger = LedgerId::new(Timestamp::from_millis(0), [0; 10]);
    check("in_reply_to", &|s| s.with_in_reply_to(ledger));
    check("headers", &|s| s.with_header("X-A", "2"));
    check("html", &|s| s.with_html("<p>"));
    check("attachments", &|s| s.with_attachment(attach("n", b"c")));
    check("reply_to", &|mut s| {
        s.reply_to = Some(address("r@x.example"));
        s
    });
    let text = |subject: &str, text: &str| {
        Submission::text(contract(), subject, text).with_to(address("a@x.example")).with_header("X-A", "1")
    };
    check("subject", &|_| text("other", "text"));
    check("text", &|_| text("subject", "other"));
    check("html", &|s| s.with_html(""));
    // Another kind of content is told by a field that only one of them has.
    check("attachments", &|mut s| {
        s.content = Content::Raw(b"raw".to_vec());
        s
    });
    // Would miss fields that are joined without their lengths.
    let files = |a: &[u8], b: &[u8]| {
        submission().with_attachment(attach("n", a)).with_attachment(attach("n", b)).fingerprint()
    };
    assert_eq!(files(b"ab", b"c").first_difference(&files(b"a", b"bc")), Some("attachments"));
    let values = |a: &str| {
        Submission::template(
            contract(),
            StepKey::parse("f/s").expect("a key"),
            Values::default().with("A", a),
        )
    };
    assert_eq!(values("1").fingerprint().first_difference(&values("2").fingerprint()), Some("values"));
    let html = Values::default().with_html("A", "1");
    let html = Submission::template(contract(), StepKey::parse("f/s").expect("a key"), html);
    assert_eq!(values("1").fingerprint().first_difference(&html.fingerprint()), Some("values"));
}

#[test]
fn what_is_no_content_leaves_two_mails_the_same() {
    let mut other = submission().with_idempotency_key(IdempotencyKey::parse("k").expect("a key"));
    other = other.with_on_doubt(OnDoubt::Resend).with_expiry(Timestamp::from_millis(1));
    other.priority = Priority::High;
    assert_eq!(submission().fingerprint().first_difference(&other.fingerprint()), None);
    let json = serde_json::to_string(&other.fingerprint()).expect("JSON");
    assert_eq!(serde_json::from_str::<Fingerprint>(&json).expect("its own JSON"), submission().fingerprint());
}
