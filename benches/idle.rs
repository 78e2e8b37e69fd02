//! What an idle IMAP connection costs: so many sessions are signed in, have listed their inbox and wait for news, and the
//! resident memory of their process is divided by their number. The server is another process, this program again.

#![expect(clippy::print_stdout, reason = "a benchmark says what it has measured")]

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use postroom_core::credentials::Credentials;
use postroom_core::endpoint::{Authority, Endpoint, Host, Port, Tls};
use postroom_core::id::{MailboxId, Revision};
use postroom_testkit::MailServer;
use postroom_transport::imap::ImapTransport;
use postroom_transport::{Access, IncomingTransport, Protocol, Route};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;

const LOGIN: &str = "ana@acme.example";
const PASSWORD: &str = "secret";

/// Sessions that are signed in before the first measure: what is needed once is there then.
const FIRST: usize = 50;

/// How many sign in at the same time.
const AT_ONCE: usize = 20;

/// Longer than any run.
const LONG: Duration = Duration::from_secs(20 * 60);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Client {
    /// A session of ours.
    Postroom,
    /// async-imap in IDLE, without TLS.
    AsyncImap,
    /// A task that owns a socket and waits for it to be readable: what tokio itself costs.
    Task,
}

#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// Who idles.
    #[arg(long, value_enum, default_value = "postroom")]
    client: Client,
    /// Inside TLS.
    #[arg(long)]
    tls: bool,
    /// How many connections.
    #[arg(long, default_value_t = 2000)]
    connections: usize,
    /// Serves until its standard input ends.
    #[arg(long, hide = true)]
    serve: bool,
    /// What cargo gives to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    /// A few connections; nothing is told.
    #[arg(long)]
    test: bool,
}

fn main() {
    let arguments = Arguments::parse();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("as many files as may be");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    if arguments.serve {
        runtime.block_on(serve());
        return;
    }
    let mut server = Command::new(std::env::current_exe().expect("this program"))
        .arg("--serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a server");
    let mut said = BufReader::new(server.stdout.take().expect("its words")).lines();
    let mut word = || said.next().expect("a line of the server").expect("readable");
    let ports: [u16; 2] = [word(), word()].map(|port| port.parse().expect("a port"));
    let mut authority = String::new();
    while !authority.contains("-----END") {
        authority.push_str(&word());
        authority.push('\n');
    }
    let connections = if arguments.test { FIRST + 10 } else { FIRST + arguments.connections };
    let [before, after] = runtime.block_on(measure(&arguments, ports, &authority, connections));
    let kib = (after.saturating_sub(before)) as f64 / (connections - FIRST) as f64;
    let way = if arguments.tls { "TLS" } else { "plain" };
    if !arguments.test {
        println!(
            "{:?}, {way}: {kib:.1} KiB for each of {} idle connections",
            arguments.client,
            connections - FIRST
        );
    }
    // Its input ends with ours.
    drop(server.stdin.take());
    server.wait().expect("the server's end");
}

/// Says its ports and its authority, then serves.
async fn serve() {
    let server = MailServer::builder().account(LOGIN, PASSWORD).danger_plaintext_auth().start().await;
    let server = server.expect("a server");
    println!("{}\n{}\n{}", server.imap_port(), server.imaps_port(), server.ca_pem());
    std::io::stdout().flush().expect("written");
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().lines().next().is_none());
    ended.await.expect("no panic");
}

/// The resident memory with the first and with all connections idle, in KiB.
async fn measure(arguments: &Arguments, ports: [u16; 2], authority: &str, connections: usize) -> [usize; 2] {
    let shared = Arc::new(Shared {
        client: arguments.client,
        route: route(arguments.tls, ports, authority),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, ports[0])),
        transport: ImapTransport::new(),
        turns: Semaphore::new(AT_ONCE),
    });
    let mut tasks = JoinSet::new();
    let mut measured = [0; 2];
    for (place, number) in [FIRST, connections - FIRST].into_iter().enumerate() {
        let idle = Arc::new(Barrier::new(number + 1));
        for _ in 0..number {
            tasks.spawn(idling(Arc::clone(&shared), Arc::clone(&idle)));
        }
        idle.wait().await;
        // The last ones have still to say IDLE and to hear the answer; no figure depends on how long that takes.
        tokio::time::sleep(Duration::from_secs(if arguments.test { 0 } else { 3 })).await;
        measured[place] = resident();
    }
    measured
}

struct Shared {
    client: Client,
    route: Route,
    address: SocketAddr,
    transport: ImapTransport,
    turns: Semaphore,
}

fn route(tls: bool, ports: [u16; 2], authority: &str) -> Route {
    let port = Port::new(ports[usize::from(tls)].into()).expect("a port");
    let endpoint = Endpoint::new(Host::parse("127.0.0.1").expect("a host"), port);
    let tls = if tls { Tls::Implicit } else { Tls::None };
    Route::new(MailboxId::new(1), Revision::new(1), Protocol::Imap, endpoint, tls)
        .with_authority(Some(Authority::parse(authority).expect("an authority")))
        .with_credentials(Credentials::password(LOGIN, PASSWORD.into()))
        .with_danger_plaintext()
}

async fn idling(shared: Arc<Shared>, idle: Arc<Barrier>) {
    // Each in a box of its own: else each would have the size of the largest.
    match shared.client {
        Client::Postroom => Box::pin(postroom(shared, idle)).await,
        Client::AsyncImap => Box::pin(async_imap(shared, idle)).await,
        Client::Task => Box::pin(task(shared, idle)).await,
    }
}

async fn postroom(shared: Arc<Shared>, idle: Arc<Barrier>) {
    let turn = shared.turns.acquire().await.expect("it is never closed");
    let mut session = shared.transport.open(&shared.route).await.expect("a session");
    session.select(None, Access::ReadOnly).await.expect("an inbox");
    session.list(None, 100).await.expect("a list");
    drop(turn);
    idle.wait().await;
    drop(idle);
    session.wait(LONG).await.expect("silence");
}

async fn async_imap(shared: Arc<Shared>, idle: Arc<Barrier>) {
    let turn = shared.turns.acquire().await.expect("it is never closed");
    let mut session = Box::pin(async {
        let socket = TcpStream::connect(shared.address).await.expect("a connection");
        let mut client = async_imap::Client::new(socket);
        client.read_response().await.expect("a readable greeting");
        let signed_in = client.login(LOGIN, PASSWORD).await.map_err(|(error, _)| error);
        let mut session = signed_in.expect("a sign-in");
        session.select("INBOX").await.expect("an inbox");
        session
    })
    .await
    .idle();
    session.init().await.expect("a continuation");
    drop(turn);
    idle.wait().await;
    drop(idle);
    session.wait_with_timeout(LONG).0.await.expect("silence");
}

async fn task(shared: Arc<Shared>, idle: Arc<Barrier>) {
    let turn = shared.turns.acquire().await.expect("it is never closed");
    let socket = Box::pin(TcpStream::connect(shared.address)).await.expect("a connection");
    let mut greeting = vec![0; 4096];
    socket.readable().await.expect("a greeting");
    assert!(socket.try_read(&mut greeting).expect("a greeting") > 0);
    drop((turn, greeting));
    idle.wait().await;
    drop(idle);
    socket.readable().await.expect("silence");
}

/// The resident memory of this process in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("the resident memory");
    line.split_ascii_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}
