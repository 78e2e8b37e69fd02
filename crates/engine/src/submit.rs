//! Submit: a mail of the host is resolved, composed, frozen and put into the queue; and notify, which submits the mail of
//! a step by its template.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use postroom_core::address::{Address, NamedAddress};
use postroom_core::id::{BodyId, ContractId, LedgerId, MailboxId, QueueId, RecordId, Revision, StepKey};
use postroom_core::mailbox::MailboxSettings;
use postroom_core::message::{Automation, Content, Submission, check_size};
use postroom_core::mime::{Composition, check_raw, compose, parse};
use postroom_core::queue::{Basis, Prepared, Recipient, Role};
use postroom_core::resolve::Reason;
use postroom_core::rules;
use postroom_core::schedule::EXPIRY;
use postroom_core::step::StepRecipient;
use postroom_core::template::{Filled, Values};
use postroom_core::thread::{TokenKey, message_id, references_for_answer, tagged, tagged_subject};
use postroom_core::time::Timestamp;
use postroom_core::violation::Invalid;
use postroom_storage::{Bodies, Enqueued, ErrorKind as StoreKind, LedgerDesk, QueueDesk, QueueIntake};

use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::links::Links;
use crate::postroom::{Postroom, random};

/// How often a decision is made again when links change in between.
const DECISIONS: u32 = 5;

/// A mail that is durably in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Submitted {
    /// Its id.
    pub id: QueueId,
    /// Its Message-ID, with angle brackets.
    pub message_id: String,
    /// The outbox that sends it.
    pub outbox: MailboxId,
    /// The sender.
    pub sender: NamedAddress,
    /// Why.
    pub reasons: Vec<Reason>,
    /// Whether it was there before, under the same idempotency key.
    pub existing: bool,
}

/// The mail that is answered.
struct Parent {
    message_id: Option<String>,
    references: Vec<String>,
    /// What shows that a program wrote it.
    automatic: Option<String>,
}

