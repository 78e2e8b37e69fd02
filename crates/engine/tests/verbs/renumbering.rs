//! Mail whose server gives it another key: a folder under another UIDVALIDITY, a POP3 box with other UIDLs.

use std::time::Duration;

use postroom_core::mailbox::InboxDraft;
use postroom_engine::Options;
use postroom_transport::{Error, ErrorKind, Stage};

use crate::fixture::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn pop3(after: &str) -> InboxDraft {
    InboxDraft {
        provider: "pop3s".to_owned(),
        baseline: Some("all".to_owned()),
        after: Some(after.to_owned()),
        ..InboxDraft::default()
    }
}

impl House {
    async fn with_pop3(form: InboxDraft) -> Self {
        Self::with_inbox(Options::default(), form).await
    }

    fn asks(&self, subject: &str) -> u32 {
        self.arrives("ana@customer.example", subject, "")
    }

    fn renumber(&self) {
        self.incoming.reset_epoch(self.inbox.id, "INBOX");
    }

    fn left(&self) -> usize {
        self.incoming.mails(self.inbox.id, "INBOX").len()
    }
}

#[tokio::test]
async fn a_renumbered_folder_brings_nothing_twice_and_misses_nothing() {
    let house = House::new().await;
    let gone = house.asks("gone");
    house.asks("one");
    house.asks("two");
    house.work().await;
    house.incoming.expunge(house.inbox.id, "INBOX", gone);
    house.renumber();
    house.asks("three");
    // A second copy of a known mail is a mail of its own: one row accounts for one mail.
    house.asks("one");
    house.work().await;
    house.work().await;
    // Would miss a cursor by UID alone (all again, or none), and one by Message-ID (the copy is lost).
    assert_eq!(house.host.subjects(), ["gone", "one", "two", "three", "one"]);
}

/// Would miss a key by UIDL alone: all mail again.
#[tokio::test]
async fn a_pop3_box_whose_uidls_change_brings_nothing_twice_and_misses_nothing() {
    for after in ["leave", "delete:5"] {
        let house = House::with_pop3(pop3(after)).await;
        let gone = house.asks("gone");
        house.asks("one");
        house.asks("two");
        house.work().await;
        house.incoming.expunge(house.inbox.id, "INBOX", gone);
        for round in 0..5 {
            house.renumber();
            house.asks(&format!("new {round}"));
            house.work().await;
            house.work().await;
        }
        let expected = ["gone", "one", "two", "new 0", "new 1", "new 2", "new 3", "new 4"];
        assert_eq!(house.host.subjects(), expected, "{after}");
        house.clock.advance(6 * DAY);
        house.work().await;
        assert_eq!(house.left(), if after == "leave" { 7 } else { 0 }, "{after}: under the keys of now");
    }
}

/// Would miss bytes that tell a mail whatever the box shows: the copy is lost.
#[tokio::test]
async fn equal_mails_in_a_pop3_box_are_as_many_as_it_shows() {
    let house = House::with_pop3(pop3("leave")).await;
    house.asks("one");
    house.work().await;
    house.asks("one");
    house.work().await;
    assert_eq!(house.host.subjects(), ["one", "one"]);
    house.renumber();
    house.work().await;
    assert_eq!(house.host.subjects(), ["one", "one"], "both are known");
    house.renumber();
    house.asks("one");
    house.work().await;
    assert_eq!(house.host.subjects(), ["one", "one", "one"], "two of three are known");
}

/// Would miss a renumbering that is seen only where no UIDL is known any more.
#[tokio::test]
async fn a_mail_that_alone_gets_another_uidl_is_known() {
    let house = House::with_pop3(pop3("leave")).await;
    let back = house.asks("taken out and put back");
    house.asks("one");
    house.work().await;
    house.incoming.expunge(house.inbox.id, "INBOX", back);
    house.asks("taken out and put back");
    house.asks("new");
    house.work().await;
    assert_eq!(house.host.subjects(), ["taken out and put back", "one", "new"]);
}

/// Would miss recognition of what its server was told to delete: the second mail is lost.
#[tokio::test]
async fn an_equal_mail_that_comes_after_the_first_was_deleted_is_new() {
    let house = House::with_pop3(pop3("delete")).await;
    for count in 1..=3 {
        house.asks("the nightly report");
        house.work().await;
        assert_eq!((house.host.subjects().len(), house.left()), (count, 0));
    }
}

/// Would miss rows that count as told before the server said that it keeps it.
#[tokio::test]
async fn a_deletion_that_was_lost_is_told_again_under_the_uidls_of_now() {
    let house = House::with_pop3(pop3("delete")).await;
    house.asks("one");
    house.asks("two");
    house.incoming.fail_once(Error::new(ErrorKind::Disconnected, Stage::Close));
    house.work().await;
    assert_eq!((house.host.subjects().len(), house.left()), (2, 2));
    house.renumber();
    house.clock.advance(Duration::from_secs(60));
    house.work().await;
    assert_eq!(house.host.subjects(), ["one", "two"]);
    assert_eq!(house.left(), 0);
}

/// The numbers change while a round is half way, and again while the round that recognises is. Would miss what is kept in the process:
/// the second worker has another one's rows.
#[tokio::test]
async fn a_renumbering_in_the_middle_of_a_round_brings_nothing_twice_and_misses_nothing() {
    for after in ["leave", "delete"] {
        let house = House::with_pop3(InboxDraft { per_round: Some(2), ..pop3(after) }).await;
        let subjects: Vec<String> = (0..9).map(|number| format!("mail {number}")).collect();
        for subject in &subjects {
            house.asks(subject);
        }
        for stage in [Stage::Fetch, Stage::Settle, Stage::Fetch, Stage::Close, Stage::List] {
            house.incoming.fail_once(Error::new(ErrorKind::Disconnected, stage));
            house.work().await;
            house.renumber();
            house.clock.advance(DAY);
        }
        // Of a box that gives away two mails a round.
        for _ in 0..5 {
            house.work().await;
        }
        let mut handed = house.host.subjects();
        handed.sort();
        assert_eq!(handed, subjects, "{after}");
        assert_eq!(house.left(), if after == "leave" { 9 } else { 0 });
    }
}

/// Would miss that the bytes of a mail that was not fetched whole tell nothing: the second one is taken for the first, and nobody sees it.
#[tokio::test]
async fn mails_that_are_too_large_are_not_taken_for_one_another() {
    let house = House::with_pop3(pop3("leave")).await;
    let large = |subject: &str| {
        house.deliver(house.inbox.id, format!("Subject: {subject}\r\n\r\n{}\r\n", "x".repeat(1 << 21)))
    };
    let first = large("first");
    house.work().await;
    house.incoming.expunge(house.inbox.id, "INBOX", first);
    large("second");
    house.work().await;
    assert_eq!(house.ledger().await.len(), 2);
}
