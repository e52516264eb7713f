/* Runs, generations and names: what a mirror is when nothing goes wrong, and what it refuses. */
#include "tests/unit/cmocka_all.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/block/tree.h"
#include "protocol/stream/sink.h"
#include "tests/unit/mirror/fixture.h"

static void first_mirror_and_refreshes(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A);
    struct walk w = { 0 };
    uint64_t number;
    struct stat s;
    struct err e;

    assert_ok(host_run(h, &w, &number, &e), &e);
    assert_int_equal(number, 1);
    assert_int_equal(w.sent, 16);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
    assert_int_equal(stat(in_mirror(h, "web01", "disk-scsi0-0.raw"), &s), 0);
    assert_int_equal(s.st_mode & 07777, 0444);
    assert_true((uint64_t)s.st_blocks * 512 <= 16 * BLOCK + 8192);
    assert_string_equal(h->warnings, "");

    disk_set(d, 3, 0);  /* became zero */
    disk_set(d, 4, 11); /* was a hole */
    disk_set(d, 6, 12);
    disk_set(d, 100, 13);
    w = (struct walk){ 0 };
    assert_ok(host_run(h, &w, &number, &e), &e);
    assert_int_equal(number, 2);
    assert_int_equal(w.sent, 3);
    assert_int_equal(w.zero, 1);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
    assert_int_equal(access(in_mirror(h, "web01", "REFRESH-INTERRUPTED"), F_OK), -1);
    assert_int_equal(access(in_mirror(h, "web01", "config/web01.vmx"), F_OK), 0);

    w = (struct walk){ 0 };
    assert_ok(host_run(h, &w, &number, &e), &e);
    assert_int_equal(number, 3);
    assert_int_equal(w.sent + w.zero, 0);
    w = (struct walk){ .full = true };
    assert_ok(host_run(h, &w, &number, &e), &e);
    assert_int_equal(number, 4);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
    assert_string_equal(h->warnings, "");
}

static void every_kept_generation_restores_byte_for_byte(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A), was[8];
    char gen[32], out[128];
    struct err e;

    h->keep = 3;
    for (unsigned g = 1; g <= 6; g++) {
        for (unsigned i = 0; i < 20 && g > 1; i++)
            disk_set(d, (unsigned)rand() % 101, rand() % 4 == 0 ? 0 : (unsigned)rand() | 1);
        must_run(h, NULL);
        disk_copy(&was[g], d);
    }
    must_be_clean(h, "web01");
    for (unsigned g = 1; g <= 6; g++) {
        snprintf(gen, sizeof gen, "web01@%u", g);
        if (g >= 3) {
            must_restore(h, gen, "disk-scsi0-0.raw", &was[g]);
        } else {
            assert_int_equal(restore_gen(h, gen, out, &e), -1);
            assert_int_equal(e.code, ERR_NOT_FOUND);
        }
    }
    /* Fewer are kept only when the user agrees; without the option the number stays. */
    h->keep = 1;
    assert_int_equal(host_run(h, &(struct walk){ 0 }, NULL, &e), -1);
    assert_int_equal(e.code, ERR_REFUSED);
    h->keep_lower = true;
    must_run(h, NULL);
    h->keep = -1;
    h->keep_lower = false;
    must_run(h, NULL);
    assert_int_equal(restore_gen(h, "web01@6", out, &e), -1);
    must_restore(h, "7", "disk-scsi0-0.raw", &was[6]);
    must_restore(h, "web01@latest", "disk-scsi0-0.raw", &was[6]);
    assert_int_equal(access(in_mirror(h, "web01", ".vmferry/delta-6-1.index"), F_OK), -1);
    assert_int_equal(access(in_mirror(h, "web01", ".vmferry/config-6"), F_OK), -1);
    assert_int_equal(access(in_mirror(h, "web01", ".vmferry/generation-6"), F_OK), -1);
    assert_string_equal(h->warnings, "");
    for (unsigned g = 1; g <= 6; g++)
        free(was[g].data);
}

