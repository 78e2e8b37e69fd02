//! Servers that put off, refuse, or take some recipients only, and mails that can't be sent: what is tried again, what ends, and that
//! nobody else waits for it. What each reply means is the table of `replies` in the manual.

use std::sync::Arc;
use std::time::Duration;

use postroom::Postroom;
use postroom::core::address::Address;
use postroom::core::id::EventNumber;
use postroom::core::message::Submission;
use postroom::core::queue::State;
use postroom::engine::NoObserver;
use postroom::storage::{EventSubject, Events, ManualClock};
use postroom_testkit::{MailServer, Refusal};
use tempfile::TempDir;

use crate::house::{PATIENCE, contract, linked, mail, opened, options, show, smtp, sqlite, submit, work};

struct House {
    postroom: Postroom,
    clock: Arc<ManualClock>,
    server: MailServer,
    _folder: TempDir,
}

impl House {
    async fn with(server: MailServer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, clock) = sqlite(folder.path(), Duration::ZERO).await;
        let outgoing = Arc::new(smtp(PATIENCE));
        let postroom = opened(store, outgoing, Arc::new(NoObserver::default()), options());
        linked(&postroom, "ACME", server.smtp_port(), 1).await;
        Self { postroom, clock, server, _folder: folder }
    }

    /// Longer than the first waits of a mail and of its outbox.
    async fn later(&self) {
        self.clock.advance(Duration::from_secs(600));
        work(&self.postroom).await;
    }

    /// To whom the server has taken a mail, in order.
    fn taken(&self) -> Vec<Vec<String>> {
        self.server.accepted().into_iter().map(|mail| mail.recipients).collect()
    }
}

