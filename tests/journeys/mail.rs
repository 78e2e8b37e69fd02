//! Mail that goes its way: every kind of security, every protocol, one journey there and back.

use std::time::Duration;

use postroom::core::id::RecordId;
use postroom::core::ledger::State as LedgerState;
use postroom::core::mailbox::{MailboxDraft, SettingsDraft};
use postroom::core::message::Submission;
use postroom::core::queue::State;
use postroom_testkit::{MailServer, PartialFetch};

use crate::desk::*;

const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn mail_leaves_by_each_kind_of_security_signed_in_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::open(folder.path()).await;
    for tls in ["none", "starttls", "implicit"] {
        let server = server().await;
        let outbox = desk.register(&outbox(&server, tls)).await;
        desk.link(tls, Some(outbox.id), &[]).await;
        let sent = desk.submit(tls, "ana@customer.example", tls).await;
        desk.work().await;
        desk.work().await;
        let accepted = server.accepted();
        assert_eq!(accepted.len(), 1, "{tls}");
        assert_eq!((accepted[0].tls, accepted[0].login.is_some()), (tls != "none", tls != "none"));
        assert_eq!(accepted[0].mail_from, "desk@acme.example");
        assert_eq!(accepted[0].message_id.as_deref(), Some(sent.message_id.as_str()));
        let record = desk.show(&sent).await;
        assert_eq!(record.item.state, State::Accepted);
        assert!(record.timeline.last().unwrap().detail.starts_with("250"), "{record:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_arrives_by_each_protocol_and_the_server_is_told_when_it_is_safe() {
    for (provider, after) in
        [("imap", "seen"), ("imaps", "move:Done"), ("pop3", "delete"), ("pop3s", "leave")]
    {
        let folder = tempfile::tempdir().unwrap();
        let (desk, server) = (Desk::open(folder.path()).await, server().await);
        server.create_folder("desk@acme.example", "Done");
        let mut draft = inbox(&server, provider);
        if let SettingsDraft::Inbox(form) = &mut draft.settings {
            form.after = Some(after.to_owned());
        }
        let inbox = desk.register(&draft).await;
        desk.link("ACME", None, &[inbox.id]).await;
        for subject in ["one", "two"] {
            let mail = format!("From: ana@customer.example\r\nSubject: {subject}\r\n\r\n.dot\r\nbody\r\n");
            server.deliver("desk@acme.example", mail);
        }
        desk.work().await;
        desk.work().await;
        assert_eq!(desk.tickets.subjects(), ["one", "two"], "{provider}");
        let raw = desk.tickets.0.lock().unwrap()[0].raw.clone();
        assert!(raw.ends_with(b"\r\n\r\n.dot\r\nbody\r\n"), "{provider}: {raw:?}");
        let left = |folder: &str| server.messages("desk@acme.example", folder).len();
        let want = match after {
            "move:Done" => (0, 2),
            "delete" => (0, 0),
            _ => (2, 0),
        };
        assert_eq!((left("INBOX"), left("Done")), want, "{provider} {after}");
    }
}

/// A server that gives all of a mail where a piece of it is asked for. Seen to fail, with the inbox standing still at the first of these
/// mails, when each literal longer than a piece ended the session.
#[tokio::test(flavor = "multi_thread")]
async fn large_mail_of_a_server_that_knows_no_pieces_arrives_whole_and_the_box_goes_on() {
    for parts in [PartialFetch::Whole, PartialFetch::WholeAsPart] {
        let folder = tempfile::tempdir().unwrap();
        let desk = Desk::open(folder.path()).await;
        let server = MailServer::builder().account("desk@acme.example", PASSWORD).partial_fetch(parts);
        let server = server.start().await.unwrap();
        let draft = MailboxDraft { max_message: Some(1 << 20), ..inbox(&server, "imaps") };
        let inbox = desk.register(&draft).await;
        desk.link("ACME", None, &[inbox.id]).await;
        let mail = |subject: &str, length: usize| {
            let mut mail = format!("From: ana@customer.example\r\nSubject: {subject}\r\n\r\n").into_bytes();
            mail.extend((0..length - mail.len()).map(|at| b"0123456789\r\n"[at % 12]));
            mail
        };
        let mails = [
            mail("one", 256 * 1024),
            mail("two", 256 * 1024 + 1),
            mail("three", 1 << 20),
            mail("large", 3 << 20),
            mail("five", 300),
        ];
        for mail in &mails {
            server.deliver("desk@acme.example", mail.clone());
        }
        desk.work().await;
        desk.work().await;
        assert_eq!(desk.tickets.subjects(), ["one", "two", "three", "five"]);
        for (at, want) in [0, 1, 2, 4].into_iter().enumerate() {
            assert!(desk.tickets.0.lock().unwrap()[at].raw == mails[want], "{want}");
        }
        // The beginning of the one that is too large is kept, and nobody is handed it for the mail.
        let ledger = desk.ledger().await;
        let large: Vec<_> = ledger.iter().filter(|item| item.state == LedgerState::Dead).collect();
        assert_eq!((ledger.len(), large.len()), (5, 1));
        assert_eq!((large[0].subject.as_str(), large[0].size), ("large", 1 << 20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_a_name_beyond_ascii_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (desk, server) = (Desk::open(folder.path()).await, server().await);
    let name = "Suporte/Clientes São Paulo";
    server.create_folder("desk@acme.example", name);
    server.deliver_to_folder(
        "desk@acme.example",
        name,
        "From: a@customer.example\r\nSubject: oi\r\n\r\nx\r\n",
    );
    let mut draft = inbox(&server, "imaps");
    if let SettingsDraft::Inbox(form) = &mut draft.settings {
        form.folder = Some(name.to_owned());
    }
    let inbox = desk.register(&draft).await;
    desk.link("ACME", None, &[inbox.id]).await;
    desk.work().await;
    assert_eq!(desk.tickets.subjects(), ["oi"]);
    assert_eq!(desk.ledger().await[0].folder, name);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_finds_its_way_back_into_the_thread() {
    let folder = tempfile::tempdir().unwrap();
    let (desk, server) = (Desk::open(folder.path()).await, customers().await);
    let outbox = desk.register(&outbox(&server, "starttls")).await;
    let inbox = desk.register(&inbox(&server, "imap")).await;
    desk.link("ACME", Some(outbox.id), &[inbox.id]).await;
    let mail =
        Submission::text(contract("ACME"), "Pedido nº 7", "Olá").with_to(address("ana@customer.example"));
    let sent = desk.postroom.submit(&mail.with_record(RecordId::parse("7").unwrap())).await.unwrap();
    desk.work().await;
    let received = server.expect_messages("ana@customer.example", "INBOX", 1, SOON).await;
    let text = String::from_utf8_lossy(&received[0].bytes).into_owned();
    assert!(text.is_ascii() && text.contains(&sent.message_id), "{text}");
    let reply = format!(
        "From: ana@customer.example\r\nTo: desk@acme.example\r\nSubject: Re: Pedido\r\nIn-Reply-To: {}\r\n\r\nObrigada\r\n",
        sent.message_id
    );
    server.deliver("desk@acme.example", reply);
    desk.work().await;
    let tickets = desk.tickets.0.lock().unwrap();
    assert_eq!(tickets[0].record.as_ref().map(ToString::to_string).as_deref(), Some("7"));
    assert_eq!(tickets[0].contract, Some(contract("ACME")));
}

async fn customers() -> MailServer {
    let builder = MailServer::builder().account("desk@acme.example", PASSWORD);
    builder.account("ana@customer.example", "hers").start().await.unwrap()
}