static void a_disk_may_grow_with_odd_ends(void **state)
{
    static const uint64_t capacities[] = { 5 * BLOCK + 512, 5 * BLOCK + 1024, 6 * BLOCK,
                                           9 * BLOCK,       9 * BLOCK + 512,  30 * BLOCK - 512 };
    struct host *h = *state;
    struct disk *d = host_add(h, "scsi0:0", UUID_A, capacities[0]), was[8];

    h->keep = 10;
    disk_set(d, 5, 3);
    for (unsigned g = 0; g < ARRAY_COUNT(capacities); g++) {
        if (g > 0)
            disk_grow(d, capacities[g]);
        if (g == 3)
            disk_set(d, 8, 4);
        if (g == 4)
            disk_set(d, 9, 5);
        must_run(h, NULL);
        disk_copy(&was[g], d);
        assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
    }
    must_be_clean(h, "web01");
    for (unsigned g = 0; g < ARRAY_COUNT(capacities); g++) {
        char gen[32];

        snprintf(gen, sizeof gen, "%u", g + 1);
        must_restore(h, gen, "disk-scsi0-0.raw", &was[g]);
        free(was[g].data);
    }
    assert_string_equal(h->warnings, "");
}

static void disks_come_go_and_change_places(void **state)
{
    struct host *h = *state;
    struct disk *a = some_disk(h, "scsi0:0", UUID_A), *b = some_disk(h, "scsi0:1", UUID_B);
    struct disk was_b, was_a;
    struct walk w = { 0 };
    char out[128];
    struct err e;

    h->keep = 5;
    disk_set(b, 2, 99);
    must_run(h, NULL);
    disk_copy(&was_a, a);
    disk_copy(&was_b, b);

    snprintf(a->slot, sizeof a->slot, "scsi0:1");
    snprintf(b->slot, sizeof b->slot, "scsi0:0");
    disk_set(a, 1, 5);
    must_run(h, &w);
    assert_int_equal(w.sent, 1);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-1.raw", a);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", b);
    must_be_clean(h, "web01");

    /* B goes; its image stays under another name, and generation 1 still has it. */
    h->count = 1;
    must_run(h, NULL);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.removed-2025-11-20.raw", &was_b);
    assert_int_equal(access(in_mirror(h, "web01", "disk-scsi0-0.raw"), F_OK), -1);
    assert_int_equal(access(in_mirror(h, "web01", "disk-scsi0-0.vmdk"), F_OK), -1);
    must_be_clean(h, "web01");
    assert_ok(restore_gen(h, "1", out, &e), &e);
    assert_image(out, "disk-scsi0-0.raw", &was_a);
    assert_image(out, "disk-scsi0-1.raw", &was_b);
    free(b->data);
    some_disk(h, "scsi0:2", "60 00 C2 99");
    must_run(h, NULL);
    must_run(h, NULL);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-2.raw", &h->disks[1]);
    must_be_clean(h, "web01");
    assert_ok(restore_gen(h, "1", out, &e), &e);
    assert_image(out, "disk-scsi0-1.raw", &was_b);
    free(was_a.data);
    free(was_b.data);
}

static void without_uuid_a_disk_is_its_slot(void **state)
{
    struct host *h = *state;
    struct disk *a = some_disk(h, "scsi0:0", ""), *b = some_disk(h, "scsi0:1", UUID_A);
    struct walk w = { 0 };

    /* Doubled uuids say nothing either. */
    some_disk(h, "scsi0:2", UUID_A);
    must_run(h, NULL);
    disk_set(a, 1, 3);
    disk_set(b, 1, 4);
    must_run(h, &w);
    assert_int_equal(w.sent, 2);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", a);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-1.raw", b);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-2.raw", &h->disks[2]);
    assert_string_equal(h->warnings, "");
}

