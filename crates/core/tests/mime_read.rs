//! What is read from received bytes: ordinary mail, broken mail, and mail that is made to hurt.

use std::time::{Duration, Instant};

use postroom_core::mail::{Mail, Problem};
use postroom_core::mime::parse;
use proptest::prelude::*;

/// A mail whose lines are written with `\n` and read with CRLF.
fn read(text: &str) -> Mail {
    parse(text.replace('\n', "\r\n"))
}

fn text(mail: &Mail) -> &str {
    mail.text.as_deref().unwrap_or_default()
}

#[test]
fn an_ordinary_mail_is_read_whole() {
    let mail = read(
        "Return-Path: <bounces@acme.example>\n\
         Delivered-To: support@desk.example\n\
         X-Original-To: acme@desk.example\n\
         Received: from x by y; Sun, 22 Nov 2026 10:00:00 +0000\n\
         From: =?utf-8?q?Ana_S=C3=A3o?= <Ana@Acme.Example>\n\
         Sender: desk@acme.example\n\
         Reply-To: \"Ana, at home\" <ana@home.example>\n\
         To: Support <support@desk.example>, other@desk.example,\n\
         \tGroup: a@x.example, b@x.example;\n\
         Cc: c@x.example\n\
         Subject: =?iso-8859-1?q?Impressora_n=E3o?= =?utf-8?b?IGZ1bmNpb25h?=\n\
         Date: Sun, 22 Nov 2026 07:00:00 -0300\n\
         Message-ID: <1@acme.example>\n\
         In-Reply-To: <0@desk.example>\n\
         References: <a@desk.example>\n <0@desk.example>\n\
         MIME-Version: 1.0\n\
         Content-Type: text/plain; charset=iso-8859-1\n\
         Content-Transfer-Encoding: quoted-printable\n\
         \n\
         Ol=E1!\n",
    );
    let all = |list: &[postroom_core::address::NamedAddress]| -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    };
    assert_eq!(all(&mail.from), ["\"Ana São\" <Ana@acme.example>"]);
    assert_eq!(mail.sender.as_ref().map(ToString::to_string).as_deref(), Some("desk@acme.example"));
    assert_eq!(all(&mail.reply_to), ["\"Ana, at home\" <ana@home.example>"]);
    assert_eq!(
        all(&mail.to),
        ["\"Support\" <support@desk.example>", "other@desk.example", "a@x.example", "b@x.example"]
    );
    assert_eq!(all(&mail.cc), ["c@x.example"]);
    let delivered: Vec<_> = mail.delivered_to.iter().map(ToString::to_string).collect();
    assert_eq!(delivered, ["support@desk.example", "acme@desk.example"]);
    assert_eq!(mail.return_path.as_ref().map(ToString::to_string).as_deref(), Some("bounces@acme.example"));
    assert_eq!(mail.subject, "Impressora não funciona");
    assert_eq!(mail.message_id.as_deref(), Some("<1@acme.example>"));
    assert_eq!(mail.in_reply_to, ["<0@desk.example>"]);
    assert_eq!(mail.references, ["<a@desk.example>", "<0@desk.example>"]);
    assert_eq!(mail.date.map(|date| date.to_string()).as_deref(), Some("2026-11-22T10:00:00.000Z"));
    assert_eq!(text(&mail), "Olá!\r\n");
    assert_eq!(mail.html, None);
    assert!(mail.automatic.is_none() && mail.problems.is_empty(), "{:?}", mail.problems);
}

