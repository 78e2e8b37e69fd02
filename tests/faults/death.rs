//! The process ends at each named step of a mail, by `abort`, and another one comes when the lease has run out. Up to 354 the mail is
//! taken again; marked and not settled it is in doubt, also when the dot never left; settled it is done. The same check catches the
//! naive twins of the phases. What kills at random moments is `cargo xtask kill`.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use postroom::Postroom;
use postroom::core::queue::State;
use postroom::engine::{NoObserver, Observer};
use postroom::storage::Store;
use postroom::transport::OutgoingTransport;
use postroom_testkit::MailServer;
use tokio::task::JoinSet;

use crate::house::{PATIENCE, linked, opened, options, queue, smtp, sqlite, submit, work};
use crate::moments::{Act, Moment, Told, Watched};
use crate::wired::{Twin, Wired};

const FOLDER: &str = "POSTROOM_FAULTS_FOLDER";
const AT: &str = "POSTROOM_FAULTS_AT";
const TWIN: &str = "POSTROOM_FAULTS_TWIN";

/// A postroom on the file of a folder.
async fn at(folder: &Path, after: Duration, twin: Twin, outgoing: Arc<dyn OutgoingTransport>) -> Postroom {
    told(folder, after, twin, outgoing, Arc::new(NoObserver::default())).await
}

async fn told(
    folder: &Path,
    after: Duration,
    twin: Twin,
    outgoing: Arc<dyn OutgoingTransport>,
    observer: Arc<dyn Observer>,
) -> Postroom {
    let store: Arc<dyn Store> = sqlite(folder, after).await.0;
    opened(Arc::new(Wired::twin(store, twin)), outgoing, observer, options())
}

/// Sends until it aborts, when a test of this file starts it; otherwise it has nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let last = Moment::named(&Moment::ALL, &std::env::var(AT).unwrap());
    let twin = Moment::named(&Twin::ALL, &std::env::var(TWIN).unwrap());
    let act: Act = Arc::new(move |moment| {
        if moment == last {
            std::process::abort();
        }
        Box::pin(std::future::ready(())) as _
    });
    let outgoing = Arc::new(Watched::new(smtp(PATIENCE), Arc::clone(&act)));
    work(&told(Path::new(&folder), Duration::ZERO, twin, outgoing, Arc::new(Told(act))).await).await;
}

/// What does not hold when a worker with this store dies at this moment, if anything.
async fn dies(moment: Moment, twin: Twin) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let server = MailServer::start().await.unwrap();
    let house = at(folder.path(), Duration::ZERO, twin, Arc::new(smtp(PATIENCE))).await;
    linked(&house, "ACME", server.smtp_port(), 1).await;
    let mail = submit(&house, "ACME").await;
    drop(house);
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "death::child", "--nocapture"])
        .env(FOLDER, folder.path())
        .env(AT, format!("{moment:?}"))
        .env(TWIN, format!("{twin:?}"))
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let ended = tokio::task::spawn_blocking(move || child.status()).await.unwrap().unwrap();
    // SIGABRT; a child that never came to the moment ends well, or by a panic.
    if ended.signal() != Some(6) {
        return Err(format!("the worker did not die at {moment:?}: {ended}"));
    }
    use Moment::{Answered, BeforeDot, DotSent, Marked, Settled};
    let has_left = matches!(moment, DotSent | Answered | Settled);
    if has_left {
        server.expect_accepted(1, PATIENCE).await;
    }
    for minutes in [10, 20, 30] {
        let after = Duration::from_secs(60 * minutes);
        work(&at(folder.path(), after, Twin::None, Arc::new(smtp(PATIENCE))).await).await;
    }
    let house = at(folder.path(), Duration::from_secs(3600), Twin::None, Arc::new(smtp(PATIENCE))).await;
    let states: Vec<State> = queue(&house).await.into_iter().map(|item| item.state).collect();
    let arrived = server.find_accepted_by_message_id(&mail.message_id).len();
    let expected = match moment {
        Marked | BeforeDot => (State::InDoubt, 0),
        DotSent | Answered => (State::InDoubt, 1),
        _ => (State::Accepted, 1),
    };
    if (states.as_slice(), arrived) != (&[expected.0], expected.1) {
        return Err(format!("dead at {moment:?}: {states:?}, arrived {arrived} times, not {expected:?}"));
    }
    Ok(())
}

// Seen to fail with each twin of the test below. Would miss what only a lost page of the medium shows.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_at_any_step_leaves_the_mail_to_be_taken_again_in_doubt_or_done() {
    let mut deaths = JoinSet::new();
    for moment in Moment::ALL {
        deaths.spawn(dies(moment, Twin::None));
    }
    let wrong: Vec<_> = deaths.join_all().await.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The known-bad twins of the phases, each caught by the check of the test above.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_mark_a_late_result_and_a_resent_doubt_are_caught_by_a_death() {
    for (twin, moment, said) in [
        // Sent again, though the server has it.
        (Twin::MarksLate, Moment::DotSent, "arrived 2 times"),
        // Nothing told of the dot that may have left.
        (Twin::MarksLate, Moment::Marked, "[Accepted]"),
        (Twin::SettlesLate, Moment::Settled, "[InDoubt]"),
        (Twin::ResendsDoubts, Moment::DotSent, "arrived 2 times"),
    ] {
        let caught = dies(moment, twin).await.expect_err("a twin that nobody notices");
        assert!(caught.contains(said), "{twin:?}: {caught}");
    }
}
