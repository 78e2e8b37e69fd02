//! The registry in memory: mailboxes, links, switches, health, audit, vault.

use async_trait::async_trait;
use postroom_core::contract::Contract;
use postroom_core::id::{Actor, ContractId, EventNumber, MailboxId, Revision, StepKey, WorkerId};
use postroom_core::mailbox::{Kind, Mailbox};
use postroom_core::step::{Step, StepOutbox};
use postroom_core::time::Timestamp;
use serde_json::Value;

use super::rows::{Rows, page};
use super::store::MemoryStore;
use crate::audit;
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::{Binding, Sealed};
use crate::registry::{
    Audit, AuditEntry, Change, Direction, Health, HealthBook, Links, MailboxQuery, Mailboxes, Scope,
    SecretWrite, Sign, Sort, Switch, Switches, Uses, Vault,
};
use crate::transition::registry::{
    companion, health_after, health_cleared, relink_contract, relink_step, with_companion,
};

impl Rows {
    pub(super) fn write_audit(&mut self, change: &Change, subject: String, action: &str, changes: Value) {
        let number = i64::try_from(self.audit.len()).unwrap_or(i64::MAX).saturating_add(1);
        self.audit.push(AuditEntry {
            number: EventNumber::new(number),
            at: change.now,
            actor: change.actor.clone(),
            subject,
            action: action.to_owned(),
            changes,
        });
    }

    fn uses(&self, id: MailboxId) -> Uses {
        let links = |contract: &&Contract| contract.mailboxes().contains(&id);
        let names = |step: &&Step| step.outbox == StepOutbox::Specific(id);
        let sends_to = |mailbox: &&Mailbox| companion(&mailbox.settings) == Some(id);
        Uses {
            contracts: self.contracts.values().filter(links).map(|contract| contract.id.clone()).collect(),
            steps: self.steps.values().filter(names).map(|step| step.key.clone()).collect(),
            companion_of: self.mailboxes.values().filter(sends_to).map(|mailbox| mailbox.id).collect(),
            standard: self.standard == Some(id),
            queued: self.queued_by(id),
            unhandled: self.unhandled_of(id),
        }
    }

    fn has_all(&self, mut ids: impl Iterator<Item = MailboxId>, stage: &'static str) -> Result<()> {
        let all = ids.all(|id| self.mailboxes.contains_key(&id));
        if all { Ok(()) } else { Err(Error::new(ErrorKind::NotFound, stage)) }
    }

    /// Writes the new state of a stored mailbox, with its audit entry.
    fn rewrite(&mut self, change: &Change, mailbox: Mailbox, secret: SecretWrite) -> Revision {
        let revision = next(mailbox.revision);
        let (at, by) = (change.now, change.actor.clone());
        let mailbox = stamped(&mailbox, revision, by, at);
        let id = mailbox.id;
        let changes = audit::mailbox_changes(self.mailboxes.get(&id), Some(&mailbox), &secret);
        self.write_audit(change, audit::mailbox_subject(id), "save", changes);
        self.mailboxes.insert(id, mailbox);
        match secret {
            SecretWrite::Keep => {}
            SecretWrite::Clear => drop(self.secrets.remove(&id)),
            SecretWrite::Set(sealed) => drop(self.secrets.insert(id, sealed)),
        }
        revision
    }

    fn rewrite_contract(&mut self, change: &Change, contract: &Contract) -> Revision {
        let mut contract = contract.clone();
        contract.revision = next(contract.revision);
        let revision = contract.revision;
        let old = self.contracts.get(&contract.id);
        let action = if old.is_some() { "save" } else { "add" };
        let changes = audit::contract_changes(old, &contract);
        self.write_audit(change, audit::contract_subject(&contract.id), action, changes);
        self.contracts.insert(contract.id.clone(), contract);
        revision
    }

    fn rewrite_step(&mut self, change: &Change, step: &Step) -> Revision {
        let mut step = step.clone();
        step.revision = next(step.revision);
        let revision = step.revision;
        let old = self.steps.get(&step.key);
        let action = if old.is_some() { "save" } else { "add" };
        let changes = audit::step_changes(old, &step);
        self.write_audit(change, audit::step_subject(&step.key), action, changes);
        self.steps.insert(step.key.clone(), step);
        revision
    }

    fn make_standard(&mut self, change: &Change, outbox: Option<MailboxId>) {
        let changes = audit::standard_changes(self.standard, outbox);
        self.standard = outbox;
        self.write_audit(change, audit::STANDARD_SUBJECT.to_owned(), "set", changes);
    }

