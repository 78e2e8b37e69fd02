//! Mail that a program wrote, by each sign that shows it; and what such mail reports of ours.

use postroom_core::address::Address;
use postroom_core::automatic::Kind;
use postroom_core::bounce::{Action, BAD, Report, Status, report};
use postroom_core::mail::Mail;
use postroom_core::mime::parse;

fn read(text: &str) -> Mail {
    parse(text.replace('\n', "\r\n").into_bytes())
}

fn kind(header: &str) -> Option<Kind> {
    read(&format!("From: a@x.example\n{header}\n\nx\n")).automatic.map(|automatic| automatic.kind)
}

#[test]
fn each_sign_shows_its_kind_of_program() {
    for (sign, expected) in [
        ("Auto-Submitted: auto-replied", Kind::Reply),
        ("auto-submitted: Auto-Replied (vacation)", Kind::Reply),
        ("auto-submitted: auto-generated; x=y", Kind::Notice),
        ("Auto-Submitted: auto-notified; owner-email=\"a@x.example\"", Kind::Notice),
        ("Precedence: bulk", Kind::Bulk),
        ("Precedence: LIST", Kind::List),
        ("Precedence: junk", Kind::Bulk),
        ("Precedence: auto_reply", Kind::Reply),
        ("List-Id: <l.x.example>", Kind::List),
        ("List-Unsubscribe: <mailto:u@x.example>", Kind::List),
        ("X-Auto-Response-Suppress: All", Kind::Notice),
        ("X-Auto-Response-Suppress: OOF, AutoReply", Kind::Notice),
        ("X-Autoreply: yes", Kind::Reply),
        ("X-Autorespond: away", Kind::Reply),
        ("X-Auto-Reply-From: a@x.example", Kind::Reply),
        ("X-MS-Exchange-Inbox-Rules-Loop: a@x.example", Kind::Reply),
        ("X-MS-Exchange-Generated-Message-Source: Mailbox Rules Agent", Kind::Notice),
        ("X-Failed-Recipients: b@y.example", Kind::Bounce),
        ("Return-Path: <>", Kind::Notice),
        ("Content-Type: multipart/report; report-type=delivery-status; boundary=b", Kind::Bounce),
        (
            "Content-Type: multipart/report;\n report-type=\"disposition-notification\"; boundary=b",
            Kind::Receipt,
        ),
        ("Content-Type: multipart/report; boundary=b; report-type=feedback-report", Kind::Complaint),
    ] {
        assert_eq!(kind(sign), Some(expected), "{sign}");
    }
    for sign in [
        "Auto-Submitted: no",
        "Auto-Submitted: No (a person)",
        "Precedence: normal",
        "Return-Path: <a@x.example>",
        "X-Auto-Response-Suppress: None",
        "X-Autoreply: no",
        "Content-Type: text/plain",
        "Subject: Out of Office: I am away",
        "X-A: b",
    ] {
        assert_eq!(kind(sign), None, "{sign}");
    }
}

/// Without the order of the kinds, the bounce would be taken for an answer of somebody who is away.
#[test]
fn a_bounce_that_says_that_it_is_an_answer_is_a_bounce() {
    let report = "Content-Type: multipart/report; report-type=delivery-status; boundary=b";
    for header in [
        format!("Auto-Submitted: auto-replied\n{report}\nReturn-Path: <>"),
        format!("{report}\nPrecedence: list\nAuto-Submitted: auto-replied"),
        "Auto-Submitted: auto-replied\nX-Failed-Recipients: b@y.example".to_owned(),
    ] {
        assert_eq!(kind(&header), Some(Kind::Bounce), "{header}");
    }
    let daemon = read("From: MAILER-DAEMON@x.example\nAuto-Submitted: auto-replied\n\nx\n");
    assert_eq!(
        daemon.automatic.map(|automatic| automatic.to_string()).as_deref(),
        Some("automatic bounce: from: mailer-daemon")
    );
}

fn reported(text: &str) -> Report {
    report(&read(text)).expect("a report")
}

