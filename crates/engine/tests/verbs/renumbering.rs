//! Mail whose server gives it another key: a folder under another UIDVALIDITY, a POP3 box with other UIDLs.

use std::time::Duration;

use postroom_core::mailbox::InboxDraft;
use postroom_engine::Options;
use postroom_storage::Clock;
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

    /// A mail that arrived so long ago.
    fn asked(&self, subject: &str, ago: Duration) {
        let mail = format!("From: ana@customer.example\r\nSubject: {subject}\r\n\r\nHello.\r\n");
        self.incoming.deliver_dated(self.inbox.id, "INBOX", mail, self.clock.now() - ago);
    }

    fn asks_now(&self, subject: &str) {
        self.asked(subject, Duration::ZERO);
    }

    /// What the host got, in its order, and whether it is historic.
    fn handed(&self) -> Vec<(String, bool)> {
        let got = self.host.got.lock().unwrap();
        got.iter().map(|one| (one.mail.subject.clone(), one.is_historic())).collect()
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

fn only_new(per_round: u32) -> InboxDraft {
    InboxDraft {
        provider: "imaps".to_owned(),
        baseline: Some("new".to_owned()),
        after: Some("seen".to_owned()),
        per_round: Some(per_round),
        ..InboxDraft::default()
    }
}

fn marked(mails: &[(&str, bool)]) -> Vec<(String, bool)> {
    mails.iter().map(|(subject, is_historic)| ((*subject).to_owned(), *is_historic)).collect()
}

/// Would miss a replay of old mail as new (nothing is marked), and one that marks what came while nobody looked (a request that nobody
/// answers). Seen to fail so, and without the hour that clocks may differ by.
#[tokio::test]
async fn what_the_baseline_left_out_comes_as_historic_when_its_folder_is_renumbered() {
    let house = House::with_inbox(Options::default(), only_new(200)).await;
    house.asks_now("left out");
    house.clock.advance(DAY);
    house.work().await;
    house.asks_now("known");
    house.work().await;
    house.clock.advance(DAY);
    // Nothing new: it is the last look that counts, not the last mail.
    house.work().await;
    house.renumber();
    house.asked("by another clock", Duration::from_secs(59 * 60));
    house.clock.advance(30 * DAY);
    house.asked("in the gap", 29 * DAY);
    house.asks("undated");
    house.work().await;
    let expected = marked(&[
        ("known", false),
        ("left out", true),
        ("by another clock", false),
        ("in the gap", false),
        ("undated", false),
    ]);
    assert_eq!(house.handed(), expected);
    let mails = house.incoming.mails(house.inbox.id, "INBOX");
    let seen: Vec<bool> = mails.iter().map(|mail| mail.seen).collect();
    assert_eq!(seen, [false, true, true, true, true], "what was left out lies as it lay");
    let items = house.ledger().await;
    let historic = items.iter().filter(|item| item.is_historic());
    assert_eq!(historic.count(), 1);
    // From now on the folder is known: what arrives late is new.
    house.asked("moved here", 20 * DAY);
    house.work().await;
    assert_eq!(house.handed().last(), marked(&[("moved here", false)]).last());
}

/// More than one listing gives and one round takes, so that the frontier moves before the folder was looked at whole: what a worker that
/// dies in between leaves. Would miss a frontier that makes a folder known: the rest of the old mail comes as new. Seen to fail so.
#[tokio::test]
async fn a_renumbered_folder_that_is_read_in_parts_is_historic_to_its_end() {
    let house = House::with_inbox(Options::default(), only_new(505)).await;
    let subjects: Vec<String> = (0..1015).map(|number| format!("old {number:04}")).collect();
    for subject in &subjects {
        house.asks_now(subject);
    }
    house.clock.advance(DAY);
    house.work().await;
    assert_eq!(house.handed(), []);
    house.renumber();
    house.work().await;
    let mut handed = house.handed();
    handed.sort();
    assert_eq!(handed, subjects.into_iter().map(|subject| (subject, true)).collect::<Vec<_>>());
}

/// Would miss one that takes the last look for a whole one: what waits behind the most of a round is new mail, not old. Seen to fail so.
#[tokio::test]
async fn a_backlog_that_is_renumbered_before_it_was_read_is_not_historic() {
    let house = House::with_inbox(Options::default(), only_new(505)).await;
    house.work().await;
    for number in 0..510 {
        house.asks_now(&format!("new {number}"));
    }
    // After a week of downtime a round is read, and then the server breaks off.
    house.clock.advance(7 * DAY);
    house.incoming.fail_once(Error::new(ErrorKind::Disconnected, Stage::Settle));
    house.work().await;
    assert_eq!(house.handed().len(), 505);
    // So that one round takes what is left.
    for uid in 1..=100 {
        house.incoming.expunge(house.inbox.id, "INBOX", uid);
    }
    house.renumber();
    house.clock.advance(DAY);
    house.work().await;
    assert_eq!(house.handed().len(), 510);
    assert!(house.handed().iter().all(|(_, is_historic)| !is_historic));
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
    let imap = InboxDraft { provider: "imaps".to_owned(), ..pop3("leave") };
    for (form, renumbers) in [(pop3("leave"), false), (imap, true)] {
        let house = House::with_inbox(Options::default(), form).await;
        let large = |subject: &str| {
            house.deliver(house.inbox.id, format!("Subject: {subject}\r\n\r\n{}\r\n", "x".repeat(1 << 21)))
        };
        let first = large("first");
        house.work().await;
        house.incoming.expunge(house.inbox.id, "INBOX", first);
        if renumbers {
            house.renumber();
        }
        large("second");
        house.work().await;
        assert_eq!(house.ledger().await.len(), 2);
    }
}

fn imap(after: &str) -> InboxDraft {
    InboxDraft { provider: "imaps".to_owned(), ..pop3(after) }
}

/// Of a server that was restored from a backup of two mails, and gives the UIDs of what came since again under the same UIDVALIDITY. Would
/// miss a frontier that holds whatever UIDNEXT says: what comes is never looked at. Seen to fail so.
#[tokio::test]
async fn what_comes_under_uids_that_are_given_again_is_neither_missed_nor_doubled() {
    for after in ["leave", "delete"] {
        let house = House::with_inbox(Options::default(), imap(after)).await;
        house.asks("one");
        house.asks("two");
        let backup = house.incoming.mails(house.inbox.id, "INBOX");
        for subject in ["three", "four", "five"] {
            house.asks(subject);
        }
        house.work().await;
        house.incoming.restore(house.inbox.id, "INBOX", backup.clone());
        house.asks("six");
        house.work().await;
        house.asks("seven");
        house.asks("eight");
        house.asks("nine");
        house.work().await;
        let expected = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
        assert_eq!(house.host.subjects(), expected, "{after}");
        assert_eq!(house.left(), if after == "leave" { 6 } else { 0 }, "{after}");
        // Once more, before anything new comes.
        house.incoming.restore(house.inbox.id, "INBOX", backup);
        house.work().await;
        house.asks("ten");
        house.work().await;
        assert_eq!(house.host.subjects().len(), 10, "{after}");
    }
}

/// Would miss one that believes every UIDNEXT: each look fetches the whole folder again. Seen to fail so.
#[tokio::test]
async fn a_uidnext_that_is_wrong_or_missing_has_nothing_looked_at_twice() {
    for said in [Some(1), Some(2), Some(3), None] {
        let house = House::with_inbox(Options::default(), imap("leave")).await;
        house.incoming.misstate_uid_next(house.inbox.id, "INBOX", said);
        for subject in ["one", "two", "three"] {
            house.asks(subject);
            house.work().await;
        }
        assert_eq!(house.host.subjects(), ["one", "two", "three"], "{said:?}");
        assert!(house.ledger().await.iter().all(|item| item.epoch == 1), "{said:?}");
    }
}

/// Some servers count from the highest mail that they have: it was set back whenever the last mail was taken away. Would miss one that looks
/// at the folder again and again. Seen to fail so.
#[tokio::test]
async fn a_folder_that_is_set_back_is_looked_at_whole_once() {
    let house = House::with_inbox(Options::default(), imap("leave")).await;
    house.asks("one");
    house.asks("two");
    house.work().await;
    let backup = house.incoming.mails(house.inbox.id, "INBOX");
    for round in 1..=3 {
        house.incoming.restore(house.inbox.id, "INBOX", backup[..1].to_vec());
        house.work().await;
        let epochs = async || house.ledger().await.iter().map(|item| item.epoch >> 32).collect::<Vec<_>>();
        assert_eq!(epochs().await[0], round);
        house.work().await;
        assert_eq!(epochs().await[0], round, "nothing has changed");
        // Put back as it was, with the UID that it had.
        house.incoming.restore(house.inbox.id, "INBOX", backup.clone());
        house.work().await;
        assert_eq!(epochs().await, [round, round]);
    }
    assert_eq!(house.host.subjects(), ["one", "two"]);
}
