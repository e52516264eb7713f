#include "tests/unit/cmocka_all.h"

#include <pthread.h>
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

static const char UUID_A[] = "60 00 C2 91 00 00 00 00-00 00 00 00 00 00 00 0a";
static const char UUID_B[] = "60 00 C2 92 00 00 00 00-00 00 00 00 00 00 00 0b";

static int setup(void **state)
{
    struct host *h = malloc(sizeof *h);

    host_new(h);
    *state = h;
    return 0;
}

static int teardown(void **state)
{
    host_free(*state);
    free(*state);
    return 0;
}

/* A disk with some content, holes, and a short last block. */
static struct disk *some_disk(struct host *h, const char *slot, const char *uuid)
{
    struct disk *d = host_add(h, slot, uuid, 100 * BLOCK + 1536);

    for (unsigned b = 0; b < 40; b += 3)
        disk_set(d, b, b + 1);
    disk_set(d, 90, 7);
    disk_set(d, 100, 9);
    return d;
}

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

static void run(struct host *h, struct walk *w)
{
    struct walk none = { 0 };
    struct err e;

    if (w == NULL)
        w = &none;
    assert_ok(host_run(h, w, NULL, &e), &e);
}

static void must_restore(struct host *h, const char *gen, const char *file, const struct disk *d)
{
    char out[128];
    struct err e;

    assert_ok(restore_gen(h, gen, out, &e), &e);
    assert_image(out, file, d);
}

static void must_be_clean(struct host *h, const char *name)
{
    struct problems p;
    struct err e;

    if (check_mirror(h, name, true, &p, &e) != 0)
        fail_msg("%s: %s", p.object, p.text);
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
        run(h, NULL);
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
    run(h, NULL);
    h->keep = -1;
    h->keep_lower = false;
    run(h, NULL);
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
        run(h, NULL);
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
    run(h, NULL);
    disk_copy(&was_a, a);
    disk_copy(&was_b, b);

    snprintf(a->slot, sizeof a->slot, "scsi0:1");
    snprintf(b->slot, sizeof b->slot, "scsi0:0");
    disk_set(a, 1, 5);
    run(h, &w);
    assert_int_equal(w.sent, 1);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-1.raw", a);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", b);
    must_be_clean(h, "web01");

    /* B goes; its image stays under another name, and generation 1 still has it. */
    h->count = 1;
    run(h, NULL);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.removed-2025-11-20.raw", &was_b);
    assert_int_equal(access(in_mirror(h, "web01", "disk-scsi0-0.raw"), F_OK), -1);
    assert_int_equal(access(in_mirror(h, "web01", "disk-scsi0-0.vmdk"), F_OK), -1);
    must_be_clean(h, "web01");
    assert_ok(restore_gen(h, "1", out, &e), &e);
    assert_image(out, "disk-scsi0-0.raw", &was_a);
    assert_image(out, "disk-scsi0-1.raw", &was_b);
    free(b->data);
    some_disk(h, "scsi0:2", "60 00 C2 99");
    run(h, NULL);
    run(h, NULL);
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
    run(h, NULL);
    disk_set(a, 1, 3);
    disk_set(b, 1, 4);
    run(h, &w);
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
    run(h, NULL);
    disk_copy(&was_b, b);
    b->included = false;
    disk_set(a, 1, 3);
    disk_set(b, 1, 4);
    run(h, NULL);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-1.raw", &was_b);
    snprintf(b->slot, sizeof b->slot, "scsi1:0"); /* renamed all the same */
    run(h, NULL);
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
    run(h, &w);
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
    run(h, NULL);
    disk_copy(&was, d);
    h->vm.name = "www-new";
    disk_set(d, 1, 2);
    run(h, NULL);
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

    run(h, NULL);
    h->vm.uuid = "99999999-0000-1111-2222-333344445555";
    disk_set(d, 1, 2);
    run(h, NULL);
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
    run(h, NULL);
    assert_image(in_mirror(h, "web01-99999999-2", ""), "disk-scsi0-0.raw", d);
    assert_non_null(strstr(h->warnings, "same instance UUID"));
    run(h, NULL);
    assert_int_equal(access(in_mirror(h, "web01-99999999-2", ".vmferry/generation-2"), F_OK), 0);

    /* Something that is no mirror takes a name as well; odd names are made safe. */
    h->vm.uuid_shared = false;
    h->vm.uuid = "aaaaaaaa-0000-1111-2222-333344445555";
    h->vm.name = "../x/";
    assert_int_equal(mkdir(in_mirror(h, "%2E.%2Fx%2F", ""), 0755), 0);
    run(h, NULL);
    assert_image(in_mirror(h, "%2E.%2Fx%2F-aaaaaaaa", ""), "disk-scsi0-0.raw", d);
}

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

    run(h, NULL);
    assert_int_equal(chmod(in_mirror(h, "web01", "disk-scsi0-0.raw"), 0644), 0);
    run(h, &w);
    assert_true(w.distrusted);
    assert_int_equal(w.sent, 0);
    assert_non_null(strstr(h->warnings, "it was touched"));
    w = (struct walk){ 0 };
    run(h, &w);
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
    run(h, NULL);
    disk_copy(&was[1], d);
    disk_set(d, 6, 50); /* generation 1 has its own block 6 */
    run(h, NULL);
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
    run(h, &w);
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
    run(h, NULL);
    assert_int_equal(restore_gen(h, "2", out, &e), -1);
    must_restore(h, "1", "disk-scsi0-0.raw", &was[1]);
    free(was[1].data);
    free(was[2].data);
}

