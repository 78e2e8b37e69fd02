//! Watch: one inbox, for as long as this process has its lease. It is read, and then news is waited for by IDLE, or it is read
//! again from time to time. A failure is recorded and ends the watch: who reads the inbox next, and when, the store says.

use std::sync::Arc;
use std::time::Duration;

use postroom_core::failure::Failure;
use postroom_core::governor::rest;
use postroom_core::id::{LedgerId, Revision};
use postroom_core::mailbox::{Kind, Mailbox, Status};
use postroom_storage::{HealthBook, LedgerIntake, Mailboxes, Told, Way};
use postroom_transport::{
    CloseReport, Error as TransportError, ErrorKind as TransportKind, Hint, IncomingSession,
    IncomingTransport, Stage,
};
use tokio::time::Instant;

use crate::charge::Charge;
use crate::error::said;
use crate::fetch::{Broken, Folder, Look, Reader, Tell, told};
use crate::pace::Seat;
use crate::postroom::{Postroom, random};
use crate::worker::Worker;

/// What lived for so long works: only then are the failures before it forgotten. A server that lets everybody in and drops them
/// would be dialled again and again.
const SURVIVAL: Duration = Duration::from_secs(60);

/// Servers whose UIDNEXT stands still are listed all the same so often.
const LIST: Duration = Duration::from_secs(60 * 60);

/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(10);

/// For how long an inbox is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// Until the watch is to end.
    Ended,
    /// Until everything that is there was read.
    Read,
}

/// How a watch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watched {
    /// It was read, or could not be.
    Done,
    /// It was to end before, or had lost its lease: whoever takes it next reads it anew.
    Ended,
}

/// How a visit ended, if not by a failure.
enum Visit {
    /// The next one follows after so long.
    Again(Duration),
    /// None follows.
    Over,
}

/// A session and what it was opened for.
struct Stay {
    session: Box<dyn IncomingSession>,
    seat: Seat,
    folder: Folder,
    /// By which settings it was opened.
    revision: Revision,
    /// These settings, until the first reading: they are read anew for each, as 10,000 inboxes that idle are 10,000 times what each
    /// keeps.
    mailbox: Option<Box<Mailbox>>,
    opened: Instant,
    /// What a server was told that keeps it at the end, if at all.
    told: Vec<LedgerId>,
    /// Whether its success is to be recorded only once it has survived.
    on_trial: bool,
}

/// What a watch knows beyond one session.
#[derive(Default)]
struct Memory {
    /// When the folder was listed last.
    listed: Option<Instant>,
    /// What the server refuses to be told, while the inbox is read all the same.
    unsettled: Option<Box<Unsettled>>,
}

/// A server that refuses what it is told is asked again after ever longer rests.
struct Unsettled {
    until: Instant,
    times: u32,
    error: String,
}

impl Memory {
    fn tell(&self) -> Tell {
        let rests = self.unsettled.as_ref().is_some_and(|unsettled| Instant::now() < unsettled.until);
        if rests { Tell::Nothing } else { Tell::Due }
    }

    /// The server was told what was due, or refused to be.
    fn told(&mut self, refusal: Option<&TransportError>) {
        let times = self.unsettled.as_ref().map_or(0, |unsettled| unsettled.times + 1);
        self.unsettled = refusal.map(|error| {
            let asked = if let Failure::RetryAfter(asked) = error.failure() { asked } else { None };
            let seed = random().map(u64::from_be_bytes).unwrap_or_default();
            Box::new(Unsettled {
                until: Instant::now() + rest(times, asked, seed),
                times,
                error: said(error),
            })
        });
    }

    /// Records that the inbox works, but for that, or for a mail that its server does not give.
    async fn works(&self, worker: &Worker, charge: &Charge) {
        let mailbox = charge.lease.mailbox;
        let unsettled = self.unsettled.as_ref().map(|unsettled| unsettled.error.clone());
        match unsettled.or_else(|| worker.withheld.trouble(mailbox)) {
            None => worker.works(mailbox).await,
            Some(error) => worker.works_but(mailbox, &error).await,
        }
    }
}

/// Watches an inbox.
pub(crate) async fn watch(worker: Arc<Worker>, charge: Arc<Charge>, until: Until) -> Watched {
    let mut memory = Memory::default();
    while !charge.is_ending() {
        let visit = visit(&worker, &charge, until, &mut memory).await;
        match visit {
            Ok(Visit::Again(after)) => {
                let _ = Box::pin(tokio::time::timeout(after, charge.ended())).await;
            }
            Ok(Visit::Over) if !charge.is_ending() => return Watched::Done,
            Ok(Visit::Over) | Err(Broken::Lost) => break,
            Err(Broken::Outdated) => {}
            Err(broken) => {
                Box::pin(fails(&worker, &charge, broken)).await;
                return Watched::Done;
            }
        }
    }
    Watched::Ended
}

