//! The clauses of the ledger's ports: intake, work, desk.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postroom_core::contract::Contract;
use postroom_core::id::{BodyId, ClaimId, LedgerId, MailboxId};
use postroom_core::ledger::{Event, Place, RemoteKey, State};
use postroom_core::time::Timestamp;

use super::fixture::{
    actor, add, at, change, contract_id, inbox, kind, ledger_id, left_out, place, received, save_contract,
    store_one, worker,
};
use super::subject::Subject;
use crate::Store;
use crate::bodies::{BodyRef, PIECE};
use crate::error::ErrorKind;
use crate::ledger::{
    ClaimedMail, Committing, Contact, EQUALS, HandlerResult, LedgerDesk, LedgerQuery, LedgerRecord,
    LedgerWork, LeftOut, RawMail, Reached, Received, Recognition, Stored, TWINS, Told, Unsettled,
};
use crate::registry::SecretWrite;

async fn with_inbox(subject: Subject) -> (Arc<dyn Store>, Place) {
    let store = subject.store;
    let id = add(&store, inbox("imap.acme.example")).await;
    (store, place(id, 7))
}

async fn keep(store: &Arc<dyn Store>, mail: &Received) -> LedgerId {
    assert_eq!(store_one(store, at(0), mail).await.expect("store"), Stored::New(mail.id));
    mail.id
}

/// Stores mails `numbers` under the UIDs of the same numbers.
async fn keep_all(store: &Arc<dyn Store>, place: &Place, numbers: std::ops::RangeInclusive<u32>) {
    for number in numbers {
        keep(store, &received(number, place, number, &format!("bytes {number}"))).await;
    }
}

async fn show(store: &Arc<dyn Store>, id: LedgerId) -> LedgerRecord {
    LedgerDesk::show(&**store, id).await.expect("show").expect("the mail is in the ledger")
}

async fn told(store: &Arc<dyn Store>, id: LedgerId) -> Vec<String> {
    show(store, id).await.timeline.into_iter().map(|entry| entry.what).collect()
}

async fn listed(store: &Arc<dyn Store>, query: LedgerQuery) -> Vec<LedgerId> {
    let items = LedgerDesk::list(&**store, &query).await.expect("list");
    items.into_iter().map(|item| item.id).collect()
}

async fn claim_at(store: &Arc<dyn Store>, seconds: i64, limit: u32, by: u8) -> Vec<ClaimedMail> {
    let (now, until) = (at(seconds), at(seconds + 30));
    LedgerWork::claim(&**store, now, limit, worker(by), until).await.expect("claim")
}

async fn claim_one(store: &Arc<dyn Store>, seconds: i64) -> ClaimedMail {
    claim_at(store, seconds, 1, 1).await.pop().expect("a mail is due")
}

fn result(claimed: &ClaimedMail, event: Event, due: i64) -> HandlerResult {
    let detail = format!("the handler said {event}");
    HandlerResult { id: claimed.item.id, claim: claimed.claim, event, due_at: at(due), detail }
}

async fn finish(store: &Arc<dyn Store>, seconds: i64, result: &HandlerResult) -> bool {
    store.finish(at(seconds), result).await.expect("finish")
}

async fn unsettled(store: &Arc<dyn Store>, seconds: i64, place: &Place) -> Vec<LedgerId> {
    let mails = store.unsettled(at(seconds), place, 10).await.expect("unsettled");
    mails.into_iter().map(|mail| mail.id).collect()
}

async fn next_due(store: &Arc<dyn Store>, seconds: i64) -> Option<Timestamp> {
    LedgerWork::next_due(&**store, at(seconds)).await.expect("next_due")
}

async fn contact(store: &Arc<dyn Store>, place: &Place) -> Contact {
    store.contact(place).await.expect("contact")
}

async fn reach(store: &Arc<dyn Store>, place: &Place, reached: Reached) {
    store.advance(place, reached).await.expect("advance");
}

/// Leaves out mails by the settings that the inbox has.
async fn skip(store: &Arc<dyn Store>, seconds: i64, place: &Place, keys: Vec<RemoteKey>) {
    let left_out = left_out(store, place, at(seconds), keys).await;
    assert!(store.skip(at(seconds), place, &left_out).await.expect("skip"));
}

fn uids(uids: impl IntoIterator<Item = u32>) -> Vec<RemoteKey> {
    uids.into_iter().map(RemoteKey::Uid).collect()
}

async fn whole(store: &Arc<dyn Store>, body: BodyId) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in 0.. {
        let Some(piece) = store.piece(body, piece).await.expect("piece") else { break };
        bytes.extend(piece);
    }
    bytes
}

pub(super) async fn a_place_is_first_then_known_and_another_epoch_is_renumbered(subject: Subject) {
    let (store, seven) = with_inbox(subject).await;
    assert_eq!(contact(&store, &seven).await, Contact::First);
    reach(&store, &seven, Reached::Whole(at(0))).await;
    let known = Contact::Known { frontier: 0 };
    assert_eq!(contact(&store, &seven).await, known, "an empty folder was seen all the same");
    let eight = place(seven.mailbox, 8);
    assert_eq!(contact(&store, &eight).await, Contact::Renumbered { frontier: 0, since: at(0) });
    reach(&store, &eight, Reached::UpTo(4_294_967_295)).await;
    reach(&store, &eight, Reached::Whole(at(1))).await;
    assert_eq!(contact(&store, &eight).await, Contact::Known { frontier: 4_294_967_295 });
    assert_eq!(contact(&store, &seven).await, known, "a server restored from its backup");
    for (folder, mailbox) in [("INBOX", seven.mailbox), ("clientes são paulo", seven.mailbox)] {
        let other = Place { mailbox, folder: folder.to_owned(), epoch: 7 };
        assert_eq!(contact(&store, &other).await, Contact::First, "{folder} is another folder");
    }
    let other = add(&store, inbox("imap.acme.example")).await;
    assert_eq!(contact(&store, &place(other, 7)).await, Contact::First, "another mailbox");
}

/// A worker is killed in the middle of the first pass over a renumbered folder, and the folder renumbered again. Would miss a frontier that
/// makes the place known: what is behind it would count as new.
pub(super) async fn a_renumbered_place_is_known_once_a_pass_over_it_was_whole(subject: Subject) {
    let (store, seven) = with_inbox(subject).await;
    let (eight, nine) = (place(seven.mailbox, 8), place(seven.mailbox, 9));
    reach(&store, &seven, Reached::UpTo(3)).await;
    let first = contact(&store, &seven).await;
    assert_eq!(first, Contact::Known { frontier: 3 }, "in the first epoch of all only the baseline counts");
    let renumbered = |frontier, since| Contact::Renumbered { frontier, since };
    assert_eq!(contact(&store, &eight).await, renumbered(0, Timestamp::EPOCH), "it was never whole");
    reach(&store, &seven, Reached::Whole(at(5))).await;
    reach(&store, &seven, Reached::Whole(at(3))).await;
    reach(&store, &seven, Reached::UpTo(4)).await;
    for (uid, frontier) in [(7, 7), (6, 7), (500, 500)] {
        reach(&store, &eight, Reached::UpTo(uid)).await;
        assert_eq!(contact(&store, &eight).await, renumbered(frontier, at(5)));
    }
    assert_eq!(contact(&store, &nine).await, renumbered(0, at(5)), "what was half done says nothing of when");
    reach(&store, &eight, Reached::Whole(at(9))).await;
    assert_eq!(contact(&store, &eight).await, Contact::Known { frontier: 500 });
    assert_eq!(contact(&store, &nine).await, renumbered(0, at(9)), "the latest of all epochs");
    assert_eq!(contact(&store, &seven).await, Contact::Known { frontier: 4 });
}