static struct mirror_facts some_facts(const struct host *h)
{
    return (struct mirror_facts){ .time = h->time,
                                  .kind = "full",
                                  .outcome = "ok",
                                  .consistency = "crash",
                                  .data_channel = "ssh",
                                  .read_path = "ssh-dd",
                                  .change_source = "full" };
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
    run(h, NULL);
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
        run(h, NULL);
    }
    assert_non_null(m);
    mirror_close(m);
    assert_int_equal(e.code, ERR_CORRUPT);
    assert_true(total < 16 * BLOCK);
    assert_int_equal(access(in_mirror(h, "web01", ".vmferry/suspect-1"), F_OK), 0);
    run(h, &w);
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
    run(h, NULL);
    spoiled_run(h, true, "disk-scsi0-0.raw", 9 * BLOCK + 5);
    disk_set(d, 9, 70); /* changes before anybody has read the bad block */
    run(h, NULL);
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

    run(h, NULL);
    assert_ok(host_run_until_commit(h, &w, &m, &r, &e), &e);
    poke(h, "disk-scsi0-0.raw", 9 * BLOCK, "x");
    assert_ok(mirror_run_commit(r, &f, &c, &e), &e);
    assert_ok(mirror_run_apply(r, &e), &e);
    mirror_run_end(r);
    mirror_close(m);
    w = (struct walk){ 0 };
    run(h, &w);
    assert_true(w.distrusted);
    assert_int_equal(w.sent, 1);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
}

static void an_excluded_image_that_is_touched_stays_distrusted(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A);
    struct walk w = { 0 };

    run(h, NULL);
    poke(h, "disk-scsi0-0.raw", 9 * BLOCK, "x");
    d->included = false;
    run(h, NULL);
    snprintf(d->slot, sizeof d->slot, "scsi0:5");
    run(h, NULL);
    d->included = true;
    run(h, &w);
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
    run(h, NULL);
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
    run(h, NULL);
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
    run(h, &w);
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
    run(h, NULL);
    assert_int_equal(unlink(in_mirror(h, "web01", "disk-scsi0-0.raw")), 0);
    run(h, NULL);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
    assert_int_equal(restore_gen(h, "1", out, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
    must_restore(h, "2", "disk-scsi0-0.raw", d);
}

/* --- resuming --- */

static void a_cut_first_mirror_goes_on(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A);
    struct walk w = { .stop_at = 30 };
    struct err e;

    assert_int_equal(host_run(h, &w, NULL, &e), -1);
    assert_int_equal(e.code, ERR_NETWORK);
    assert_int_equal(w.sent, 10);
    assert_int_equal(access(in_mirror(h, "web01", ""), F_OK), -1);
    /* The guest goes on writing in between: other content, zeros, data in a hole. */
    disk_set(d, 3, 77);
    disk_set(d, 6, 0);
    disk_set(d, 7, 78);
    w = (struct walk){ .stop_at = 60 };
    assert_int_equal(host_run(h, &w, NULL, &e), -1);
    assert_true(w.resumed);
    assert_int_equal(w.sent, 2 + 4);
    w = (struct walk){ 0 };
    run(h, &w);
    assert_true(w.resumed);
    assert_int_equal(w.sent, 2);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
    must_be_clean(h, "web01");
    assert_int_equal(access(in_mirror(h, ".web01.part", ""), F_OK), -1);
}

