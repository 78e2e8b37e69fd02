//! Fetch: one round over one inbox. What the ledger does not have is stored with its bytes, sorted and threaded; only then
//! is the server told anything.

use std::sync::Arc;
use std::time::Duration;

use postroom_core::contract::Contract;
use postroom_core::id::LedgerId;
use postroom_core::ledger::{Place, RemoteKey, State};
use postroom_core::mail::Mail;
use postroom_core::mailbox::{AfterStore, Baseline, Inbox, Mailbox};
use postroom_core::mime::parse;
use postroom_core::time::Timestamp;
use postroom_storage::{Contact, LedgerIntake, RawMail, Received, Stored};
use postroom_transport::{
    Access, CloseReport, Effect, Error as TransportError, ErrorKind as TransportKind, IncomingSession, Listed,
};

use crate::collect::{Collected, Collector};
use crate::error::Error;
use crate::error::said;
use crate::event::Event;
use crate::sort::Sorted;
use crate::worker::Worker;

/// How many keys are asked for at once.
const WINDOW: usize = 500;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What a round did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Round {
    /// Mails that are new in the ledger.
    pub(crate) stored: u32,
    /// Whether the inbox has more than one round may take.
    pub(crate) more: bool,
}

/// Why a round ended early.
enum Broken {
    /// The server or the way to it.
    Server(TransportError),
    /// The store, or a secret.
    Inside(Error),
}

impl From<TransportError> for Broken {
    fn from(error: TransportError) -> Self {
        Self::Server(error)
    }
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self::Inside(error)
    }
}

impl From<postroom_storage::Error> for Broken {
    fn from(error: postroom_storage::Error) -> Self {
        Self::Inside(error.into())
    }
}

/// Reads an inbox once.
pub(crate) async fn fetch(worker: Arc<Worker>, mailbox: Mailbox) -> Round {
    let id = mailbox.id;
    let mut round = Round::default();
    let reader = Reader { worker: &worker, mailbox: &mailbox };
    match reader.read(&mut round).await {
        Ok(()) => worker.works(id).await,
        Err(Broken::Server(error)) => worker.fails(id, error.failure(), said(&error)).await,
        Err(Broken::Inside(error)) if matches!(error.kind(), crate::ErrorKind::Sealing) => {
            worker.fails(id, error.failure(), error.to_string()).await;
        }
        Err(Broken::Inside(error)) => worker.store_failed(&error),
    }
    round
}

struct Reader<'a> {
    worker: &'a Worker,
    mailbox: &'a Mailbox,
}

