//! Fetch: what the ledger does not have of a folder is stored with its bytes, sorted and threaded; only then is the server told
//! anything. When an inbox is read, and what follows from a failure, is decided by its watch.

use std::collections::HashSet;
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
    Access, Effect, Error as TransportError, ErrorKind as TransportKind, IncomingSession, Listed, Selected,
};

use crate::charge::Charge;
use crate::collect::{Collected, Collector};
use crate::error::Error;
use crate::event::Event;
use crate::recognise::shown;
use crate::sort::Sorted;
use crate::worker::Worker;

/// How many keys are asked for at once.
const WINDOW: usize = 500;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What a round did.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// Mails that are new in the ledger.
    stored: u32,
    /// Whether the inbox has more than one round may take.
    pub(crate) more: bool,
    /// Whether the session was left in the middle of a mail: what follows is read in another one.
    pub(crate) spent: bool,
    /// The mails that the server was told about.
    pub(crate) told: Vec<LedgerId>,
    /// Without epochs: what the box shows, once there is mail that is not known.
    shown: Option<Arc<HashSet<RemoteKey>>>,
}

/// How much of a folder is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Whatever it has behind the frontier.
    List,
    /// The same, unless the server said on selecting it that there is nothing.
    IfNews,
}

/// Why a round ended early.
pub(crate) enum Broken {
    /// The server or the way to it.
    Server(TransportError),
    /// The store, or a secret.
    Inside(Error),
    /// The lease is not surely held any more.
    Lost,
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

/// A folder that a session has selected.
pub(crate) struct Folder {
    place: Place,
    selected: Selected,
}

impl Folder {
    /// Whether the server keeps what it is told at once, and can tell what is new. Over POP3 it does so at the end, if at all.
    pub(crate) fn is_live(&self) -> bool {
        self.selected.epoch.is_some()
    }
}

/// Who reads an inbox.
pub(crate) struct Reader<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) mailbox: &'a Mailbox,
    pub(crate) charge: &'a Charge,
}

impl Reader<'_> {
    /// Selects the inbox's folder.
    pub(crate) async fn select(
        &self,
        inbox: &Inbox,
        session: &mut dyn IncomingSession,
    ) -> Result<Folder, Broken> {
        let access = if *inbox.after() == AfterStore::Leave { Access::ReadOnly } else { Access::ReadWrite };
        let selected = session.select(inbox.folder(), access).await?;
        let place = Place {
            mailbox: self.mailbox.id,
            folder: inbox.folder().unwrap_or_default().to_owned(),
            epoch: selected.epoch.unwrap_or_default(),
        };
        Ok(Folder { place, selected })
    }

    /// Nothing is written or told that follows from a listing after the lease was lost: another reader may have begun anew.
    fn holds(&self) -> Result<(), Broken> {
        if self.charge.holds() { Ok(()) } else { Err(Broken::Lost) }
    }

    /// Stores what is new and tells the server what is due.
    pub(crate) async fn read(
        &self,
        inbox: &Inbox,
        session: &mut dyn IncomingSession,
        folder: &Folder,
        look: Look,
    ) -> Result<Round, Broken> {
        let mut round = Round::default();
        self.store_new(inbox, session, folder, look, &mut round).await?;
        if !round.spent {
            round.told = self.settle(inbox, session, &folder.place, &round).await?;
        }
        Ok(round)
    }

    async fn store_new(
        &self,
        inbox: &Inbox,
        session: &mut dyn IncomingSession,
        folder: &Folder,
        look: Look,
        round: &mut Round,
    ) -> Result<(), Broken> {
        let place = &folder.place;
        let intake: &dyn LedgerIntake = self.worker.postroom.store();
        let mut after = match intake.contact(place).await? {
            Contact::First => self.first_contact(inbox, session, place).await?,
            Contact::Renumbered => None,
            Contact::Known { frontier }
                if look == Look::IfNews && frontier > 0 && !folder.selected.may_hold_above(frontier) =>
            {
                return Ok(());
            }
            Contact::Known { frontier } => (frontier > 0).then_some(RemoteKey::Uid(frontier)),
        };
        let contracts = self.worker.postroom.store().contracts_of(self.mailbox.id).await?;
        loop {
            let window = session.list(after.as_ref(), WINDOW).await?;
            let Some(last) = window.last().map(|listed| listed.key.clone()) else { break };
            let keys: Vec<RemoteKey> = window.iter().map(|listed| listed.key.clone()).collect();
            let unknown = intake.unknown(place, &keys).await?;
            if !unknown.is_empty() && folder.selected.epoch.is_none() && round.shown.is_none() {
                round.shown = Some(Arc::new(shown(session, WINDOW).await?));
            }
            for listed in window.iter().filter(|listed| unknown.contains(&listed.key)) {
                if round.stored >= inbox.per_round() || self.worker.is_stopping() {
                    round.more = true;
                    return Ok(());
                }
                let whole = self.take(inbox, session, place, listed, &contracts, round).await?;
                if !whole {
                    // The session may have been left in the middle of that mail: the next round goes on behind it.
                    (round.more, round.spent) = (true, true);
                    return Ok(());
                }
            }
            self.holds()?;
            if let RemoteKey::Uid(uid) = last {
                intake.advance(self.worker.postroom.now(), place, uid).await?;
            }
            after = Some(last);
            if window.len() < WINDOW {
                break;
            }
        }
        // A folder that has no UIDs, or no mail, is known from now on too.
        self.holds()?;
        Ok(intake.advance(self.worker.postroom.now(), place, 0).await?)
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
        self.holds()?;
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
        let mut received = self.received(inbox, place, listed, now, id, (&mail, size, sha256, raw), sorting);
        // The first bytes of two large mails may be the same.
        received.shown = round.shown.clone().filter(|_| whole);
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
            shown: None,
            raw,
        }
    }

    /// Tells the server what is due.
    async fn settle(
        &self,
        inbox: &Inbox,
        session: &mut dyn IncomingSession,
        place: &Place,
        round: &Round,
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
        self.holds()?;
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
