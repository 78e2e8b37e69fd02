//! Hostile and unreadable mail, from the folder to the handler.

use postroom_core::contract::Contract;
use postroom_core::ledger::State;
use postroom_core::mail::Problem;
use postroom_core::mailbox::{InboxDraft, MailboxDraft, Status};
use postroom_storage::{LedgerDesk, LedgerQuery};
use postroom_testkit::HostileMail;

use crate::fixture::*;

/// Larger than a piece of the store, and than what is sorted by; the sizes that hurt are tested where mail is read.
const SIZE: usize = 1200 << 10;

/// Would miss a mail whose reading ends the worker or the round, or holds up the mail behind it.
#[tokio::test]
async fn every_hostile_mail_reaches_the_handler_byte_for_byte_and_so_does_the_next() {
    let house = House::new().await;
    let form = InboxDraft {
        provider: "imaps".to_owned(),
        baseline: Some("all".to_owned()),
        ..InboxDraft::default()
    };
    let form = MailboxDraft { max_message: Some(4 << 20), ..inbox("imap.hostile.example", form) };
    let inbox = house.postroom.register(&actor(), &form, password(), Status::Active).await.unwrap();
    let widget = Contract::new(contract("WIDGET")).with_inbox(inbox.id);
    house.postroom.save_contract(&actor(), &widget).await.unwrap();
    house.incoming.create_folder(inbox.id, "INBOX");
    for hostile in HostileMail::all() {
        house.incoming.deliver(inbox.id, "INBOX", hostile.bytes(SIZE));
        house.incoming.deliver(
            inbox.id,
            "INBOX",
            format!("From: bob@customer.example\r\nSubject: after {}\r\n\r\nHello\r\n", hostile.name()),
        );
        house.work().await;
        let got: Vec<_> = std::mem::take(&mut *house.host.got.lock().unwrap());
        let [bad, good] = &got[..] else { panic!("{}: {} calls", hostile.name(), got.len()) };
        assert!(bad.raw == hostile.bytes(SIZE), "{}: its bytes", hostile.name());
        assert_eq!((&bad.contract, &good.contract), (&Some(contract("WIDGET")), &Some(contract("WIDGET"))));
        assert_eq!(good.mail.subject, format!("after {}", hostile.name()));
    }
}

#[tokio::test]
async fn a_mail_that_can_t_be_read_reaches_the_handler_with_what_is_known_of_it_and_its_bytes() {
    let house = House::new().await;
    let noise = b"\xff\xfe\0\x01 nothing of a mail".to_vec();
    house.incoming.deliver(house.inbox.id, "INBOX", noise.clone());
    house.incoming.deliver(house.inbox.id, "INBOX", Vec::new());
    house.work().await;
    let got = std::mem::take(&mut *house.host.got.lock().unwrap());
    assert_eq!((&got[0].raw[..], &got[1].raw[..]), (&noise[..], &b""[..]));
    for delivery in &got {
        assert!(delivery.mail.problems.contains(&Problem::NoHeader), "{:?}", delivery.mail.problems);
        assert_eq!((delivery.mailbox, &delivery.contract), (house.inbox.id, &Some(contract("ACME"))));
    }
    let desk: &dyn LedgerDesk = house.postroom.store();
    let items = desk.list(&LedgerQuery::default()).await.unwrap();
    assert!(items.iter().all(|item| item.state == State::Handled), "{items:?}");
}

/// What is beyond the head by which a mail is sorted is there all the same: the handler's mail is read from all of it.
#[tokio::test]
async fn a_mail_larger_than_what_it_is_sorted_by_is_handed_over_whole() {
    let house = House::new().await;
    let form = InboxDraft {
        provider: "imaps".to_owned(),
        baseline: Some("all".to_owned()),
        ..InboxDraft::default()
    };
    let form = MailboxDraft { max_message: Some(8 << 20), ..inbox("imap.large.example", form) };
    let inbox = house.postroom.register(&actor(), &form, password(), Status::Active).await.unwrap();
    house
        .postroom
        .save_contract(&actor(), &Contract::new(contract("WIDGET")).with_inbox(inbox.id))
        .await
        .unwrap();
    house.incoming.create_folder(inbox.id, "INBOX");
    for pieces in [0, 1, 2, 8, 9] {
        // One byte around each border of a piece.
        for size in [pieces * postroom_storage::PIECE, pieces * postroom_storage::PIECE + 1] {
            let head = "From: bob@customer.example\r\nSubject: large\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n";
            let tail = "\r\n--b\r\nContent-Disposition: attachment; filename=z.bin\r\n\r\nlast\r\n--b--\r\n";
            let filling = "a".repeat(size.saturating_sub(head.len() + tail.len()));
            let mail = format!("{head}{filling}{tail}");
            house.incoming.deliver(inbox.id, "INBOX", mail.clone());
            house.work().await;
            let got = house.host.got.lock().unwrap().pop().unwrap();
            assert!(got.raw == mail.as_bytes(), "{size}: {} of {} bytes", got.raw.len(), mail.len());
            assert_eq!(got.mail.attachments[0].content(), &b"last"[..], "{size}");
        }
    }
}
