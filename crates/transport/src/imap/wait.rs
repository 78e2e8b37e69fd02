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
        talk.obeyed("NOOP").await?;
        return Ok(hint(talk));
    }
    if !talk.pushes || !talk.offers("IDLE") {
        return Ok(Hint::Poll);
    }
    talk.stream.expect_little();
    let deadline = Instant::now() + at_most.min(LONGEST);
    let tag = talk.send("IDLE").await?;
    if talk.continuation(&tag).await?.is_some() {
        // Refused, or ended before it began: it would be so the next time.
        talk.pushes = false;
        return Ok(Hint::Poll);
    }
    let mut heard = 0;
    // What keeps coming must not keep us: neither beyond the deadline, nor for its number.
    while !talk.view.changed && Instant::now() < deadline {
        talk.stream.free_buffer();
        talk.enter(Stage::Wait, deadline.saturating_duration_since(Instant::now()));
        if !talk.stream.arrives().await? {
            break;
        }
        talk.enter(Stage::Wait, talk.timeouts.command);
        let bytes = talk.response().await?;
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
    talk.enter(Stage::Wait, talk.timeouts.command);
    talk.stream.write(b"DONE\r\n").await?;
    let completion = talk.completion(&tag, &mut |_| Ok(())).await?;
    completion.accepted(Stage::Wait)?;
    Ok(hint(talk))
}

fn hint(talk: &Conversation) -> Hint {
    if talk.view.changed { Hint::Changed } else { Hint::Quiet }
}
