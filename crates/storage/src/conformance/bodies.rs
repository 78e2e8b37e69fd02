//! The clauses of the port to contents.

use bytes::Bytes;
use postroom_core::id::BodyId;

use super::fixture::{add, at, change, enqueue, inbox, kind, outbox, place, prepared, received, store_one};
use super::subject::Subject;
use crate::bodies::PIECE;
use crate::error::ErrorKind;
use crate::ledger::LedgerDesk;
use crate::queue::QueueDesk;

fn body(number: u8) -> BodyId {
    BodyId::new(at(0), [number; 10])
}

pub(super) async fn staged_pieces_come_back_in_any_order(subject: Subject) {
    let store = subject.store;
    let pieces = [vec![0; PIECE], (0..=255).collect(), vec![]].map(Bytes::from);
    for number in [1, 0] {
        let piece = pieces[usize::try_from(number).expect("small")].clone();
        store.stage(at(0), body(1), number, piece).await.expect("stage");
    }
    assert!(store.piece(body(1), 0).await.expect("piece").as_ref() == Some(&pieces[0]));
    assert_eq!(store.piece(body(1), 1).await.expect("piece").as_ref(), Some(&pieces[1]));
    assert_eq!(store.piece(body(1), 2).await.expect("piece"), None);
    assert_eq!(store.piece(body(2), 0).await.expect("piece"), None);
}

pub(super) async fn a_piece_is_repeatable_and_never_changes(subject: Subject) {
    let store = subject.store;
    let (one, other) = (Bytes::from_static(b"one"), Bytes::from_static(b"other"));
    for _ in 0..2 {
        store.stage(at(0), body(1), 0, one.clone()).await.expect("stage");
    }
    assert_eq!(kind(store.stage(at(0), body(1), 0, other).await), ErrorKind::Conflict);
    assert_eq!(store.piece(body(1), 0).await.expect("piece"), Some(one));
}

pub(super) async fn a_sweep_takes_only_what_nobody_refers_to_and_is_old(subject: Subject) {
    let store = subject.store;
    let out = add(&store, outbox("mx.acme.example")).await;
    store.set_standard(&change(), Some(out)).await.expect("set_standard");
    let mail = prepared(&store, 1, "ACME").await;
    enqueue(&store, &mail).await.expect("enqueue");
    let inbox = add(&store, inbox("imap.acme.example")).await;
    let got = received(1, &place(inbox, 1), 1, "bytes");
    store_one(&store, at(0), &got).await.expect("store");
    let piece = || Bytes::from_static(b"piece");
    store.stage(at(0), body(1), 0, piece()).await.expect("stage");
    store.stage(at(10), body(1), 1, piece()).await.expect("stage");
    store.stage(at(5), body(2), 0, piece()).await.expect("stage");
    assert_eq!(store.sweep(at(0)).await.expect("sweep"), 0);
    assert_eq!(store.sweep(at(5)).await.expect("sweep"), 1, "a content is as old as its first piece");
    for number in [0, 1] {
        assert_eq!(store.piece(body(1), number).await.expect("piece"), None);
    }
    assert!(store.piece(body(2), 0).await.expect("piece").is_some());
    assert_eq!(store.sweep(at(100)).await.expect("sweep"), 1);
    let sent = QueueDesk::show(&*store, mail.id).await.expect("show").expect("it is queued").body;
    let got = LedgerDesk::show(&*store, got.id).await.expect("show").expect("it is stored").body;
    for body in [sent, got] {
        let body = body.expect("it has its content");
        assert!(store.piece(body, 0).await.expect("piece").is_some(), "a row's content was swept");
    }
}
