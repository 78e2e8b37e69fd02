//! Mails that their server does not give, or over which it ends the session: they hold up no other.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use postroom_core::mailbox::InboxDraft;
use postroom_engine::{Event, Observer, Options, Postroom};
use postroom_storage::HealthBook;
use postroom_transport::{Error, ErrorKind, Stage};
use tokio::time::Instant;

use crate::fixture::*;
use crate::watching::{Running, reads, until};

/// What an observer is told of mail that is not given.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Observer for Told {
    fn observe(&self, event: &Event) {
        if let Event::Withheld { key, error, .. } = event {
            self.0.lock().unwrap().push(format!("{key}: {error}"));
        }
    }
}

impl House {
    async fn of(provider: &str, per_round: u32) -> Self {
        let form = InboxDraft {
            provider: provider.to_owned(),
            baseline: Some("all".to_owned()),
            after: Some("leave".to_owned()),
            per_round: Some(per_round),
            ..InboxDraft::default()
        };
        Self::with_inbox(Options::default(), form).await
    }

    /// A mail that its server does not give.
    fn withholds(&self, subject: &str, kind: ErrorKind) {
        let uid = self.arrives("ana@customer.example", subject, "");
        self.incoming.withhold(self.inbox.id, "INBOX", uid, Error::new(kind, Stage::Fetch));
    }

    fn writes(&self, subject: &str) {
        self.arrives("ana@customer.example", subject, "");
    }

    /// What its health names, though it works.
    async fn is_named(&self) -> bool {
        let book: &dyn HealthBook = self.postroom.store();
        let health = book.health(self.inbox.id).await.unwrap();
        health.last_error.is_some_and(|error| error.starts_with("mail uid") && error.contains("is not given"))
    }

    async fn failures(&self) -> u32 {
        let book: &dyn HealthBook = self.postroom.store();
        book.health(self.inbox.id).await.unwrap().failures
    }

    /// A new mail is read in time, behind these.
    async fn reads_in_time(&self, subject: &str, before: &[&str]) {
        let written = Instant::now();
        self.writes(subject);
        reads(self, &[before, &[subject]].concat()).await;
        assert!(written.elapsed() <= Duration::from_secs(300), "{subject}: {:?}", written.elapsed());
    }
}

/// Would miss a refused mail that ends the session, and has the inbox rest ever longer: `two` would not come. Seen to fail so.
#[tokio::test(start_paused = true)]
async fn a_mail_that_its_server_refuses_costs_the_inbox_nothing_and_is_read_once_it_is_given() {
    for provider in ["imaps", "pop3s"] {
        let house = House::of(provider, 200).await;
        house.withholds("refused", ErrorKind::Refused);
        house.writes("one");
        let told = Arc::new(Told::default());
        let postroom = Postroom::builder(house.store.clone())
            .with_keyring(house.keyring.clone())
            .with_incoming(house.incoming.clone())
            .with_handler(house.host.clone())
            .with_observer(told.clone())
            .build();
        let running = Running::begin(&postroom);
        reads(&house, &["one"]).await;
        house.reads_in_time("two", &["one"]).await;
        house.clock.advance(Duration::from_secs(600));
        house.reads_in_time("three", &["one", "two"]).await;
        until("told", async || !told.0.lock().unwrap().is_empty()).await;
        until("named", async || house.is_named().await).await;
        assert!(house.failures().await <= 1, "it rests for nothing");
        let said = told.0.lock().unwrap().clone();
        assert!(said.len() == 1 && said[0].contains("fetch"), "{said:?}");
        house.clock.advance(Duration::from_secs(3600));
        house.incoming.recover();
        reads(&house, &["one", "two", "three", "refused"]).await;
        until("well", async || house.failures().await == 0 && !house.is_named().await).await;
        running.stop().await;
    }
}

/// Would miss refused mails that use up what a round may take. Seen to fail so.
#[tokio::test]
async fn as_many_refused_mails_as_a_round_takes_hold_up_none_behind_them() {
    for provider in ["imaps", "pop3s"] {
        let house = House::of(provider, 2).await;
        for number in 0..5 {
            house.withholds(&format!("refused {number}"), ErrorKind::Refused);
        }
        for subject in ["one", "two", "three"] {
            house.writes(subject);
        }
        house.work().await;
        assert_eq!(house.host.subjects(), ["one", "two", "three"], "{provider}");
    }
}

/// Two mails, so that one is not found for the other. Would miss a session that ends at the same mail each time (seen to fail so), and a
/// mail that is blamed for its neighbour, and left out for it.
#[tokio::test(start_paused = true)]
async fn mails_over_which_the_server_hangs_up_are_found_and_hold_up_no_other() {
    for provider in ["imaps", "pop3s"] {
        let house = House::of(provider, 200).await;
        house.writes("one");
        house.withholds("first", ErrorKind::Disconnected);
        house.writes("two");
        house.withholds("second", ErrorKind::TimedOut);
        house.writes("three");
        let running = Running::begin(&house.postroom);
        // Together, then each by itself.
        for failures in 1..=3 {
            until("failed", async || house.failures().await == failures).await;
            house.clock.advance(Duration::from_secs(900));
        }
        reads(&house, &["one", "two", "three"]).await;
        house.reads_in_time("four", &["one", "two", "three"]).await;
        until("works", async || house.is_named().await).await;
        house.reads_in_time("five", &["one", "two", "three", "four"]).await;
        house.clock.advance(Duration::from_secs(3600));
        house.incoming.recover();
        reads(&house, &["one", "two", "three", "four", "five", "first", "second"]).await;
        running.stop().await;
    }
}
