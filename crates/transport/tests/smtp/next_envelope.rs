//! The envelope of the next mail behind the final dot of the last one: what each of the two becomes when the conversation
//! goes wrong in between, and the lane's question that must not be lost.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use postroom_core::endpoint::Tls;
use postroom_core::failure::Failure;
use postroom_core::id::ClaimId;
use postroom_testkit::script::ScriptedServer;
use postroom_transport::{Crossing, Error, ErrorKind, Job, Lane, OutgoingTransport, Receipt, Stage};
use tokio::sync::Notify;

use crate::lane::{PATIENCE, TestLane, numbered, route, transport};

macro_rules! dialogue {
    ($name:literal) => {
        include_str!(concat!("../../dialogs/smtp/", $name, ".txt"))
    };
}

/// What became of a mail: nothing for acceptance.
type Fate = Option<(ErrorKind, Stage)>;

/// Two mails over a dialogue: how the lane ended, what became of each mail, and how many the lane was asked about.
async fn two(dialogue: &str) -> (Result<(), Error>, [Fate; 2], usize) {
    let server = ScriptedServer::start(dialogue).await.unwrap();
    let (transport, lane) = (transport(), TestLane::new([numbered(1), numbered(2)]));
    let carried = transport.carry(&route(server.address().port(), Tls::None), &lane).await;
    transport.close().await;
    server.expect_played(PATIENCE).await;
    let finished = lane.finished.lock().unwrap().clone();
    let fate = |number: usize| {
        let (attempt, receipt) = &finished[number];
        assert_eq!(*attempt, numbered(u8::try_from(number + 1).unwrap()).attempt, "{finished:?}");
        assert_eq!(receipt.outcomes.len(), 1);
        receipt.outcomes[0].as_ref().err().map(|error| (error.kind(), error.stage()))
    };
    assert_eq!(finished.len(), 2, "each is finished once: {finished:?}");
    (carried, [fate(0), fate(1)], lane.asked())
}

/// The connection ended before it was its turn: it is tried again, and not held to account.
const GIVEN_BACK: Fate = Some((ErrorKind::Stopped, Stage::MailFrom));

#[tokio::test]
async fn the_next_envelope_leaves_behind_the_final_dot() {
    let (carried, fates, asked) = two(dialogue!("next-envelope")).await;
    assert!(carried.is_ok(), "{carried:?}");
    assert_eq!((fates, asked), ([None, None], 2));
}

#[tokio::test]
async fn a_lost_answer_is_doubt_for_what_crossed_only() {
    let (carried, fates, asked) = two(dialogue!("next-envelope-lost")).await;
    assert_eq!((fates, asked), ([Some((ErrorKind::Unanswered, Stage::Dot)), GIVEN_BACK], 1));
    assert_eq!(carried.unwrap_err().kind(), ErrorKind::Unanswered);
    let given_back = Error::new(ErrorKind::Stopped, Stage::MailFrom);
    assert_eq!(given_back.failure(), Failure::RetryAfter(None));
}

#[tokio::test]
async fn a_421_for_an_answer_gives_the_next_mail_back() {
    let (carried, fates, asked) = two(dialogue!("next-envelope-421")).await;
    assert_eq!((fates, asked), ([Some((ErrorKind::Throttled, Stage::Dot)), GIVEN_BACK], 1));
    assert_eq!(carried.unwrap_err().kind(), ErrorKind::Throttled);
}

/// Nobody listens there any more, so the second connection says so: what was lost is not held against the mail.
#[tokio::test]
async fn a_connection_that_ends_with_its_first_mail_is_replaced_for_the_second() {
    let (carried, fates, asked) = two(dialogue!("next-envelope-closed")).await;
    assert_eq!((fates, asked), ([None, Some((ErrorKind::Unreachable, Stage::Tcp))], 1));
    assert!(carried.is_err());
}

#[tokio::test]
async fn a_refused_content_does_not_stop_the_next_mail() {
    let refused = Some((ErrorKind::Refused, Stage::Dot));
    for dialogue in [dialogue!("next-envelope-dot-refused"), dialogue!("next-envelope-out-of-turn")] {
        let (carried, fates, asked) = two(dialogue).await;
        assert!(carried.is_ok(), "{carried:?}");
        assert_eq!((fates, asked), ([refused, None], 2));
    }
}

#[tokio::test]
async fn a_second_answer_to_the_dot_is_none_to_the_next_mail() {
    let (carried, fates, asked) = two(dialogue!("next-envelope-twice-answered")).await;
    assert_eq!((fates, asked), ([None, Some((ErrorKind::Protocol, Stage::Data))], 1));
    assert!(carried.is_err());
}

