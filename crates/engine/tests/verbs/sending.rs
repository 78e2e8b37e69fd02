//! From submission to the server's answer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use postroom_core::id::{IdempotencyKey, MailboxId, WorkerId};
use postroom_core::mailbox::{SettingsDraft, Status};
use postroom_core::message::{OnDoubt, Submission};
use postroom_core::queue::{Event, State};
use postroom_core::resolve::WhenUnavailable;
use postroom_core::secret::SecretChange;
use postroom_engine::{ErrorKind as EngineErrorKind, Options, Postroom, Work};
use postroom_storage::{
    Change, ErrorKind as StoreKind, HealthBook, QueueDesk, QueueIntake, QueueWork, Scope, SecretWrite, Sweep,
    Switch,
};
use postroom_transport::{
    Crossing, Error, ErrorKind, Lane, OutgoingTransport, ProbeReport, Receipt, Reply, Result, Route, Stage,
};
use tokio::sync::Notify;

use crate::fixture::*;

fn error(kind: ErrorKind, stage: Stage) -> Error {
    Error::new(kind, stage).with_reply("the server's words")
}

#[tokio::test]
async fn a_mail_leaves_by_the_outbox_that_was_resolved_and_its_timeline_says_why() {
    let house = House::new().await;
    let own = house.submit("ACME", &["ana@customer.example"]).await;
    let standard = house.submit("Other", &["bob@customer.example"]).await;
    house.work().await;
    let carried = house.outgoing.carried();
    let by = |id: MailboxId| carried.iter().filter(|mail| mail.mailbox == id).collect::<Vec<_>>();
    assert_eq!((by(house.own.id).len(), by(house.standard.id).len()), (1, 1));
    let text = String::from_utf8_lossy(&by(house.own.id)[0].content).into_owned();
    assert!(text.contains("From: support@acme.example") && text.contains(&own.message_id), "{text}");
    assert_eq!(
        own.reasons.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["contract", "sender-default"]
    );
    assert_eq!(standard.reasons[0].to_string(), "standard");
    let record = house.show(&own).await;
    assert_eq!(record.item.state, State::Accepted);
    let what: Vec<&str> = record.timeline.iter().map(|entry| entry.what.as_str()).collect();
    assert_eq!(what, ["queued", "claim", "mark", "accept"]);
    // A second run finds nothing: would miss a mail that is sent twice.
    house.work().await;
    assert_eq!(house.outgoing.carried().len(), 2);
}

#[tokio::test]
async fn a_refused_recipient_does_not_stop_the_others_and_a_deferred_one_goes_on_alone() {
    let house = House::new().await;
    house.outgoing.refuse(address("gone@customer.example"), error(ErrorKind::Refused, Stage::RcptTo));
    house.outgoing.refuse(address("busy@customer.example"), error(ErrorKind::Deferred, Stage::RcptTo));
    let mail = house
        .submit("ACME", &["ana@customer.example", "gone@customer.example", "busy@customer.example"])
        .await;
    house.work().await;
    let states = |record: postroom_storage::QueueRecord| -> Vec<String> {
        record.recipients.iter().map(|recipient| recipient.state.to_string()).collect()
    };
    let record = house.show(&mail).await;
    let detail = &record.timeline.iter().find(|entry| entry.what == "refuse").unwrap().detail;
    assert!(
        detail.contains("rcpt-to") && detail.contains("the server's words") && detail.contains(';'),
        "{detail}"
    );
    assert_eq!(states(record), ["accepted", "refused", "queued"]);
    house.outgoing.recover();
    house.clock.advance(Duration::from_secs(120));
    house.work().await;
    assert_eq!(states(house.show(&mail).await), ["accepted", "refused", "accepted"]);
    let recipients: Vec<_> = house.outgoing.carried().into_iter().map(|mail| mail.recipients).collect();
    assert_eq!(recipients, [vec![address("ana@customer.example")], vec![address("busy@customer.example")]]);
}