#[test]
fn text_html_inline_images_and_files_are_told_apart() {
    let mail = read(
        "From: a@x.example\n\
         Content-Type: multipart/mixed; boundary=\"m\"\n\
         \n\
         preamble\n\
         --m\n\
         Content-Type: multipart/alternative; boundary=m2\n\
         \n\
         --m2\n\
         \n\
         plain\n\
         --m2\n\
         Content-Type: multipart/related; boundary=m3\n\
         \n\
         --m3\n\
         Content-Type: text/html; charset=utf-8\n\
         \n\
         <p>rich <img src=cid:i@x></p>\n\
         --m3\n\
         Content-Type: image/png; name=\"i.png\"\n\
         Content-ID: <i@x>\n\
         Content-Transfer-Encoding: base64\n\
         \n\
         iVBORw==\n\
         --m3--\n\
         --m2--\n\
         --m\n\
         Content-Type: text/plain; charset=utf-8\n\
         Content-Disposition: attachment;\n filename*0*=utf-8''relat%C3%B3;\n filename*1=rio.txt\n\
         \n\
         a -- b\n\
         --mm\n\
         --m\n\
         \n\
         footer\n\
         --m--\n\
         epilogue\n",
    );
    // Would miss a boundary that is taken for a prefix (`m` of `mm` and `m2`) or in the middle of a line.
    assert_eq!(text(&mail), "plain\nfooter");
    assert_eq!(mail.html.as_deref(), Some("<p>rich <img src=cid:i@x></p>"));
    let [image, file] = &mail.attachments[..] else { panic!("{:?}", mail.attachments) };
    assert_eq!(
        (image.name.as_str(), image.content_id.as_deref(), image.inline),
        ("i.png", Some("i@x"), true)
    );
    assert_eq!(image.content(), b"\x89PNG"[..]);
    assert_eq!(
        (file.name.as_str(), file.inline, file.media_type.as_str()),
        ("relatório.txt", false, "text/plain")
    );
    assert_eq!((&file.content()[..], file.size), (&b"a -- b\r\n--mm"[..], 12));
    assert!(mail.problems.is_empty(), "{:?}", mail.problems);
}

#[test]
fn text_is_made_of_html_where_there_is_only_html() {
    let mail = read(
        "From: a@x.example\nContent-Type: text/html\n\n<style>p{}</style><p>Hello <b>you</b> &amp; me</p><p>Bye</p>\n",
    );
    assert_eq!(text(&mail), "Hello you & me\nBye");
    assert!(mail.html.is_some());
}

#[test]
fn a_mail_of_an_asian_charset_is_read() {
    let mut bytes = b"From: a@x.example\r\nContent-Type: text/plain; charset=shift_jis\r\n\r\n".to_vec();
    bytes.extend([0x93, 0xFA, 0x96, 0x7B]);
    assert_eq!(text(&parse(bytes)), "日本");
}

#[test]
fn an_attached_mail_is_an_attachment_and_its_inside_is_not_ours() {
    let mail = read(
        "From: a@x.example\nContent-Type: multipart/mixed; boundary=m\n\n--m\n\nsee below\n--m\n\
         Content-Type: message/rfc822\n\nFrom: b@x.example\nSubject: inner\n\ninner text\n--m--\n",
    );
    assert_eq!(text(&mail), "see below");
    assert_eq!(mail.attachments[0].name, "mail.eml");
    assert!(mail.attachments[0].content().starts_with(b"From: b@x.example\r\n"));
}

#[test]
fn file_names_are_cleaned_and_told_apart_and_the_original_is_kept() {
    let part = |name: &str| {
        format!(
            "--m\nContent-Type: application/pdf\nContent-Disposition: attachment; filename=\"{name}\"\n\nx\n"
        )
    };
    let names = ["../../etc/passwd", "a.pdf", "A.pdf", "\u{202e}fdp.exe", "", &"n".repeat(300)];
    let parts: String = names.iter().map(|name| part(name)).collect();
    let mail =
        read(&format!("From: a@x.example\nContent-Type: multipart/mixed; boundary=m\n\n{parts}--m--\n"));
    let found: Vec<_> = mail.attachments.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(found, ["passwd", "a.pdf", "A (2).pdf", "fdp.exe", "attachment", &"n".repeat(200)]);
    assert_eq!(mail.attachments[0].original_name, "../../etc/passwd");
}

