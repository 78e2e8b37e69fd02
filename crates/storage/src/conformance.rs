//! The suite that every store passes, one case for each clause of the ports' documentation. It uses the ports alone, so a
//! host runs it over its own store. The cases are in the files below; this file lists them.
//!
//! ```
//! # #[cfg(feature = "conformance")] mod own_store {
//! use std::sync::Arc;
//! use postroom_storage::{conformance::Subject, memory::MemoryStore};
//!
//! // In the crate of a store: one test for each case, each over an empty store of its own.
//! async fn subject() -> Subject {
//!     Subject::new(Arc::new(MemoryStore::new()))
//! }
//!
//! postroom_storage::conformance_tests!(subject);
//! # }
//! ```

mod bodies;
mod budgets;
mod desk;
mod events;
mod fixture;
mod forget;
mod ledger;
mod queue;
mod registry;
mod subject;
mod suppressions;
mod watches;

pub use subject::{Case, Reopen, Subject, check};

/// Makes one test for each case of the suite: `conformance_tests!(subject)`, where `subject` is an async function without
/// arguments that gives a [`Subject`] with an empty store.
#[macro_export]
macro_rules! conformance_tests {
    ($subject:ident) => { $crate::conformance_tests!(@all tests $subject); };
    (@tests $subject:ident; $area:ident: $($name:ident)+) => {
        mod $area {
            use super::*;
            $(
                #[test]
                fn $name() {
                    let name = concat!(stringify!($area), "::", stringify!($name));
                    $crate::conformance::check(&$crate::conformance::cases(), name, $subject);
                }
            )+
        }
    };
    (@list $cases:ident; $area:ident: $($name:ident)+) => {
        $($cases.push(Case::new(
            concat!(stringify!($area), "::", stringify!($name)),
            |subject| Box::pin($area::$name(subject)),
        ));)+
    };
    (@all $mode:ident $with:ident) => {
        $crate::conformance_tests!(@$mode $with; registry:
            a_number_is_reserved_once
            a_mailbox_is_kept_with_every_field
            a_number_that_is_taken_is_a_conflict
            a_save_gives_the_next_revision_and_a_stale_one_is_a_conflict
            a_save_does_not_change_the_kind_and_does_not_make_a_mailbox
            of_two_saves_at_once_one_is_a_conflict
            a_secret_is_kept_cleared_or_replaced_by_a_save
            a_companion_that_is_gone_is_not_found
            a_search_filters_by_every_field
            a_search_takes_wildcards_literally
            a_search_sorts_by_number_and_by_server_both_ways
            pages_by_key_are_complete_and_without_doubles
            a_contract_and_a_step_are_kept_with_every_field
            a_stale_contract_or_step_is_a_conflict
            a_link_to_a_mailbox_that_is_gone_is_not_found
            host_ids_are_compared_byte_by_byte
            contracts_and_steps_are_listed_in_byte_order_by_pages
            the_contracts_of_an_inbox_are_those_that_list_it
            uses_name_everything_that_links_to_a_mailbox
            a_mailbox_in_use_is_not_removed
            a_removed_mailbox_leaves_nothing_and_its_number_is_not_given_again
            a_replacement_takes_over_every_link
            a_sender_that_the_replacement_does_not_have_becomes_its_default
            a_replacement_of_another_kind_or_the_mailbox_itself_is_a_conflict
            a_mailbox_whose_mail_waits_is_not_removed_even_with_a_replacement
            the_standard_outbox_is_a_registered_outbox
            switches_stand_as_they_were_set
            health_counts_failures_and_a_success_forgets_them
            health_of_a_mailbox_that_is_gone_is_not_recorded
            every_change_is_audited_in_order_and_without_secrets
            the_audit_is_read_by_subject_and_by_pages
            the_first_writer_of_the_vault_wins
            a_value_of_the_vault_is_replaced_by_who_read_it_last
            the_registry_survives_a_reopening
        );
        $crate::conformance_tests!(@$mode $with; queue:
            a_submitted_mail_is_shown_with_every_field
            a_content_is_kept_in_pieces
            a_repeated_id_is_the_same_mail
            the_same_key_and_content_give_the_same_mail
            a_key_belongs_to_its_contract_byte_by_byte
            the_same_key_with_other_content_is_a_conflict_that_names_the_field
            the_same_submission_at_once_is_one_mail
            a_decision_by_what_has_changed_is_stale
            a_mail_for_a_disabled_outbox_is_stale_unless_it_is_held
            a_held_mail_goes_once_it_is_released
            the_limit_of_queued_mails_counts_unfinished_ones
            the_limit_per_day_counts_the_day_in_utc
            sent_mails_are_found_by_message_id
            the_outbox_that_waits_longest_is_due_first
            what_may_not_be_sent_is_neither_due_nor_claimed
            a_paused_contract_does_not_hold_up_another_on_its_outbox
            claims_of_a_contract_go_by_priority_then_due_time_then_id
            contracts_take_turns_whatever_their_backlogs
            a_contract_that_comes_later_waits_for_one_turn_of_each_other
            turns_are_taken_within_a_priority
            a_clock_that_was_set_back_does_not_hold_up_new_mail
            a_claim_gives_what_its_worker_needs
            a_mail_is_claimed_neither_before_its_time_nor_from_its_expiry_on
            workers_claim_disjoint_rows_and_each_row_once
            an_expired_claim_is_taken_by_the_next_worker
            a_worker_that_wakes_after_its_lease_can_not_mark
            marks_answer_each_for_its_claim_and_can_be_repeated
            a_renewal_extends_the_live_claims_of_its_worker_only
            results_are_applied_to_each_recipient
            a_free_attempt_costs_none_unless_it_leaves_a_doubt
            the_fence_of_a_settlement_is_the_claim_and_not_its_lease
            a_settlement_is_applied_once
            a_missing_or_impossible_result_neither_loses_nor_doubles
            a_late_answer_settles_the_doubt_of_its_own_attempt
            a_late_answer_settles_a_doubt_that_its_worker_reported
            a_late_answer_changes_nothing_when_a_person_has_decided
            a_late_answer_changes_nothing_when_there_is_a_newer_attempt
            a_late_answer_of_a_released_claim_changes_nothing
            a_doubt_is_not_sent_again_by_itself
            a_mail_that_says_resend_goes_again_and_its_timeline_tells_of_the_doubt
            a_worker_that_died_costs_an_attempt
            what_waits_expires_in_time_and_what_is_in_a_workers_hands_does_not
            next_due_is_the_earliest_time_at_which_something_may_happen
            open_claims_are_those_that_nobody_has_ended
            a_person_decides_on_every_recipient_that_has_the_way
            a_decision_without_a_way_is_refused_and_a_claimed_mail_is_left_alone
            an_expired_mail_that_is_retried_gets_as_much_time_again
            mails_are_listed_by_state_and_contract_in_pages
            a_mail_shows_the_least_finished_of_its_recipients
            the_queue_survives_a_reopening
        );
        $crate::conformance_tests!(@$mode $with; budgets:
            no_minute_sees_more_messages_than_the_limit
            a_day_in_utc_sees_no_more_recipients_than_the_limit
            workers_share_one_budget
            an_outbox_out_of_budget_is_due_when_it_has_some_again
            what_was_not_sent_is_given_back
            what_was_sent_or_has_an_unknown_end_is_not_given_back
            a_raised_limit_counts_at_once_and_an_outbox_without_one_has_nothing_to_show
            a_mail_that_no_day_allows_is_claimed_and_takes_nothing
            a_budget_survives_a_reopening
            one_worker_tries_a_mailbox_that_failed
            a_probe_that_nobody_ends_is_over_in_time
        );
        $crate::conformance_tests!(@$mode $with; suppressions:
            what_came_back_is_bounced_and_told_once
            what_did_not_come_back_or_was_not_taken_changes_no_state
            what_was_in_doubt_and_came_back_is_bounced
            a_report_on_a_mail_that_is_gone_is_not_found
            a_sent_mail_is_found_by_its_recipient_within_its_contract_and_time
            a_bounce_stops_its_contracts_mail_until_it_expires
            what_an_operator_said_no_bounce_changes
            suppressed_addresses_are_listed_by_contract_in_pages
            the_lists_survive_a_reopening
            a_correspondent_gets_two_automatic_mails_an_hour_and_four_a_day
            automatic_mails_at_once_share_one_budget
        );
        $crate::conformance_tests!(@$mode $with; ledger:
            a_place_is_first_then_known_and_another_epoch_is_renumbered
            a_renumbered_place_is_known_once_a_pass_over_it_was_whole
            a_folder_that_is_set_back_has_another_epoch_from_then_on
            the_frontier_never_goes_back
            unknown_keys_are_those_that_the_ledger_does_not_have
            a_stored_mail_is_shown_with_every_field
            a_known_key_changes_nothing
            the_same_mail_stored_at_once_is_one_row
            two_mails_of_the_same_bytes_in_one_epoch_are_two
            a_staged_content_becomes_real_with_its_row
            what_the_baseline_leaves_out_is_ignored_for_good
            a_baseline_leaves_out_all_up_to_a_number_and_says_until_when
            a_baseline_counts_by_date_until_the_first_pass_was_whole
            a_baseline_of_settings_that_have_changed_leaves_nothing_out
            many_mails_are_stored_by_one_call_in_their_order
            of_mails_that_are_stored_together_all_are_there_or_none
            a_renumbered_folder_is_recognised_by_its_bytes
            n_copies_account_for_at_most_n_mails
            without_epochs_a_mail_that_has_another_key_is_recognised_by_its_bytes
            a_mail_that_its_box_shows_gives_its_row_to_no_other
            what_was_not_fetched_whole_is_recognised_as_none
            however_many_mails_are_equal_each_is_recognised
            what_comes_with_the_bytes_of_a_deleted_mail_is_another_mail
            within_an_epoch_the_box_says_which_of_two_equal_mails_a_mail_is
            what_comes_again_within_an_epoch_is_another_mail
            of_equal_mails_a_few_that_came_last_are_asked_for
            the_same_bytes_in_another_folder_or_mailbox_are_another_mail
            a_mail_is_to_be_settled_from_its_time_on_until_it_was
            a_recognised_mail_is_settled_again
            a_claim_gives_what_the_handler_needs
            mails_of_one_mailbox_are_handled_one_by_one_in_the_order_stored
            a_limit_of_claims_is_kept
            workers_claim_different_mailboxes
            a_mail_that_is_deferred_lets_the_next_one_go
            a_claim_whose_lease_ran_out_is_taken_over_and_its_result_is_refused
            the_fence_of_a_result_is_the_claim_and_not_its_lease
            a_renewal_extends_the_live_claims_of_its_worker_only
            next_due_and_open_claims_tell_what_is_ahead
            a_replayed_mail_is_handled_anew
            a_mail_in_triage_or_quarantine_waits_until_a_person_routes_it
            what_a_person_ignores_nobody_handles_until_it_is_replayed
            a_mail_is_completed_under_the_claim_that_handled_it
            an_ignored_mail_is_not_handled_and_can_be_replayed
            received_mail_is_kept_as_its_contract_says_and_what_waits_for_ever
            the_key_of_a_pruned_mail_is_known_and_it_can_not_be_replayed
            a_replayed_mail_is_kept_anew
            a_pruning_of_the_ledger_takes_few_at_a_time
            mails_are_listed_by_state_and_mailbox_in_pages
            what_a_late_reader_writes_takes_nothing_back
            the_ledger_survives_a_reopening
        );
        $crate::conformance_tests!(@$mode $with; events:
            the_timeline_of_a_mail_is_its_events
            an_event_is_there_if_and_only_if_its_change_is
            a_reader_goes_on_behind_what_it_has_read
            received_mail_has_events_and_what_a_baseline_leaves_out_has_none
            a_mailbox_is_an_event_when_it_takes_a_turn
            the_numbers_go_on_after_a_reopening
        );
        $crate::conformance_tests!(@$mode $with; desk:
            a_rerouted_mail_goes_by_its_new_outbox_with_its_new_content
            a_mail_that_a_server_has_or_may_have_is_not_rerouted
            what_waits_or_failed_is_rerouted_in_the_state_that_it_is_in
            a_reroute_by_what_has_changed_is_refused
            a_rerouted_mail_keeps_the_null_path
            retention_removes_contents_and_then_mails_and_nothing_unfinished
            retention_is_the_contracts_and_begins_anew_with_a_retry
            a_pruning_goes_in_bounded_batches_until_nothing_is_left
            an_idempotency_key_lives_as_long_as_its_mail_and_at_least_30_days
            events_leave_with_their_mail_and_their_numbers_are_not_given_again
            what_has_lost_its_content_is_not_sent_again
            a_recovery_puts_what_was_unfinished_at_the_backup_in_doubt
            a_mail_that_was_found_is_accepted_as_the_attempt_that_left_the_doubt
            a_find_that_proves_nothing_of_the_attempt_changes_nothing
        );
        $crate::conformance_tests!(@$mode $with; bodies:
            staged_pieces_come_back_in_any_order
            a_piece_is_repeatable_and_never_changes
            a_sweep_takes_only_what_nobody_refers_to_and_is_old
        );
        $crate::conformance_tests!(@$mode $with; watches:
            an_inbox_is_taken_by_one_watcher
            only_what_may_be_read_is_taken
            what_a_dead_watcher_had_is_taken_by_others_under_a_higher_fence
            a_watcher_that_wakes_after_its_lease_changes_nothing
            watchers_have_equal_shares_whoever_comes_or_goes
            who_takes_all_takes_beyond_its_share_and_nothing_that_another_has
            a_renewal_tells_what_is_still_to_be_read_and_by_which_settings
            readings_are_shown_and_what_was_not_read_for_longest_comes_first
            who_watches_survives_a_reopening
        );
        $crate::conformance_tests!(@$mode $with; forget:
            of_a_forgotten_contract_keys_are_left_and_nothing_else
            a_forgotten_mail_is_neither_sent_nor_handed_over_again
            what_waits_is_left_and_counted_and_other_mail_is_not_touched
            a_forgetting_takes_few_at_a_time_and_each_time_is_audited
        );
    };
}

/// Every case, in order: for a runner that is not the macro.
#[must_use]
pub fn cases() -> Vec<Case> {
    fn list(cases: &mut Vec<Case>) {
        crate::conformance_tests!(@all list cases);
    }
    let mut cases = Vec::new();
    list(&mut cases);
    cases
}
