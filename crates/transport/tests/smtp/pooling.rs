//! A lane that is given up half-way leaves a reply on its way. The pool must not hand its connection to the next lane, which would take
//! that reply for its own; the same check catches a naive pool that does, and one that hands on whatever ended badly.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use postroom_core::address::Address;
use postroom_core::endpoint::Tls;
use postroom_core::id::MailboxId;
use postroom_testkit::{Fault, MailServer, Refusal, Step};
use postroom_transport::{
    Crossing, Error, ErrorKind, Job, Lane, OutgoingTransport, ProbeReport, Receipt, Reply, Result, Route,
    Stage,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::lane::{PATIENCE, TestLane, job, route, transport};

/// What is wrong with a pool, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Naive {
    /// The control: a connection is kept when its lane has ended well.
    Nothing,
    /// A connection goes back into the pool when its lane is dropped, as a guard's `Drop` does.
    KeepsDropped,
    /// A connection goes back into the pool whatever its last reply was.
    KeepsBroken,
}

type Connection = BufReader<TcpStream>;

/// SMTP of the smallest kind, with a pool.
struct Twin {
    naive: Naive,
    parked: Mutex<Vec<Connection>>,
}

/// A connection in a lane's hands.
struct Guard<'a> {
    twin: &'a Twin,
    connection: Option<Connection>,
    /// Whether it may be used again, as far as the twin cares.
    parks: bool,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take().filter(|_| self.parks) {
            self.twin.parked.lock().unwrap().push(connection);
        }
    }
}

impl Guard<'_> {
    async fn say(&mut self, line: &[u8]) -> Result<u16> {
        let connection = self.connection.as_mut().expect("it is kept until it is dropped");
        let lost = |_| Error::new(ErrorKind::Disconnected, Stage::Data);
        connection.get_mut().write_all(line).await.map_err(lost)?;
        self.hear().await
    }

    async fn hear(&mut self) -> Result<u16> {
        let connection = self.connection.as_mut().expect("it is kept until it is dropped");
        loop {
            let mut line = String::new();
            let read = connection.read_line(&mut line).await;
            if !read.is_ok_and(|read| read > 3) {
                return Err(Error::new(ErrorKind::Disconnected, Stage::Data));
            }
            if line.as_bytes()[3] == b' ' {
                return Ok(line[..3].parse().unwrap());
            }
        }
    }

    async fn hand_over(&mut self, job: &Job, lane: &dyn Lane) -> Result<Reply> {
        let sender = job.mail_from.as_ref().map(Address::as_str).unwrap_or_default();
        let refused = |code| Error::new(ErrorKind::Refused, Stage::RcptTo).with_reply(&format!("{code} no"));
        for line in [format!("MAIL FROM:<{sender}>\r\n"), format!("RCPT TO:<{}>\r\n", job.recipients[0])] {
            let code = self.say(line.as_bytes()).await?;
            if code != 250 {
                return Err(refused(code));
            }
        }
        let code = self.say(b"DATA\r\n").await?;
        if code != 354 {
            return Err(refused(code));
        }
        if lane.about_to_cross(job.attempt).await == Crossing::Stop {
            return Err(Error::new(ErrorKind::Stopped, Stage::Data));
        }
        match self.say(b"Subject: x\r\n\r\nx\r\n.\r\n").await? {
            250 => Ok(Reply::new(250, None, "")),
            code => Err(refused(code)),
        }
    }
}

#[async_trait]
impl OutgoingTransport for Twin {
    async fn carry<'a>(&self, route: &Route, lane: &'a (dyn Lane + 'a)) -> Result<()> {
        let parked = self.parked.lock().unwrap().pop();
        let is_new = parked.is_none();
        let connection = match parked {
            Some(parked) => parked,
            None => {
                let stream = TcpStream::connect(("127.0.0.1", route.endpoint.port.number())).await;
                BufReader::new(stream.map_err(|_| Error::new(ErrorKind::Unreachable, Stage::Tcp))?)
            }
        };
        let parks = self.naive == Naive::KeepsDropped;
        let mut guard = Guard { twin: self, connection: Some(connection), parks };
        if is_new {
            guard.hear().await?;
            guard.say(b"EHLO host.example\r\n").await?;
        }
        while let Some(job) = lane.next().await {
            let outcome = guard.hand_over(&job, lane).await;
            let is_broken = outcome.is_err();
            lane.finished(job.attempt, Receipt::new(vec![outcome.clone()])).await;
            if is_broken && self.naive != Naive::KeepsBroken {
                guard.parks = false;
                return outcome.map(|_| ());
            }
        }
        guard.parks = true;
        Ok(())
    }

