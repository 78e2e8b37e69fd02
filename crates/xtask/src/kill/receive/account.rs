//! What must hold between the mails that were put into a box, the ledger, and what the handler wrote. Only compares.

use std::collections::BTreeMap;

/// Where a mail went after it was put into the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stayed, or only postroom took it away: it must be handled.
    Stayed,
    /// The other client moved or deleted it: handled or, if that was before it could be fetched, never seen.
    Taken,
}

/// A pair of files that the handler wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// The ledger's id, the key that the handler is called with.
    pub(super) id: String,
    pub(super) bytes: Vec<u8>,
}

/// Mails by their Message-IDs, seen from three sides.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    /// What was put into the box, and its bytes.
    pub(super) put: BTreeMap<String, (Fate, Vec<u8>)>,
    /// The rows of the ledger: id and state.
    pub(super) rows: BTreeMap<String, Vec<(String, String)>>,
    pub(super) written: BTreeMap<String, Vec<Written>>,
}

impl Account {
    /// What does not hold.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (message, (fate, bytes)) in &self.put {
            let rows = self.rows.get(message).map(Vec::as_slice).unwrap_or_default();
            let written = self.written.get(message).map(Vec::as_slice).unwrap_or_default();
            match (rows, written) {
                ([], []) if *fate == Fate::Taken => {}
                ([], []) => faults.push(format!("{message} was never stored")),
                ([(id, state)], [once]) => {
                    if state != "handled" {
                        faults.push(format!("{message} ended as {state}"));
                    }
                    if once.id != *id {
                        faults.push(format!("{message} is mail {id} and was handed over as {}", once.id));
                    }
                    if once.bytes != *bytes {
                        faults.push(format!("{message} was handed over with other bytes"));
                    }
                }
                ([(_, state)], []) => faults.push(format!("{message} is {state} and was not handed over")),
                (rows, written) => faults.push(format!(
                    "{message} was stored {} times and handed over under {} keys",
                    rows.len(),
                    written.len()
                )),
            }
        }
        let strange = |message: &&String| !self.put.contains_key(*message);
        faults.extend(
            self.rows.keys().filter(strange).map(|message| format!("{message} is stored and was never put")),
        );
        faults.extend(
            self.written
                .keys()
                .filter(strange)
                .map(|message| format!("{message} was handed over and was never put")),
        );
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Account {
        let mut account = Account::default();
        for (message, fate) in [("<1>", Fate::Stayed), ("<2>", Fate::Taken), ("<3>", Fate::Taken)] {
            account.put.insert(message.to_owned(), (fate, message.into()));
        }
        for (message, id) in [("<1>", "7"), ("<2>", "8")] {
            account.rows.insert(message.to_owned(), vec![(id.to_owned(), "handled".to_owned())]);
            account
                .written
                .insert(message.to_owned(), vec![Written { id: id.to_owned(), bytes: message.into() }]);
        }
        account
    }

    #[test]
    fn handled_once_and_taken_before_it_was_seen_are_right() {
        assert_eq!(good().faults(), Vec::<String>::new());
    }

    /// Each row breaks one thing that the others hold: a checker that left one clause out would pass it.
    #[test]
    fn whatever_is_lost_doubled_altered_unhandled_or_strange_is_found() {
        type Break = fn(&mut Account);
        let written = |id: &str| Written { id: id.into(), bytes: "<1>".into() };
        let breaks: [(Break, &str); 9] = [
            (
                |account| {
                    account.rows.remove("<1>");
                    account.written.remove("<1>");
                },
                "<1> was never stored",
            ),
            (|account| _ = account.written.remove("<1>"), "<1> is handled and was not handed over"),
            (
                |account| _ = account.rows.insert("<1>".into(), vec![("7".into(), "dead".into())]),
                "<1> ended as dead",
            ),
            (
                |account| account.rows.entry("<1>".into()).or_default().push(("9".into(), "handled".into())),
                "<1> was stored 2 times and handed over under 1 keys",
            ),
            (
                |account| {
                    let again = Written { id: "9".into(), bytes: "<2>".into() };
                    account.written.entry("<2>".into()).or_default().push(again);
                },
                "<2> was stored 1 times and handed over under 2 keys",
            ),
            (|account| _ = account.rows.remove("<2>"), "<2> was stored 0 times and handed over under 1 keys"),
            (
                |account| {
                    account
                        .written
                        .entry("<1>".into())
                        .or_default()
                        .iter_mut()
                        .for_each(|one| one.bytes.clear())
                },
                "<1> was handed over with other bytes",
            ),
            (
                |account| {
                    account
                        .written
                        .entry("<1>".into())
                        .or_default()
                        .iter_mut()
                        .for_each(|one| one.id = "9".into())
                },
                "<1> is mail 7 and was handed over as 9",
            ),
            (|account| _ = account.rows.insert("<9>".into(), Vec::new()), "<9> is stored and was never put"),
        ];
        for (breaks, told) in breaks {
            let mut account = good();
            breaks(&mut account);
            assert_eq!(account.faults(), [told]);
        }
        let mut account = good();
        account.written.insert("<9>".into(), vec![written("9")]);
        assert_eq!(account.faults(), ["<9> was handed over and was never put"]);
    }
}