/// Records a failure.
async fn fails(worker: &Worker, charge: &Charge, broken: Broken) {
    let id = charge.lease.mailbox;
    match broken {
        Broken::Server(error) if error.kind() == TransportKind::SignInRefused => {
            worker.is_refused(id, said(&error)).await;
        }
        Broken::Server(error) => worker.fails(id, error.failure(), said(&error)).await,
        Broken::Inside(error) => {
            let Some(error) = worker.not_everybodys(error) else { return };
            // A row that can't be read now may be mended; a key that is missing is given with a restart.
            let is_sealed = matches!(error.kind(), crate::ErrorKind::Sealing);
            let failure = if is_sealed { Failure::Suspend } else { Failure::RetryAfter(None) };
            worker.fails(id, failure, error.to_string()).await;
        }
        Broken::Lost | Broken::Outdated => {}
    }
}

/// The inbox as it is registered now; none when it is not to be read.
async fn registered(worker: &Worker, charge: &Charge) -> Result<Option<Mailbox>, Broken> {
    let mailbox = Mailboxes::mailbox(worker.postroom.store(), charge.lease.mailbox).await?;
    let is_read = |one: &Mailbox| one.status == Status::Active && one.settings.kind() == Kind::Inbox;
    Ok(mailbox.filter(is_read))
}

/// One session, from the connection to its end.
async fn visit(worker: &Worker, charge: &Charge, until: Until, memory: &mut Memory) -> Result<Visit, Broken> {
    // What a watch keeps is small while it idles, and while it waits for its turn: everything else lives in boxes that come behind it or
    // are dropped before. Thousands may wait for one host.
    let Some(mut stay) = Box::pin(open(worker, charge)).await? else { return Ok(Visit::Over) };
    let stayed = reside(worker, charge, until, memory, &mut stay).await;
    Box::pin(leave(worker, charge, memory, stay, stayed)).await
}

/// Closes the session, and records what its server keeps at the end only.
async fn leave(
    worker: &Worker,
    charge: &Charge,
    memory: &Memory,
    stay: Stay,
    stayed: Result<Visit, Broken>,
) -> Result<Visit, Broken> {
    let closed = tokio::time::timeout(FAREWELL, stay.session.close()).await;
    // What ended early settled nothing that could be lost.
    let visit = stayed?;
    if let Ok(CloseReport::Lost(error)) = closed {
        return Err(error.into());
    }
    if closed.is_ok() {
        // Over POP3 it can be told nothing else.
        kept(worker, &stay.told, Told::TakeAway).await?;
    }
    // A polite end is a survival, too.
    if stay.on_trial && !stay.folder.is_live() {
        memory.works(worker, charge).await;
    }
    Ok(visit)
}

/// Records what the server was told, once it is known that it keeps it.
async fn kept(worker: &Worker, ids: &[LedgerId], told: Told) -> Result<(), Broken> {
    if ids.is_empty() {
        return Ok(());
    }
    let intake: &dyn LedgerIntake = worker.postroom.store();
    Ok(intake.settled(worker.postroom.now(), ids, told).await?)
}

/// Opens a session when it is its turn; none when the watch is to end before.
async fn open(worker: &Worker, charge: &Charge) -> Result<Option<Stay>, Broken> {
    let postroom = &worker.postroom;
    let Some(mailbox) = registered(worker, charge).await? else { return Ok(None) };
    charge.reads_by(mailbox.revision);
    let (Some(inbox), Some(transport)) = (mailbox.settings.inbox(), &postroom.ports.incoming) else {
        return Ok(None);
    };
    let host = mailbox.settings.endpoint().host.to_string();
    let connected = async {
        if mailbox.settings.oauth().is_some() {
            // A provider that is slow to give a token holds up no connection of others.
            Box::pin(postroom.route(&mailbox)).await?;
        }
        let (seat, opening) = worker.pace.enter(&host).await;
        let session = Box::pin(connect(postroom, transport.as_ref(), &mailbox)).await?;
        drop(opening);
        Ok::<_, Broken>((seat, session))
    };
    let (seat, mut session) = tokio::select! {
        connected = connected => connected?,
        () = charge.ended() => return Ok(None),
    };
    let book: &dyn HealthBook = postroom.store();
    // What it did not rest for is no fault of its sessions.
    let on_trial = !book.health(mailbox.id).await?.last_rest().is_zero();
    let reader = Reader { worker, mailbox: &mailbox, charge };
    let folder = Box::pin(reader.select(inbox, &mut *session)).await;
    let folder = match folder {
        Ok(folder) => folder,
        Err(broken) => {
            let _ = tokio::time::timeout(FAREWELL, session.close()).await;
            return Err(broken);
        }
    };
    let (revision, mailbox) = (mailbox.revision, Some(Box::new(mailbox)));
    let (opened, told) = (Instant::now(), Vec::new());
    Ok(Some(Stay { session, seat, folder, revision, mailbox, opened, told, on_trial }))
}

