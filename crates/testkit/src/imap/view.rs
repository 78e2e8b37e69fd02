//! A selected folder as one client knows it: which message has which number, and what the client has not been told yet.

use crate::{
    folder::{Folder, Stored},
    imap::reply::{Untagged, Verdict},
    store::Store,
};
use imap_codec::imap_types::sequence::{SeqOrUid, Sequence, SequenceSet};
use std::{collections::BTreeSet, ops::Bound};

/// Whether messages may lose their numbers now (RFC 3501 section 7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expunges {
    Told,
    Held,
}

/// RFC 3501 sections 6.3.1 and 6.3.2: SELECT or EXAMINE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
}

/// What the numbers of a sequence set are (RFC 3501 section 6.4.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numbers {
    Sequence,
    Uid,
}

impl Numbers {
    /// From the grammar's mark of the UID form.
    pub(crate) fn of(uid: bool) -> Self {
        if uid { Self::Uid } else { Self::Sequence }
    }
}

#[derive(Debug)]
pub(crate) struct View {
    pub(crate) login: String,
    pub(crate) folder: String,
    pub(crate) access: Access,
    uid_validity: u32,
    /// How much of the folder's list of touched messages the client has been told.
    synced: usize,
    known: Vec<(u32, BTreeSet<String>)>,
}

pub(crate) fn flag_list(flags: &BTreeSet<String>) -> String {
    format!("({})", flags.iter().map(String::as_str).collect::<Vec<_>>().join(" "))
}

impl View {
    /// Selects, telling what RFC 3501 section 6.3.1 requires.
    pub(crate) fn open(login: &str, name: &str, folder: &Folder, access: Access, out: &mut Untagged) -> Self {
        let known: Vec<_> = folder.messages.iter().map(|kept| (kept.uid, kept.flags.clone())).collect();
        out.line("FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)");
        out.line(&format!("{} EXISTS", known.len()));
        // RFC 9051 appendix E: \Recent is gone; a count of 0 is right for every client.
        out.line("0 RECENT");
        if let Some(at) = known.iter().position(|(_, flags)| !flags.contains("\\Seen")) {
            out.line(&format!("OK [UNSEEN {}] first unseen", at + 1));
        }
        out.line(match access {
            Access::ReadWrite => {
                "OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] kept"
            }
            Access::ReadOnly => "OK [PERMANENTFLAGS ()] nothing can be changed",
        });
        out.line(&format!("OK [UIDVALIDITY {}] valid", folder.uid_validity));
        out.line(&format!("OK [UIDNEXT {}] next", folder.uid_next));
        Self {
            login: login.to_owned(),
            folder: name.to_owned(),
            access,
            uid_validity: folder.uid_validity,
            synced: folder.touched.len(),
            known,
        }
    }

