//! Handle: stored mail is handed to the host until it says done. One mailbox at a time gives one mail; a poison mail waits
//! or dies while the next one goes on.

use std::sync::Arc;
use std::time::Duration;

use postroom_core::ledger::Event;
use postroom_core::mail::{Attached, Mail};
use postroom_core::mailbox::Inbox;
use postroom_core::mime::parse;
use postroom_core::schedule::Schedule;
use postroom_storage::{ClaimedMail, Committing, HandlerResult, LedgerWork, Mailboxes};
use tokio::task::JoinError;
use tokio::time::Instant;

use crate::error::Result;
use crate::event::Event as Happened;
use crate::handler::{Answer, Delivery};
use crate::postroom::random;
use crate::worker::Worker;

/// What a handler's words in a timeline have at most, in characters.
const WORDS: usize = 400;

/// How long a call lasts before it is told that it does, and before it is told again.
const LONG_CALL: Duration = Duration::from_secs(10 * 60);

/// Hands one mail over and records the answer.
pub(crate) async fn handle(worker: Arc<Worker>, claimed: ClaimedMail) {
    let Some(handler) = worker.postroom.ports.handler.clone() else { return };
    // A worker that died over it spent a call and could not say so.
    if claimed.attempt > worker.postroom.ports.options.handler_calls {
        return finish(
            &worker,
            &claimed,
            again("each worker that handed it over ended before it was answered"),
        )
        .await;
    }
    let delivery = match delivery(&worker, &claimed).await {
        Ok(delivery) => delivery,
        Err(error) => {
            // What is everybody's costs the mail no call: the claim runs out, and the mail is tried again then.
            let Some(error) = worker.not_everybodys(error) else { return };
            return finish(&worker, &claimed, again(format!("it can't be handed over: {error}"))).await;
        }
    };
    // A task of its own, so that a panic of the handler is an answer like any other. It ends with this future.
    let mut call = tokio::task::JoinSet::new();
    call.spawn(async move { handler.handle(delivery).await });
    let begun = Instant::now();
    let ended = loop {
        match tokio::time::timeout(LONG_CALL, call.join_next()).await {
            Ok(ended) => break ended,
            Err(_) => unanswered(&worker, &claimed, begun.elapsed()),
        }
    };
    let answer = match ended {
        Some(Ok(answer)) => answer,
        Some(Err(error)) => again(panicked(error)),
        None => again("the handler gave no answer"),
    };
    finish(&worker, &claimed, answer).await;
}

/// Tells of a handler that has not answered for so long: it may hang, and nobody else would say so.
fn unanswered(worker: &Worker, claimed: &ClaimedMail, since: Duration) {
    let told = Happened::Unanswered { id: claimed.item.id, mailbox: claimed.item.mailbox, since };
    tracing::warn!(target: "postroom", "{told}");
    worker.postroom.observe(&told);
}

/// Another call, by the schedule.
fn again(reason: impl Into<String>) -> Answer {
    Answer::Retry { after: None, reason: reason.into() }
}

fn panicked(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "the handler was ended".to_owned() };
    let message = panic.downcast_ref::<&str>().copied();
    let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the handler panicked: {}", message.unwrap_or("without a message"))
}

/// A handler's words for a timeline: one line, and not too much of it.
fn words(text: &str) -> String {
    text.trim().chars().take(WORDS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A mail as its handler gets it.
async fn delivery(worker: &Worker, claimed: &ClaimedMail) -> Result<Delivery> {
    let item = &claimed.item;
    let raw = worker.postroom.read_body(claimed.body, Some(item.size)).await?;
    let mut mail = parse(raw.clone());
    let mailbox = Mailboxes::mailbox(worker.postroom.store(), item.mailbox).await?;
    let inbox = mailbox.as_ref().and_then(|mailbox| mailbox.settings.inbox());
    let refused_attachments = inbox.map(|inbox| refuse(&mut mail, inbox)).unwrap_or_default();
    Ok(Delivery {
        id: item.id,
        attempt: claimed.attempt,
        mailbox: item.mailbox,
        contract: item.contract.clone(),
        reasons: item.reasons.clone(),
        record: item.record.clone(),
        mail,
        refused_attachments,
        raw,
        claim: Committing { id: item.id, claim: claimed.claim },
    })
}

/// Takes away the attachments that the inbox does not accept; gives their names.
fn refuse(mail: &mut Mail, inbox: &Inbox) -> Vec<String> {
    let refused = |file: &mut Attached| {
        let extension = file.name.rsplit_once('.').map(|(_, extension)| extension.to_lowercase());
        let by_name = extension.is_some_and(|extension| inbox.refused_extensions().contains(&extension));
        by_name || u64::try_from(file.size).unwrap_or(u64::MAX) > inbox.max_attachment()
    };
    mail.attachments.extract_if(.., refused).map(|file| file.name).collect()
}

async fn finish(worker: &Worker, claimed: &ClaimedMail, answer: Answer) {
    let now = worker.postroom.now();
    let work: &dyn LedgerWork = worker.postroom.store();
    let claim = Committing { id: claimed.item.id, claim: claimed.claim };
    let answer = match answer {
        Answer::Committed => match worker.insist(|| work.completed(&claim)).await {
            Ok(true) => {
                return worker.postroom.observe(&Happened::Handled { id: claim.id, event: Event::Handle });
            }
            Ok(false) => again("the handler said committed, and nothing was under its claim"),
            Err(error) => return lost(worker, claimed, error).await,
        },
        answer => answer,
    };
    let most = worker.postroom.ports.options.handler_calls;
    let (event, detail, due_at) = match answer {
        Answer::Done | Answer::Committed => (Event::Handle, String::new(), now),
        Answer::Refuse(reason) => (Event::Die, format!("the handler refused it: {}", words(&reason)), now),
        Answer::Retry { reason, .. } if claimed.attempt >= most => {
            let (calls, reason) = (claimed.attempt, words(&reason));
            (Event::Die, format!("failed {calls} times, last: {reason}; mend it, then replay the mail"), now)
        }
        Answer::Retry { after, reason } => {
            let seed = random().map(u64::from_be_bytes).unwrap_or_default();
            let by_schedule = || Schedule::default().next(claimed.attempt, now, None, seed);
            let due_at = after.map_or_else(by_schedule, |after| now + after);
            (Event::Defer, format!("{}; called again after {due_at}", words(&reason)), due_at)
        }
    };
    let result = HandlerResult { id: claimed.item.id, claim: claimed.claim, event, due_at, detail };
    match worker.insist(|| work.finish(worker.postroom.now(), &result)).await {
        Ok(true) => worker.postroom.observe(&Happened::Handled { id: result.id, event }),
        Ok(false) => {
            tracing::info!(target: "postroom", "mail {}: the answer came too late to count", result.id)
        }
        Err(error) => lost(worker, claimed, error).await,
    }
}

/// An answer that can't be recorded: the claim runs out, and the mail is handed over again.
async fn lost(worker: &Worker, claimed: &ClaimedMail, error: postroom_storage::Error) {
    worker.stumbles(claimed.item.mailbox, &format!("mail {}", claimed.item.id), error).await;
}
