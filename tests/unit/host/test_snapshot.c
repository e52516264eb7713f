/* Snapshots from intention to proof of removal, and the reaper. */
#include "tests/unit/cmocka_all.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "receiver/base/log.h"
#include "receiver/host/chain.h"
#include "receiver/host/datastores.h"
#include "receiver/host/inventory.h"
#include "receiver/host/journal.h"
#include "receiver/host/reaper.h"
#include "receiver/host/snapshot.h"
#include "tests/unit/host/fixture.h"

#define STRANGER "vmferry-fedcba9876543210-run-00112233445566778899aabbccddeeff"

/* Run the reaper and expect one line of this kind. */
static void reap(struct fixture *x, enum reaped_kind kind)
{
    struct reaper_options options = { 0 };
    struct reaped_list l;
    struct err e;

    assert_int_equal(reaper_run(&x->f.host, x->j, &options, &l, &e), 0);
    assert_int_equal(l.count, 1);
    if (l.items[0].kind != kind)
        fail_msg("kind %d, not %d: %s", l.items[0].kind, kind, l.items[0].text);
    reaped_list_free(&l);
}

/* ---- inventory over commands ---- */

static void the_inventory_comes_from_summaries(void **state)
{
    struct fixture *x = *state;
    struct vm_list l;
    struct vm_files files;
    struct err e;

    x->f.list_extra = "99     ghost   [ds1] g/g.vmx   otherGuest   vmx-8   an imitated row\n"
                      "Skipping invalid VM '30'\n";
    assert_int_equal(host_vms(&x->f.host, &l, &e), 0);
    assert_int_equal(l.count, 1);
    assert_string_equal(l.items[0].name, "web 01");
    assert_int_equal(l.items[0].power, VM_ON);
    assert_int_equal(l.problem_count, 1);
    vm_list_free(&l);
    assert_int_equal(x->vm.disks.count, 1);
    assert_string_equal(x->vm.disks.items[0].file, "[ds1] web 01/web 01.vmdk");
    assert_int_equal(x->vm.snapshots, 0);
    assert_int_equal(x->vm.tracking, VM_TRACKING_OFF);
    assert_int_equal(host_vm_files(&x->f.host, &x->vm, &files, &e), 0);
    assert_int_equal(files.count, 4);
    assert_string_equal(files.items[1].path, "[ds1] web 01/web 01.nvram");
    assert_int_equal(files.items[3].kind, VM_FILE_DESCRIPTOR);
    vm_files_free(&files);
}