// Seen to fail when a failed attempt is repeated for all recipients. Would miss a second result of one recipient.
#[tokio::test(flavor = "multi_thread")]
async fn only_recipients_that_were_put_off_are_tried_again() {
    let house = House::with(MailServer::start().await.unwrap()).await;
    for (to, code, text, times) in [
        ("grey", 450, "4.2.0 Greylisted, please try again", 1),
        ("full", 452, "4.2.2 Mailbox full", 2),
        ("many", 552, "Too many recipients", 1),
        ("gone", 550, "5.1.1 No such user", 9),
    ] {
        let address = format!("{to}@customer.example");
        house.server.refuse(Refusal::recipient(&address, code, text).times(times));
    }
    let to: Vec<String> =
        ["ana", "grey", "full", "many", "gone"].map(|to| format!("{to}@customer.example")).into();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let mail = house.postroom.submit(&mail("ACME", &to)).await.unwrap();
    work(&house.postroom).await;
    house.later().await;
    house.later().await;
    assert_eq!(house.taken(), [vec![to[0]], vec![to[1], to[3]], vec![to[2]]], "each recipient once");
    let record = show(&house.postroom, &mail).await;
    let states: Vec<State> = record.recipients.iter().map(|one| one.state).collect();
    use State::{Accepted, Refused};
    assert_eq!(states, [Accepted, Accepted, Accepted, Accepted, Refused], "{:#?}", record.timeline);
    house.later().await;
    assert_eq!(house.server.accepted_count(), 3, "nothing is left to do");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_mail_is_put_off_or_refused_by_the_class_of_the_reply_and_by_552_when_it_is_too_large() {
    for (refusal, after) in [
        (Refusal::data(451, "4.3.0 Not now"), State::Queued),
        (Refusal::content(451, "4.7.1 Greylisted"), State::Queued),
        (Refusal::content(452, "4.3.1 Insufficient system storage"), State::Queued),
        (Refusal::content(552, "5.3.4 Message too big"), State::Refused),
        (Refusal::content(554, "5.6.0 Rejected"), State::Refused),
        (Refusal::data(554, "5.7.1 Rejected"), State::Refused),
    ] {
        let house = House::with(MailServer::start().await.unwrap()).await;
        let told = format!("{refusal:?}");
        house.server.refuse(refusal.times(1));
        let mail = submit(&house.postroom, "ACME").await;
        work(&house.postroom).await;
        assert_eq!(show(&house.postroom, &mail).await.item.state, after, "{told}");
        house.later().await;
        let (state, arrived) = match after {
            State::Queued => (State::Accepted, 1),
            state => (state, 0),
        };
        assert_eq!(show(&house.postroom, &mail).await.item.state, state, "{told}");
        assert_eq!(house.server.accepted_count(), arrived, "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_is_put_off_for_ever_expires_once_and_is_not_tried_after_that() {
    let house = House::with(MailServer::start().await.unwrap()).await;
    house.server.refuse_recipient("ana@customer.example", 451, "4.3.0 Never now");
    let mail = submit(&house.postroom, "ACME").await;
    let mut attempts = 0;
    // Six days in steps of half an hour: its time is five days.
    for _ in 0..6 * 48 {
        house.clock.advance(Duration::from_secs(30 * 60));
        work(&house.postroom).await;
        attempts = show(&house.postroom, &mail).await.item.attempts;
    }
    let record = show(&house.postroom, &mail).await;
    assert_eq!(record.item.state, State::Expired);
    // 1, 5, 15, 30, 60, 120, 240 minutes, then every four hours: 35 or less with jitter.
    assert!((25..40).contains(&attempts), "{attempts} attempts in five days");
    let told = record.timeline.iter().filter(|entry| entry.state == Some(State::Expired)).count();
    assert_eq!(told, 1, "expired once");
    // The notice that a host reads: one, and nothing of the mail behind it.
    let events: &dyn Events = house.postroom.store();
    let events = events.events(EventNumber::new(0), 10_000).await.unwrap();
    let of_mail: Vec<&str> = events
        .iter()
        .filter(|event| event.subject == EventSubject::Queue(mail.id))
        .filter_map(|event| event.state.as_deref())
        .collect();
    assert_eq!(of_mail.iter().filter(|state| **state == "expired").count(), 1, "{of_mail:?}");
    assert_eq!(of_mail.last(), Some(&"expired"));
    assert_eq!(house.server.accepted_count(), 0);
    let before = house.server.sessions().len();
    house.later().await;
    assert_eq!(house.server.sessions().len(), before, "it is not tried any more");
}

// One in a hundred of each kind. Would miss a poison that a server takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_poison_mail_alone_fails_with_a_reason_and_the_rest_goes() {
    const MAILS: usize = 200;
    let server = MailServer::builder().size_limit(20_000).start().await.unwrap();
    let house = House::with(server).await;
    let to = |address: &str| Address::parse(address).unwrap();
    let raw = |header: &str, body: String| {
        let mail = format!("From: desk@acme.example\r\nTo: ana@customer.example\r\n{header}\r\n{body}\r\n");
        Submission::raw(contract("ACME"), mail.into_bytes())
    };
    // Refused at the edge, where the host learns of it.
    for (submission, word) in [
        (raw("", "bare \n newline".to_owned()), "newline"),
        (Submission::text(contract("ACME"), "x\r\nBcc: eve@evil.example", "x"), "subject"),
        (Submission::text(contract("ACME"), "x", "x"), "recipient"),
    ] {
        let submission = if word == "recipient" { submission } else { submission.with_to(to("a@b.example")) };
        let refused = house.postroom.submit(&submission).await;
        assert!(refused.is_err(), "{word}: {refused:?}");
    }
    assert!(Address::parse("a@b.example>\r\nRCPT TO:<eve@evil.example").is_err());
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for number in 0..MAILS {
        let subject = format!("m{number}");
        let text = |text: String| Submission::text(contract("ACME"), subject.clone(), text);
        let poison = match number % 100 {
            20 => Some((text("x".repeat(50_000)).with_to(to("ana@customer.example")), "5.3.4")),
            40 => Some((text("x".to_owned()).with_to(to("d\u{f6}rte@customer.example")), "SMTPUTF8")),
            60 => Some((text("x".to_owned()).with_to(to("no-such@customer.example")), "5.1.1")),
            _ => None,
        };
        match poison {
            Some((mail, reason)) => bad.push((house.postroom.submit(&mail).await.unwrap(), reason)),
            None => good.push(submit(&house.postroom, "ACME").await),
        }
    }
    house.server.refuse_recipient("no-such@customer.example", 550, "5.1.1 No such user");
    work(&house.postroom).await;
    for mail in &good {
        let item = show(&house.postroom, mail).await.item;
        assert_eq!((item.state, item.attempts), (State::Accepted, 1), "{item:?}");
    }
    assert_eq!((bad.len(), house.server.accepted_count()), (6, good.len()));
    for (mail, reason) in &bad {
        let record = show(&house.postroom, mail).await;
        assert_eq!(record.item.state, State::Refused, "{reason}: {:#?}", record.timeline);
        let told = &record.timeline.last().unwrap().detail;
        assert!(told.contains(reason) && told.contains(';'), "{reason} is not in {told}");
    }
}

// Seen to fail when the dots of a mail are not stuffed. Would miss what a host writes into the queue by rows of its own.
#[tokio::test(flavor = "multi_thread")]
async fn one_mail_is_one_mail_also_at_a_server_that_takes_bare_line_feeds() {
    let server = MailServer::builder().danger_bare_newlines().start().await.unwrap();
    let house = House::with(server).await;
    let (mut taken, mut refused) = (0, 0);
    let breaks = ["\r\n", "\n", "\r", "\r\r\n", "\n\r", "\n\n", "\r\n\n", "\r\n\0"];
    for (before, after) in breaks.iter().flat_map(|before| breaks.iter().map(move |after| (before, after))) {
        let evil =
            ["MAIL FROM:<evil@host.example>", "RCPT TO:<evil@host.example>", "DATA", "Subject: two", "", "x"];
        let text = format!("one{before}.{after}{}{before}.{after}", evil.join(after));
        let header = "From: desk@acme.example\r\nTo: ana@customer.example\r\n\r\n";
        for mail in [
            Submission::text(contract("ACME"), "one", text.as_str()).with_html(format!("<p>{text}")),
            Submission::raw(contract("ACME"), format!("{header}{text}\r\n").into_bytes()),
            Submission::text(contract("ACME"), "one", "x").with_header("X-Note", text.as_str()),
        ] {
            match house.postroom.submit(&mail.with_to(Address::parse("ana@customer.example").unwrap())).await
            {
                Ok(_) => taken += 1,
                Err(_) => refused += 1,
            }
        }
    }
    // Each text, which is put into form; of raw mail that alone which has the form; no header.
    assert_eq!((taken, refused), (64 + 1, 64 + 63));
    work(&house.postroom).await;
    assert_eq!(house.taken(), vec![vec!["ana@customer.example".to_owned()]; taken]);
    assert!(house.server.accepted().iter().all(|mail| mail.mail_from == "desk@acme.example"));
}