#[tokio::test]
async fn a_refused_sign_in_suspends_one_outbox_costs_no_attempt_and_leaves_the_others_alone() {
    let house = House::new().await;
    house.outgoing.fail_once(error(ErrorKind::SignInRefused, Stage::SignIn));
    let mail = house.submit("ACME", &["ana@customer.example"]).await;
    house.run(Work::all().only_sending().until_idle()).await;
    let record = house.show(&mail).await;
    assert_eq!((record.item.state, record.item.attempts), (State::Queued, 0));
    let book: &dyn HealthBook = house.postroom.store();
    let health = book.health(house.own.id).await.unwrap();
    assert!(health.suspended);
    let said = health.last_error.unwrap();
    assert!(said.contains("sign-in") && said.contains("check user and password"), "{said}");
    let other = house.submit("Other", &["bob@customer.example"]).await;
    house.work().await;
    assert_eq!(house.state(&other).await, "accepted");
    assert_eq!(house.state(&mail).await, "queued", "a suspended outbox is not tried by itself");
    book.clear(house.postroom.now(), house.own.id).await.unwrap();
    house.work().await;
    assert_eq!(house.state(&mail).await, "accepted");
}

#[tokio::test]
async fn a_dead_server_rests_longer_each_time_and_its_mail_keeps_its_attempts() {
    let house = House::new().await;
    house.outgoing.fail(error(ErrorKind::Unreachable, Stage::Tcp));
    let mail = house.submit("ACME", &["ana@customer.example"]).await;
    let book: &dyn HealthBook = house.postroom.store();
    let mut rests = Vec::new();
    for _ in 0..4 {
        house.work().await;
        let next = book.health(house.own.id).await.unwrap().next_attempt.unwrap();
        rests.push(next.since(house.postroom.now()).as_secs());
        house.clock.set(next);
    }
    // Half of each is by chance.
    for (rest, most) in rests.iter().zip([5, 10, 20, 40]) {
        assert!((most / 2..=most).contains(rest), "{rests:?}");
    }
    assert_eq!(house.show(&mail).await.item.attempts, 0);
    house.outgoing.recover();
    house.work().await;
    assert_eq!(house.state(&mail).await, "accepted");
}

#[tokio::test]
async fn a_server_that_limits_rests_its_outbox_and_costs_no_attempt() {
    let house = House::new().await;
    house.outgoing.fail_once(error(ErrorKind::Throttled, Stage::MailFrom));
    let mail = house.submit("ACME", &["ana@customer.example"]).await;
    house.work().await;
    let record = house.show(&mail).await;
    assert_eq!((record.item.state, record.item.attempts), (State::Queued, 0));
    let book: &dyn HealthBook = house.postroom.store();
    let next = book.health(house.own.id).await.unwrap().next_attempt.unwrap();
    assert!(next > house.postroom.now());
    house.clock.set(next);
    house.work().await;
    assert_eq!(house.state(&mail).await, "accepted");
}

#[tokio::test]
async fn a_lost_reply_after_the_dot_is_in_doubt_and_never_sent_again_by_itself() {
    let house = House::new().await;
    house.outgoing.fail_once(error(ErrorKind::Unanswered, Stage::Dot));
    let mail = house.submit("ACME", &["ana@customer.example"]).await;
    house.work().await;
    assert_eq!(house.state(&mail).await, "in-doubt");
    house.clock.advance(Duration::from_secs(3 * 24 * 3600));
    house.work().await;
    // Would miss a queue that treats a lost reply as a failure: two dots would have been sent.
    assert_eq!(house.outgoing.carried().len(), 1);
    let desk: &dyn QueueDesk = house.postroom.store();
    desk.decide(house.postroom.now(), &actor(), mail.id, Event::Accept).await.unwrap();
    let record = house.show(&mail).await;
    assert_eq!(record.item.state, State::Accepted);
    assert_eq!(record.timeline.last().unwrap().actor, Some(actor()));
}