/// Its server gives UIDs again under the same UIDVALIDITY. Would miss one that forgets it when the next session begins.
pub(super) async fn a_folder_that_is_set_back_has_another_epoch_from_then_on(subject: Subject) {
    let (store, seven) = with_inbox(subject).await;
    let latest = async |place: &Place| store.latest(place).await.expect("latest");
    assert_eq!(latest(&seven).await, seven, "never seen");
    keep_all(&store, &seven, 1..=2).await;
    reach(&store, &seven, Reached::UpTo(2)).await;
    reach(&store, &seven, Reached::Whole(at(5))).await;
    assert_eq!(latest(&seven).await, seven);
    let again = seven.set_back();
    reach(&store, &again, Reached::UpTo(0)).await;
    assert_eq!((latest(&seven).await, latest(&again).await), (again.clone(), again.clone()));
    for other in [place(seven.mailbox, 8), Place { folder: "INBOX".to_owned(), ..seven.clone() }] {
        assert_eq!(latest(&other).await, other);
    }
    assert_eq!(contact(&store, &again).await, Contact::Renumbered { frontier: 0, since: at(5) });
    assert_eq!(store.unknown(&again, &uids([1, 2])).await.expect("unknown"), uids([1, 2]));
    let mails = [received(11, &again, 1, "bytes 1"), received(12, &again, 2, "bytes of a new mail")];
    let stored = store.store(at(9), &mails).await.expect("store");
    assert_eq!(stored, [Stored::Recognised(ledger_id(1)), Stored::New(ledger_id(12))]);
    let epochs = async |number| show(&store, ledger_id(number)).await.item.epoch;
    assert_eq!([epochs(1).await, epochs(2).await, epochs(12).await], [again.epoch, seven.epoch, again.epoch]);
    reach(&store, &again, Reached::UpTo(2)).await;
    reach(&store, &again, Reached::Whole(at(9))).await;
    assert_eq!(contact(&store, &again).await, Contact::Known { frontier: 2 });
    let thrice = again.set_back();
    reach(&store, &thrice, Reached::UpTo(0)).await;
    assert_eq!(latest(&seven).await, thrice);
}

pub(super) async fn the_frontier_never_goes_back(subject: Subject) {
    let (store, place) = with_inbox(subject).await;
    for (frontier, after) in [(5, 5), (3, 5), (9, 9), (0, 9)] {
        reach(&store, &place, Reached::UpTo(frontier)).await;
        assert_eq!(contact(&store, &place).await, Contact::Known { frontier: after });
    }
}

pub(super) async fn unknown_keys_are_those_that_the_ledger_does_not_have(subject: Subject) {
    let (store, seven) = with_inbox(subject).await;
    keep_all(&store, &seven, 2..=3).await;
    let unknown =
        async |place: &Place, keys: Vec<RemoteKey>| store.unknown(place, &keys).await.expect("unknown");
    assert_eq!(unknown(&seven, uids([9, 3, 1, 2, 4])).await, uids([9, 1, 4]), "in the order asked");
    assert_eq!(unknown(&place(seven.mailbox, 8), uids([2, 3])).await, uids([2, 3]), "another epoch");
    assert_eq!(unknown(&seven, Vec::new()).await, []);
    let pop = Place { mailbox: seven.mailbox, folder: String::new(), epoch: 0 };
    let mut texts = Vec::new();
    for (number, uidl) in (10..).zip(["a", "A", "a%", "uid:2"]) {
        let mut mail = received(number, &pop, 0, &format!("bytes {uidl}"));
        mail.key = RemoteKey::Uidl(uidl.to_owned());
        texts.push(mail.key.clone());
        if uidl != "A" {
            keep(&store, &mail).await;
        }
    }
    let content = |copy| RemoteKey::Content("00ff".to_owned(), copy);
    let keys = [texts.clone(), vec![content(1), content(2)]].concat();
    assert_eq!(unknown(&pop, keys).await, [texts[1].clone(), content(1), content(2)], "byte by byte");
    let many: Vec<u32> = (1..=3000).collect();
    let left = unknown(&seven, uids(many.clone())).await;
    assert_eq!(left, uids(many.into_iter().filter(|uid| !(2..=3).contains(uid))), "a window of thousands");
}

pub(super) async fn a_stored_mail_is_shown_with_every_field(subject: Subject) {
    let (store, place) = with_inbox(subject).await;
    let mut mail = received(1, &place, 42, "bytes");
    mail.reasons = vec!["box".to_owned(), "thread".to_owned()];
    mail.record = Some(postroom_core::id::RecordId::parse("INC 7").expect("a valid id"));
    let id = keep(&store, &mail).await;
    let shown = show(&store, id).await;
    let item = &shown.item;
    assert_eq!((item.id, item.state), (id, State::Stored));
    assert_eq!(
        (item.mailbox, &item.folder, item.epoch, &item.key),
        (place.mailbox, &place.folder, 7, &mail.key)
    );
    assert_eq!((&item.contract, &item.reasons, &item.record), (&mail.contract, &mail.reasons, &mail.record));
    assert_eq!(
        (&item.sender, &item.subject, &item.message_id),
        (&mail.sender, &mail.subject, &mail.message_id)
    );
    assert_eq!((item.size, item.arrived, item.stored_at), (mail.size, mail.arrived, at(0)));
    assert_eq!(shown.attempts, 0);
    assert_eq!(whole(&store, shown.body.expect("it has its bytes")).await, b"bytes");
    let first = &shown.timeline;
    assert_eq!((first.len(), first[0].what.as_str(), first[0].state), (1, "stored", Some(State::Stored)));
    assert_eq!(LedgerDesk::list(&*store, &LedgerQuery::default()).await.expect("list"), [shown.item]);
    assert!(LedgerDesk::show(&*store, ledger_id(99)).await.expect("show").is_none());
}

pub(super) async fn many_mails_are_stored_by_one_call_in_their_order(subject: Subject) {
    let (store, seven) = with_inbox(subject).await;
    keep_all(&store, &seven, 1..=2).await;
    let eight = place(seven.mailbox, 8);
    keep(&store, &received(3, &eight, 3, "bytes 3")).await;
    let body = BodyId::new(at(0), [1; 10]);
    store.stage(at(0), body, 0, Bytes::from_static(b"staged")).await.expect("stage");
    let mut large = received(14, &eight, 14, "staged");
    large.raw = RawMail::Staged(BodyRef { id: body, size: large.size, sha256: large.sha256 });
    let mut dead = received(15, &eight, 15, "dead bytes");
    // What a stranger wrote may have a NUL, and may have been made to end a statement.
    (dead.state, dead.subject) = (State::Dead, "\"'; NUL: \0, behind it".to_owned());
    let other = Place { folder: "INBOX".to_owned(), ..seven.clone() };
    let mails = [
        received(11, &eight, 51, "bytes 2"),
        received(12, &eight, 3, "bytes 3"),
        received(13, &eight, 13, "bytes 13"),
        large,
        dead,
        received(16, &other, 1, "bytes 2"),
    ];
    let stored = store.store(at(9), &mails).await.expect("store");
    let new = |number| Stored::New(ledger_id(number));
    let known = [Stored::Recognised(ledger_id(2)), Stored::Known(ledger_id(3))];
    assert_eq!(stored, [known.as_slice(), &[new(13), new(14), new(15), new(16)]].concat());
    assert_eq!(listed(&store, LedgerQuery::default()).await, [1, 2, 3, 13, 14, 15, 16].map(ledger_id));
    for (number, bytes) in [(13, "bytes 13"), (14, "staged"), (15, "dead bytes"), (16, "bytes 2")] {
        let shown = show(&store, ledger_id(number)).await;
        assert_eq!(whole(&store, shown.body.expect("it has its bytes")).await, bytes.as_bytes());
        assert_eq!((shown.item.stored_at, shown.timeline.len()), (at(9), 1), "{number}");
        assert_eq!(shown.timeline[0].state, Some(shown.item.state));
    }
    let subject = show(&store, ledger_id(15)).await.item.subject;
    assert!(subject.starts_with("\"'; NUL: ") && subject.ends_with(", behind it"), "{subject:?}");
    assert_eq!(store.store(at(10), &[]).await.expect("nothing is stored"), []);
    // Of one mailbox the first that was stored is handled first, and the dead one is handed to nobody.
    let mut handed = Vec::new();
    while let Some(claimed) = claim_at(&store, 10, 10, 1).await.pop() {
        handed.push(claimed.item.id);
        assert!(finish(&store, 10, &result(&claimed, Event::Handle, 0)).await);
    }
    assert_eq!(handed, [1, 2, 3, 13, 14, 16].map(ledger_id));
}

pub(super) async fn of_mails_that_are_stored_together_all_are_there_or_none(subject: Subject) {
    let (store, seven) = with_inbox(subject).await;
    keep(&store, &received(1, &seven, 1, "bytes 1")).await;
    let eight = place(seven.mailbox, 8);
    let mut torn = received(13, &eight, 13, "torn");
    torn.raw = RawMail::Staged(BodyRef { id: BodyId::new(at(0), [2; 10]), size: 4, sha256: torn.sha256 });
    let mails = [received(11, &eight, 51, "bytes 1"), received(12, &eight, 12, "bytes 12"), torn];
    assert_eq!(kind(store.store(at(9), &mails).await), ErrorKind::NotFound);
    assert_eq!(listed(&store, LedgerQuery::default()).await, [ledger_id(1)]);
    assert_eq!(told(&store, ledger_id(1)).await, ["stored"], "it was not recognised either");
    assert_eq!(store.unknown(&eight, &uids([51, 12])).await.expect("unknown"), uids([51, 12]));
}