/* As before a change hint: the VM has left the state that was staged. */
static void what_a_cut_refresh_staged_can_be_thrown_away(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A), was;
    struct walk w = { .stop_at = 60 };
    struct err e;

    run(h, NULL);
    disk_copy(&was, d);
    for (unsigned b = 0; b < 50; b += 2)
        disk_set(d, b, 100 + b);
    assert_int_equal(host_run(h, &w, NULL, &e), -1);
    memcpy(d->data, was.data, d->capacity);
    disk_set(d, 3, 300);
    w = (struct walk){ .unstage = true };
    run(h, &w);
    assert_true(w.resumed);
    assert_int_equal(w.sent, 1);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
    must_be_clean(h, "web01");
    free(was.data);
}

static void it_tells_what_it_holds(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A);
    struct mirror_head one, two;
    struct walk w = { 0 };
    struct digest root;
    struct mirror *m;
    struct err e;
    FILE *f;

    run(h, &w);
    assert_false(w.held); /* nothing was there */
    w = (struct walk){ 0 };
    run(h, &w);
    assert_true(w.held);
    root = w.held_root;
    assert_int_equal(mirror_open_vm(&m, h->place, &h->vm, false, &h->env, &e), 0);
    mirror_head(m, &one);
    mirror_close(m);
    assert_int_equal(one.number, 2);
    assert_int_equal(strlen(one.mirror), 32);
    assert_int_equal(strlen(one.id), 32);

    disk_set(d, 3, 300);
    w = (struct walk){ 0 };
    run(h, &w);
    assert_true(digest_equal(&w.held_root, &root)); /* of what was there before */
    w = (struct walk){ 0 };
    run(h, &w);
    assert_false(digest_equal(&w.held_root, &root));
    assert_int_equal(mirror_open_vm(&m, h->place, &h->vm, false, &h->env, &e), 0);
    mirror_head(m, &two);
    mirror_close(m);
    assert_int_equal(two.number, 4);
    assert_string_equal(two.mirror, one.mirror);
    assert_string_not_equal(two.id, one.id);

    /* An image that somebody has touched is not what was recorded. */
    assert_int_equal(chmod(in_mirror(h, "web01", "disk-scsi0-0.raw"), 0600), 0);
    f = fopen(in_mirror(h, "web01", "disk-scsi0-0.raw"), "r+b");
    assert_non_null(f);
    assert_int_equal(fputc('x', f), 'x');
    fclose(f);
    w = (struct walk){ 0 };
    run(h, &w);
    assert_true(w.distrusted);
    assert_false(w.held);
    w = (struct walk){ 0 };
    run(h, &w);
    assert_true(w.held);
}

