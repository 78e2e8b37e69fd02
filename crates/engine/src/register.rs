//! Register: mailboxes, contracts, steps, the standard outbox, the sending switches. Every change is checked as a whole,
//! refused when it is stale, and recorded with its actor.

use postroom_core::contract::Contract;
use postroom_core::id::{Actor, ContractId, MailboxId, Revision, StepKey};
use postroom_core::mailbox::{Mailbox, MailboxDraft, MailboxSettings, Outbox, SecretPresence, Status};
use postroom_core::rules;
use postroom_core::secret::{ExposeSecret, SecretChange};
use postroom_core::step::{Step, StepOutbox};
use postroom_core::violation::Invalid;
use postroom_storage::keyring::{Binding, Sealed};
use postroom_storage::{MailboxQuery, Scope, SecretWrite, Switch, Uses};

use crate::error::{Error, ErrorKind, Result};
use crate::postroom::Postroom;

impl Postroom {
    /// Registers a mailbox.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] with every violation; [`ErrorKind::Sealing`] when there is a secret and no key.
    pub async fn register(
        &self,
        actor: &Actor,
        draft: &MailboxDraft,
        secret: SecretChange,
        status: Status,
    ) -> Result<Mailbox> {
        let settings = draft.check_with_secret(&secret, None)?;
        let store = self.store();
        self.check_companion(&settings).await?;
        let id = store.reserve().await?;
        let sealed = match &secret {
            SecretChange::Set(password) => Some(self.seal_password(id, password.expose_secret())?),
            SecretChange::Keep | SecretChange::Clear => None,
        };
        let change = self.change(actor);
        let mailbox = Mailbox::new(id, settings, status, Revision::new(1), actor.clone(), change.now);
        store.add(&change, &mailbox, sealed).await?;
        self.ports.changed.notify_one();
        Ok(mailbox)
    }

    /// Changes a mailbox. `revision` is the one that the editor read.
    ///
    /// # Errors
    /// As for [`Postroom::register`]; a conflict when somebody else changed it since.
    pub async fn edit(
        &self,
        actor: &Actor,
        id: MailboxId,
        revision: Revision,
        draft: &MailboxDraft,
        secret: SecretChange,
    ) -> Result<Mailbox> {
        let mut mailbox = self.mailbox(id).await?;
        let presence = self.secret_presence(id).await?;
        let settings = draft.check_with_secret(&secret, Some((&mailbox.settings, presence)))?;
        if settings.kind() != mailbox.settings.kind() {
            return Err(Invalid::new(&rules::KIND).with("value", settings.kind().word()).into());
        }
        self.check_companion(&settings).await?;
        let write = match &secret {
            SecretChange::Set(password) => {
                SecretWrite::Set(self.seal_password(id, password.expose_secret())?)
            }
            // An outbox that signs in no more keeps no password.
            SecretChange::Clear => SecretWrite::Clear,
            SecretChange::Keep if settings.user().is_none() => SecretWrite::Clear,
            SecretChange::Keep => SecretWrite::Keep,
        };
        let grant = self.basis(&mailbox).await;
        mailbox.settings = settings;
        mailbox.revision = revision;
        let saved = self.save(actor, mailbox, write).await?;
        if let Some(grant) = grant
            && self.basis(&saved).await != Some(grant)
        {
            self.ports.grants.forget(self.store(), grant).await?;
        }
        Ok(saved)
    }

    /// Takes a mailbox into use, or out of it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; a conflict when somebody else changes it at the same time.
    pub async fn set_status(&self, actor: &Actor, id: MailboxId, status: Status) -> Result<Mailbox> {
        let mut mailbox = self.mailbox(id).await?;
        mailbox.status = status;
        self.save(actor, mailbox, SecretWrite::Keep).await
    }

    async fn save(&self, actor: &Actor, mut mailbox: Mailbox, secret: SecretWrite) -> Result<Mailbox> {
        let change = self.change(actor);
        mailbox.revision = self.store().save(&change, &mailbox, secret).await?;
        mailbox.changed_by = change.actor;
        mailbox.changed_at = change.now;
        // What was wrong with the old settings says nothing of the new ones, and no parked connection outlives them.
        self.store().clear(self.now(), mailbox.id).await?;
        if let Some(outgoing) = &self.ports.outgoing {
            outgoing.close_parked(mailbox.id).await;
        }
        self.release(actor, &mailbox).await?;
        self.ports.bell.notify_one();
        self.ports.changed.notify_one();
        Ok(mailbox)
    }

