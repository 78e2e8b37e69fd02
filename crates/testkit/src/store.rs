//! Everything that the server remembers: accounts, their folders, what was accepted, who was connected. No wire, no locks.

use crate::{accepted::Accepted, fault::Faults, folder::Folder, protocol::Protocol, refusal::Refusals};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::SystemTime,
};
use tokio::sync::watch;

pub(crate) const INBOX: &str = "INBOX";

/// One connection, still open or not, in the order in which they were accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Session {
    /// Counts from 1 in each server.
    pub id: u64,
    /// The port's protocol.
    pub protocol: Protocol,
    /// The port that the client had dialled.
    pub port: u16,
    /// Who signed in last.
    pub login: Option<String>,
    /// How often signing in was refused.
    pub refused_sign_ins: u32,
    /// Whether TLS was completed.
    pub tls: bool,
    /// Whether the connection still stands.
    pub open: bool,
}

pub(crate) struct Account {
    password: String,
    /// The access tokens that are good now.
    pub(crate) tokens: BTreeSet<String>,
    pub(crate) folders: BTreeMap<String, Folder>,
    /// The session that holds the maildrop (RFC 1939 section 4).
    pub(crate) maildrop: Option<u64>,
    /// Counts the changes, for those that idle in it: of 10,000 accounts one mail wakes one.
    changed: watch::Sender<u64>,
}

// Written out because of the password: even a test's may be a real one.
impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("folders", &self.folders).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    accounts: BTreeMap<String, Account>,
    aliases: BTreeMap<String, String>,
    pub(crate) accepted: Vec<Accepted>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) refusals: Refusals,
    pub(crate) faults: Faults,
    /// Whether access tokens are taken at all.
    pub(crate) takes_tokens: bool,
    last_validity: u32,
}

impl Store {
    pub(crate) fn add_account(&mut self, login: &str, password: &str) {
        let inbox = Folder::new(self.new_validity());
        let folders = BTreeMap::from([(INBOX.to_owned(), inbox)]);
        let changed = watch::Sender::new(0);
        let account = Account {
            password: password.to_owned(),
            tokens: BTreeSet::new(),
            folders,
            maildrop: None,
            changed,
        };
        self.accounts.insert(login.to_owned(), account);
        self.aliases.insert(login.to_ascii_lowercase(), login.to_owned());
    }

    pub(crate) fn add_alias(&mut self, address: &str, login: &str) {
        self.aliases.insert(address.to_ascii_lowercase(), login.to_owned());
    }

    pub(crate) fn set_password(&mut self, login: &str, password: &str) -> bool {
        self.accounts.get_mut(login).map(|account| account.password = password.to_owned()).is_some()
    }

    pub(crate) fn new_validity(&mut self) -> u32 {
        self.last_validity += 1;
        self.last_validity
    }

    pub(crate) fn signs_in(&self, login: &str, password: &str) -> bool {
        self.accounts.get(login).is_some_and(|account| account.password == password)
    }

    pub(crate) fn takes_token(&self, login: &str, token: &str) -> bool {
        self.accounts.get(login).is_some_and(|account| account.tokens.contains(token))
    }

    pub(crate) fn account(&self, login: &str) -> Option<&Account> {
        self.accounts.get(login)
    }

    /// An account that is about to be changed: whoever waits for its changes is woken, and sees them once the store is free again.
    pub(crate) fn account_mut(&mut self, login: &str) -> Option<&mut Account> {
        let account = self.accounts.get_mut(login)?;
        account.changed.send_modify(|version| *version += 1);
        Some(account)
    }

    /// Marks the present of an account as seen; `changed()` on it returns after its next change.
    pub(crate) fn changes_of(&self, login: &str) -> Option<watch::Receiver<u64>> {
        Some(self.account(login)?.changed.subscribe())
    }

    pub(crate) fn logins(&self) -> impl Iterator<Item = &str> {
        self.accounts.keys().map(String::as_str)
    }

    pub(crate) fn folder(&self, login: &str, folder: &str) -> Option<&Folder> {
        self.account(login)?.folders.get(folder)
    }

    pub(crate) fn folder_mut(&mut self, login: &str, folder: &str) -> Option<&mut Folder> {
        self.account_mut(login)?.folders.get_mut(folder)
    }