static void a_cut_refresh_goes_on(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A), was;
    struct walk w = { .stop_at = 60 };
    struct err e;

    h->keep = 2;
    run(h, NULL);
    disk_copy(&was, d);
    for (unsigned b = 0; b < 50; b += 2)
        disk_set(d, b, 100 + b);
    assert_int_equal(host_run(h, &w, NULL, &e), -1);
    assert_int_equal(w.sent, 25);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", &was);
    disk_set(d, 2, 300);                                      /* changed again */
    disk_set(d, 4, 0);                                        /* zeros now */
    memcpy(d->data + 6 * BLOCK, was.data + 6 * BLOCK, BLOCK); /* back to what it was */
    memcpy(d->data + 8 * BLOCK, was.data + 8 * BLOCK, BLOCK); /* back to a hole */
    disk_set(d, 9, 301);
    w = (struct walk){ .stop_at = 20 };
    assert_int_equal(host_run(h, &w, NULL, &e), -1);
    assert_true(w.resumed);
    assert_int_equal(w.sent, 3);
    assert_int_equal(w.zero, 2);
    disk_set(d, 10, 302);
    w = (struct walk){ .stop_at = 45 };
    assert_int_equal(host_run(h, &w, NULL, &e), -1);
    assert_int_equal(w.sent, 1);
    w = (struct walk){ 0 };
    run(h, &w);
    assert_int_equal(w.sent + w.zero, 0);
    assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
    must_be_clean(h, "web01");
    must_restore(h, "1", "disk-scsi0-0.raw", &was);
    assert_string_equal(h->warnings, "");
    free(was.data);
}

static void random_cuts_and_changes_end_in_the_truth(void **state)
{
    struct host *h = *state;
    struct disk *d = some_disk(h, "scsi0:0", UUID_A), was = { 0 };
    unsigned runs = 0;
    struct err e;

    h->keep = 2;
    srand(20261120);
    while (runs < 12) {
        struct walk w = { .stop_at = rand() % 3 != 0 ? 1 + (unsigned)rand() % 110 : 0,
                          .full = rand() % 8 == 0,
                          .raw = rand() % 2 == 0 };

        if (host_run(h, &w, NULL, &e) == 0) {
            runs++;
            assert_image(in_mirror(h, "web01", ""), "disk-scsi0-0.raw", d);
            must_be_clean(h, "web01");
            if (runs > 1) {
                char gen[32];

                snprintf(gen, sizeof gen, "%u", runs - 1);
                must_restore(h, gen, "disk-scsi0-0.raw", &was);
            }
            free(was.data);
            disk_copy(&was, d);
            if (rand() % 3 == 0)
                disk_grow(d, d->capacity + 512 * (1 + (unsigned)rand() % 40));
        } else {
            assert_int_equal(e.code, ERR_NETWORK);
        }
        for (int i = rand() % 12; i > 0; i--)
            disk_set(d, (unsigned)rand() % block_count_of(d->capacity, BLOCK),
                     rand() % 3 == 0 ? 0 : (unsigned)rand() | 1);
    }
    free(was.data);
}

/* --- refusals --- */

static void one_run_at_a_time(void **state)
{
    struct host *h = *state;
    struct mirror *m = NULL, *other = NULL;
    struct err e;

    some_disk(h, "scsi0:0", UUID_A);
    run(h, NULL);
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

    run(h, NULL);
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
    run(h, NULL);
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
        run(&h, NULL);
        disk_set(d, 3, 40);
        disk_set(d, 7, 41);
        run(&h, NULL);
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

/* --- other tools --- */

static void qemu_reads_image_and_descriptor(void **state)
{
    struct host *h = *state;
    char command[600];

    some_disk(h, "scsi0:0", UUID_A);
    run(h, NULL);
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
        run(h, NULL);
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

/* --- parallel disks --- */

struct feeder {
    struct sink *s;
    const struct disk *d;
    struct walk w;
    struct err e;
    int rc;
};

static void *feed(void *context)
{
    struct feeder *f = context;

    f->rc = walk_disk(f->s, f->d, &f->w, &f->e);
    f->s->ops->close(f->s);
    return NULL;
}

static void disks_come_in_parallel(void **state)
{
    struct host *h = *state;
    static const char *const slots[] = { "scsi0:0", "scsi0:1", "nvme0:0", "sata0:3" };
    struct mirror_run_options o = { .keep = 2, .block_bytes = BLOCK };
    struct mirror_facts f = some_facts(h);
    struct mirror_disk disks[4];
    struct mirror_committed c;
    struct feeder feeders[4];
    struct mirror_run *r = NULL;
    struct mirror *m = NULL;
    pthread_t threads[4];
    struct err e;

    for (unsigned i = 0; i < 4; i++) {
        char uuid[8];

        snprintf(uuid, sizeof uuid, "u%u", i);
        some_disk(h, slots[i], uuid);
    }
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 4; i++) {
            disk_set(&h->disks[i], 20 + i, 30 + round);
            disks[i] = (struct mirror_disk){ .slot = h->disks[i].slot,
                                             .uuid = h->disks[i].uuid,
                                             .capacity_bytes = h->disks[i].capacity,
                                             .included = true };
        }
        assert_ok(mirror_open_vm(&m, h->place, &h->vm, false, &h->env, &e), &e);
        assert_ok(mirror_run_begin(&r, m, &o, disks, 4, &e), &e);
        for (unsigned i = 0; i < 4; i++) {
            feeders[i] = (struct feeder){ .d = &h->disks[i] };
            assert_ok(mirror_run_sink(r, i, &feeders[i].s, &e), &e);
            assert_int_equal(pthread_create(&threads[i], NULL, feed, &feeders[i]), 0);
        }
        for (unsigned i = 0; i < 4; i++) {
            assert_int_equal(pthread_join(threads[i], NULL), 0);
            assert_ok(feeders[i].rc, &feeders[i].e);
        }
        assert_ok(mirror_run_commit(r, &f, &c, &e), &e);
        assert_ok(mirror_run_apply(r, &e), &e);
        mirror_run_end(r);
        mirror_close(m);
    }
    for (unsigned i = 0; i < 4; i++) {
        char file[64];

        snprintf(file, sizeof file, "disk-%s.raw", slots[i]);
        *strchr(file, ':') = '-';
        assert_image(in_mirror(h, "web01", ""), file, &h->disks[i]);
    }
    must_be_clean(h, "web01");
}