impl Reader<'_> {
    async fn read(&self, round: &mut Round) -> Result<(), Broken> {
        let postroom = &self.worker.postroom;
        let (Some(inbox), Some(transport)) = (self.mailbox.settings.inbox(), &postroom.ports.incoming) else {
            return Ok(());
        };
        let route = postroom.route(self.mailbox).await?;
        let mut session = transport.open(&route).await?;
        let read = self.read_folder(inbox, &mut *session, round).await;
        let told = match read {
            Ok(told) => told,
            Err(broken) => {
                // Nothing was settled that could be lost; a broken session ends by itself.
                session.close().await;
                return Err(broken);
            }
        };
        match session.close().await {
            CloseReport::Kept => {
                let intake: &dyn LedgerIntake = postroom.store();
                Ok(intake.settled(postroom.now(), &told).await?)
            }
            CloseReport::Lost(error) => Err(error.into()),
        }
    }

    /// Stores what is new and tells the server what is due; gives the mails that it was told about.
    async fn read_folder(
        &self,
        inbox: &Inbox,
        session: &mut dyn IncomingSession,
        round: &mut Round,
    ) -> Result<Vec<LedgerId>, Broken> {
        let access = if *inbox.after() == AfterStore::Leave { Access::ReadOnly } else { Access::ReadWrite };
        let selected = session.select(inbox.folder(), access).await?;
        let place = Place {
            mailbox: self.mailbox.id,
            folder: inbox.folder().unwrap_or_default().to_owned(),
            epoch: selected.epoch.unwrap_or_default(),
        };
        let intake: &dyn LedgerIntake = self.worker.postroom.store();
        let mut after = match intake.contact(&place).await? {
            Contact::First => self.first_contact(inbox, session, &place).await?,
            Contact::Renumbered => None,
            Contact::Known { frontier } => (frontier > 0).then_some(RemoteKey::Uid(frontier)),
        };
        let contracts = self.worker.postroom.store().contracts_of(self.mailbox.id).await?;
        loop {
            let window = session.list(after.as_ref(), WINDOW).await?;
            let Some(last) = window.last().map(|listed| listed.key.clone()) else { break };
            let keys: Vec<RemoteKey> = window.iter().map(|listed| listed.key.clone()).collect();
            let unknown = intake.unknown(&place, &keys).await?;
            for listed in window.iter().filter(|listed| unknown.contains(&listed.key)) {
                if round.stored >= inbox.per_round() || self.worker.is_stopping() {
                    round.more = true;
                    return self.settle(inbox, session, &place, *round).await;
                }
                let whole = self.take(inbox, session, &place, listed, &contracts, round).await?;
                if !whole {
                    // The session may have been left in the middle of that mail: the next round goes on behind it.
                    round.more = true;
                    return Ok(Vec::new());
                }
            }
            if let RemoteKey::Uid(uid) = last {
                intake.advance(self.worker.postroom.now(), &place, uid).await?;
            }
            after = Some(last);
            if window.len() < WINDOW {
                break;
            }
        }
        // A folder that has no UIDs, or no mail, is known from now on too.
        intake.advance(self.worker.postroom.now(), &place, 0).await?;
        self.settle(inbox, session, &place, *round).await
    }

    /// Leaves out what the baseline leaves out; gives the key behind which mail counts.
    async fn first_contact(
        &self,
        inbox: &Inbox,
        session: &mut dyn IncomingSession,
        place: &Place,
    ) -> Result<Option<RemoteKey>, Broken> {
        let intake: &dyn LedgerIntake = self.worker.postroom.store();
        let now = self.worker.postroom.now();
        let since = match inbox.baseline() {
            Baseline::New => None,
            Baseline::Days(days) => Some(now - DAY * days),
            // Everything counts, and whatever a later release may add counts rather than being lost.
            _ => return Ok(None),
        };
        let mut after = None;
        let mut old = Vec::new();
        loop {
            let window = session.list(after.as_ref(), WINDOW).await?;
            // Without an arrival date (POP3) only the mail itself tells how old it is: it is fetched and then decided.
            let is_old = |listed: &&Listed| match since {
                None => true,
                Some(since) => listed.arrived.is_some_and(|arrived| arrived < since),
            };
            old.extend(window.iter().filter(is_old).map(|listed| listed.key.clone()));
            after = window.last().map(|listed| listed.key.clone()).or(after);
            if window.len() < WINDOW {
                break;
            }
        }
        match (since, &after) {
            // One number says it all, in one write: a kill in between can't move the baseline.
            (None, Some(RemoteKey::Uid(uid))) => intake.advance(now, place, *uid).await?,
            _ => intake.skip(now, place, &old).await?,
        }
        Ok(after.filter(|_| since.is_none()))
    }

    /// Fetches one mail and stores it; gives whether it could be fetched whole.
    async fn take(
        &self,
        inbox: &Inbox,
        session: &mut dyn IncomingSession,
        place: &Place,
        listed: &Listed,
        contracts: &[Contract],
        round: &mut Round,
    ) -> Result<bool, Broken> {
        let postroom = &self.worker.postroom;
        let now = postroom.now();
        let mut collector = Collector::new(postroom.store(), now);
        let limit = self.mailbox.settings.max_message();
        let fetched = session.fetch(&listed.key, limit, &mut collector).await;
        if let Some(error) = collector.failure() {
            return Err(error.into());
        }
        let whole = match fetched {
            Ok(()) => true,
            // Somebody took it away between the listing and the fetch: there is nothing to lose.
            Err(error) if error.kind() == TransportKind::Gone => return Ok(true),
            Err(error) if error.kind() == TransportKind::TooLarge => false,
            Err(error) => return Err(error.into()),
        };
        let Collected { head, size, sha256, raw } = collector.finish().await?;
        let mail = parse(head);
        let mut sorting = postroom.sorted(&mail, contracts).await?;
        if !whole {
            sorting.state = State::Dead;
            sorting.reasons.push(format!("larger than the inbox takes ({limit} bytes)"));
        }
        let id = postroom.fresh(now, LedgerId::new)?;
        let received = self.received(inbox, place, listed, now, id, (&mail, size, sha256, raw), sorting);
        let (mailbox, contract, state) = (self.mailbox.id, received.contract.clone(), received.state);
        let intake: &dyn LedgerIntake = postroom.store();
        if let Stored::New(id) = intake.store(now, &received).await? {
            round.stored += 1;
            postroom.observe(&Event::Stored { id, mailbox, contract, state });
            postroom.ports.bell.notify_one();
        }
        Ok(whole)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one row")]
    fn received(
        &self,
        inbox: &Inbox,
        place: &Place,
        listed: &Listed,
        now: Timestamp,
        id: LedgerId,
        (mail, size, sha256, raw): (&Mail, u64, [u8; 32], RawMail),
        sorting: Sorted,
    ) -> Received {
        let mut state = sorting.state;
        let mut reasons = sorting.reasons;
        let old = match inbox.baseline() {
            Baseline::Days(days) if listed.arrived.is_none() => {
                mail.date.is_some_and(|date| date < now - DAY * days)
            }
            _ => false,
        };
        if old && state == State::Stored {
            state = State::Ignored;
            reasons.push("baseline".to_owned());
        }
        let safe = !matches!(state, State::Dead | State::Ignored);
        Received {
            id,
            place: place.clone(),
            key: listed.key.clone(),
            sha256,
            size,
            arrived: listed.arrived,
            state,
            contract: sorting.contract,
            reasons,
            record: sorting.record,
            message_id: mail.message_id.clone(),
            sender: mail.from.first().map(ToString::to_string).unwrap_or_default(),
            subject: mail.subject.clone(),
            settle_at: if safe { settle_at(inbox.after(), now) } else { None },
            raw,
        }
    }

    /// Tells the server what is due.
    async fn settle(
        &self,
        inbox: &Inbox,
        session: &mut dyn IncomingSession,
        place: &Place,
        round: Round,
    ) -> Result<Vec<LedgerId>, Broken> {
        let Some(effect) = effect(inbox.after()) else { return Ok(Vec::new()) };
        let intake: &dyn LedgerIntake = self.worker.postroom.store();
        let mut due = intake.unsettled(self.worker.postroom.now(), place, inbox.per_round()).await?;
        if round.more {
            // Without unique ids, equal mails are told apart by their order only: as long as one may be unread, none goes.
            due.retain(|mail| !matches!(mail.key, RemoteKey::Content(..)));
        }
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let effects: Vec<_> = due.iter().map(|mail| (mail.key.clone(), effect.clone())).collect();
        session.settle(&effects).await?;
        Ok(due.into_iter().map(|mail| mail.id).collect())
    }
}

fn settle_at(after: &AfterStore, now: Timestamp) -> Option<Timestamp> {
    match after {
        AfterStore::DeleteAfterDays(days) => Some(now + DAY * *days),
        AfterStore::Seen | AfterStore::Delete | AfterStore::Move(_) => Some(now),
        _ => None,
    }
}

fn effect(after: &AfterStore) -> Option<Effect> {
    match after {
        AfterStore::Seen => Some(Effect::Seen),
        AfterStore::Delete | AfterStore::DeleteAfterDays(_) => Some(Effect::Delete),
        AfterStore::Move(folder) => Some(Effect::Move(folder.clone())),
        _ => None,
    }
}
