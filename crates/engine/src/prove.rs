//! Prove: a mail in doubt is looked for in the Sent folder of its outbox's companion inbox. What is found there was taken by the
//! server, and is accepted; what is not found proves nothing, and is looked for again with growing pauses. Nothing is sent or
//! changed in the box.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use postroom_core::id::{ClaimId, MailboxId, QueueId};
use postroom_core::mailbox::{Mailbox, SentCopy};
use postroom_core::provider::Provider;
use postroom_core::queue::{Event, State};
use postroom_storage::transition::queue::is_reported;
use postroom_storage::{Doubt, HealthBook, QueueDesk, QueueRecord};
use postroom_transport::{Access, Folder, IncomingSession};
use tokio::time::Instant;

use crate::error::Result;
use crate::event::Event as Happened;
use crate::unlock::grant::Locked;
use crate::worker::Worker;

/// What failures say was being done.
const DOING: &str = "look for mail in doubt";
/// How long a mail is not looked for again after it was not found, and after each further time; then the last of them.
const PAUSES: [Duration; 6] = [
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 60 * 60),
    Duration::from_secs(12 * 60 * 60),
];
/// How often doubts are listed that this worker did not make, and how many at a time.
const LOOK: (Duration, u32) = (Duration::from_secs(5), 200);
/// What the folder of sent mail is called where the server does not say which it is (RFC 6154).
const NAMES: [&str; 4] = ["Sent", "Sent Mail", "Sent Items", "Sent Messages"];

/// A mail to look for, and in which folder if the outbox names one.
#[derive(Debug)]
pub(crate) struct Sought {
    id: QueueId,
    outbox: MailboxId,
    message_id: String,
    /// The attempt that left the doubt.
    claim: ClaimId,
    recipients: usize,
    folder: Option<String>,
}

/// Which mails were looked for, and when each is looked for next.
#[derive(Debug, Default)]
pub(crate) struct Proofs {
    seen: BTreeMap<QueueId, (usize, Instant)>,
    /// Where the next listing begins, and what this walk over all doubts has met.
    after: Option<QueueId>,
    met: BTreeSet<QueueId>,
    listed: Option<Instant>,
}

impl Proofs {
    /// The mails in doubt that are to be looked for now, by companion. `busy` says which companions are not free.
    pub(crate) async fn due(
        &mut self,
        worker: &Worker,
        busy: impl Fn(MailboxId) -> bool,
    ) -> Result<BTreeMap<MailboxId, Vec<Sought>>> {
        let is_time = self.listed.is_none_or(|listed| listed.elapsed() >= LOOK.0);
        // What was made is asked first: it is forgotten by that.
        if !worker.has_doubted() && !is_time {
            return Ok(BTreeMap::new());
        }
        self.listed = Some(Instant::now());
        let desk: &dyn QueueDesk = worker.postroom.store();
        let doubts = desk.doubts(self.after.as_ref(), LOOK.1).await?;
        self.walk(&doubts);
        let (mut outboxes, mut sought) = (BTreeMap::new(), BTreeMap::<MailboxId, Vec<Sought>>::new());
        for doubt in doubts {
            if self.seen.get(&doubt.id).is_some_and(|(_, next)| *next > Instant::now()) {
                continue;
            }
            let outbox = match outboxes.get(&doubt.outbox) {
                Some(outbox) => outbox,
                None => {
                    let found = worker.postroom.store().mailbox(doubt.outbox).await?;
                    outboxes.entry(doubt.outbox).or_insert(found)
                }
            };
            let Some((companion, folder)) = outbox.as_ref().and_then(place) else { continue };
            if busy(companion) {
                continue;
            }
            let tries = self.seen.get(&doubt.id).map_or(0, |(tries, _)| *tries);
            let pause = PAUSES[tries.min(PAUSES.len() - 1)];
            self.seen.insert(doubt.id, (tries + 1, Instant::now() + pause));
            if let Some(one) = seek(doubt, folder) {
                sought.entry(companion).or_default().push(one);
            }
        }
        Ok(sought)
    }

    /// Notes a page of the walk over all doubts. What a whole walk did not meet is settled, and forgotten.
    fn walk(&mut self, page: &[Doubt]) {
        self.met.extend(page.iter().map(|doubt| doubt.id));
        let is_last = page.len() < usize::try_from(LOOK.1).unwrap_or(usize::MAX);
        self.after = page.last().map(|doubt| doubt.id).filter(|_| !is_last);
        if is_last {
            let met = std::mem::take(&mut self.met);
            self.seen.retain(|id, _| met.contains(id));
        }
    }
}

/// The companion of an outbox, and the folder that its copies are put into.
fn place(outbox: &Mailbox) -> Option<(MailboxId, Option<String>)> {
    let settings = outbox.settings.outbox()?;
    let folder = match settings.sent_copy() {
        SentCopy::Append(folder) => Some(folder.clone()),
        _ => None,
    };
    Some((settings.companion()?, folder))
}

/// What a find would settle: a doubt of one attempt alone.
fn seek(doubt: Doubt, folder: Option<String>) -> Option<Sought> {
    let Doubt { id, outbox, message_id, recipients } = doubt;
    let (_, claim) = *recipients.first()?;
    let is_one = recipients.iter().all(|(_, other)| *other == claim);
    is_one.then_some(Sought { id, outbox, message_id, claim, recipients: recipients.len(), folder })
}

