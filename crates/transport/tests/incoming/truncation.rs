//! Every dialogue, cut at every byte of the server's side, and then the end of the connection, or silence: the client never
//! hangs, never takes a mailbox for emptier than it is, never takes the beginning of a mail for the mail, and holds nothing
//! for settled that is not. What it answers is what it would have answered, or an error that ends the session.

use std::time::Duration;

use postroom_transport::{Access, ErrorKind};
use tokio::net::TcpListener;

use crate::replay::{Act, Answer, Dialogue, Grain, Then, play};

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(20);
const LIST: Act = Act::List("", 100);
/// Mails of which four fill a command.
const AHEAD: Act = Act::Fetch(
    &["10", "11", "12", "13", "14", "15", "16", "17", "18", "19", "20", "21", "22", "23"],
    250_000,
);

/// What the client does in a dialogue, beyond signing in and selecting. Dialogues that end before have no line here.
fn acts(name: &str) -> &'static [Act] {
    match name {
        "imap/round" => &[
            Act::Select(None, Access::ReadOnly),
            LIST,
            Act::Fetch(&["20"], 100),
            Act::Fetch(&["10", "20"], 100),
        ],
        name if name.contains("/vendor_") => {
            &[Act::Select(None, Access::ReadOnly), LIST, Act::Fetch(&["10", "20"], 100)]
        }
        "imap/signed_in" => &[Act::Select(None, Access::ReadOnly)],
        "imap/gaps" => &[Act::List("7", 2), Act::List("3000000000", 2), Act::List("4294967295", 2)],
        "imap/expunged_between" => &[Act::List("", 2), Act::List("20", 2)],
        "imap/fetch" | "imap/fetch_wrong_size" => &[Act::Fetch(&["10"], 100), Act::Fetch(&["20"], 100)],
        "imap/fetch_gone" => &[
            Act::Fetch(&["10"], 100),
            Act::Fetch(&["10"], 100),
            Act::Fetch(&["10"], 100),
            Act::Fetch(&["10"], 100),
            Act::Fetch(&["20"], 100),
        ],
        "imap/fetch_unavailable" => &[Act::Fetch(&["10"], 1000), Act::Fetch(&["11"], 1000)],
        "imap/fetch_many_unavailable" => &[Act::Fetch(&["10", "11", "12"], 1000)],
        "imap/fetch_many" => &[Act::Fetch(&["10", "11", "12", "13", "14", "15"], 100)],
        "imap/fetch_many_ahead" => &[AHEAD],
        "imap/fetch_many_missing" => &[AHEAD, Act::Folders],
        "imap/fetch_many_refused" | "imap/fetch_many_whole" => &[Act::Fetch(&["10", "11", "12"], 100)],
        "imap/fetch_many_cut" | "imap/fetch_many_silent" => &[Act::Fetch(&["10", "11"], 100)],
        "imap/idle_between" => &[LIST, Act::Fetch(&["10"], 9), Act::Wait(LONG)],
        "imap/idle" => &[Act::Wait(LONG), Act::Wait(LONG)],
        "imap/idle_refused_once" => {
            &[Act::Wait(LONG), Act::Wait(Duration::ZERO), Act::Wait(Duration::ZERO), Act::Wait(LONG)]
        }
        "imap/idle_quiet" => &[Act::Wait(SHORT), Act::List("", 0)],
        "imap/search_refused" => &[Act::Find; 4],
        "imap/delete_without_uidplus" => &[
            Act::Select(None, Access::ReadWrite),
            Act::Delete(&["20", "11", "10"]),
            Act::Delete(&["20", "11", "10"]),
        ],
        "imap/move_without_target" => &[
            Act::Select(None, Access::ReadWrite),
            Act::Move(&["10"], "a*"),
            Act::Move(&["10"], "a*"),
            Act::Move(&["10"], "a*"),
        ],
        "pop3/round" | "pop3/no_capa" | "pop3/uidl_missing" | "pop3/uidl_doubled" | "pop3/dots" => {
            &[LIST, Act::Fetch(&["a"], 100), Act::Fetch(&["b"], 100)]
        }
        "pop3/pipelined" => &[LIST, Act::Fetch(&["a", "b", "c", "d", "e"], 10)],
        "pop3/quit_kept" | "pop3/quit_lost" | "pop3/quit_refused" => &[Act::Delete(&["a"])],
        "pop3/dele_cut" => &[Act::Delete(&["a"]), Act::Delete(&["b"])],
        name if name.contains("/fetch_") || name.ends_with("_in_fetch") => &[Act::Fetch(&["10"], 16)],
        name if name.contains("/select_") => &[Act::Select(Some("Suporte/S\u{e3}o Paulo"), Access::ReadOnly)],
        name if name.contains("/folders") => &[Act::Folders],
        name if name.contains("/idle") => &[Act::Wait(LONG)],
        name if name.contains("/retr") => &[LIST, Act::Fetch(&["a"], 100)],
        _ => &[LIST],
    }
}