    fn relink(&mut self, change: &Change, from: MailboxId, to: &Mailbox) -> Result<()> {
        // What can fail comes first, so that nothing is half done.
        let mut outboxes = Vec::new();
        for mailbox in self.mailboxes.values().filter(|one| companion(&one.settings) == Some(from)) {
            let settings = with_companion(&mailbox.settings, to.id);
            let settings = settings.map_err(|_| Error::new(ErrorKind::Unreadable, "move a companion"))?;
            let mut moved = mailbox.clone();
            moved.settings = settings;
            outboxes.push(moved);
        }
        for outbox in outboxes {
            self.rewrite(change, outbox, SecretWrite::Keep);
        }
        let mut contracts: Vec<Contract> = self.contracts.values().cloned().collect();
        contracts.retain_mut(|contract| relink_contract(contract, from, to).is_some());
        for contract in contracts {
            self.rewrite_contract(change, &contract);
        }
        let mut steps: Vec<Step> = self.steps.values().cloned().collect();
        steps.retain_mut(|step| relink_step(step, from, to.id).is_some());
        for step in steps {
            self.rewrite_step(change, &step);
        }
        if self.standard == Some(from) {
            self.make_standard(change, Some(to.id));
        }
        Ok(())
    }
}

fn next(revision: Revision) -> Revision {
    Revision::new(revision.number().saturating_add(1))
}

fn stamped(mailbox: &Mailbox, revision: Revision, by: Actor, at: Timestamp) -> Mailbox {
    Mailbox::new(mailbox.id, mailbox.settings.clone(), mailbox.status, revision, by, at)
}

#[async_trait]
impl Mailboxes for MemoryStore {
    async fn reserve(&self) -> Result<MailboxId> {
        let mut rows = self.rows();
        rows.last_mailbox += 1;
        Ok(MailboxId::new(rows.last_mailbox))
    }

    async fn add(&self, change: &Change, mailbox: &Mailbox, secret: Option<Sealed>) -> Result<()> {
        const STAGE: &str = "add a mailbox";
        let mut rows = self.rows();
        if rows.mailboxes.contains_key(&mailbox.id) {
            return Err(Error::new(ErrorKind::Conflict, STAGE));
        }
        rows.has_all(companion(&mailbox.settings).into_iter(), STAGE)?;
        let mailbox = stamped(mailbox, mailbox.revision, change.actor.clone(), change.now);
        let touched = secret.clone().map_or(SecretWrite::Keep, SecretWrite::Set);
        let changes = audit::mailbox_changes(None, Some(&mailbox), &touched);
        rows.write_audit(change, audit::mailbox_subject(mailbox.id), "add", changes);
        rows.last_mailbox = rows.last_mailbox.max(mailbox.id.number());
        if let Some(sealed) = secret {
            rows.secrets.insert(mailbox.id, sealed);
        }
        rows.mailboxes.insert(mailbox.id, mailbox);
        Ok(())
    }

    async fn save(&self, change: &Change, mailbox: &Mailbox, secret: SecretWrite) -> Result<Revision> {
        const STAGE: &str = "save a mailbox";
        let mut rows = self.rows();
        let stored = rows.mailboxes.get(&mailbox.id).ok_or_else(|| Error::new(ErrorKind::NotFound, STAGE))?;
        if stored.revision != mailbox.revision || stored.settings.kind() != mailbox.settings.kind() {
            return Err(Error::new(ErrorKind::Conflict, STAGE));
        }
        rows.has_all(companion(&mailbox.settings).into_iter(), STAGE)?;
        // The next claim finds out whether the new limits leave something.
        if let Some((_, waits)) = rows.budgets.get_mut(&mailbox.id) {
            *waits = None;
        }
        Ok(rows.rewrite(change, mailbox.clone(), secret))
    }

    async fn mailbox(&self, id: MailboxId) -> Result<Option<Mailbox>> {
        Ok(self.rows().mailboxes.get(&id).cloned())
    }

    async fn search(&self, query: &MailboxQuery) -> Result<Vec<Mailbox>> {
        let rows = self.rows();
        let part = |part: &Option<String>, text: &str| {
            part.as_ref().is_none_or(|part| text.to_ascii_lowercase().contains(&part.to_ascii_lowercase()))
        };
        let linked = query.contract.as_ref().map(|id| rows.contracts.get(id).map(Contract::mailboxes));
        let mut found: Vec<&Mailbox> = rows
            .mailboxes
            .values()
            .filter(|mailbox| part(&query.server, mailbox.settings.endpoint().host.as_str()))
            .filter(|mailbox| part(&query.description, mailbox.settings.description()))
            .filter(|mailbox| query.kind.is_none_or(|kind| mailbox.settings.kind() == kind))
            .filter(|mailbox| query.status.is_none_or(|status| mailbox.status == status))
            .filter(|mailbox| {
                linked.as_ref().is_none_or(|ids| ids.as_ref().is_some_and(|ids| ids.contains(&mailbox.id)))
            })
            .collect();
        let place = |server: &str, id| match query.sort {
            Sort::Id => (String::new(), id),
            Sort::Server => (server.to_owned(), id),
        };
        let place_of = |mailbox: &&Mailbox| place(mailbox.settings.endpoint().host.as_str(), mailbox.id);
        found.sort_by_cached_key(place_of);
        if query.direction == Direction::Descending {
            found.reverse();
        }
        if let Some(after) = query.after.as_ref().map(|after| place(&after.server, after.id)) {
            found.retain(|mailbox| match query.direction {
                Direction::Ascending => place_of(mailbox) > after,
                Direction::Descending => place_of(mailbox) < after,
            });
        }
        Ok(found.into_iter().take(page(query.limit)).cloned().collect())
    }