    async fn probe(&self, _: &Route, _: &[Address]) -> ProbeReport {
        ProbeReport::default()
    }

    async fn close_parked(&self, _: MailboxId) {}

    async fn close_idle(&self) {}

    async fn close(&self) {}
}

/// A lane is given up at each of its awaits; whatever the next one is told must be so. What is wrong, if anything.
async fn dropped_lanes(make: impl Fn() -> Arc<dyn OutgoingTransport>) -> Option<String> {
    let server = MailServer::start().await.unwrap();
    let route = route(server.smtp_port(), Tls::None);
    for polls in 1..60 {
        let transport = make();
        let lane = TestLane::new([job(&["dropped"])]);
        let ended = polled(&*transport, &route, &lane, polls).await;
        let wrong = next_lane(&*transport, &route, &server).await;
        if wrong.is_some() || ended {
            return wrong.map(|wrong| format!("dropped after {polls} polls: {wrong}"));
        }
    }
    Some("the lane never ends by itself".to_owned())
}

/// Polls a lane so often and drops it; gives whether it has ended by itself.
async fn polled(transport: &dyn OutgoingTransport, route: &Route, lane: &TestLane, polls: usize) -> bool {
    let mut carry = transport.carry(route, lane);
    let mut polled = 0;
    std::future::poll_fn(|context| {
        polled += 1;
        match polled > polls {
            true => std::task::Poll::Ready(false),
            false => carry.as_mut().poll(context).map(|_| true),
        }
    })
    .await
}

/// Lanes whose recipient is taken and refused by turns; each must be told its own.
async fn next_lane(transport: &dyn OutgoingTransport, route: &Route, server: &MailServer) -> Option<String> {
    server.refuse_nothing();
    server.refuse(Refusal::recipient("refused@acme.example", 550, "5.1.1 No such user"));
    for (to, arrives) in [("after", true), ("refused", false), ("after", true), ("refused", false)] {
        let before = taken(server, to);
        let lane = TestLane::new([job(&[to])]);
        let carried = tokio::time::timeout(PATIENCE, transport.carry(route, &lane)).await;
        if carried.is_err() {
            return Some(format!("{to}: it hangs"));
        }
        let finished = lane.finished.lock().unwrap().clone();
        let told = finished.iter().any(|(_, receipt)| receipt.outcomes[0].is_ok());
        let after = taken(server, to) > before;
        if (told, after) != (arrives, arrives) {
            return Some(format!("{to}: told {told}, arrived {after}, not {arrives}"));
        }
    }
    None
}

fn taken(server: &MailServer, to: &str) -> usize {
    let to = [format!("{to}@acme.example")];
    server.accepted().iter().filter(|mail| mail.recipients == to).count()
}

/// A reply that is out of step, and the lane behind it.
async fn lane_behind_a_shifted_reply(make: impl Fn() -> Arc<dyn OutgoingTransport>) -> Option<String> {
    let server = MailServer::start().await.unwrap();
    let (transport, route) = (make(), route(server.smtp_port(), Tls::None));
    server.fault(Fault::twice(Step::Mail).times(1));
    let _ = transport.carry(&route, &TestLane::new([job(&["ana"])])).await;
    next_lane(&*transport, &route, &server).await
}

fn twin(naive: Naive) -> impl Fn() -> Arc<dyn OutgoingTransport> {
    move || Arc::new(Twin { naive, parked: Mutex::default() })
}

fn ours() -> Arc<dyn OutgoingTransport> {
    Arc::new(transport())
}

#[tokio::test]
async fn a_lane_that_was_given_up_at_any_await_shifts_no_reply_of_the_next() {
    assert_eq!(dropped_lanes(ours).await, None);
    assert_eq!(dropped_lanes(twin(Naive::Nothing)).await, None, "the control");
    let caught = dropped_lanes(twin(Naive::KeepsDropped)).await;
    assert!(caught.is_some(), "the pool that keeps what was dropped is not noticed");
}

#[tokio::test]
async fn a_connection_whose_replies_are_out_of_step_is_not_handed_on() {
    assert_eq!(lane_behind_a_shifted_reply(ours).await, None);
    assert_eq!(lane_behind_a_shifted_reply(twin(Naive::Nothing)).await, None, "the control");
    let caught = lane_behind_a_shifted_reply(twin(Naive::KeepsBroken)).await;
    assert!(caught.is_some(), "the pool that keeps what ended badly is not noticed");
}