static void a_host_short_of_memory_is_tried_three_times(void **state)
{
    struct fixture *x = *state;
    struct vm vm;
    struct err e;

    x->f.bad_alloc = 2;
    assert_int_equal(host_vm(&x->f.host, 7, &vm, &e), 0);
    vm_free(&vm);
    x->f.bad_alloc = 3;
    assert_int_equal(host_vm(&x->f.host, 7, &vm, &e), -1);
    assert_int_equal(e.code, ERR_BUSY);
    assert_int_equal(host_vm(&x->f.host, 8, &vm, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
}

static void identity_is_asked_of_the_host(void **state)
{
    struct fixture *x = *state;
    struct err e;

    assert_int_equal(host_identify(&x->f.host, &e), 0);
    assert_string_equal(x->f.host.version, "8.0.2");
    assert_string_equal(x->f.host.build, "22380479");
    assert_int_equal(x->f.host.version_major, 8);
    assert_string_equal(x->f.host.level, "VMware ESXi 8.0 Update 2");
    assert_string_equal(x->f.host.uuid, "5e0f0000-aaaa-bbbb-cccc-000000000001");
}

/* ---- the life of a snapshot ---- */

static void created_read_and_removed(void **state)
{
    struct fixture *x = *state;
    struct snapshot *s;
    struct chain_plan plan;
    struct err e;
    enum journal_state at;

    if (fixture_take(x, &s, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(s->id, 1);
    assert_true(s->quiesced);
    assert_true(fake_host_has(&x->f, s->name));
    assert_true(fixture_entries(x, &at) == 1 && at == JOURNAL_CREATED);
    if (chain_plan_read(&x->f.host, &x->vm, s, &x->stores, &plan, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(plan.count, 1);
    assert_int_equal(plan.items[0].outcome, CHAIN_READ);
    assert_string_equal(
        plan.items[0].links[0].data_path,
        "/vmfs/volumes/5c8f0001-00000001-0001-000000000001/web 01/web 01-flat.vmdk");
    assert_true(plan.items[0].capacity_bytes == 10485760);
    assert_int_equal(plan.items[0].links[0].cid, 0x1a2b3c40);
    assert_true(plan.items[0].thin);
    assert_string_equal(plan.items[0].adapter, "lsilogic");
    assert_false(plan.before);
    assert_int_equal(snapshot_reading(&x->f.host, s, &e), 0);
    assert_true(fixture_entries(x, &at) == 1 && at == JOURNAL_READING);
    assert_int_equal(chain_recheck(&x->f.host, &x->vm, s, &x->stores, &plan, &e), 0);
    chain_plan_free(&plan);
    if (snapshot_remove(&x->f.host, s, &e) != 0)
        fail_msg("%s", e.text);
    snapshot_free(s);
    assert_int_equal(x->f.snapshot_count, 0);
    assert_int_equal(fixture_entries(x, NULL), 0);
}

static void the_intention_is_written_before_the_host_hears_of_it(void **state)
{
    struct fixture *x = *state;
    struct snapshot *s;
    struct err e;
    enum journal_state at;

    x->f.create_silent = true;
    assert_int_equal(fixture_take(x, &s, &e), -1);
    assert_int_equal(e.code, ERR_SOURCE);
    assert_true(fixture_entries(x, &at) == 1 && at == JOURNAL_INTENT);
    /* Nothing is there: it delays nothing, and is closed after 30 minutes. */
    reap(x, REAPED_WAITING);
    x->f.clock_ms += UINT64_C(1800) * 1000;
    reap(x, REAPED_NOTHING);
    assert_int_equal(fixture_entries(x, NULL), 0);
}

static void a_silent_failure_that_appears_later_is_reaped(void **state)
{
    struct fixture *x = *state;
    struct snapshot *s;
    struct err e;

    x->f.create_late_looks = 60;
    x->wish.create_ms = 20000;
    assert_int_equal(fixture_take(x, &s, &e), -1);
    assert_int_equal(e.code, ERR_SOURCE);
    assert_int_equal(x->f.snapshot_count, 0);
    reap(x, REAPED_WAITING); /* its task is still running */
    x->f.late_looks = 0;
    reap(x, REAPED_REMOVED);
    assert_int_equal(x->f.snapshot_count, 0);
    assert_int_equal(fixture_entries(x, NULL), 0);
}

static void one_that_appears_late_but_in_time_is_taken(void **state)
{
    struct fixture *x = *state;
    struct snapshot *s;
    struct err e;

    x->f.create_late_looks = 5;
    if (fixture_take(x, &s, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(snapshot_remove(&x->f.host, s, &e), 0);
    snapshot_free(s);
}

static void a_refusal_is_reported_with_the_hosts_words(void **state)
{
    struct fixture *x = *state;
    struct snapshot *s;
    struct err e;

    x->f.create_fault = "An error occurred while taking a snapshot: One or more disks are busy";
    assert_int_equal(fixture_take(x, &s, &e), -1);
    assert_int_equal(e.code, ERR_SOURCE);
    assert_non_null(strstr(e.text, "One or more disks are busy"));
    assert_int_equal(x->f.snapshot_count, 0);
    assert_int_equal(fake_host_ran(&x->f, "/bin/vim-cmd vmsvc/snapshot.create"), 2);
}

static void quiescing_falls_back_or_is_required(void **state)
{
    struct fixture *x = *state;
    struct snapshot *s;
    struct err e;

    x->f.create_fault = "An error occurred while quiescing the virtual machine.";
    x->f.create_fault_quiesced = true;
    assert_int_equal(fixture_take(x, &s, &e), 0);
    assert_false(s->quiesced);
    assert_non_null(strstr(s->quiesce_problem, "quiescing"));
    assert_int_equal(snapshot_remove(&x->f.host, s, &e), 0);
    snapshot_free(s);

    x->wish.quiesce = QUIESCE_REQUIRE;
    assert_int_equal(fixture_take(x, &s, &e), -1);
    assert_int_equal(e.code, ERR_UNSUPPORTED);
    x->wish.quiesce = QUIESCE_NO;
    assert_int_equal(fixture_take(x, &s, &e), 0);
    assert_int_equal(s->quiesce_problem[0], 0);
    assert_int_equal(snapshot_remove(&x->f.host, s, &e), 0);
    snapshot_free(s);
}

static void another_task_is_waited_for_within_the_limit(void **state)
{
    struct fixture *x = *state;
    struct snapshot *s;
    struct err e;

    x->f.create_busy = 2;
    x->wish.wait_ms = 600000;
    if (fixture_take(x, &s, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(snapshot_remove(&x->f.host, s, &e), 0);
    snapshot_free(s);
    assert_int_equal(fixture_entries(x, NULL), 0);

    x->f.create_busy = 2;
    x->wish.wait_ms = 0;
    assert_int_equal(fixture_take(x, &s, &e), -1);
    assert_int_equal(e.code, ERR_BUSY);
    x->f.create_busy = 0;
    x->f.task_open = true;
    assert_int_equal(fixture_take(x, &s, &e), -1);
    assert_int_equal(e.code, ERR_BUSY);
    assert_int_equal(x->f.snapshot_count, 0);
}

static void a_young_run_of_another_receiver_goes_first(void **state)
{
    struct fixture *x = *state;
    struct snapshot *s;
    struct err e;

    /* It was there before: we do not even begin. */
    fake_host_add_snapshot(&x->f, STRANGER, 1763600000 - 100);
    assert_int_equal(fixture_take(x, &s, &e), -1);
    assert_int_equal(e.code, ERR_BUSY);
    assert_int_equal(fake_host_ran(&x->f, "/bin/vim-cmd vmsvc/snapshot.create"), 0);
    assert_true(fake_host_has(&x->f, STRANGER));
    x->f.snapshot_count = 0;
    x->f.links = 0;

    /* It came between our look and our creation: ours goes again. */
    x->f.appears_before = STRANGER;
    assert_int_equal(fixture_take(x, &s, &e), -1);
    assert_int_equal(e.code, ERR_BUSY);
    assert_int_equal(x->f.snapshot_count, 1);
    assert_true(fake_host_has(&x->f, STRANGER));
    assert_int_equal(fixture_entries(x, NULL), 0);
}

static void an_old_one_of_another_receiver_is_the_users(void **state)
{
    struct fixture *x = *state;
    struct chain_plan plan;
    struct snapshot *s;
    struct err e;

    fake_host_add_snapshot(&x->f, STRANGER, 1763600000 - 24 * 3600 - 1);
    assert_int_equal(host_vm_details(&x->f.host, &x->vm, &e), 0);
    if (fixture_take(x, &s, &e) != 0)
        fail_msg("%s", e.text);
    /* Its delta is read, and the base below it. */
    assert_int_equal(chain_plan_read(&x->f.host, &x->vm, s, &x->stores, &plan, &e), 0);
    assert_int_equal(plan.items[0].outcome, CHAIN_READ);
    assert_int_equal(plan.items[0].link_count, 2);
    assert_string_equal(plan.items[0].links[0].type, "seSparse");
    assert_string_equal(plan.items[0].links[0].data_path,
                        "/vmfs/volumes/5c8f0001-00000001-0001-000000000001/web 01/"
                        "web 01-000001-sesparse.vmdk");
    assert_string_equal(plan.items[0].links[1].type, "vmfs");
    /* What only the base says counts for the disk. */
    assert_true(plan.items[0].thin);
    assert_string_equal(plan.items[0].uuid, "60 00 C2 90 aa aa bb bb-cc cc 00 00 00 00 00 01");
    chain_plan_free(&plan);
    /* A link of the user's that does not fit the one below it. */
    x->f.strange_cid = true;
    assert_int_equal(chain_plan_read(&x->f.host, &x->vm, s, &x->stores, &plan, &e), -1);
    assert_int_equal(e.code, ERR_SOURCE);
    assert_non_null(strstr(e.text, "content id"));
    x->f.strange_cid = false;
    assert_int_equal(snapshot_remove(&x->f.host, s, &e), 0);
    snapshot_free(s);
    assert_int_equal(x->f.snapshot_count, 1);
    assert_true(fake_host_has(&x->f, STRANGER));
}

static void a_task_in_progress_delays_the_removal(void **state)
{
    struct fixture *x = *state;
    struct snapshot *s;
    struct err e;

    assert_int_equal(fixture_take(x, &s, &e), 0);
    x->f.remove_busy = 2;
    if (snapshot_remove(&x->f.host, s, &e) != 0)
        fail_msg("%s", e.text);
    snapshot_free(s);
    assert_int_equal(x->f.snapshot_count, 0);
}

static void a_removal_that_does_nothing_is_no_success(void **state)
{
    struct fixture *x = *state;
    struct snapshot *s;
    struct err e;
    enum journal_state at;

    assert_int_equal(fixture_take(x, &s, &e), 0);
    x->f.remove_does_nothing = true;
    assert_int_equal(snapshot_remove(&x->f.host, s, &e), -1);
    assert_int_equal(e.code, ERR_CLEANUP);
    snapshot_free(s);
    assert_true(fixture_entries(x, &at) == 1 && at == JOURNAL_REMOVING);
    reap(x, REAPED_FAILED);
    x->f.remove_does_nothing = false;
    reap(x, REAPED_REMOVED);
    assert_int_equal(x->f.snapshot_count, 0);
}

static void files_left_behind_are_told(void **state)
{
    struct fixture *x = *state;
    struct snapshot *s;
    struct err e;

    assert_int_equal(fixture_take(x, &s, &e), 0);
    x->f.remove_leaves_files = true;
    assert_int_equal(snapshot_remove(&x->f.host, s, &e), -1);
    assert_int_equal(e.code, ERR_CLEANUP);
    snapshot_free(s);
    /* The tree shows nothing, yet the entry is not closed while the host needs a consolidation. */
    reap(x, REAPED_FAILED);
    x->f.consolidation = false;
    x->f.links = 0;
    reap(x, REAPED_NOTHING);
}

static void a_delta_left_without_a_word_is_told_too(void **state)
{
    struct fixture *x = *state;
    struct snapshot *s;
    struct err e;

    assert_int_equal(fixture_take(x, &s, &e), 0);
    x->f.links++; /* the removal takes one away, so one stays */
    assert_int_equal(snapshot_remove(&x->f.host, s, &e), -1);
    assert_int_equal(e.code, ERR_CLEANUP);
    assert_non_null(strstr(e.text, "web 01-000001.vmdk"));
    snapshot_free(s);
}

static void two_with_our_token_are_both_left_alone(void **state)
{
    struct fixture *x = *state;
    struct snapshot *s;
    struct err e;

    x->f.create_twice = true;
    assert_int_equal(fixture_take(x, &s, &e), -1);
    assert_int_equal(x->f.snapshot_count, 2);
    reap(x, REAPED_FAILED);
    assert_int_equal(x->f.snapshot_count, 2);
    assert_int_equal(fake_host_ran(&x->f, "/bin/vim-cmd vmsvc/snapshot.remove"), 0);
    assert_int_equal(fixture_entries(x, NULL), 1);
}

static void another_id_under_our_name_is_left_alone(void **state)
{
    struct fixture *x = *state;
    struct snapshot *s;
    struct err e;

    assert_int_equal(fixture_take(x, &s, &e), 0);
    x->f.snapshots[0].id = 77;
    assert_int_equal(snapshot_remove(&x->f.host, s, &e), -1);
    assert_int_equal(e.code, ERR_REFUSED);
    snapshot_free(s);
    reap(x, REAPED_FAILED);
    assert_int_equal(fake_host_ran(&x->f, "/bin/vim-cmd vmsvc/snapshot.remove"), 0);
    assert_int_equal(x->f.snapshot_count, 1);
}

static void another_vm_under_our_id_is_left_alone(void **state)
{
    struct fixture *x = *state;
    struct snapshot *s;
    struct err e;

    assert_int_equal(fixture_take(x, &s, &e), 0);
    x->f.instance_uuid = "52bb0000-0000-0000-0000-000000000009";
    assert_int_equal(snapshot_remove(&x->f.host, s, &e), -1);
    assert_int_equal(fake_host_ran(&x->f, "/bin/vim-cmd vmsvc/snapshot.remove"), 0);
    snapshot_free(s);
    reap(x, REAPED_WAITING);
}

static void a_vm_with_a_new_id_is_found_again(void **state)
{
    struct fixture *x = *state;
    struct snapshot *s;
    struct err e;

    assert_int_equal(fixture_take(x, &s, &e), 0);
    x->f.vmid = 12;
    if (snapshot_remove(&x->f.host, s, &e) != 0)
        fail_msg("%s", e.text);
    snapshot_free(s);
    assert_int_equal(x->f.snapshot_count, 0);
}

static void a_cut_connection_leaves_the_entry_for_the_reaper(void **state)
{
    struct fixture *x = *state;
    struct snapshot *s;
    struct err e;

    assert_int_equal(fixture_take(x, &s, &e), 0);
    x->f.cut = true;
    assert_int_equal(snapshot_remove(&x->f.host, s, &e), -1);
    assert_int_equal(e.code, ERR_NETWORK);
    snapshot_free(s);
    x->f.cut = false;
    assert_int_equal(fixture_entries(x, NULL), 1);
    reap(x, REAPED_REMOVED);
    assert_int_equal(x->f.snapshot_count, 0);
}

static void a_stop_request_does_not_keep_the_snapshot(void **state)
{
    struct fixture *x = *state;
    struct snapshot *s;
    struct err e;

    assert_int_equal(fixture_take(x, &s, &e), 0);
    x->f.stop = true;
    x->f.vmid = 12; /* finding it again goes through the list of VMs */
    if (snapshot_remove(&x->f.host, s, &e) != 0)
        fail_msg("%s", e.text);
    snapshot_free(s);
    assert_int_equal(fixture_take(x, &s, &e), -1);
    assert_int_equal(e.code, ERR_STOPPED);
}

/* ---- the reaper ---- */

static void what_is_locked_or_foreign_is_never_touched(void **state)
{
    struct fixture *x = *state;
    struct snapshot *s;
    struct err e;

    fake_host_add_snapshot(&x->f, "the user's own", 1763600000 - 5000);
    assert_int_equal(host_vm_details(&x->f.host, &x->vm, &e), 0);
    assert_int_equal(fixture_take(x, &s, &e), 0);
    fake_host_add_snapshot(&x->f, STRANGER, 1763600000);
    reap(x, REAPED_IN_USE);
    assert_int_equal(x->f.snapshot_count, 3);
    snapshot_free(s); /* the process is gone */
    reap(x, REAPED_REMOVED);
    assert_int_equal(x->f.snapshot_count, 2);
    assert_true(fake_host_has(&x->f, "the user's own"));
    assert_true(fake_host_has(&x->f, STRANGER));
}

static void entries_of_other_hosts_are_not_looked_at(void **state)
{
    struct fixture *x = *state;
    struct reaper_options options = { 0 };
    struct reaped_list l;
    struct snapshot *s;
    struct err e;

    assert_int_equal(fixture_take(x, &s, &e), 0);
    snapshot_free(s);
    strcpy(x->f.host.uuid, "another");
    assert_int_equal(reaper_run(&x->f.host, x->j, &options, &l, &e), 0);
    assert_int_equal(l.count, 0);
    reaped_list_free(&l);
    assert_int_equal(x->f.snapshot_count, 1);
}

static void leftovers_are_listed_and_a_named_one_removed(void **state)
{
    struct fixture *x = *state;
    struct leftover_list l;
    struct snapshot *s;
    struct err e;
    char text[200];

    fake_host_add_snapshot(&x->f, "someone's", 1763500000);
    fake_host_add_snapshot(&x->f, STRANGER, 1763500000);
    assert_int_equal(host_vm_details(&x->f.host, &x->vm, &e), 0);
    assert_int_equal(fixture_take(x, &s, &e), 0);
    assert_int_equal(reaper_leftovers(&x->f.host, x->j, &l, &e), 0);
    assert_int_equal(l.count, 2);
    assert_false(l.items[0].ours);
    assert_true(l.items[1].ours && l.items[1].journalled);
    assert_int_equal(
        reaper_remove_foreign(&x->f.host, x->j, l.items[1].token, text, sizeof text, &e), -1);
    assert_int_equal(e.code, ERR_REFUSED);
    if (reaper_remove_foreign(&x->f.host, x->j, l.items[0].token, text, sizeof text, &e) != 0)
        fail_msg("%s", e.text);
    leftover_list_free(&l);
    assert_int_equal(x->f.snapshot_count, 2);
    assert_true(fake_host_has(&x->f, "someone's"));
    assert_true(fake_host_has(&x->f, s->name));
    assert_int_equal(reaper_remove_foreign(&x->f.host, x->j, "ab", text, sizeof text, &e), -1);
    assert_int_equal(e.code, ERR_USAGE);
    assert_int_equal(reaper_remove_foreign(&x->f.host, x->j, "00112233445566778899aabbccddeeff",
                                           text, sizeof text, &e),
                     -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    snapshot_free(s);
}

#define T(name) cmocka_unit_test_setup_teardown(name, fixture_set_up, fixture_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(the_inventory_comes_from_summaries),
        T(a_host_short_of_memory_is_tried_three_times),
        T(identity_is_asked_of_the_host),
        T(created_read_and_removed),
        T(the_intention_is_written_before_the_host_hears_of_it),
        T(a_silent_failure_that_appears_later_is_reaped),
        T(one_that_appears_late_but_in_time_is_taken),
        T(a_refusal_is_reported_with_the_hosts_words),
        T(quiescing_falls_back_or_is_required),
        T(another_task_is_waited_for_within_the_limit),
        T(a_young_run_of_another_receiver_goes_first),
        T(an_old_one_of_another_receiver_is_the_users),
        T(a_task_in_progress_delays_the_removal),
        T(a_removal_that_does_nothing_is_no_success),
        T(files_left_behind_are_told),
        T(a_delta_left_without_a_word_is_told_too),
        T(two_with_our_token_are_both_left_alone),
        T(another_id_under_our_name_is_left_alone),
        T(another_vm_under_our_id_is_left_alone),
        T(a_vm_with_a_new_id_is_found_again),
        T(a_cut_connection_leaves_the_entry_for_the_reaper),
        T(a_stop_request_does_not_keep_the_snapshot),
        T(what_is_locked_or_foreign_is_never_touched),
        T(entries_of_other_hosts_are_not_looked_at),
        T(leftovers_are_listed_and_a_named_one_removed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
