//! Fetch: what the ledger does not have of a folder is fetched, and stored by `intake`; only then is the server told anything. When an inbox is read, and what follows from a failure, is decided by its watch.

use std::collections::BTreeSet;
use std::pin::pin;
use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

use postroom_core::contract::Contract;
use postroom_core::id::LedgerId;
use postroom_core::ledger::{Place, RemoteKey};
use postroom_core::mailbox::{AfterStore, Baseline, Inbox, Mailbox};
use postroom_core::time::Timestamp;
use postroom_storage::{Contact, LedgerIntake, LeftOut, Reached, Told};
use postroom_transport::{
    Access, Effect, Error as TransportError, ErrorKind as TransportKind, IncomingSession, Listed, Selected,
};
use tokio::sync::mpsc::channel;

use crate::charge::Charge;
use crate::collect::Collector;
use crate::error::Error;
use crate::recognise::{Undecided, is_set_back, shown};
use crate::unlock::grant::Locked;
use crate::worker::Worker;

/// How many keys are asked for at once.
const WINDOW: usize = 500;

/// How many mails, and bytes of mails by what the server says, one call asks for.
const CALL: usize = 500;
const CALL_BYTES: u64 = 4 << 20;

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What a round did.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// Whether the inbox has more than one round may take.
    pub(crate) more: bool,
    /// What is there and was not given; the others were read.
    missing: BTreeSet<RemoteKey>,
    /// Whether the session ended over one of these, after everything else.
    pub(crate) is_broken: bool,
    /// The mails that the server was told about.
    pub(crate) told: Vec<LedgerId>,
    /// Why the server does not do what it was told; what was stored is.
    pub(crate) unsettled: Option<TransportError>,
}

/// What a round tells the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tell {
    Due,
    /// Nothing yet: it has refused that a moment ago.
    Nothing,
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
    /// The inbox has other settings by now, or another access token: it is read anew, by these.
    Outdated,
}

impl From<TransportError> for Broken {
    fn from(error: TransportError) -> Self {
        Self::Server(error)
    }
}

