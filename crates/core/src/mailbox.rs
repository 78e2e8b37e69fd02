//! The mailbox: the row that the registry keeps of an inbox or outbox. What is registered of it stands in the files
//! below.

mod draft;
mod inbox;
mod oauth;
mod outbox;
mod settings;

pub use draft::{InboxDraft, MailboxDraft, OutboxDraft, SecretPresence, SettingsDraft};
pub use inbox::{AfterStore, Baseline, Inbox};
pub use oauth::{Grant, OAuth, OAuthDraft, OAuthSecret};
pub use outbox::{Authentication, Outbox, PRESETS, Preset, SentCopy};
pub use settings::{Kind, MailboxSettings, Settings};

use crate::id::{Actor, MailboxId, Revision};
use crate::rules;
use crate::text::words;
use crate::time::Timestamp;
use crate::violation::{Findings, Invalid, Violations};

words! {
    /// Whether a mailbox is used.
    Status, rules::STATUS;
    /// Registered and not used yet.
    Draft = "draft",
    /// In use.
    Active = "active",
    /// Taken out of use by a person; nothing is sent or fetched, nothing is lost.
    Disabled = "disabled",
}

/// A registered mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mailbox {
    /// Its number.
    pub id: MailboxId,
    /// What is registered.
    pub settings: MailboxSettings,
    /// Whether it is used.
    pub status: Status,
    /// How often it was changed; an edit names the one that it read.
    pub revision: Revision,
    /// Who changed it last.
    pub changed_by: Actor,
    /// When.
    pub changed_at: Timestamp,
}

impl Mailbox {
    /// The row that a store read.
    #[must_use]
    pub fn new(
        id: MailboxId,
        settings: MailboxSettings,
        status: Status,
        revision: Revision,
        changed_by: Actor,
        changed_at: Timestamp,
    ) -> Self {
        Self { id, settings, status, revision, changed_by, changed_at }
    }

    /// Whether it is in use.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.status == Status::Active
    }
}

impl MailboxSettings {
    /// Checks the companion against the registry: it is an inbox, and by IMAP where a sent copy is put into it.
    ///
    /// # Errors
    /// [`rules::COMPANION`], [`rules::SENT_COPY_COMPANION`].
    pub fn check_companion<'a>(
        &self,
        mailbox: &dyn Fn(MailboxId) -> Option<&'a Mailbox>,
    ) -> Result<(), Violations> {
        let mut findings = Findings::default();
        if let Some((outbox, id)) = self.outbox().and_then(|outbox| Some((outbox, outbox.companion()?))) {
            match mailbox(id).and_then(|found| found.settings.inbox()) {
                None => {
                    findings
                        .add(Invalid::new(&rules::COMPANION).with("value", id.to_string()).at("companion"));
                }
                Some(inbox) => {
                    let no_folder =
                        matches!(outbox.sent_copy(), SentCopy::Append(_)) && !inbox.provider().has_folders();
                    findings.refuse_if(no_folder, "sent_copy", &rules::SENT_COPY_COMPANION);
                }
            }
        }
        findings.finish(Some(()))
    }
}
