//! The port to what limits leave. The taking itself is part of a claim ([`crate::QueueWork::claim`]) and the giving back of its
//! settlement, each in its one transaction, so that any number of processes share a budget without exceeding it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use postroom_core::address::Address;
use postroom_core::automatic::{self, Allowance};
use postroom_core::budget::{Budget, Limit, Limits, Wait};
use postroom_core::id::{ContractId, MailboxId};
use postroom_core::queue::Prepared;
use postroom_core::time::Timestamp;
use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};

/// Whose budget it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum BudgetOwner {
    /// What an outbox may send.
    Outbox(MailboxId),
    /// How much automatic mail of a contract a correspondent gets ([`postroom_core::automatic::ALLOWANCES`]).
    Correspondent(ContractId, Address),
}

/// How far one limit is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "made by stores, shown by screens")]
pub struct Used {
    /// The limit.
    pub limit: Limit,
    /// What it allows.
    pub most: u32,
    /// What is taken of it now.
    pub used: u64,
}

impl Used {
    /// How far each limit that is set is used.
    #[must_use]
    pub fn all(limits: Limits, budget: &Budget, now: Timestamp) -> Vec<Self> {
        let minute = (Limit::PerMinute, limits.per_minute, &budget.minute);
        let day = (Limit::RecipientsPerDay, limits.recipients_per_day, &budget.day);
        let used = |(limit, most, taken): (Limit, Option<u32>, &postroom_core::budget::Taken)| {
            Some(Self { limit, most: most?, used: taken.used(limit, now) })
        };
        [minute, day].into_iter().filter_map(used).collect()
    }
}

/// What a budget looks like.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "made by stores, shown by screens")]
pub struct BudgetView {
    /// Every limit that is set.
    pub limits: Vec<Used>,
    /// The limit that the next mail waits for, and until when; none while it need not wait.
    pub waits: Option<Wait>,
}

impl BudgetView {
    /// That of a correspondent who got automatic mail at these times.
    #[must_use]
    pub fn of_correspondent(sent: &[Timestamp], now: Timestamp) -> Self {
        let counted = |within: i64| {
            let counted = sent.iter().filter(|at| at.as_millis() > now.as_millis() - within).count();
            u64::try_from(counted).unwrap_or(u64::MAX)
        };
        let limits = automatic::ALLOWANCES.iter().map(|allowance| Used {
            limit: limit_of(allowance),
            most: allowance.most,
            used: counted(allowance.within),
        });
        let spent = automatic::fits(sent, now).err();
        let waits = spent.map(|spent| Wait { limit: limit_of(&spent.allowance), until: spent.again });
        Self { limits: limits.collect(), waits }
    }
}

fn limit_of(allowance: &Allowance) -> Limit {
    if allowance.within == automatic::COUNTED { Limit::AutomaticPerDay } else { Limit::AutomaticPerHour }
}

/// The correspondents against whose budgets a mail counts, by account; none for a person's mail.
pub(crate) fn accounts(mail: &Prepared) -> BTreeMap<String, &Address> {
    let all = mail.recipients.iter().filter(|_| mail.automatic.is_some());
    all.map(|one| (automatic::account(&mail.contract, &one.address), &one.address)).collect()
}

/// Refuses an automatic mail of which a correspondent had enough. `sent` tells when an account got such mail.
pub(crate) fn check_correspondents<'a>(
    mail: &Prepared,
    now: Timestamp,
    sent: impl Fn(&str) -> Option<&'a [Timestamp]>,
) -> Result<()> {
    for (account, address) in accounts(mail) {
        if let Err(spent) = automatic::fits(sent(&account).unwrap_or_default(), now) {
            let Allowance { most, word, .. } = spent.allowance;
            let correspondent = address.to_string();
            let kind = ErrorKind::Budget { correspondent, most, within: word, again: spent.again };
            return Err(Error::new(kind, "submit a mail"));
        }
    }
    Ok(())
}

/// What limits leave.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Budgets: Send + Sync {
    /// How far a budget is used, and whether its owner waits for it. An owner without limits, or one that is not there, has
    /// nothing to show.
    async fn budget(&self, now: Timestamp, owner: &BudgetOwner) -> Result<BudgetView>;
}
