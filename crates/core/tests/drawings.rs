//! The state machines against their drawings in the manual, both ways: a transition that only one of them has fails.

use std::collections::BTreeSet;
use std::path::Path;

use postroom_core::{ledger, queue};

type Ways = BTreeSet<(String, String, String)>;

/// The lines `state --event--> state` of a manual page.
fn drawing(page: &str) -> Ways {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../postroom/manual").join(page);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let way = |line: &str| {
        let (from, rest) = line.split_once(" --")?;
        let (event, to) = rest.split_once("-->")?;
        Some([from, event, to].map(|word| word.trim().to_owned()).into())
    };
    let found: Vec<_> = text.lines().filter_map(way).collect();
    let ways: Ways = found.iter().cloned().collect();
    assert_eq!(ways.len(), found.len(), "{page} draws a way twice");
    assert!(!ways.is_empty(), "{page} has no drawing");
    ways
}

/// The words of all states and events, and the ways that the code knows.
macro_rules! ways {
    ($machine:ident) => {{
        let mut ways = Ways::new();
        for from in $machine::State::ALL {
            for event in $machine::Event::ALL {
                if let Some(to) = from.on(*event) {
                    ways.insert((from.to_string(), event.to_string(), to.to_string()));
                }
            }
        }
        let events: BTreeSet<_> = ways.iter().map(|(_, event, _)| event.as_str()).collect();
        assert_eq!(events.len(), $machine::Event::ALL.len(), "an event that leads nowhere");
        ways
    }};
}

#[test]
fn the_queue_moves_as_it_is_drawn() {
    assert_eq!(ways!(queue), drawing("queue.md"));
}

#[test]
fn the_ledger_moves_as_it_is_drawn() {
    assert_eq!(ways!(ledger), drawing("ledger.md"));
}

#[test]
fn nothing_that_crossed_is_claimed_again_without_proof_or_a_person() {
    use queue::{Event, State};
    // Every way from crossing to a further claim leads over a reply of the server (defer) or over in-doubt.
    for event in Event::ALL {
        if let Some(State::Queued) = State::Crossing.on(*event) {
            assert_eq!(*event, Event::Defer);
        }
    }
    assert_eq!(State::Crossing.on(Event::Claim), None);
    assert_eq!(State::Crossing.on(Event::Release), None);
}

#[test]
fn a_final_state_is_left_by_a_person_or_a_bounce_only() {
    use queue::{Event, State};
    for state in State::ALL.iter().filter(|state| state.is_final()) {
        for event in Event::ALL {
            let left = state.on(*event).is_some();
            assert!(!left || matches!(event, Event::Retry | Event::Bounce), "{state} {event}");
        }
    }
}

#[test]
fn a_message_shows_the_least_finished_of_its_recipients() {
    use queue::State;
    let check = |states: &[State], want| assert_eq!(State::of_message(states.iter().copied()), want);
    check(&[], None);
    check(&[State::Accepted, State::Queued, State::Refused], Some(State::Queued));
    check(&[State::Accepted, State::InDoubt], Some(State::InDoubt));
    check(&[State::Accepted, State::Refused], Some(State::Refused));
    // A final state never hides one that is not.
    for open in State::ALL.iter().filter(|state| !state.is_final()) {
        for done in State::ALL.iter().filter(|state| state.is_final()) {
            check(&[*done, *open], Some(*open));
        }
    }
}
