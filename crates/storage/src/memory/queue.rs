//! The queue in memory.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::address::Address;
use postroom_core::automatic;
use postroom_core::budget::{Limits, Wait};
use postroom_core::id::{BodyId, ContractId, MailboxId, QueueId, WorkerId};
use postroom_core::queue::{Prepared, State};
use postroom_core::suppression::suppressed_form;
use postroom_core::time::Timestamp;

use super::rows::{Line, QueuedMail, Rows, count, page};
use super::store::MemoryStore;
use crate::budgets::{BudgetOwner, BudgetView, Budgets, Used, accounts, check_correspondents};
use crate::error::{Error, ErrorKind, Result};
use crate::queue::{
    ClaimMark, Claimed, Enqueued, LOOKED_AT, QueueIntake, QueueItem, QueueWork, SentMail, Settled,
    Settlement, Sweep,
};
use crate::registry::Scope;
use crate::transition::lease::Lease;
use crate::transition::queue::QueueRow;
use crate::transition::registry::{OutboxState, Stored};

const DAY: i64 = 24 * 60 * 60 * 1000;

impl QueuedMail {
    pub(super) fn item(&self) -> QueueItem {
        let (mail, row) = (&self.mail, &self.row);
        QueueItem {
            id: mail.id,
            state: row.state(),
            contract: mail.contract.clone(),
            step: mail.step.clone(),
            outbox: mail.resolution.outbox,
            sender: mail.resolution.sender.clone(),
            reasons: mail.resolution.reasons.clone(),
            subject: mail.subject.clone(),
            message_id: mail.message_id.clone(),
            record: mail.record.clone(),
            in_reply_to: mail.in_reply_to,
            attempts: row.attempts,
            created_at: row.created_at,
            due_at: row.is_waiting().then_some(row.due_at),
            expires_at: row.expires_at,
        }
    }
}

/// A line whose turn may come.
#[derive(Clone, Copy)]
struct Ready {
    /// Since when it waits.
    since: Timestamp,
    /// Orders the lines that wait since the same time.
    turn: u64,
    /// When its first mail is due, and which it is.
    first: (Timestamp, QueueId),
}

impl Rows {
    pub(super) fn unfinished(&self) -> impl Iterator<Item = &QueuedMail> {
        self.hot.iter().filter_map(|id| self.queue.get(id))
    }

    /// The mails that a worker may claim now.
    fn due(&self, now: Timestamp, worker: Option<WorkerId>) -> impl Iterator<Item = &QueuedMail> {
        self.unfinished().filter(move |one| one.row.is_due(now) && self.is_open(now, &one.mail, worker))
    }

    /// The lines that have a mail which may be claimed now.
    fn ready(&self, now: Timestamp, worker: Option<WorkerId>) -> BTreeMap<Line, Ready> {
        let mut lines: BTreeMap<Line, Ready> = BTreeMap::new();
        for one in self.due(now, worker) {
            let (mail, first) = (&one.mail, (one.row.due_at, one.mail.id));
            let line = (mail.resolution.outbox, mail.contract.clone(), mail.priority);
            let (served, turn) = self.served.get(&line).copied().unwrap_or((first.0, 0));
            let new = Ready { since: first.0.max(served), turn, first };
            let ready = lines.entry(line).or_insert(new);
            if first < ready.first {
                *ready = new;
            }
        }
        lines
    }

    fn is_open(&self, now: Timestamp, mail: &Prepared, worker: Option<WorkerId>) -> bool {
        let outbox = mail.resolution.outbox;
        let pauses = |scope: &Scope| match scope {
            Scope::System => true,
            Scope::Contract(id) => *id == mail.contract,
            Scope::Outbox(id) => *id == outbox,
        };
        let rests = self.health.get(&outbox).is_some_and(|health| {
            let tries = worker.is_some() && self.probers.get(&outbox).copied() == worker;
            health.suspended || !tries && health.next_attempt.is_some_and(|next_attempt| next_attempt > now)
        });
        let waits = self.waits(outbox).is_some_and(|wait| wait.until > now);
        let is_active = self.mailboxes.get(&outbox).is_some_and(|mailbox| mailbox.is_active());
        is_active && !rests && !waits && !self.paused.iter().any(pauses)
    }