static void an_excluded_disk_stays_as_it_is(void **state)
{
    struct host *h = *state;
    struct disk *a = some_disk(h, "scsi0:0", UUID_A), *b = some_disk(h, "scsi0:1", UUID_B), was_b;
    const struct generation_item *item;
    struct mirror_list *l;
    struct walk w = { 0 };
    struct err e;

    h->keep = 5;
    must_run(h, NULL);
    disk_copy(&was_b, b);
    b->included = false;
    disk_set(a, 1, 3);
    disk_set(b, 1, 4);
    must_run(h, NULL);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-1.raw", &was_b);
    snprintf(b->slot, sizeof b->slot, "scsi1:0"); /* renamed all the same */
    must_run(h, NULL);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi1-0.raw", &was_b);
    must_be_clean(h, "web01");
    assert_ok(mirror_list_load(&l, h->place, &h->env, &e), &e);
    item = mirror_list_at(l, 2);
    assert_int_equal(item->number, 3);
    assert_int_equal(item->disk_count, 2);
    assert_int_equal(item->disks[1].of_generation, 1);
    assert_int_equal(item->disks[0].of_generation, 3);
    mirror_list_free(l);
    b->included = true;
    must_run(h, &w);
    assert_int_equal(w.sent, 1);
    assert_false(w.distrusted);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi1-0.raw", b);
    must_restore(h, "2", "disk-scsi0-1.raw", &was_b);
    assert_string_equal(h->warnings, "");
    free(was_b.data);
}

