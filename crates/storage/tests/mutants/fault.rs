//! The faults that a store of the tests can have, one each. What each does is in the wrapper.

use std::sync::Arc;

use postroom_core::time::Timestamp;
use postroom_storage::{Received, Recognition};

/// What is wrong with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing: the control.
    None,
    /// A claim gives again what another worker has: `SELECT .. LIMIT` without a lock.
    ClaimsTwice,
    /// Claims go by due time and id alone.
    ServesInOrder,
    /// Everybody tries what has failed.
    AllProbe,
    /// What was not sent stays taken out of the budget.
    KeepsBudget,
    /// Nobody counts automatic mail.
    CountsNoAnswers,
    /// A bounce changes what an operator said.
    OverridesOperators,
    /// An entry of the suppression list never ends.
    SuppressesForEver,
    /// A mark does not look at the lease.
    MarksDeadClaims,
    /// A settlement goes by the row alone, whoever sends it.
    SettlesWithoutFence,
    /// A renewal brings dead leases back to life.
    RenewsDeadClaims,
    /// Idempotency keys are thrown away.
    ForgetsKeys,
    /// Ids are compared in any case, as a collation of MariaDB does.
    IgnoresCase,
    /// A sweep looks at no age.
    SweepsAll,
    /// Mail of a renumbered folder is new.
    RecognisesNothing,
    /// Without epochs bytes alone tell a mail, whatever its box shows.
    IgnoresTheBox,
    /// Within an epoch equal bytes are two mails, whatever the box shows.
    AsksNoBox,
    /// Whatever its server was told, a mail counts as kept.
    ForgetsWhatItTold,
    /// Within an epoch bytes alone tell a mail.
    ForgetsArrivals,
    /// The first bytes of a mail count as all of them.
    RecognisesBeginnings,
    /// The search among equal mails ends behind so many.
    LooksAtFew,
    /// Mails that are stored together are stored one by one.
    StoresSome,
    /// A page begins at its own last row.
    RepeatsRows,
    /// A save does not look at the revision.
    SavesStale,
    /// Nobody ends claims whose lease ran out.
    NeverExpires,
    /// A folder that was renumbered counts as known.
    FrontierOfOneEpoch,
    /// A UIDVALIDITY has one epoch.
    OneEpochForEver,
    /// It does once a part of it was looked at.
    KnownHalfway,
    /// A baseline counts by whatever settings it was read.
    SkipsByOldSettings,
    /// A baseline does not say until when it leaves mail out.
    ForgetsHowFarBack,
    /// A baseline is over with the first contact.
    ForgetsDates,
    /// A UID counts without its UIDVALIDITY.
    IgnoresEpoch,
    /// Whoever says that he committed is believed.
    BelievesCommits,
    /// Retention counts a day too few.
    PrunesEarly,
    /// A reader of events is not given those whose transaction ended late.
    SkipsEvents,
    /// Inboxes are taken whoever has them.
    StealsInboxes,
    /// A watcher that was dead goes on as if nothing had been.
    RevivesWatchers,
    /// Who asks for all inboxes gets a share.
    KeepsToShares,
    /// Who came first keeps all inboxes.
    HoardsInboxes,
}

impl Fault {
    /// A received mail as the store takes it.
    pub(crate) fn spoil(self, mail: &mut Received) {
        match (self, &mut mail.recognition) {
            (Self::RecognisesNothing, _) => mail.sha256[..16].copy_from_slice(mail.id.uuid().as_bytes()),
            (Self::IgnoresTheBox, Recognition::NotShown(shown)) => *shown = Arc::default(),
            (Self::AsksNoBox, _) => mail.recognition = Recognition::Gone(Arc::default()),
            (Self::ForgetsArrivals, _) => mail.arrived = mail.arrived.map(|_| Timestamp::EPOCH),
            (Self::RecognisesBeginnings, torn @ Recognition::None) => *torn = Recognition::OtherEpoch,
            (Self::LooksAtFew, Recognition::NotShown(shown)) if shown.len() > 500 => {
                mail.recognition = Recognition::None;
            }
            _ => {}
        }
    }
}