    /// Until when an outbox waits for its limits.
    pub(super) fn waits(&self, outbox: MailboxId) -> Option<Wait> {
        self.budgets.get(&outbox).and_then(|(_, waits)| *waits)
    }

    /// The limits of an outbox.
    pub(super) fn limits(&self, outbox: MailboxId) -> Limits {
        let mailbox = self.mailboxes.get(&outbox);
        mailbox.and_then(|mailbox| mailbox.settings.outbox()).map(Limits::of).unwrap_or_default()
    }

    /// Takes a mail out of its outbox's budget. Gives whether it fits.
    fn take(&mut self, now: Timestamp, outbox: MailboxId, recipients: u64) -> bool {
        let limits = self.limits(outbox);
        if limits.is_empty() {
            return true;
        }
        let (budget, waits) = self.budgets.entry(outbox).or_default();
        let taken = budget.take(limits, now, recipients);
        *waits = taken.err().or_else(|| budget.wait(limits, now, 1));
        taken.is_ok()
    }

    /// Changes a mail and keeps what depends on its state.
    pub(super) fn change<T>(&mut self, id: QueueId, change: impl FnOnce(&mut QueuedMail) -> T) -> Option<T> {
        let one = self.queue.get_mut(&id)?;
        let before = one.row.clone();
        let result = change(one);
        let is_finished = one.row.is_finished();
        if one.row != before {
            one.finished_at = one.timeline.last().map(|entry| entry.at).filter(|_| is_finished);
        }
        self.publish_mail(id);
        if is_finished {
            self.hot.remove(&id)
        } else {
            self.hot.insert(id)
        };
        Some(result)
    }

    /// What is stored of that by which a decision for `outbox` about a mail was made.
    pub(super) fn stored(&self, outbox: MailboxId, mail: &Prepared) -> Stored {
        Stored {
            outbox: self.mailboxes.get(&outbox).map(OutboxState::from),
            contract: self.contracts.get(&mail.contract).map(|contract| contract.revision),
            step: mail.step.as_ref().and_then(|key| self.steps.get(key)).map(|step| step.revision),
            standard: self.standard,
        }
    }

    fn check_limits(&self, now: Timestamp, mail: &Prepared) -> Result<()> {
        let Some(contract) = self.contracts.get(&mail.contract) else { return Ok(()) };
        let day = |at: Timestamp| at.as_millis().div_euclid(DAY);
        let its = |one: &&QueuedMail| one.mail.contract == mail.contract;
        let today = |one: &&QueuedMail| its(one) && day(one.row.created_at) == day(now);
        let within = |limit, most: Option<u32>, used: &dyn Fn() -> u64| match most.map(u64::from) {
            Some(most) if used() >= most => {
                Err(Error::new(ErrorKind::LimitReached { limit, most }, "submit a mail"))
            }
            _ => Ok(()),
        };
        within("queued", contract.limits.queued, &|| count(self.unfinished().filter(its)))?;
        within("per-day", contract.limits.per_day, &|| count(self.queue.values().filter(today)))
    }
}

#[async_trait]
impl QueueIntake for MemoryStore {
    async fn enqueue(&self, now: Timestamp, mail: &Prepared, content: Bytes) -> Result<Enqueued> {
        const STAGE: &str = "submit a mail";
        let mut rows = self.rows();
        if rows.queue.contains_key(&mail.id) {
            return Ok(Enqueued::Existing(mail.id));
        }
        let key = mail.idempotency.as_ref().map(|(key, print)| ((mail.contract.clone(), key.clone()), print));
        if let Some((key, print)) = &key
            && let Some(existing) = rows.keys.get(key).copied()
        {
            let other = rows.queue.get(&existing).and_then(|one| one.mail.idempotency.as_ref());
            return match other.and_then(|(_, other)| print.first_difference(other)) {
                None => Ok(Enqueued::Existing(existing)),
                Some(field) => {
                    let field = field.to_owned();
                    Err(Error::new(ErrorKind::IdempotencyConflict { existing, field }, STAGE))
                }
            };
        }
        if !rows.stored(mail.resolution.outbox, mail).upholds(mail) {
            return Err(Error::new(ErrorKind::StaleDecision, STAGE));
        }
        rows.check_limits(now, mail)?;
        check_correspondents(mail, now, |account| rows.answers.get(account).map(Vec::as_slice))?;
        for account in accounts(mail).into_keys() {
            rows.answers.entry(account).or_default().push(now);
        }
        let (row, entry) = QueueRow::enqueue(now, mail);
        let body = BodyId::from_uuid(mail.id.uuid());
        let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
        rows.add_body(now, body, &content);
        if let Some((key, _)) = key {
            rows.keys.insert(key, mail.id);
        }
        rows.message_ids.entry(mail.message_id.clone()).or_default().push(mail.id);
        rows.hot.insert(mail.id);
        let mail = mail.clone();
        let id = mail.id;
        rows.queue.insert(
            id,
            QueuedMail { mail, row, body, size, timeline: vec![entry], told: 0, finished_at: None },
        );
        rows.publish_mail(id);
        Ok(Enqueued::New(id))
    }

