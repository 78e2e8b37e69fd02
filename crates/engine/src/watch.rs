//! Watch: one inbox, for as long as this process has its lease. It is read, and then news is waited for by IDLE, or it is read
//! again from time to time. A failure is recorded and ends the watch: who reads the inbox next, and when, the store says.

use std::sync::Arc;
use std::time::Duration;

use postroom_core::failure::Failure;
use postroom_core::id::LedgerId;
use postroom_core::mailbox::{Kind, Mailbox, Status};
use postroom_storage::{HealthBook, Mailboxes, Way};
use postroom_transport::{
    CloseReport, Error as TransportError, ErrorKind as TransportKind, Hint, IncomingSession, Stage,
};
use tokio::time::Instant;

use crate::charge::Charge;
use crate::error::said;
use crate::fetch::{Broken, Folder, Look, Reader};
use crate::pace::Seat;
use crate::postroom::random;
use crate::worker::Worker;

/// What lived for so long works: only then are the failures before it forgotten. A server that lets everybody in and drops them
/// would be dialled again and again.
const SURVIVAL: Duration = Duration::from_secs(60);

/// Servers whose UIDNEXT stands still are listed all the same so often.
const LIST: Duration = Duration::from_secs(60 * 60);

/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(10);

/// After refused sign-ins, one after the other. Providers lock an account after some within a quarter of an hour or so, and some
/// refuse everybody while they have an outage; after these a person is asked.
const PARKED: [Duration; 3] =
    [Duration::from_secs(15 * 60), Duration::from_secs(60 * 60), Duration::from_secs(4 * 60 * 60)];

/// For how long an inbox is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// Until the watch is to end.
    Ended,
    /// Until everything that is there was read.
    Read,
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
    opened: Instant,
    /// What a server was told that keeps it at the end, if at all.
    told: Vec<LedgerId>,
    /// Whether its success is to be recorded only once it has survived.
    on_trial: bool,
}

/// Watches an inbox.
pub(crate) async fn watch(worker: Arc<Worker>, charge: Arc<Charge>, until: Until) {
    let mut listed = None;
    while !charge.is_ending() {
        let visit = visit(&worker, &charge, until, &mut listed).await;
        match visit {
            Ok(Visit::Again(after)) => {
                let _ = tokio::time::timeout(after, charge.ended()).await;
            }
            Ok(Visit::Over) | Err(Broken::Lost) => return,
            Err(broken) => return fails(&worker, &charge, broken).await,
        }
    }
}

/// Records a failure.
async fn fails(worker: &Worker, charge: &Charge, broken: Broken) {
    let id = charge.lease.mailbox;
    match broken {
        Broken::Server(error) if error.kind() == TransportKind::SignInRefused => {
            let book: &dyn HealthBook = worker.postroom.store();
            let failures = book.health(id).await.map_or(0, |health| health.failures);
            let parked = usize::try_from(failures).ok().and_then(|failures| PARKED.get(failures)).copied();
            let failure = parked.map_or(Failure::Suspend, |parked| Failure::RetryAfter(Some(parked)));
            worker.fails(id, failure, said(&error)).await;
        }
        Broken::Server(error) => worker.fails(id, error.failure(), said(&error)).await,
        Broken::Inside(error) if matches!(error.kind(), crate::ErrorKind::Sealing) => {
            worker.fails(id, error.failure(), error.to_string()).await;
        }
        Broken::Inside(error) => worker.store_failed(&error),
        Broken::Lost => {}
    }
}

/// One session, from the connection to its end.
async fn visit(
    worker: &Worker,
    charge: &Charge,
    until: Until,
    listed: &mut Option<Instant>,
) -> Result<Visit, Broken> {
    let id = charge.lease.mailbox;
    let Some(mailbox) = Mailboxes::mailbox(worker.postroom.store(), id).await? else {
        return Ok(Visit::Over);
    };
    if mailbox.status != Status::Active || mailbox.settings.kind() != Kind::Inbox {
        return Ok(Visit::Over);
    }
    charge.reads_by(mailbox.revision);
    // What an idle watch keeps is small: everything else lives in boxes that are dropped before it idles.
    let Some(mut stay) = Box::pin(open(worker, charge, &mailbox)).await? else { return Ok(Visit::Over) };
    let stayed = reside(worker, charge, &mailbox, until, listed, &mut stay).await;
    let closed = tokio::time::timeout(FAREWELL, stay.session.close()).await;
    // What ended early settled nothing that could be lost.
    let visit = stayed?;
    if let Ok(CloseReport::Lost(error)) = closed {
        return Err(error.into());
    }
    if closed.is_ok() {
        Reader { worker, mailbox: &mailbox, charge }.kept(&stay.told).await?;
    }
    // A polite end is a survival, too.
    if stay.on_trial && !stay.folder.is_live() {
        worker.works(id).await;
    }
    Ok(visit)
}

