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
}

impl PlaceRow {
    /// The least that a row says once a pass has come so far.
    #[must_use]
    pub fn of(reached: Reached) -> Self {
        match reached {
            Reached::UpTo(frontier) => Self { frontier, whole_at: NEVER },
            Reached::Whole(whole_at) => Self { frontier: 0, whole_at },
        }
    }

    /// The least that a row says once a baseline has left mail out.
    #[must_use]
    pub fn behind(left_out: &LeftOut) -> Self {
        Self { frontier: left_out.up_to, whole_at: left_out.until }
    }

    /// Both together: nothing goes back.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { frontier: self.frontier.max(other.frontier), whole_at: self.whole_at.max(other.whole_at) }
    }
}

/// What is known of a place, by its row and the latest time at which another epoch of its folder was whole.
#[must_use]
pub fn contact(row: Option<PlaceRow>, elsewhere: Option<Timestamp>) -> Contact {
    match (row, elsewhere) {
        (None, None) => Contact::First,
        (None, Some(since)) => Contact::Renumbered { frontier: 0, since },
        (Some(PlaceRow { frontier, whole_at: NEVER }), Some(since)) => {
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
        let row = |frontier, whole_at| Some(PlaceRow { frontier, whole_at });
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
}