/// Every dialogue of a protocol.
pub(crate) fn dialogues(protocol: &str) -> Vec<Dialogue> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("dialogs").join(protocol);
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| format!("{protocol}/{}", entry.unwrap().path().file_stem().unwrap().to_str().unwrap()))
        .collect();
    names.sort();
    names.iter().map(|name| Dialogue::read(name, acts(name))).collect()
}

/// Whether a session goes on after this error.
fn is_of_the_call(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Gone | ErrorKind::FolderMissing | ErrorKind::Refused | ErrorKind::Unsupported)
}

/// What is wrong with an answer of the spoilt dialogue, when the whole one gave another.
fn wrong(whole: Option<&Answer>, spoilt: &Answer) -> Option<&'static str> {
    match (whole, spoilt) {
        (Some(whole), spoilt) if whole == spoilt => None,
        // Also where the sign-in failed in the whole one already.
        (_, Answer::Failed(kind)) if !is_of_the_call(*kind) => None,
        (_, Answer::Failed(_)) => Some("an error that the session goes on after"),
        (Some(Answer::Mails(whole, _)), Answer::Mails(spoilt, Some(kind))) if !is_of_the_call(*kind) => {
            let is_known = spoilt.iter().all(|ended| whole.contains(ended));
            (!is_known).then_some("another end of one of the mails")
        }
        // What was settled is looked at by whoever knows the calls.
        (_, Answer::Closed { .. }) => None,
        _ => Some("another answer"),
    }
}

/// `part` says which dialogues.
async fn check(protocol: &str, part: impl Fn(&str) -> bool, at_least: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut cuts = 0;
    for dialogue in dialogues(protocol).into_iter().filter(|dialogue| part(&dialogue.name)) {
        let name = &dialogue.name;
        let (whole, other) = play(&listener, &dialogue, &dialogue.steps, dialogue.then, Grain::Whole).await;
        assert_eq!(other, None, "{name}: the client does not keep to it");
        for at in 0..dialogue.bytes() {
            for then in [Then::Close, Then::BeSilent] {
                let (spoilt, _) = play(&listener, &dialogue, &dialogue.cut(at), then, Grain::Whole).await;
                for (place, answer) in spoilt.iter().enumerate() {
                    // A session that was closed in the whole dialogue may not have come about in this one.
                    let is_wrong = wrong(whole.get(place), answer);
                    // What makes that mail wrong comes behind it.
                    let is_whole = name == "pop3/retr_more" && matches!(answer, Answer::Mails(_, None));
                    assert!(
                        is_wrong.is_none() || is_whole,
                        "{is_wrong:?}: {name}: cut at byte {at}, then {then:?}: {spoilt:?}, {whole:?}"
                    );
                }
                // RFC 1939 section 6: without the whole answer to QUIT nothing is deleted.
                let settled = dialogue.acts.iter().zip(&spoilt[1..]).any(|(act, answer)| {
                    matches!((act, answer), (Act::Delete(_), Answer::Told(_))) && protocol == "pop3"
                });
                let kept = spoilt.last() == Some(&Answer::Closed { kept: true });
                assert!(!(settled && kept), "{name}: cut at byte {at}, then {then:?}: taken for deleted");
                cuts += 1;
            }
        }
    }
    assert!(cuts > at_least, "{protocol}: only {cuts} cuts");
}

/// It misses what lies inside TLS: those dialogues end here where TLS begins.
#[tokio::test(start_paused = true)]
async fn imap_cut_at_every_byte_gives_the_same_answer_or_an_error() {
    check("imap", |name| !name.contains("/vendor_"), 10_000).await;
}

#[tokio::test(start_paused = true)]
async fn imap_of_large_providers_cut_at_every_byte_gives_the_same_answer_or_an_error() {
    check("imap", |name| name.contains("/vendor_"), 10_000).await;
}

#[tokio::test(start_paused = true)]
async fn pop3_cut_at_every_byte_gives_the_same_answer_or_an_error() {
    check("pop3", |_| true, 2_000).await;
}

/// The twin: a client that takes the end of the stream for the end of a list. The comparison above has to find it out.
#[test]
fn a_client_that_takes_an_end_for_a_complete_answer_is_found_out() {
    let told = |text: &str| Answer::Told(text.to_owned());
    let (two, one) = (told("[10, 20]"), told("[10]"));
    assert!(wrong(Some(&two), &one).is_some());
    assert!(wrong(Some(&two), &told("[]")).is_some());
    assert!(wrong(Some(&two), &Answer::Failed(ErrorKind::Gone)).is_some());
    let mails = |ends: &[(&str, &str)], error| {
        let ends = ends.iter().map(|(key, mail)| ((*key).to_owned(), Ok(mail.as_bytes().to_vec())));
        Answer::Mails(ends.collect(), error)
    };
    let whole = mails(&[("10", "abcd"), ("11", "efgh")], None);
    assert!(wrong(Some(&whole), &mails(&[("10", "abcd")], None)).is_some());
    assert!(wrong(Some(&whole), &mails(&[("10", "ab")], Some(ErrorKind::Disconnected))).is_some());
    assert!(wrong(Some(&whole), &mails(&[("10", "abcd")], Some(ErrorKind::Disconnected))).is_none());
    assert!(wrong(Some(&two), &Answer::Failed(ErrorKind::Disconnected)).is_none());
}
