//! The port to what limits leave. The taking itself is part of a claim ([`crate::QueueWork::claim`]) and the giving back of its
//! settlement, each in its one transaction, so that any number of processes share a budget without exceeding it.

use async_trait::async_trait;
use postroom_core::budget::{Budget, Limit, Limits, Wait};
use postroom_core::id::MailboxId;
use postroom_core::time::Timestamp;
use serde::Serialize;

use crate::error::Result;

/// Whose budget it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum BudgetOwner {
    /// What an outbox may send.
    Outbox(MailboxId),
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

/// What limits leave.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Budgets: Send + Sync {
    /// How far a budget is used, and whether its owner waits for it. An owner without limits, or one that is not there, has
    /// nothing to show.
    async fn budget(&self, now: Timestamp, owner: &BudgetOwner) -> Result<BudgetView>;
}
