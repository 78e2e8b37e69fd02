//! Waiting for a change of the selected folder by IDLE (RFC 2177).

use std::time::Duration;

use tokio::time::Instant;

use super::conversation::{Conversation, Heard, RESPONSES_LIMIT};
use super::response::parse;
use crate::error::{Result, Stage};
use crate::incoming::Hint;

/// A server may end a session that idles for 30 minutes; so do routers, earlier and without a word.
const LONGEST: Duration = Duration::from_secs(28 * 60);

/// Waits until a mail comes or goes. Flags that change wake nobody.
///
/// # Errors
/// Of the connection or the protocol; an end of the stream is one, and no change.
pub(super) async fn change(talk: &mut Conversation, at_most: Duration) -> Result<Hint> {
    // Told in passing, after the folder was listed.
    if talk.view.changed {
        return Ok(Hint::Changed);
    }
    if at_most.is_zero() {
        // RFC 3501 section 6.1.2: the way to ask for news. STATUS must not be asked of the selected folder (section 6.3.10).
        Box::pin(talk.obeyed("NOOP")).await?;
        return Ok(hint(talk));
    }
    if !talk.pushes || !talk.offers("IDLE") {
        return Ok(Hint::Poll);
    }
    let deadline = Instant::now() + at_most.min(LONGEST);
    // All but the silence itself is in boxes of its own: thousands of connections are silent, and few talk.
    let Some(tag) = Box::pin(begin(talk)).await? else { return Ok(Hint::Poll) };
    let mut heard = 0;
    // What keeps coming must not keep us: neither beyond the deadline, nor for its number.
    while !talk.view.changed && Instant::now() < deadline {
        talk.stream.free_buffer();
        talk.enter(Stage::Wait, deadline.saturating_duration_since(Instant::now()));
        if !talk.stream.arrives().await? {
            break;
        }
        talk.enter(Stage::Wait, talk.timeouts.command);
        let bytes = Box::pin(talk.response()).await?;
        match talk.heard(&tag, parse(&bytes))? {
            Heard::End(_) => return Err(talk.broken_rule("it ended what only we may end")),
            // Some servers repeat it as a sign of life.
            Heard::GoOn | Heard::Untagged(_) => {}
        }
        heard += 1;
        if heard > RESPONSES_LIMIT {
            return Err(talk.broken_rule("too many responses to one command"));
        }
    }
    Box::pin(end(talk, &tag)).await?;
    Ok(hint(talk))
}

/// Begins to idle; gives the tag under which it does, or none where the server refused.
async fn begin(talk: &mut Conversation) -> Result<Option<String>> {
    talk.stream.expect_little();
    let tag = talk.send("IDLE").await?;
    // Refused, or ended before it began: it would be so the next time.
    talk.pushes = talk.continuation(&tag).await?.is_none();
    Ok(talk.pushes.then_some(tag))
}

/// Ends it, and hears that it has ended.
async fn end(talk: &mut Conversation, tag: &str) -> Result<()> {
    talk.enter(Stage::Wait, talk.timeouts.command);
    talk.stream.write(b"DONE\r\n").await?;
    let completion = talk.completion(tag, &mut |_| Ok(())).await?;
    completion.accepted(Stage::Wait)
}

fn hint(talk: &Conversation) -> Hint {
    if talk.view.changed { Hint::Changed } else { Hint::Quiet }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::timeouts::IncomingTimeouts;
    use crate::wire::stream::Stream;

    /// Would miss what a future points to: that is measured by `cargo bench --bench idle`. One that talks, and not in a box of its
    /// own, has 656 bytes for each of thousands of connections.
    #[tokio::test]
    async fn a_silent_wait_has_no_room_for_talk() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let socket = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connected");
        let mut talk = Conversation::new(Stream::new(socket), IncomingTimeouts::default());
        let size = size_of_val(&change(&mut talk, LONGEST));
        assert!(size <= 400, "{size} bytes");
    }
}