    async fn sent_by_message_id(&self, message_ids: &[String]) -> Result<Vec<SentMail>> {
        let rows = self.rows();
        let ids = message_ids.iter().filter_map(|message_id| rows.message_ids.get(message_id)).flatten();
        Ok(ids.filter_map(|id| rows.queue.get(id)).map(|one| sent_mail(&one.mail)).collect())
    }

    async fn sent_to(
        &self,
        contract: &ContractId,
        recipient: &Address,
        since: Timestamp,
    ) -> Result<Vec<SentMail>> {
        let rows = self.rows();
        let recipient = suppressed_form(recipient);
        let newer =
            rows.queue.values().filter(|one| one.mail.contract == *contract && one.row.created_at > since);
        let newer: Vec<_> = newer.take(page(Some(LOOKED_AT)).saturating_add(1)).collect();
        if newer.len() > page(Some(LOOKED_AT)) {
            return Ok(Vec::new());
        }
        let took = |one: &&&QueuedMail| {
            let mut recipients = one.mail.recipients.iter().zip(&one.row.recipients);
            recipients.any(|(to, row)| {
                let is_taken = matches!(row.state, State::Accepted | State::Bounced | State::InDoubt);
                is_taken && suppressed_form(&to.address) == recipient
            })
        };
        Ok(newer.iter().filter(took).take(2).map(|one| sent_mail(&one.mail)).collect())
    }
}

fn sent_mail(mail: &Prepared) -> SentMail {
    SentMail {
        id: mail.id,
        contract: mail.contract.clone(),
        record: mail.record.clone(),
        message_id: mail.message_id.clone(),
    }
}

#[async_trait]
impl QueueWork for MemoryStore {
    async fn due_outboxes(&self, now: Timestamp, limit: u32) -> Result<Vec<MailboxId>> {
        let rows = self.rows();
        let mut due: Vec<_> =
            rows.ready(now, None).into_iter().map(|(line, ready)| (ready.since, line.0)).collect();
        due.sort_unstable();
        let mut outboxes = Vec::new();
        for (_, outbox) in due {
            if !outboxes.contains(&outbox) {
                outboxes.push(outbox);
            }
        }
        outboxes.truncate(page(Some(limit)));
        Ok(outboxes)
    }

    async fn claim(
        &self,
        now: Timestamp,
        outbox: MailboxId,
        limit: u32,
        worker: WorkerId,
        until: Timestamp,
    ) -> Result<Vec<Claimed>> {
        let mut rows = self.rows();
        let mut claimed = Vec::new();
        for _ in 0..limit {
            let lines = rows.ready(now, Some(worker)).into_iter().filter(|(line, _)| line.0 == outbox);
            let next = lines.min_by_key(|((_, contract, priority), ready)| {
                (Reverse(*priority), ready.since, ready.turn, contract.clone())
            });
            let Some((line, Ready { first: (_, id), .. })) = next else { break };
            let recipients = rows.queue.get(&id).map_or(0, |one| one.row.queued());
            if !rows.take(now, outbox, recipients) {
                break;
            }
            rows.turns += 1;
            let turn = rows.turns;
            rows.served.insert(line, (now, turn));
            let claim = rows.next_claim(now);
            claimed.extend(rows.change(id, |one| {
                let (places, entry) = one.row.claim(now, Lease { claim, worker, until });
                one.timeline.push(entry);
                let address = |place: u32| {
                    let recipient = one.mail.recipients.get(usize::try_from(place).ok()?)?;
                    Some((place, recipient.address.clone()))
                };
                Claimed {
                    id,
                    claim,
                    contract: one.mail.contract.clone(),
                    outbox,
                    sender: one.mail.resolution.sender.clone(),
                    return_path: one.mail.return_path.clone(),
                    recipients: places.into_iter().filter_map(address).collect(),
                    attempt: one.row.attempts.saturating_add(1),
                    body: one.body,
                    size: one.size,
                    content: None,
                    created_at: one.row.created_at,
                    expires_at: one.row.expires_at,
                    on_doubt: one.row.on_doubt,
                }
            }));
        }
        Ok(claimed)
    }