/// Connects and signs in.
async fn connect(
    postroom: &Postroom,
    transport: &dyn IncomingTransport,
    mailbox: &Mailbox,
) -> Result<Box<dyn IncomingSession>, Broken> {
    // The secret is opened when it is used, and no longer kept than that.
    let route = postroom.route(mailbox).await?.ok_or(Broken::Outdated)?;
    match transport.open(&route).await {
        Err(error) if postroom.asks_anew(&route, &error).await => Err(Broken::Outdated),
        opened => Ok(opened?),
    }
}

/// What one reading leaves to be read.
enum Left {
    Nothing,
    /// More, once others had their turn.
    More,
    /// All, in another session: the settings have changed.
    Elsewhere,
    /// Nothing but mail over which the session ended, and not for the first time.
    Broken,
    /// Nothing that is to be read.
    Disabled,
}

/// Reads, and waits for news in the same session where its server allows that.
async fn reside(
    worker: &Worker,
    charge: &Charge,
    until: Until,
    memory: &mut Memory,
    stay: &mut Stay,
) -> Result<Visit, Broken> {
    let mut look = match memory.listed {
        Some(at) if at.elapsed() < LIST => Look::IfNews,
        _ => Look::List,
    };
    let mut way = if stay.folder.is_live() { Way::Idle } else { Way::Poll };
    loop {
        let left = Box::pin(read(worker, charge, look, stay, memory)).await?;
        match left {
            _ if charge.is_ending() || worker.is_stopping() => return Ok(Visit::Over),
            Left::Disabled => return Ok(Visit::Over),
            Left::Broken if until == Until::Read => return Ok(Visit::Over),
            // It is no failure of the inbox, whose other mail was read.
            Left::Broken => return Ok(Visit::Again(jittered(worker.postroom.ports.options.poll))),
            Left::Elsewhere => return Ok(Visit::Again(Duration::ZERO)),
            // What a server keeps at the end only is told in a session of its own.
            Left::More if !stay.folder.is_live() => return Ok(Visit::Again(Duration::ZERO)),
            Left::More => continue,
            Left::Nothing => {}
        }
        if look == Look::List {
            memory.listed = Some(Instant::now());
        }
        look = Look::List;
        charge.read(worker.postroom.now(), way);
        if !stay.on_trial {
            Box::pin(memory.works(worker, charge)).await;
        }
        if until == Until::Read {
            return Ok(Visit::Over);
        }
        if !stay.folder.is_live() || stay.seat.is_wanted() {
            return Ok(Visit::Again(jittered(worker.postroom.ports.options.poll)));
        }
        if let Some(visit) = await_news(worker, charge, stay, &mut way).await? {
            return Ok(visit);
        }
        if stay.on_trial && stay.opened.elapsed() >= SURVIVAL {
            Box::pin(memory.works(worker, charge)).await;
            stay.on_trial = false;
        }
    }
}

/// Reads once.
async fn read(
    worker: &Worker,
    charge: &Charge,
    look: Look,
    stay: &mut Stay,
    memory: &mut Memory,
) -> Result<Left, Broken> {
    // So many inboxes are read at once; whoever has more to read goes to the end of the queue. It is never closed.
    let _turn = worker.readers.acquire().await;
    let mailbox = match stay.mailbox.take() {
        Some(mailbox) => *mailbox,
        None => match registered(worker, charge).await? {
            Some(mailbox) if mailbox.revision == stay.revision => mailbox,
            // What the session was opened by counts no more.
            Some(_) => return Ok(Left::Elsewhere),
            None => return Ok(Left::Disabled),
        },
    };
    let Some(inbox) = mailbox.settings.inbox() else { return Ok(Left::Disabled) };
    let reader = Reader { worker, mailbox: &mailbox, charge };
    let tell = memory.tell();
    let round = match reader.read(inbox, &mut *stay.session, &stay.folder, look, tell).await {
        Err(Broken::Outdated) => return Ok(Left::Elsewhere),
        round => round?,
    };
    if tell == Tell::Due {
        memory.told(round.unsettled.as_ref());
    }
    if stay.folder.is_live() {
        kept(worker, &round.told, told(inbox.after())).await?;
    } else {
        stay.told.extend(round.told);
    }
    Ok(match (round.is_broken, round.more) {
        (true, _) => Left::Broken,
        (false, true) => Left::More,
        (false, false) => Left::Nothing,
    })
}