#[tokio::test]
async fn a_mail_that_prefers_a_duplicate_to_a_loss_is_sent_again_with_the_same_message_id() {
    let house = House::new().await;
    house.outgoing.fail_once(error(ErrorKind::Unanswered, Stage::Dot));
    let mail = Submission::text(contract("ACME"), "s", "t").with_to(address("ana@customer.example"));
    let mail = house.postroom.submit(&mail.with_on_doubt(OnDoubt::Resend)).await.unwrap();
    house.work().await;
    house.clock.advance(Duration::from_secs(3600));
    house.work().await;
    assert_eq!(house.state(&mail).await, "accepted");
    let carried = house.outgoing.carried();
    assert_eq!(carried.len(), 2);
    assert_eq!(carried[0].content, carried[1].content, "the very same bytes, Message-ID included");
}

#[tokio::test]
async fn a_sender_that_its_outbox_lost_holds_the_mail() {
    let house = House::new().await;
    house.postroom.set_switch(&actor(), &Scope::Outbox(house.own.id), Switch::Paused).await.unwrap();
    let mail = house.submit("ACME", &["ana@customer.example"]).await;
    house.work().await;
    assert_eq!(house.state(&mail).await, "queued", "a paused outbox sends nothing");
    let draft = outbox("smtp.acme.example", "new@acme.example", Some("u"));
    let (id, revision) = (house.own.id, house.own.revision);
    house.postroom.edit(&actor(), id, revision, &draft, SecretChange::Keep).await.unwrap();
    assert_eq!(house.outgoing.closed(), [id], "no parked connection outlives its settings");
    house.postroom.set_switch(&actor(), &Scope::Outbox(id), Switch::Running).await.unwrap();
    house.work().await;
    let record = house.show(&mail).await;
    assert_eq!(record.item.state, State::Held);
    assert!(record.timeline.last().unwrap().detail.contains("no sender of outbox"), "{record:?}");
    assert!(house.outgoing.carried().is_empty());
    let draft = outbox("smtp.acme.example", "support@acme.example", Some("u"));
    let revision = house.postroom.mailbox(id).await.unwrap().revision;
    house.postroom.edit(&actor(), id, revision, &draft, SecretChange::Keep).await.unwrap();
    house.work().await;
    assert_eq!(house.state(&mail).await, "accepted", "its sender is the outbox's again");
}

#[tokio::test]
async fn held_mail_goes_on_when_its_outbox_can_send_it_unless_a_person_held_it() {
    let options = Options { when_unavailable: WhenUnavailable::Hold, ..Options::default() };
    let house = House::with_options(options).await;
    let set = async |status| house.postroom.set_status(&actor(), house.own.id, status).await.unwrap();
    set(Status::Disabled).await;
    let (waits, kept) =
        (house.submit("ACME", &["a@b.example"]).await, house.submit("ACME", &["c@d.example"]).await);
    assert_eq!(waits.reasons[1].to_string(), "held");
    let desk: &dyn QueueDesk = house.postroom.store();
    for event in [Event::Unhold, Event::Hold] {
        desk.decide(house.postroom.now(), &actor(), kept.id, event).await.unwrap();
    }
    house.work().await;
    assert_eq!((house.state(&waits).await, house.state(&kept).await), ("held".into(), "held".into()));
    set(Status::Active).await;
    house.work().await;
    assert_eq!((house.state(&waits).await, house.state(&kept).await), ("accepted".into(), "held".into()));
}