    async fn secret(&self, id: MailboxId) -> Result<Option<Sealed>> {
        Ok(self.rows().secrets.get(&id).cloned())
    }

    async fn uses(&self, id: MailboxId) -> Result<Uses> {
        let rows = self.rows();
        rows.has_all(std::iter::once(id), "find what uses a mailbox")?;
        Ok(rows.uses(id))
    }

    async fn remove(&self, change: &Change, id: MailboxId, replacement: Option<MailboxId>) -> Result<()> {
        let fail = |kind| Err(Error::new(kind, "remove a mailbox"));
        let mut rows = self.rows();
        let Some(mailbox) = rows.mailboxes.get(&id).cloned() else { return fail(ErrorKind::NotFound) };
        let to = match replacement.map(|to| rows.mailboxes.get(&to).cloned()) {
            Some(None) => return fail(ErrorKind::NotFound),
            Some(Some(to)) if to.id == id || to.settings.kind() != mailbox.settings.kind() => {
                return fail(ErrorKind::Conflict);
            }
            Some(to) => to,
            None => None,
        };
        let uses = rows.uses(id);
        if uses.queued > 0 || uses.unhandled > 0 || (to.is_none() && !uses.is_empty()) {
            return fail(ErrorKind::InUse);
        }
        if let Some(to) = to {
            rows.relink(change, id, &to)?;
        }
        let secret = rows.secrets.remove(&id).map_or(SecretWrite::Keep, |_| SecretWrite::Clear);
        rows.mailboxes.remove(&id);
        rows.health.remove(&id);
        rows.probers.remove(&id);
        rows.watching.watches.remove(&id);
        rows.budgets.remove(&id);
        rows.served.retain(|line, _| line.0 != id);
        rows.paused.remove(&Scope::Outbox(id));
        let changes = audit::mailbox_changes(Some(&mailbox), None, &secret);
        rows.write_audit(change, audit::mailbox_subject(id), "remove", changes);
        Ok(())
    }
}

#[async_trait]
impl Links for MemoryStore {
    async fn contract(&self, id: &ContractId) -> Result<Option<Contract>> {
        Ok(self.rows().contracts.get(id).cloned())
    }

    async fn save_contract(&self, change: &Change, contract: &Contract) -> Result<Revision> {
        const STAGE: &str = "save a contract";
        let mut rows = self.rows();
        let stored = rows.contracts.get(&contract.id).map_or(Revision::new(0), |stored| stored.revision);
        if stored != contract.revision {
            return Err(Error::new(ErrorKind::Conflict, STAGE));
        }
        rows.has_all(contract.mailboxes().into_iter(), STAGE)?;
        Ok(rows.rewrite_contract(change, contract))
    }

    async fn contracts<'a>(&self, after: Option<&'a ContractId>, limit: u32) -> Result<Vec<Contract>> {
        let rows = self.rows();
        let behind = |contract: &&Contract| after.is_none_or(|after| contract.id > *after);
        Ok(rows.contracts.values().filter(behind).take(page(Some(limit))).cloned().collect())
    }

    async fn contracts_of(&self, inbox: MailboxId) -> Result<Vec<Contract>> {
        let rows = self.rows();
        Ok(rows.contracts.values().filter(|contract| contract.inboxes.contains(&inbox)).cloned().collect())
    }

    async fn step(&self, key: &StepKey) -> Result<Option<Step>> {
        Ok(self.rows().steps.get(key).cloned())
    }

    async fn save_step(&self, change: &Change, step: &Step) -> Result<Revision> {
        const STAGE: &str = "save a step";
        let mut rows = self.rows();
        let stored = rows.steps.get(&step.key).map_or(Revision::new(0), |stored| stored.revision);
        if stored != step.revision {
            return Err(Error::new(ErrorKind::Conflict, STAGE));
        }
        if let StepOutbox::Specific(outbox) = step.outbox {
            rows.has_all(std::iter::once(outbox), STAGE)?;
        }
        Ok(rows.rewrite_step(change, step))
    }

    async fn steps<'a>(&self, after: Option<&'a StepKey>, limit: u32) -> Result<Vec<Step>> {
        let rows = self.rows();
        let behind = |step: &&Step| after.is_none_or(|after| step.key > *after);
        Ok(rows.steps.values().filter(behind).take(page(Some(limit))).cloned().collect())
    }
}

