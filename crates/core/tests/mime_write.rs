//! The bytes that are composed, and the raw bytes that are let through.

use postroom_core::address::{Address, NamedAddress};
use postroom_core::message::Attachment;
use postroom_core::mime::{Composition, RawFacts, check_raw, compose, parse};
use postroom_core::time::Timestamp;
use proptest::prelude::*;

const NOW: i64 = 1_795_368_664_000;
const SEED: [u8; 32] = [7; 32];

fn address(text: &str) -> NamedAddress {
    NamedAddress::parse(text).expect("an address")
}

fn composition() -> Composition {
    Composition {
        from: address("\"Acme, Suporte\" <suporte@acme.example>"),
        reply_to: None,
        to: vec![address("ana@x.example")],
        cc: Vec::new(),
        subject: "Hello".into(),
        text: Some("Hi\n".into()),
        html: None,
        attachments: Vec::new(),
        headers: Vec::new(),
        message_id: "<1@acme.example>".into(),
        in_reply_to: None,
        references: Vec::new(),
    }
}

fn file(name: &str, content_id: Option<&str>) -> Attachment {
    Attachment {
        name: name.into(),
        media_type: "application/octet-stream".into(),
        content: (0..=255).collect(),
        content_id: content_id.map(Into::into),
    }
}

fn full() -> Composition {
    Composition {
        reply_to: Some(address("desk@acme.example")),
        to: vec![address("\"Ana São\" <ana@são.example>"), address("bob@x.example")],
        cc: vec![address("\"A \\\"quoted\\\" \\\\ name\" <c@x.example>")],
        subject: "Olá, a impressora não funciona e o assunto é longo o bastante para ser dobrado em linhas"
            .into(),
        text: Some("Olá!\nlinha\r\n.\r\n..\rFrom here\n".into()),
        html: Some("<p>Olá <img src=\"cid:logo@acme\"></p>".into()),
        attachments: vec![
            file("relatório final.pdf", None),
            file("logo.png", Some("logo@acme")),
            file("a\"b.bin", None),
        ],
        headers: vec![("X-Ticket".into(), "7".into()), ("X-Ticket".into(), "não".into())],
        in_reply_to: Some("<0@x.example>".into()),
        references: (0..100).map(|n| format!("<{n}-{}@x.example>", "r".repeat(50))).collect(),
        ..composition()
    }
}

fn made(composition: &Composition) -> Vec<u8> {
    compose(composition, Timestamp::from_millis(NOW), SEED).expect("a good composition")
}

fn made_text(composition: &Composition) -> String {
    String::from_utf8(made(composition)).expect("7 bits")
}

/// What must hold of everything that is composed.
fn check_wire_form(bytes: &[u8]) -> RawFacts {
    assert!(bytes.is_ascii() && !bytes.contains(&0));
    check_raw(bytes, 1 << 30).expect("what we make would also be let through as raw bytes")
}

#[test]
fn the_same_input_makes_the_same_bytes_and_another_seed_other_boundaries() {
    let again = || made(&full());
    assert_eq!(again(), again());
    let other = compose(&full(), Timestamp::from_millis(NOW), [8; 32]).expect("bytes");
    assert_ne!(other, again());
    assert_eq!(other.len(), again().len());
}

#[test]
fn a_plain_mail_is_as_short_as_it_can_be() {
    assert_eq!(
        made_text(&composition()),
        "Date: Sun, 22 Nov 2026 17:31:04 +0000\r\n\
         From: \"Acme, Suporte\" <suporte@acme.example>\r\n\
         To: ana@x.example\r\n\
         Subject: Hello\r\n\
         Message-ID: <1@acme.example>\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         Content-Transfer-Encoding: 7bit\r\n\
         \r\n\
         Hi\r\n\r\n"
    );
}

#[test]
fn a_full_mail_is_read_as_it_was_written() {
    let bytes = made(&full());
    let facts = check_wire_form(&bytes);
    assert_eq!((&facts.from, facts.message_id.as_deref()), (&full().from, Some("<1@acme.example>")));
    let mail = parse(bytes.clone());
    assert!(mail.problems.is_empty(), "{:?}", mail.problems);
    assert_eq!((mail.from, mail.to, mail.cc), (vec![full().from], full().to, full().cc));
    assert_eq!(mail.reply_to, [address("desk@acme.example")]);
    assert_eq!(mail.subject, full().subject);
    assert_eq!(facts.subject, full().subject);
    assert_eq!(mail.text.as_deref(), Some("Olá!\r\nlinha\r\n.\r\n..\r\nFrom here\r\n"));
    assert_eq!(mail.html, full().html);
    assert_eq!(mail.in_reply_to, ["<0@x.example>"]);
    assert_eq!(mail.references, full().references);
    assert_eq!(mail.date, Some(Timestamp::from_millis(NOW)));
    let found: Vec<_> = mail
        .attachments
        .iter()
        .map(|file| {
            (file.original_name.as_str(), file.inline, file.content_id.as_deref(), file.content().len())
        })
        .collect();
    assert_eq!(
        found,
        [
            ("logo.png", true, Some("logo@acme"), 256),
            ("relatório final.pdf", false, None, 256),
            ("a\"b.bin", false, None, 256)
        ]
    );
    let text = String::from_utf8(bytes).expect("7 bits");
    assert_eq!(text.matches("X-Ticket: ").count(), 2);
    assert!(text.contains("ana@xn--so-sia.example"));
    for (kind, count) in [("mixed", 1), ("alternative", 1), ("related", 1)] {
        assert_eq!(text.matches(&format!("multipart/{kind};")).count(), count, "{kind}");
    }
}