    /// The account that receives an address: by the whole address, then without `+detail`, then by `*@domain`.
    pub(crate) fn receiver(&self, address: &str) -> Option<&str> {
        let address = address.to_ascii_lowercase();
        let (local, domain) = address.rsplit_once('@').unwrap_or((&address, ""));
        let plain = local.split_once('+').map(|(user, _)| format!("{user}@{domain}"));
        [Some(address.clone()), plain, Some(format!("*@{domain}"))]
            .into_iter()
            .flatten()
            .find_map(|key| self.aliases.get(&key))
            .map(String::as_str)
            .filter(|login| self.accounts.contains_key(*login))
    }

    /// Creates a folder and those above it (RFC 3501 section 6.3.3); false when it is there already.
    pub(crate) fn create_folder(&mut self, login: &str, name: &str) -> bool {
        let ends = name.match_indices('/').map(|(at, _)| at).chain([name.len()]);
        let mut created = false;
        for end in ends {
            let validity = self.new_validity();
            let Some(account) = self.account_mut(login) else { return false };
            created = !account.folders.contains_key(&name[..end]);
            if created {
                account.folders.insert(name[..end].to_owned(), Folder::new(validity));
            }
        }
        created
    }

    /// Takes the responsibility for a mail: into the INBOX of each receiver, and into the list.
    pub(crate) fn accept(&mut self, accepted: Accepted, now: SystemTime) {
        for recipient in &accepted.recipients {
            let Some(login) = self.receiver(recipient).map(str::to_owned) else { continue };
            if let Some(inbox) = self.folder_mut(&login, INBOX) {
                inbox.add(accepted.bytes.clone(), BTreeSet::new(), now);
            }
        }
        self.accepted.push(accepted);
    }

    /// Puts a mail into a folder as if it had arrived there; none when there is no such folder.
    pub(crate) fn deliver(
        &mut self,
        login: &str,
        folder: &str,
        bytes: Bytes,
        received: SystemTime,
    ) -> Option<u32> {
        Some(self.folder_mut(login, folder)?.add(bytes, BTreeSet::new(), received))
    }

    pub(crate) fn session_mut(&mut self, id: u64) -> Option<&mut Session> {
        // Sessions are numbered from 1 in the order of this list.
        self.sessions.get_mut(usize::try_from(id.checked_sub(1)?).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_finds_its_account_by_the_closest_of_its_forms() {
        let mut store = Store::default();
        store.add_account("ana@acme.example", "a");
        store.add_account("desk", "b");
        store.add_alias("*@acme.example", "desk");
        store.add_alias("nowhere@acme.example", "missing");
        for (address, login) in [
            ("Ana@ACME.example", Some("ana@acme.example")),
            ("ana+contract-7@acme.example", Some("ana@acme.example")),
            ("rui@acme.example", Some("desk")),
            ("rui@other.example", None),
            ("nowhere@acme.example", None),
        ] {
            assert_eq!(store.receiver(address), login, "{address}");
        }
    }

    /// Would miss a session that waits for another account than its own; `imap` has the test of a client that is told.
    #[test]
    fn a_mail_is_news_in_its_own_account_and_in_no_other() {
        let mut store = Store::default();
        store.add_account("ana", "a");
        store.add_account("rui", "b");
        let [ana, rui] = ["ana", "rui"].map(|login| store.changes_of(login).unwrap());
        store.deliver("ana", INBOX, Bytes::from_static(b"\r\n"), SystemTime::UNIX_EPOCH).unwrap();
        assert!(ana.has_changed().unwrap() && !rui.has_changed().unwrap());
        assert!(store.changes_of("bea").is_none());
    }

    #[test]
    fn no_password_is_shown() {
        let mut store = Store::default();
        store.add_account("ana", "canary");
        let shown = format!("{store:?}");
        assert!(shown.contains("ana") && !shown.contains("canary"), "{shown}");
    }

    #[test]
    fn folders_above_a_new_folder_are_created_and_kept() {
        let mut store = Store::default();
        store.add_account("ana", "a");
        assert!(store.create_folder("ana", "A/B/C"));
        assert!(!store.create_folder("ana", "A/B"));
        let names: Vec<_> = store.account("ana").unwrap().folders.keys().cloned().collect();
        assert_eq!(names, ["A", "A/B", "A/B/C", "INBOX"]);
    }
}
