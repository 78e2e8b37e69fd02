//! Mailboxes that are moved to another server while postroom is at work with the old one.

use std::sync::Arc;
use std::time::Duration;

use postroom_core::mailbox::{InboxDraft, Status};
use postroom_core::secret::SecretChange;
use postroom_engine::{Options, Pacing, Postroom, Work};
use tokio::time::sleep;

use crate::fixture::*;
use crate::town::{Form, MINUTE, Place, outbox_of};
use crate::watching::{Act, Odd, only_told, over, until};

impl Place {
    /// Has the first outbox send by another server after so long, as the command line does it: in a process that has no
    /// connections. Gives when.
    async fn moves(&self, after: Duration, form: Form) -> Duration {
        sleep(after).await;
        let operator = Postroom::builder(self.store.clone()).with_keyring(Arc::new(LabelKeyring)).build();
        let outbox = self.outboxes[0];
        let revision = operator.mailbox(outbox).await.unwrap().revision;
        let draft = outbox_of("smtp.new.example", form);
        operator.edit(&actor(), outbox, revision, &draft, SecretChange::Keep).await.unwrap();
        self.town.began.elapsed()
    }

    /// When the old server took its last mail, and the new one its first.
    fn moved(&self) -> (Duration, Duration) {
        let seen = self.town.seen();
        let is_old = |by: &(Duration, String)| by.1 == "smtp.town.example";
        let last = seen.by.iter().rfind(|by| is_old(by)).unwrap().0;
        (last, seen.by.iter().find(|by| !is_old(by)).expect("the new server has taken some").0)
    }
}

#[tokio::test(start_paused = true)]
async fn an_outbox_with_a_backlog_goes_on_by_its_new_settings_within_a_look() {
    let form = Form(2, None, None);
    let place = Place::new(1, form, 2, 64).await;
    let mut mails = Vec::new();
    for _ in 0..200 {
        mails.push(place.submit("C0", "mail", 1).await);
    }
    let ((), edited) = tokio::join!(place.work(3 * MINUTE), place.moves(Duration::from_millis(20_500), form));
    // A look, and the mail in hand.
    let within = edited + Duration::from_secs(2);
    let (last, first) = place.moved();
    assert!(last <= within && first <= edited + Duration::from_secs(5), "{last:?}, {first:?}, {edited:?}");
    // Each of the two workers has connections of its own.
    let closed = place.town.seen().closed.iter().filter(|at| **at >= edited && **at <= within).count();
    assert_eq!(closed, 2);
    // No mail was given up in the middle.
    assert_eq!(place.town.seen().taken.len(), 200);
    for mail in &mails {
        assert_eq!(place.show(mail).await.item.attempts, 1);
    }
}

/// Would be missed by whoever looks only at outboxes that want one more connection.
#[tokio::test(start_paused = true)]
async fn an_outbox_whose_only_connection_never_rests_goes_on_by_its_new_settings_within_a_look() {
    let form = Form(1, None, None);
    let place = Place::new(1, form, 1, 64).await;
    *place.town.pace.lock().unwrap() = Duration::from_millis(10);
    let trickles = async {
        for _ in 0..600 {
            place.submit("C0", "mail", 1).await;
            sleep(Duration::from_millis(50)).await;
        }
    };
    let (_, (), edited) =
        tokio::join!(place.work(MINUTE), trickles, place.moves(Duration::from_millis(10_500), form));
    let (last, _) = place.moved();
    assert!(last <= edited + Duration::from_secs(2), "{last:?}, {edited:?}");
}

/// Whoever opened the secret of now for the settings of then would sign in to the old server with the new password.
#[tokio::test]
async fn an_inbox_that_is_moved_while_it_waits_for_its_turn_signs_in_to_its_new_server_only() {
    let house = House::with_options(only_told()).await;
    let form = || InboxDraft {
        provider: "imaps".to_owned(),
        baseline: Some("all".to_owned()),
        ..InboxDraft::default()
    };
    let at = |server| inbox(server, form());
    let second = at("imap.acme.example");
    let second = house.postroom.register(&actor(), &second, password(), Status::Active).await.unwrap();
    house.incoming.create_folder(second.id, "INBOX");
    let odd = Odd::new(&house.incoming, |_, _| Act::Do);
    let pacing = Pacing { per_second: 1, ..Pacing::default() };
    let postroom = over(&house, &odd, Options { pacing, ..only_told() });
    // Each once: the one that waited is not left out.
    let running = postroom.run_with(Work::all().only_receiving().until_idle(), std::future::pending());
    let servers = || odd.servers.lock().unwrap().clone();
    let moves = async {
        until("the first one connected", async || servers().len() == 1).await;
        for (id, revision) in [(house.inbox.id, house.inbox.revision), (second.id, second.revision)] {
            let (moved, secret) = (at("imap.new.example"), SecretChange::Set("n3w-canary".into()));
            house.postroom.edit(&actor(), id, revision, &moved, secret).await.unwrap();
        }
    };
    let (ran, ()) = tokio::join!(running, moves);
    ran.unwrap();
    let opened = [odd.opened(house.inbox.id), odd.opened(second.id)];
    assert!(!opened.contains(&0), "{opened:?}");
    assert!(servers()[1..].iter().all(|server| server == "imap.new.example"), "{:?}", servers());
}