    async fn mark(&self, now: Timestamp, claims: &[ClaimMark]) -> Result<Vec<bool>> {
        let mut rows = self.rows();
        let mut mark = |claim: &ClaimMark| {
            let marked = rows.change(claim.id, |one| {
                one.row.mark(now, claim.claim).map(|entries| one.timeline.extend(entries))
            });
            marked.flatten().is_some()
        };
        Ok(claims.iter().map(&mut mark).collect())
    }

    async fn settle(&self, now: Timestamp, settlements: &[Settlement]) -> Result<Vec<Settled>> {
        let mut rows = self.rows();
        let mut settle = |settlement: &Settlement| {
            let settled = rows.change(settlement.id, |one| {
                let (settled, entries) = one.row.settle(now, settlement);
                one.timeline.extend(entries);
                settled
            });
            let settled = settled.unwrap_or(Settled::Ignored);
            let outbox = rows.queue.get(&settlement.id).map(|one| one.mail.resolution.outbox);
            if let Some((at, recipients)) = settlement.unsent(settled)
                && let Some((budget, waits)) = outbox.and_then(|outbox| rows.budgets.get_mut(&outbox))
            {
                budget.give_back(at, recipients);
                *waits = None;
            }
            settled
        };
        Ok(settlements.iter().map(&mut settle).collect())
    }

    async fn renew(&self, now: Timestamp, worker: WorkerId, until: Timestamp) -> Result<u64> {
        let mut rows = self.rows();
        let leases = rows.queue.values_mut().filter_map(|one| one.row.lease.as_mut());
        let live = leases.filter(|lease| lease.worker == worker && lease.is_live(now));
        Ok(count(live.map(|lease| lease.until = until)))
    }

    async fn expire(&self, now: Timestamp) -> Result<Sweep> {
        let mut rows = self.rows();
        let mut total = Sweep::default();
        for id in rows.hot.clone() {
            let swept = rows.change(id, |one| {
                let (sweep, entries) = one.row.sweep(now);
                one.timeline.extend(entries);
                sweep
            });
            let sweep = swept.unwrap_or_default();
            total.released += sweep.released;
            total.doubted += sweep.doubted;
            total.expired += sweep.expired;
        }
        Ok(total)
    }

    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        let rows = self.rows();
        let waiting = rows.unfinished().filter(|one| one.row.is_waiting());
        let tried = waiting.flat_map(|one| {
            let outbox = one.mail.resolution.outbox;
            let health = rows.health.get(&outbox).and_then(|health| health.next_attempt);
            [health, rows.waits(outbox).map(|wait| wait.until)].into_iter().flatten()
        });
        let tried = tried.filter(|at| *at > now);
        Ok(rows.unfinished().filter_map(|one| one.row.next_due(now)).chain(tried).min())
    }

    async fn open_claims(&self) -> Result<u64> {
        Ok(count(self.rows().unfinished().filter(|one| one.row.lease.is_some())))
    }
}

#[async_trait]
impl Budgets for MemoryStore {
    async fn budget(&self, now: Timestamp, owner: &BudgetOwner) -> Result<BudgetView> {
        let rows = self.rows();
        let outbox = match owner {
            BudgetOwner::Outbox(outbox) => outbox,
            BudgetOwner::Correspondent(contract, address) => {
                let sent = rows.answers.get(&automatic::account(contract, address));
                return Ok(BudgetView::of_correspondent(sent.map_or(&[], Vec::as_slice), now));
            }
        };
        let budget = rows.budgets.get(outbox).map(|(budget, _)| budget.clone()).unwrap_or_default();
        Ok(BudgetView {
            limits: Used::all(rows.limits(*outbox), &budget, now),
            waits: rows.waits(*outbox).filter(|wait| wait.until > now),
        })
    }
}