#[tokio::test]
async fn held_mail_goes_on_after_a_process_died_between_the_change_and_the_release() {
    let options = Options { when_unavailable: WhenUnavailable::Hold, ..Options::default() };
    let house = House::with_options(options).await;
    let mut outbox = house.postroom.set_status(&actor(), house.own.id, Status::Disabled).await.unwrap();
    let mail = house.submit("ACME", &["a@b.example"]).await;
    outbox.status = Status::Active;
    let change = Change::new(house.postroom.now(), actor());
    house.postroom.store().save(&change, &outbox, SecretWrite::Keep).await.unwrap();
    house.work().await;
    house.work().await;
    assert_eq!(house.state(&mail).await, "accepted");
}

#[tokio::test]
async fn attempts_end_and_the_dead_are_shown_and_can_be_retried() {
    let house = House::with_options(Options { attempts: 2, ..Options::default() }).await;
    house.outgoing.refuse(address("busy@customer.example"), error(ErrorKind::Deferred, Stage::RcptTo));
    let mail = house.submit("ACME", &["busy@customer.example"]).await;
    house.work().await;
    house.clock.advance(Duration::from_secs(120));
    house.work().await;
    assert_eq!(house.state(&mail).await, "dead");
    house.outgoing.recover();
    let desk: &dyn QueueDesk = house.postroom.store();
    desk.decide(house.postroom.now(), &actor(), mail.id, Event::Retry).await.unwrap();
    house.work().await;
    assert_eq!(house.state(&mail).await, "accepted");
}

#[tokio::test]
async fn the_same_key_and_content_give_the_same_mail_and_other_content_names_the_field() {
    let house = House::new().await;
    let key = IdempotencyKey::parse("order-7").unwrap();
    let mail = |subject: &str| {
        let mail = Submission::text(contract("ACME"), subject, "t").with_to(address("ana@customer.example"));
        mail.with_idempotency_key(key.clone())
    };
    let first = house.postroom.submit(&mail("a")).await.unwrap();
    let again = house.postroom.submit(&mail("a")).await.unwrap();
    assert_eq!((again.id, again.message_id, again.existing), (first.id, first.message_id, true));
    let other = house.postroom.submit(&mail("b")).await.unwrap_err();
    let field = match other.kind() {
        EngineErrorKind::Store(StoreKind::IdempotencyConflict { field, .. }) => field.clone(),
        kind => panic!("{kind:?}"),
    };
    assert_eq!(field, "subject");
    house.work().await;
    assert_eq!(house.outgoing.carried().len(), 1);
}

/// A server that answers only when it is told to, behind a transport that asks for one mail ahead.
struct Slow {
    asked: Notify,
    answer: Notify,
}

#[async_trait]
impl OutgoingTransport for Slow {
    async fn carry<'a>(&self, _: &Route, lane: &'a (dyn Lane + 'a)) -> Result<()> {
        let mut next = lane.next().await;
        while let Some(job) = next {
            let crossing = lane.about_to_cross(job.attempt).await;
            let ahead = lane.next().await;
            self.asked.notify_one();
            self.answer.notified().await;
            let receipt = match crossing {
                Crossing::Go => Receipt::new(vec![Ok(Reply::new(250, None, "ok")); job.recipients.len()]),
                Crossing::Stop => {
                    Receipt::all(job.recipients.len(), &Error::new(ErrorKind::Stopped, Stage::Data))
                }
            };
            lane.finished(job.attempt, receipt).await;
            next = match ahead {
                Some(job) => Some(job),
                None => lane.next().await,
            };
        }
        Ok(())
    }

    async fn probe(&self, _: &Route, _: &[postroom_core::address::Address]) -> ProbeReport {
        ProbeReport::default()
    }

    async fn close_parked(&self, _: MailboxId) {}

    async fn close_idle(&self) {}

    async fn close(&self) {}
}

async fn slow_house() -> (House, Postroom, Arc<Slow>) {
    let slow = Arc::new(Slow { asked: Notify::new(), answer: Notify::new() });
    let house = House::new().await;
    let postroom = house.with_outgoing(slow.clone());
    (house, postroom, slow)
}

