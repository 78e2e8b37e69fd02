//! A lane that notes what happens to its jobs, the routes to test servers, and the playing of one dialogue.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use postroom_core::address::Address;
use postroom_core::credentials::Credentials;
use postroom_core::endpoint::{Authority, Endpoint, Host, Port, Tls};
use postroom_core::id::{ClaimId, MailboxId, Revision};
use postroom_core::time::Timestamp;
use postroom_testkit::script::{Played, ScriptedServer};
use postroom_transport::smtp::{SmtpTransport, Timeouts};
use postroom_transport::{
    Crossing, Error, ErrorKind, Job, Lane, OutgoingTransport, Protocol, Receipt, Reply, Route, Stage,
};

/// Long enough for a loaded machine; no test waits for it but to fail.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const PASSWORD: &str = "canary-4f1d";

#[derive(Default)]
pub(crate) struct TestLane {
    jobs: Mutex<VecDeque<Job>>,
    pub(crate) asked: Mutex<Vec<ClaimId>>,
    pub(crate) finished: Mutex<Vec<(ClaimId, Receipt)>>,
}

impl TestLane {
    pub(crate) fn new(jobs: impl IntoIterator<Item = Job>) -> Self {
        Self { jobs: Mutex::new(jobs.into_iter().collect()), ..Self::default() }
    }

    pub(crate) fn left(&self) -> usize {
        self.jobs.lock().unwrap().len()
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// The outcomes of the only job.
    pub(crate) fn outcomes(&self) -> Vec<Result<Reply, Error>> {
        let finished = self.finished.lock().unwrap();
        assert_eq!(finished.len(), 1, "finished once: {finished:?}");
        finished[0].1.outcomes.clone()
    }
}

#[async_trait]
impl Lane for TestLane {
    async fn next(&self) -> Option<Job> {
        self.jobs.lock().unwrap().pop_front()
    }

    async fn about_to_cross(&self, attempt: ClaimId) -> Crossing {
        self.asked.lock().unwrap().push(attempt);
        Crossing::Go
    }

    async fn finished(&self, attempt: ClaimId, receipt: Receipt) {
        self.finished.lock().unwrap().push((attempt, receipt));
    }
}

pub(crate) fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

pub(crate) fn job_with(recipients: &[&str], content: &'static [u8]) -> Job {
    let attempt = ClaimId::new(Timestamp::from_millis(0), [7; 10]);
    let recipients = recipients.iter().map(|local| address(&format!("{local}@acme.example"))).collect();
    Job::new(attempt, Some(address("desk@host.example")), recipients, content.into())
}

/// One of several jobs, to one recipient.
pub(crate) fn numbered(number: u8) -> Job {
    let mut job = job(&["ana"]);
    job.attempt = ClaimId::new(Timestamp::from_millis(0), [number; 10]);
    job
}

pub(crate) const CONTENT: &[u8] = b"Subject: Hello\r\n\r\n.dotted\r\nHow\r\n.\r\n";

pub(crate) fn job(recipients: &[&str]) -> Job {
    job_with(recipients, CONTENT)
}

pub(crate) fn route(port: u16, tls: Tls) -> Route {
    let endpoint = Endpoint::new(Host::parse("127.0.0.1").unwrap(), Port::new(port.into()).unwrap());
    Route::new(MailboxId::new(1), Revision::new(1), Protocol::Smtp, endpoint, tls)
        .with_ehlo_name(Some(Host::parse("app.host.example").unwrap()))
}

pub(crate) fn credentials() -> Credentials {
    Credentials::password("desk@host.example", PASSWORD.into())
}

/// What happens in a dialogue that has a bound on every step.
pub(crate) fn transport() -> SmtpTransport {
    SmtpTransport::new().with_timeouts(Timeouts::default().at_most(PATIENCE))
}

/// How a lane went over a dialogue.
pub(crate) struct Went {
    pub(crate) carried: Result<(), Error>,
    pub(crate) lane: TestLane,
    pub(crate) played: Played,
}

impl Went {
    /// What the connection could not be made for, no job having been asked for.
    #[track_caller]
    pub(crate) fn never_began(&self, kind: ErrorKind, stage: Stage) -> &Error {
        assert_eq!((self.lane.left(), self.lane.finished.lock().unwrap().len()), (1, 0), "no job is lost");
        let error = self.carried.as_ref().expect_err("no connection");
        assert_eq!((error.kind(), error.stage()), (kind, stage), "{error}");
        error
    }

    /// Kind and stage of each recipient's error, or none.
    pub(crate) fn errors(&self) -> Vec<Option<(ErrorKind, Stage)>> {
        let outcomes = self.lane.outcomes();
        outcomes.iter().map(|one| one.as_ref().err().map(|error| (error.kind(), error.stage()))).collect()
    }
}

/// Carries the job over the dialogue, and checks that the dialogue was played to its end.
pub(crate) async fn play(dialogue: &str, change: impl FnOnce(Route) -> Route, job: Job) -> Went {
    play_within(dialogue, change, job, transport()).await
}

pub(crate) async fn play_within(
    dialogue: &str,
    change: impl FnOnce(Route) -> Route,
    job: Job,
    transport: SmtpTransport,
) -> Went {
    let server = ScriptedServer::start(dialogue).await.unwrap();
    let route = route(server.address().port(), Tls::None)
        .with_authority(Some(Authority::parse(server.ca_pem()).unwrap()));
    let lane = TestLane::new([job]);
    let carried = transport.carry(&change(route), &lane).await;
    transport.close().await;
    Went { carried, lane, played: server.expect_played(PATIENCE).await }
}

pub(crate) fn as_is(route: Route) -> Route {
    route
}

pub(crate) fn with_starttls(mut route: Route) -> Route {
    route.tls = Tls::StartTls;
    route.with_credentials(credentials())
}

pub(crate) fn with_plain_token(route: Route) -> Route {
    route.with_credentials(Credentials::bearer("desk@host.example", PASSWORD.into())).with_danger_plaintext()
}

pub(crate) fn with_plain_sign_in(route: Route) -> Route {
    route.with_credentials(credentials()).with_danger_plaintext()
}