    /// The folder, unless it is gone or renumbered, which ends the session as it does at real servers.
    pub(crate) fn folder_in<'a>(&self, store: &'a Store) -> Result<&'a Folder, Verdict> {
        store
            .folder(&self.login, &self.folder)
            .filter(|folder| folder.uid_validity == self.uid_validity)
            .ok_or_else(|| Verdict::Bye("the selected folder is gone or has a new UIDVALIDITY".into()))
    }

    /// Tells what has changed since the last time: expunged, new, flags.
    pub(crate) fn sync(
        &mut self,
        store: &Store,
        expunges: Expunges,
        out: &mut Untagged,
    ) -> Result<(), Verdict> {
        let folder = self.folder_in(store)?;
        let touched: BTreeSet<u32> = folder.touched.iter().skip(self.synced).copied().collect();
        let mut is_held = false;
        // Downwards, so that each number is right at the moment it is told.
        for &uid in touched.iter().rev().filter(|uid| folder.find(**uid).is_none()) {
            let Some(at) = self.place(uid) else { continue };
            if expunges == Expunges::Held {
                is_held = true;
                continue;
            }
            self.known.remove(at);
            out.line(&format!("{} EXPUNGE", at + 1));
        }
        let (count, last) = (self.known.len(), self.known.last().map_or(0, |(uid, _)| *uid));
        let new =
            touched.range((Bound::Excluded(last), Bound::Unbounded)).filter_map(|uid| folder.find(*uid));
        self.known.extend(new.map(|kept| (kept.uid, kept.flags.clone())));
        if self.known.len() > count {
            out.line(&format!("{} EXISTS", self.known.len()));
        }
        for kept in touched.iter().filter_map(|uid| folder.find(*uid)) {
            let Some(at) = self.place(kept.uid).filter(|&at| self.known[at].1 != kept.flags) else {
                continue;
            };
            self.known[at].1.clone_from(&kept.flags);
            out.line(&format!("{} FETCH (UID {} FLAGS {})", at + 1, kept.uid, flag_list(&kept.flags)));
        }
        // What is held back is looked at again the next time.
        if !is_held {
            self.synced = folder.touched.len();
        }
        Ok(())
    }

    /// Takes a message's flags as told, so that `sync` does not tell them.
    pub(crate) fn told(&mut self, message: &Stored) {
        if let Some(at) = self.place(message.uid) {
            self.known[at].1.clone_from(&message.flags);
        }
    }

    /// Where a message stands: its number less one.
    fn place(&self, uid: u32) -> Option<usize> {
        self.known.binary_search_by_key(&uid, |(uid, _)| *uid).ok()
    }

    /// The ranges of a set with its stars replaced. UIDs that don't exist are passed over (RFC 3501 section 6.4.8),
    /// numbers that don't exist are an error of the client.
    fn ranges(&self, set: &SequenceSet, numbers: Numbers) -> Result<Vec<(u32, u32)>, Verdict> {
        let count = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
        let largest = match numbers {
            Numbers::Uid => self.known.last().map_or(0, |(uid, _)| *uid),
            Numbers::Sequence => count,
        };
        let value = |end: &SeqOrUid| match end {
            SeqOrUid::Value(value) => value.get(),
            SeqOrUid::Asterisk => largest,
        };
        let ranges = set.0.as_ref().iter().map(|sequence| {
            let (first, last) = match sequence {
                Sequence::Single(only) => (value(only), value(only)),
                Sequence::Range(first, last) => (value(first), value(last)),
            };
            // RFC 3501 section 9, seq-range: the order of the ends means nothing.
            (first.min(last), first.max(last))
        });
        let ranges: Vec<_> = ranges.collect();
        match numbers == Numbers::Sequence && ranges.iter().any(|&(_, last)| last > largest) {
            true => Err(Verdict::bad("no message has such a number")),
            false => Ok(ranges),
        }
    }

    /// Whether a message is in a set.
    pub(crate) fn contains(
        &self,
        set: &SequenceSet,
        numbers: Numbers,
        (number, uid): (usize, u32),
    ) -> Result<bool, Verdict> {
        let this = match numbers {
            Numbers::Uid => uid,
            Numbers::Sequence => u32::try_from(number).unwrap_or(u32::MAX),
        };
        Ok(self.ranges(set, numbers)?.iter().any(|&(first, last)| (first..=last).contains(&this)))
    }

    /// The messages of a set, as numbers and UIDs in ascending order.
    pub(crate) fn resolve(&self, set: &SequenceSet, numbers: Numbers) -> Result<Vec<(usize, u32)>, Verdict> {
        let mut places: Vec<usize> = Vec::new();
        for (first, last) in self.ranges(set, numbers)? {
            places.extend(match numbers {
                Numbers::Uid => {
                    self.known.partition_point(|(uid, _)| *uid < first)
                        ..self.known.partition_point(|(uid, _)| *uid <= last)
                }
                // The star of an empty folder is 0.
                Numbers::Sequence => first.saturating_sub(1) as usize..last as usize,
            });
        }
        places.sort_unstable();
        places.dedup();
        Ok(places.into_iter().map(|at| (at + 1, self.known[at].0)).collect())
    }

    /// Every message, as numbers and UIDs.
    pub(crate) fn all(&self) -> impl Iterator<Item = (usize, u32)> {
        self.known.iter().enumerate().map(|(at, (uid, _))| (at + 1, *uid))
    }
}
