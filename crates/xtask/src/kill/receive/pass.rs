//! Kills inside the pass over a renumbered box. What the server gives ends in the middle, so a worker can't have looked at all of the box when
//! it dies, and whoever comes next must not believe that it has.

use crate::outcome::Outcome;

use super::super::dice::Dice;
use super::office::Office;

/// So many large mails, of so many bytes, are the last in the box: a worker stores the first part of a pass when it has two of them, and
/// never has the third.
const LARGE: usize = 3;
const BYTES: usize = 1 << 20;

/// More than any server says before it tells of the first mail.
const BEFORE: usize = 8 << 10;

/// Gives the box other numbers, and kills a worker before it has stored anything of it and one that may have stored the first part. Gives how
/// many it has killed.
pub(super) fn kill_inside(office: &mut Office<'_>, dice: &mut Dice) -> Outcome<usize> {
    let last = office.put_large(LARGE, BYTES)?;
    office.renumber()?;
    let spans = [BEFORE..BYTES, (LARGE - 1) * BYTES + BEFORE..LARGE * BYTES];
    for span in &spans {
        let some = dice.below(u64::try_from(span.len()).unwrap_or_default());
        let bytes = span.start + usize::try_from(some).unwrap_or_default();
        office.kill_after(bytes, dice.below(20_000))?;
        if office.has_stored(&last)? {
            return Err(format!("a worker that got {bytes} bytes has looked at the whole box"));
        }
    }
    Ok(spans.len())
}
