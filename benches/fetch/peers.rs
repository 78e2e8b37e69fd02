//! async-imap over the box that postroom reads: every body, nothing parsed, nothing kept.

use std::net::SocketAddr;

use async_imap::Client;
use futures_util::TryStreamExt;
use tokio::net::TcpStream;

/// How many mails one command asks for.
const WINDOW: u32 = 500;

/// How many bodies it reads.
pub(crate) async fn async_imap(address: SocketAddr, user: &str, password: &str) -> usize {
    let socket = TcpStream::connect(address).await.expect("a connection");
    let mut client = Client::new(socket);
    client.read_response().await.expect("a readable greeting");
    let mut session = client.login(user, password).await.map_err(|(error, _)| error).expect("a sign-in");
    let exists = session.select("INBOX").await.expect("an inbox").exists;
    let mut bodies = 0;
    let mut first = 1;
    while first <= exists {
        let window = format!("{first}:{}", (first + WINDOW - 1).min(exists));
        let mut answers = session.fetch(&window, "BODY.PEEK[]").await.expect("an answer");
        while let Some(answer) = answers.try_next().await.expect("a readable answer") {
            bodies += usize::from(answer.body().is_some());
        }
        first += WINDOW;
    }
    session.logout().await.expect("a farewell");
    bodies
}