impl From<Locked> for Broken {
    fn from(locked: Locked) -> Self {
        match locked {
            Locked::Inside(error) => Self::Inside(error),
            Locked::Provider(error) => Self::Server(error),
        }
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

/// One pass over what is new in a folder.
pub(crate) struct Pass<'a> {
    pub(crate) inbox: &'a Inbox,
    pub(crate) place: &'a Place,
    pub(crate) contracts: &'a [Contract],
    /// Of a folder that was renumbered: what had arrived by then was accounted for under other numbers.
    pub(crate) since: Option<Timestamp>,
    /// Of a first pass: what has no arrival date and is dated before is left out.
    pub(crate) baseline: Option<Timestamp>,
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
            epoch: selected.epoch.map_or(0, u64::from),
        };
        let place =
            if selected.epoch.is_some() { self.numbered(session, place, &selected).await? } else { place };
        Ok(Folder { place, selected })
    }

    /// The place under the epoch that its UIDs are of now. Asked when a folder is selected, and then only: UIDNEXT is of that moment.
    async fn numbered(
        &self,
        session: &mut dyn IncomingSession,
        place: Place,
        selected: &Selected,
    ) -> Result<Place, Broken> {
        let intake: &dyn LedgerIntake = self.worker.postroom.store();
        let place = intake.latest(&place).await?;
        let frontier = match intake.contact(&place).await? {
            Contact::First => 0,
            Contact::Known { frontier }
            | Contact::FirstPass { frontier, .. }
            | Contact::Renumbered { frontier, .. } => frontier,
        };
        if !is_set_back(session, selected.uid_next, frontier).await? {
            return Ok(place);
        }
        // Before anything else: by the next look at it new mail may have taken all of the old numbers.
        let place = place.set_back();
        self.holds()?;
        intake.advance(&place, Reached::UpTo(0)).await?;
        Ok(place)
    }

    /// Nothing is written or told that follows from a listing after the lease was lost: another reader may have begun anew.
    pub(crate) fn holds(&self) -> Result<(), Broken> {
        if self.charge.holds() { Ok(()) } else { Err(Broken::Lost) }
    }

    /// Stores what is new and tells the server what is due.
    pub(crate) async fn read(
        &self,
        inbox: &Inbox,
        session: &mut dyn IncomingSession,
        folder: &Folder,
        look: Look,
        tell: Tell,
    ) -> Result<Round, Broken> {
        let mut round = self.store_new(inbox, session, folder, look).await?;
        if round.is_broken || tell == Tell::Nothing {
            return Ok(round);
        }
        match self.settle(inbox, session, &folder.place, &round).await {
            Ok(told) => round.told = told,
            Err(Broken::Server(error)) if is_refusal(&error) => round.unsettled = Some(error),
            Err(broken) => return Err(broken),
        }
        Ok(round)
    }

    /// Fetches what is new and stores it, both at once: while some mails are committed the next ones come.
    async fn store_new(
        &self,
        inbox: &Inbox,
        session: &mut dyn IncomingSession,
        folder: &Folder,
        look: Look,
    ) -> Result<Round, Broken> {
        let place = &folder.place;
        let intake: &dyn LedgerIntake = self.worker.postroom.store();
        let begun = self.worker.postroom.now();
        let behind = |frontier: u32| (frontier > 0).then_some(RemoteKey::Uid(frontier));
        let (after, since, baseline) = match intake.contact(place).await? {
            Contact::First => {
                let (after, baseline) = self.first_contact(inbox, session, place, begun).await?;
                (after, None, baseline)
            }
            Contact::FirstPass { frontier, since } => (behind(frontier), None, Some(since)),
            Contact::Renumbered { frontier, since } => (behind(frontier), Some(since), None),
            Contact::Known { frontier }
                if look == Look::IfNews && frontier > 0 && !folder.selected.may_hold_above(frontier) =>
            {
                return Ok(Round::default());
            }
            Contact::Known { frontier } => (behind(frontier), None, None),
        };
        let contracts = self.worker.postroom.store().contracts_of(self.mailbox.id).await?;
        let pass = Pass { inbox, place, contracts: &contracts, since, baseline };
        // What it keeps is gone before the store is waited for: hundreds may wait there after a start.
        let fetching = Box::pin(self.fetch_and_store(&pass, session, folder, after));
        let (mut round, undecided) = fetching.await?;
        if !undecided.is_empty() && !round.is_broken {
            let decided = undecided.ask(session).await?;
            self.holds()?;
            self.store(decided).await?;
            // The question was a listing, too: what came meanwhile is looked for once more.
            round.more = true;
        }
        // A folder that has no UIDs, or no mail, is known from now on too.
        if !round.more {
            self.holds()?;
            let reached = if round.missing.is_empty() { Reached::Whole(begun) } else { Reached::UpTo(0) };
            intake.advance(place, reached).await?;
        }
        Ok(round)
    }

    async fn fetch_and_store(
        &self,
        pass: &Pass<'_>,
        session: &mut dyn IncomingSession,
        folder: &Folder,
        after: Option<RemoteKey>,
    ) -> Result<(Round, Undecided), Broken> {
        let (sender, arrivals) = channel(1);
        let collector = Collector::new(&self.worker.postroom, sender);
        let mut storing = pin!(self.store_all(pass, arrivals));
        let mut fetching = pin!(self.fetch_new(pass.inbox, session, folder, after, collector));
        tokio::select! {
            biased;
            // It ends by itself when nothing more comes; before, because it failed.
            stored = &mut storing => {
                let undecided = stored?;
                Ok((fetching.await?, undecided))
            }
            fetched = &mut fetching => {
                // However the server failed, what came whole is kept.
                let undecided = storing.await?;
                Ok((fetched?, undecided))
            }
        }
    }

    /// Fetches what the ledger does not have, in windows, and hands it to `collector`.
    async fn fetch_new(
        &self,
        inbox: &Inbox,
        session: &mut dyn IncomingSession,
        folder: &Folder,
        mut after: Option<RemoteKey>,
        mut collector: Collector<'_>,
    ) -> Result<Round, Broken> {
        let intake: &dyn LedgerIntake = self.worker.postroom.store();
        let mut room = usize::try_from(inbox.per_round()).unwrap_or(usize::MAX);
        let mut round = Round::default();
        let (place, withheld) = (&folder.place, &self.worker.withheld);
        let mut last_of_all = Vec::new();
        'windows: loop {
            let mut window = session.list(after.as_ref(), WINDOW).await?;
            let is_last = window.len() < WINDOW;
            let Some(last) = window.last().map(|listed| listed.key.clone()) else { break };
            let keys: Vec<RemoteKey> = window.iter().map(|listed| listed.key.clone()).collect();
            let unknown: BTreeSet<RemoteKey> = intake.unknown(place, &keys).await?.into_iter().collect();
            if !unknown.is_empty() && folder.selected.epoch.is_none() && !collector.knows_box() {
                collector.shows(Arc::new(shown(session, WINDOW).await?));
            }
            window.retain(|listed| unknown.contains(&listed.key));
            let (known, new): (Vec<_>, Vec<_>) =
                window.into_iter().partition(|listed| withheld.has(place, &listed.key));
            round.missing.extend(known.iter().map(|listed| listed.key.clone()));
            last_of_all.extend(known);
            let mut rest = new.as_slice();
            while !rest.is_empty() {
                if room == 0 || self.worker.is_stopping() {
                    round.more = true;
                    break 'windows;
                }
                let most = if withheld.is_one_by_one(place) { 1 } else { at_once(rest) };
                let (some, later) = rest.split_at(most.min(room));
                let asked = self.ask(session, place, some, &mut collector).await?;
                if let Some(error) = asked.ended {
                    return Err(error.into());
                }
                // What is refused takes no room: it would hold up what comes behind it.
                (rest, room) = (later, room - (some.len() - asked.refused.len()));
                round.missing.extend(asked.refused);
            }
            // What the server does not give is asked for again.
            if let (RemoteKey::Uid(uid), true) = (&last, round.missing.is_empty())
                && !collector.reached(*uid).await
            {
                return Ok(round);
            }
            after = Some(last);
            if is_last {
                break;
            }
        }
        if round.more {
            return Ok(round);
        }
        // These are gone, or a session has asked for each mail without an end.
        withheld.passed(place, &round.missing);
        for listed in last_of_all {
            if self.worker.is_stopping() || !withheld.is_due(place, &listed.key, self.worker.postroom.now()) {
                continue;
            }
            let asked = self.ask(session, place, from_ref(&listed), &mut collector).await?;
            if asked.ended.is_some() {
                round.is_broken = true;
                break;
            }
            if asked.refused.is_empty() {
                withheld.forget(place, &listed.key);
                round.missing.remove(&listed.key);
            }
        }
        Ok(round)
    }

    /// Leaves out what the baseline leaves out; gives the key behind which mail counts, and since when, where only the mail itself tells.
    async fn first_contact(
        &self,
        inbox: &Inbox,
        session: &mut dyn IncomingSession,
        place: &Place,
        now: Timestamp,
    ) -> Result<(Option<RemoteKey>, Option<Timestamp>), Broken> {
        let since = match inbox.baseline() {
            Baseline::New => None,
            Baseline::Days(days) => Some(now - DAY * days),
            // Everything counts, and whatever a later release may add counts rather than being lost.
            _ => return Ok((None, None)),
        };
        let mut after = None;
        let mut keys = Vec::new();
        let mut has_undated = false;
        loop {
            let window = session.list(after.as_ref(), WINDOW).await?;
            // Without an arrival date (POP3) only the mail itself tells how old it is: it is fetched and then decided.
            let is_old = |listed: &&Listed| match since {
                // One number says it all, without a row for each.
                None => !matches!(listed.key, RemoteKey::Uid(_)),
                Some(since) => listed.arrived.is_some_and(|arrived| arrived < since),
            };
            has_undated |= since.is_some() && window.iter().any(|listed| listed.arrived.is_none());
            keys.extend(window.iter().filter(is_old).map(|listed| listed.key.clone()));
            after = window.last().map(|listed| listed.key.clone()).or(after);
            if window.len() < WINDOW {
                break;
            }
        }
        self.holds()?;
        let after = after.filter(|_| since.is_none());
        let up_to = if let Some(RemoteKey::Uid(uid)) = after { uid } else { 0 };
        // In one write: a kill in between can't move the baseline.
        let left_out = LeftOut {
            revision: self.mailbox.revision,
            until: since.unwrap_or(now),
            has_undated,
            up_to,
            keys,
        };
        let intake: &dyn LedgerIntake = self.worker.postroom.store();
        if intake.skip(now, place, &left_out).await? {
            Ok((after, since.filter(|_| has_undated)))
        } else {
            Err(Broken::Outdated)
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
        if round.more || !round.missing.is_empty() {
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

/// How many of the first of these mails are asked for by one call: a stop waits for no more than that.
fn at_once(mails: &[Listed]) -> usize {
    let mut bytes: u64 = 0;
    let small = mails.iter().take(CALL).take_while(|listed| {
        bytes = bytes.saturating_add(listed.size);
        bytes <= CALL_BYTES
    });
    small.count().max(1)
}

/// Whether a server did not want to do what it was told. That ends no reading; where it ends the session, the next command says so.
fn is_refusal(error: &TransportError) -> bool {
    matches!(
        error.kind(),
        TransportKind::FolderMissing
            | TransportKind::Refused
            | TransportKind::Deferred
            | TransportKind::Throttled
            | TransportKind::InUse
            | TransportKind::Unsupported
            | TransportKind::TooLarge
    )
}

/// What an inbox has its server told, as the ledger keeps it.
pub(crate) fn told(after: &AfterStore) -> Told {
    if *after == AfterStore::Seen { Told::Keep } else { Told::TakeAway }
}

fn effect(after: &AfterStore) -> Option<Effect> {
    match after {
        AfterStore::Seen => Some(Effect::Seen),
        AfterStore::Delete | AfterStore::DeleteAfterDays(_) => Some(Effect::Delete),
        AfterStore::Move(folder) => Some(Effect::Move(folder.clone())),
        _ => None,
    }
}
