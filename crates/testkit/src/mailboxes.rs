//! The accounts and folders of a server as a test changes them, in the place of another client of the same mailbox.

use crate::{
    folder::{Folder, Stored},
    server::MailServer,
    store::{INBOX, Store},
};
use bytes::Bytes;
use std::{collections::BTreeSet, time::SystemTime};

impl MailServer {
    /// Changes the password of an account; sessions that have signed in stay.
    ///
    /// # Panics
    /// When there is no such account.
    pub fn set_password(&self, login: &str, password: &str) {
        let set = self.shared.change(|store| store.set_password(login, password));
        assert!(set, "no account {login:?}; there are {:?}", self.logins());
    }

    /// Puts a mail into the INBOX of the account that receives this address, as if it had arrived now; returns its UID.
    ///
    /// # Panics
    /// When no account receives the address.
    pub fn deliver(&self, address: &str, bytes: impl Into<Bytes>) -> u32 {
        self.deliver_to_folder(address, INBOX, bytes)
    }

    /// As [`deliver`](Self::deliver), into a folder by its plain name, such as `Suporte/Clientes São Paulo`.
    ///
    /// # Panics
    /// When no account receives the address, or it has no such folder.
    pub fn deliver_to_folder(&self, address: &str, folder: &str, bytes: impl Into<Bytes>) -> u32 {
        self.deliver_dated(address, folder, bytes, self.shared.now())
    }

    /// As [`deliver_to_folder`](Self::deliver_to_folder), with a chosen INTERNALDATE.
    ///
    /// # Panics
    /// When no account receives the address, or it has no such folder.
    pub fn deliver_dated(
        &self,
        address: &str,
        folder: &str,
        bytes: impl Into<Bytes>,
        received: SystemTime,
    ) -> u32 {
        let (login, bytes) = (self.login_of(address), bytes.into());
        let uid = self.shared.change(|store| store.deliver(&login, folder, bytes, received));
        uid.unwrap_or_else(|| self.no_folder(&login, folder))
    }

    /// Creates a folder and those above it, `/` between them; nothing happens when it is there.
    ///
    /// # Panics
    /// When no account receives the address.
    pub fn create_folder(&self, address: &str, folder: &str) {
        let login = self.login_of(address);
        self.shared.change(|store| store.create_folder(&login, folder));
    }

    /// The messages of a folder, by UID.
    ///
    /// # Panics
    /// When no account receives the address, or it has no such folder.
    #[must_use]
    pub fn messages(&self, address: &str, folder: &str) -> Vec<Stored> {
        let login = self.login_of(address);
        let messages =
            self.shared.read(|store| store.folder(&login, folder).map(|found| found.messages.clone()));
        messages.unwrap_or_else(|| self.no_folder(&login, folder))
    }

    /// The folder's UIDVALIDITY.
    ///
    /// # Panics
    /// When no account receives the address, or it has no such folder.
    #[must_use]
    pub fn uid_validity(&self, address: &str, folder: &str) -> u32 {
        let login = self.login_of(address);
        let validity = self.shared.read(|store| store.folder(&login, folder).map(|found| found.uid_validity));
        validity.unwrap_or_else(|| self.no_folder(&login, folder))
    }

    /// Sets the flags of a message, as another client would: system flags with a backslash, keywords without.
    ///
    /// # Panics
    /// When there is no such account, folder or message.
    pub fn set_flags(&self, address: &str, folder: &str, uid: u32, flags: &[&str]) {
        let flags: BTreeSet<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let set = self.change_folder(address, folder, |_, found| {
            found.find_mut(uid).map(|message| message.flags = flags).is_some()
        });
        assert!(set, "no message with UID {uid} in {folder:?} of {address:?}");
    }

    /// Removes a message for ever, as another client would.
    ///
    /// # Panics
    /// When there is no such account, folder or message.
    pub fn expunge(&self, address: &str, folder: &str, uid: u32) {
        let removed = self.change_folder(address, folder, |_, found| found.remove(&BTreeSet::from([uid])));
        assert!(removed == 1, "no message with UID {uid} in {folder:?} of {address:?}");
    }

    /// Gives one message another UID under the same UIDVALIDITY, against RFC 9051 section 2.3.1.1, and returns that: so Courier does when one
    /// session renames a file while another lists. Everything else of it stays.
    ///
    /// # Panics
    /// When there is no such account, folder or message.
    pub fn renumber_message(&self, address: &str, folder: &str, uid: u32) -> u32 {
        let renumbered = self.change_folder(address, folder, |_, found| found.move_behind(uid));
        renumbered.unwrap_or_else(|| panic!("no message with UID {uid} in {folder:?} of {address:?}"))
    }

    /// Gives the folder a new UIDVALIDITY and its messages new UIDs from 1; sessions that have it selected end.
    ///
    /// # Panics
    /// When there is no such account or folder.
    pub fn reset_uid_validity(&self, address: &str, folder: &str) {
        self.change_folder(address, folder, |validity, found| found.renumber(validity));
    }

    /// Gives the folder the messages that it had, as [`messages`](Self::messages) gave them, under the same UIDVALIDITY and with a UIDNEXT
    /// behind the last of them: so some servers come back from a backup. Sign in anew to see it.
    ///
    /// # Panics
    /// When there is no such account or folder.
    pub fn restore(&self, address: &str, folder: &str, messages: Vec<Stored>) {
        self.change_folder(address, folder, |_, found| found.set_back(messages));
    }

    /// Lets the folder continue at this UID, so that gaps and large UIDs can be tested.
    ///
    /// # Panics
    /// When there is no such account or folder, or the UID is not above those in use.
    pub fn skip_to_uid(&self, address: &str, folder: &str, uid: u32) {
        let skipped = self.change_folder(address, folder, |_, found| {
            let above = uid >= found.uid_next;
            if above {
                found.uid_next = uid;
            }
            above
        });
        assert!(skipped, "UIDs of {folder:?} of {address:?} are at or above {uid} already");
    }

    fn change_folder<R>(&self, address: &str, folder: &str, change: impl FnOnce(u32, &mut Folder) -> R) -> R {
        let login = self.login_of(address);
        let result = self.shared.change(|store| {
            let validity = store.new_validity();
            store.folder_mut(&login, folder).map(|found| change(validity, found))
        });
        result.unwrap_or_else(|| self.no_folder(&login, folder))
    }

    fn logins(&self) -> Vec<String> {
        self.shared.read(|store| store.logins().map(str::to_owned).collect())
    }

    fn login_of(&self, address: &str) -> String {
        let login = |store: &Store| {
            store
                .account(address)
                .map_or_else(|| store.receiver(address), |_| Some(address))
                .map(str::to_owned)
        };
        self.shared
            .read(login)
            .unwrap_or_else(|| panic!("no account receives {address:?}; there are {:?}", self.logins()))
    }

    fn no_folder(&self, login: &str, folder: &str) -> ! {
        let names: Vec<String> = self.shared.read(|store| {
            store.account(login).map(|account| account.folders.keys().cloned().collect()).unwrap_or_default()
        });
        panic!("no folder {folder:?} in the account {login:?}; there are {names:?}")
    }
}
