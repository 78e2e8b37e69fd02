//! Connections that drip, die while they wait, are parked, or are given up.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use postroom_core::endpoint::Tls;
use postroom_core::id::{ClaimId, Revision};
use postroom_testkit::MailServer;
use postroom_testkit::script::ScriptedServer;
use postroom_transport::smtp::{SmtpTransport, Timeouts};
use postroom_transport::{Crossing, ErrorKind, Job, Lane, OutgoingTransport, Receipt, Stage};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};

use crate::lane::{CONTENT, PATIENCE, TestLane, job, numbered, route, transport};

/// A peer that plays by `talk` on each connection in turn.
async fn peer<F: Future<Output = ()> + Send + 'static>(
    talk: impl Fn(usize, TcpStream) -> F + Send + 'static,
) -> (u16, tokio::task::JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            talk(number, stream).await;
        }
    });
    (port, tasks)
}

/// One byte each 20 ms: had each read its own deadline, this would go on for ever.
#[tokio::test]
async fn a_deadline_is_over_the_whole_reply() {
    let (port, _tasks) = peer(|_, mut stream| async move {
        for byte in b"220-".iter().chain(std::iter::repeat(&b'x')) {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let mut timeouts = Timeouts::default().at_most(PATIENCE);
    timeouts.greeting = Duration::from_millis(300);
    let lane = TestLane::new([job(&["ana"])]);
    let transport = SmtpTransport::new().with_timeouts(timeouts);
    let carried = tokio::time::timeout(PATIENCE, transport.carry(&route(port, Tls::None), &lane)).await;
    let error = carried.expect("the deadline holds").expect_err("no greeting");
    assert_eq!((error.kind(), error.stage()), (ErrorKind::TimedOut, Stage::Greeting));
    assert_eq!(lane.left(), 1);
}

/// A peer that stops reading: the write has a deadline too, and the mail is not in doubt, for its end never left.
#[tokio::test]
async fn a_peer_that_does_not_read_is_given_up_before_the_dot() {
    let (port, _tasks) = peer(|_, stream| async move {
        let mut stream = BufReader::new(stream);
        stream.write_all(b"220 hi\r\n").await.unwrap();
        let mut line = String::new();
        for reply in ["250 hi\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n"] {
            stream.read_line(&mut line).await.unwrap();
            stream.write_all(reply.as_bytes()).await.unwrap();
        }
        std::future::pending::<()>().await;
    })
    .await;
    let mut timeouts = Timeouts::default().at_most(PATIENCE);
    timeouts.block = Duration::from_millis(100);
    let mut large = job(&["ana"]);
    // More than the system's buffers hold. It may take 40 min at 8 KiB a second, which the paused clock skips.
    large.content = [CONTENT, &b"0123456789abcdef0123456789abcdef\r\n".repeat(600_000)].concat().into();
    let lane = TestLane::new([large]);
    let transport = SmtpTransport::new().with_timeouts(timeouts);
    let route = route(port, Tls::None);
    let error = tokio::join!(transport.carry(&route, &lane), async {
        // The clock must not jump while the conversation is still going on.
        while lane.asked() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        tokio::time::pause();
    })
    .0
    .expect_err("given up");
    assert_eq!((error.kind(), error.stage()), (ErrorKind::TimedOut, Stage::Data));
    assert_eq!(lane.outcomes()[0].as_ref().unwrap_err().stage(), Stage::Data);
}

#[tokio::test]
async fn a_parked_connection_serves_the_next_lane_and_only_of_its_revision() {
    let server = MailServer::start().await.unwrap();
    let (transport, mut route) = (transport(), route(server.smtp_port(), Tls::None));
    for (revision, connections) in [(1, 1), (1, 1), (2, 2), (2, 2)] {
        route.revision = Revision::new(revision);
        let lane = TestLane::new([job(&["ana"])]);
        transport.carry(&route, &lane).await.unwrap();
        assert!(lane.outcomes()[0].is_ok());
        assert_eq!(server.sessions().len(), connections, "revision {revision}");
    }
    transport.close().await;
    let ended = |server: &MailServer| server.sessions().iter().all(|session| !session.open).then_some(());
    assert!(server.wait_for(PATIENCE, ended).await.is_some(), "close ends what is parked");
}

#[tokio::test]
async fn a_connection_that_was_parked_for_long_is_not_used() {
    let server = MailServer::start().await.unwrap();
    let (transport, route) = (transport(), route(server.smtp_port(), Tls::None));
    for (wait, connections) in [(0, 1), (59, 1), (61, 2)] {
        waits(wait).await;
        transport.carry(&route, &TestLane::new([job(&["ana"])])).await.unwrap();
        assert_eq!(server.sessions().len(), connections, "after {wait} s");
    }
}

async fn waits(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

/// Would miss a connection that is closed without QUIT.
#[tokio::test]
async fn a_connection_that_was_parked_for_long_is_closed_when_that_is_asked_for() {
    let server = MailServer::start().await.unwrap();
    let (transport, route) = (transport(), route(server.smtp_port(), Tls::None));
    transport.carry(&route, &TestLane::new([job(&["ana"])])).await.unwrap();
    waits(59).await;
    transport.close_idle().await;
    transport.carry(&route, &TestLane::new([job(&["ana"])])).await.unwrap();
    assert_eq!(server.sessions().len(), 1, "it is still there");
    waits(61).await;
    transport.close_idle().await;
    let ended = |server: &MailServer| server.sessions().iter().all(|session| !session.open).then_some(());
    assert!(server.wait_for(PATIENCE, ended).await.is_some());
}

/// A lane that is never without a mail: of four, the second is the one after which the connection is half an hour old.
#[tokio::test]
async fn a_busy_connection_is_left_between_two_mails_when_it_is_old() {
    struct Busy(TestLane);

    #[async_trait]
    impl Lane for Busy {
        async fn next(&self) -> Option<Job> {
            self.0.next().await
        }
        async fn about_to_cross(&self, attempt: ClaimId) -> Crossing {
            if self.0.asked() == 1 {
                waits(31 * 60).await;
            }
            self.0.about_to_cross(attempt).await
        }
        async fn finished(&self, attempt: ClaimId, receipt: Receipt) {
            self.0.finished(attempt, receipt).await;
        }
    }

    let server = MailServer::start().await.unwrap();
    let (transport, route) = (transport(), route(server.smtp_port(), Tls::None));
    let lane = Busy(TestLane::new((0..4).map(numbered)));
    transport.carry(&route, &lane).await.unwrap();
    assert!(lane.0.finished.lock().unwrap().iter().all(|(_, receipt)| receipt.outcomes[0].is_ok()));
    assert_eq!((server.sessions().len(), server.accepted_count()), (2, 4));
    let left = |server: &MailServer| (!server.sessions()[0].open).then_some(());
    assert!(server.wait_for(PATIENCE, left).await.is_some());
}

/// Six lanes of one mailbox at once: each has its own connection, and four are kept.
#[tokio::test]
async fn the_number_of_parked_connections_is_bounded() {
    struct Together(TestLane, Arc<tokio::sync::Barrier>);

    #[async_trait]
    impl Lane for Together {
        async fn next(&self) -> Option<Job> {
            self.0.next().await
        }
        async fn about_to_cross(&self, attempt: ClaimId) -> Crossing {
            self.1.wait().await;
            self.0.about_to_cross(attempt).await
        }
        async fn finished(&self, attempt: ClaimId, receipt: Receipt) {
            self.0.finished(attempt, receipt).await;
        }
    }

    let server = MailServer::start().await.unwrap();
    let (transport, route) = (transport(), route(server.smtp_port(), Tls::None));
    let barrier = Arc::new(tokio::sync::Barrier::new(6));
    let lanes: Vec<Together> =
        (0..6).map(|_| Together(TestLane::new([job(&["ana"])]), Arc::clone(&barrier))).collect();
    let carried =
        futures_util::future::join_all(lanes.iter().map(|lane| transport.carry(&route, lane))).await;
    assert!(carried.iter().all(Result::is_ok), "{carried:?}");
    let open = |server: &MailServer| server.sessions().iter().filter(|session| session.open).count();
    assert_eq!(server.sessions().len(), 6);
    assert!(server.wait_for(PATIENCE, |server| (open(server) == 4).then_some(())).await.is_some());
}

/// A lane that was connected before `close_parked` parks nothing after it.
#[tokio::test]
async fn a_connection_in_use_is_not_parked_when_its_settings_changed_meanwhile() {
    struct Forgetting<'a>(&'a SmtpTransport, TestLane);

    #[async_trait]
    impl Lane for Forgetting<'_> {
        async fn next(&self) -> Option<Job> {
            self.1.next().await
        }
        async fn about_to_cross(&self, attempt: ClaimId) -> Crossing {
            self.0.close_parked(postroom_core::id::MailboxId::new(1)).await;
            self.1.about_to_cross(attempt).await
        }
        async fn finished(&self, attempt: ClaimId, receipt: Receipt) {
            self.1.finished(attempt, receipt).await;
        }
    }

    let server = MailServer::start().await.unwrap();
    let (transport, route) = (transport(), route(server.smtp_port(), Tls::None));
    let lane = Forgetting(&transport, TestLane::new([job(&["ana"])]));
    transport.carry(&route, &lane).await.unwrap();
    transport.carry(&route, &TestLane::new([job(&["ana"])])).await.unwrap();
    assert_eq!(server.sessions().len(), 2);
}

/// Serves a client until one mail is taken.
async fn take_one(stream: &mut BufReader<TcpStream>) {
    let _ = stream.write_all(b"220 hi\r\n").await;
    let mut in_data = false;
    let mut line = String::new();
    while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
        let reply = match (in_data, line.trim_end()) {
            (true, ".") => "250 taken\r\n",
            (true, _) => "",
            (false, "DATA") => {
                in_data = true;
                "354 go\r\n"
            }
            (false, _) => "250 ok\r\n",
        };
        if stream.write_all(reply.as_bytes()).await.is_err() || line == ".\r\n" {
            return;
        }
        line.clear();
    }
}

/// A server that closes each connection right after it has taken a mail.
async fn curt(_: usize, stream: TcpStream) {
    take_one(&mut BufReader::new(stream)).await;
}

/// A server that takes one mail and hangs up at the next command, without a word.
async fn weary(_: usize, stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    take_one(&mut stream).await;
    let _ = stream.read_line(&mut String::new()).await;
}

#[tokio::test]
async fn a_connection_that_died_between_two_jobs_costs_none() {
    let (port, _tasks) = peer(curt).await;
    let lane = TestLane::new([job(&["ana"]), job(&["rui"]), job(&["eva"])]);
    transport().carry(&route(port, Tls::None), &lane).await.unwrap();
    let finished = lane.finished.lock().unwrap();
    assert_eq!(finished.len(), 3);
    assert!(finished.iter().all(|(_, receipt)| receipt.outcomes[0].is_ok()), "{finished:?}");
}

#[tokio::test]
async fn a_connection_that_dies_at_mail_is_replaced_once() {
    let (port, _tasks) = peer(weary).await;
    let lane = TestLane::new([job(&["ana"]), job(&["rui"])]);
    transport().carry(&route(port, Tls::None), &lane).await.unwrap();
    let finished = lane.finished.lock().unwrap();
    assert_eq!(finished.len(), 2);
    assert!(finished.iter().all(|(_, receipt)| receipt.outcomes[0].is_ok()), "{finished:?}");
}

#[tokio::test]
async fn a_parked_connection_that_died_is_replaced_before_it_costs_a_job() {
    let (port, _tasks) = peer(curt).await;
    let transport = transport();
    for _ in 0..3 {
        let lane = TestLane::new([job(&["ana"])]);
        transport.carry(&route(port, Tls::None), &lane).await.unwrap();
        assert!(lane.outcomes()[0].is_ok());
    }
}

/// Both sides could wait for the other to read, when one writes without end (RFC 2920 section 3.1). It would miss a batch
/// whose rest comes later than the peer waits.
#[tokio::test]
async fn at_most_a_hundred_commands_are_on_their_way_at_once() {
    let (told, outstanding) = oneshot::channel();
    let told = std::sync::Mutex::new(Some(told));
    let (port, _tasks) = peer(move |_, stream| {
        let told = told.lock().unwrap().take();
        async move {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.write_all(b"220 hi\r\n").await.unwrap();
            stream.read_line(&mut line).await.unwrap();
            stream.write_all(b"250-hi\r\n250 PIPELINING\r\n").await.unwrap();
            for _ in 0..100 {
                stream.read_line(&mut line).await.unwrap();
            }
            let more = tokio::time::timeout(Duration::from_millis(300), stream.read_line(&mut line)).await;
            told.unwrap().send(more.is_ok()).unwrap();
        }
    })
    .await;
    let mut many = job(&[]);
    many.recipients =
        (0..250).map(|number| crate::lane::address(&format!("n{number}@acme.example"))).collect();
    let lane = TestLane::new([many]);
    let (transport, route) = (transport(), route(port, Tls::None));
    tokio::select! {
        carried = transport.carry(&route, &lane) => panic!("nothing was answered: {carried:?}"),
        more = outstanding => assert!(!more.unwrap(), "a 101st command came before any reply"),
    }
}

/// As behind a router that has forgotten the connection: it stands, and nothing comes back.
#[tokio::test]
async fn a_parked_connection_that_went_silent_is_replaced_before_it_costs_a_job() {
    let silent = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (port, _tasks) = peer(move |_, stream| {
        let silent = Arc::clone(&silent);
        async move {
            let mut stream = BufReader::new(stream);
            take_one(&mut stream).await;
            silent.lock().unwrap().push(stream);
        }
    })
    .await;
    let mut timeouts = Timeouts::default().at_most(PATIENCE);
    timeouts.quit = Duration::from_millis(200);
    let transport = SmtpTransport::new().with_timeouts(timeouts);
    for _ in 0..2 {
        let lane = TestLane::new([job(&["ana"])]);
        transport.carry(&route(port, Tls::None), &lane).await.unwrap();
        assert!(lane.outcomes()[0].is_ok());
    }
}

/// A lane whose job comes only after the server has given the connection up.
#[tokio::test]
async fn a_421_that_came_while_the_lane_waited_costs_no_job_when_a_new_connection_works() {
    struct Late(TestLane, tokio::sync::Mutex<Option<oneshot::Receiver<()>>>);

    #[async_trait]
    impl Lane for Late {
        async fn next(&self) -> Option<Job> {
            if let Some(ready) = self.1.lock().await.take() {
                ready.await.unwrap();
            }
            self.0.next().await
        }
        async fn about_to_cross(&self, attempt: ClaimId) -> Crossing {
            self.0.about_to_cross(attempt).await
        }
        async fn finished(&self, attempt: ClaimId, receipt: Receipt) {
            self.0.finished(attempt, receipt).await;
        }
    }

    let script = include_str!("../../dialogs/smtp/421-idle.txt");
    let server = ScriptedServer::start(script).await.unwrap();
    let port = server.address().port();
    let (ready, waits) = oneshot::channel();
    let lane = Late(TestLane::new([job(&["ana"])]), Some(waits).into());
    let transport = transport();
    let route = route(port, Tls::None);
    let (carried, ()) = tokio::join!(transport.carry(&route, &lane), async {
        server.expect_played(PATIENCE).await;
        ready.send(()).unwrap();
    });
    // Nobody listens there any more, so the second try says so: the 421 was not held against the mail.
    let error = carried.expect_err("no second connection");
    assert_eq!((error.kind(), error.stage()), (ErrorKind::Unreachable, Stage::Tcp));
    assert_eq!(lane.0.outcomes()[0].as_ref().unwrap_err().kind(), ErrorKind::Unreachable);
}

/// The measured fault of another client: its dropped future's connection was used again, and each reply was taken for the
/// one of the next mail.
#[tokio::test]
async fn a_future_dropped_at_any_await_leaves_no_connection_behind() {
    let server = MailServer::start().await.unwrap();
    let (transport, route) = (Arc::new(transport()), route(server.smtp_port(), Tls::None));
    for polls in 1..40 {
        let lane = TestLane::new([job(&["dropped"])]);
        let mut carry = Box::pin(transport.carry(&route, &lane));
        let mut polled = 0;
        let ended = std::future::poll_fn(|context| {
            polled += 1;
            if polled > polls {
                return std::task::Poll::Ready(None);
            }
            carry.as_mut().poll(context).map(Some)
        })
        .await;
        drop(carry);
        let before = server.accepted().len();
        let after = TestLane::new([job(&["after"])]);
        transport.carry(&route, &after).await.unwrap();
        assert!(after.outcomes()[0].is_ok());
        let accepted = server.expect_accepted(before + 1, PATIENCE).await;
        assert!(accepted.iter().any(|mail| mail.recipients == ["after@acme.example"]));
        if ended.is_some() {
            assert!(polls > 3, "it must be dropped half-way a few times");
            return;
        }
        transport.close_parked(route.mailbox).await;
    }
    panic!("the conversation never ended by itself");
}

#[tokio::test]
async fn nobody_at_the_port_and_nobody_of_that_name_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut route = route(listener.local_addr().unwrap().port(), Tls::None);
    drop(listener);
    let report = transport().probe(&route, &[]).await;
    let error = report.failure().unwrap();
    assert_eq!((error.kind(), error.stage()), (ErrorKind::Unreachable, Stage::Tcp));
    // A label of 63 bytes below `.invalid`, which never resolves (RFC 6761 section 6.4).
    route.endpoint.host = postroom_core::endpoint::Host::parse("nobody.invalid").unwrap();
    let report = transport().probe(&route, &[]).await;
    let error = report.failure().unwrap();
    assert_eq!(error.stage(), Stage::Dns, "{error}");
}

#[tokio::test]
async fn a_reply_in_single_bytes_is_a_reply() {
    let done = Arc::new(Notify::new());
    let (port, _tasks) = peer({
        let done = Arc::clone(&done);
        move |_, mut stream| {
            let done = Arc::clone(&done);
            async move {
                stream.set_nodelay(true).unwrap();
                for byte in b"220-a\r\n220 b\r\n" {
                    stream.write_all(&[*byte]).await.unwrap();
                    tokio::task::yield_now().await;
                }
                let mut sink = [0; 64];
                let _ = stream.read(&mut sink).await;
                stream.write_all(b"250 hi\r\n").await.unwrap();
                done.notify_one();
                let _ = stream.read(&mut sink).await;
            }
        }
    })
    .await;
    let report = transport().probe(&route(port, Tls::None), &[]).await;
    assert!(report.passed(), "{report:?}");
    done.notified().await;
}
