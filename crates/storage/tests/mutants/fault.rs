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
    /// A sealed value takes the place of whatever is there.
    ReplacesBlindly,
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

/// Which case of the suite catches which fault.
pub(crate) const CASES: &[(Fault, &str)] = &[
    (Fault::ClaimsTwice, "queue::workers_claim_disjoint_rows_and_each_row_once"),
    (Fault::ServesInOrder, "queue::contracts_take_turns_whatever_their_backlogs"),
    (Fault::ServesInOrder, "queue::a_contract_that_comes_later_waits_for_one_turn_of_each_other"),
    (Fault::AllProbe, "budgets::one_worker_tries_a_mailbox_that_failed"),
    (Fault::KeepsBudget, "budgets::what_was_not_sent_is_given_back"),
    (Fault::CountsNoAnswers, "suppressions::a_correspondent_gets_two_automatic_mails_an_hour_and_four_a_day"),
    (Fault::CountsNoAnswers, "suppressions::automatic_mails_at_once_share_one_budget"),
    (Fault::OverridesOperators, "suppressions::what_an_operator_said_no_bounce_changes"),
    (Fault::SuppressesForEver, "suppressions::a_bounce_stops_its_contracts_mail_until_it_expires"),
    (Fault::MarksDeadClaims, "queue::a_worker_that_wakes_after_its_lease_can_not_mark"),
    (Fault::SettlesWithoutFence, "queue::the_fence_of_a_settlement_is_the_claim_and_not_its_lease"),
    (Fault::SettlesWithoutFence, "queue::a_late_answer_settles_the_doubt_of_its_own_attempt"),
    (Fault::SettlesWithoutFence, "queue::a_late_answer_changes_nothing_when_there_is_a_newer_attempt"),
    (Fault::RenewsDeadClaims, "queue::a_renewal_extends_the_live_claims_of_its_worker_only"),
    (Fault::NeverExpires, "queue::an_expired_claim_is_taken_by_the_next_worker"),
    (Fault::NeverExpires, "queue::a_worker_that_died_costs_an_attempt"),
    (Fault::ForgetsKeys, "queue::the_same_key_and_content_give_the_same_mail"),
    (Fault::ForgetsKeys, "queue::the_same_submission_at_once_is_one_mail"),
    (Fault::ForgetsKeys, "forget::a_forgotten_mail_is_neither_sent_nor_handed_over_again"),
    (Fault::IgnoresCase, "registry::host_ids_are_compared_byte_by_byte"),
    (Fault::SavesStale, "registry::of_two_saves_at_once_one_is_a_conflict"),
    (Fault::RepeatsRows, "registry::pages_by_key_are_complete_and_without_doubles"),
    (Fault::ReplacesBlindly, "registry::a_value_of_the_vault_is_replaced_by_who_read_it_last"),
    (Fault::SweepsAll, "bodies::a_sweep_takes_only_what_nobody_refers_to_and_is_old"),
    (Fault::RecognisesNothing, "ledger::n_copies_account_for_at_most_n_mails"),
    (Fault::RecognisesNothing, "ledger::a_renumbered_folder_is_recognised_by_its_bytes"),
    (Fault::StoresSome, "ledger::of_mails_that_are_stored_together_all_are_there_or_none"),
    (
        Fault::RecognisesNothing,
        "ledger::without_epochs_a_mail_that_has_another_key_is_recognised_by_its_bytes",
    ),
    (Fault::IgnoresTheBox, "ledger::a_mail_that_its_box_shows_gives_its_row_to_no_other"),
    (Fault::RecognisesBeginnings, "ledger::what_was_not_fetched_whole_is_recognised_as_none"),
    (Fault::AsksNoBox, "ledger::within_an_epoch_the_box_says_which_of_two_equal_mails_a_mail_is"),
    (Fault::ForgetsWhatItTold, "ledger::what_comes_again_within_an_epoch_is_another_mail"),
    (Fault::ForgetsArrivals, "ledger::what_comes_again_within_an_epoch_is_another_mail"),
    (Fault::LooksAtFew, "ledger::however_many_mails_are_equal_each_is_recognised"),
    (Fault::IgnoresEpoch, "ledger::unknown_keys_are_those_that_the_ledger_does_not_have"),
    (Fault::BelievesCommits, "ledger::a_mail_is_completed_under_the_claim_that_handled_it"),
    (Fault::PrunesEarly, "ledger::received_mail_is_kept_as_its_contract_says_and_what_waits_for_ever"),
    (Fault::SkipsEvents, "events::the_timeline_of_a_mail_is_its_events"),
    (Fault::SkipsEvents, "events::a_reader_goes_on_behind_what_it_has_read"),
    (Fault::StealsInboxes, "watches::an_inbox_is_taken_by_one_watcher"),
    (Fault::StealsInboxes, "watches::what_a_dead_watcher_had_is_taken_by_others_under_a_higher_fence"),
    (Fault::RevivesWatchers, "watches::a_watcher_that_wakes_after_its_lease_changes_nothing"),
    (Fault::HoardsInboxes, "watches::watchers_have_equal_shares_whoever_comes_or_goes"),
    (Fault::KnownHalfway, "ledger::a_renumbered_place_is_known_once_a_pass_over_it_was_whole"),
    (Fault::ForgetsDates, "ledger::a_baseline_counts_by_date_until_the_first_pass_was_whole"),
    (Fault::SkipsByOldSettings, "ledger::a_baseline_of_settings_that_have_changed_leaves_nothing_out"),
    (Fault::ForgetsHowFarBack, "ledger::a_baseline_leaves_out_all_up_to_a_number_and_says_until_when"),
    (Fault::KeepsToShares, "watches::who_takes_all_takes_beyond_its_share_and_nothing_that_another_has"),
    (Fault::OneEpochForEver, "ledger::a_folder_that_is_set_back_has_another_epoch_from_then_on"),
    (Fault::FrontierOfOneEpoch, "ledger::a_place_is_first_then_known_and_another_epoch_is_renumbered"),
];