#[test]
fn broken_mail_is_read_as_far_as_it_goes() {
    let check = |text: &str, problem: Problem| {
        let mail = read(text);
        assert!(mail.problems.contains(&problem), "{text:?}: {:?}", mail.problems);
        mail
    };
    assert_eq!(
        text(&check("Hello, I am no mail\n\nat all\n", Problem::NoHeader)),
        "Hello, I am no mail\r\n\r\nat all\r\n"
    );
    assert_eq!(text(&check("Hello", Problem::NoHeader)), "Hello");
    check("Subject: x\n\ny\n", Problem::NoFrom);
    check("From: nobody\n\ny\n", Problem::UnreadableAddress);
    check("From: a@x.example\nDate: yesterday\n\ny\n", Problem::UnreadableDate);
    let open = "From: a@x.example\nContent-Type: multipart/mixed; boundary=m\n\n--m\n\nhalf";
    assert_eq!(text(&check(open, Problem::Unclosed)), "half");
    let broken = "From: a@x.example\nContent-Transfer-Encoding: base64\n\naGVs!bG8=\n";
    assert_eq!(text(&check(broken, Problem::BrokenEncoding)), "hello");
    assert_eq!(parse("").problems, [Problem::NoFrom, Problem::NoHeader]);
    let twice = read("From: a@x.example\nFrom: b@x.example\n\nx\n");
    assert_eq!(twice.from.len(), 1);
}

#[test]
fn nothing_that_is_read_can_break_a_line() {
    let mail = read(
        "From: =?utf-8?q?A=0D=0ABcc:_x?= <a@x.example>\nSubject: =?utf-8?q?a=0D=0AX:_y?=\nMessage-ID: <a b@x>\n\nx\n",
    );
    assert_eq!(mail.from[0].name(), Some("A  Bcc: x"));
    assert_eq!(mail.subject, "a  X: y");
    assert_eq!(mail.message_id.as_deref(), Some("<ab@x>"));
}

/// Reads `bytes` in a thread whose stack could not hold one frame per level of nesting, and bounds the time. A debug
/// build on a loaded machine takes a few seconds for the greatest of these; what is quadratic takes hours.
fn survives(what: &str, bytes: Vec<u8>) -> Mail {
    survives_within(what, bytes, Duration::from_secs(60))
}

#[expect(clippy::disallowed_methods, reason = "the time that reading takes is what is tested")]
fn survives_within(what: &str, bytes: Vec<u8>, limit: Duration) -> Mail {
    let start = Instant::now();
    let worker = std::thread::Builder::new().stack_size(256 << 10).spawn(move || parse(bytes));
    let mail = worker.expect("a thread").join().expect("no panic and no overflow");
    assert!(start.elapsed() < limit, "{what} took {:?}", start.elapsed());
    mail
}

#[test]
fn fifty_thousand_nested_mails_are_one_attachment() {
    let mut bytes = b"From: a@x.example\r\n".to_vec();
    bytes.extend(b"Content-Type: message/rfc822\r\n\r\n".repeat(50_000));
    let mail = survives("nested mails", bytes);
    assert_eq!((mail.from.len(), mail.attachments.len()), (1, 1));
}

#[test]
fn twenty_thousand_nested_multiparts_are_truncated() {
    let mut bytes = b"From: a@x.example\r\n".to_vec();
    for level in 0..20_000 {
        bytes.extend(
            format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n").into_bytes(),
        );
    }
    let mail = survives("nested multiparts", bytes);
    assert!(mail.is_truncated() && mail.problems.contains(&Problem::TooDeep), "{:?}", mail.problems);
    assert_eq!(mail.from.len(), 1);
}

#[test]
fn a_million_parts_are_truncated() {
    let mut bytes = b"From: a@x.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n".to_vec();
    bytes.extend(b"--b\r\n\r\nx\r\n".repeat(1_000_000));
    let mail = survives("parts", bytes);
    assert!(mail.problems.contains(&Problem::TooManyParts), "{:?}", mail.problems);
    assert_eq!(mail.from.len(), 1);
}

#[test]
fn parts_that_all_announce_a_boundary_that_never_comes_cost_their_bytes_once() {
    let mut bytes = b"From: a@x.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n".to_vec();
    for part in 0..100_000 {
        let line = format!("--b\r\nContent-Type: multipart/mixed; boundary=never{part}\r\n\r\nx\r\n");
        bytes.extend(line.into_bytes());
    }
    survives("boundaries that never come", bytes);
}

