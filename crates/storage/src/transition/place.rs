//! What the rows of a folder's epochs say of one of them, and how a pass over it changes its row.

use postroom_core::time::Timestamp;

use crate::ledger::{Contact, LeftOut, Reached};

/// Stands for the time of a whole pass where none was: any mail may be one that nobody has seen.
pub const NEVER: Timestamp = Timestamp::EPOCH;

/// What is known of one epoch of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the columns of a row")]
pub struct PlaceRow {
    /// Mails up to this UID are all accounted for.
    pub frontier: u32,
    /// Every mail that had arrived by then is, too; [`NEVER`] before a first whole pass.
    pub whole_at: Timestamp,
    /// What has no arrival date and is dated before is left out, as long as the place was not whole later than that.
    pub baseline_at: Option<Timestamp>,
}

impl PlaceRow {
    /// The least that a row says once a pass has come so far.
    #[must_use]
    pub fn of(reached: Reached) -> Self {
        match reached {
            Reached::UpTo(frontier) => Self { frontier, whole_at: NEVER, baseline_at: None },
            Reached::Whole(whole_at) => Self { frontier: 0, whole_at, baseline_at: None },
        }
    }

    /// The least that a row says once a baseline has left mail out.
    #[must_use]
    pub fn behind(left_out: &LeftOut) -> Self {
        let baseline_at = left_out.has_undated.then_some(left_out.until);
        Self { frontier: left_out.up_to, whole_at: left_out.until, baseline_at }
    }

    /// The row once a pass has come so far: nothing goes back, and the baseline is that of the first contact.
    #[must_use]
    pub fn and(self, reached: Self) -> Self {
        let (frontier, whole_at) = (self.frontier.max(reached.frontier), self.whole_at.max(reached.whole_at));
        Self { frontier, whole_at, ..self }
    }
}

/// What is known of a place, by its row and the latest time at which another epoch of its folder was whole.
#[must_use]
pub fn contact(row: Option<PlaceRow>, elsewhere: Option<Timestamp>) -> Contact {
    match (row, elsewhere) {
        (None, None) => Contact::First,
        (None, Some(since)) => Contact::Renumbered { frontier: 0, since },
        (Some(PlaceRow { frontier, whole_at, baseline_at: Some(since) }), _) if whole_at <= since => {
            Contact::FirstPass { frontier, since }
        }
        (Some(PlaceRow { frontier, whole_at: NEVER, .. }), Some(since)) => {
            Contact::Renumbered { frontier, since }
        }
        (Some(PlaceRow { frontier, .. }), _) => Contact::Known { frontier },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renumbered_place_is_known_once_it_was_whole() {
        let row = |frontier, whole_at| Some(PlaceRow { frontier, whole_at, baseline_at: None });
        let (early, late) = (Timestamp::from_millis(5), Timestamp::from_millis(9));
        for (row, elsewhere, expected) in [
            (None, None, Contact::First),
            (None, Some(NEVER), Contact::Renumbered { frontier: 0, since: NEVER }),
            (None, Some(late), Contact::Renumbered { frontier: 0, since: late }),
            (row(3, NEVER), Some(late), Contact::Renumbered { frontier: 3, since: late }),
            // The first epoch of all: its baseline counts, and no other.
            (row(3, NEVER), None, Contact::Known { frontier: 3 }),
            (row(3, early), Some(late), Contact::Known { frontier: 3 }),
        ] {
            assert_eq!(contact(row, elsewhere), expected, "{row:?} {elsewhere:?}");
        }
    }

    #[test]
    fn a_first_pass_ends_once_it_was_whole_and_does_not_begin_anew() {
        let at = Timestamp::from_millis;
        let first = PlaceRow { frontier: 0, whole_at: at(5), baseline_at: Some(at(5)) };
        let part = first.and(PlaceRow::of(Reached::UpTo(3)));
        assert_eq!(contact(Some(part), None), Contact::FirstPass { frontier: 3, since: at(5) });
        let whole = part.and(PlaceRow::of(Reached::Whole(at(9))));
        assert_eq!(contact(Some(whole), None), Contact::Known { frontier: 3 });
        // A reader that was stopped in the write of its first contact, while another one read the box.
        assert_eq!(contact(Some(whole.and(first)), None), Contact::Known { frontier: 3 });
        let known = PlaceRow::of(Reached::Whole(at(1)));
        assert_eq!(contact(Some(known.and(first)), None), Contact::Known { frontier: 0 });
    }
}