static void a_folder_keeps_its_name_and_gen_takes_both(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A), was;
    char out[128];
    struct err e;

    h->keep = 2;
    must_run(h, NULL);
    disk_copy(&was, d);
    h->vm.name = "www-new";
    disk_set(d, 1, 2);
    must_run(h, NULL);
    assert_int_equal(access(in_mirror(h, "www-new", ""), F_OK), -1);
    must_restore(h, "web01@1", "disk-scsi0-0.raw", &was);
    must_restore(h, "www-new@1", "disk-scsi0-0.raw", &was);
    must_restore(h, "esx1/web01@2", "disk-scsi0-0.raw", d);
    must_restore(h, "uuid:564d8a0c-0000-1111-2222-333344445555@2", "disk-scsi0-0.raw", d);
    assert_int_equal(restore_gen(h, "esx2/web01@2", out, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_int_equal(restore_gen(h, "web01@3", out, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_int_equal(restore_gen(h, "web01@gestern", out, &e), -1);
    assert_int_equal(e.code, ERR_USAGE);
    free(was.data);
}

static void names_that_are_taken_get_eight_digits(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A);
    char out[128];
    struct err e;

    must_run(h, NULL);
    h->vm.uuid = "99999999-0000-1111-2222-333344445555";
    disk_set(d, 1, 2);
    must_run(h, NULL);
    assert_image(in_mirror(h, "web01-99999999", ""), "disk-scsi0-0.raw", d);
    assert_int_equal(restore_gen(h, "web01@1", out, &e), -1); /* of which? */
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_int_equal(restore_gen(h, "1", out, &e), -1);
    must_restore(h, "web01-99999999@1", "disk-scsi0-0.raw", d);

    /* One instance uuid twice on a host: the path decides, with a warning. */
    h->vm.uuid_shared = true;
    h->vm.vmx_path = "[ds1] copy/copy.vmx";
    assert_string_equal(h->warnings, "");
    disk_set(d, 1, 7);
    must_run(h, NULL);
    assert_image(in_mirror(h, "web01-99999999-2", ""), "disk-scsi0-0.raw", d);
    assert_non_null(strstr(h->warnings, "same instance UUID"));
    must_run(h, NULL);
    assert_int_equal(access(in_mirror(h, "web01-99999999-2", ".vmferry/generation-2"), F_OK), 0);

    /* Something that is no mirror takes a name as well; odd names are made safe. */
    h->vm.uuid_shared = false;
    h->vm.uuid = "aaaaaaaa-0000-1111-2222-333344445555";
    h->vm.name = "../x/";
    assert_int_equal(mkdir(in_mirror(h, "%2E.%2Fx%2F", ""), 0755), 0);
    must_run(h, NULL);
    assert_image(in_mirror(h, "%2E.%2Fx%2F-aaaaaaaa", ""), "disk-scsi0-0.raw", d);
}

/* --- refusals --- */

static void one_run_at_a_time(void **state)
{
    struct host *h = *state;
    struct mirror *m = NULL, *other = NULL;
    struct err e;

    some_disk(h, "scsi0:0", UUID_A);
    must_run(h, NULL);
    assert_ok(mirror_open_vm(&m, h->place, &h->vm, false, &h->env, &e), &e);
    assert_int_equal(mirror_open_vm(&other, h->place, &h->vm, false, &h->env, &e), -1);
    assert_int_equal(e.code, ERR_BUSY);
    /* Reading goes on meanwhile. */
    must_be_clean(h, "web01");
    mirror_close(m);
}

static void a_dry_run_changes_nothing(void **state)
{
    struct host *h = *state;
    struct mirror_run_options o = { .keep = -1 };
    struct mirror_disk d = {
        .slot = "scsi0:0", .uuid = UUID_A, .capacity_bytes = 10 * BLOCK, .included = true
    };
    struct mirror *m = NULL;
    struct mirror_run *r = NULL;
    struct err e;

    assert_ok(mirror_open_vm(&m, h->place, &h->vm, true, &h->env, &e), &e);
    assert_ok(mirror_run_begin(&r, m, &o, &d, 1, &e), &e);
    assert_true(mirror_run_disk(r, 0)->is_new);
    assert_string_equal(mirror_run_disk(r, 0)->file, "disk-scsi0-0.raw");
    mirror_run_end(r);
    mirror_close(m);
    assert_int_equal(access(h->place, F_OK), -1);
}

static void a_restore_wants_an_empty_place(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A);
    const struct generation_item *item;
    struct mirror_restored r;
    struct mirror_list *l;
    char to[128], file[160];
    struct err e;
    FILE *f;

    must_run(h, NULL);
    assert_ok(mirror_list_load(&l, h->place, &h->env, &e), &e);
    assert_ok(mirror_find(l, "web01@latest", &item, NULL, &e), &e);
    snprintf(to, sizeof to, "%s/there", h->dir);
    snprintf(file, sizeof file, "%s/mine", to);
    assert_int_equal(mkdir(to, 0755), 0);
    f = fopen(file, "w");
    assert_non_null(f);
    fclose(f);
    assert_int_equal(mirror_restore(item, to, &h->env, &r, &e), -1);
    assert_int_equal(e.code, ERR_REFUSED);
    assert_int_equal(unlink(file), 0);
    assert_ok(mirror_restore(item, to, &h->env, &r, &e), &e);
    assert_int_equal(r.disks, 1);
    assert_image(to, "disk-scsi0-0.raw", d);
    snprintf(file, sizeof file, "%s/.vmferry-restore", to);
    assert_int_equal(access(file, F_OK), -1);
    snprintf(file, sizeof file, "%s/config/web01.vmx", to);
    assert_int_equal(access(file, F_OK), 0);
    assert_int_equal(mirror_restore(item, to, &h->env, &r, &e), -1);
    assert_int_equal(e.code, ERR_REFUSED);
    mirror_list_free(l);
}

static void a_file_size_limit_ends_before_anything_comes(void **state)
{
    struct host *h = *state;
    struct rlimit was, now;
    struct err e;

    some_disk(h, "scsi0:0", UUID_A);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    now = was;
    now.rlim_cur = 50 * BLOCK;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &now), 0);
    assert_int_equal(host_run(h, &(struct walk){ 0 }, NULL, &e), -1);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    assert_int_equal(e.code, ERR_SPACE);
    must_run(h, NULL);
}

