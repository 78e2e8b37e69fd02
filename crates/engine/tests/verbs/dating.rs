//! A baseline of days over POP3, whose servers do not tell when a mail arrived: at the first contact its date decides.

use std::time::Duration;

use postroom_core::ledger::State;
use postroom_core::mailbox::InboxDraft;
use postroom_engine::Options;
use postroom_transport::{Error, ErrorKind, Stage};

use crate::fixture::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl House {
    async fn with_a_week(per_round: u32) -> Self {
        let form = InboxDraft {
            provider: "pop3s".to_owned(),
            baseline: Some("days:7".to_owned()),
            after: Some("leave".to_owned()),
            per_round: Some(per_round),
            ..InboxDraft::default()
        };
        Self::with_inbox(Options::default(), form).await
    }

    /// A mail whose header says that it was written so many days ago.
    fn dated(&self, subject: &str, days: u32) {
        let date = (self.postroom.now() - DAY * days).to_rfc5322();
        self.arrives("ana@customer.example", subject, &format!("Date: {date}\r\n"));
    }

    async fn left_out(&self) -> Vec<String> {
        let items = self.ledger().await.into_iter();
        let items = items.filter(|item| item.state == State::Ignored);
        items.map(|item| item.subject).collect()
    }
}

/// Would miss a baseline that is applied for ever: the mail of those who write by a wrong clock, and all that came while postroom was
/// down for longer than the baseline, would be seen by nobody. Seen to fail so.
#[tokio::test]
async fn what_comes_after_the_first_pass_is_handled_however_old_its_date_is() {
    let house = House::with_a_week(200).await;
    house.dated("before us", 30);
    house.work().await;
    house.dated("by a wrong clock", 30);
    house.work().await;
    house.dated("while we were down", 0);
    house.clock.advance(DAY * 30);
    house.work().await;
    assert_eq!(house.host.subjects(), ["by a wrong clock", "while we were down"]);
    assert_eq!(house.left_out().await, ["before us"]);
}

/// Would miss a baseline that is forgotten with the first round (old mail is handled as new), and one that counts from each round's own
/// time (what was new at the first contact is lost). Seen to fail so.
#[tokio::test]
async fn a_first_pass_of_several_rounds_and_processes_leaves_out_what_was_old_at_the_first_contact() {
    let house = House::with_a_week(2).await;
    for (subject, days) in [("old", 8), ("young", 6), ("older", 30), ("younger", 1), ("oldest", 300)] {
        house.dated(subject, days);
    }
    // The first process comes no further than the first contact.
    house.incoming.fail_once(Error::new(ErrorKind::Disconnected, Stage::Fetch));
    house.work().await;
    assert_eq!(house.ledger().await, []);
    house.clock.advance(DAY * 20);
    house.work().await;
    assert_eq!(house.host.subjects(), ["young", "younger"]);
    assert_eq!(house.left_out().await, ["old", "older", "oldest"]);
}
