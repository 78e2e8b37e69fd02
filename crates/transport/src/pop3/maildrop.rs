//! The mails of a maildrop as they were at sign-in, and their keys: the unique id, or where it is missing, doubled or
//! illegal, the content. Nothing is asked of the server here.

use std::collections::{HashMap, HashSet};

use postroom_core::ledger::RemoteKey;

/// The greatest number of mails in a maildrop.
pub(super) const MAILS_LIMIT: usize = 250_000;

/// A mail.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) number: u32,
    pub(super) size: u64,
    /// None as long as its content must be read for it.
    pub(super) key: Option<RemoteKey>,
    pub(super) is_deleted: bool,
}

/// The mails in the server's order.
#[derive(Debug, Default)]
pub(super) struct Maildrop {
    entries: Vec<Entry>,
    places: HashMap<RemoteKey, usize>,
    copies: HashMap<String, u32>,
    /// Before this place every mail has its key.
    keyed: usize,
}

impl Maildrop {
    /// From the numbers with sizes, and the numbers with unique ids.
    pub(super) fn new(sizes: Vec<(u32, u64)>, ids: Vec<(u32, String)>) -> Self {
        let (mut seen, mut doubled) = (HashSet::new(), HashSet::new());
        let mut by_number: HashMap<u32, Option<&str>> = HashMap::new();
        for (number, id) in &ids {
            if !seen.insert(id.as_str()) {
                doubled.insert(id.as_str());
            }
            // A mail with two ids has none.
            by_number.entry(*number).and_modify(|other| *other = None).or_insert(Some(id));
        }
        let mut maildrop = Self::default();
        for (number, size) in sizes {
            let id = by_number.get(&number).copied().flatten();
            let key = id
                .filter(|id| is_legal(id) && !doubled.contains(id))
                .map(|id| RemoteKey::Uidl(id.to_owned()));
            if let Some(key) = &key {
                maildrop.places.insert(key.clone(), maildrop.entries.len());
            }
            maildrop.entries.push(Entry { number, size, key, is_deleted: false });
        }
        maildrop
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The first mail before `end` whose content must be read for its key.
    pub(super) fn next_without_key(&mut self, end: usize) -> Option<(usize, u32, u64)> {
        while self.entries.get(self.keyed).is_some_and(|entry| entry.key.is_some()) {
            self.keyed += 1;
        }
        let entry = self.entries.get(self.keyed).filter(|_| self.keyed < end)?;
        Some((self.keyed, entry.number, entry.size))
    }

    /// Gives the mail at `place` its key by the hash of its content. To be called in the order of places, so that the
    /// copies of one content are numbered the same in each session.
    pub(super) fn set_content(&mut self, place: usize, hash: String) {
        let copy = self.copies.entry(hash.clone()).or_insert(0);
        *copy += 1;
        let key = RemoteKey::Content(hash, *copy);
        self.places.insert(key.clone(), place);
        self.entries[place].key = Some(key);
    }

    /// Where the mail with this key is.
    pub(super) fn place(&self, key: &RemoteKey) -> Option<usize> {
        self.places.get(key).copied()
    }

    pub(super) fn mark_deleted(&mut self, place: usize) {
        self.entries[place].is_deleted = true;
    }
}

/// RFC 1939 section 7: one to 70 characters from 0x21 to 0x7E.
pub(super) fn is_legal(id: &str) -> bool {
    (1..=70).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_doubled_or_illegal_id_is_no_key() {
        let long = "x".repeat(71);
        let ids = [(1, "a"), (2, "b"), (4, "b"), (5, "é"), (6, &long), (7, "c"), (7, "d"), (9, "e")];
        let ids = ids.map(|(number, id)| (number, id.to_owned())).to_vec();
        let mut maildrop = Maildrop::new((1..=8).map(|number| (number, 10)).collect(), ids);
        let keyed: Vec<u32> =
            maildrop.entries().iter().filter(|entry| entry.key.is_some()).map(|entry| entry.number).collect();
        assert_eq!(keyed, [1]);
        assert_eq!(maildrop.place(&RemoteKey::Uidl("a".into())), Some(0));
        assert_eq!(maildrop.place(&RemoteKey::Uidl("b".into())), None);
        assert_eq!(maildrop.place(&RemoteKey::Uidl("e".into())), None);
        assert_eq!(maildrop.next_without_key(1), None);
        assert_eq!(maildrop.next_without_key(8), Some((1, 2, 10)));
    }

    #[test]
    fn copies_of_one_content_are_told_apart_by_their_order() {
        let mut maildrop = Maildrop::new(vec![(1, 1), (2, 1), (3, 1)], Vec::new());
        for hash in ["h", "i", "h"] {
            let (place, ..) = maildrop.next_without_key(3).expect("a mail without a key");
            maildrop.set_content(place, hash.to_owned());
        }
        assert_eq!(maildrop.next_without_key(3), None);
        assert_eq!(maildrop.place(&RemoteKey::Content("h".into(), 2)), Some(2));
        assert_eq!(maildrop.place(&RemoteKey::Content("i".into(), 1)), Some(1));
    }
}