/// Whether the server took the mail for all recipients in doubt if it took it at all. It did for a single one; and for several
/// when the attempt itself told of each that its RCPT was accepted, by telling of its doubt.
fn is_proof(record: &QueueRecord) -> bool {
    let places = (0..).zip(&record.recipients).filter(|(_, one)| one.state == State::InDoubt);
    let places: Vec<u32> = places.map(|(place, _)| place).collect();
    let told = |place: &u32| {
        let last = record.timeline.iter().rfind(|entry| entry.recipient == Some(*place));
        last.is_some_and(is_reported)
    };
    places.len() == 1 || places.iter().all(told)
}

/// Looks for mails in one companion's folders, over one session as long as it lasts.
pub(crate) async fn prove(worker: Arc<Worker>, companion: MailboxId, sought: Vec<Sought>) {
    let postroom = &worker.postroom;
    let Some(transport) = &postroom.ports.incoming else { return };
    let route = async {
        let companion = postroom.mailbox(companion).await?;
        let has_folders = |provider| matches!(provider, Provider::Imap | Provider::Imaps);
        let inbox = companion.settings.inbox().filter(|inbox| has_folders(inbox.provider()));
        let book: &dyn HealthBook = postroom.store();
        let health = book.health(companion.id).await?;
        if inbox.is_none() || !companion.is_active() || health.rests(postroom.now()) {
            return Ok::<_, Locked>(None);
        }
        postroom.route(&companion).await
    };
    let route = match route.await {
        Ok(Some(route)) => route,
        Ok(None) => return,
        Err(locked) => return worker.is_locked(companion, DOING, locked).await,
    };
    let looked = async {
        let mut session = transport.open(&route).await?;
        let mut selected = None;
        for one in &sought {
            if worker.is_stopping() {
                break;
            }
            let folder = match &one.folder {
                Some(folder) => Some(folder.clone()),
                None => sent_folder(&session.folders().await?),
            };
            let Some(folder) = folder else { continue };
            if selected.as_ref() != Some(&folder) {
                session.select(Some(&folder), Access::ReadOnly).await?;
                selected = Some(folder.clone());
            }
            look(&worker, &mut *session, companion, &folder, one).await?;
        }
        session.close().await;
        Ok::<(), postroom_transport::Error>(())
    };
    if let Err(error) = looked.await
        // With another access token it is looked for the next time.
        && !postroom.asks_anew(&route, &error).await
    {
        worker.fails_doing(companion, DOING, &error).await;
    }
}

/// The folder of sent mail: the one that the server says, else by its name.
fn sent_folder(folders: &[Folder]) -> Option<String> {
    let usable = || folders.iter().filter(|folder| folder.selectable);
    let last = |folder: &&Folder, name: &str| {
        folder.name.rsplit(['/', '.']).next().is_some_and(|last| last.eq_ignore_ascii_case(name))
    };
    let named = || NAMES.iter().find_map(|name| usable().find(|folder| last(folder, name)));
    usable().find(|folder| folder.sent).or_else(named).map(|folder| folder.name.clone())
}

/// Looks for one mail, and accepts it if it is there.
async fn look(
    worker: &Worker,
    session: &mut dyn IncomingSession,
    companion: MailboxId,
    folder: &str,
    one: &Sought,
) -> postroom_transport::Result<()> {
    let desk: &dyn QueueDesk = worker.postroom.store();
    match desk.show(one.id).await {
        Ok(Some(record)) if is_proof(&record) => {}
        Ok(_) => return Ok(()),
        Err(error) => {
            unproved(worker, one, error);
            return Ok(());
        }
    }
    if session.find(&one.message_id).await?.is_empty() {
        return Ok(());
    }
    let detail = format!("found in folder {folder} of inbox {companion}: {}", one.message_id);
    match desk.prove(worker.postroom.now(), one.id, one.claim, &detail).await {
        Ok(true) => {
            let (id, outbox, results) = (one.id, one.outbox, vec![Event::Accept; one.recipients]);
            worker.postroom.observe(&Happened::Sent { id, outbox, results });
        }
        // Somebody has settled it meanwhile.
        Ok(false) => {}
        Err(error) => unproved(worker, one, error),
    }
    Ok(())
}

fn unproved(worker: &Worker, one: &Sought, error: postroom_storage::Error) {
    if let Some(error) = worker.not_everybodys(error) {
        tracing::warn!(target: "postroom", "mail {} stays in doubt: {error}", one.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_says_which_folder_has_what_was_sent_or_its_name_does() {
        let folder = |name: &str| Folder::new(name, true);
        let check =
            |folders: &[Folder], want: Option<&str>| assert_eq!(sent_folder(folders).as_deref(), want);
        check(&[folder("INBOX"), folder("Sent"), folder("Enviados").with_sent()], Some("Enviados"));
        check(&[folder("INBOX"), folder("Sent Items"), folder("INBOX.Sent")], Some("INBOX.Sent"));
        check(&[folder("[Gmail]/Sent Mail")], Some("[Gmail]/Sent Mail"));
        check(&[folder("INBOX"), folder("Absent"), Folder::new("Sent", false)], None);
    }
}
