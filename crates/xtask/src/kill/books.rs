//! What must hold between the mails that were submitted, their states in the queue, and the server's record. Only compares.

use std::collections::{BTreeMap, BTreeSet};

/// Message-IDs, seen from three sides.
#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    pub(super) submitted: BTreeSet<String>,
    /// The state that the queue shows.
    pub(super) states: BTreeMap<String, String>,
    /// How often the server took each.
    pub(super) arrived: BTreeMap<String, usize>,
}

impl Books {
    /// The mails in this state.
    pub(super) fn of(&self, state: &str) -> BTreeSet<&str> {
        self.states.iter().filter(|(_, of)| *of == state).map(|(id, _)| id.as_str()).collect()
    }

    pub(super) fn copies(&self, id: &str) -> usize {
        self.arrived.get(id).copied().unwrap_or_default()
    }

    /// What does not hold, where at most so many mails may be in doubt.
    pub(super) fn faults(&self, most_doubts: usize) -> Vec<String> {
        let mut faults = Vec::new();
        for id in &self.submitted {
            let copies = self.copies(id);
            match (self.states.get(id).map(String::as_str), copies) {
                (_, 2..) => faults.push(format!("{id} arrived {copies} times")),
                (Some("accepted"), 1) | (Some("in-doubt"), _) => {}
                (Some("accepted"), _) => faults.push(format!("{id} is accepted and did not arrive")),
                (Some(state), _) => faults.push(format!("{id} ended as {state}")),
                (None, _) => faults.push(format!("{id} is gone from the queue")),
            }
        }
        let known = |id: &&String| !self.submitted.contains(*id);
        faults.extend(
            self.arrived.keys().filter(known).map(|id| format!("{id} arrived and was never submitted")),
        );
        faults.extend(
            self.states.keys().filter(known).map(|id| format!("{id} is queued and was never submitted")),
        );
        let doubts = self.of("in-doubt").len();
        if doubts > most_doubts {
            faults.push(format!("{doubts} mails are in doubt, {most_doubts} may be"));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Books {
        let mut books = Books::default();
        for (id, state, copies) in [("<1>", "accepted", 1), ("<2>", "in-doubt", 1), ("<3>", "in-doubt", 0)] {
            books.submitted.insert(id.to_owned());
            books.states.insert(id.to_owned(), state.to_owned());
            if copies > 0 {
                books.arrived.insert(id.to_owned(), copies);
            }
        }
        books
    }

    #[test]
    fn accepted_once_and_in_doubt_once_or_never_is_right() {
        assert!(good().faults(2).is_empty());
    }

    #[test]
    fn whatever_is_lost_doubled_unsettled_or_strange_is_found() {
        type Break = fn(&mut Books);
        let breaks: [(Break, &str); 8] = [
            (|books| _ = books.arrived.remove("<1>"), "<1> is accepted and did not arrive"),
            (|books| _ = books.arrived.insert("<1>".into(), 2), "<1> arrived 2 times"),
            (|books| _ = books.arrived.insert("<2>".into(), 3), "<2> arrived 3 times"),
            (|books| _ = books.states.insert("<3>".into(), "claimed".into()), "<3> ended as claimed"),
            (|books| _ = books.states.insert("<3>".into(), "dead".into()), "<3> ended as dead"),
            (|books| _ = books.states.remove("<3>"), "<3> is gone from the queue"),
            (|books| _ = books.arrived.insert("<9>".into(), 1), "<9> arrived and was never submitted"),
            (
                |books| _ = books.states.insert("<9>".into(), "accepted".into()),
                "<9> is queued and was never submitted",
            ),
        ];
        for (breaks, told) in breaks {
            let mut books = good();
            breaks(&mut books);
            assert_eq!(books.faults(2), [told]);
        }
        assert_eq!(good().faults(1), ["2 mails are in doubt, 1 may be"]);
    }
}
