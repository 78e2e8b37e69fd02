//! One mail over a session: MAIL, RCPT, DATA, the lane's consent, the content, the final dot, and what each reply means
//! for each recipient (RFC 5321 section 3.3, RFC 2920).

use postroom_core::address::Address;

use crate::error::{Error, ErrorKind, Result, Stage};
use crate::outgoing::{Crossing, Job, Receipt};
use crate::smtp::ahead::Ahead;
use crate::smtp::content::{END, Stuffed};
use crate::smtp::envelope::{BATCH, Command, Envelope, Known, rcpt_command, sender_command, unsupported};
use crate::smtp::reply::Answer;
use crate::smtp::session::Session;

/// Hands one mail over. The receipt has a result for each recipient. The error is what stopped the whole mail, if anything
/// did; whether the session can go on, the session knows. `sent` is the envelope, if it has left before.
pub(super) async fn transact(
    session: &mut Session,
    job: &Job,
    sent: Option<Envelope>,
    lane: &mut Ahead<'_>,
) -> (Receipt, Result<()>) {
    let is_sent = sent.is_some();
    let mut envelope = match sent.map_or_else(|| Envelope::new(job, &session.extensions), Ok) {
        Ok(envelope) => envelope,
        Err(error) => return (Receipt::all(job.recipients.len(), &error), Err(error)),
    };
    let result = match invite(session, job, is_sent, &mut envelope, lane).await {
        Ok(true) => cross(session, job, &mut envelope, lane).await,
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    let outcomes = envelope.known.into_iter().map(|one| match (one, &result) {
        (Known::Ended(outcome), _) => outcome,
        (_, Err(error)) => Err(error.clone()),
        // It ends well only when all is settled; if it ever were not, doubt is the safe answer.
        (_, Ok(())) => Err(Error::new(ErrorKind::Unanswered, Stage::Dot)),
    });
    (Receipt::new(outcomes.collect()), result)
}

/// MAIL, each RCPT, and DATA; in one write where the server allows. True when the content is to follow: the server said 354
/// and has accepted a recipient.
async fn invite(
    session: &mut Session,
    job: &Job,
    is_sent: bool,
    envelope: &mut Envelope,
    lane: &mut Ahead<'_>,
) -> Result<bool> {
    if envelope.commands().is_empty() {
        return Ok(false);
    }
    session.in_transaction = true;
    session.transactions += 1;
    let mut refused: Option<Error> = None;
    let mut may_send = false;
    let commands = envelope.commands().to_vec();
    for batch in commands.chunks(if session.extensions.pipelining { BATCH } else { 1 }) {
        if refused.is_some() || (matches!(batch, [Command::Data]) && !envelope.any_accepted()) {
            break;
        }
        enter(session, batch[0]);
        if !is_sent {
            lane.beside(session.send(&envelope.lines(job, batch))).await?;
        }
        if session.extensions.pipelining && matches!(batch, [.., Command::Data]) {
            lane.ask();
        }
        for &command in batch {
            enter(session, command);
            let answer = match lane.beside(session.answer()).await {
                Ok(answer) => answer,
                // What the server has said of the mail tells more than that it then hung up.
                Err(error) => return Err(refused.unwrap_or(error)),
            };
            match command {
                Command::Mail if answer.class() != 2 => refused = Some(refusal(session, &answer)?),
                Command::Mail => {}
                // Whatever a server says of recipients after it has refused MAIL, the reason is that refusal.
                Command::Rcpt(_) if refused.is_some() => {}
                Command::Rcpt(at) if answer.class() == 2 => envelope.known[at] = Known::Accepted,
                Command::Rcpt(at) => envelope.known[at] = Known::Ended(Err(refusal(session, &answer)?)),
                Command::Data => may_send = data_answered(session, &answer, envelope, &mut refused)?,
            }
        }
    }
    refused.map_or(Ok(may_send), Err)
}

/// What the reply to DATA means.
fn data_answered(
    session: &mut Session,
    answer: &Answer,
    envelope: &Envelope,
    refused: &mut Option<Error>,
) -> Result<bool> {
    match (answer.code(), envelope.any_accepted() && refused.is_none()) {
        (354, true) => Ok(true),
        // It waits for content that nobody shall get. RFC 2920 section 3.1 has a lone dot sent here; some server might take
        // it for a mail, and no dot leaves without the lane's consent. So the connection ends.
        (354, false) => {
            session.end();
            Ok(false)
        }
        (_, true) => {
            *refused = Some(refusal(session, answer)?);
            Ok(false)
        }
        // Every recipient has its refusal already (RFC 5321 section 3.3); 421 still ends the session.
        (421, false) => Err(session.refusal(answer)),
        (_, false) => Ok(false),
    }
}

/// The error of a reply that refuses; what is no refusal, or ends the session, stops the whole mail.
fn refusal(session: &mut Session, answer: &Answer) -> Result<Error> {
    let error = session.refusal(answer);
    // The sign-in held for an earlier mail, or a server that has just accepted it asks for one (RFC 4954 section 6): it has expired. What
    // else is refused at the first mail, or of a box that has no sign-in, a person must correct.
    let expired = session.is_signed_in && (session.transactions > 1 || answer.code() == 530);
    let error = if error.kind() == ErrorKind::SignInRefused && expired {
        Error::new(ErrorKind::Reauthorise, error.stage()).with_reply(error.reply().unwrap_or_default())
    } else {
        error
    };
    if error.kind() == ErrorKind::Reauthorise {
        session.end();
    }
    if session.is_ended() { Err(error) } else { Ok(error) }
}

/// From the lane's consent to the server's last word. The envelope of the next mail leaves in one write with the final dot.
async fn cross(
    session: &mut Session,
    job: &Job,
    envelope: &mut Envelope,
    lane: &mut Ahead<'_>,
) -> Result<()> {
    if lane.about_to_cross(job.attempt).await == Crossing::Stop {
        session.end();
        return Err(Error::new(ErrorKind::Stopped, Stage::Data));
    }
    session.enter(Stage::Data, session.timeouts.content(job.content.len()));
    // What has come by now can't be the answer to a dot that has not left.
    session.refuse_unasked().await?;
    let mut pieces = Stuffed::new(&job.content).peekable();
    while let Some(mut piece) = pieces.next() {
        let mut behind = 0;
        let is_last = pieces.peek().is_none();
        if is_last
            && !session.is_aged()
            && let Some(next) = lane.envelope(&session.extensions)
        {
            tracing::trace!(commands = next, "sent behind the dot");
            piece.extend_from_slice(next.as_bytes());
            behind = next.len();
        }
        if let Err((error, unwritten)) = lane.beside(session.send_content(&piece)).await {
            // Only when the end had begun to leave may the server have the mail.
            return Err(if is_last && unwritten <= END + behind { unanswered(error) } else { error });
        }
    }
    session.enter(Stage::Dot, session.timeouts.dot);
    let answer = lane.beside(session.answer()).await.map_err(unanswered)?;
    match answer.class() {
        2 => {
            session.in_transaction = false;
            for one in envelope.known.iter_mut().filter(|one| matches!(one, Known::Accepted)) {
                *one = Known::Ended(Ok(answer.reply()));
            }
            Ok(())
        }
        4 | 5 => Err(session.refusal(&answer)),
        _ => {
            let error = session.refusal(&answer);
            Err(unanswered(error))
        }
    }
}

/// After the dot, whatever is no reply leaves it open whether the server has the mail (RFC 1047).
fn unanswered(cause: Error) -> Error {
    let error = Error::new(ErrorKind::Unanswered, Stage::Dot);
    match cause.reply() {
        Some(reply) => error.with_reply(reply),
        None => error,
    }
    .with_source(cause)
}

fn enter(session: &mut Session, command: Command) {
    let (stage, time) = match command {
        Command::Mail => (Stage::MailFrom, session.timeouts.mail),
        Command::Rcpt(_) => (Stage::RcptTo, session.timeouts.rcpt),
        Command::Data => (Stage::Data, session.timeouts.data),
    };
    session.enter(stage, time);
}

/// Asks whether the server would take a mail from `address` to itself; the caller takes it back.
pub(super) async fn rehearse(session: &mut Session, address: &Address) -> Result<()> {
    let utf8 = address.needs_smtputf8();
    if utf8 && !session.extensions.smtputf8 {
        return Err(unsupported("5.6.7 the address needs SMTPUTF8"));
    }
    session.in_transaction = true;
    session.transactions += 1;
    let mail = format!("{}{}\r\n", sender_command(Some(address)), if utf8 { " SMTPUTF8" } else { "" });
    for (command, line) in [(Command::Mail, mail), (Command::Rcpt(0), rcpt_command(address))] {
        enter(session, command);
        let answer = session.command(&line).await?;
        if answer.class() != 2 {
            return Err(refusal(session, &answer).unwrap_or_else(|error| error));
        }
    }
    Ok(())
}
