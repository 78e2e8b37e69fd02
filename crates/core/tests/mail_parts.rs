//! What a handler asks of a mail beyond its text: header fields, files read in pieces, files that HTML refers to, Outlook's container.

use std::io::Read;

use postroom_core::mail::{Mail, Problem};
use postroom_core::mime::parse;
use proptest::prelude::*;

/// A mail whose lines are written with `\n` and read with CRLF.
fn read(text: &str) -> Mail {
    parse(text.replace('\n', "\r\n"))
}

#[test]
fn every_header_field_is_given_in_its_order_as_it_was_sent() {
    let mail = read(
        "Received: from a by b;\n\tSun, 22 Nov 2026 10:00:00 +0000\n\
         X-Ticket : 7\n\
         no field at all\n\
         Bad Name: x\n\
         x-ticket: =?utf-8?q?8?=\n\
         Empty:\n\
         \n\
         X-Body: none\n",
    );
    let fields: Vec<_> = mail.fields().map(|field| (field.name(), field.raw())).collect();
    assert_eq!(
        fields,
        [
            ("Received", &b" from a by b;\r\n\tSun, 22 Nov 2026 10:00:00 +0000\r\n"[..]),
            ("X-Ticket", b" 7\r\n"),
            ("x-ticket", b" =?utf-8?q?8?=\r\n"),
            ("Empty", b"\r\n"),
        ]
    );
    // The first of a name, in any case; nothing of the body.
    assert_eq!(mail.field("X-TICKET").map(|field| field.raw()), Some(&b" 7\r\n"[..]));
    assert!(mail.field("X-Body").is_none() && mail.field("").is_none());
}

#[test]
fn ten_thousand_fields_are_given_and_not_one_more() {
    let many = "X-Many: 1\n".repeat(10_001);
    assert_eq!(read(&format!("{many}\nbody\n")).fields().count(), 10_000);
}

fn with_file(encoding: &str, content: &str) -> Mail {
    read(&format!(
        "From: a@b.example\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nsee there\n--b\n\
         Content-Type: application/octet-stream; name=a.bin\nContent-Disposition: attachment\n\
         Content-Transfer-Encoding: {encoding}\n\n{content}\n--b--\n"
    ))
}

/// Reads a file in pieces of so many bytes.
fn in_pieces(mail: &Mail, size: usize) -> Vec<u8> {
    let mut reader = mail.attachments[0].reader();
    let (mut whole, mut piece) = (Vec::new(), vec![0; size]);
    loop {
        match reader.read(&mut piece).expect("reading does not fail") {
            0 => return whole,
            count => whole.extend_from_slice(&piece[..count]),
        }
    }
}

#[test]
fn a_file_is_read_in_pieces_as_it_is_read_whole_whatever_its_encoding() {
    // Longer than what is decoded at once, so that pieces end within groups of base64 and within escapes.
    let plain = "0123456789abcdefghijklmnopqrstuvwxyz, and so on\n".repeat(1000);
    let base64 = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=\n".repeat(1000);
    let printable = "caf=C3=A9 and a soft=\n break, and =zz what is no escape\n".repeat(1000);
    for (encoding, content) in [("7bit", &plain), ("base64", &base64), ("quoted-printable", &printable)] {
        let mail = with_file(encoding, content);
        let file = &mail.attachments[0];
        let whole = file.content();
        assert_eq!(whole.len(), file.size, "{encoding}");
        for size in [1, 7, 8192, 1 << 20] {
            assert!(in_pieces(&mail, size) == whole, "{encoding} in pieces of {size}");
        }
        assert_eq!(file.beginning(10), whole.slice(..10), "{encoding}");
        assert_eq!(file.beginning(usize::MAX), whole, "{encoding}");
    }
    assert!(in_pieces(&with_file("base64", "QQ=="), 9) == b"A");
}

/// A piece of an encoding that says nothing would look like the end of the file.
#[test]
fn a_reader_goes_on_behind_a_stretch_that_says_nothing() {
    let silent = format!("QUJD\n{}RA==", "\n".repeat(50_000));
    assert_eq!(in_pieces(&with_file("base64", &silent), 4), b"ABCD");
}

proptest! {
    #[test]
    fn no_content_makes_pieces_and_whole_differ(content in "[A-Za-z0-9=+/ ~\n]{0,400}", size in 1_usize..40) {
        for encoding in ["7bit", "base64", "quoted-printable"] {
            let mail = with_file(encoding, &content);
            if let Some(file) = mail.attachments.first() {
                prop_assert_eq!(in_pieces(&mail, size), file.content());
            }
        }
    }
}

#[test]
fn html_finds_the_picture_that_it_refers_to() {
    let mail = read(
        "From: a@b.example\nMIME-Version: 1.0\nContent-Type: multipart/related; boundary=b\n\n--b\n\
         Content-Type: text/html\n\n<img src=\"cid:logo@b.example\">\n--b\n\
         Content-Type: image/png; name=other.png\nContent-ID: <other@b.example>\n\nother\n--b\n\
         Content-Type: image/png; name=logo.png\nContent-ID: <logo@b.example>\nContent-Disposition: inline\n\nlogo\n--b--\n",
    );
    let found = mail.by_content_id("logo@b.example").expect("it is there");
    assert_eq!((found.name.as_str(), found.inline, &found.content()[..]), ("logo.png", true, &b"logo"[..]));
    for other in ["<logo@b.example>", "LOGO@b.example", "", "cid:logo@b.example"] {
        assert!(mail.by_content_id(other).is_none(), "{other}");
    }
}

#[test]
fn outlooks_container_is_named_and_kept_as_it_came() {
    for (media_type, name) in [
        ("application/ms-tnef", "winmail.dat"),
        ("application/vnd.ms-tnef", "x.bin"),
        ("application/octet-stream", "WINMAIL.DAT"),
    ] {
        let mail = read(&format!(
            "From: a@b.example\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nHello\n--b\n\
             Content-Type: {media_type}; name=\"{name}\"\nContent-Transfer-Encoding: base64\n\nePmfIg==\n--b--\n"
        ));
        let [file] = &mail.attachments[..] else { panic!("{media_type}: {:?}", mail.attachments) };
        assert!(file.is_tnef(), "{file:?}");
        assert_eq!(&file.content()[..], b"\x78\xf9\x9f\x22", "{media_type}");
        // It is no fault of the mail, and nothing of it is left out.
        assert!(mail.problems.contains(&Problem::Tnef) && !mail.is_truncated(), "{:?}", mail.problems);
        assert_eq!(mail.text.as_deref().map(str::trim), Some("Hello"));
    }
    let plain = with_file("7bit", "x");
    assert!(!plain.attachments[0].is_tnef() && !plain.problems.contains(&Problem::Tnef));
}
