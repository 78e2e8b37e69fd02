//! The failures that a test has ordered: the next one, and the one that lasts.

use crate::error::{Error, Stage};

#[derive(Debug, Default)]
pub(super) struct Failing {
    once: Vec<Error>,
    lasting: Option<Error>,
}

impl Failing {
    pub(super) fn once(&mut self, error: Error) {
        self.once.push(error);
    }

    pub(super) fn lasting(&mut self, error: Option<Error>) {
        if error.is_none() {
            self.once.clear();
        }
        self.lasting = error;
    }

    /// The failure ordered for one of these stages; one that was ordered once is used up.
    pub(super) fn at(&mut self, from: Stage, to: Stage) -> Option<Error> {
        let is_due = |error: &Error| (from..=to).contains(&error.stage());
        if let Some(at) = self.once.iter().position(is_due) {
            return Some(self.once.remove(at));
        }
        self.lasting.clone().filter(is_due)
    }
}