#[tokio::test]
async fn a_stopping_worker_waits_for_the_reply_after_a_dot() {
    let (house, postroom, slow) = slow_house().await;
    let mail = house.submit("ACME", &["ana@customer.example"]).await;
    let stop = Arc::new(Notify::new());
    let (worker, stopped) = (postroom.clone(), Arc::clone(&stop));
    let run = tokio::task::JoinSet::from_iter([async move {
        worker.run(async move { stopped.notified().await }).await
    }]);
    slow.asked.notified().await;
    assert_eq!(house.state(&mail).await, "crossing");
    stop.notify_one();
    // Would miss a worker that drops what it has in hand: it would have ended by now.
    tokio::time::sleep(Duration::from_millis(50)).await;
    slow.answer.notify_one();
    run.join_all().await.into_iter().next().unwrap().unwrap();
    assert_eq!(house.state(&mail).await, "accepted");
}

/// Would hang if a connection that asked ahead, and got nothing, counted as one that has no mail in hand.
#[tokio::test]
async fn a_mail_that_comes_while_a_connection_waits_for_its_answer_has_another_one() {
    let (house, postroom, slow) = slow_house().await;
    let first = house.submit("ACME", &["ana@customer.example"]).await;
    let stop = Arc::new(Notify::new());
    let (worker, stopped) = (postroom.clone(), Arc::clone(&stop));
    let run = tokio::task::JoinSet::from_iter([async move {
        worker.run(async move { stopped.notified().await }).await
    }]);
    slow.asked.notified().await;
    let second = house.submit("ACME", &["bob@customer.example"]).await;
    let asked = tokio::time::timeout(Duration::from_secs(20), slow.asked.notified()).await;
    assert!(asked.is_ok(), "the second mail waits for the first one's answer");
    slow.answer.notify_waiters();
    stop.notify_one();
    run.join_all().await.into_iter().next().unwrap().unwrap();
    assert_eq!(
        (house.state(&first).await, house.state(&second).await),
        ("accepted".into(), "accepted".into())
    );
}

#[tokio::test]
async fn a_worker_that_dies_after_its_mark_leaves_the_mail_in_doubt_once_its_lease_ran_out() {
    let (house, postroom, slow) = slow_house().await;
    let mail = house.submit("ACME", &["ana@customer.example"]).await;
    let run = tokio::task::JoinSet::from_iter([async move { postroom.run(std::future::pending()).await }]);
    slow.asked.notified().await;
    drop(run);
    assert_eq!(house.postroom.expire().await.unwrap(), Sweep::default(), "the lease still holds");
    house.clock.advance(Duration::from_secs(31));
    house.work().await;
    assert_eq!(house.state(&mail).await, "in-doubt");
    assert!(house.outgoing.carried().is_empty(), "nobody may send it a second time");
}

#[tokio::test]
async fn a_sent_copy_follows_the_acceptance_and_its_failure_sends_nothing_again() {
    let house = House::new().await;
    let mut draft = outbox("smtp.acme.example", "support@acme.example", Some("u"));
    if let SettingsDraft::Outbox(form) = &mut draft.settings {
        form.companion = Some(house.inbox.id);
        form.sent_copy = Some("append:Sent".to_owned());
    }
    house
        .postroom
        .edit(&actor(), house.own.id, house.own.revision, &draft, SecretChange::Keep)
        .await
        .unwrap();
    let failed = house.submit("ACME", &["ana@customer.example"]).await;
    house.work().await;
    assert_eq!(house.state(&failed).await, "accepted", "there is no such folder yet");
    let book: &dyn HealthBook = house.postroom.store();
    let health = book.health(house.inbox.id).await.unwrap();
    assert!(health.last_error.is_some_and(|error| error.contains("sent copy")) && !health.suspended);
    house.incoming.create_folder(house.inbox.id, "Sent");
    for _ in 0..20 {
        house.submit("ACME", &["bob@customer.example"]).await;
    }
    house.work().await;
    let contents = |all: Vec<bytes::Bytes>| all.into_iter().collect::<std::collections::BTreeSet<_>>();
    let copies = house.incoming.mails(house.inbox.id, "Sent").into_iter().map(|mail| mail.content).collect();
    let sent = house.outgoing.carried().into_iter().skip(1).map(|mail| mail.content).collect();
    assert_eq!(contents(copies), contents(sent));
    assert_eq!(house.outgoing.carried().len(), 21);
}