pub(super) async fn a_known_key_changes_nothing(subject: Subject) {
    let (store, place) = with_inbox(subject).await;
    let first = received(1, &place, 42, "bytes");
    keep(&store, &first).await;
    let other = received(2, &place, 42, "other bytes");
    assert_eq!(store_one(&store, at(1), &other).await.expect("store"), Stored::Known(first.id));
    assert_eq!(listed(&store, LedgerQuery::default()).await, [first.id]);
    assert_eq!(told(&store, first.id).await, ["stored"]);
}

pub(super) async fn the_same_mail_stored_at_once_is_one_row(subject: Subject) {
    let (store, place) = with_inbox(subject).await;
    let (one, two) = (received(1, &place, 42, "bytes"), received(2, &place, 42, "bytes"));
    let (a, b) = tokio::join!(store_one(&store, at(0), &one), store_one(&store, at(0), &two));
    let both = [a.expect("store"), b.expect("store")];
    let new: Vec<_> = both.iter().filter(|stored| matches!(stored, Stored::New(_))).collect();
    assert_eq!(new.len(), 1, "{both:?}");
    assert_eq!(listed(&store, LedgerQuery::default()).await.len(), 1);
}

pub(super) async fn two_mails_of_the_same_bytes_in_one_epoch_are_two(subject: Subject) {
    let (store, place) = with_inbox(subject).await;
    keep(&store, &received(1, &place, 1, "bytes")).await;
    keep(&store, &received(2, &place, 2, "bytes")).await;
    assert_eq!(listed(&store, LedgerQuery::default()).await.len(), 2);
}

pub(super) async fn a_staged_content_becomes_real_with_its_row(subject: Subject) {
    let (store, place) = with_inbox(subject).await;
    let id = BodyId::new(at(0), [1; 10]);
    let pieces = [vec![1; PIECE], vec![2; PIECE], vec![3; 5]];
    for (number, piece) in (0..).zip(&pieces) {
        store.stage(at(0), id, number, Bytes::from(piece.clone())).await.expect("stage");
    }
    let mut mail = received(1, &place, 1, "bytes");
    mail.size = u64::try_from(2 * PIECE + 5).expect("small");
    let staged = BodyRef { id, size: mail.size, sha256: mail.sha256 };
    mail.raw = RawMail::Staged(staged.clone());
    keep(&store, &mail).await;
    assert_eq!(store.sweep(at(100)).await.expect("sweep"), 0, "a row refers to it");
    let body = show(&store, mail.id).await.body.expect("it has its bytes");
    assert!(whole(&store, body).await == pieces.concat());
    let mut torn = received(2, &place, 2, "bytes");
    for (id, size) in [(BodyId::new(at(0), [2; 10]), 5), (id, mail.size + 1)] {
        torn.raw = RawMail::Staged(BodyRef { id, size, ..staged.clone() });
        assert_eq!(kind(store_one(&store, at(1), &torn).await), ErrorKind::NotFound);
    }
    assert_eq!(listed(&store, LedgerQuery::default()).await, [mail.id]);
}

/// All up to a number, which is one write; how far back it goes is known afterwards. Would miss a baseline that leaves no time behind: after a
/// change of numbers what it left out would count as new.
pub(super) async fn a_baseline_leaves_out_all_up_to_a_number_and_says_until_when(subject: Subject) {
    let (store, place) = with_inbox(subject).await;
    let none = left_out(&store, &place, at(4), Vec::new()).await;
    assert!(store.skip(at(9), &place, &LeftOut { up_to: 7, ..none }).await.expect("skip"));
    assert_eq!(contact(&store, &place).await, Contact::Known { frontier: 7 });
    let renumbered = Place { epoch: place.epoch + 1, ..place };
    assert_eq!(contact(&store, &renumbered).await, Contact::Renumbered { frontier: 0, since: at(4) });
    assert_eq!(listed(&store, LedgerQuery::default()).await, []);
}

/// Would miss a first pass that is over with its first part (old mail is handled as new), and one that never is, or begins anew (new mail
/// is left out).
pub(super) async fn a_baseline_counts_by_date_until_the_first_pass_was_whole(subject: Subject) {
    let (store, place) = with_inbox(subject).await;
    let dated = LeftOut { has_undated: true, ..left_out(&store, &place, at(4), Vec::new()).await };
    assert!(store.skip(at(9), &place, &dated).await.expect("skip"));
    for frontier in [0, 3] {
        reach(&store, &place, Reached::UpTo(frontier)).await;
        assert_eq!(contact(&store, &place).await, Contact::FirstPass { frontier, since: at(4) });
    }
    reach(&store, &place, Reached::Whole(at(9))).await;
    assert_eq!(contact(&store, &place).await, Contact::Known { frontier: 3 });
    for until in [at(4), at(20)] {
        assert!(store.skip(at(10), &place, &LeftOut { until, ..dated.clone() }).await.expect("skip"));
        assert_eq!(contact(&store, &place).await, Contact::Known { frontier: 3 });
    }
}

/// A reader is stopped within its write of the first contact, and the inbox is told to take more meanwhile. Would miss a baseline that
/// counts whatever the settings are by now: the mail would be left out for good.
pub(super) async fn a_baseline_of_settings_that_have_changed_leaves_nothing_out(subject: Subject) {
    let (store, place) = with_inbox(subject).await;
    let old = left_out(&store, &place, at(0), uids(1..=3)).await;
    let mailbox = store.mailbox(place.mailbox).await.expect("mailbox").expect("it is registered");
    store.save(&change(), &mailbox, SecretWrite::Keep).await.expect("save");
    for late in [old.clone(), LeftOut { up_to: 3, keys: Vec::new(), ..old.clone() }] {
        assert!(!store.skip(at(1), &place, &late).await.expect("skip"));
    }
    assert_eq!(contact(&store, &place).await, Contact::First);
    assert_eq!(listed(&store, LedgerQuery::default()).await, []);
    skip(&store, 2, &place, uids(1..=2)).await;
    assert!(!store.skip(at(3), &place, &old).await.expect("skip"));
    assert_eq!(store.unknown(&place, &uids(1..=3)).await.expect("unknown"), uids([3]));
    store.remove(&change(), place.mailbox, None).await.expect("remove");
    assert!(!store.skip(at(4), &place, &old).await.expect("skip"), "the inbox is gone");
}

pub(super) async fn what_the_baseline_leaves_out_is_ignored_for_good(subject: Subject) {
    let (store, place) = with_inbox(subject).await;
    keep(&store, &received(1, &place, 2, "bytes")).await;
    for _ in 0..2 {
        skip(&store, 0, &place, uids(1..=3)).await;
    }
    let seen = contact(&store, &place).await;
    assert_eq!(seen, Contact::Known { frontier: 0 }, "no second contact is the first");
    reach(&store, &place, Reached::UpTo(3)).await;
    skip(&store, 0, &place, uids(1..=1)).await;
    assert_eq!(contact(&store, &place).await, Contact::Known { frontier: 3 });
    assert_eq!(store.unknown(&place, &uids(1..=4)).await.expect("unknown"), uids([4]));
    let ignored = LedgerQuery { state: Some(State::Ignored), ..LedgerQuery::default() };
    let items = LedgerDesk::list(&*store, &ignored).await.expect("list");
    assert_eq!(items.len(), 2, "the stored one is left as it is");
    assert!(items.iter().all(|item| item.reasons == ["baseline"]));
    let skipped = items[0].id;
    assert_eq!(show(&store, skipped).await.body, None);
    let refused = kind(store.replay(at(1), &actor(), skipped).await);
    assert_eq!(refused, ErrorKind::ContentGone, "there are no bytes to handle");
    let again = received(9, &place, 1, "its bytes");
    assert!(matches!(store_one(&store, at(1), &again).await.expect("store"), Stored::Known(_)));
    assert_eq!(unsettled(&store, 9999, &place).await, []);
    assert_eq!(claim_at(&store, 1, 10, 1).await.len(), 1);
}