/* --- a disk of 62 TB with a few blocks --- */

enum { GIANT_BLOCKS = 10 };
#define GIANT ((uint64_t)62000 * 1000 * 1000 * 1000 / 512 * 512)

static uint64_t giant_block(unsigned i)
{
    return i == GIANT_BLOCKS - 1 ? GIANT / BLOCK : (uint64_t)i * i * 40000003;
}

static int give_giant(struct sink *s, struct tree *t, uint64_t block, unsigned seed, struct err *e)
{
    static uint8_t plain[BLOCK];
    size_t bytes = (size_t)min_u64(BLOCK, GIANT - block * BLOCK);
    struct sink_block b = { .offset_bytes = block * BLOCK,
                            .plain = plain,
                            .plain_bytes = bytes,
                            .packed = plain,
                            .packed_bytes = bytes,
                            .encoding = ENCODING_RAW };

    memset(plain, (int)seed, sizeof plain);
    b.digest = digest_of(&s->secret, plain, bytes);
    if (tree_add(t, &b.digest, 1, e) != 0)
        return -1;
    return s->ops->data(s, &b, e);
}

static int walk_giant(struct sink *s, unsigned seed, struct err *e)
{
    uint64_t blocks = block_count_of(GIANT, BLOCK), at = 0;
    struct digest root;
    struct tree *t = NULL;
    int rc = tree_new(&t, &s->secret, GIANT, BLOCK, e);

    for (unsigned i = 0; i <= GIANT_BLOCKS && rc == 0; i++) {
        uint64_t next = i < GIANT_BLOCKS ? giant_block(i) : blocks;
        struct digest held[8];
        struct held h;

        rc = s->ops->held(s, min_u64(at, blocks - 1) * BLOCK, GIANT, held, 8, &h, e);
        if (next > at && rc == 0)
            rc = s->ops->zero(s, at * BLOCK, min_u64((next - at) * BLOCK, GIANT - at * BLOCK), e);
        if (rc == 0)
            rc = tree_add_zeros(t, next - at, e);
        if (i < GIANT_BLOCKS && rc == 0)
            rc = give_giant(s, t, next, i == 3 ? seed : i + 1, e);
        at = next + 1;
    }
    if (rc == 0)
        rc = tree_root(t, &root, e);
    if (rc == 0)
        rc = s->ops->end(s, &root, e);
    tree_free(t);
    return rc;
}

