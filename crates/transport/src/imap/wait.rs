//! Waiting for a change of the selected folder by IDLE (RFC 2177).

use std::time::Duration;

use super::conversation::Conversation;
use super::response::{Response, parse};
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
    if !talk.offers("IDLE") {
        return Ok(Hint::Poll);
    }
    let deadline = tokio::time::Instant::now() + at_most.min(LONGEST);
    let tag = talk.send("IDLE").await?;
    if talk.continuation(&tag).await?.is_some() {
        return Ok(Hint::Poll);
    }
    talk.stream.free_buffer();
    while !talk.view.changed {
        talk.enter(Stage::Wait, deadline.saturating_duration_since(tokio::time::Instant::now()));
        if !talk.stream.arrives().await? {
            break;
        }
        talk.enter(Stage::Wait, talk.timeouts.command);
        let bytes = talk.response().await?;
        match parse(&bytes) {
            Response::Tagged(..) => return Err(talk.broken_rule("it ended what only we may end")),
            response => talk.note(&response)?,
        }
    }
    talk.enter(Stage::Wait, talk.timeouts.command);
    talk.stream.write(b"DONE\r\n").await?;
    let completion = talk.completion(&tag, &mut |_| Ok(())).await?;
    completion.accepted(Stage::Wait)?;
    Ok(if talk.view.changed { Hint::Changed } else { Hint::Quiet })
}