/* --- other tools --- */

static void qemu_reads_image_and_descriptor(void **state)
{
    struct host *h = *state;
    char command[600];

    some_disk(h, "scsi0:0", UUID_A);
    must_run(h, NULL);
    if (system("qemu-img --version >/dev/null 2>&1") != 0)
        fail_msg("qemu-img is missing");
    snprintf(command, sizeof command, "qemu-img compare -f raw -F vmdk %s %s >/dev/null",
             in_mirror(h, "web01", "disk-scsi0-0.raw"), in_mirror(h, "web01", "disk-scsi0-0.vmdk"));
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof command, "qemu-img info %s | grep -q 'file format: vmdk'",
             in_mirror(h, "web01", "disk-scsi0-0.vmdk"));
    assert_int_equal(system(command), 0);
}

static void generations_are_found_by_time_and_id(void **state)
{
    struct host *h = *state;
    const struct generation_item *item;
    struct mirror_list *l;
    uint64_t partial;
    struct err e;

    setenv("TZ", "UTC", 1);
    tzset();
    some_disk(h, "scsi0:0", UUID_A);
    h->keep = 9;
    h->time = 1763596800; /* 2025-11-20T00:00:00Z */
    for (int i = 0; i < 3; i++) {
        must_run(h, NULL);
        h->time += 3600 * 11; /* every 12 hours */
    }
    assert_ok(mirror_list_load(&l, h->place, &h->env, &e), &e);
    assert_int_equal(mirror_list_count(l), 3);
    assert_ok(mirror_find(l, "web01@2025-11-20", &item, &partial, &e), &e);
    assert_int_equal(item->number, 2);
    assert_ok(mirror_find(l, "web01@2025-11-20T00:00", &item, &partial, &e), &e);
    assert_int_equal(item->number, 1);
    assert_ok(mirror_find(l, "web01@2025-11-20T13:00:00+01:00", &item, &partial, &e), &e);
    assert_int_equal(item->number, 2);
    assert_ok(mirror_find(l, "web01@2025-11-21", &item, &partial, &e), &e);
    assert_int_equal(item->number, 3);
    assert_int_equal(mirror_find(l, "web01@2025-11-22", &item, &partial, &e), -1);
    assert_ok(mirror_find(l, mirror_list_at(l, 1)->id, &item, &partial, &e), &e);
    assert_int_equal(item->number, 2);
    assert_int_equal(mirror_find(l, "2025-11-20", &item, &partial, &e), -1);
    assert_int_equal(e.code, ERR_USAGE);
    assert_int_equal(mirror_find(l, "", &item, &partial, &e), -1);
    assert_int_equal(mirror_find(l, "@", &item, &partial, &e), -1);
    mirror_list_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(first_mirror_and_refreshes, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(every_kept_generation_restores_byte_for_byte, host_setup,
                                        host_teardown),
        cmocka_unit_test_setup_teardown(a_disk_may_grow_with_odd_ends, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(disks_come_go_and_change_places, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(without_uuid_a_disk_is_its_slot, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(an_excluded_disk_stays_as_it_is, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(a_folder_keeps_its_name_and_gen_takes_both, host_setup,
                                        host_teardown),
        cmocka_unit_test_setup_teardown(names_that_are_taken_get_eight_digits, host_setup,
                                        host_teardown),
        cmocka_unit_test_setup_teardown(one_run_at_a_time, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(a_dry_run_changes_nothing, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(a_restore_wants_an_empty_place, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(a_file_size_limit_ends_before_anything_comes, host_setup,
                                        host_teardown),
        cmocka_unit_test_setup_teardown(qemu_reads_image_and_descriptor, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(generations_are_found_by_time_and_id, host_setup,
                                        host_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