#[tokio::test]
async fn a_mail_that_every_worker_died_over_is_dead_and_not_touched_again() {
    let house = House::with_options(Options { attempts: 1, ..Options::default() }).await;
    let mail = house.submit("ACME", &["ana@customer.example"]).await;
    let work: &dyn QueueWork = house.postroom.store();
    let (now, worker) = (house.postroom.now(), WorkerId::new(house.postroom.now(), [1; 10]));
    let lease = Duration::from_secs(30);
    assert_eq!(work.claim(now, house.own.id, 1, worker, now + lease).await.unwrap().len(), 1);
    house.clock.advance(lease * 2);
    house.work().await;
    assert_eq!(house.state(&mail).await, "dead");
    assert!(house.outgoing.carried().is_empty());
}

#[tokio::test]
async fn one_mail_opens_one_connection() {
    let house = House::new().await;
    house.submit("ACME", &["ana@customer.example"]).await;
    house.work().await;
    // Would miss lanes that are opened beside one that is about to take the only mail.
    assert_eq!(house.outgoing.connections(), 1);
}

/// Would miss a bell that nobody hears: the next look is an hour away.
#[tokio::test(start_paused = true)]
async fn a_worker_that_is_woken_finds_what_another_way_than_submit_has_queued() {
    let options = Options { look: Duration::from_secs(3600), ..Options::default() };
    let house = House::with_options(options).await;
    let worker = house.postroom.clone();
    let _worker = tokio::task::JoinSet::from_iter([async move {
        worker.run_with(Work::all().only_sending(), std::future::pending()).await
    }]);
    // Time passes when everybody sleeps: by then the worker has found nothing.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let mail = Submission::text(contract("ACME"), "Hello", "x").with_to(address("ana@customer.example"));
    let (prepared, content) = house.postroom.prepare(&mail).await.unwrap();
    house.store.enqueue(house.postroom.now(), &prepared, content).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(house.outgoing.carried().len(), 0);
    house.postroom.wake();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(house.outgoing.carried().len(), 1);
}

/// Links are remembered from one submission to the next. Would miss a decision by what they were, and a mail that is held or falls back
/// because of what was.
#[tokio::test]
async fn what_has_changed_since_the_last_submission_counts_for_the_next() {
    for when_unavailable in [WhenUnavailable::Refuse, WhenUnavailable::Hold, WhenUnavailable::Standard] {
        let house = House::with_options(Options { when_unavailable, ..Options::default() }).await;
        let set =
            async |status| house.postroom.set_status(&actor(), house.own.id, status).await.map(drop).unwrap();
        let submission =
            Submission::text(contract("ACME"), "Hello", "text").with_to(address("ana@customer.example"));
        let submit = async || house.postroom.submit(&submission).await;
        assert_eq!(submit().await.unwrap().outbox, house.own.id);
        set(Status::Disabled).await;
        let meanwhile = submit().await;
        match when_unavailable {
            WhenUnavailable::Refuse => {
                assert!(matches!(meanwhile.unwrap_err().kind(), EngineErrorKind::Unresolved(_)));
            }
            WhenUnavailable::Hold => assert_eq!(house.state(&meanwhile.unwrap()).await, "held"),
            _ => assert_eq!(meanwhile.unwrap().outbox, house.standard.id),
        }
        set(Status::Active).await;
        let again = submit().await.unwrap();
        assert_eq!((again.outbox, house.state(&again).await.as_str()), (house.own.id, "queued"));
    }
}
