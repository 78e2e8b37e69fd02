//! Inboxes that fail in part: what the part is, and that the rest goes on.

use std::time::Duration;

use postroom_core::mailbox::SettingsDraft;
use postroom_core::secret::SecretChange;
use postroom_engine::Work;
use postroom_storage::{Health, HealthBook};
use postroom_transport::{Error, ErrorKind, Stage};

use crate::fixture::*;
use crate::watching::{Running, reads, until};

async fn health(house: &House) -> Health {
    let book: &dyn HealthBook = house.postroom.store();
    book.health(house.inbox.id).await.unwrap()
}

fn rest(house: &House, health: &Health) -> Duration {
    health.next_attempt.expect("a rest").since(house.postroom.now())
}

/// Has the sent mail of Acme's own outbox copied into a folder of its inbox, which is not there.
async fn with_sent_copies(house: &House) {
    let mut draft = outbox("smtp.acme.example", "support@acme.example", Some("u"));
    if let SettingsDraft::Outbox(form) = &mut draft.settings {
        form.companion = Some(house.inbox.id);
        form.sent_copy = Some("append:Sent".to_owned());
    }
    let (id, revision) = (house.own.id, house.own.revision);
    house.postroom.edit(&actor(), id, revision, &draft, SecretChange::Keep).await.unwrap();
}

const PARK: Duration = Duration::from_secs(15 * 60);

/// Seen to fail when the steps are counted by all failures in a row: the first refused sign-in asks a person.
#[tokio::test]
async fn a_sign_in_that_is_refused_after_an_outage_is_the_first_one() {
    let house = House::new().await;
    for _ in 0..12 {
        house.incoming.fail_once(Error::new(ErrorKind::TimedOut, Stage::Tcp));
        house.work().await;
        house.clock.advance(rest(&house, &health(&house).await));
    }
    house.incoming.fail(Error::new(ErrorKind::SignInRefused, Stage::SignIn));
    for step in [1, 4, 16] {
        house.work().await;
        let health = health(&house).await;
        assert!(!health.suspended, "{health:?}");
        let rest = rest(&house, &health);
        assert!((PARK * step..PARK * step * 5 / 4).contains(&rest), "{rest:?}");
        house.clock.advance(rest);
    }
    house.work().await;
    assert!(health(&house).await.suspended);
}

/// Seen to fail when a copy counts as a failure of the inbox: each makes the rests longer, and ends a longer one early.
#[tokio::test]
async fn sent_copies_that_fail_neither_count_towards_the_rests_of_their_inbox_nor_change_them() {
    let house = House::new().await;
    with_sent_copies(&house).await;
    for _ in 0..3 {
        house.submit("ACME", &["ana@customer.example"]).await;
        house.run(Work::all().only_sending().until_idle()).await;
    }
    let failing = health(&house).await;
    assert_eq!(failing.failures, 1, "one state, however many copies");
    assert!(failing.last_error.is_some_and(|error| error.contains("sent copy")));
    house.clock.advance(PARK);
    house.incoming.fail(Error::new(ErrorKind::SignInRefused, Stage::SignIn));
    house.work().await;
    let parked = rest(&house, &health(&house).await);
    assert!(parked >= PARK, "{parked:?}");
    house.submit("ACME", &["ana@customer.example"]).await;
    house.work().await;
    assert_eq!(rest(&house, &health(&house).await), parked);
}

/// Seen to fail when copies do not look at the rests of their inbox, and when a refused sign-in is not the account's because a copy tried
/// it: each mail tries it again, and the provider locks the account. Would miss copies that wait when the process ends: they are not made.
#[tokio::test(start_paused = true)]
async fn sent_copies_park_their_inbox_when_it_refuses_them_and_are_made_when_it_is_over() {
    let house = House::new().await;
    with_sent_copies(&house).await;
    house.incoming.create_folder(house.inbox.id, "Sent");
    house.incoming.fail(Error::new(ErrorKind::SignInRefused, Stage::SignIn));
    // Nobody reads the inbox: the copies alone find out.
    let running = Running::begin_with(&house.postroom, Work::all().only_sending());
    for number in 1..=3 {
        let mail = house.submit("ACME", &["ana@customer.example"]).await;
        until("sent", async || house.state(&mail).await == "accepted").await;
        until("parked", async || health(&house).await.failures > 0).await;
        tokio::time::sleep(PARK / 5).await;
        let parked = health(&house).await;
        assert_eq!(parked.failures, 1, "mail {number}: {parked:?}");
        assert!(rest(&house, &parked) >= PARK, "mail {number}: {parked:?}");
        assert!(parked.last_error.is_some_and(|error| error.contains("sent copy")));
    }
    house.clock.advance(PARK * 2);
    house.incoming.recover();
    tokio::time::sleep(PARK * 2).await;
    let copied = || house.incoming.mails(house.inbox.id, "Sent").len();
    until("copied", async || copied() == 3).await;
    running.stop().await;
}

/// Seen to fail when a refused settle ends the reading: a folder that is missing suspends the inbox, any other refusal has it rest. And when
/// the server is told the same at each reading.
#[tokio::test(start_paused = true)]
async fn an_inbox_whose_server_refuses_what_it_is_told_is_read_all_the_same() {
    for kind in [ErrorKind::FolderMissing, ErrorKind::Refused, ErrorKind::Deferred] {
        let house = House::new().await;
        house.incoming.fail(Error::new(kind, Stage::Settle));
        house.arrives("ana@customer.example", "one", "");
        let running = Running::begin(&house.postroom);
        reads(&house, &["one"]).await;
        until("named", async || health(&house).await.failures == 1).await;
        let refused = health(&house).await;
        assert!(!refused.suspended && refused.next_attempt <= Some(house.postroom.now()), "{refused:?}");
        let named = refused.last_error.unwrap();
        assert!(
            named.contains("(at settle)") && (kind == ErrorKind::Deferred || named.contains("--after")),
            "{named}"
        );
        house.incoming.recover();
        house.arrives("ana@customer.example", "two", "");
        reads(&house, &["one", "two"]).await;
        let seen =
            || house.incoming.mails(house.inbox.id, "INBOX").iter().map(|mail| mail.seen).collect::<Vec<_>>();
        // The last of them ends the session, too: by the next one the rest is over.
        if kind != ErrorKind::Deferred {
            assert_eq!(seen(), [false, false], "not told again at once");
        }
        until("told again", async || seen() == [true, true]).await;
        until("forgotten", async || health(&house).await.failures == 0).await;
        running.stop().await;
    }
}