#[async_trait]
impl Switches for MemoryStore {
    async fn standard(&self) -> Result<Option<MailboxId>> {
        Ok(self.rows().standard)
    }

    async fn set_standard(&self, change: &Change, outbox: Option<MailboxId>) -> Result<()> {
        let mut rows = self.rows();
        let is_outbox = |id| rows.mailboxes.get(&id).is_some_and(|one| one.settings.kind() == Kind::Outbox);
        if !outbox.is_none_or(is_outbox) {
            return Err(Error::new(ErrorKind::NotFound, "set the standard outbox"));
        }
        rows.make_standard(change, outbox);
        Ok(())
    }

    async fn paused(&self) -> Result<Vec<Scope>> {
        Ok(self.rows().paused.iter().cloned().collect())
    }

    async fn set_switch(&self, change: &Change, scope: &Scope, to: Switch) -> Result<()> {
        let mut rows = self.rows();
        let changed = match to {
            Switch::Paused => rows.paused.insert(scope.clone()),
            Switch::Running => rows.paused.remove(scope),
        };
        if changed {
            rows.write_audit(change, audit::switch_subject(scope), "set", audit::switch_changes(to));
        }
        Ok(())
    }
}

#[async_trait]
impl HealthBook for MemoryStore {
    async fn health(&self, mailbox: MailboxId) -> Result<Health> {
        Ok(self.rows().health.get(&mailbox).cloned().unwrap_or_else(|| Health::unknown(mailbox)))
    }

    async fn all_health(&self) -> Result<Vec<Health>> {
        Ok(self.rows().health.values().cloned().collect())
    }

    async fn record(&self, now: Timestamp, mailbox: MailboxId, sign: &Sign) -> Result<()> {
        let mut rows = self.rows();
        if rows.mailboxes.contains_key(&mailbox) {
            let before = rows.health.remove(&mailbox).unwrap_or_else(|| Health::unknown(mailbox));
            let after = health_after(before.clone(), now, sign);
            rows.publish_health(now, &before, &after);
            rows.health.insert(mailbox, after);
            rows.probers.remove(&mailbox);
        }
        Ok(())
    }

    async fn probe(
        &self,
        now: Timestamp,
        mailbox: MailboxId,
        worker: WorkerId,
        until: Timestamp,
    ) -> Result<bool> {
        let mut rows = self.rows();
        let Some(health) = rows.health.get_mut(&mailbox) else { return Ok(true) };
        if health.failures == 0 && !health.suspended {
            return Ok(true);
        }
        if health.rests(now) {
            return Ok(false);
        }
        health.next_attempt = Some(until);
        rows.probers.insert(mailbox, worker);
        Ok(true)
    }

    async fn clear(&self, now: Timestamp, mailbox: MailboxId) -> Result<()> {
        let mut rows = self.rows();
        rows.probers.remove(&mailbox);
        if let Some(before) = rows.health.get(&mailbox).cloned() {
            let after = health_cleared(&before);
            rows.publish_health(now, &before, &after);
            rows.health.insert(mailbox, after);
        }
        Ok(())
    }
}

#[async_trait]
impl Audit for MemoryStore {
    async fn entries<'a>(
        &self,
        subject: Option<&'a str>,
        after: EventNumber,
        limit: u32,
    ) -> Result<Vec<AuditEntry>> {
        let rows = self.rows();
        let fits = |entry: &&AuditEntry| {
            entry.number > after && subject.is_none_or(|subject| entry.subject == subject)
        };
        Ok(rows.audit.iter().filter(fits).take(page(Some(limit))).cloned().collect())
    }
}

#[async_trait]
impl Vault for MemoryStore {
    async fn put_if_absent(&self, binding: &Binding, sealed: Sealed) -> Result<Sealed> {
        let key = (binding.owner.clone(), binding.field.clone());
        Ok(self.rows().vault.entry(key).or_insert(sealed).clone())
    }

    async fn replace(&self, binding: &Binding, from: &Sealed, to: Option<Sealed>) -> Result<bool> {
        let key = (binding.owner.clone(), binding.field.clone());
        let vault = &mut self.rows().vault;
        if vault.get(&key) != Some(from) {
            return Ok(false);
        }
        match to {
            Some(to) => drop(vault.insert(key, to)),
            None => drop(vault.remove(&key)),
        }
        Ok(true)
    }

    async fn values(&self, owner: &str) -> Result<Vec<(Binding, Sealed)>> {
        let rows = self.rows();
        let its = rows.vault.iter().filter(|((of, _), _)| of == owner);
        Ok(its.map(|((of, field), sealed)| (Binding::new(of, field), sealed.clone())).collect())
    }
}
