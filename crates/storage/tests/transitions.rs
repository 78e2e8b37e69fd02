//! What the pure transitions of a queue row keep whatever happens: promises P1 and P4 as properties over random histories
//! of several workers, sweeps and people.

use postroom_core::id::{Actor, ClaimId, QueueId, WorkerId};
use postroom_core::message::OnDoubt;
use postroom_core::queue::{Event, State};
use postroom_core::time::Timestamp;
use postroom_storage::transition::lease::Lease;
use postroom_storage::transition::queue::{QueueRow, RecipientRow};
use postroom_storage::{Attempt, RecipientResult, Settled, Settlement, TimelineEntry};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const RECIPIENTS: u32 = 3;

/// One thing that happens. `claim` counts back from the newest claim, so that old ones answer too.
#[derive(Debug, Clone)]
enum Act {
    Wait(i64),
    Claim,
    Mark(usize),
    Settle(usize, Vec<Event>),
    Sweep,
    Decide(Event),
    Recover,
    Prove(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let event = || select(Event::ALL);
    let results = vec(event(), 0..=4);
    prop_oneof![
        (0..40_i64).prop_map(Act::Wait),
        Just(Act::Claim),
        Just(Act::Claim),
        (0..3_usize).prop_map(Act::Mark),
        ((0..3_usize), results).prop_map(|(claim, events)| Act::Settle(claim, events)),
        Just(Act::Sweep),
        event().prop_map(Act::Decide),
        Just(Act::Recover),
        (0..3_usize).prop_map(Act::Prove),
    ]
}

fn row(on_doubt: OnDoubt) -> QueueRow {
    let one = RecipientRow { state: State::Queued, doubted_by: None };
    QueueRow {
        created_at: at(0),
        expires_at: at(500),
        due_at: at(0),
        on_doubt,
        attempts: 0,
        lease: None,
        recipients: vec![one; usize::try_from(RECIPIENTS).expect("small")],
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

/// Whether there is a way of at most two events in the drawing, as a doubt that is sent again takes.
fn is_drawn(from: State, to: State) -> bool {
    let next = |state: State| Event::ALL.iter().filter_map(move |event| state.on(*event));
    from == to || next(from).any(|middle| middle == to || next(middle).any(|end| end == to))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_history_leaves_the_drawing_loses_a_recipient_or_crosses_twice_unasked(
        on_doubt in select(OnDoubt::ALL),
        acts in vec(act(), 1..60),
    ) {
        let (mut row, mut now, mut claims) = (row(on_doubt), 0, Vec::new());
        let actor = Actor::parse("ana").expect("a valid actor");
        // Per recipient: whether a dot may have been sent of which no reply allows another.
        let mut sent = [false; RECIPIENTS as usize];
        for act in acts {
            let before = row.clone();
            let log: Vec<TimelineEntry> = match &act {
                Act::Wait(seconds) => {
                    now += seconds;
                    vec![]
                }
                Act::Claim if row.is_due(at(now)) => {
                    let number = u8::try_from(claims.len()).expect("few");
                    let claim = ClaimId::new(at(now), [number; 10]);
                    claims.push(claim);
                    let worker = WorkerId::new(at(0), [1; 10]);
                    vec![row.claim(at(now), Lease { claim, worker, until: at(now + 30) }).1]
                }
                Act::Claim => vec![],
                Act::Mark(back) => {
                    let claim = claims.iter().rev().nth(*back);
                    claim.and_then(|claim| row.mark(at(now), *claim)).unwrap_or_default()
                }
                Act::Settle(back, events) => {
                    let Some(claim) = claims.iter().rev().nth(*back) else { continue };
                    let result = |(recipient, event): (u32, &Event)| {
                        RecipientResult { recipient, event: *event, detail: String::new() }
                    };
                    let settlement = Settlement {
                        id: QueueId::new(at(0), [0; 10]),
                        claim: *claim,
                        results: (0..).zip(events).map(result).collect(),
                        due_at: at(now + 5),
                        attempt: Attempt::Free,
                    };
                    let (settled, log) = row.settle(at(now), &settlement);
                    prop_assert_eq!(settled == Settled::Ignored, row == before && !is_own(&before, *claim));
                    log
                }
                Act::Sweep => row.sweep(at(now)).1,
                Act::Recover => {
                    // A claim that no attempt ever had.
                    row.recover(at(now), &actor, ClaimId::new(at(0), [255; 10])).unwrap_or_default()
                }
                Act::Prove(back) => {
                    let claim = claims.iter().rev().nth(*back);
                    claim.map(|claim| row.prove(at(now), *claim, "found")).unwrap_or_default()
                }
                Act::Decide(event) => row.decide(at(now), &actor, *event).unwrap_or_default(),
            };
            // Nothing leaves the drawing, and whatever changes is told.
            for (old, new) in before.recipients.iter().zip(&row.recipients) {
                prop_assert!(is_drawn(old.state, new.state), "{:?} by {act:?}: {:?}", old.state, new.state);
                let in_hands = matches!(new.state, State::Claimed | State::Crossing);
                prop_assert_eq!(in_hands && row.lease.is_none(), false, "nobody has what is claimed");
                prop_assert_eq!(new.doubted_by.is_some(), new.state == State::InDoubt);
            }
            prop_assert!(before.recipients == row.recipients || !log.is_empty(), "{act:?} is not told");
            // P1: after a dot without a negative reply, only a person or the mail itself allows another.
            for (place, (one, sent)) in (0..).zip(row.recipients.iter().zip(&mut sent)) {
                let its = log.iter().filter(|entry| entry.recipient == Some(place));
                for entry in its {
                    let said = (entry.what.as_str(), entry.state);
                    match said {
                        ("defer" | "refuse", _) if matches!(act, Act::Settle(..)) => *sent = false,
                        ("retry", _) if entry.actor.is_some() || on_doubt == OnDoubt::Resend => *sent = false,
                        ("late", Some(State::Queued | State::Refused)) => *sent = false,
                        _ => {}
                    }
                }
                let old = before.recipients[usize::try_from(place).expect("small")].state;
                if one.state == State::Crossing && old == State::Claimed {
                    prop_assert!(!*sent, "a second dot by {act:?}");
                    *sent = true;
                }
            }
        }
        // P4: a row that nobody touches any more comes to rest in a listed state.
        row.sweep(at(now + 1000));
        row.sweep(at(now + 100_000));
        prop_assert!(row.lease.is_none());
        prop_assert!(row.recipients.iter().all(|one| one.state.is_final() || one.state == State::InDoubt));
    }
}

fn is_own(row: &QueueRow, claim: ClaimId) -> bool {
    row.lease.is_some_and(|lease| lease.claim == claim)
}