pub(super) async fn a_renumbered_folder_is_recognised_by_its_bytes(subject: Subject) {
    let (store, seven) = with_inbox(subject).await;
    keep_all(&store, &seven, 1..=2).await;
    let eight = place(seven.mailbox, 8);
    let moved = received(11, &eight, 51, "bytes 1");
    assert_eq!(store_one(&store, at(9), &moved).await.expect("store"), Stored::Recognised(ledger_id(1)));
    assert_eq!(store_one(&store, at(9), &moved).await.expect("store"), Stored::Known(ledger_id(1)));
    let shown = show(&store, ledger_id(1)).await;
    assert_eq!((shown.item.epoch, shown.item.key, shown.item.state), (8, RemoteKey::Uid(51), State::Stored));
    assert_eq!(told(&store, ledger_id(1)).await, ["stored", "recognised"]);
    let new = received(12, &eight, 52, "bytes of a new mail");
    keep(&store, &new).await;
    assert_eq!(listed(&store, LedgerQuery::default()).await, [1, 2, 12].map(ledger_id));
    assert_eq!(store.unknown(&eight, &uids([51, 52, 53])).await.expect("unknown"), uids([53]));
}

pub(super) async fn n_copies_account_for_at_most_n_mails(subject: Subject) {
    let (store, seven) = with_inbox(subject).await;
    keep(&store, &received(1, &seven, 1, "bytes")).await;
    keep(&store, &received(2, &seven, 2, "bytes")).await;
    let eight = place(seven.mailbox, 8);
    let mut found = Vec::new();
    for (number, uid) in [(11, 1), (12, 2), (13, 3)] {
        found.push(store_one(&store, at(1), &received(number, &eight, uid, "bytes")).await.expect("store"));
    }
    found.sort_by_key(|stored| match stored {
        Stored::Recognised(id) | Stored::New(id) | Stored::Known(id) => *id,
        Stored::Undecided(_) => panic!("they arrived at other moments"),
    });
    let (one, two, three) = (ledger_id(1), ledger_id(2), ledger_id(13));
    assert_eq!(found, [Stored::Recognised(one), Stored::Recognised(two), Stored::New(three)]);
    let nine = place(seven.mailbox, 9);
    let again = store_one(&store, at(2), &received(14, &nine, 1, "bytes")).await.expect("store");
    assert!(matches!(again, Stored::Recognised(_)), "renumbered once more");
}

/// A mail of a POP3 box under a UIDL, while the box shows those.
fn uidl(number: u32, of: &Place, uidl: &str, shown: &[&str], bytes: &str) -> Received {
    let place = Place { folder: String::new(), epoch: 0, ..of.clone() };
    let key = |uidl: &str| RemoteKey::Uidl(uidl.to_owned());
    let recognition = Recognition::NotShown(Arc::new(shown.iter().map(|uidl| key(uidl)).collect()));
    Received { key: key(uidl), recognition, ..received(number, &place, 0, bytes) }
}

pub(super) async fn without_epochs_a_mail_that_has_another_key_is_recognised_by_its_bytes(subject: Subject) {
    let (store, of) = with_inbox(subject).await;
    for (number, key) in [(1, "a"), (2, "b"), (3, "gone")] {
        let mut mail = uidl(number, &of, key, &["a", "b", "gone"], &format!("bytes {number}"));
        mail.settle_at = Some(at(0));
        keep(&store, &mail).await;
    }
    let shown = ["x", "y", "b", "z"];
    let moved = uidl(11, &of, "x", &shown, "bytes 1");
    assert_eq!(store_one(&store, at(9), &moved).await.expect("store"), Stored::Recognised(ledger_id(1)));
    // Each round may end behind any mail: the next one finds the key known.
    assert_eq!(store_one(&store, at(9), &moved).await.expect("store"), Stored::Known(ledger_id(1)));
    let record = show(&store, ledger_id(1)).await;
    assert_eq!((record.item.epoch, &record.item.key, record.item.state), (0, &moved.key, State::Stored));
    assert_eq!(told(&store, ledger_id(1)).await, ["stored", "recognised"]);
    keep(&store, &uidl(12, &of, "y", &shown, "bytes of a new mail")).await;
    keep(&store, &Received { size: 99, ..uidl(13, &of, "z", &shown, "bytes 2") }).await;
    assert_eq!(unsettled(&store, 9, &moved.place).await, [1, 2, 3].map(ledger_id), "under the keys of now");
    let back = uidl(14, &of, "a", &["a"], "bytes 1");
    assert_eq!(
        store_one(&store, at(9), &back).await.expect("store"),
        Stored::Recognised(ledger_id(1)),
        "as before"
    );
    let content = Received { key: RemoteKey::Content("00ff".to_owned(), 1), ..back };
    let recognition = Recognition::NotShown(Arc::default());
    let lost_its_uidl = store_one(&store, at(9), &Received { recognition, ..content }).await;
    assert_eq!(lost_its_uidl.expect("store"), Stored::Recognised(ledger_id(1)));
}

pub(super) async fn a_mail_that_its_box_shows_gives_its_row_to_no_other(subject: Subject) {
    let (store, of) = with_inbox(subject).await;
    keep(&store, &uidl(1, &of, "a", &["a", "b"], "bytes")).await;
    keep(&store, &uidl(2, &of, "b", &["a", "b"], "bytes")).await;
    // Two of three are known, whichever they are.
    let shown = ["x", "y", "z"];
    let mut found = Vec::new();
    for (number, key) in [(11, "x"), (12, "y"), (13, "z")] {
        found.push(store_one(&store, at(1), &uidl(number, &of, key, &shown, "bytes")).await.expect("store"));
    }
    let [one, two, three] = [1, 2, 13].map(ledger_id);
    assert_eq!(found, [Stored::Recognised(one), Stored::Recognised(two), Stored::New(three)]);
}

/// Two large mails that begin alike: the fetched part of one is no sign of the other, whichever way their keys changed.
pub(super) async fn what_was_not_fetched_whole_is_recognised_as_none(subject: Subject) {
    let (store, seven) = with_inbox(subject).await;
    keep(&store, &received(1, &seven, 1, "bytes")).await;
    keep(&store, &uidl(2, &seven, "a", &["a"], "bytes")).await;
    let torn = |mail| Received { recognition: Recognition::None, ..mail };
    keep(&store, &torn(received(11, &place(seven.mailbox, 8), 1, "bytes"))).await;
    keep(&store, &torn(uidl(12, &seven, "x", &[], "bytes"))).await;
    assert_eq!(listed(&store, LedgerQuery::default()).await, [1, 2, 11, 12].map(ledger_id));
}

