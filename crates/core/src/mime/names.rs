//! The names of the fields that are read. A hostile header has millions that are not, so what a field costs is how soon it is known
//! to be none of them.

/// Up to 64 names of less than 64 bytes, without regard to case.
pub(super) struct Names {
    names: [&'static str; 64],
    /// Which of them are of this length, and which begin with this letter: one bit for each name.
    of_length: [u64; 64],
    of_first: [u64; 32],
}

impl Names {
    pub(super) const fn new(lists: &[&[&'static str]]) -> Self {
        let mut all = Self { names: [""; 64], of_length: [0; 64], of_first: [0; 32] };
        let (mut list, mut at, mut count) = (0, 0, 0);
        while list < lists.len() {
            if at == lists[list].len() {
                (list, at) = (list + 1, 0);
                continue;
            }
            let name = lists[list][at];
            all.names[count] = name;
            all.of_length[name.len()] |= 1 << count;
            all.of_first[letter(name.as_bytes()[0])] |= 1 << count;
            (at, count) = (at + 1, count + 1);
        }
        all
    }

    pub(super) fn has(&self, name: &str) -> bool {
        let (Some(first), Some(of_length)) = (name.as_bytes().first(), self.of_length.get(name.len())) else {
            return false;
        };
        let mut alike = of_length & self.of_first[letter(*first)];
        while alike != 0 {
            if self.names[alike.trailing_zeros() as usize].eq_ignore_ascii_case(name) {
                return true;
            }
            alike &= alike - 1;
        }
        false
    }
}

/// The same for both cases of a letter.
const fn letter(byte: u8) -> usize {
    (byte & 31) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Would miss a table that is full: that is no constant then, and does not compile.
    #[test]
    fn the_names_in_any_case_are_known_and_no_others() {
        static NAMES: Names = Names::new(&[&["To", "From"], &[], &["Cc", "X-Loop", "x-Lamp", "X"]]);
        for name in ["to", "TO", "From", "cC", "x-loop", "X-LAMP", "x"] {
            assert!(NAMES.has(name), "{name}");
        }
        let long = "X".repeat(100);
        for name in ["", "T", "Tx", "Fro", "Frome", "4rom", "X-Lo0p", "8", long.as_str()] {
            assert!(!NAMES.has(name), "{name}");
        }
    }
}
