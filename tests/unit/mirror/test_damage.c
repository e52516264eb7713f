/* Images that somebody touched, bits that rot, files of the store that are cut or gone. */
#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/block/tree.h"
#include "protocol/stream/sink.h"
#include "tests/unit/mirror/fixture.h"

/* --- images that somebody touched --- */

static void poke(const struct host *h, const char *file, uint64_t at, const char *text)
{
    const char *path = in_mirror(h, "web01", file);
    FILE *f;

    assert_int_equal(chmod(path, 0644), 0);
    f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, (long)at, SEEK_SET), 0);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void a_touched_image_is_redigested(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A);
    struct walk w = { 0 };

    must_run(h, NULL);
    assert_int_equal(chmod(in_mirror(h, "web01", "disk-scsi0-0.raw"), 0644), 0);
    must_run(h, &w);
    assert_true(w.distrusted);
    assert_int_equal(w.sent, 0);
    assert_non_null(strstr(h->warnings, "it was touched"));
    w = (struct walk){ 0 };
    must_run(h, &w);
    assert_false(w.distrusted);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
}

static void lost_content_damages_the_generations_that_need_it(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A), was[5];
    const struct generation_item *item;
    struct mirror_list *l;
    struct walk w = { 0 };
    struct problems p;
    char out[128];
    struct err e;

    h->keep = 9;
    must_run(h, NULL);
    disk_copy(&was[1], d);
    disk_set(d, 6, 50); /* generation 1 has its own block 6 */
    must_run(h, NULL);
    disk_copy(&was[2], d);
    /* 6 will change on the host; 9 will not: it comes back as it was; 20 is a hole. */
    poke(h, "disk-scsi0-0.raw", 6 * BLOCK, "x");
    poke(h, "disk-scsi0-0.raw", 9 * BLOCK, "y");
    poke(h, "disk-scsi0-0.raw", 20 * BLOCK, "z");
    assert_int_equal(check_mirror(h, "web01", false, &p, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
    assert_string_equal(p.object, "disk-scsi0-0.raw");
    disk_set(d, 6, 51);
    disk_set(d, 12, 52);
    must_run(h, &w);
    assert_true(w.distrusted);
    assert_int_equal(w.sent, 3);
    assert_int_equal(w.zero, 1);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
    must_restore(h, "3", "disk-scsi0-0.raw", d);
    must_restore(h, "1", "disk-scsi0-0.raw", &was[1]);
    assert_int_equal(restore_gen(h, "2", out, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
    assert_int_equal(access(out, F_OK), -1);
    assert_ok(mirror_list_load(&l, h->place, &h->env, &e), &e);
    item = mirror_list_at(l, 1);
    assert_true(item->damaged && item->disks[0].damaged_blocks == 1);
    assert_false(mirror_list_at(l, 0)->damaged || mirror_list_at(l, 2)->damaged);
    mirror_list_free(l);
    assert_int_equal(check_mirror(h, "web01", true, &p, &e), -1);
    assert_int_equal(p.count, 1);
    /* The damage is remembered by later generations. */
    must_run(h, NULL);
    assert_int_equal(restore_gen(h, "2", out, &e), -1);
    must_restore(h, "1", "disk-scsi0-0.raw", &was[1]);
    free(was[1].data);
    free(was[2].data);
}

/* A run that spoils something between its commit and its apply. */
static void spoiled_run(struct host *h, bool apply, const char *file, uint64_t at)
{
    struct mirror_facts f = some_facts(h);
    struct mirror_committed c;
    struct walk w = { 0 };
    struct mirror_run *r = NULL;
    struct mirror *m = NULL;
    struct err e;

    assert_ok(host_run_until_commit(h, &w, &m, &r, &e), &e);
    assert_ok(mirror_run_commit(r, &f, &c, &e), &e);
    poke(h, file, at, "rot");
    if (apply)
        assert_ok(mirror_run_apply(r, &e), &e);
    mirror_run_end(r);
    mirror_close(m);
}

static void rot_is_found_told_and_repaired(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A);
    uint64_t read_bytes, total = 0;
    struct mirror *m = NULL;
    struct walk w = { 0 };
    struct problems p;
    struct err e;

    h->keep = 3;
    must_run(h, NULL);
    disk_set(d, 1, 60);
    /* Bits that change without any trace in the file's times: only reading finds them. */
    spoiled_run(h, true, "disk-scsi0-0.raw", 9 * BLOCK + 5);
    assert_ok(check_mirror(h, "web01", false, &p, &e), &e);
    assert_int_equal(check_mirror(h, "web01", true, &p, &e), -1);
    assert_int_equal(p.count, 1);
    assert_int_equal(unlink(in_mirror(h, "web01", ".vmferry/suspect-1")), 0);
    /* The slices after the runs find it as well, one of them. */
    for (unsigned g = 3; g < 33; g++) {
        assert_ok(mirror_open_vm(&m, h->place, &h->vm, false, &h->env, &e), &e);
        if (mirror_verify_slice(m, 10000, &read_bytes, &e) != 0)
            break;
        total += read_bytes;
        mirror_close(m);
        m = NULL;
        must_run(h, NULL);
    }
    assert_non_null(m);
    mirror_close(m);
    assert_int_equal(e.code, ERR_CORRUPT);
    assert_true(total < 16 * BLOCK);
    assert_int_equal(access(in_mirror(h, "web01", ".vmferry/suspect-1"), F_OK), 0);
    must_run(h, &w);
    assert_true(w.distrusted);
    assert_int_equal(w.sent, 1);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
    assert_int_equal(access(in_mirror(h, "web01", ".vmferry/suspect-1"), F_OK), -1);
    must_be_clean(h, "web01");
}

static void rot_under_a_change_is_no_silent_loss(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A);
    struct mirror_list *l;
    char out[128];
    struct err e;

    h->keep = 3;
    must_run(h, NULL);
    spoiled_run(h, true, "disk-scsi0-0.raw", 9 * BLOCK + 5);
    disk_set(d, 9, 70); /* changes before anybody has read the bad block */
    must_run(h, NULL);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
    assert_ok(mirror_list_load(&l, h->place, &h->env, &e), &e);
    assert_true(mirror_list_at(l, 0)->damaged && mirror_list_at(l, 1)->damaged);
    mirror_list_free(l);
    assert_int_equal(restore_gen(h, "2", out, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
}

static void an_image_touched_during_a_run_is_not_trusted_after_it(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A);
    struct mirror_facts f = some_facts(h);
    struct mirror_committed c;
    struct mirror_run *r = NULL;
    struct mirror *m = NULL;
    struct walk w = { 0 };
    struct err e;

    must_run(h, NULL);
    assert_ok(host_run_until_commit(h, &w, &m, &r, &e), &e);
    poke(h, "disk-scsi0-0.raw", 9 * BLOCK, "x");
    assert_ok(mirror_run_commit(r, &f, &c, &e), &e);
    assert_ok(mirror_run_apply(r, &e), &e);
    mirror_run_end(r);
    mirror_close(m);
    w = (struct walk){ 0 };
    must_run(h, &w);
    assert_true(w.distrusted);
    assert_int_equal(w.sent, 1);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
}

static void an_excluded_image_that_is_touched_stays_distrusted(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A);
    struct walk w = { 0 };

    must_run(h, NULL);
    poke(h, "disk-scsi0-0.raw", 9 * BLOCK, "x");
    d->included = false;
    must_run(h, NULL);
    snprintf(d->slot, sizeof d->slot, "scsi0:5");
    must_run(h, NULL);
    d->included = true;
    must_run(h, &w);
    assert_true(w.distrusted);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-5.raw", d);
}

static void a_manifest_is_proved_by_its_hash(void **state)
{
    struct host *h = *state;
    struct problems p;
    char command[400];
    struct err e;

    some_disk(h, "scsi0:0", UUID_A);
    must_run(h, NULL);
    /* Still a good record in every other way. */
    snprintf(command, sizeof command, "sed -i 's/^consistency crash$/consistency Crash/' %s",
             in_mirror(h, "web01", ".vmferry/generation-1"));
    assert_int_equal(system(command), 0);
    assert_int_equal(check_mirror(h, "web01", false, &p, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
    assert_non_null(strstr(e.text, "checksum"));
}

/* The redo goes bad after the commit: the next run fetches what is missing. */
static void damaged_redo(struct host *h, const char *file, uint64_t at, bool first_is_whole)
{
    struct disk *d = some_disk(h, "scsi0:0", UUID_A), was;
    struct mirror_list *l;
    struct problems p;
    struct walk w = { 0 };
    struct err e;

    h->keep = 3;
    must_run(h, NULL);
    disk_copy(&was, d);
    disk_set(d, 1, 60);
    disk_set(d, 3, 61);
    disk_set(d, 6, 0);
    spoiled_run(h, false, file, at);
    assert_int_equal(access(in_mirror(h, "web01", "REFRESH-INTERRUPTED"), F_OK), 0);
    assert_int_equal(check_mirror(h, "web01", true, &p, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
    assert_non_null(strstr(e.text, strrchr(file, '/') + 1));
    assert_ok(mirror_list_load(&l, h->place, &h->env, &e), &e);
    assert_int_equal(mirror_list_problem_count(l), 1);
    mirror_list_free(l);
    assert_int_equal(access(in_mirror(h, "web01", "REFRESH-INTERRUPTED"), F_OK), 0);
    disk_set(d, 12, 62);
    must_run(h, &w);
    assert_true(w.distrusted);
    assert_int_equal(access(in_mirror(h, "web01", "REFRESH-INTERRUPTED"), F_OK), -1);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
    must_restore(h, "web01@3", "disk-scsi0-0.raw", d);
    if (first_is_whole)
        must_restore(h, "web01@1", "disk-scsi0-0.raw", &was);
    free(was.data);
}

static void a_damaged_block_of_a_committed_redo_is_fetched_again(void **state)
{
    damaged_redo(*state, ".vmferry/redo-1.blocks", 300, true);
}

static void a_damaged_index_of_a_committed_redo_is_read_around(void **state)
{
    damaged_redo(*state, ".vmferry/redo-1.index", 140, false);
}

static void a_missing_image_is_read_anew(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A);
    char out[128];
    struct err e;

    h->keep = 3;
    must_run(h, NULL);
    assert_int_equal(unlink(in_mirror(h, "web01", "disk-scsi0-0.raw")), 0);
    must_run(h, NULL);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
    assert_int_equal(restore_gen(h, "1", out, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
    must_restore(h, "2", "disk-scsi0-0.raw", d);
}

/* --- damage of the store --- */

static void damage(const char *path, long at, bool cut)
{
    struct stat s;
    FILE *f;
    int c;

    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(stat(path, &s), 0);
    if (at < 0)
        at = (long)s.st_size + at;
    if (cut) {
        assert_int_equal(truncate(path, at), 0);
        return;
    }
    f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, at, SEEK_SET);
    c = fgetc(f);
    fseek(f, at, SEEK_SET);
    fputc(c ^ 0x10, f);
    assert_int_equal(fclose(f), 0);
}

static void damaged_files_are_named(void **state)
{
    static const struct {
        const char *file;
        long at;
        bool cut;
        const char *gen; /* a restore of it must fail */
    } cases[] = {
        { ".vmferry/generation-2", 100, false, "web01@2" },
        { ".vmferry/generation-2", -1, true, "web01@2" },
        { ".vmferry/generation-1", 40, false, "web01@1" },
        { ".vmferry/generation-1", -70, true, "web01@1" },
        { ".vmferry/digests-1", 3, false, "web01@2" },
        { ".vmferry/digests-1", -16, true, "web01@2" },
        { ".vmferry/delta-1-1.index", 20, false, "web01@1" },
        { ".vmferry/delta-1-1.index", 150, false, "web01@1" },
        { ".vmferry/delta-1-1.index", -48, true, "web01@1" },
        { ".vmferry/delta-1-1.blocks", 500, false, "web01@1" },
        { ".vmferry/delta-1-1.blocks", -1, true, "web01@1" },
        { ".vmferry/config-1/web01.vmx", 2, false, "web01@1" },
        { ".vmferry/identity", 60, false, "web01@1" },
        { "config/web01.vmx", 2, false, NULL },
        { "disk-scsi0-0.vmdk", 30, false, NULL },
        { "disk-scsi0-0.raw", 10, false, "web01@2" },
        { "disk-scsi0-0.raw", -512, true, "web01@2" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        const char *name = strrchr(cases[i].file, '/');
        struct problems p;
        struct host h;
        struct disk *d;
        char out[128];
        struct err e;

        name = name != NULL ? name + 1 : cases[i].file;
        host_new(&h);
        h.keep = 2;
        d = some_disk(&h, "scsi0:0", UUID_A);
        must_run(&h, NULL);
        disk_set(d, 3, 40);
        disk_set(d, 7, 41);
        must_run(&h, NULL);
        must_be_clean(&h, "web01");
        damage(in_mirror(&h, "web01", cases[i].file), cases[i].at, cases[i].cut);
        if (check_mirror(&h, "web01", true, &p, &e) == 0)
            fail_msg("case %zu (%s): nothing was found", i, cases[i].file);
        assert_int_equal(e.code, ERR_CORRUPT);
        if (strstr(p.object, name) == NULL && strstr(p.text, name) == NULL)
            fail_msg("case %zu: %s is not named by %s: %s", i, cases[i].file, p.object, p.text);
        if (cases[i].gen != NULL) {
            assert_int_equal(restore_gen(&h, cases[i].gen, out, &e), -1);
            assert_int_equal(access(out, F_OK), -1);
        }
        host_free(&h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_touched_image_is_redigested, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(lost_content_damages_the_generations_that_need_it,
                                        host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(rot_is_found_told_and_repaired, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(rot_under_a_change_is_no_silent_loss, host_setup,
                                        host_teardown),
        cmocka_unit_test_setup_teardown(an_image_touched_during_a_run_is_not_trusted_after_it,
                                        host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(an_excluded_image_that_is_touched_stays_distrusted,
                                        host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(a_manifest_is_proved_by_its_hash, host_setup,
                                        host_teardown),
        cmocka_unit_test_setup_teardown(a_damaged_block_of_a_committed_redo_is_fetched_again,
                                        host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(a_damaged_index_of_a_committed_redo_is_read_around,
                                        host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(a_missing_image_is_read_anew, host_setup, host_teardown),
        cmocka_unit_test_setup_teardown(damaged_files_are_named, host_setup, host_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
