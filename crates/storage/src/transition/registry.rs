//! What changes in the registry's rows: links that move to a replacement, the health after a sign, and whether a decision
//! still stands.

use std::time::Duration;

use postroom_core::contract::{Contract, ContractOutbox};
use postroom_core::id::{MailboxId, Revision, StepKey};
use postroom_core::mailbox::{Kind, Mailbox, MailboxDraft, MailboxSettings, SettingsDraft, Status};
use postroom_core::queue::{Basis, Prepared};
use postroom_core::resolve::{Reason, Resolution};
use postroom_core::step::{Step, StepOutbox};
use postroom_core::time::Timestamp;

use crate::registry::{Health, Sign};

/// The companion inbox of an outbox.
#[must_use]
pub fn companion(settings: &MailboxSettings) -> Option<MailboxId> {
    settings.outbox().and_then(|outbox| outbox.companion())
}

/// Moves a contract's links from a mailbox to its replacement. Gives whether there was one. A sender that the
/// replacement does not have becomes its default.
pub fn relink_contract(contract: &mut Contract, from: MailboxId, to: &Mailbox) -> Option<()> {
    contract.mailboxes().contains(&from).then_some(())?;
    if let ContractOutbox::Specific { outbox, sender } = &mut contract.outbox
        && *outbox == from
    {
        *outbox = to.id;
        let keeps = |sender: &_| to.settings.outbox().is_some_and(|new| new.sender(sender).is_some());
        *sender = sender.take().filter(keeps);
    }
    for list in [Some(&mut contract.inboxes), contract.allowed_outboxes.as_mut()].into_iter().flatten() {
        if list.contains(&to.id) {
            list.retain(|id| *id != from);
        }
        list.iter_mut().filter(|id| **id == from).for_each(|id| *id = to.id);
    }
    Some(())
}

/// Moves a step's outbox from a mailbox to its replacement. Gives whether it named it.
pub fn relink_step(step: &mut Step, from: MailboxId, to: MailboxId) -> Option<()> {
    (step.outbox == StepOutbox::Specific(from)).then(|| step.outbox = StepOutbox::Specific(to))
}

/// The settings of an outbox with another companion.
///
/// # Errors
/// The violations of the new settings.
pub fn with_companion(
    settings: &MailboxSettings,
    to: MailboxId,
) -> Result<MailboxSettings, postroom_core::violation::Violations> {
    let mut draft = MailboxDraft::from(settings);
    if let SettingsDraft::Outbox(outbox) = &mut draft.settings {
        outbox.companion = Some(to);
    }
    draft.check()
}

/// The health after a sign.
#[must_use]
pub fn health_after(before: Health, now: Timestamp, sign: &Sign) -> Health {
    let failed = |error: &String| Health {
        failures: before.failures.saturating_add(1),
        last_error: Some(error.clone()),
        failed_at: Some(now),
        ..before.clone()
    };
    match sign {
        Sign::Success => Health { last_success: Some(now), ..Health::unknown(before.mailbox) },
        Sign::Failure { error, wait } => Health { next_attempt: Some(now + *wait), ..failed(error) },
        Sign::Suspended { error } => Health { next_attempt: None, suspended: true, ..failed(error) },
    }
}

/// Whether one more success would say nothing new: a commit for each mail that is sent would be one too many.
#[must_use]
pub fn is_fresh(health: &Health, now: Timestamp) -> bool {
    let since = health.last_success.map(|at| now.since(at));
    let is_well = health.failures == 0 && !health.suspended && health.next_attempt.is_none();
    is_well && since.is_some_and(|since| since < Duration::from_secs(60))
}

/// The health after a person mended it: only the last success is remembered.
#[must_use]
pub fn health_cleared(before: &Health) -> Health {
    Health { last_success: before.last_success, ..Health::unknown(before.mailbox) }
}

/// What a change of health is to whoever reads events: only turns, never each sign.
#[must_use]
pub fn health_event(before: &Health, after: &Health) -> Option<(&'static str, String)> {
    let said = || after.last_error.clone().unwrap_or_default();
    let was_well = before.failures == 0 && !before.suspended;
    let is_well = after.failures == 0 && !after.suspended;
    match (before.suspended, after.suspended) {
        (false, true) => Some(("suspended", said())),
        _ if was_well && !is_well => Some(("failing", said())),
        _ if !was_well && is_well => Some(("works", String::new())),
        _ => None,
    }
}

/// What a decision needs to know of a mailbox that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "three columns of a row")]
pub struct OutboxState {
    /// Its kind: a number may have been given to an inbox.
    pub kind: Kind,
    /// Whether it is in use.
    pub status: Status,
    /// Its revision.
    pub revision: Revision,
}

impl From<&Mailbox> for OutboxState {
    fn from(mailbox: &Mailbox) -> Self {
        Self { kind: mailbox.settings.kind(), status: mailbox.status, revision: mailbox.revision }
    }
}

/// What is stored of a decision's basis when its mail is inserted.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "the arguments of one pure function")]
pub struct Stored {
    /// The outbox.
    pub outbox: Option<OutboxState>,
    /// The contract's revision.
    pub contract: Option<Revision>,
    /// The revision of the mail's step.
    pub step: Option<Revision>,
    /// The standard outbox.
    pub standard: Option<MailboxId>,
}

impl Stored {
    /// Whether the mail's decision was made by what is stored, and its outbox is active (or the mail held).
    #[must_use]
    pub fn upholds(&self, mail: &Prepared) -> bool {
        self.upholds_decision(&mail.resolution, &mail.basis, mail.step.as_ref())
    }

    /// The same for a decision about a mail of `step`.
    #[must_use]
    pub fn upholds_decision(&self, resolution: &Resolution, basis: &Basis, step: Option<&StepKey>) -> bool {
        let by_standard = |reason: &Reason| matches!(reason, Reason::Standard | Reason::Fallback { .. });
        self.outbox.is_some_and(|outbox| {
            outbox.revision == basis.outbox
                && outbox.kind == Kind::Outbox
                && (resolution.held || outbox.status == Status::Active)
        }) && self.contract == basis.contract
            && (step.is_none() || self.step == basis.step)
            && (!resolution.reasons.iter().any(by_standard) || self.standard == Some(resolution.outbox))
    }
}