/// Would miss a search that ends behind so many, also within one call.
pub(super) async fn however_many_mails_are_equal_each_is_recognised(subject: Subject) {
    let (store, of) = with_inbox(subject).await;
    let keys: Vec<String> = (1..=1001).map(|number| format!("a{number}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let first = uidl(1, &of, keys[0], &keys, "bytes");
    let equal = |(key, number): (&&str, u32)| {
        let recognition = first.recognition.clone();
        Received { recognition, ..uidl(number, &of, key, &[], "bytes") }
    };
    let equal: Vec<Received> = keys.iter().zip(1..).map(equal).collect();
    store.store(at(0), &equal).await.expect("store");
    // Two of them are gone, and three have come.
    let shown: HashSet<&str> = keys.iter().copied().filter(|key| !["a740", "a1001"].contains(key)).collect();
    let shown: Vec<&str> = shown.into_iter().chain(["x", "y", "z"]).collect();
    let come = [(2001, "x"), (2002, "y"), (2003, "z")];
    let come = come.map(|(number, key)| uidl(number, &of, key, &shown, "bytes"));
    let [one, two, three] = [740, 1001, 2003].map(ledger_id);
    let stored = store.store(at(1), &come).await.expect("store");
    assert_eq!(stored, [Stored::Recognised(one), Stored::Recognised(two), Stored::New(three)]);
}

pub(super) async fn what_comes_with_the_bytes_of_a_deleted_mail_is_another_mail(subject: Subject) {
    let (store, of) = with_inbox(subject).await;
    keep(&store, &uidl(1, &of, "a", &["a", "b"], "bytes")).await;
    keep(&store, &uidl(2, &of, "b", &["a", "b"], "bytes")).await;
    store.settled(at(1), &[ledger_id(1)], Told::TakeAway).await.expect("settled");
    let again = store_one(&store, at(2), &uidl(11, &of, "x", &["x"], "bytes")).await.expect("store");
    assert_eq!(again, Stored::Recognised(ledger_id(2)), "not the one that is gone");
    keep(&store, &uidl(12, &of, "y", &["x", "y"], "bytes")).await;
}

/// A mail that arrived when all of its kind did.
fn twin(number: u32, of: &Place, uid: u32) -> Received {
    Received { arrived: Some(at(-60)), ..received(number, of, uid, "bytes") }
}

/// The same once its box was asked, and does not show these.
fn decided(number: u32, of: &Place, uid: u32, gone: impl IntoIterator<Item = u32>) -> Received {
    let gone = uids(gone).into_iter().collect();
    Received { recognition: Recognition::Gone(Arc::new(gone)), ..twin(number, of, uid) }
}

/// Would miss a second row for a mail to which its server gave another UID (seen to fail so), and a row for what the box must say first.
pub(super) async fn within_an_epoch_the_box_says_which_of_two_equal_mails_a_mail_is(subject: Subject) {
    let (store, seven) = with_inbox(subject).await;
    keep(&store, &Received { settle_at: Some(at(0)), ..twin(1, &seven, 1) }).await;
    store.settled(at(1), &[ledger_id(1)], Told::Keep).await.expect("settled");
    let other = twin(3, &seven, 3);
    let mails = [twin(2, &seven, 2), Received { sha256: [9; 32], ..other.clone() }];
    let stored = store.store(at(2), &mails).await.expect("store");
    assert_eq!(
        stored,
        [Stored::Undecided(uids([1])), Stored::New(ledger_id(3))],
        "the others wait for nobody"
    );
    assert_eq!(store.unknown(&seven, &uids([1, 2, 3])).await.expect("unknown"), uids([2]));
    let shown = store_one(&store, at(3), &decided(2, &seven, 2, [])).await.expect("store");
    assert_eq!(shown, Stored::New(ledger_id(2)), "both are shown");
    let undecided = store_one(&store, at(4), &twin(4, &seven, 4)).await.expect("store");
    assert_eq!(undecided, Stored::Undecided(uids([2, 1])));
    let gone = decided(4, &seven, 4, [1]);
    assert_eq!(store_one(&store, at(4), &gone).await.expect("store"), Stored::Recognised(ledger_id(1)));
    assert_eq!(store_one(&store, at(5), &gone).await.expect("store"), Stored::Known(ledger_id(1)));
    assert_eq!(told(&store, ledger_id(1)).await, ["stored", "settled", "recognised"]);
    assert_eq!(unsettled(&store, 5, &seven).await, [ledger_id(1)], "under the key of now");
    // Two at once, for which two are gone.
    let both = [decided(5, &seven, 5, [2, 4]), decided(6, &seven, 6, [2, 4]), decided(7, &seven, 7, [2, 4])];
    let stored = store.store(at(6), &both).await.expect("store");
    let [one, two, seventh] = [1, 2, 7].map(ledger_id);
    assert_eq!(stored, [Stored::Recognised(two), Stored::Recognised(one), Stored::New(seventh)]);
}

/// Each mail has the bytes of one that is there, and is another one all the same. Would miss a mail that comes again: it is lost. Seen to
/// fail so.
pub(super) async fn what_comes_again_within_an_epoch_is_another_mail(subject: Subject) {
    let (store, seven) = with_inbox(subject).await;
    let taken = Received { settle_at: Some(at(0)), ..twin(1, &seven, 1) };
    keep(&store, &taken).await;
    store.settled(at(1), &[taken.id], Told::TakeAway).await.expect("settled");
    keep(&store, &twin(2, &seven, 2)).await;
    // Only the first of them was told to go.
    let later = Received { arrived: Some(at(-59)), ..twin(3, &seven, 3) };
    keep(&store, &later).await;
    keep(&store, &Received { arrived: None, ..twin(4, &seven, 4) }).await;
    keep(&store, &Received { size: 99, ..twin(5, &seven, 5) }).await;
    keep(&store, &Received { sha256: [9; 32], ..twin(6, &seven, 6) }).await;
    let folder = Place { folder: "INBOX".to_owned(), ..seven.clone() };
    keep(&store, &twin(7, &folder, 7)).await;
    keep(&store, &Received { recognition: Recognition::None, ..twin(8, &seven, 8) }).await;
    let gone = Received { arrived: Some(at(-58)), ..decided(9, &seven, 9, [1, 2, 3, 4, 5, 6, 8]) };
    keep(&store, &gone).await;
    assert_eq!(listed(&store, LedgerQuery::default()).await.len(), 9);
}

/// Would miss a question without end to the server, and a statement that looks at all of them.
pub(super) async fn of_equal_mails_a_few_that_came_last_are_asked_for(subject: Subject) {
    let (store, seven) = with_inbox(subject).await;
    let most = u32::try_from(EQUALS).expect("a small number");
    let old = twin(1, &seven, 1);
    keep(&store, &old).await;
    let others: Vec<Received> = (2..=most).map(|number| received(number, &seven, number, "bytes")).collect();
    store.store(at(0), &others).await.expect("store");
    let mail = twin(most + 1, &seven, most + 1);
    let asked = store_one(&store, at(1), &mail).await.expect("store");
    assert_eq!(asked, Stored::Undecided(uids([1])));
    let twins: Vec<Received> = (0..20).map(|more| twin(most + 1 + more, &seven, most + 1 + more)).collect();
    let decide = |mail: Received| Received { recognition: Recognition::Gone(Arc::default()), ..mail };
    let twins: Vec<Received> = twins.into_iter().map(decide).collect();
    store.store(at(1), &twins).await.expect("store");
    let asked = store_one(&store, at(2), &twin(most + 21, &seven, most + 21)).await.expect("store");
    let Stored::Undecided(keys) = asked else { panic!("{asked:?}") };
    assert_eq!(keys, uids((most + 5..=most + 20).rev()));
    assert_eq!(keys.len(), TWINS);
}

pub(super) async fn the_same_bytes_in_another_folder_or_mailbox_are_another_mail(subject: Subject) {
    let (store, seven) = with_inbox(subject).await;
    keep(&store, &received(1, &seven, 1, "bytes")).await;
    let other = add(&store, inbox("imap.acme.example")).await;
    keep(&store, &received(2, &place(other, 8), 1, "bytes")).await;
    let folder = Place { folder: "INBOX".to_owned(), epoch: 8, ..seven };
    keep(&store, &received(3, &folder, 1, "bytes")).await;
    keep(&store, &uidl(4, &folder, "a", &["a"], "bytes")).await;
    let other = place(add(&store, inbox("pop.acme.example")).await, 0);
    keep(&store, &uidl(5, &other, "x", &["x"], "bytes")).await;
}

pub(super) async fn a_mail_is_to_be_settled_from_its_time_on_until_it_was(subject: Subject) {
    let (store, seven) = with_inbox(subject).await;
    let days = |days: i64| at(days * 24 * 3600);
    for (number, settle_at) in [(1, None), (2, Some(at(0))), (3, Some(days(3))), (4, Some(at(0)))] {
        let mut mail = received(number, &seven, number, &format!("bytes {number}"));
        mail.settle_at = settle_at;
        keep(&store, &mail).await;
    }
    assert_eq!(unsettled(&store, 0, &seven).await, [2, 4].map(ledger_id));
    let first = store.unsettled(at(0), &seven, 1).await.expect("unsettled");
    assert_eq!(first, [Unsettled { id: ledger_id(2), key: RemoteKey::Uid(2) }]);
    assert_eq!(unsettled(&store, 0, &place(seven.mailbox, 8)).await, [], "another epoch");
    for _ in 0..2 {
        store
            .settled(at(1), &[ledger_id(2), ledger_id(4), ledger_id(99)], Told::Keep)
            .await
            .expect("settled");
    }
    assert_eq!(told(&store, ledger_id(2)).await, ["stored", "settled"], "once");
    assert_eq!(unsettled(&store, 1, &seven).await, []);
    let third_day = 3 * 24 * 3600;
    assert_eq!(unsettled(&store, third_day - 1, &seven).await, []);
    assert_eq!(unsettled(&store, third_day, &seven).await, [ledger_id(3)], "deleted after days");
}

pub(super) async fn a_recognised_mail_is_settled_again(subject: Subject) {
    let (store, seven) = with_inbox(subject).await;
    let mut mail = received(1, &seven, 1, "bytes");
    mail.settle_at = Some(at(0));
    keep(&store, &mail).await;
    keep(&store, &received(2, &seven, 2, "never told")).await;
    store.settled(at(1), &[mail.id], Told::Keep).await.expect("settled");
    let eight = place(seven.mailbox, 8);
    let moved = received(11, &eight, 5, "bytes");
    store_one(&store, at(2), &moved).await.expect("store");
    store_one(&store, at(2), &received(12, &eight, 6, "never told")).await.expect("store");
    assert_eq!(unsettled(&store, 2, &eight).await, [mail.id], "the server came back from before it was told");
    assert_eq!(unsettled(&store, 2, &seven).await, []);
}

pub(super) async fn a_claim_gives_what_the_handler_needs(subject: Subject) {
    let (store, place) = with_inbox(subject).await;
    keep_all(&store, &place, 1..=1).await;
    let claimed = claim_one(&store, 1).await;
    let shown = show(&store, ledger_id(1)).await;
    assert_eq!((&claimed.item, claimed.attempt), (&shown.item, 1));
    assert_eq!(Some(claimed.body), shown.body);
    assert_eq!(shown.attempts, 1, "a call counts when it begins");
}

pub(super) async fn mails_of_one_mailbox_are_handled_one_by_one_in_the_order_stored(subject: Subject) {
    let (store, first) = with_inbox(subject).await;
    let second = place(add(&store, inbox("imap.zeta.example")).await, 7);
    // Stored against the order of ids and UIDs.
    for (number, place, uid) in [(9, &first, 30), (1, &first, 10), (5, &second, 20), (2, &second, 40)] {
        keep(&store, &received(number, place, uid, &format!("bytes {number}"))).await;
    }
    let mut order = Vec::new();
    for seconds in [1, 2] {
        let claimed = claim_at(&store, seconds, 10, 1).await;
        assert_eq!(claim_at(&store, seconds, 10, 2).await, [], "each mailbox has a live claim");
        let mut ids: Vec<_> = claimed.iter().map(|one| one.item.id).collect();
        ids.sort_unstable();
        order.push(ids);
        for one in &claimed {
            assert!(finish(&store, seconds, &result(one, Event::Handle, 0)).await);
        }
    }
    assert_eq!(order, [[5, 9].map(ledger_id), [1, 2].map(ledger_id)]);
    assert_eq!(claim_at(&store, 9, 10, 1).await, []);
}

pub(super) async fn a_limit_of_claims_is_kept(subject: Subject) {
    let store = subject.store;
    for number in 1..=3 {
        let inbox = add(&store, inbox("imap.acme.example")).await;
        keep(&store, &received(number, &place(inbox, 1), 1, "bytes")).await;
    }
    assert_eq!(claim_at(&store, 1, 2, 1).await.len(), 2);
    assert_eq!(claim_at(&store, 1, 2, 1).await.len(), 1);
}

pub(super) async fn workers_claim_different_mailboxes(subject: Subject) {
    let store = subject.store;
    for number in 1..=20 {
        let inbox = add(&store, inbox("imap.acme.example")).await;
        let place = place(inbox, 1);
        keep(&store, &received(number, &place, 1, "bytes")).await;
        keep(&store, &received(number + 100, &place, 2, "more")).await;
    }
    let mut mailboxes: Vec<MailboxId> = Vec::new();
    loop {
        let (a, b) = tokio::join!(claim_at(&store, 1, 3, 1), claim_at(&store, 1, 3, 2));
        if a.is_empty() && b.is_empty() {
            break;
        }
        mailboxes.extend(a.iter().chain(&b).map(|one| one.item.mailbox));
        assert!(mailboxes.len() <= 20, "a mailbox was claimed twice");
    }
    let claims = mailboxes.len();
    mailboxes.sort_unstable();
    mailboxes.dedup();
    assert_eq!((claims, mailboxes.len()), (20, 20), "each mailbox once");
}

pub(super) async fn a_mail_that_is_deferred_lets_the_next_one_go(subject: Subject) {
    let (store, place) = with_inbox(subject).await;
    keep_all(&store, &place, 1..=2).await;
    let poison = claim_one(&store, 0).await;
    assert_eq!(poison.item.id, ledger_id(1));
    assert!(finish(&store, 1, &result(&poison, Event::Defer, 60)).await);
    let next = claim_one(&store, 1).await;
    assert_eq!(next.item.id, ledger_id(2));
    assert!(finish(&store, 2, &result(&next, Event::Handle, 0)).await);
    assert_eq!(claim_at(&store, 59, 1, 1).await, []);
    let again = claim_one(&store, 60).await;
    assert_eq!((again.item.id, again.attempt), (ledger_id(1), 2));
    assert!(finish(&store, 61, &result(&again, Event::Die, 0)).await);
    let shown = show(&store, ledger_id(1)).await;
    assert_eq!((shown.item.state, shown.attempts), (State::Dead, 2));
    assert!(shown.body.is_some(), "a dead letter keeps its bytes");
    let whats: Vec<_> = shown.timeline.iter().map(|entry| (entry.what.as_str(), entry.state)).collect();
    assert_eq!(whats, [("stored", Some(State::Stored)), ("defer", None), ("die", Some(State::Dead))]);
    assert_eq!(shown.timeline[2].detail, "the handler said die");
    assert_eq!(claim_at(&store, 9999, 1, 1).await, []);
}

pub(super) async fn a_claim_whose_lease_ran_out_is_taken_over_and_its_result_is_refused(subject: Subject) {
    let (store, place) = with_inbox(subject).await;
    keep_all(&store, &place, 1..=1).await;
    let first = claim_one(&store, 0).await;
    assert_eq!(claim_at(&store, 29, 1, 2).await, []);
    let second = claim_at(&store, 30, 1, 2).await.pop().expect("the lease ran out");
    assert_eq!((second.item.id, second.attempt), (ledger_id(1), 2));
    assert!(!finish(&store, 31, &result(&first, Event::Die, 0)).await, "the row is the next worker's");
    assert_eq!(show(&store, ledger_id(1)).await.item.state, State::Stored);
    assert!(finish(&store, 31, &result(&second, Event::Handle, 0)).await);
    assert!(!finish(&store, 32, &result(&second, Event::Die, 0)).await, "once");
    assert_eq!(show(&store, ledger_id(1)).await.item.state, State::Handled);
}

pub(super) async fn the_fence_of_a_result_is_the_claim_and_not_its_lease(subject: Subject) {
    let (store, place) = with_inbox(subject).await;
    keep_all(&store, &place, 1..=1).await;
    let claimed = claim_one(&store, 0).await;
    let stranger =
        HandlerResult { claim: ClaimId::new(at(0), [9; 10]), ..result(&claimed, Event::Handle, 0) };
    assert!(!finish(&store, 1, &stranger).await);
    let gone = HandlerResult { id: ledger_id(99), ..stranger };
    assert!(!finish(&store, 1, &gone).await);
    for event in [Event::Replay, Event::Route] {
        let refused = kind(store.finish(at(1), &result(&claimed, event, 0)).await);
        assert_eq!(refused, ErrorKind::NotPossible { state: "stored" }, "{event} is no handler's");
    }
    assert!(finish(&store, 100, &result(&claimed, Event::Handle, 0)).await, "nobody has taken it over");
    assert_eq!(show(&store, ledger_id(1)).await.item.state, State::Handled);
}

pub(super) async fn a_renewal_extends_the_live_claims_of_its_worker_only(subject: Subject) {
    let store = subject.store;
    for number in 1..=3 {
        let inbox = add(&store, inbox("imap.acme.example")).await;
        keep(&store, &received(number, &place(inbox, 1), 1, "bytes")).await;
    }
    claim_at(&store, 0, 1, 1).await;
    let live = claim_at(&store, 20, 1, 1).await;
    claim_at(&store, 20, 1, 2).await;
    assert_eq!(LedgerWork::renew(&*store, at(40), worker(1), at(70)).await.expect("renew"), 1);
    let taken = claim_at(&store, 60, 10, 3).await;
    assert_eq!(taken.len(), 2);
    assert!(taken.iter().all(|one| one.item.id != live[0].item.id), "a renewed claim was taken");
    assert_eq!(claim_at(&store, 70, 10, 3).await.len(), 1);
}

pub(super) async fn next_due_and_open_claims_tell_what_is_ahead(subject: Subject) {
    let (store, place) = with_inbox(subject).await;
    let open = async || LedgerWork::open_claims(&*store).await.expect("open_claims");
    assert_eq!((next_due(&store, 0).await, open().await), (None, 0));
    keep_all(&store, &place, 1..=1).await;
    let claimed = claim_one(&store, 0).await;
    assert_eq!((next_due(&store, 1).await, open().await), (Some(at(30)), 1), "a lease runs out");
    assert_eq!(open().await, 1);
    assert!(finish(&store, 2, &result(&claimed, Event::Defer, 60)).await);
    assert_eq!((next_due(&store, 2).await, open().await), (Some(at(60)), 0), "a mail becomes due");
    let claimed = claim_one(&store, 60).await;
    assert!(finish(&store, 61, &result(&claimed, Event::Handle, 0)).await);
    assert_eq!((next_due(&store, 61).await, open().await), (None, 0));
}

pub(super) async fn a_replayed_mail_is_handled_anew(subject: Subject) {
    let (store, place) = with_inbox(subject).await;
    keep_all(&store, &place, 1..=2).await;
    for (number, event) in [(1, Event::Die), (2, Event::Handle)] {
        let claimed = claim_one(&store, 0).await;
        assert!(finish(&store, 1, &result(&claimed, event, 0)).await);
        let id = ledger_id(number);
        store.replay(at(2), &actor(), id).await.expect("replay");
        let shown = show(&store, id).await;
        assert_eq!((shown.item.state, shown.attempts), (State::Stored, 0));
        let last = shown.timeline.last().expect("a timeline");
        assert_eq!((last.what.as_str(), &last.actor), ("replay", &Some(actor())));
        let again = claim_one(&store, 2).await;
        assert_eq!((again.item.id, again.attempt), (id, 1), "attempts are counted anew");
        assert_eq!(kind(store.replay(at(3), &actor(), id).await), ErrorKind::NotPossible { state: "stored" });
        assert!(finish(&store, 3, &result(&again, Event::Handle, 0)).await);
    }
    assert_eq!(kind(store.replay(at(3), &actor(), ledger_id(99)).await), ErrorKind::NotFound);
}

pub(super) async fn a_mail_in_triage_or_quarantine_waits_until_a_person_routes_it(subject: Subject) {
    let (store, place) = with_inbox(subject).await;
    for (number, state) in [(1, State::Triage), (2, State::Quarantined)] {
        let mut mail = received(number, &place, number, &format!("bytes {number}"));
        (mail.state, mail.contract) = (state, None);
        keep(&store, &mail).await;
        assert_eq!(claim_at(&store, 1, 1, 1).await, []);
        let contract = contract_id("acme ");
        store.route(at(2), &actor(), mail.id, &contract).await.expect("route");
        let claimed = claim_one(&store, 2).await;
        assert_eq!((claimed.item.id, &claimed.item.contract), (mail.id, &Some(contract.clone())));
        let shown = show(&store, mail.id).await;
        let last = shown.timeline.last().expect("a timeline");
        assert_eq!(
            (last.what.as_str(), last.state, &last.actor),
            ("route", Some(State::Stored), &Some(actor()))
        );
        let refused = store.route(at(3), &actor(), mail.id, &contract).await;
        assert_eq!(kind(refused), ErrorKind::NotPossible { state: "stored" });
        assert!(finish(&store, 3, &result(&claimed, Event::Handle, 0)).await);
    }
    let gone = store.route(at(3), &actor(), ledger_id(99), &contract_id("ACME")).await;
    assert_eq!(kind(gone), ErrorKind::NotFound);
}

pub(super) async fn what_a_person_ignores_nobody_handles_until_it_is_replayed(subject: Subject) {
    let (store, place) = with_inbox(subject).await;
    for (number, state) in [(1, State::Triage), (2, State::Quarantined), (3, State::Stored)] {
        let mut mail = received(number, &place, number, &format!("bytes {number}"));
        mail.state = state;
        keep(&store, &mail).await;
        let claimed = claim_at(&store, 1, 1, 1).await.pop();
        store.ignore(at(2), &actor(), mail.id).await.expect("ignore");
        if let Some(claimed) = claimed {
            assert!(!finish(&store, 3, &result(&claimed, Event::Handle, 0)).await, "it came too late");
        }
        let shown = show(&store, mail.id).await;
        let last = shown.timeline.last().expect("a timeline");
        assert_eq!(
            (shown.item.state, last.what.as_str(), &last.actor),
            (State::Ignored, "ignore", &Some(actor()))
        );
        assert_eq!(claim_at(&store, 9999, 1, 1).await, []);
        let refused = store.ignore(at(3), &actor(), mail.id).await;
        assert_eq!(kind(refused), ErrorKind::NotPossible { state: "ignored" });
    }
    assert_eq!(kind(store.ignore(at(3), &actor(), ledger_id(99)).await), ErrorKind::NotFound);
    store.replay(at(4), &actor(), ledger_id(1)).await.expect("replay");
    assert_eq!(claim_one(&store, 4).await.item.id, ledger_id(1));
}

pub(super) async fn a_mail_is_completed_under_the_claim_that_handled_it(subject: Subject) {
    let (store, place) = with_inbox(subject).await;
    keep_all(&store, &place, 1..=2).await;
    let completed = async |of: &ClaimedMail| {
        let claim = Committing { id: of.item.id, claim: of.claim };
        store.completed(&claim).await.expect("completed")
    };
    let lost = claim_one(&store, 0).await;
    let claimed = claim_one(&store, 30).await;
    assert!(!completed(&claimed).await, "nothing was said yet");
    assert!(finish(&store, 31, &result(&claimed, Event::Handle, 0)).await);
    assert_eq!((completed(&claimed).await, completed(&lost).await), (true, false));
    store.replay(at(32), &actor(), claimed.item.id).await.expect("replay");
    assert!(!completed(&claimed).await, "it is to be handled anew");
    let again = claim_one(&store, 32).await;
    assert!(finish(&store, 33, &result(&again, Event::Die, 0)).await);
    assert!(!completed(&again).await, "dead is not handled");
    let gone = Committing { id: ledger_id(99), claim: claimed.claim };
    assert!(!store.completed(&gone).await.expect("completed"));
}

pub(super) async fn an_ignored_mail_is_not_handled_and_can_be_replayed(subject: Subject) {
    let (store, place) = with_inbox(subject).await;
    let mut mail = received(1, &place, 1, "bytes");
    mail.state = State::Ignored;
    keep(&store, &mail).await;
    assert_eq!(claim_at(&store, 1, 1, 1).await, []);
    store.replay(at(1), &actor(), mail.id).await.expect("replay");
    assert_eq!(claim_one(&store, 1).await.item.id, mail.id);
}

pub(super) async fn mails_are_listed_by_state_and_mailbox_in_pages(subject: Subject) {
    let (store, first) = with_inbox(subject).await;
    let second = place(add(&store, inbox("imap.zeta.example")).await, 7);
    for number in 1..=6 {
        let place = if number % 2 == 0 { &first } else { &second };
        let mut mail = received(number, place, number, &format!("bytes {number}"));
        mail.state = if number > 4 { State::Triage } else { State::Stored };
        keep(&store, &mail).await;
    }
    let of = |numbers: &[u32]| numbers.iter().map(|number| ledger_id(*number)).collect::<Vec<_>>();
    let query = LedgerQuery::default;
    assert_eq!(listed(&store, query()).await, of(&[1, 2, 3, 4, 5, 6]));
    assert_eq!(listed(&store, LedgerQuery { state: Some(State::Triage), ..query() }).await, of(&[5, 6]));
    let its = LedgerQuery { mailbox: Some(first.mailbox), ..query() };
    assert_eq!(listed(&store, its.clone()).await, of(&[2, 4, 6]));
    let page = LedgerQuery { limit: Some(2), ..its };
    assert_eq!(listed(&store, page.clone()).await, of(&[2, 4]));
    assert_eq!(listed(&store, LedgerQuery { after: Some(ledger_id(4)), ..page }).await, of(&[6]));
}

/// A reader that was stopped in the middle of a call, past its lease, and goes on when another has read the box by its new numbers: what it
/// writes was true while it had the lease, and takes back nothing of what the other wrote. Would miss a write that counts as the newest.
pub(super) async fn what_a_late_reader_writes_takes_nothing_back(subject: Subject) {
    let (store, old) = with_inbox(subject).await;
    let new = place(old.mailbox, 8);
    keep_all(&store, &old, 1..=2).await;
    reach(&store, &old, Reached::UpTo(2)).await;
    reach(&store, &old, Reached::Whole(at(0))).await;
    // The other one: both are recognised under new numbers, a third is new.
    for (number, uid) in [(11, 51), (12, 52)] {
        let known = received(number, &new, uid, &format!("bytes {}", number - 10));
        assert_eq!(
            store_one(&store, at(1), &known).await.expect("store"),
            Stored::Recognised(ledger_id(number - 10))
        );
    }
    keep(&store, &received(3, &new, 53, "bytes 3")).await;
    reach(&store, &new, Reached::UpTo(53)).await;
    reach(&store, &new, Reached::Whole(at(1))).await;
    // The late one, which still sees the old numbers.
    let late = received(21, &old, 3, "bytes 3");
    assert_eq!(store_one(&store, at(2), &late).await.expect("store"), Stored::Recognised(ledger_id(3)));
    reach(&store, &old, Reached::UpTo(1)).await;
    reach(&store, &new, Reached::UpTo(1)).await;
    skip(&store, 2, &new, uids([51, 52])).await;
    store.settled(at(2), &[ledger_id(1)], Told::Keep).await.expect("settled");
    assert_eq!(contact(&store, &new).await, Contact::Known { frontier: 53 });
    assert_eq!(contact(&store, &old).await, Contact::Known { frontier: 2 });
    let all = listed(&store, LedgerQuery::default()).await;
    assert_eq!(all, [1, 2, 3].map(ledger_id), "no mail is there twice");
    for number in 1..=3 {
        assert_eq!(
            show(&store, ledger_id(number)).await.item.state,
            State::Stored,
            "it is still to be handled"
        );
    }
    // Found again under its new number, it is that mail once more.
    let again = received(31, &new, 53, "bytes 3");
    assert!(!matches!(store_one(&store, at(3), &again).await.expect("store"), Stored::New(_)));
    assert_eq!(listed(&store, LedgerQuery::default()).await.len(), 3);
}

pub(super) async fn the_ledger_survives_a_reopening(subject: Subject) {
    let store = &subject.store;
    let place = place(add(store, inbox("imap.acme.example")).await, 7);
    keep_all(store, &place, 1..=2).await;
    reach(store, &place, Reached::UpTo(2)).await;
    let claimed = claim_one(store, 0).await;
    let store = subject.restarted().await;
    assert_eq!(contact(&store, &place).await, Contact::Known { frontier: 2 });
    assert_eq!(store.unknown(&place, &uids([1, 2, 3])).await.expect("unknown"), uids([3]));
    let body = show(&store, ledger_id(2)).await.body.expect("it has its bytes");
    assert_eq!(whole(&store, body).await, b"bytes 2");
    assert!(finish(&store, 1, &result(&claimed, Event::Handle, 0)).await);
    let later = at(1) + Duration::from_secs(1);
    let next = LedgerWork::claim(&*store, later, 1, worker(1), at(60)).await.expect("claim");
    assert_eq!(next[0].item.id, ledger_id(2));
}

const DAY: i64 = 24 * 3600;

/// Mails 1 to 7: handled, ignored and dead of a contract that keeps bytes for 3 days, timelines for 40, dead letters for 60; stored,
/// in triage and in quarantine; and one handled without a contract.
async fn finished(store: &Arc<dyn Store>, place: &Place) {
    let mut acme = Contract::new(contract_id("ACME"));
    (acme.retention.raw, acme.retention.timelines, acme.retention.dead) = (3, 40, 60);
    save_contract(store, &acme).await;
    for number in 1..=7 {
        let mut mail = received(number, place, number, &format!("bytes {number}"));
        match number {
            2 => mail.state = State::Ignored,
            5 => (mail.state, mail.contract) = (State::Triage, None),
            6 => mail.state = State::Quarantined,
            7 => (mail.state, mail.contract) = (State::Ignored, None),
            _ => {}
        }
        keep(store, &mail).await;
        let event = match number {
            1 => Event::Handle,
            3 => Event::Die,
            _ => continue,
        };
        let claimed = claim_one(store, 0).await;
        assert!(finish(store, 0, &result(&claimed, event, 0)).await);
    }
}

/// Which of the mails 1 to 7 are there: whole, without their bytes, or with nothing but their key.
async fn left(store: &Arc<dyn Store>) -> String {
    let mut left = String::new();
    for number in 1..=7 {
        let shown = show(store, ledger_id(number)).await;
        let item = &shown.item;
        let is_bare = shown.timeline.is_empty();
        let is_empty = item.sender.is_empty() && item.subject.is_empty() && item.message_id.is_none();
        assert_eq!(is_bare, is_empty, "mail {number} is whole or has nothing but its key: {shown:?}");
        left.push(match shown.body {
            Some(body) => {
                assert!(!is_bare && store.piece(body, 0).await.expect("piece").is_some());
                'w'
            }
            None if is_bare => '-',
            None => 'r',
        });
    }
    left
}

async fn prune(store: &Arc<dyn Store>, seconds: i64) -> (u64, u64) {
    let pruned = LedgerDesk::prune(&**store, at(seconds), 100).await.expect("prune");
    (pruned.bodies, pruned.mails)
}

pub(super) async fn received_mail_is_kept_as_its_contract_says_and_what_waits_for_ever(subject: Subject) {
    let (store, place) = with_inbox(subject).await;
    finished(&store, &place).await;
    for (days, pruned, then) in [
        (3, (2, 0), "rrwwwww"),
        (40, (0, 2), "--wwwww"),
        (60, (0, 1), "---wwww"),
        // Without a contract it is kept for the default of 90 and 365 days.
        (90, (1, 0), "---wwwr"),
        (365, (0, 1), "---www-"),
    ] {
        let before = left(&store).await;
        assert_eq!((prune(&store, days * DAY - 1).await, left(&store).await), ((0, 0), before), "day {days}");
        assert_eq!(
            (prune(&store, days * DAY).await, left(&store).await),
            (pruned, then.into()),
            "day {days}"
        );
    }
    assert_eq!(
        prune(&store, 99_999 * DAY).await,
        (0, 0),
        "what waits for a handler or a person is left alone"
    );
}

pub(super) async fn the_key_of_a_pruned_mail_is_known_and_it_can_not_be_replayed(subject: Subject) {
    let (store, seven) = with_inbox(subject).await;
    finished(&store, &seven).await;
    prune(&store, 3 * DAY).await;
    let refused = kind(store.replay(at(3 * DAY), &actor(), ledger_id(1)).await);
    assert_eq!(refused, ErrorKind::ContentGone, "its bytes are gone");
    prune(&store, 9999 * DAY).await;
    assert_eq!(kind(store.replay(at(0), &actor(), ledger_id(3)).await), ErrorKind::ContentGone);
    assert_eq!(store.unknown(&seven, &uids(1..=8)).await.expect("unknown"), uids([8]));
    let eight = place(seven.mailbox, 8);
    let again = received(11, &eight, 51, "bytes 1");
    assert_eq!(store_one(&store, at(9), &again).await.expect("store"), Stored::Recognised(ledger_id(1)));
}

pub(super) async fn a_replayed_mail_is_kept_anew(subject: Subject) {
    let (store, place) = with_inbox(subject).await;
    finished(&store, &place).await;
    store.replay(at(0), &actor(), ledger_id(3)).await.expect("replay");
    assert_eq!(prune(&store, 3 * DAY).await, (2, 0));
    assert_eq!(prune(&store, 999 * DAY).await, (0, 3), "the replayed one waits");
    let claimed = claim_one(&store, 1000 * DAY).await;
    assert_eq!(claimed.item.id, ledger_id(3));
    assert!(finish(&store, 1000 * DAY, &result(&claimed, Event::Handle, 0)).await);
    assert_eq!(prune(&store, 1003 * DAY - 1).await, (0, 0), "the days count from its second end");
    assert_eq!(prune(&store, 1003 * DAY).await, (1, 0));
}

pub(super) async fn a_pruning_of_the_ledger_takes_few_at_a_time(subject: Subject) {
    let (store, place) = with_inbox(subject).await;
    for number in 1..=5 {
        let mut mail = received(number, &place, number, &format!("bytes {number}"));
        (mail.state, mail.contract) = (State::Ignored, (number > 2).then(|| contract_id("ACME")));
        keep(&store, &mail).await;
    }
    let mut bodies = Vec::new();
    loop {
        let pruned = LedgerDesk::prune(&*store, at(90 * DAY), 2).await.expect("prune");
        if pruned.bodies == 0 {
            break;
        }
        bodies.push(pruned.bodies);
    }
    assert_eq!(bodies, [2, 2, 1]);
}