/// Opens a session when it is its turn; none when the watch is to end before.
async fn open(worker: &Worker, charge: &Charge, mailbox: &Mailbox) -> Result<Option<Stay>, Broken> {
    let postroom = &worker.postroom;
    let (Some(inbox), Some(transport)) = (mailbox.settings.inbox(), &postroom.ports.incoming) else {
        return Ok(None);
    };
    let host = mailbox.settings.endpoint().host.to_string();
    let connected = async {
        let (seat, opening) = worker.pace.enter(&host).await;
        // The secret is opened when it is used, and no longer kept than that.
        let route = postroom.route(mailbox).await?;
        let session = transport.open(&route).await?;
        drop(opening);
        Ok::<_, Broken>((seat, session))
    };
    let (seat, mut session) = tokio::select! {
        connected = connected => connected?,
        () = charge.ended() => return Ok(None),
    };
    let book: &dyn HealthBook = postroom.store();
    let on_trial = book.health(mailbox.id).await?.failures > 0;
    let folder = Reader { worker, mailbox, charge }.select(inbox, &mut *session).await;
    let folder = match folder {
        Ok(folder) => folder,
        Err(broken) => {
            let _ = tokio::time::timeout(FAREWELL, session.close()).await;
            return Err(broken);
        }
    };
    Ok(Some(Stay { session, seat, folder, opened: Instant::now(), told: Vec::new(), on_trial }))
}

/// What one reading leaves to be read.
enum Left {
    Nothing,
    /// More, once others had their turn.
    More,
}

/// Reads, and waits for news in the same session where its server allows that.
async fn reside(
    worker: &Worker,
    charge: &Charge,
    mailbox: &Mailbox,
    until: Until,
    listed: &mut Option<Instant>,
    stay: &mut Stay,
) -> Result<Visit, Broken> {
    let mut look = match listed {
        Some(at) if at.elapsed() < LIST => Look::IfNews,
        _ => Look::List,
    };
    let mut way = if stay.folder.is_live() { Way::Idle } else { Way::Poll };
    loop {
        let left = Box::pin(read(worker, charge, mailbox, look, stay)).await?;
        match left {
            _ if charge.is_ending() || worker.is_stopping() => return Ok(Visit::Over),
            // What a server keeps at the end only is told in a session of its own.
            Left::More if !stay.folder.is_live() => return Ok(Visit::Again(Duration::ZERO)),
            Left::More => continue,
            Left::Nothing => {}
        }
        if look == Look::List {
            *listed = Some(Instant::now());
        }
        look = Look::List;
        charge.read(worker.postroom.now(), way);
        if !stay.on_trial {
            worker.works(mailbox.id).await;
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
            worker.works(mailbox.id).await;
            stay.on_trial = false;
        }
    }
}

/// Reads once.
async fn read(
    worker: &Worker,
    charge: &Charge,
    mailbox: &Mailbox,
    look: Look,
    stay: &mut Stay,
) -> Result<Left, Broken> {
    let Some(inbox) = mailbox.settings.inbox() else { return Ok(Left::Nothing) };
    // So many inboxes are read at once; whoever has more to read goes to the end of the queue. It is never closed.
    let _turn = worker.readers.acquire().await;
    let reader = Reader { worker, mailbox, charge };
    let round = reader.read(inbox, &mut *stay.session, &stay.folder, look).await?;
    if stay.folder.is_live() {
        reader.kept(&round.told).await?;
    } else {
        stay.told.extend(round.told);
    }
    match round.refused {
        Some(error) => Err(error.into()),
        None if round.more => Ok(Left::More),
        None => Ok(Left::Nothing),
    }
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
        Ok(Hint::Changed | Hint::Quiet) => return Ok(None),
        Ok(Hint::Poll) => *way = Way::Poll,
        Err(error) => return lost(stay, error, options.poll),
    }
    charge.read(worker.postroom.now(), *way);
    // A server that does not tell by itself is asked in the same session; now and then it is listed all the same.
    while begun.elapsed() < most {
        if tokio::time::timeout(jittered(options.poll), charge.ended()).await.is_ok() {
            return Ok(Some(Visit::Over));
        }
        match stay.session.wait(Duration::ZERO).await {
            Ok(Hint::Changed) => return Ok(None),
            Ok(Hint::Quiet) => charge.read(worker.postroom.now(), *way),
            Ok(Hint::Poll) => return Ok(Some(Visit::Again(Duration::ZERO))),
            Err(error) => return lost(stay, error, options.poll),
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