#[tokio::test]
async fn a_refused_recipient_behind_a_dot_has_its_own_result() {
    let (carried, fates, asked) = two(dialogue!("next-envelope-refused")).await;
    assert!(carried.is_ok(), "{carried:?}");
    assert_eq!((fates, asked), ([None, Some((ErrorKind::Refused, Stage::RcptTo))], 1));
}

/// A lane that takes its time for each mail after the first, and counts the questions that were dropped meanwhile.
#[derive(Default)]
struct Slow {
    jobs: Mutex<VecDeque<Job>>,
    given: AtomicUsize,
    lost: AtomicUsize,
    ready: Notify,
    crossed: Mutex<Vec<ClaimId>>,
    finished: Mutex<Vec<(ClaimId, Receipt)>>,
}

struct Open<'a>(&'a AtomicUsize);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Lane for Slow {
    async fn next(&self) -> Option<Job> {
        let job = self.jobs.lock().unwrap().pop_front()?;
        if self.given.fetch_add(1, Ordering::SeqCst) > 0 {
            let open = Open(&self.lost);
            self.ready.notified().await;
            std::mem::forget(open);
        }
        Some(job)
    }

    async fn about_to_cross(&self, attempt: ClaimId) -> Crossing {
        self.crossed.lock().unwrap().push(attempt);
        Crossing::Go
    }

    async fn finished(&self, attempt: ClaimId, receipt: Receipt) {
        self.finished.lock().unwrap().push((attempt, receipt));
        self.ready.notify_one();
    }
}

/// The server goes away while the lane is about to give a mail: that mail is given back, not forgotten.
#[tokio::test]
async fn a_question_that_is_open_when_the_connection_breaks_is_waited_for() {
    let script = dialogue!("dot-lost").replace("C: RCPT TO:<rui@acme.example>\n", "");
    let script = script.replacen("S: 250 2.1.5 Ok\n", "", 1);
    let server = ScriptedServer::start(&script).await.unwrap();
    let lane = Slow { jobs: Mutex::new([numbered(1), numbered(2)].into()), ..Slow::default() };
    let (transport, route) = (transport(), route(server.address().port(), Tls::None));
    let carried = tokio::time::timeout(PATIENCE, transport.carry(&route, &lane)).await.expect("it ends");
    assert_eq!(carried.unwrap_err().kind(), ErrorKind::Unanswered);
    assert_eq!(lane.lost.load(Ordering::SeqCst), 0, "a question was dropped");
    let finished = lane.finished.lock().unwrap().clone();
    let kinds: Vec<_> =
        finished.iter().map(|(_, receipt)| receipt.outcomes[0].as_ref().unwrap_err().kind()).collect();
    assert_eq!(kinds, [ErrorKind::Unanswered, ErrorKind::Stopped]);
}

/// Two mails, the server cut at every byte that it sends: whatever the lane gave is finished once, what was not asked about
/// is never in doubt, what was asked about and not wholly answered always is.
#[tokio::test]
async fn two_mails_cut_at_any_byte_are_each_told_the_truth() {
    let script = dialogue!("next-envelope");
    let steps: Vec<&str> = script.lines().filter(|line| !line.starts_with('#')).collect();
    let mut cuts = 0;
    for (at, step) in steps.iter().enumerate() {
        let Some(said) = step.strip_prefix("S: ") else { continue };
        let answered = steps[..at].iter().filter(|step| step.contains("Queued as")).count();
        for length in 0..=said.len() {
            let mut cut: Vec<String> = steps[..at].iter().map(|step| (*step).to_owned()).collect();
            cut.push(format!("S<< {}", &said[..length]));
            cut.push("CUT".to_owned());
            let server = ScriptedServer::start(&cut.join("\n")).await.unwrap();
            let lane = TestLane::new([numbered(1), numbered(2)]);
            let (transport, route) = (transport(), route(server.address().port(), Tls::None));
            let carried = tokio::time::timeout(PATIENCE, transport.carry(&route, &lane)).await;
            assert!(carried.is_ok(), "it hangs when cut after {length} bytes of {said:?}");
            transport.close().await;
            let finished = lane.finished.lock().unwrap().clone();
            let asked = lane.asked.lock().unwrap().clone();
            assert_eq!(finished.len(), 2 - lane.left(), "{said:?}: {finished:?}");
            for (number, (attempt, receipt)) in finished.iter().enumerate() {
                let outcome = &receipt.outcomes[0];
                let is_doubt = outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unanswered);
                assert_eq!(outcome.is_ok(), number < answered, "{said:?}: {finished:?}");
                let crossed = asked.contains(attempt);
                assert_eq!(is_doubt, crossed && number >= answered, "{said:?}: {finished:?}");
            }
            cuts += 1;
        }
    }
    assert!(cuts > 150, "the dialogue has become too short: {cuts}");
}