#[test]
fn nothing_begins_a_header_of_its_own() {
    let refused = |change: fn(&mut Composition), code: &str| {
        let mut bad = composition();
        change(&mut bad);
        let violations = compose(&bad, Timestamp::from_millis(NOW), SEED).expect_err(code);
        assert!(violations.has(code), "{code}: {violations}");
    };
    refused(|c| c.subject = "a\r\nBcc: x@y".into(), "message.subject");
    refused(|c| c.subject = "a".repeat(1001), "message.subject");
    refused(|c| c.headers = vec![("X-A".into(), "a\nBcc: x@y".into())], "message.header");
    refused(|c| c.headers = vec![("X-A\r\nBcc".into(), "x@y".into())], "message.header");
    refused(|c| c.headers = vec![("Bcc".into(), "x@y".into())], "message.header");
    refused(|c| c.attachments = vec![file("a\r\nBcc: x", None)], "message.attachment");
    refused(|c| c.attachments = vec![file("a", Some("x>\r\nBcc: x"))], "message.attachment");
    refused(|c| c.message_id = "<a@b>\r\nBcc: x@y".into(), "message.header");
    refused(|c| (c.text, c.html) = (None, None), "message.content");
    // What strangers wrote into their header is left out of ours.
    let answer = Composition {
        in_reply_to: Some("<a@b>\r\nBcc: x@y".into()),
        references: vec![
            "<ok@x>".into(),
            "<a b@x>\r\nBcc: x@y".into(),
            "<é@x>".into(),
            format!("<{}@x>", "a".repeat(2000)),
        ],
        ..composition()
    };
    let text = made_text(&answer);
    assert!(
        text.contains("\r\nReferences: <ok@x>\r\nMIME-Version")
            && !text.contains("Bcc")
            && !text.contains("In-Reply-To")
    );
}

#[test]
fn text_with_control_characters_and_long_lines_is_encoded() {
    for text in ["a\0b", "a\u{7}b", &"a".repeat(5000), "\u{1f600}".repeat(300).as_str(), "", "\r\r\n\n"] {
        let mut composition = Composition { text: Some(text.into()), ..composition() };
        check_wire_form(&made(&composition));
        (composition.html, composition.text) = (composition.text, None);
        check_wire_form(&made(&composition));
    }
    let read = parse(made(&Composition { text: Some("a\0b\u{7}".into()), ..composition() }));
    assert_eq!(read.text.as_deref(), Some("a\0b\u{7}\r\n"));
}

#[test]
fn an_attached_mail_is_not_encoded_when_it_can_travel_as_it_is() {
    let attach = |content: &[u8]| {
        let eml = Attachment {
            media_type: "message/rfc822".into(),
            content: content.to_vec(),
            ..file("m.eml", None)
        };
        made_text(&Composition { attachments: vec![eml], ..composition() })
    };
    let whole = attach(b"From: a@x\r\n\r\nhello\r\n");
    assert!(whole.contains("message/rfc822") && whole.contains("\r\nhello\r\n"));
    let encoded = attach("From: a@x\r\n\r\nolá\n".as_bytes());
    assert!(!encoded.contains("message/rfc822"));
    check_wire_form(encoded.as_bytes());
}

#[test]
fn what_only_looks_encoded_arrives_as_it_was_written() {
    let trick = "=?utf-8?q?boss?=";
    let mail = parse(made(&Composition {
        subject: trick.into(),
        from: NamedAddress::new(Address::parse("a@x.example").expect("address"))
            .with_name(trick)
            .expect("name"),
        ..composition()
    }));
    assert_eq!((mail.subject.as_str(), mail.from[0].name()), (trick, Some(trick)));
}

#[test]
fn a_local_part_that_is_not_ascii_stays_for_smtputf8() {
    let bytes = made(&Composition { to: vec![address("josé@x.example")], ..composition() });
    assert!(String::from_utf8(bytes).expect("UTF-8").contains("\r\nTo: josé@x.example\r\n"));
}

