//! Whether mails that are submitted together go into the queue, one after the other: known ids and keys, decisions that stand,
//! limits that are kept. Pure; each store reads what it is decided by, and writes what is new.

use std::collections::{BTreeMap, BTreeSet};

use postroom_core::id::{ContractId, IdempotencyKey, QueueId};
use postroom_core::message::Fingerprint;
use postroom_core::queue::Prepared;
use postroom_core::time::Timestamp;

use crate::budgets::{accounts, check_correspondents};
use crate::error::{Error, ErrorKind, Result};
use crate::queue::Enqueued;
use crate::transition::registry::Stored;

pub(super) const STAGE: &str = "submit a mail";

/// What is stored around one mail.
#[derive(Debug, Clone)]
pub(super) struct Around {
    /// The mail with its id, or with its idempotency key and that key's fingerprint.
    pub(super) existing: Option<(QueueId, Option<Fingerprint>)>,
    pub(super) stored: Stored,
    pub(super) queued_limit: Option<u64>,
    pub(super) per_day_limit: Option<u64>,
}

/// What the contracts have, of those that limit it.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Mails with an unfinished recipient; may stop at the limit.
    pub(super) queued: BTreeMap<ContractId, u64>,
    /// Mails that were submitted on this day.
    pub(super) today: BTreeMap<ContractId, u64>,
    pub(super) answers: Answers,
}

/// When correspondents got automatic mail, by account.
pub(super) type Answers = BTreeMap<String, Vec<Timestamp>>;

/// A correspondent's account, and a mail that counts against it.
pub(super) type Counted = (String, QueueId);

/// What these mails count against.
pub(super) fn counted<'a>(mails: impl IntoIterator<Item = &'a Prepared>) -> Vec<Counted> {
    let of =
        |mail: &Prepared| accounts(mail).into_keys().map(|account| (account, mail.id)).collect::<Vec<_>>();
    mails.into_iter().flat_map(of).collect()
}

/// Decides on each mail, in order; each counts for those behind it.
pub(super) fn admit<'a>(
    mails: impl IntoIterator<Item = (&'a Prepared, Around)>,
    counts: Counts,
    now: Timestamp,
) -> Vec<Result<Enqueued>> {
    let mut admission = Admission { now, counts, ids: BTreeSet::new(), keys: BTreeMap::new() };
    mails.into_iter().map(|(mail, around)| admission.decide(mail, &around)).collect()
}

struct Admission<'a> {
    now: Timestamp,
    counts: Counts,
    /// What was admitted.
    ids: BTreeSet<QueueId>,
    keys: BTreeMap<(&'a ContractId, &'a IdempotencyKey), (QueueId, &'a Fingerprint)>,
}

impl<'a> Admission<'a> {
    fn decide(&mut self, mail: &'a Prepared, around: &Around) -> Result<Enqueued> {
        if self.ids.contains(&mail.id) {
            return Ok(Enqueued::Existing(mail.id));
        }
        let known = around.existing.as_ref().map(|(id, print)| (*id, print.as_ref()));
        let key = mail.idempotency.as_ref().map(|(key, print)| ((&mail.contract, key), print));
        let twin = key.and_then(|(key, _)| self.keys.get(&key)).map(|(id, print)| (*id, Some(*print)));
        if let Some((existing, theirs)) = known.or(twin) {
            // Without a fingerprint it is the same id: the insert was repeated.
            let differs = theirs.zip(key).and_then(|(theirs, (_, ours))| ours.first_difference(theirs));
            return match differs {
                None => Ok(Enqueued::Existing(existing)),
                Some(field) => {
                    let field = field.to_owned();
                    Err(Error::new(ErrorKind::IdempotencyConflict { existing, field }, STAGE))
                }
            };
        }
        if !around.stored.upholds(mail) {
            return Err(Error::new(ErrorKind::StaleDecision, STAGE));
        }
        let queued = self.counts.queued.entry(mail.contract.clone()).or_default();
        let today = self.counts.today.entry(mail.contract.clone()).or_default();
        for (limit, most, has) in
            [("queued", around.queued_limit, &*queued), ("per-day", around.per_day_limit, &*today)]
        {
            if let Some(most) = most.filter(|most| has >= most) {
                return Err(Error::new(ErrorKind::LimitReached { limit, most }, STAGE));
            }
        }
        check_correspondents(mail, self.now, |account| self.counts.answers.get(account).map(Vec::as_slice))?;
        for account in accounts(mail).into_keys() {
            self.counts.answers.entry(account).or_default().push(self.now);
        }
        *queued += 1;
        *today += 1;
        self.ids.insert(mail.id);
        self.keys.extend(key.map(|(key, print)| (key, (mail.id, print))));
        Ok(Enqueued::New(mail.id))
    }
}
