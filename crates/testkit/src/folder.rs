//! A folder and its messages: UIDs, flags, bytes. Pure data; who may see it is the store's matter.

use crate::message;
use bytes::Bytes;
use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

/// A message as a folder keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stored {
    /// The UID (RFC 3501 section 2.3.1.1).
    pub uid: u32,
    /// System flags with their backslash, and keywords.
    pub flags: BTreeSet<String>,
    /// The whole message.
    pub bytes: Bytes,
    /// INTERNALDATE, in whole seconds.
    pub received: SystemTime,
}

impl Stored {
    /// The unfolded value of the first header field with this name; encoded words are left as they are.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        message::header(&self.bytes, name)
    }

    /// The subject with encoded words decoded (RFC 2047).
    #[must_use]
    pub fn subject(&self) -> Option<String> {
        message::subject(&self.bytes)
    }

    /// Seconds since 1970, as the wire's dates are made of.
    pub(crate) fn seconds(&self) -> i64 {
        let after = self.received.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        i64::try_from(after.as_secs()).unwrap_or(i64::MAX)
    }
}

#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) uid_validity: u32,
    pub(crate) uid_next: u32,
    pub(crate) messages: Vec<Stored>,
    /// The UID of each message that was added, changed or removed, in order: a view reads on from where it was.
    pub(crate) touched: Vec<u32>,
}

impl Folder {
    pub(crate) fn new(uid_validity: u32) -> Self {
        Self { uid_validity, uid_next: 1, messages: Vec::new(), touched: Vec::new() }
    }

    pub(crate) fn add(&mut self, bytes: Bytes, flags: BTreeSet<String>, received: SystemTime) -> u32 {
        let uid = self.uid_next;
        self.touched.push(uid);
        self.uid_next = uid.checked_add(1).expect("a test never fills the 2^32 UIDs of a folder");
        self.messages.push(Stored { uid, flags, bytes, received });
        uid
    }

    pub(crate) fn find(&self, uid: u32) -> Option<&Stored> {
        self.messages.binary_search_by_key(&uid, |message| message.uid).ok().map(|at| &self.messages[at])
    }

    pub(crate) fn find_mut(&mut self, uid: u32) -> Option<&mut Stored> {
        self.touched.push(uid);
        self.messages.binary_search_by_key(&uid, |message| message.uid).ok().map(|at| &mut self.messages[at])
    }

    /// Removes these messages, and says how many of them there were.
    pub(crate) fn remove(&mut self, uids: &BTreeSet<u32>) -> usize {
        self.touched.extend(uids);
        let before = self.messages.len();
        self.messages.retain(|message| !uids.contains(&message.uid));
        before - self.messages.len()
    }

    /// Gives a message the next UID, as if it had been added anew; its date, flags and bytes stay.
    pub(crate) fn move_behind(&mut self, uid: u32) -> Option<u32> {
        let Stored { flags, bytes, received, .. } = self.find(uid)?.clone();
        self.remove(&BTreeSet::from([uid]));
        Some(self.add(bytes, flags, received))
    }

    /// As after a backup that was restored against RFC 9051 section 2.3.1.1: UIDs that were given since are given again.
    pub(crate) fn set_back(&mut self, messages: Vec<Stored>) {
        self.uid_next = messages.last().map_or(1, |message| message.uid + 1);
        self.messages = messages;
    }

    /// As after a restored backup: new UIDs under a new UIDVALIDITY.
    pub(crate) fn renumber(&mut self, uid_validity: u32) {
        self.uid_validity = uid_validity;
        self.uid_next = 1;
        for message in &mut self.messages {
            message.uid = self.uid_next;
            self.uid_next += 1;
        }
    }
}