impl Postroom {
    /// Puts a mail into the queue. When this returns it is on the medium, and will be sent, held, or shown to a person.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] with every violation; [`ErrorKind::Unresolved`]; an idempotency conflict; a limit of the
    /// contract. After an error nothing is queued.
    ///
    /// # Cancel safety
    /// When the future is dropped the mail is either queued or not; submit it again with the same idempotency key.
    pub async fn submit(&self, submission: &Submission) -> Result<Submitted> {
        let mut tries = 0;
        loop {
            tries += 1;
            let known = if tries == 1 { self.prepare_by_known(submission).await } else { None };
            let (prepared, content) = match known {
                Some(prepared) => prepared,
                None => self.prepare(submission).await?,
            };
            if let Err(refused) = self.keep_to_list(submission).await {
                return self.submitted_before(prepared, refused).await;
            }
            match self.enqueue(&prepared, content).await {
                Ok(Enqueued::New(id)) => {
                    self.wake();
                    self.observe(&Event::Queued { id, outbox: prepared.resolution.outbox });
                    return Ok(Submitted {
                        id,
                        message_id: prepared.message_id,
                        outbox: prepared.resolution.outbox,
                        sender: prepared.resolution.sender,
                        reasons: prepared.resolution.reasons,
                        existing: false,
                    });
                }
                Ok(Enqueued::Existing(id)) => return self.existing(id).await,
                Err(error) if *error.kind() == StoreKind::StaleDecision && tries < DECISIONS => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Lanes that wait for mail are rung when this one is in the store, and once more before, when it is on its way, where their claim
    /// then is in the same commit, or the next.
    async fn enqueue(&self, mail: &Prepared, content: Bytes) -> postroom_storage::Result<Enqueued> {
        let intake: &dyn QueueIntake = self.store();
        let enqueued = intake.enqueue(self.now(), mail, content);
        let tell = || {
            if intake.claims_wait_for_submissions() {
                self.ports.mail.notify_waiters();
            }
        };
        on_its_way(enqueued, tell).await
    }

    /// A mail that was submitted before under the same idempotency key is that mail, whatever came back since. One whose basis is none
    /// that is stored is never inserted, but found when it is there.
    async fn submitted_before(&self, mail: Prepared, refused: Error) -> Result<Submitted> {
        if mail.idempotency.is_none() || !matches!(refused.kind(), ErrorKind::Suppressed(_)) {
            return Err(refused);
        }
        let basis = Basis::new(Revision::new(-1), None, None);
        match self.store().enqueue(self.now(), &Prepared { basis, ..mail }, Bytes::new()).await {
            Ok(Enqueued::Existing(id)) => self.existing(id).await,
            Err(error) if matches!(error.kind(), StoreKind::IdempotencyConflict { .. }) => Err(error.into()),
            _ => Err(refused),
        }
    }

    async fn existing(&self, id: QueueId) -> Result<Submitted> {
        let desk: &dyn QueueDesk = self.store();
        let found = desk
            .show(id)
            .await?
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "read the mail of the key"))?;
        Ok(Submitted {
            id,
            message_id: found.item.message_id,
            outbox: found.item.outbox,
            sender: found.item.sender,
            reasons: found.item.reasons,
            existing: true,
        })
    }

    /// Submits the mail of a step: its template, filled with `values`, to its recipients, through the outbox that its
    /// setup names.
    ///
    /// # Errors
    /// As for [`Postroom::submit`]; [`ErrorKind::Directory`] when a name can't be resolved to addresses now.
    pub async fn notify(
        &self,
        contract: &ContractId,
        step: &StepKey,
        values: Values,
        record: Option<RecordId>,
    ) -> Result<Submitted> {
        let mut submission = Submission::template(contract.clone(), step.clone(), values);
        submission.record = record;
        self.submit(&self.addressed(submission).await?).await
    }

    /// Adds the recipients of a submission's step to it: for a notice that has an idempotency key, an expiry, or further
    /// recipients of its own. [`Postroom::notify`] is this and [`Postroom::submit`].
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such step; [`ErrorKind::Directory`].
    pub async fn addressed(&self, mut submission: Submission) -> Result<Submission> {
        let Some(key) = &submission.step else { return Ok(submission) };
        for recipient in self.step(key).await?.recipients {
            match recipient {
                StepRecipient::Address(address) => submission.to.push(address),
                StepRecipient::Name(name) => {
                    let (contract, record) = (&submission.contract, submission.record.as_ref());
                    let unanswered =
                        |error| Error::new(ErrorKind::Directory, "resolve a recipient").with_source(error);
                    let answer = self.ports.recipients.addresses(contract, &name, record).await;
                    submission.to.extend(answer.map_err(unanswered)?);
                }
            }
        }
        Ok(submission)
    }

    /// Resolves, composes and freezes a mail without putting it into the queue.
    ///
    /// # Errors
    /// As for [`Postroom::submit`], but for what only the insert can find.
    pub async fn prepare(&self, submission: &Submission) -> Result<(Prepared, Bytes)> {
        submission.check()?;
        let links = Arc::new(self.links(&submission.contract, submission.step.as_ref()).await?);
        self.ports.known.keep(&submission.contract, submission.step.as_ref(), &links);
        self.prepare_by(submission, &links).await
    }

    /// The same by the links that were read last, if that comes to an end that the insert asks again in whole: what is held or falls
    /// back depends on boxes that it does not ask about, and a refusal is never inserted.
    async fn prepare_by_known(&self, submission: &Submission) -> Option<(Prepared, Bytes)> {
        submission.check().ok()?;
        let links = self.ports.known.of(&submission.contract, submission.step.as_ref())?;
        let (prepared, content) = self.prepare_by(submission, &links).await.ok()?;
        let resolution = &prepared.resolution;
        let by_fallback = resolution.reasons.iter().any(|reason| matches!(reason, Reason::Fallback { .. }));
        (!resolution.held && !by_fallback).then_some((prepared, content))
    }

    async fn prepare_by(&self, submission: &Submission, links: &Links) -> Result<(Prepared, Bytes)> {
        let now = self.now();
        let resolution = self.decide(links, submission.sender.as_ref())?;
        let outbox = links.mailbox(resolution.outbox)?;
        let parent = match submission.in_reply_to {
            Some(id) => Some(self.parent(&submission.contract, id).await?),
            None => None,
        };
        if let (Some(_), Some(Parent { automatic: Some(sign), .. })) = (submission.automatic, &parent) {
            let sign = sign.clone();
            return Err(Error::new(ErrorKind::AnswersAutomatic { sign }, "submit a mail"));
        }
        let recipients = recipients(submission);
        let id = self.fresh(now, QueueId::new)?;
        let mut mail = Prepared {
            id,
            contract: submission.contract.clone(),
            step: submission.step.clone(),
            basis: Basis::new(
                outbox.revision,
                links.contract.as_ref().map(|contract| contract.revision),
                links.step.as_ref().map(|step| step.revision),
            ),
            message_id: self.new_message_id(&resolution.sender).await?,
            subject: String::new(),
            return_path: match submission.automatic {
                // RFC 3834 section 3.3: nobody can answer an answer, and its bounce would be one.
                Some(Automation::Reply) => None,
                _ => Some(self.return_path(&outbox.settings, &resolution.sender, id).await?),
            },
            automatic: submission.automatic,
            recipients,
            raw: matches!(submission.content, Content::Raw(_)),
            record: submission.record.clone(),
            in_reply_to: submission.in_reply_to,
            priority: submission.priority,
            not_before: submission.not_before,
            expires_at: submission
                .expires_at
                .unwrap_or_else(|| submission.not_before.unwrap_or(now).max(now) + EXPIRY),
            on_doubt: submission.on_doubt,
            on_suppressed: submission.on_suppressed,
            idempotency: submission.idempotency_key.clone().map(|key| (key, submission.fingerprint())),
            resolution,
        };
        let content = match &submission.content {
            Content::Raw(bytes) => freeze_raw(bytes, outbox.settings.max_message(), links, &mut mail)?,
            content => {
                let keys = self.token_keys().await?;
                let active =
                    keys.last().ok_or_else(|| Error::new(ErrorKind::Sealing, "make a thread token"))?;
                freeze(content, submission, links, parent, active, &mut mail, now)?
            }
        };
        check_size(length(&content), outbox.settings.max_message())?;
        Ok((mail, content))
    }

    /// The outbox's return path, with the mail's tag where it asks for one; the sender's address where it names none.
    pub(crate) async fn return_path(
        &self,
        settings: &MailboxSettings,
        sender: &NamedAddress,
        id: QueueId,
    ) -> Result<Address> {
        let Some(path) = settings.outbox().and_then(|outbox| outbox.return_path()) else {
            return Ok(sender.address().clone());
        };
        let keys = self.token_keys().await?;
        let active = keys.last().ok_or_else(|| Error::new(ErrorKind::Sealing, "make a return path"))?;
        Ok(tagged(path, active, id))
    }

    async fn new_message_id(&self, sender: &NamedAddress) -> Result<String> {
        let keys = self.token_keys().await?;
        let active = keys.last().ok_or_else(|| Error::new(ErrorKind::Sealing, "make a Message-ID"))?;
        Ok(message_id(active, random()?, &sender.address().domain()))
    }

    /// The received mail that is answered. Another contract's is not found.
    async fn parent(&self, contract: &ContractId, id: LedgerId) -> Result<Parent> {
        let not_found = || Error::new(ErrorKind::NotFound, "find the mail that is answered");
        let desk: &dyn LedgerDesk = self.store();
        let found = desk.show(id).await?.ok_or_else(not_found)?;
        if found.item.contract.as_ref() != Some(contract) {
            return Err(not_found());
        }
        let mail = match found.body {
            Some(body) => parse(self.read_body(body, Some(found.item.size)).await?),
            None => postroom_core::mail::Mail::default(),
        };
        let message_id = found.item.message_id;
        let references = references_for_answer(&mail.references, &mail.in_reply_to, message_id.as_deref());
        // What retention left of a mail is its row, and the row says it, too.
        let is_sign = |reason: &&String| reason.starts_with("automatic ");
        let row = found.item.reasons.iter().find(is_sign).cloned();
        let automatic = mail.automatic.as_ref().map(ToString::to_string).or(row);
        Ok(Parent { message_id, references, automatic })
    }

    /// The whole content of a mail, of `size` bytes where that is known.
    pub(crate) async fn read_body(&self, id: BodyId, size: Option<u64>) -> Result<Bytes> {
        let bodies: &dyn Bodies = self.store();
        let mut whole = bytes::BytesMut::new();
        let (mut first, mut read) = (None, 0);
        for number in 0.. {
            if size == Some(read) {
                break;
            }
            match bodies.piece(id, number).await? {
                None => break,
                Some(piece) if number == 0 => {
                    read = length(&piece);
                    first = Some(piece);
                }
                Some(piece) => {
                    read += length(&piece);
                    if let Some(first) = first.take() {
                        // One buffer from the start: one that grows is there twice while it is copied.
                        whole.reserve(size.and_then(|size| usize::try_from(size).ok()).unwrap_or(0));
                        whole.extend_from_slice(&first);
                    }
                    whole.extend_from_slice(&piece);
                }
            }
        }
        // Most mails are one piece: it is passed on without a copy.
        Ok(first.unwrap_or_else(|| whole.freeze()))
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// The recipients, each once: the first of To, Cc, Bcc counts.
fn recipients(submission: &Submission) -> Vec<Recipient> {
    let all = [(&submission.to, Role::To), (&submission.cc, Role::Cc), (&submission.bcc, Role::Bcc)];
    let mut recipients: Vec<Recipient> = Vec::new();
    for (address, role) in
        all.into_iter().flat_map(|(list, role)| list.iter().map(move |named| (named.address(), role)))
    {
        if !recipients.iter().any(|other| other.address == *address) {
            recipients.push(Recipient::new(address.clone(), role));
        }
    }
    recipients
}

/// The bytes of a composed mail.
fn freeze(
    content: &Content,
    submission: &Submission,
    links: &Links,
    parent: Option<Parent>,
    key: &TokenKey,
    mail: &mut Prepared,
    now: Timestamp,
) -> Result<Bytes> {
    let (subject, text, html, attachments) = match content {
        Content::Template(values) => {
            let template = links.step.as_ref().and_then(|step| step.template.as_ref());
            let missing = || Error::new(ErrorKind::NotFound, "find the template of the step");
            let Filled { subject, text, html, .. } = template.ok_or_else(missing)?.fill(values)?;
            (subject, Some(text), html, Vec::new())
        }
        Content::Parts { subject, text, html, attachments } => {
            (subject.clone(), text.clone(), html.clone(), attachments.clone())
        }
        _ => return Err(Invalid::new(&rules::CONTENT).into()),
    };
    let (in_reply_to, references) =
        parent.map_or((None, Vec::new()), |parent| (parent.message_id, parent.references));
    mail.subject.clone_from(&subject);
    let subject = tagged_subject(&subject, key, mail.id);
    let reply_to = submission.reply_to.as_ref().map(|named| with_tag(named, key, mail.id)).transpose()?;
    // What the host says of it stands aside.
    let own = submission.automatic.map(Automation::headers).into_iter().flatten();
    let own: Vec<(String, String)> = own.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let is_own = |name: &str| own.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
    let mut headers: Vec<_> = submission.headers.iter().filter(|(name, _)| !is_own(name)).cloned().collect();
    headers.extend(own);
    let composition = Composition {
        from: mail.resolution.sender.clone(),
        reply_to: reply_to.or_else(|| mail.resolution.reply_to.clone()),
        to: submission.to.clone(),
        cc: submission.cc.clone(),
        subject,
        text,
        html,
        attachments,
        headers,
        message_id: mail.message_id.clone(),
        in_reply_to,
        references,
    };
    Ok(compose(&composition, now, random()?)?.into())
}

/// A Reply-To with the mail's tag, where it asks for one as a return path does.
fn with_tag(named: &NamedAddress, key: &TokenKey, id: QueueId) -> Result<NamedAddress> {
    let tagged = NamedAddress::new(tagged(named.address(), key, id));
    Ok(match named.name() {
        Some(name) => tagged.with_name(name)?,
        None => tagged,
    })
}

/// The bytes of a raw mail, as they are; only a Message-ID is put before them where there is none.
fn freeze_raw(bytes: &[u8], limit: u64, links: &Links, mail: &mut Prepared) -> Result<Bytes> {
    let facts = check_raw(bytes, limit)?;
    let outbox = links.outbox(mail.resolution.outbox)?;
    mail.resolution.sender = facts.check_sender(outbox)?.clone();
    mail.subject = facts.subject;
    match facts.message_id {
        Some(message_id) => {
            mail.message_id = message_id;
            Ok(Bytes::copy_from_slice(bytes))
        }
        None => Ok([b"Message-ID: ", mail.message_id.as_bytes(), b"\r\n", bytes].concat().into()),
    }
}

/// Says when a call has been begun and has not ended yet.
async fn on_its_way<F: Future>(call: F, tell: impl FnOnce()) -> F::Output {
    let mut call = pin!(call);
    match poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await {
        Poll::Ready(output) => output,
        Poll::Pending => {
            tell();
            call.await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::task::yield_now;

    use super::*;

    /// Would miss lanes that hear of a mail only when it is committed: their claims would need a commit of their own. How much that is,
    /// `benches/isolation.rs` tells.
    #[tokio::test]
    async fn a_call_is_told_of_between_its_beginning_and_its_end() {
        let log = RefCell::new(Vec::new());
        let note = |what| log.borrow_mut().push(what);
        let call = async {
            note("begun");
            yield_now().await;
            note("ended");
        };
        on_its_way(call, || note("told")).await;
        assert_eq!(log.take(), ["begun", "told", "ended"]);
        on_its_way(async { note("done at once") }, || note("told")).await;
        assert_eq!(log.take(), ["done at once"]);
    }
}