    /// The mailbox with this number.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub async fn mailbox(&self, id: MailboxId) -> Result<Mailbox> {
        self.store().mailbox(id).await?.ok_or_else(|| Error::new(ErrorKind::NotFound, "find the mailbox"))
    }

    /// A page of the mailboxes that are searched for.
    ///
    /// # Errors
    /// Of the store.
    pub async fn search(&self, query: &MailboxQuery) -> Result<Vec<Mailbox>> {
        Ok(self.store().search(query).await?)
    }

    /// What uses a mailbox.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub async fn uses(&self, id: MailboxId) -> Result<Uses> {
        Ok(self.store().uses(id).await?)
    }

    /// Removes a mailbox; what links to it moves to `replacement` in the same transaction.
    ///
    /// # Errors
    /// `in-use` when something uses it and there is no replacement, or mail still waits for it.
    pub async fn remove(&self, actor: &Actor, id: MailboxId, replacement: Option<MailboxId>) -> Result<()> {
        let grant = match self.store().mailbox(id).await? {
            Some(mailbox) => self.basis(&mailbox).await,
            None => None,
        };
        self.store().remove(&self.change(actor), id, replacement).await?;
        if let Some(grant) = grant {
            self.ports.grants.forget(self.store(), grant).await?;
        }
        if let Some(outgoing) = &self.ports.outgoing {
            outgoing.close_parked(id).await;
        }
        self.ports.changed.notify_one();
        Ok(())
    }

    /// The contract, or one without links if it has no row.
    ///
    /// # Errors
    /// Of the store.
    pub async fn contract(&self, id: &ContractId) -> Result<Contract> {
        Ok(self.store().contract(id).await?.unwrap_or_else(|| Contract::new(id.clone())))
    }

    /// Saves a contract with its links. Its revision is the one that was read, 0 for a new one.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] with every violation, also of links to boxes that are not there; a conflict.
    pub async fn save_contract(&self, actor: &Actor, contract: &Contract) -> Result<Contract> {
        contract.check()?;
        let mailboxes = self.mailboxes(contract.mailboxes()).await?;
        contract.check_links(&|id| mailboxes.get(&id))?;
        let revision = self.store().save_contract(&self.change(actor), contract).await?;
        let mut saved = contract.clone();
        saved.revision = revision;
        Ok(saved)
    }

    /// The step.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub async fn step(&self, key: &StepKey) -> Result<Step> {
        self.store().step(key).await?.ok_or_else(|| Error::new(ErrorKind::NotFound, "find the step"))
    }

    /// Saves a step with its links. Its revision is the one that was read, 0 for a new one.
    ///
    /// # Errors
    /// As for a contract.
    pub async fn save_step(&self, actor: &Actor, step: &Step) -> Result<Step> {
        step.check()?;
        let named = match step.outbox {
            StepOutbox::Contract => Vec::new(),
            StepOutbox::Specific(outbox) => vec![outbox],
        };
        let mailboxes = self.mailboxes(named).await?;
        step.check_links(&|id| mailboxes.get(&id))?;
        let revision = self.store().save_step(&self.change(actor), step).await?;
        let mut saved = step.clone();
        saved.revision = revision;
        Ok(saved)
    }

    /// Makes an outbox the standard one, or sets none.
    ///
    /// # Errors
    /// `not-found` when it is no registered outbox.
    pub async fn set_standard(&self, actor: &Actor, outbox: Option<MailboxId>) -> Result<()> {
        self.store().set_standard(&self.change(actor), outbox).await?;
        self.ports.bell.notify_one();
        Ok(())
    }

    /// Stops or resumes sending for the system, a contract or an outbox. What is submitted meanwhile waits.
    ///
    /// # Errors
    /// Of the store.
    pub async fn set_switch(&self, actor: &Actor, scope: &Scope, to: Switch) -> Result<()> {
        self.store().set_switch(&self.change(actor), scope, to).await?;
        self.ports.bell.notify_one();
        Ok(())
    }

    async fn check_companion(&self, settings: &MailboxSettings) -> Result<()> {
        let companion = settings.outbox().and_then(Outbox::companion);
        let mailboxes = self.mailboxes(companion.into_iter().collect()).await?;
        Ok(settings.check_companion(&|id| mailboxes.get(&id))?)
    }

    pub(crate) async fn secret_presence(&self, id: MailboxId) -> Result<SecretPresence> {
        let stored = self.store().secret(id).await?;
        Ok(if stored.is_some() { SecretPresence::Stored } else { SecretPresence::Absent })
    }

    fn seal_password(&self, id: MailboxId, password: &str) -> Result<Sealed> {
        Ok(self.ports.keyring.seal(&password_of(id), password.as_bytes())?)
    }
}

/// Where the password of a mailbox belongs.
pub(crate) fn password_of(id: MailboxId) -> Binding {
    Binding::new(format!("mailbox/{id}"), "password")
}
