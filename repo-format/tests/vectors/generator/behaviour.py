"""Section 11: what writers and readers do, shown by tests."""

from vectors import scenario

ENGINE = "engine/tests/"

ORDER, HITS = ENGINE + "protocol/order.rs::", ENGINE + "protocol/hits.rs::"

DECISIONS, INHERITANCE, REPACKS, MOVED = (
    ENGINE + "protocol/decisions.rs::",
    ENGINE + "protocol/inheritance.rs::",
    ENGINE + "protocol/repack.rs::",
    ENGINE + "protocol/moved.rs::",
)

STEPS, WAITING, INTERLOCKS, STOLEN, REPACKING = (
    ENGINE + "prune/steps.rs::",
    ENGINE + "prune/waiting.rs::",
    ENGINE + "prune/interlocks.rs::",
    ENGINE + "prune/stolen.rs::",
    ENGINE + "prune/repacking.rs::",
)

BARRIER, PROMOTION = (
    ENGINE + "prune/barrier.rs::",
    ENGINE + "prune/promotion.rs::",
)

FORGET, COMPACTION, REFUSED = (
    ENGINE + "forget.rs::",
    ENGINE + "prune/compaction.rs::",
    ENGINE + "prune/refused.rs::",
)


def behaviour():
    for rule, what, test, comment, expect in (
        (
            "INDEX-3",
            "hits-are-confirmed",
            HITS + "packs_that_vanished_are_not_used",
            "a hit on a pack that is gone is not used",
            "refused",
        ),
        (
            "INDEX-3",
            "hits-are-used",
            HITS + "packs_of_a_committed_session_are_used",
            "a hit that is confirmed is used",
            "ok",
        ),
        (
            "INDEX-3",
            "restore-needs-none",
            ENGINE + "verify/objects.rs::a_damaged_index_harms_no_snapshot",
            "a snapshot is whole without an index",
            "ok",
        ),
        (
            "W-1",
            "intent-first",
            ORDER + "each_step_of_a_backup_begins_when_the_one_before_has_ended",
            "the order of all steps",
            "ok",
        ),
        (
            "W-1",
            "lost-answer",
            ORDER + "an_intent_whose_answer_is_lost_is_settled_before_the_backup_goes_on",
            "an intent is confirmed",
            "ok",
        ),
        (
            "W-1",
            "not-confirmed",
            ORDER + "nothing_goes_on_when_the_intent_cannot_be_confirmed",
            "no session goes on without its intent",
            "refused",
        ),
        (
            "W-2",
            "condemned-before-the-intent",
            ORDER + "a_pack_that_is_condemned_just_before_the_intent_is_seen",
            "gc/ is listed after the intent",
            "refused",
        ),
        (
            "W-2",
            "result-rescues",
            INHERITANCE + "what_a_result_rescues_is_inherited",
            "a result counts instead of the list of condemned packs",
            "ok",
        ),
        (
            "W-2",
            "sealed-without-result",
            INHERITANCE + "a_generation_that_was_sealed_without_a_result_condemns_nothing",
            "a seal alone ends a generation",
            "ok",
        ),
        (
            "W-2",
            "all-generations",
            INHERITANCE + "the_lists_of_all_generations_count",
            "lists of all generations are read",
            "refused",
        ),
        (
            "W-2",
            "uncommitted-record",
            REPACKS + "the_record_of_a_session_that_did_not_commit_is_ignored",
            "a record of a session without a REPACK",
            "refused",
        ),
        (
            "W-3",
            "after-the-records",
            ORDER + "the_parent_is_chosen_after_the_records_were_listed",
            "the parent is chosen last",
            "ok",
        ),
        (
            "W-3",
            "forgotten",
            DECISIONS + "a_forgotten_snapshot_is_no_parent",
            "a snapshot with a tombstone is no parent",
            "refused",
        ),
        (
            "W-4",
            "condemned-is-stored-again",
            INHERITANCE + "a_condemned_pack_is_not_inherited_and_all_else_is",
            "what is condemned is stored again, all else is inherited",
            "refused",
        ),
        (
            "W-4",
            "through-a-record",
            REPACKS + "pages_are_inherited_through_a_record_that_applies_to_the_parent",
            "names pass through a record that applies",
            "ok",
        ),
        (
            "W-4",
            "where-records-lead",
            REPACKS + "what_a_record_leads_to_is_checked_and_not_only_the_name",
            "a record leads to a condemned pack",
            "refused",
        ),
        (
            "W-4",
            "via",
            REPACKS + "a_record_that_no_kept_name_passes_through_is_not_listed",
            "via lists exactly the records that are passed through",
            "ok",
        ),
        ("W-5", "committed", HITS + "packs_of_a_committed_session_are_used", "packs of a committed session", "ok"),
        (
            "W-5",
            "forgotten",
            HITS + "packs_of_a_forgotten_session_are_used_even_when_its_root_is_gone",
            "packs of a tombstoned session",
            "ok",
        ),
        (
            "W-5",
            "undecided",
            HITS + "packs_of_an_undecided_session_are_not_used",
            "packs of a session without a decision",
            "refused",
        ),
        (
            "W-5",
            "aborted",
            HITS + "packs_of_an_aborted_session_are_used_by_its_own_writer_only",
            "packs of an aborted session",
            "refused",
        ),
        ("W-5", "condemned", HITS + "condemned_packs_are_not_used", "condemned packs", "refused"),
        ("W-5", "other-size", HITS + "packs_of_another_size_are_not_used", "packs of another size", "refused"),
        (
            "W-5",
            "moved",
            REPACKS + "another_vm_takes_moved_chunks_at_their_new_place_only",
            "chunks that a record moved",
            "refused",
        ),
        (
            "W-6",
            "decision-last",
            ORDER + "each_step_of_a_backup_begins_when_the_one_before_has_ended",
            "packs, then indexes, then the decision",
            "ok",
        ),
        (
            "W-6",
            "pack-missing",
            DECISIONS + "a_pack_that_is_not_there_at_the_end_stops_the_commit",
            "a pack is gone before the decision",
            "refused",
        ),
        (
            "W-7",
            "lost-answer",
            DECISIONS + "a_decision_whose_answer_is_lost_is_a_success",
            "the same bytes under the name are success",
            "ok",
        ),
        (
            "W-7",
            "abort",
            DECISIONS + "an_abort_that_wins_makes_the_backup_begin_anew_and_use_what_it_has_stored",
            "an ABORT under the name means to start again",
            "ok",
        ),
        (
            "W-7",
            "twin",
            DECISIONS + "another_commit_under_the_decisions_name_means_a_twin",
            "another COMMIT under the name",
            "refused",
        ),
        (
            "W-8",
            "failed-disk",
            ENGINE + "backup.rs::a_vm_with_a_disk_that_cannot_be_read_gets_no_snapshot",
            "one of two disks cannot be read",
            "refused",
        ),
        (
            "W-8",
            "all-disks",
            ENGINE + "backup.rs::a_snapshot_has_all_disks_of_its_vm",
            "both disks of a VM are in its snapshot",
            "ok",
        ),
        (
            "W-9",
            "ended-session",
            ENGINE + "unfinished.rs::what_a_killed_backup_had_indexed_is_not_stored_again",
            "an unfinished session of the writer and VM is aborted, and what it indexed is used",
            "ok",
        ),
        (
            "W-9",
            "may-be-running",
            ENGINE + "unfinished.rs::a_session_that_stored_something_lately_is_left_alone_and_the_backup_refused",
            "a session that stored something lately is left alone, and none is begun",
            "refused",
        ),
        (
            "W-9",
            "dated-in-the-future",
            ENGINE + "unfinished.rs::a_session_dated_in_the_future_counts_as_running",
            "the newest blob of a session is younger than now",
            "refused",
        ),
        (
            "W-9",
            "known-to-have-ended",
            ENGINE + "unfinished.rs::a_session_that_is_known_to_have_ended_is_aborted_at_once",
            "a young session that something tells to have ended",
            "ok",
        ),
        (
            "W-9",
            "of-others",
            ENGINE + "unfinished.rs::sessions_of_other_writers_and_vms_are_left_alone",
            "sessions of other writers and VMs",
            "refused",
        ),
        (
            "W-9",
            "whatever-was-stored",
            ENGINE + "unfinished.rs::a_session_is_aborted_whatever_it_had_stored",
            "a session that ended after any of its steps",
            "ok",
        ),
        (
            "GEN-8",
            "another-length",
            ENGINE + "verify/packs.rs::a_truncated_data_pack_loses_what_was_cut_off",
            "a blob whose length is not that of pack tables",
            "refused",
        ),
        (
            "GEN-8",
            "not-in-the-directory",
            ENGINE + "verify/maps.rs::a_page_that_names_a_chunk_where_there_is_none_is_found_by_reading_data",
            "a location that its pack's directory does not have",
            "refused",
        ),
        (
            "R-3",
            "a-forgotten-snapshot",
            DECISIONS + "a_forgotten_snapshot_is_no_parent",
            "a COMMIT with a tombstone is no valid root",
            "refused",
        ),
        (
            "R-3",
            "tombstone-of-another-vm",
            DECISIONS + "a_tombstone_of_another_vm_hides_nothing",
            "a tombstone with the session id and another vmtag",
            "ok",
        ),
        (
            "R-3",
            "damaged-tombstone",
            DECISIONS + "a_tombstone_that_is_not_authentic_hides_nothing_and_is_reported",
            "a tombstone that is rejected does not count, and is reported",
            "ok",
        ),
        (
            "R-3",
            "damaged-decision",
            DECISIONS + "a_decision_that_is_not_authentic_hides_nothing_and_is_reported",
            "a decision that is rejected does not count, and is reported",
            "ok",
        ),
        (
            "R-1",
            "restores",
            ENGINE + "backup.rs::a_disk_comes_back_as_it_was",
            "from the decision down to chunks",
            "ok",
        ),
        (
            "R-1",
            "damaged-chunk",
            ENGINE + "restore/main.rs::a_damaged_chunk_ends_a_restore_of_many_windows_and_is_named",
            "a chunk is checked before it is used",
            "refused",
        ),
        (
            "R-2",
            "new-place-gone",
            MOVED + "the_old_place_is_read_if_the_new_one_is_gone",
            "a record leads to a pack that is gone, the pack that the location names is there",
            "ok",
        ),
        (
            "R-2",
            "over-several-records",
            MOVED + "what_was_repacked_twice_is_found_whatever_of_the_way_there_is_gone",
            "records are followed from packs that are gone in turn",
            "ok",
        ),
        (
            "R-2",
            "maps-in-new-packs",
            MOVED + "pages_and_nodes_are_read_at_their_new_places_by_all_that_read_maps",
            "pages and nodes in new packs are read as if they were in the old ones",
            "ok",
        ),
        (
            "R-2",
            "wrong-payload",
            MOVED + "a_directory_that_lies_gives_no_wrong_bytes",
            "the id of what a record leads to is checked",
            "refused",
        ),
        (
            "R-2",
            "forgotten-meanwhile",
            MOVED + "a_reading_of_a_snapshot_that_is_forgotten_and_removed_meanwhile_says_so",
            "a pack is gone and the snapshot has a tombstone by now",
            "refused",
        ),
        (
            "R-2",
            "records-are-followed",
            ENGINE + "recovery.rs::the_second_reader_follows_records_where_packs_are_gone",
            "payloads are looked for where records lead",
            "ok",
        ),
        (
            "R-2",
            "unsigned-record",
            ENGINE + "recovery.rs::the_second_reader_does_not_follow_a_record_that_is_not_signed",
            "a record that is not signed is not there",
            "refused",
        ),
        (
            "R-2",
            "missing",
            ENGINE + "verify/packs.rs::a_missing_data_pack_is_named_with_what_is_lost",
            "a pack that is not in the store is missing",
            "refused",
        ),
    ):
        scenario(rule, what, test, comment, expect)
    pruning()
    scenario(
        "INDEX-4",
        "packs-come-first",
        ORDER + "an_index_lists_only_packs_that_were_in_the_store_before",
        "indexes list only what is there",
        negative="an index does not tell when it was created",
    )