fn line(report: &Report) -> Vec<String> {
    report.recipients.iter().map(ToString::to_string).collect()
}

const DSN: &str = "From: MAILER-DAEMON@mx.example (Mail Delivery System)
Return-Path: <>
Auto-Submitted: auto-replied
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: text/plain

I'm sorry to have to inform you that your message could not
be delivered to one or more recipients.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example

Final-Recipient: rfc822; bea@y.example
Original-Recipient: rfc822;desk+2B7@y.example
Action: failed
Status: 5.0.0
Diagnostic-Code: smtp; 550 5.1.1 <bea@y.example>: Recipient address
 rejected: User unknown

Final-Recipient: rfc822; carl@y.example
Action: delayed
Status: 4.4.1

Final-Recipient: x400; /c=us/
Action: failed
Status: 5.1.1

Final-Recipient: rfc822; dora@y.example
Status: 5.1.1
--b
Content-Type: message/rfc822

Message-ID: <ours@acme.example>
From: desk@acme.example
Subject: hello

--b--
";

#[test]
fn a_report_is_read_recipient_by_recipient() {
    let report = reported(DSN);
    assert_eq!(report.message_ids, ["<ours@acme.example>"]);
    assert_eq!(
        line(&report),
        [
            "failed bea@y.example 5.1.1: 550 5.1.1 <bea@y.example>: Recipient address rejected: User unknown",
            "delayed carl@y.example 4.4.1"
        ]
    );
    assert!(report.recipients[0].is_about(&Address::parse("Desk+7@y.example").expect("address")));
    assert!(!report.recipients[0].is_about(&Address::parse("carl@y.example").expect("address")));
    assert!(report.recipients[0].suppresses().is_some() && report.recipients[1].suppresses().is_none());
}

#[test]
fn a_person_who_quotes_a_report_reports_nothing() {
    let person = DSN
        .replace("MAILER-DAEMON@mx.example (Mail Delivery System)", "ana@y.example")
        .replace("multipart/report", "multipart/mixed")
        .replace("Return-Path: <>\nAuto-Submitted: auto-replied\n", "");
    assert_eq!(report(&read(&person)), None);
}

#[test]
fn a_complaint_names_who_complained() {
    let report = reported(
        "From: fbl@provider.example
Content-Type: multipart/report; report-type=feedback-report; boundary=b

--b
Content-Type: text/plain

This is a complaint.
--b
Content-Type: message/feedback-report

Feedback-Type: abuse
Version: 1
Original-Mail-From: <desk@acme.example>
Original-Rcpt-To: <bea@y.example>
--b
Content-Type: text/rfc822-headers

Message-ID: <ours@acme.example>
--b--
",
    );
    assert_eq!(
        (line(&report), report.message_ids.clone()),
        (vec!["complained bea@y.example".to_owned()], vec!["<ours@acme.example>".to_owned()])
    );
    assert!(report.recipients[0].suppresses().is_some());
}

fn plain(text: &str) -> Report {
    reported(&format!("From: MAILER-DAEMON@x.example\nReturn-Path: <>\n\n{text}"))
}