#[test]
fn three_hundred_thousand_headers_hide_no_sender() {
    let mut bytes = b"X-Junk: y\r\n".repeat(300_000);
    bytes.extend(b"From: a@x.example\r\n\r\nx\r\n");
    let mail = survives("headers", bytes);
    assert!(mail.problems.contains(&Problem::TooManyHeaders), "{:?}", mail.problems);
    assert_eq!(mail.from.len(), 1);
    let mail = survives("known headers", b"Delivered-To: a@x.example\r\n".repeat(300_000));
    assert!(mail.is_truncated());
}

#[test]
fn lines_of_twenty_megabytes_are_bounded() {
    let long = |head: &str, piece: &str, tail: &str| {
        let mut bytes = head.as_bytes().to_vec();
        bytes.extend(piece.as_bytes().repeat((20 << 20) / piece.len()));
        bytes.extend(tail.as_bytes());
        bytes
    };
    let mail = survives("a subject", long("From: a@x.example\r\nSubject: ", "a", "\r\n\r\nx"));
    assert!(mail.problems.contains(&Problem::LongHeader) && mail.subject.len() <= 2000);
    for piece in ["=?u?q?", "=?utf-8?b?", "a@b.example,", "(", "\"", "<", "\\"] {
        let mail = survives(piece, long("Cc: x@y.example\r\nFrom: ", piece, "\r\n\r\nx"));
        assert!(mail.problems.contains(&Problem::LongHeader), "{piece}: {:?}", mail.problems);
    }
    let mail = survives("text", long("From: a@x.example\r\n\r\n", "a", ""));
    assert!(mail.problems.contains(&Problem::LongText) && text(&mail).len() == 8 << 20);
    for piece in ["<", "<div>", "&", "<!--", "&#x;"] {
        survives(piece, long("From: a@x.example\r\nContent-Type: text/html\r\n\r\n", piece, ""));
    }
}

#[test]
fn encoded_words_that_never_end_are_not_searched_again_and_again() {
    // Four fields of 64 KiB, the most that is read. Each word looks like octets to the one before it.
    let field = format!("To: {}\r\n", "=?aa?q? ".repeat(8000));
    let mut bytes = field.repeat(4).into_bytes();
    bytes.extend(b"From: a@x.example\r\n\r\nx");
    // A quarter of a second here; ten seconds where each is searched to the end.
    survives_within("encoded words", bytes, Duration::from_secs(5));
}

#[test]
fn a_hundred_thousand_pieces_of_one_name_are_bounded() {
    let mut bytes = b"From: a@x.example\r\nContent-Disposition: attachment".to_vec();
    for piece in 0..100_000 {
        bytes.extend(format!(";\r\n filename*{piece}=\"abcdefgh\"").into_bytes());
    }
    bytes.extend(b"\r\nContent-Type: a/b\r\n\r\nx");
    let mail = survives("pieces", bytes);
    assert!(mail.attachments[0].name.len() <= 200);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_make_reading_panic(bytes: Vec<u8>) {
        let _ = parse(bytes);
    }

    /// Pieces that the grammar knows, in any order: plain noise seldom gets beyond the header.
    #[test]
    fn no_mixture_of_pieces_makes_reading_panic(pieces in proptest::collection::vec(proptest::sample::select(vec![
        "From: ", "To: ", "Subject: ", "Date: ", "Message-ID: ", "References: ", "Content-Type: ", "Content-Disposition: ",
        "Content-Transfer-Encoding: ", "Return-Path: ", "a@b.c", "<", ">", "\"", "(", ")", "\\", ";", ",", ":", "=", "*", "'", "%",
        "\r\n", "\n", "\r", " ", "\t", "\0", "\u{ff}", "é", "\u{202e}", "=?utf-8?q?", "=?x?b?", "?=", "=41", "=?", "--", "--b", "--b--",
        "multipart/mixed", "multipart/alternative", "text/html", "message/rfc822", "; boundary=b", "; boundary=\"\"", "; name=x",
        "; filename*0*=utf-8''%", "; filename*1=", "; charset=utf-7", "; charset=shift_jis", "base64", "quoted-printable", "AAAA", "+ACE-",
        "<p>", "<style>", "<!--", "-->", "&amp;", "&#x41;", "&", "Sun, 22 Nov 2026 10:00:00 +0000", "99999999999", "-",
    ]), 0..60)) {
        let _ = parse(pieces.concat());
    }
}
