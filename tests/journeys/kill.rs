//! A worker that dies at any moment loses nothing and doubles nothing but what shows as in doubt. Here it dies by its
//! future being dropped, which closes its connections as a killed process does; the file is then opened anew. Would miss
//! what only a lost page of the disk shows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postroom::core::queue::State;
use postroom_testkit::MailServer;

use crate::desk::*;

const MAILS: usize = 60;
const ROUNDS: u64 = 12;

fn copies(server: &MailServer) -> BTreeMap<String, usize> {
    let mut copies = BTreeMap::new();
    for accepted in server.accepted() {
        *copies.entry(accepted.message_id.unwrap()).or_default() += 1;
    }
    copies
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_dies_again_and_again_loses_nothing_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = server().await;
    let desk = Desk::open(folder.path()).await;
    let outbox = desk.register(&outbox(&server, "none")).await;
    desk.postroom.set_standard(&actor(), Some(outbox.id)).await.unwrap();
    let mut submitted = BTreeSet::new();
    for number in 0..MAILS {
        let to = format!("c{number}@customer.example");
        submitted.insert(desk.submit("ACME", &to, &format!("m{number}")).await.message_id);
    }
    for round in 0..ROUNDS {
        let desk = Desk::open(folder.path()).await;
        // Spread over the first half second, in which several mails are under way.
        let life = Duration::from_millis(7 + (round * 37) % 100);
        let _ = tokio::time::timeout(life, desk.postroom.run(std::future::pending())).await;
    }
    let desk = Desk::open(folder.path()).await;
    desk.work().await;
    let copies = copies(&server);
    let queue = desk.queue().await;
    assert_eq!(queue.len(), MAILS);
    let mut doubts = 0;
    for item in queue {
        let copies = copies.get(&item.message_id).copied().unwrap_or_default();
        match item.state {
            State::Accepted => assert_eq!(copies, 1, "{item:?}"),
            State::InDoubt => {
                doubts += 1;
                assert!(copies <= 1, "{item:?}");
            }
            state => panic!("{state} is no state to end in: {item:?}"),
        }
    }
    assert!(copies.keys().all(|id| submitted.contains(id)));
    assert!(doubts <= 4 * 5 * ROUNDS, "at most four mails of each of five connections: {doubts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_dies_again_and_again_hands_every_mail_over_under_one_key() {
    for provider in ["imaps", "pop3s"] {
        let folder = tempfile::tempdir().unwrap();
        let server = server().await;
        let desk = Desk::open(folder.path()).await;
        let mut draft = inbox(&server, provider);
        if let postroom::core::mailbox::SettingsDraft::Inbox(form) = &mut draft.settings {
            form.after = Some("delete".to_owned());
        }
        let inbox = desk.register(&draft).await;
        desk.link("ACME", None, &[inbox.id]).await;
        for number in 0..MAILS {
            let mail = format!("From: a@customer.example\r\nSubject: m{number}\r\n\r\nx\r\n");
            server.deliver("desk@acme.example", mail);
        }
        let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut note = |desk: &Desk| {
            for ticket in desk.tickets.0.lock().unwrap().iter() {
                keys.entry(ticket.mail.subject.clone()).or_default().insert(ticket.id.to_string());
            }
        };
        for round in 0..ROUNDS {
            let desk = Desk::open(folder.path()).await;
            let life = Duration::from_millis(20 + (round * 37) % 200);
            let _ = tokio::time::timeout(life, desk.postroom.run(std::future::pending())).await;
            note(&desk);
        }
        let desk = Desk::open(folder.path()).await;
        // A box that was killed in the middle may be locked for a moment, and rests; look again until it was read.
        for _ in 0..20 {
            desk.work().await;
            if server.messages("desk@acme.example", "INBOX").is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        note(&desk);
        assert_eq!(keys.len(), MAILS, "{provider}");
        assert!(keys.values().all(|ids| ids.len() == 1), "{provider}: {keys:?}");
        assert_eq!(desk.ledger().await.len(), MAILS, "{provider}");
        assert!(server.messages("desk@acme.example", "INBOX").is_empty(), "{provider}");
    }
}