#[test]
fn the_texts_of_servers_that_write_no_report_are_read() {
    let qmail = plain(
        "Hi. This is the qmail-send program at mx.example.
I'm afraid I wasn't able to deliver your message to the following addresses.
This is a permanent error; I've given up. Sorry it didn't work out.

<bea@y.example>:
192.0.2.1 does not like recipient.
Remote host said: 550 5.1.1 no such user
Giving up on 192.0.2.1.

--- Below this line is a copy of the message.

Return-Path: <desk@acme.example>
Message-ID: <ours@acme.example>
To: carl@y.example

<carl@y.example>
",
    );
    assert_eq!(qmail.recipients.len(), 1, "{qmail:?}");
    assert_eq!(qmail.recipients[0].status, Status::parse("5.1.1"));
    assert_eq!(qmail.message_ids, ["<ours@acme.example>"]);
    let exim = plain(
        "This message was created automatically by mail delivery software.

A message that you sent could not be delivered to one or more of its
recipients. This is a permanent error. The following address(es) failed:

  bea@y.example
    host mx.y.example [192.0.2.1]
    SMTP error from remote mail server after RCPT TO:<bea@y.example>:
    550 Unrouteable address

------ This is a copy of the message, including all the headers. ------

Message-ID: <ours@acme.example>
",
    );
    assert_eq!((exim.recipients.len(), exim.recipients[0].action), (1, Action::Failed));
    assert!(exim.recipients[0].suppresses().is_none(), "no code says that the address is bad");
    assert_eq!(exim.message_ids, ["<ours@acme.example>"]);
    let warned = plain(
        "This message was created automatically by mail delivery software.
A message that you sent has not been delivered to one or more of its recipients
after more than 24 hours on the queue on mx.example.

  bea@y.example

No action is required on your part.
",
    );
    assert_eq!(line(&warned).len(), 1);
    assert_eq!(warned.recipients[0].action, Action::Delayed);
    let exchange = plain(
        "Your message did not reach some or all of the intended recipients.

The following recipient(s) cannot be reached:

      bea@y.example on 22/11/2026 17:31
            The e-mail account does not exist at the organization.
            <mx.y.example #5.1.1>
",
    );
    assert_eq!(exchange.recipients[0].status, Status::parse("5.1.1"));
}

/// A daemon's text that is not known names nobody, whatever addresses stand in it.
#[test]
fn of_an_unknown_text_nothing_is_concluded() {
    let report =
        plain("Dear bea@y.example,\n<bea@y.example>\nyour mail to carl@y.example was 550 5.1.1 refused.\n");
    assert_eq!(report.recipients, []);
}

#[test]
fn a_code_is_a_code_only_when_it_is_whole() {
    for (text, shown) in [("5.1.1", "5.1.1"), ("5.7.606 x", "5.7.606"), ("4.4.7 (x)", "4.4.7")] {
        assert_eq!(Status::parse(text).map(|status| status.to_string()).as_deref(), Some(shown));
    }
    for text in ["5.1", "6.1.1", "5.1.1.1", "5..1", "x", "", "5.1.1234", "192.0.2.1"] {
        assert_eq!(Status::parse(text), None, "{text}");
    }
}

/// A full box, a policy or a server that is away says nothing against the address.
#[test]
fn an_address_is_suppressed_for_codes_of_the_table_only() {
    let with = |code: &str| {
        let text = DSN.replace("Status: 5.0.0", &format!("Status: {code}"));
        reported(&text).recipients[0].suppresses().map(|time| time.as_secs() / 86_400)
    };
    for bad in BAD {
        assert_eq!(
            with(&format!("5.{}.{}", bad.code.0, bad.code.1)),
            Some(u64::from(bad.days)),
            "{}",
            bad.source
        );
    }
    for code in ["5.2.2", "5.7.1", "4.1.1", "5.4.4", "5.3.0"] {
        assert_eq!(with(code), None, "{code}");
    }
}

#[test]
fn hostile_reports_cost_bounded_time_and_lists() {
    let mut text = String::from(
        "From: MAILER-DAEMON@x.example\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n",
    );
    for n in 0..50_000 {
        text.push_str(&format!("Final-Recipient: rfc822; a{n}@y.example\nAction: failed\nStatus: 5.1.1\n\n"));
    }
    text.push_str("--b--\n");
    assert!(reported(&text).recipients.len() <= 1000);
    let text = plain(&format!("The following address(es) failed:\n{}", "a@y.example\n".repeat(200_000)));
    assert_eq!(text.recipients.len(), 1);
    let long = format!("The following address(es) failed:\n\n  bea@{}y.example", "a".repeat(70_000));
    assert_eq!(plain(&long).recipients, [], "half an address is another one");
    plain(&format!("The following address(es) failed:\n\n  a@y.example\n{}", "x y ".repeat(100_000)));
}