#[test]
fn raw_bytes_are_let_through_only_in_wire_form() {
    let good =
        "From: Ana <a@x.example>\r\nSubject: =?utf-8?q?Ol=C3=A1?=\r\nMessage-ID: <1@x>\r\n\r\nhello\r\n.\r\n";
    let facts = check_raw(good.as_bytes(), 1000).expect("good bytes");
    assert_eq!((facts.subject.as_str(), facts.message_id.as_deref()), ("Olá", Some("<1@x>")));
    assert!(check_raw(b"From: a@x.example\r\n\r\n", 1000).is_ok());
    assert!(check_raw(b"From: a@x.example\r\n", 1000).is_ok());
    let refused = |bytes: &str, code: &str| {
        let violations = check_raw(bytes.as_bytes(), 2000).expect_err(bytes);
        assert!(violations.has(code), "{bytes:?}: {violations}");
    };
    for bad in [
        "",
        "\r\n",
        "hello\r\n",
        "\r\nFrom: a@x.example\r\n",
        "From: a@x.example\n\nhello\n",
        "From: a@x.example\r\n\r\nhello",
        "From: a@x.example\r\n\r\na\rb\r\n",
        "From: a@x.example\r\n\r\na\n.\r\nMAIL FROM:<x@y>\r\n",
        "From: a@x.example\r\n\r\na\0b\r\n",
        "To: a@x.example\r\n\r\nhello\r\n",
        "From: nobody\r\n\r\nhello\r\n",
        "From: a@x.example, b@x.example\r\n\r\nhello\r\n",
        "From: a@x.example, b\r\n\r\nhello\r\n",
        "From: a@x.example\r\nfrom: b@x.example\r\n\r\nhello\r\n",
        "From: a@x.example\r\nBCC: b@x.example\r\n\r\nhello\r\n",
        "From: a@x.example\r\nMessage-ID: <1@x>\r\nMessage-ID: <2@x>\r\n\r\nhello\r\n",
        "From: a@x.example\r\nMessage-ID: none\r\n\r\nhello\r\n",
        "From a@x.example Sun Nov 22\r\nFrom: a@x.example\r\n\r\nhello\r\n",
        "From: a@x.example\r\nhello\r\n\r\nhello\r\n",
        " folded\r\nFrom: a@x.example\r\n\r\nhello\r\n",
    ] {
        refused(bad, "message.raw");
    }
    refused(&format!("From: a@x.example\r\n\r\n{}\r\n", "a".repeat(999)), "message.raw");
    assert!(check_raw(format!("From: a@x.example\r\n\r\n{}\r\n", "a".repeat(998)).as_bytes(), 2000).is_ok());
    refused(&format!("From: a@x.example\r\n\r\n{}", "a\r\n".repeat(1000)), "message.size");
    // All at once, not the first alone.
    let all = check_raw(b"Bcc: x@y\n\0", 1000).expect_err("bad bytes");
    assert_eq!(all.all().len(), 5, "{all}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_is_written_is_read_back(
        subject in "[^\\p{C}]{0,120}",
        name in "[^\\p{C}]{0,60}",
        text in "t[^\\p{C}\u{b}]{0,300}(\r?\n[^\\p{C}]{0,100}){0,5}",
        html in proptest::option::of("[^\\p{C}]{1,300}"),
        file_name in "[^\\p{C}/\\\\\u{2028}\u{2029}]{1,60}",
        value in "[^\\p{C}]{1,200}",
        seed: [u8; 32],
    ) {
        let named = address("a@x.example").with_name(&name).expect("a name");
        let composition = Composition {
            from: named.clone(),
            to: vec![named.clone(), address("b@x.example")],
            subject: subject.clone(),
            text: Some(text.clone()),
            html: html.clone(),
            attachments: vec![file(&file_name, None), file("i.png", Some("i@x"))],
            headers: vec![("X-Value".into(), value)],
            ..composition()
        };
        let bytes = compose(&composition, Timestamp::from_millis(NOW), seed).expect("bytes");
        check_wire_form(&bytes);
        let mail = parse(bytes.clone());
        prop_assert!(mail.problems.is_empty(), "{:?}", mail.problems);
        prop_assert_eq!(&mail.from[0], &named);
        prop_assert_eq!(&mail.to[0], &named);
        prop_assert_eq!(mail.subject, subject.trim());
        let lines = |text: &str| text.replace("\r\n", "\n").trim_end_matches('\n').to_owned();
        prop_assert_eq!(lines(&mail.text.unwrap_or_default()), lines(&text));
        prop_assert_eq!(mail.html.map(|html| lines(&html)), html.map(|html| lines(&html)));
        let original = mail.attachments.iter().find(|one| !one.inline).map(|one| one.original_name.clone());
        prop_assert_eq!(original.as_deref(), Some(file_name.as_str()));
    }

    #[test]
    fn no_bytes_make_the_check_of_raw_mail_panic(bytes: Vec<u8>) {
        let _ = check_raw(&bytes, 100);
    }
}