static void a_giant_disk_costs_what_it_uses(void **state)
{
    struct host *h = *state;
    struct mirror_disk d = {
        .slot = "scsi0:0", .uuid = UUID_A, .capacity_bytes = GIANT, .included = true
    };
    struct mirror_run_options o = { .keep = 2, .block_bytes = BLOCK };
    struct mirror_facts f = some_facts(h);
    struct mirror_committed c;
    struct rusage usage;
    char out[128];
    struct err e;
    struct stat s;

    /* ext4 ends at 16 TiB; only a file system in memory is sure to take it. */
    if (strncmp(h->dir, "/dev/shm/", 9) != 0)
        skip();
    for (unsigned round = 0; round < 3; round++) {
        struct mirror_run *r = NULL;
        struct mirror *m = NULL;
        struct sink *sink;
        int rc;

        assert_ok(mirror_open_vm(&m, h->place, &h->vm, false, &h->env, &e), &e);
        assert_ok(mirror_run_begin(&r, m, &o, &d, 1, &e), &e);
        assert_ok(mirror_run_sink(r, 0, &sink, &e), &e);
        rc = walk_giant(sink, 100 + round, &e);
        sink->ops->close(sink);
        assert_ok(rc, &e);
        assert_ok(mirror_run_commit(r, &f, &c, &e), &e);
        assert_ok(mirror_run_apply(r, &e), &e);
        mirror_run_end(r);
        mirror_close(m);
    }
    must_be_clean(h, "web01");
    assert_ok(restore_gen(h, "1", out, &e), &e);
    strcat(out, "/disk-scsi0-0.raw");
    assert_int_equal(stat(out, &s), 0);
    assert_int_equal(s.st_size, GIANT);
    assert_true((uint64_t)s.st_blocks * 512 <= 16 * BLOCK);
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
    assert_true(usage.ru_maxrss <= 64 * 1024);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(first_mirror_and_refreshes, setup, teardown),
        cmocka_unit_test_setup_teardown(every_kept_generation_restores_byte_for_byte, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_disk_may_grow_with_odd_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(disks_come_go_and_change_places, setup, teardown),
        cmocka_unit_test_setup_teardown(without_uuid_a_disk_is_its_slot, setup, teardown),
        cmocka_unit_test_setup_teardown(an_excluded_disk_stays_as_it_is, setup, teardown),
        cmocka_unit_test_setup_teardown(a_folder_keeps_its_name_and_gen_takes_both, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(names_that_are_taken_get_eight_digits, setup, teardown),
        cmocka_unit_test_setup_teardown(a_touched_image_is_redigested, setup, teardown),
        cmocka_unit_test_setup_teardown(lost_content_damages_the_generations_that_need_it, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(rot_is_found_told_and_repaired, setup, teardown),
        cmocka_unit_test_setup_teardown(rot_under_a_change_is_no_silent_loss, setup, teardown),
        cmocka_unit_test_setup_teardown(an_image_touched_during_a_run_is_not_trusted_after_it,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(an_excluded_image_that_is_touched_stays_distrusted, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_manifest_is_proved_by_its_hash, setup, teardown),
        cmocka_unit_test_setup_teardown(a_damaged_block_of_a_committed_redo_is_fetched_again, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_damaged_index_of_a_committed_redo_is_read_around, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_missing_image_is_read_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(a_cut_first_mirror_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(a_cut_refresh_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(what_a_cut_refresh_staged_can_be_thrown_away, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(it_tells_what_it_holds, setup, teardown),
        cmocka_unit_test_setup_teardown(random_cuts_and_changes_end_in_the_truth, setup, teardown),
        cmocka_unit_test_setup_teardown(one_run_at_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(a_dry_run_changes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_restore_wants_an_empty_place, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_size_limit_ends_before_anything_comes, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(damaged_files_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(qemu_reads_image_and_descriptor, setup, teardown),
        cmocka_unit_test_setup_teardown(generations_are_found_by_time_and_id, setup, teardown),
        cmocka_unit_test_setup_teardown(disks_come_in_parallel, setup, teardown),
        cmocka_unit_test_setup_teardown(a_giant_disk_costs_what_it_uses, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