def pruning():
    """What the retention and a pruner do."""
    for rule, what, test, comment in (
        ("P-1", "forget", FORGET + "what_a_policy_does_not_keep_is_no_snapshot_any_more_and_the_rest_restores", "tombstones"),
        ("P-2", "one-is-open", STEPS + "resuming_ends_the_open_generation_and_begins_no_other", "an open generation goes on"),
        ("P-3", "candidates", STEPS + "what_only_a_forgotten_snapshot_needed_is_deleted_and_nothing_else", "what goes"),
        (
            "P-4",
            "own-sessions",
            WAITING + "a_pruners_own_crashed_sessions_hold_nothing_up_once_they_are_known_to_have_ended",
            "sessions that are known to have ended are decided",
        ),
        (
            "P-4",
            "begun-later",
            WAITING + "a_session_that_began_after_the_generation_was_opened_holds_only_the_next_one_up",
            "who begins later is not waited for",
        ),
        ("P-5", "patience", WAITING + "one_that_is_quiet_for_longer_than_the_patience_is_aborted", "an old session"),
        ("P-6", "nothing-left", STEPS + "all_packs_go_when_all_snapshots_are_forgotten", "no root needs anything"),
        ("P-8", "index", COMPACTION + "packs_that_are_deleted_leave_the_index", "indexes list nothing that is deleted"),
        (
            "P-9",
            "all-is-listed",
            STEPS + "nothing_is_deleted_and_no_generation_begins_while_all_is_needed",
            "listings that agree are believed",
        ),
        ("REP-1", "nothing-leads", BARRIER + "what_nothing_leads_from_is_deleted_at_once", "what was not packed again"),
        (
            "REP-2",
            "promoted",
            PROMOTION + "what_is_whole_at_a_promotion_stays_so_whatever_is_done_there_afterwards",
            "backups in a promoted replica",
        ),
        (
            "REP-3",
            "ended-anywhere",
            PROMOTION + "a_promotion_that_ends_anywhere_goes_on_and_sets_aside_what_it_did_before",
            "whoever comes next goes on",
        ),
        (
            "REP-4",
            "own-generations",
            PROMOTION + "what_is_whole_at_a_promotion_stays_so_whatever_is_done_there_afterwards",
            "a prune in a promoted replica, once the other side is gone",
        ),
        ("P-10", "repack", REPACKING + "what_is_needed_moves_and_what_is_not_goes", "a pack that is mostly not needed"),
    ):
        scenario(rule, what, test, comment)
    scenario(
        "P-7",
        "ended-anywhere",
        STEPS + "a_prune_that_ends_anywhere_is_ended_by_another_one",
        "whoever comes next goes on with what was published",
        negative="they do not show in which order they were created",
    )
    for rule, what, test, comment in (
        ("P-1", "unsigned", FORGET + "what_the_retention_did_not_sign_forgets_nothing_and_pins_nothing", "not signed"),
        ("P-2", "planted", STOLEN + "planted_generations_delete_nothing_and_stop_nothing", "generations of a thief"),
        ("P-3", "needed", STEPS + "what_a_later_backup_needs_of_a_forgotten_one_stays", "packs that another root needs"),
        ("P-4", "undecided", WAITING + "a_session_that_may_run_is_waited_for_and_named", "a session that may run"),
        (
            "P-4",
            "planted-list",
            STOLEN + "a_planted_list_of_nobody_to_wait_for_does_not_end_the_wait",
            "a list of a thief",
        ),
        (
            "P-5",
            "planted-end",
            STOLEN + "no_planted_end_makes_a_pruner_pass_over_a_session_that_runs",
            "an end that the pruner did not make",
        ),
        (
            "P-6",
            "unreadable-root",
            INTERLOCKS + "a_snapshot_that_cannot_be_read_stops_it_until_it_is_forgotten",
            "a decision that cannot be read",
        ),
        (
            "P-8",
            "refused-deletes",
            REFUSED + "deletes_that_retention_refuses_are_deferred_and_done_by_a_later_generation",
            "deletes that the store refuses",
        ),
        ("P-9", "canary", INTERLOCKS + "a_canary_that_is_not_listed_stops_it", "a canary that no listing shows"),
        (
            "P-9",
            "roster",
            INTERLOCKS + "a_snapshot_of_the_last_roster_that_is_not_listed_stops_it",
            "a survivor that no listing shows",
        ),
        (
            "REP-1",
            "unconfirmed",
            BARRIER + "what_was_packed_again_stays_until_it_is_confirmed_at_every_registered_replica",
            "what was packed again and is not confirmed",
        ),
        (
            "REP-1",
            "on-the-way",
            BARRIER + "a_pack_waits_for_all_repacks_on_the_way_from_it",
            "a repack of a repack that is not confirmed",
        ),
        (
            "REP-1",
            "planted",
            BARRIER + "what_the_retention_did_not_sign_registers_and_confirms_and_removes_nothing",
            "facts of a thief",
        ),
        (
            "REP-2",
            "written-to",
            PROMOTION + "a_replica_is_written_to_only_after_it_was_promoted",
            "a backup and a prune in a replica",
        ),
        (
            "REP-3",
            "written-here",
            PROMOTION + "where_the_repository_is_written_to_nothing_is_promoted",
            "a place that the repository is written to",
        ),
        (
            "REP-4",
            "arrived-result",
            PROMOTION + "a_result_that_arrived_is_not_carried_out",
            "a result of the place that the replica was copied from",
        ),
        ("P-10", "unsigned-record", STOLEN + "a_planted_record_moves_nothing", "a record that is not signed"),
    ):
        scenario(rule, what, test, comment, "refused")