/// Waits until there may be something to read in this session; or gives how the visit ends.
async fn await_news(
    worker: &Worker,
    charge: &Charge,
    stay: &mut Stay,
    way: &mut Way,
) -> Result<Option<Visit>, Broken> {
    let options = &worker.postroom.ports.options;
    // An IDLE that died silently shows when its end is not answered, which takes a while, too: the whole stays below the bound.
    let mut most = jittered(options.reconcile * 3 / 4);
    if stay.on_trial {
        most = most.min(SURVIVAL);
    }
    let begun = Instant::now();
    let hint = tokio::select! {
        hint = stay.session.wait(most) => hint,
        () = charge.ended() => return Ok(Some(Visit::Over)),
    };
    match hint {
        Ok(Hint::Changed | Hint::Quiet) => Ok(None),
        Ok(Hint::Poll) => {
            *way = Way::Poll;
            Box::pin(ask_for_news(worker, charge, stay, begun + most)).await
        }
        Err(error) => lost(stay, error, options.poll),
    }
}

/// Asks a server that does not tell by itself, in the same session, until there is something or it is to be listed all the same.
async fn ask_for_news(
    worker: &Worker,
    charge: &Charge,
    stay: &mut Stay,
    until: Instant,
) -> Result<Option<Visit>, Broken> {
    let poll = worker.postroom.ports.options.poll;
    charge.read(worker.postroom.now(), Way::Poll);
    while Instant::now() < until {
        if tokio::time::timeout(jittered(poll), charge.ended()).await.is_ok() {
            return Ok(Some(Visit::Over));
        }
        match stay.session.wait(Duration::ZERO).await {
            Ok(Hint::Changed) => return Ok(None),
            Ok(Hint::Quiet) => charge.read(worker.postroom.now(), Way::Poll),
            Ok(Hint::Poll) => return Ok(Some(Visit::Again(Duration::ZERO))),
            Err(error) => return lost(stay, error, poll),
        }
    }
    Ok(None)
}

/// A session that is lost while nothing was asked of it is no failure of the inbox: servers end such sessions as they like, and
/// routers forget them. The next one follows soon, unless this one did not last.
fn lost(stay: &Stay, error: TransportError, poll: Duration) -> Result<Option<Visit>, Broken> {
    let is_lost = matches!(error.kind(), TransportKind::Disconnected | TransportKind::TimedOut);
    match (is_lost && error.stage() == Stage::Wait, stay.opened.elapsed() >= SURVIVAL) {
        (false, _) => Err(error.into()),
        (true, true) => Ok(Some(Visit::Again(jittered(poll / 20)))),
        (true, false) => Ok(Some(Visit::Again(jittered(poll)))),
    }
}

/// A span, a tenth more or less: what began together does not come back together.
fn jittered(span: Duration) -> Duration {
    let seed = random().map(u64::from_be_bytes).unwrap_or_default();
    let fifth = u64::try_from((span / 5).as_millis()).unwrap_or(u64::MAX);
    span - span / 10 + Duration::from_millis(seed % fifth.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use postroom_core::id::MailboxId;
    use postroom_storage::WatchLease;
    use postroom_storage::memory::MemoryStore;

    use super::*;
    use crate::Postroom;
    use crate::charge::Alive;

    /// Would miss what a future points to: that is measured by `cargo xtask bench watch`. One that holds what it opens, reads or
    /// fails by, and not in a box of its own, has 1,320 bytes for each of 10,000 inboxes.
    #[test]
    fn a_watch_has_room_for_what_it_needs_while_it_idles_and_no_more() {
        let worker = Arc::new(Worker::new(Postroom::builder(Arc::new(MemoryStore::new())).build()));
        let lease = WatchLease { mailbox: MailboxId::new(1), fence: 1 };
        let charge = Charge::new(lease, Alive::new(Duration::ZERO));
        let size = size_of_val(&watch(worker, charge, Until::Ended));
        assert!(size <= 704, "{size} bytes");
    }
}
